"""What linear experts are fitted to: a sample of voxels, what a gate reads there, products of all columns.

That of fewer knots follows from the products of the finest ones: a longer ramp is a sum of shorter ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Doubles, Floats, Integers
from moec_zarr.compiled import compiled
from moec_zarr.model.linear_experts import VALUE_KNOTS, LinearExperts, ramps
from moec_zarr.model.steps import STEP_SIZES, nearest_code

__all__ = [
    "Knots",
    "Sample",
    "draw_sample",
    "find_knots",
    "knots_of",
    "merge_ramps",
    "mix_columns",
    "multiply_columns",
]

_FEWEST, _MOST, _SHARE = 1 << 14, 1 << 15, 64  # voxels of the sample, of so many one
_LOOKED_AT = 2  # times as many, among which steep ones are chosen more often
_STEEP = 0.15  # of those looked at: all of them are taken
_SHORTEST_RAMP = 0.25  # of the root mean square of the error: shorter ones would amplify rounding
_GOLDEN = (math.sqrt(5) - 1) / 2
_CLIPPED = 1e-6  # of half the range: values beyond an end differ by less once they are clipped


class Sample(NamedTuple):
    """Voxels, and what experts read of them."""

    values: Doubles
    bends: Doubles  # shape (2 * axes, voxels)
    steepness: Doubles
    wanted: Doubles  # what the values stand for
    errors: Doubles  # what is to be added to the values
    weights: Doubles  # how many voxels each of them stands for


def draw_sample(values: Floats, target: Floats, valid: Bools | None, most: int = _MOST) -> Sample | None:
    """Draw voxels, evenly spread and more of the steep ones; None where none is valid."""
    count = min(max(values.size // _SHARE, _FEWEST), most)
    flat = _spread(values.size, min(_LOOKED_AT * count, values.size))
    if valid is not None:
        flat = flat[valid.reshape(-1)[flat]]
    if not flat.size:
        return None
    here, bends, steepness = _read(values.reshape(-1), np.array(values.shape), flat)
    weights = np.ones(flat.size)
    if flat.size > count:
        edge = np.quantile(steepness, 1 - _STEEP)
        steep, flatter = np.flatnonzero(steepness >= edge), np.flatnonzero(steepness < edge)
        every = max(1, round(len(flatter) / max(1, count - len(steep))))
        weights[flatter] = every
        kept = np.concatenate([steep, flatter[::every]])
        flat, bends, steepness, here = flat[kept], bends[:, kept], steepness[kept], here[kept]
        weights = weights[kept]
    wanted = target.reshape(-1)[flat].astype(np.float64)
    # What lies beyond the same end of the range as its target is clipped by a decoder: it is to stay there.
    errors = np.where(np.abs(wanted - np.clip(here, -1, 1)) > _CLIPPED, wanted - here, 0.0)
    return Sample(here, bends, steepness, wanted, errors, weights)


@lru_cache(maxsize=8)
def _spread(size: int, count: int) -> Integers:
    """Return so many of `size` numbers: one of each of as many parts.

    Where it lies in its part is a multiple of the golden ratio (Weyl): a stride would meet the same voxels of
    each row.
    """
    number = np.arange(count)
    spread = ((number + number * _GOLDEN % 1) * (size / count)).astype(np.int64)
    spread.setflags(write=False)
    return spread


@compiled()
def _read(values: Floats, shape: Integers, flat: Integers) -> tuple[Doubles, Doubles, Doubles]:
    """Return values at voxels, and what :func:`moec_zarr.model.linear_experts.around` reads there."""
    axes = shape.size
    here, steepness = np.empty(flat.size), np.zeros(flat.size)
    bends = np.empty((2 * axes, flat.size))
    for i in range(flat.size):
        voxel = flat[i]
        own = np.float64(values[voxel])
        here[i] = own
        stride = 1
        for axis in range(axes - 1, -1, -1):
            n = shape[axis]
            place = voxel // stride % n
            after = np.float64(values[voxel + stride * (min(place + 1, n - 1) - place)])
            before = np.float64(values[voxel + stride * (max(place - 1, 0) - place)])
            far = np.float64(values[voxel + stride * (min(place + 2, n - 1) - place)])
            far_before = np.float64(values[voxel + stride * (max(place - 2, 0) - place)])
            bends[2 * axis, i] = after + before - 2 * own
            bends[2 * axis + 1, i] = far + far_before - 2 * own
            steepness[i] += abs(after - before)
            stride *= n
    return here, bends, steepness


class Knots(NamedTuple):
    """Knots as they are coded, where they lie, and the shorter ramps that theirs are made of."""

    knots: tuple[int, ...]
    places: Doubles
    ramps: Doubles  # shape (1 + ramps, 1 + ramps of the finest knots)


def find_knots(
    sample: Sample, spread: float, steep_shares: Sequence[float], value_shares: Sequence[float]
) -> tuple[Knots, Knots]:
    """Return the finest knots of steepness and of the value: quantiles, no closer than rounding allows.

    Parameters
    ----------
    sample : Sample
    spread : float
        Root mean square of the error.
    steep_shares, value_shares : sequence of float
        Of the voxels, that are below each knot.
    """
    codes = map(nearest_code, _quantiles(sample.steepness, sample.weights, steep_shares))
    values = _quantiles(sample.values, sample.weights, value_shares)
    numbers = np.clip(np.rint(VALUE_KNOTS * values), -VALUE_KNOTS, VALUE_KNOTS - 1).astype(int).tolist()
    shortest = _SHORTEST_RAMP * spread
    own: list[int] = []
    for code in codes:
        if STEP_SIZES[code] - (STEP_SIZES[own[-1]] if own else 0.0) >= shortest:
            own.append(code)
    steep = Knots(tuple(own), np.array([0.0, *STEP_SIZES[own]]), np.eye(1 + len(own)))
    levels: list[int] = []
    for number in numbers:
        if not levels or (number - levels[-1]) / VALUE_KNOTS >= max(shortest, 1 / VALUE_KNOTS):
            levels.append(number)
    places = np.array(levels) / VALUE_KNOTS
    return steep, Knots(tuple(levels), places, np.eye(max(1, len(levels))))


def _quantiles(values: Doubles, weights: Doubles, shares: Sequence[float]) -> Doubles:
    """Return quantiles of weighted values."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return np.asarray(values[order][np.searchsorted(total, np.multiply(shares, total[-1]))])


