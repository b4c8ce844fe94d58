"""Linear experts that restore a transform, fitted in closed form to a sample of its voxels.

What they add is linear in their weights, so least squares need but one matrix of products. That of fewer
knots follows from it: a longer ramp is a sum of shorter ones. Weights are rounded one after the other, each
time with all others moved to make up for it (Frantar et al., arXiv 2210.17323), as coarsely as bits and error
are worth to the transform.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Doubles, Floats, Integers
from moec_zarr.bitstream.linear_experts import LARGEST_WEIGHT, write_linear_experts
from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE
from moec_zarr.fit.payloads import choose_distribution
from moec_zarr.fit.transform.straighten import measure_clipped, small_bias
from moec_zarr.model.linear_experts import OFFSETS, VALUE_KNOTS, LinearExperts, around, ramps, restore_whole
from moec_zarr.model.neighbourhood import neighbours
from moec_zarr.model.steps import STEP_SIZES, nearest_code

__all__ = ["Restoration", "Restored", "fit_experts", "restore_within"]

_log = logging.getLogger(__name__)
_FEWEST, _MOST, _SHARE = 1 << 14, 1 << 15, 64  # voxels of the sample, of so many one
_LOOKED_AT = 2  # times as many, among which steep ones are chosen more often
_STEEP = 0.15  # of those looked at: all of them are taken
_STEEPNESS = 0.3, 0.6, 0.8, 0.92, 0.98, 0.998  # quantiles of the finest knots
_VALUES = 0.005, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95, 0.995
_SHORTEST_RAMP = 0.25  # of the root mean square of the error: shorter ones would amplify rounding
# Knots that are left where there are fewer: the first ones are at 0, and all that are left out are None.
_FEWER_STEEP: tuple[Sequence[int] | None, ...] = (None, (0, 2, 4, 5), range(7))
_FEWER_VALUES: tuple[Sequence[int] | None, ...] = (None, (0, 4, 8), (0, 2, 4, 6, 8), range(9))
_RIDGE = 1e-5
_DOUBT = 4.0  # times the weights a voxel, by which errors of others are larger
_HEAD, _BITS = 14, 2.5  # bytes of the section but its weights, and bits of a weight, about
_TRIED = 2  # numbers of knots that are quantised
_PRICES = 1.0, 1.5, 2.5, 4.0  # times what a bit is worth, where so many bytes are not there
_WORTH = 0.9, 0.6  # relative change of the error over that of the bytes, and more of it at a bit a voxel
_MARGIN = 1.25  # times what their bytes are worth, that experts must gain
_ROUND = 8.66  # 12 log(2) + ...: of a step, where its noise is worth the bits that it saves
_SHIFTS = 3  # on the way to the mean, of which clipping leaves a part
_LEFT = 0.1  # of a shift, by which it may miss the mean
_NOTHING = 1e-3  # of an error, in place of none
_GOLDEN = (math.sqrt(5) - 1) / 2
_CLIPPED = 1e-6  # of half the range: values beyond an end differ by less once they are clipped
_COARSEST = 200  # code of the coarsest unit: a tap of 2


class Restoration(NamedTuple):
    """Experts with the bytes of their section."""

    experts: LinearExperts
    payload: bytes


class _Sample(NamedTuple):
    """Voxels, and what experts read of them."""

    values: Doubles
    bends: Doubles  # shape (2 * axes, voxels)
    steepness: Doubles
    errors: Doubles  # what is to be added to the values
    weights: Doubles  # how many voxels each of them stands for


class Restored(NamedTuple):
    """What restores a transform, the mean square error that is left, and the values."""

    restoration: Restoration
    error: float
    values: Floats


def restore_within(
    values: Floats,
    target: Floats,
    valid: Bools | None,
    zero: float,
    nbytes: int,
    limit: float = math.inf,
    known: LinearExperts | None = None,
) -> Restored | None:
    """Restore a transform by experts; None where that is not worth their bytes.

    Parameters
    ----------
    values, target, valid, nbytes, limit, known
        As for :func:`fit_experts`.
    zero : float
        The target of zero, as :func:`moec_zarr.fit.transform.straighten.straighten` takes it.
    """
    found = fit_experts(values, target, valid, nbytes, limit, known)
    if found is None:
        return None
    bias, error = measure_clipped(values, target, valid)
    restored = restore_whole(values, found.experts)
    moved, left = measure_clipped(restored, target, valid)
    small, distance = float(max(abs(bias), small_bias(target, valid, zero))), 0.0
    for _ in range(_SHIFTS):
        if abs(moved) <= small:
            break
        # What is clipped does not move.
        distance -= moved * restored.size / max(1, int(np.count_nonzero(np.abs(restored + distance) < 1)))
        code = min(max(nearest_code(abs(distance)), 1), 127)
        own = replace(found.experts, shift=int(math.copysign(code, distance)))
        found, distance = _written(own), math.copysign(STEP_SIZES[code], distance)
        moved, left = measure_clipped(restored + np.float32(distance), target, valid)
    if abs(moved) > max(small, _LEFT * abs(distance)):
        return None
    worth = worth_of(nbytes, values.size) * len(found.payload)
    if math.log(max(left, _NOTHING * error) / error) > -worth:
        return None
    return Restored(found, left, restored + np.float32(distance) if distance else restored)


def worth_of(nbytes: int, voxels: int) -> float:
    """Return the relative change of the error that a byte more or less makes, about."""
    return (_WORTH[0] + _WORTH[1] * min(1.0, 8 * nbytes / voxels)) / nbytes


def fit_experts(
    values: Floats,
    target: Floats,
    valid: Bools | None,
    nbytes: int,
    limit: float = math.inf,
    known: LinearExperts | None = None,
) -> Restoration | None:
    """Fit the experts that restore a transform; None where they are not worth their bytes.

    Parameters
    ----------
    values : float32 array
        What the transform adds up to.
    target : float32 array of the same shape
        What it stands for, between -1 and 1.
    valid : bool array of the same shape, or None
        Which voxels count; all where None.
    nbytes : int
        Of the transform.
    limit : float
        Bytes that the section may take.
    known : LinearExperts, optional
        Those of nearly the same values, whose knots are taken.
    """
    sample = _draw(values, target, valid)
    if sample is None:
        return None
    total = float(sample.weights @ np.square(sample.errors))
    spread = math.sqrt(total / float(sample.weights.sum()))
    if not spread:
        return None
    steepness, levels = _knots(sample, spread) if known is None else _known_knots(known)
    gram, moment = _products(sample, steepness, levels)
    worth = worth_of(nbytes, values.size)
    candidates: list[tuple[float, int, float, tuple[_Knots, _Knots], Doubles, Doubles]] = []
    for steep in _FEWER_STEEP if known is None else _FEWER_STEEP[-1:]:
        for level in _FEWER_VALUES if known is None else _FEWER_VALUES[-1:]:
            own = _merged(steepness, steep), _merged(levels, level)
            mixing = _mixing(*own, values.ndim)
            products, own_moment = mixing @ gram @ mixing.T, mixing @ moment
            left = total - float(own_moment @ _solve(products, own_moment))
            if left <= 0:
                continue
            # A sample tells less of many weights (Akaike): neighbours err alike.
            doubt = _DOUBT * len(own_moment) / len(sample.errors)
            estimate = math.log(left / total) + doubt + worth * (_HEAD + len(own_moment) * _BITS / 8)
            candidates.append((estimate, len(candidates), doubt, own, products, own_moment))
    best, least = None, 0.0
    likely = sorted(candidates, key=lambda each: each[:2])[:_TRIED]
    for _, _, doubt, (steep_knots, level_knots), products, own_moment in likely:
        for raised in _PRICES:
            price = raised * worth * total / 8
            found = _quantise(steep_knots.knots, level_knots.knots, values.ndim, products, own_moment, price)
            if len(found[0].payload) <= limit:
                break
        if len(found[0].payload) > limit:
            continue
        left = max(total + found[1], _NOTHING * total)
        net = math.log(left / total) + doubt + _MARGIN * worth * len(found[0].payload)
        if net < least:
            best, least = found[0], net
    if best is not None:
        _log.debug("experts of %d bytes: %.3f dB, net", len(best.payload), -10 * least / math.log(10))
    return best


# -------------------------------------------------------------------------------- sample


def _draw(values: Floats, target: Floats, valid: Bools | None) -> _Sample | None:
    """Draw voxels, evenly spread and more of the steep ones."""
    count = min(max(values.size // _SHARE, _FEWEST), _MOST)
    looked_at = _LOOKED_AT * count
    flat = np.arange(values.size)
    if looked_at < values.size:
        # Multiples of the golden ratio leave no gaps (Weyl); a stride would meet the same voxels of each row.
        flat = np.sort((np.arange(looked_at) * _GOLDEN % 1 * values.size).astype(np.int64))
    if valid is not None:
        flat = flat[valid.reshape(-1)[flat]]
    if not flat.size:
        return None
    bends, steepness, here = _read(values, flat)
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
    return _Sample(here, bends, steepness, errors, weights)


def _read(values: Floats, flat: Integers) -> tuple[Doubles, Doubles, Doubles]:
    """Return bends, steepness and values of voxels."""
    index = np.unravel_index(flat, values.shape)
    here = values.reshape(-1)[flat].astype(np.float64)

    def near(axis: int) -> Doubles:
        places = neighbours(index[axis], OFFSETS, values.shape[axis])
        moved = [places if own == axis else each[None] for own, each in enumerate(index)]
        return values[tuple(moved)].astype(np.float64)

    bends, steepness = around(here, map(near, range(values.ndim)))
    return bends, steepness, here


# -------------------------------------------------------------------------------- gate


class _Knots(NamedTuple):
    """Knots as they are coded, where they lie, and the shorter ramps that theirs are made of."""

    knots: tuple[int, ...]
    places: Doubles
    ramps: Doubles  # shape (1 + ramps, 1 + ramps of the finest knots)


def _knots(sample: _Sample, spread: float) -> tuple[_Knots, _Knots]:
    """Return the finest knots of steepness and of the value."""
    codes = map(nearest_code, _quantiles(sample.steepness, sample.weights, _STEEPNESS))
    values = _quantiles(sample.values, sample.weights, _VALUES)
    numbers = np.clip(np.rint(VALUE_KNOTS * values), -VALUE_KNOTS, VALUE_KNOTS - 1).astype(int).tolist()
    shortest = _SHORTEST_RAMP * spread
    own: list[int] = []
    for code in codes:
        if STEP_SIZES[code] - (STEP_SIZES[own[-1]] if own else 0.0) >= shortest:
            own.append(code)
    steep = _Knots(tuple(own), np.array([0.0, *STEP_SIZES[own]]), np.eye(1 + len(own)))
    levels: list[int] = []
    for number in numbers:
        if not levels or (number - levels[-1]) / VALUE_KNOTS >= max(shortest, 1 / VALUE_KNOTS):
            levels.append(number)
    places = np.array(levels) / VALUE_KNOTS
    return steep, _Knots(tuple(levels), places, np.eye(max(1, len(levels))))


def _known_knots(experts: LinearExperts) -> tuple[_Knots, _Knots]:
    """Return the knots of experts, of which none are left out."""
    steep, level = experts.steepness, experts.value
    return (
        _Knots(steep, np.array([0.0, *STEP_SIZES[list(steep)]]), np.eye(1 + len(steep))),
        _Knots(level, np.array(level) / VALUE_KNOTS, np.eye(max(1, len(level)))),
    )


def _quantiles(values: Doubles, weights: Doubles, shares: Sequence[float]) -> Doubles:
    """Return quantiles of weighted values."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return np.asarray(values[order][np.searchsorted(total, np.multiply(shares, total[-1]))])


