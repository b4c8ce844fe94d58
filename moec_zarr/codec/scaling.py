"""Chunks that are fitted on a logarithmic scale: its knee, signs, and what a relative bound leaves there."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles
from moec_zarr.bitstream.scale import Scaled
from moec_zarr.codec.prepare import Prepared, keep_exactly
from moec_zarr.model.scale import Scale, to_scale
from moec_zarr.quality import allowed_error

__all__ = ["allowed_on_scale", "choose_knee", "put_on_scale"]

_SMALLEST = 2.0**-1000  # of decoded magnitudes: exponentials next to subnormal doubles are less exact
_BELOW = 1 - 2.0**-20  # of a whole number: an error that rounds to the one before


def put_on_scale(chunk: Prepared, knee: float = 0.0) -> Prepared:
    """Return a chunk whose values are fitted on a logarithmic scale.

    Without a knee zeros are kept exactly, and signs where there are both.
    """
    if not knee and all(each.value != 0 for each in chunk.exact):
        chunk = keep_exactly(chunk, 0)
    array, fitted = chunk.array, chunk.fitted
    signs = _find_signs(array, fitted) if not knee and chunk.header.low < 0 else None
    places = to_scale(array if fitted is None else array[fitted], knee)
    scale = Scale.of_range(knee, float(places.min()), float(places.max()))
    return replace(chunk, scaled=Scaled(scale, signs))


def _find_signs(array: Array, fitted: Bools | None) -> Bools:
    """Return where values are negative; elsewhere than at those fitted, so that the mask is smooth."""
    from moec_zarr.fit.transform.inpainting import fill_smoothly

    negative = np.asarray(array < 0)
    if fitted is None:
        return negative
    if negative[fitted].all():
        return np.broadcast_to(np.True_, array.shape)
    sides = np.where(negative, np.float32(-1), np.float32(1))
    return np.asarray(fill_smoothly(sides, fitted) < 0)


def choose_knee(chunk: Prepared, relative: float, absolute: float) -> float:
    """Return the magnitude up to which the scale that suits a bound is linear."""
    if chunk.header.dtype.kind == "f":
        return absolute / relative
    # Small integers are kept exactly, or within a whole number, where a share of them is less than one more.
    values = chunk.valid_values
    whole = math.floor(absolute)
    knees = [(whole + 0.5) / relative, (whole + 1) * _BELOW / relative]

    def bits(knee: float) -> float:
        places = np.log(np.maximum(np.abs(values.astype(np.float64)), knee))
        return -float(places.mean()) - math.log(
            float(_tolerances(values, None, knee, relative, absolute).min())
        )

    return min(knees, key=bits)


def allowed_on_scale(chunk: Prepared, relative: float, absolute: float) -> float:
    """Return the error of a fitted value, in units of half the range of the scale, that keeps a bound."""
    assert chunk.scaled is not None
    scale, fitted = chunk.scaled.scale, chunk.fitted
    values = chunk.array if fitted is None else chunk.array[fitted]
    least = float(_tolerances(values, chunk.missing, scale.knee, relative, absolute).min())
    return math.log1p(least) / scale.half


@np.errstate(over="ignore")  # beyond the largest double nothing lies nearer
def _tolerances(values: Array, missing: object, knee: float, relative: float, absolute: float) -> Doubles:
    """Return the error of each value, before it is rounded, that keeps a bound; over magnitude or knee."""
    magnitude = np.abs(values.astype(np.float64))
    allowed = allowed_error(values, relative, absolute)
    step: Doubles = np.ones(1)
    if values.dtype.kind == "f":
        # Decoded values may have more digits before the point than the original, and lie further apart.
        largest = np.nextafter(np.finfo(values.dtype).max, values.dtype.newbyteorder("=").type(0))
        step = np.spacing(np.minimum(magnitude + allowed, float(largest)).astype(largest.dtype)).astype(
            np.float64
        )
    steps = np.floor(allowed / step)
    room = steps + 0.5
    if missing is not None:
        # What comes out as the sentinel takes a neighbour, as much as a step and a half away.
        near = np.abs(values.astype(np.float64) - float(missing)) <= 2 * allowed + 2 * step  # type: ignore[arg-type]
        room = np.where(near & (steps > 0), np.maximum(steps - 1.5, 0.5), room)
    if not knee:
        room = np.where(magnitude < _SMALLEST, 0, room)
    return np.asarray(room * step / np.maximum(magnitude, knee))
