"""What a stream, or the streams of a whole store, say of themselves, without decoding them."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from os import PathLike, fspath
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import ShardingCodec

from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.tree import sort_key
from moec_zarr.adapters.zarr_groups import SINGLE
from moec_zarr.archive.storage import read_object
from moec_zarr.arrays import Integers
from moec_zarr.bitstream.container import VERSION, Header, Section, read_stream
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.errors import CorruptStreamError, MoECError
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.linear_experts import RestoredField
from moec_zarr.model.network import chosen_experts, expert_load
from moec_zarr.quality import half_range
from moec_zarr.settings import Settings

__all__ = [
    "StreamInfo",
    "compressed_arrays",
    "expert_map",
    "headers_within",
    "inspect",
    "inspect_streams",
    "stored_objects",
]

Kind = Literal["model", "transform", "both", "constant", "rounded", "lossless"]

_ABSENT = 2**64 - 1  # offset and length of a chunk that a shard does not hold


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """What a stream says of itself, without decoding it.

    Attributes
    ----------
    shape, dtype, order : tuple of int, numpy.dtype, {"C", "F"}
        Of the array encoded.
    version : int
        Of the format.
    nbytes, stream_bytes : int
        Of the array and of its stream.
    ratio : float
        The first over the second.
    psnr : float
        dB at data-range peak over the valid values, as measured on encoding; inf where exact.
    max_error : float
        Largest absolute error of a valid value, as measured on encoding, rounded up; never above `bound`.
    bound : float or None
        Largest absolute error that every decoder keeps, where one was asked for and `refit` is False.
    relative_bound : float or None
        Largest error over the magnitude of a value, or over `knee` where that is larger, that every decoder
        keeps; where one was asked for and `refit` is False.
    knee : float
        Magnitude up to which a logarithmic scale is linear; 0 without one.
    max_relative_error, log_psnr : float or None
        The largest such error, and the PSNR of the logarithms with their range as the peak, as measured on
        encoding; None where no logarithms were fitted.
    refit : bool
        Whether a lossy stream had decoded to the values, as where a part of a chunk was written: `psnr` and
        `max_error` are over these values then, and no error over the original is known.
    kind : {"model", "transform", "both", "constant", "rounded", "lossless"}
        How the valid values are stored; model: a network alone; both: a transform that a network corrects;
        rounded: the values themselves, rounded as far as a bound allows.
    sections : dict of str to int
        Bytes of the header and of each section's payload.
    weights, experts : int
        Of the network; 0 where there is none.
    coefficients : int
        Transform coefficients that are not zero.
    load : tuple of float
        Share of the voxels that each expert evaluates, estimated from at most 32,768 of them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    version: int
    nbytes: int
    stream_bytes: int
    ratio: float
    psnr: float
    max_error: float
    bound: float | None
    relative_bound: float | None
    knee: float
    max_relative_error: float | None
    log_psnr: float | None
    refit: bool
    kind: Kind
    sections: dict[str, int]
    weights: int
    experts: int
    coefficients: int
    load: tuple[float, ...]


def _kind(header: Header, sections: Collection[Section]) -> Kind:
    if Section.LOSSLESS in sections:
        return "lossless"
    if Section.INTEGERS in sections:
        return "lossless" if header.psnr == math.inf else "rounded"
    if Section.MODEL in sections:
        return "both" if Section.TRANSFORM in sections else "model"
    return "transform" if {Section.RESIDUAL, Section.TRANSFORM} & set(sections) else "constant"


def inspect(
    stream: Any, shape: tuple[int, ...] | None = None, *, codec: Settings | None = None
) -> StreamInfo:
    """Return what a stream of :class:`moec_zarr.MoECCodec` or a chunk of its stores holds.

    Parameters
    ----------
    stream : bytes-like
        A whole stream, for example a chunk's file.
    shape : tuple of int, optional
        The shape that the chunk must have, where the caller knows it.
    codec : MoECCodec or MoECSerializer, optional
        The one that wrote it, where it has a dictionary.

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        If it cannot be read, or holds another shape.
    DictionaryError
        If it takes entries of a dictionary that the codec has not.
    MoECError
        If it declares more than ``config largest`` bytes and no `shape` is given.
    """
    data = bytes(stream)
    parts = open_stream(data, shape, None if codec is None else codec.shared)
    header, network, coefficients = parts.header, parts.network, parts.coefficients
    nbytes = math.prod(header.shape) * header.dtype.itemsize
    absolute, relative = parts.bounds
    bound: float | None = absolute or None
    if parts.residual is not None:
        bound = parts.residual.bound
    scaled, largest = parts.scaled, _max_error(header)
    relative_bound = relative or (None if scaled is None else bound)
    knee = absolute / relative if relative else 0.0 if scaled is None else scaled.scale.knee
    return StreamInfo(
        shape=header.shape,
        dtype=header.dtype,
        order=header.order,
        version=VERSION,
        nbytes=nbytes,
        stream_bytes=len(data),
        ratio=nbytes / len(data),
        psnr=header.psnr,
        max_error=largest if relative_bound or bound is None else min(largest, bound),
        bound=None if relative_bound or header.refit else bound,
        relative_bound=None if header.refit else relative_bound,
        knee=knee,
        max_relative_error=None if scaled is None else scaled.error,
        log_psnr=None if scaled is None else scaled.psnr,
        refit=header.refit,
        kind=_kind(header, read_stream(data)[1]),
        sections=parts.sections,
        weights=network.architecture.parameter_count if network else 0,
        experts=network.architecture.experts if network else 0,
        coefficients=int(np.count_nonzero(coefficients.integers)) if coefficients else 0,
        load=tuple(expert_load(network, [n for n in parts.shape if n > 1]).tolist()) if network else (),
    )


