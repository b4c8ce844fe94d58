"""Stream to array: a stream taken apart, and the voxels wanted of it evaluated tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.container import Header, Section, read_stream
from moec_zarr.bitstream.values import (
    Box,
    Special,
    read_box,
    read_latents,
    read_lossless,
    read_model,
    read_special,
)
from moec_zarr.codec.indexing import Selection, select
from moec_zarr.config import config
from moec_zarr.errors import CorruptStreamError, MoECError
from moec_zarr.model import network
from moec_zarr.model.coefficients import Latents
from moec_zarr.model.features import Synthesis
from moec_zarr.model.network import Model

__all__ = ["Stream", "decode", "evaluated_tiles", "middle_half", "open_stream", "short_axes"]

Array = NDArray[Any]

_LEAST_HALF = 2.0**-1000  # of the width of a range
_TILE = 1 << 18  # voxels that latents without a network are evaluated at together


@dataclass(frozen=True)
class Stream:
    """A stream taken apart: everything that decoding needs, nothing evaluated yet."""

    header: Header
    box: Box | None
    special: list[Special]
    values: Array | None
    model: Model | None
    latents: Latents | None
    sections: dict[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the box, or of the chunk where there is none."""
        return self.header.shape if self.box is None else self.box.shape


def open_stream(data: bytes, shape: tuple[int, ...] | None = None) -> Stream:
    """A stream's parts.

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        If it cannot be read, or holds another shape than `shape`; before anything of the declared
        shape is allocated.
    """
    header, sections = read_stream(data)
    if shape is not None and tuple(shape) != header.shape:
        raise CorruptStreamError(f"the stream holds shape {header.shape}, expected {tuple(shape)}")
    if Section.LOSSLESS in sections and sections.keys() & {Section.MODEL, Section.LATENTS}:
        raise CorruptStreamError("the stream holds both a model and the values; it is damaged")
    box = read_box(sections[Section.BOX], header.shape, header.dtype) if Section.BOX in sections else None
    shape = header.shape if box is None else box.shape
    special, values, model, latents = [], None, None, None
    long = tuple(n for n in shape if n > 1)
    if Section.MASK in sections:
        special = read_special(sections[Section.MASK], shape, header.dtype)
    if Section.LOSSLESS in sections:
        values = read_lossless(sections[Section.LOSSLESS], shape, header.dtype)
    if Section.MODEL in sections:
        model = read_model(sections[Section.MODEL], len(long), Section.LATENTS in sections)
    if Section.LATENTS in sections:
        latents = read_latents(sections[Section.LATENTS], long)
    lengths = {section.name.lower(): len(payload) for section, payload in sections.items()}
    lengths = {"header": len(data) - sum(lengths.values())} | lengths
    return Stream(header, box, special, values, model, latents, lengths)


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
    stream = open_stream(bytes(data), shape)
    header = stream.header
    if dtype is not None and header.dtype.str[1:] != dtype.str[1:]:
        raise CorruptStreamError(
            f"the stream holds dtype {header.dtype}, expected {dtype}; it is another array's"
        )
    wanted = select(selection, header.shape)
    order = header.order if selection is None else "C"
    out = np.empty(wanted.grid, header.dtype, order=order)
    if stream.box is None:
        _fill(out, stream, wanted)
    else:
        out[...] = stream.box.fill
        inside = [index < n for index, n in zip(wanted.indices, stream.box.shape, strict=True)]
        if wanted.pointwise:
            inside = [np.logical_and.reduce(inside)] * len(inside)
        kept = replace(wanted, indices=[i[keep] for i, keep in zip(wanted.indices, inside, strict=True)])
        part = np.empty(kept.grid, header.dtype)
        _fill(part, stream, kept)
        out[inside[0] if wanted.pointwise else np.ix_(*inside)] = part
    return out.reshape(wanted.shape, order="A") if out.shape != wanted.shape else out


def _fill(out: Array, stream: Stream, wanted: Selection) -> None:
    """Write the box's values at `wanted` into `out`."""
    where = tuple(wanted.indices) if wanted.pointwise else np.ix_(*wanted.indices)
    if stream.values is not None:
        out[...] = stream.values[where]
    elif stream.model is None and stream.latents is None:
        out[...] = stream.header.low
    elif out.size:
        fitted = evaluated_tiles(stream.header, stream.model, stream.latents, stream.shape, wanted)
        for tile, values in fitted:
            out[tile] = values
    for special in stream.special:
        out[special.mask[where]] = special.value


def short_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of length one, which a network does not see."""
    return tuple(axis for axis, n in enumerate(shape) if n == 1)


def evaluated_tiles(
    header: Header, model: Model | None, latents: Latents | None, shape: tuple[int, ...], wanted: Selection
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """Decoded values, which broadcast against the tile of the voxels wanted that they belong to."""
    long = [axis for axis, n in enumerate(shape) if n > 1]
    indices = [wanted.indices[axis] for axis in long]
    lengths = [shape[axis] for axis in long]
    short = () if wanted.pointwise else short_axes(shape)
    looks = () if model is None else model.looks
    synthesis = None if latents is None else Synthesis(latents, looks)
    for tile, values in _evaluated(model, synthesis, lengths, indices, wanted.pointwise):
        spans = iter(tile)
        whole = tile if wanted.pointwise else tuple(next(spans) if n > 1 else slice(None) for n in shape)
        yield whole, np.expand_dims(_restore(values, header), short)


def _evaluated(
    model: Model | None,
    synthesis: Synthesis | None,
    lengths: list[int],
    indices: list[NDArray[np.int64]],
    pointwise: bool,
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.float32]]]:
    """Values in units of half the data's range, tile by tile."""
    evaluate: Any = network.evaluate
    if config.get("decoder") == "torch":
        from moec_zarr.model.network_torch import evaluate
    elif config.get("decoder") != "numpy":
        raise MoECError(f"config decoder must be 'numpy' or 'torch', got {config.get('decoder')!r}")
    voxels = config.get("batch") or (_TILE if model is None else model.architecture.tile)
    if model is not None:
        yield from evaluate(
            model.architecture, model.weights(), lengths, indices,
            pointwise=pointwise, voxels=voxels, synthesis=synthesis,
        )  # fmt: skip
        return
    assert synthesis is not None
    for tile, rows in network.tiled(indices, pointwise=pointwise, voxels=voxels):
        yield tile, synthesis.values(rows, pointwise)


def _restore(values: NDArray[np.float32], header: Header) -> Array:
    """Network values, in units of half the data's range, as the array's dtype."""
    middle, half = middle_half(header.low, header.high)
    low, high = float(header.low), float(header.high)
    with np.errstate(over="ignore"):  # beyond the largest double lies the end of the range
        wide = np.clip(middle + half * values.astype(np.float64), low, high)
    dtype = header.dtype.newbyteorder("=")
    if dtype.kind == "f":
        return wide.astype(dtype)
    wide = np.rint(wide)
    if dtype.itemsize < 8:
        return wide.astype(dtype)
    # Doubles next to the ends of a 64-bit range may lie beyond it.
    ends = np.where(wide >= high, header.high, header.low).astype(dtype)
    inner = (wide > low) & (wide < high)
    return np.where(inner, np.where(inner, wide, 0).astype(dtype), ends)


def middle_half(low: Any, high: Any) -> tuple[float, float]:
    """Centre and half the width of a range; the width stays clear of subnormal numbers."""
    return float(high) / 2 + float(low) / 2, max(float(high) / 2 - float(low) / 2, _LEAST_HALF)
