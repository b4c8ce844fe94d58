"""Stream to array: the voxels wanted of a stream, evaluated tile by tile, in NumPy or on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from moec_zarr.arrays import Array, Integers
from moec_zarr.codec.indexing import Selection, place, select, short_axes, take, within
from moec_zarr.codec.opened import Opened, open_cached
from moec_zarr.codec.refit import remember
from moec_zarr.config import config
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import CorruptStreamError, MoECError
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.linear_experts import AnyTransform
from moec_zarr.model.network import Network
from moec_zarr.model.normalisation import Limits
from moec_zarr.model.residual import Residual
from moec_zarr.runtime import choose_device

if TYPE_CHECKING:
    from moec_zarr.model.device_torch import Device

__all__ = ["decode", "decode_group", "decode_tiles"]


def decode(
    data: Any,
    selection: Any = None,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype[Any] | None = None,
    dictionary: Dictionary | None = None,
) -> Array:
    """Decode the array of a stream, or a part of it.

    Parameters
    ----------
    data : bytes-like
        A whole stream.
    selection : optional
        What of the chunk is wanted, as NumPy indexes it: slices with positive or negative steps
        and numbers, or integer arrays for all axes (of points, or of a grid as ``np.ix_`` makes).
        Only the voxels selected are evaluated.
    shape : tuple of int, optional
        The shape that the chunk must have, where the caller knows it.
    dtype : numpy.dtype, optional
        The dtype that it must have, in whatever byte order.
    dictionary : Dictionary, optional
        That of the codec that wrote it.

    Returns
    -------
    array
        With dtype and byte order of the array encoded; in its memory order too where all of it
        is decoded.

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        If the stream cannot be read, or holds another shape or dtype than the caller expects.
    DictionaryError
        If it takes entries of another dictionary.
    """
    source = _check_opened(data, shape, dtype, dictionary)
    with _device() as device:
        finish = _begin(source, selection, device)
    return finish()


def decode_group(
    streams: Sequence[Any],
    selections: Sequence[Any] | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype[Any] | None = None,
    dictionary: Dictionary | None = None,
) -> list[Array]:
    """Decode the arrays of several streams, or parts of them; each as :func:`decode` returns it.

    Threads take streams apart while those before them are evaluated. Where a GPU does that, its values land
    in pinned memory, and are waited for once. The host holds all streams taken apart, and the results. The
    device holds one stream's model, what one tile takes, and two tiles' values on their way to the host.

    Parameters
    ----------
    streams : sequence of bytes-like
        Whole streams.
    selections : sequence, optional
        What is wanted of each; whole chunks without it.
    shape : tuple of int, optional
        The shape that each chunk must have, where the caller knows it.
    dtype : numpy.dtype, optional
        The dtype that each must have, in whatever byte order.
    dictionary : Dictionary, optional
        That of the codec that wrote them.

    Returns
    -------
    list of array

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        If one of the streams cannot be read, or holds another shape or dtype than the caller expects.
    DictionaryError
        If one of them takes entries of another dictionary.
    """
    wanted = [None] * len(streams) if selections is None else selections

    def parsed(data: Any) -> Opened:
        source = _check_opened(data, shape, dtype, dictionary)
        if source.field is not None:
            source.field.product  # noqa: B018  # made here, in parallel, and kept
        return source

    with ThreadPoolExecutor() as pool, _device() as device:
        sources = pool.map(parsed, streams)
        finishes = [_begin(*each, device) for each in zip(sources, wanted, strict=True)]
    return [finish() for finish in finishes]


def _check_opened(
    data: Any, shape: tuple[int, ...] | None, dtype: np.dtype[Any] | None, dictionary: Dictionary | None
) -> Opened:
    """Return a stream taken apart, of the shape and the dtype that the caller expects."""
    source = open_cached(bytes(data), shape, dictionary)
    header = source.stream.header
    if dtype is not None and header.dtype.str[1:] != dtype.str[1:]:
        raise CorruptStreamError(
            f"the stream holds dtype {header.dtype}, expected {dtype}; it is another array's"
        )
    return source


def _begin(source: Opened, selection: Any, device: Device | None) -> Callable[[], Array]:
    """Begin to decode; what is returned gives the array, once :func:`_device` has ended."""
    stream, header = source.stream, source.stream.header
    wanted = select(selection, header.shape)
    order = header.order if selection is None else "C"
    box = stream.bounding_box
    kept, inside = (wanted, None) if box is None else within(wanted, box.shape)
    values = _values(source, kept, order, device)

    def finish() -> Array:
        out = part = np.array(values, order=order, copy=None if values.flags.writeable else True)
        if (scaled := stream.scaled) is not None:
            stream.limits.complete(part, None if scaled.signs is None else take(scaled.signs, kept))
        for masked in (*stream.exact_values, *stream.masked_values):
            part[take(masked.mask, kept)] = masked.value
        if box is not None and inside is not None:
            out = np.empty(wanted.grid, header.dtype, order=order)
            out[...] = box.fill
            place(out, part, inside)
        if wanted.is_whole(header.shape):
            remember(source.digest, stream, out)
        return out.reshape(wanted.shape, order="A") if out.shape != wanted.shape else out

    return finish


def _values(source: Opened, wanted: Selection, order: Literal["C", "F"], device: Device | None) -> Array:
    """Return the bounding box's values at `wanted`, in its grid; those of a device come when it ends."""
    stream, header = source.stream, source.stream.header
    model = stream.network, source.field, stream.residual
    fitted = any(part is not None for part in model) and 0 not in wanted.grid
    if fitted and device is not None:
        return _on_device(device, header.dtype, stream.limits, *model, stream.shape, wanted)
    out = np.empty(wanted.grid, header.dtype, order=order)
    if fitted:
        for tile, values in _evaluate_tiles(header.dtype, stream.limits, *model, stream.shape, wanted):
            out[tile] = values
    else:
        out[...] = header.low if stream.values is None else take(stream.values, wanted)
    return out