def _max_error(header: Header) -> float:
    """Return the largest error in units of the data; integers are subtracted exactly, and 0 stays 0."""
    if header.max_error == 0:
        return 0.0
    low, high = header.low.item(), header.high.item()
    span = high - low
    if span < math.inf:
        return float(header.max_error * span)
    return float(2 * header.max_error * half_range(high, low))


# ------------------------------------------------------------------------------- stores


def compressed_arrays(store: str | PathLike[str] | Store) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of a store that this package's codec compressed, by name.

    Parameters
    ----------
    store : path or zarr Store
        A zarr group, or one array, which is called "array".

    Returns
    -------
    dict of str to zarr.Array
        By path; the variables of a group stand together, after those of the groups above.

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
    nodes = {SINGLE: root} if isinstance(root, zarr.Array) else dict(root.members(max_depth=None))
    compressed = {
        name: node
        for name, node in sorted(nodes.items(), key=lambda item: sort_key(item[0]))
        if isinstance(node, zarr.Array) and codec_of(node) is not None
    }
    if not compressed:
        raise MoECError(f"{store} holds no array that was compressed with moec_zarr")
    return compressed


def inspect_streams(
    array: zarr.Array[Any], most: int | None = None
) -> Iterator[tuple[tuple[int, ...], StreamInfo]]:
    """Return what each stored chunk of an array says of itself, without decoding it.

    Parameters
    ----------
    array : zarr.Array
        One of `compressed_arrays`.
    most : int, optional
        Look at no more stored objects (chunks, or shards) than this, spread evenly; by default at all.

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
    codec = codec_of(array)
    for place, data in stored_objects(array, most):
        for inner, stream in _streams(array, data, str(place)):
            yield (
                tuple(o * n + i for o, n, i in zip(place, _per_shard(array), inner, strict=True)),
                inspect(stream, array.chunks, codec=codec),
            )


def expert_map(array: zarr.Array[Any], index: tuple[int, ...], most: int = 256) -> Integers | None:
    """Return which expert evaluates each voxel of a chunk, in the middle slice along its last two axes.

    Where there is no network, it is the linear expert that weighs most: the nearest of the knots.

    Parameters
    ----------
    array : zarr.Array
        One of `compressed_arrays`.
    index : tuple of int
        Position of the chunk among the others.
    most : int
        Voxels along an axis; of longer ones, so many are taken, spread evenly.

    Returns
    -------
    int64 array of two axes, or None
        Within the bounding box of the chunk's valid values. None where the chunk is not stored, has no
        experts, or has fewer than two axes longer than 1.
    """
    places = [divmod(i, n) for i, n in zip(index, _per_shard(array), strict=True)]
    data = read_object(array, tuple(outer for outer, _ in places))
    inner = tuple(within for _, within in places)
    stream = None if data is None else dict(_streams(array, data, str(index))).get(inner)
    if stream is None:
        return None
    codec = codec_of(array)
    parts = open_stream(stream, array.chunks, None if codec is None else codec.shared)
    lengths = [n for n in parts.shape if n > 1]
    if len(lengths) < 2 or (parts.network is None and parts.linear_experts is None):
        return None
    indices = [np.array([n // 2]) for n in lengths[:-2]]
    indices += [np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) for n in lengths[-2:]]
    if parts.network is not None:
        found = chosen_experts(parts.network, lengths, indices)
    else:
        assert parts.coefficients is not None
        assert parts.linear_experts is not None
        found = RestoredField(CoefficientField(parts.coefficients), parts.linear_experts).nearest(indices)
    return np.asarray(found[(0,) * (len(lengths) - 2)])


def stored_objects(
    array: zarr.Array[Any], most: int | None = None
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Return the chunks, or shards, that are stored: position among the others, and bytes.

    No more than `most` positions are looked at, spread evenly; all where None.
    """
    grid = ChunkGrid.of_objects(array)
    for place in grid.indices() if most is None else grid.spread(most):
        data = read_object(array, place)
        if data is not None:
            yield place, data


def headers_within(
    array: zarr.Array[Any], data: bytes
) -> Iterator[tuple[tuple[int, ...], Header, Kind, int]]:
    """Read the position, header, kind and number of bytes of each stream within a stored object.

    Checksums are compared; nothing else is parsed.

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        If a stream or a shard is damaged, or newer than this package.
    """
    for place, stream in _streams(array, data, "that was read"):
        header, sections = read_stream(stream)
        yield place, header, _kind(header, sections), len(stream)


def _per_shard(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Chunks in a stored object, along each dimension."""
    if array.shards is None:
        return (1,) * array.ndim
    return tuple(outer // side for outer, side in zip(array.shards, array.chunks, strict=True))


def _streams(array: zarr.Array[Any], data: bytes, key: str) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """Return the streams within a stored object, each with its position there.

    A shard ends, or begins, with an index: offset and length of each chunk as 64-bit little-endian integers,
    then their CRC-32C (zarr's specification of `sharding_indexed`).
    """
    counts = _per_shard(array)
    if array.shards is None:
        yield (0,) * array.ndim, data
        return
    size = 16 * math.prod(counts)
    codecs: Any = getattr(array.metadata, "codecs", ())
    sharding: Any = next(codec for codec in codecs if isinstance(codec, ShardingCodec))
    location = sharding.to_dict()["configuration"]["index_location"]  # text in every zarr
    start = len(data) - size - 4 if location == "end" else 0
    if not 0 <= start <= len(data) - size:
        raise CorruptStreamError(f"the shard {key} is too short for its index; it is damaged")
    places = product(*map(range, counts))
    for place, (offset, length) in zip(
        places, struct.iter_unpack("<QQ", data[start : start + size]), strict=True
    ):
        if offset != _ABSENT:
            yield place, data[offset : offset + length]
