"""What the streams of a whole store say of themselves."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import product
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import Store
from zarr.codecs import ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.zarr_codec import MoECSerializer
from moec_zarr.errors import CorruptStreamError, MoECError

if TYPE_CHECKING:
    from moec_zarr.report.inspection import StreamInfo

__all__ = ["compressed_arrays", "inspect_streams"]

_ABSENT = 2**64 - 1  # offset and length of a chunk that a shard does not hold


def compressed_arrays(store: str | PathLike[str] | Store) -> dict[str, zarr.Array[Any]]:
    """The arrays of a store that this package's codec compressed, by name.

    Parameters
    ----------
    store : path or zarr Store
        A zarr group, or one array, whose name is then empty.

    Returns
    -------
    dict of str to zarr.Array
        Sorted by name.

    Raises
    ------
    MoECError
        If there is no such array, or no zarr store at all.
    """
    place = store if isinstance(store, Store) else fspath(store)
    try:
        root = zarr.open(place, mode="r")
    except FileNotFoundError as error:
        raise MoECError(f"there is no zarr store at {store}") from error
    arrays = {"": root} if isinstance(root, zarr.Array) else dict(root.arrays())
    found = {name: array for name, array in sorted(arrays.items()) if _is_compressed(array)}
    if not found:
        raise MoECError(f"{store} holds no array that was compressed with moec_zarr")
    return found


def _is_compressed(array: zarr.Array[Any]) -> bool:
    codecs = [*array.compressors, array.serializer]
    return any(isinstance(codec, (MoECCodec, MoECSerializer)) for codec in codecs)


def inspect_streams(array: zarr.Array[Any]) -> Iterator[tuple[tuple[int, ...], StreamInfo]]:
    """What each stored chunk of an array says of itself, without decoding it.

    Parameters
    ----------
    array : zarr.Array
        One of `compressed_arrays`.

    Yields
    ------
    index : tuple of int
        Position of the chunk among the others. Chunks that hold nothing but the fill value are not stored.
    info : StreamInfo

    Raises
    ------
    CorruptStreamError
        If a stream or a shard is damaged.
    UnsupportedVersionError
        If a newer version of this package wrote a stream.
    """
    from moec_zarr.report.inspection import inspect

    outer = array.shards or array.chunks
    for place in product(*(range(-(-n // side)) for n, side in zip(array.shape, outer, strict=True))):
        key = "/".join(part for part in (array.path, array.metadata.encode_chunk_key(place)) if part)
        buffer = sync(array.store.get(key, default_buffer_prototype()))
        if buffer is None:
            continue
        data = buffer.to_bytes()
        for inner, stream in _streams(array, data, key):
            yield (
                tuple(o * n + i for o, n, i in zip(place, _per_shard(array), inner, strict=True)),
                inspect(stream),
            )


def _per_shard(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Chunks in a stored object, along each dimension."""
    if array.shards is None:
        return (1,) * array.ndim
    return tuple(outer // side for outer, side in zip(array.shards, array.chunks, strict=True))


def _streams(array: zarr.Array[Any], data: bytes, key: str) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """The streams within a stored object, each with its position there.

    A shard ends, or begins, with an index: offset and length of each chunk as 64-bit little-endian integers,
    then their CRC-32C (zarr's specification of `sharding_indexed`).
    """
    counts = _per_shard(array)
    if array.shards is None:
        yield (0,) * array.ndim, data
        return
    places = list(product(*map(range, counts)))
    size = 16 * len(places)
    codecs: Any = getattr(array.metadata, "codecs", ())
    sharding = next(codec for codec in codecs if isinstance(codec, ShardingCodec))
    start = len(data) - size - 4 if sharding.index_location.value == "end" else 0
    if not 0 <= start <= len(data) - size:
        raise CorruptStreamError(f"the shard {key} is too short for its index; it is damaged")
    for place, (offset, length) in zip(
        places, struct.iter_unpack("<QQ", data[start : start + size]), strict=True
    ):
        if offset != _ABSENT:
            yield place, data[offset : offset + length]