def decode_tiles(
    dtype: np.dtype[Any],
    limits: Limits,
    network: Network | None,
    field: AnyTransform | None,
    residual: Residual | None,
    shape: tuple[int, ...],
    wanted: Selection,
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Iterate over decoded values, which broadcast against the tile of the voxels that they belong to."""
    model = network, field, residual
    with _device() as device:
        if device is not None:
            values = _on_device(device, dtype, limits, *model, shape, wanted)
    if device is not None:
        yield (slice(None),) * values.ndim, values
    else:
        yield from _evaluate_tiles(dtype, limits, *model, shape, wanted)


def _evaluate_tiles(
    dtype: np.dtype[Any],
    limits: Limits,
    network: Network | None,
    field: AnyTransform | None,
    residual: Residual | None,
    shape: tuple[int, ...],
    wanted: Selection,
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Return the tiles of :func:`decode_tiles`, evaluated by NumPy."""
    lengths, indices = _grid(shape, wanted)
    short = () if wanted.pointwise else short_axes(shape)
    tiles = evaluate(
        network, field, lengths, indices,
        residual=residual, pointwise=wanted.pointwise, tile=config.get("batch"),
    )  # fmt: skip
    for tile, values in tiles:
        spans = iter(tile)
        whole = tile if wanted.pointwise else tuple(next(spans) if n > 1 else slice(None) for n in shape)
        yield whole, np.expand_dims(limits.restore(values, dtype), short)


def _on_device(
    device: Device,
    dtype: np.dtype[Any],
    limits: Limits,
    network: Network | None,
    field: AnyTransform | None,
    residual: Residual | None,
    shape: tuple[int, ...],
    wanted: Selection,
) -> Array:
    """Return all decoded values in the grid of `wanted`, by torch; read-only if they are repeated."""
    from moec_zarr.model.decode_torch import evaluate_on

    lengths, indices = _grid(shape, wanted)
    values = evaluate_on(
        device, network, field, lengths, indices,
        residual=residual, pointwise=wanted.pointwise, tile=config.get("batch"),
        dtype=dtype, limits=limits,
    )  # fmt: skip
    values = values if wanted.pointwise else np.expand_dims(values, short_axes(shape))
    return values if values.shape == wanted.grid else np.broadcast_to(values, wanted.grid)


def _grid(shape: tuple[int, ...], wanted: Selection) -> tuple[list[int], list[range | Integers]]:
    """Lengths and indices of the axes that are longer than one, which transform and network have."""
    kept = [axis for axis, n in enumerate(shape) if n > 1]
    return [shape[axis] for axis in kept], [wanted.indices[axis] for axis in kept]


@contextmanager
def _device() -> Iterator[Device | None]:
    """Where torch evaluates, or None where NumPy does: ``config decoder`` and ``config device``."""
    decoder = config.get("decoder")
    if decoder not in ("auto", "numpy", "torch"):
        raise MoECError(f"config decoder must be 'auto', 'numpy' or 'torch', got {decoder!r}")
    if decoder == "numpy" or (decoder == "auto" and config.get("device") != "cuda"):
        yield None
        return
    device_name = choose_device()
    from moec_zarr.model.device_torch import on_device

    with on_device(device_name) as device:
        yield device
