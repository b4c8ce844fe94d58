"""Stream to array: the voxels wanted of a stream, evaluated tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import Header
from moec_zarr.codec.indexing import Selection, place, select, short_axes, take, within
from moec_zarr.codec.opened import Opened, opened
from moec_zarr.config import config
from moec_zarr.errors import CorruptStreamError, MoECError
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.evaluate import Backend, evaluate
from moec_zarr.model.network import Network, evaluate_tile
from moec_zarr.model.normalisation import Normalisation
from moec_zarr.model.residual import Residual

__all__ = ["decode", "decoded_tiles"]


def decode(
    data: Any,
    selection: Any = None,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Array:
    """The array of a stream, or a part of it.

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

    Returns
    -------
    array
        With dtype and byte order of the array encoded; in its memory order too where all of it
        is decoded.

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        If the stream cannot be read, or holds another shape or dtype than the caller expects.
    """
    source = opened(bytes(data), shape)
    stream, header = source.stream, source.stream.header
    if dtype is not None and header.dtype.str[1:] != dtype.str[1:]:
        raise CorruptStreamError(
            f"the stream holds dtype {header.dtype}, expected {dtype}; it is another array's"
        )
    wanted = select(selection, header.shape)
    order = header.order if selection is None else "C"
    out = np.empty(wanted.grid, header.dtype, order=order)
    box = stream.bounding_box
    if box is None:
        _fill(out, source, wanted)
    else:
        out[...] = box.fill
        kept, inside = within(wanted, box.shape)
        part = np.empty(kept.grid, header.dtype)
        _fill(part, source, kept)
        place(out, part, inside)
    return out.reshape(wanted.shape, order="A") if out.shape != wanted.shape else out


def _fill(out: Array, source: Opened, wanted: Selection) -> None:
    """Write the bounding box's values at `wanted` into `out`."""
    stream = source.stream
    if stream.values is not None:
        out[...] = take(stream.values, wanted)
    elif stream.network is None and stream.coefficients is None and stream.residual is None:
        out[...] = stream.header.low
    elif out.size:
        fitted = stream.network, source.field, stream.residual
        for tile, values in decoded_tiles(stream.header, *fitted, stream.shape, wanted):
            out[tile] = values
    for masked in stream.masked_values:
        out[take(masked.mask, wanted)] = masked.value


def decoded_tiles(
    header: Header,
    network: Network | None,
    field: CoefficientField | None,
    residual: Residual | None,
    shape: tuple[int, ...],
    wanted: Selection,
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Decoded values, which broadcast against the tile of the voxels wanted that they belong to."""
    kept = [axis for axis, n in enumerate(shape) if n > 1]
    indices, lengths = [wanted.indices[axis] for axis in kept], [shape[axis] for axis in kept]
    short = () if wanted.pointwise else short_axes(shape)
    normalisation = Normalisation.of_range(header.low, header.high)
    tiles = evaluate(
        network, field, lengths, indices,
        residual=residual, pointwise=wanted.pointwise, backend=_backend(), tile=config.get("batch"),
    )  # fmt: skip
    for tile, values in tiles:
        spans = iter(tile)
        whole = tile if wanted.pointwise else tuple(next(spans) if n > 1 else slice(None) for n in shape)
        restored = normalisation.restore(values, header.dtype, header.low, header.high)
        yield whole, np.expand_dims(restored, short)


def _backend() -> Backend:
    """What evaluates networks: ``config decoder``."""
    name = config.get("decoder")
    if name == "numpy":
        return evaluate_tile
    if name == "torch":
        from moec_zarr.model import network_torch

        return network_torch.evaluate_tile
    raise MoECError(f"config decoder must be 'numpy' or 'torch', got {name!r}")