def knots_of(experts: LinearExperts) -> tuple[Knots, Knots]:
    """Return the knots of experts, of which none are left out."""
    steep, level = experts.steepness, experts.value
    return (
        Knots(steep, np.array([0.0, *STEP_SIZES[list(steep)]]), np.eye(1 + len(steep))),
        Knots(level, np.array(level) / VALUE_KNOTS, np.eye(max(1, len(level)))),
    )


def merge_ramps(finest: Knots, kept: Sequence[int] | None) -> Knots:
    """Return some of the knots."""
    count = len(finest.places)
    chosen = sorted({index for index in kept or () if index < count})
    if len(chosen) < 2:
        return Knots((), finest.places[:0], finest.ramps[:1])
    rows = [finest.ramps[0]]
    for first, last in pairwise(chosen):
        row = np.zeros(count)
        lengths = np.diff(finest.places[first : last + 1])
        row[1 + first : 1 + last] = lengths / lengths.sum()
        rows.append(row)
    hidden = count - len(finest.knots)  # the first knot of steepness is not coded
    knots = tuple(finest.knots[index - hidden] for index in chosen if index >= hidden)
    return Knots(knots, finest.places[chosen], np.stack(rows))


def mix_columns(steep: Knots, level: Knots, axes: int) -> Doubles:
    """Return what the columns of fewer knots are as sums of those of the finest ones."""
    terms = np.zeros(
        (len(steep.ramps) + len(level.ramps) - 1, steep.ramps.shape[1] + level.ramps.shape[1] - 1)
    )
    terms[: len(steep.ramps), : steep.ramps.shape[1]] = steep.ramps
    terms[len(steep.ramps) :, steep.ramps.shape[1] :] = level.ramps[1:, 1:]
    taps, constants = np.kron(terms, np.eye(2 * axes)), np.kron(steep.ramps, level.ramps)
    result = np.zeros((len(taps) + len(constants), taps.shape[1] + constants.shape[1]))
    result[: len(taps), : taps.shape[1]] = taps
    result[len(taps) :, taps.shape[1] :] = constants
    return result


def multiply_columns(sample: Sample, steepness: Knots, levels: Knots) -> tuple[Doubles, Doubles]:
    """Return the products of all columns of the finest knots, and with what is to be added."""
    steep, level = (
        ramps(own, knots.places[:-1], 1 / np.diff(knots.places)).astype(np.float32)
        for own, knots in ((sample.steepness, steepness), (sample.values, levels))
    )
    root = np.sqrt(sample.weights).astype(np.float32)
    terms = np.concatenate([steep, level[1:]])
    bends = (sample.bends * root).astype(np.float32)
    columns = np.empty((len(terms) * len(bends) + len(steep) * len(level), root.size), np.float32)
    taps, constants = np.split(columns, [len(terms) * len(bends)])
    np.multiply(terms[:, None], bends, out=taps.reshape(len(terms), len(bends), -1))
    np.multiply((steep * root)[:, None], level, out=constants.reshape(len(steep), len(level), -1))
    wanted = (sample.errors * root).astype(np.float32)
    return (columns @ columns.T).astype(np.float64), (columns @ wanted).astype(np.float64)