def _merged(finest: _Knots, kept: Sequence[int] | None) -> _Knots:
    """Return some of the knots."""
    count = len(finest.places)
    chosen = sorted({index for index in kept or () if index < count})
    if len(chosen) < 2:
        return _Knots((), finest.places[:0], finest.ramps[:1])
    rows = [finest.ramps[0]]
    for first, last in pairwise(chosen):
        row = np.zeros(count)
        lengths = np.diff(finest.places[first : last + 1])
        row[1 + first : 1 + last] = lengths / lengths.sum()
        rows.append(row)
    hidden = count - len(finest.knots)  # the first knot of steepness is not coded
    knots = tuple(finest.knots[index - hidden] for index in chosen if index >= hidden)
    return _Knots(knots, finest.places[chosen], np.stack(rows))


def _mixing(steep: _Knots, level: _Knots, axes: int) -> Doubles:
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


def _products(sample: _Sample, steepness: _Knots, levels: _Knots) -> tuple[Doubles, Doubles]:
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


# -------------------------------------------------------------------------------- weights


def _solve(products: Doubles, moment: Doubles) -> Doubles:
    return np.asarray(np.linalg.solve(_ridged(products), moment), np.float64)


def _ridged(products: Doubles) -> Doubles:
    diagonal = np.diag(products)
    return products + np.diag(_RIDGE * diagonal + 1e-12 * diagonal.max() + np.finfo(np.float64).tiny)


