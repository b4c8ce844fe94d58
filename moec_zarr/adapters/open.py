"""`open`, which creates an array of either zarr format."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.codecs import TransposeCodec

from moec_zarr.adapters.chunking import choose_chunks
from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.training import HELD_OUT, LEAST, choose_regions, train_codec
from moec_zarr.adapters.zarr_codec import check_array
from moec_zarr.arrays import Array
from moec_zarr.errors import MoECError, UnsupportedArrayError

__all__ = ["open"]

_log = logging.getLogger(__name__)


def open(  # noqa: A001  # the namesake of zarr.open
    store: Any,
    mode: Literal["r", "r+", "a", "w", "w-"] = "a",
    *,
    path: str | None = None,
    shape: Sequence[int] | int | None = None,
    chunks: Sequence[int] | int | None = None,
    dtype: DTypeLike | None = None,
    compressor: MoECCodec | None = None,
    train: Any = None,
    zarr_format: Literal[2, 3] | None = None,
    storage_options: dict[str, Any] | None = None,
    config: Any = None,
    **kwargs: Any,
) -> zarr.Array[Any]:
    """Open an array, or create one that is compressed with `compressor`, in either zarr format.

    It works as ``zarr.open`` does, and knows where each zarr format takes the codec.

    Parameters
    ----------
    store : StoreLike
        What ``zarr.open`` takes: a path, a URL, a mapping or a zarr store.
    mode : {"a", "r", "r+", "w", "w-"}
        "r" reads an existing array, and "r+" also writes it. "a" opens the array, and creates it if
        there is none. "w" replaces it. "w-" creates it, and fails if it exists.
    path : str, optional
        Path of the array within the store.
    shape : int or sequence of int, optional
        Shape of a new array, in voxels.
    chunks : int or sequence of int, optional
        Chunk shape of a new array, in voxels. By default a shape is chosen that suits the target.
    dtype : dtype_like, optional
        Dtype of a new array.
    compressor : MoECCodec, optional
        The codec of a new array. In format 3 its `serializer` is used, and no other codec follows.
    train : array_like, optional
        Values like those that a new array will hold, such as a part of them, along the same axes: a NumPy
        or zarr array, or what else has a shape and slices. Chunks of it are read, eight at most, and two on
        which the result is tried, to train a dictionary for `compressor` as `train_dictionary` does. It is
        left out where the chunks share nothing, or the two get worse by it.
    zarr_format : 2 or 3, optional
        Format of a new array. By default zarr's setting ``default_zarr_format``, which is 3.
    storage_options : dict, optional
        Options of the fsspec backend of a URL.
    config : dict or ArrayConfig, optional
        Run-time configuration of the array, as in zarr.
    **kwargs
        Further arguments of ``zarr.create_array``, such as ``shards`` and ``fill_value``. They are
        ignored if the array exists.

    Returns
    -------
    zarr.Array
        An ordinary zarr array.

    Raises
    ------
    MoECError
        If `compressor` is not a `MoECCodec`; if the array exists with another shape, dtype, chunk
        shape or compressor than the one given; if shape, dtype or compressor is missing for a new
        array; if `store` holds a group; or if `train` has fewer than six chunks that are not constant, or
        values of another kind.
    UnsupportedArrayError
        If no array of this dtype or rank can be encoded, or `filters` has one other than a transposition.
    FileNotFoundError
        If there is no array and `mode` creates none.
    """
    if compressor is not None and not isinstance(compressor, MoECCodec):
        raise MoECError(
            f"compressor must be a MoECCodec in either zarr format, got {compressor!r}; "
            "use zarr.open for other codecs"
        )
    shape = (shape,) if isinstance(shape, int) else shape and tuple(shape)
    if isinstance(chunks, int):
        chunks = (chunks,) * len(shape or ())
    if mode not in ("w", "w-"):
        try:
            # "r+" opens as "a" does, and leaves no empty group behind where there is nothing.
            array = zarr.open(
                store,
                mode="r+" if mode == "a" else mode,
                path=path,
                zarr_format=zarr_format,
                storage_options=storage_options,
            )
        except FileNotFoundError:
            if mode in ("r", "r+"):
                raise
        else:
            if isinstance(array, zarr.Group):
                raise MoECError("the store holds a group, not an array; give path=, or use zarr.open_group")
            _check_stored(
                array,
                shape=shape,
                chunks=chunks and tuple(chunks),
                dtype=dtype and np.dtype(dtype),
                compressor=compressor,
            )
            return array if config is None else array.with_config(config)
    if shape is None or dtype is None or compressor is None:
        raise MoECError(
            "to create an array, give shape=, dtype= and compressor=, such as "
            f"compressor=MoECCodec(ratio=1000); got {shape=}, {dtype=}, {compressor=}"
        )
    check_array(shape, dtype)
    _check_filters(kwargs.get("filters"))
    shards = kwargs.get("shards")
    if chunks is None and isinstance(shards, Sequence):
        # An array of two shards along each axis: then a chunk divides a shard along each of them.
        chunks = choose_chunks([2 * extent for extent in shards], dtype, compressor, align=shards)
    elif chunks is None:
        chunks = choose_chunks(shape, dtype, compressor)
    if train is not None:
        compressor = _train(compressor, train, tuple(chunks), np.dtype(dtype))
    zarr_format = zarr_format or zarr.config.get("default_zarr_format")
    codecs: dict[str, Any] = (
        {"compressors": compressor}
        if zarr_format == 2
        else {"serializer": compressor.serializer(), "compressors": None}
    )
    return zarr.create_array(
        store,
        name=path,
        shape=shape,
        chunks=tuple(chunks),
        dtype=dtype,
        zarr_format=zarr_format,
        storage_options=storage_options,
        config=config,
        overwrite=mode == "w",
        **codecs,
        **kwargs,
    )


def _train(codec: MoECCodec, values: Any, chunks: tuple[int, ...], dtype: np.dtype[Any]) -> MoECCodec:
    """Return a codec with what chunks of some values share.

    Raises
    ------
    MoECError
        If there are too few of them, or they are of another kind.
    """
    values = values if hasattr(values, "shape") else np.asarray(values)
    shape = tuple(values.shape)
    if len(shape) != len(chunks):
        raise MoECError(
            f"train has {len(shape)} axes, the array {len(chunks)}; give values along the same ones"
        )
    regions = [
        region
        for region in choose_regions(shape, chunks)
        if all(part.stop - part.start == side for part, side in zip(region, chunks, strict=True))
    ]

    def read(region: tuple[slice, ...]) -> Array:
        block = np.asarray(values[region])
        if not np.can_cast(block.dtype, dtype, "same_kind"):
            raise MoECError(f"train holds {block.dtype}, the array {dtype}; convert the values first")
        return block.astype(dtype, copy=False)

    trained = train_codec(codec, map(read, regions))
    if trained.chunks < LEAST + HELD_OUT:
        raise MoECError(
            f"train holds {trained.chunks} chunks of shape {chunks} with different values, and "
            f"{LEAST + HELD_OUT} are needed; give more values, smaller chunks=, or leave train= out"
        )
    _log.info(trained.told)
    return trained.codec


def _check_filters(filters: Any) -> None:
    """Refuse filters that change values: the codec's errors would pass through them, and grow."""
    if filters is None or isinstance(filters, str):  # zarr's own choice, which for numbers is none
        return
    single = isinstance(filters, Mapping) or not isinstance(filters, Iterable)
    for each in [filters] if single else filters:
        name = each.get("name") if isinstance(each, Mapping) else ""
        if not isinstance(each, TransposeCodec) and name != "transpose":
            raise UnsupportedArrayError(
                f"got the filter {each!r}, with which the codec does not keep its target for the values of "
                "the array; leave filters= out, and instead of rounding or scaling give max_error= or psnr="
            )


def _check_stored(array: zarr.Array[Any], **asked: Any) -> None:
    """Refuse whatever was `asked` for and contradicts `array`."""
    for name, value in asked.items():
        if value is None:
            continue
        stored = codec_of(array) if name == "compressor" else getattr(array, name)
        if isinstance(stored, MoECCodec) and value == replace(stored, dictionary=None):
            continue  # a dictionary belongs to the array
        if value != stored:
            raise MoECError(
                f"the array exists with {name} {stored!r}, got {value!r}; leave {name}= out to open it as "
                'it is, or give mode="w" to replace it'
            )