def _quantise(
    steepness: tuple[int, ...],
    value: tuple[int, ...],
    axes: int,
    products: Doubles,
    moment: Doubles,
    price: float,
) -> tuple[Restoration, float]:
    """Round the weights, none beyond what is written; return also the change of the squares of the errors.

    Parameters
    ----------
    steepness, value
        Knots, as :class:`LinearExperts` has them.
    products, moment : arrays, shapes (weights, weights) and (weights,)
        The squares are ``w @ products @ w - 2 * moment @ w`` more.
    price : float
        Squares that a bit is worth.
    """
    shape = 1 + len(steepness) + max(len(value) - 1, 0), axes, 2
    count = math.prod(shape)
    inverse = np.linalg.inv(_ridged(products))
    left = inverse @ moment
    units = [
        min(nearest_code(math.sqrt(_ROUND * price * own)), _COARSEST)
        for own in (np.median(np.diag(inverse)[:count]), np.median(np.diag(inverse)[count:]))
    ]
    steps = np.repeat(STEP_SIZES[units], [count, len(moment) - count])
    integers = np.zeros(len(moment), np.int64)
    for i, step in enumerate(steps):
        own = inverse[i, i]
        most = min(MAX_MAGNITUDE, math.floor(LARGEST_WEIGHT / step))
        nearest = max(-most, min(round(left[i] / step), most))
        choices = {nearest, nearest - (nearest > 0) + (nearest < 0), 0}
        integers[i] = min(
            choices, key=lambda q: ((left[i] - q * step) ** 2 / own + price * _bits(abs(q)), abs(q))
        )
        left -= inverse[:, i] * ((left[i] - integers[i] * step) / own)
        inverse -= np.outer(inverse[:, i], inverse[i] / own)
    weights = integers * steps
    change = float(weights @ products @ weights - 2 * moment @ weights)
    taps = integers[:count].reshape(shape).astype(np.int32)
    constants = integers[count:].reshape(1 + len(steepness), -1).astype(np.int32)
    return _written(LinearExperts(steepness, value, (units[0], units[1]), taps, constants)), change


def _written(experts: LinearExperts) -> Restoration:
    distributions = [choose_distribution(experts.taps), choose_distribution(experts.constants)]
    return Restoration(experts, write_linear_experts(experts, distributions))


@lru_cache(maxsize=1024)
def _bits(magnitude: int) -> float:
    """Return about the bits of a weight."""
    return 0.6 if not magnitude else 2.4 + 2 * math.log2(magnitude)
