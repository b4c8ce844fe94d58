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
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Doubles, Floats
from moec_zarr.bitstream.linear_experts import LARGEST_WEIGHT, write_linear_experts
from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE
from moec_zarr.fit.payloads import choose_distribution
from moec_zarr.fit.transform.expert_sample import (
    Knots,
    draw_sample,
    find_knots,
    knots_of,
    merge_ramps,
    mix_columns,
    multiply_columns,
)
from moec_zarr.model.linear_experts import LinearExperts
from moec_zarr.model.steps import STEP_SIZES, nearest_code

__all__ = ["NEPER", "NOTHING", "Restoration", "fit_experts", "quantise", "solve", "worth_of", "write"]

NEPER = 10 / math.log(10)
"""In dB."""

NOTHING = 1e-3
"""Of an error, in place of none."""

_log = logging.getLogger(__name__)
_STEEPNESS = 0.6, 0.92, 0.98  # quantiles of the finest knots
_VALUES = 0.005, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95, 0.995
# Knots that are left where there are fewer: the first ones are at 0, and all that are left out are None.
_FEWER_STEEP: tuple[Sequence[int] | None, ...] = (None, range(4))
_FEWER_VALUES: tuple[Sequence[int] | None, ...] = (None, (0, 4, 8), (0, 2, 4, 6, 8), range(9))
_RIDGE = 1e-5
_DOUBT = 4.0  # times the weights a voxel, by which errors of others are larger
_HEAD, _BITS = 14, 2.5  # bytes of the section but its weights, and bits of a weight, about
_TRIED = 1  # numbers of knots that are quantised
_SCREENED, _LARGER = 1 << 12, 4  # voxels of the sample that says which, and how much larger the other one is
# Logarithm of the error, with what their bytes are worth, from which on they are not: 0.04 dB are within what
# the rounds of a transform leave to chance, and take a third of the time.
_HOPE = -0.01
_PRICES = 1.0, 1.5, 2.5, 4.0  # times what a bit is worth, where so many bytes are not there
_WORTH = 0.9, 0.6  # relative change of the error over that of the bytes, and more of it at a bit a voxel
_MARGIN = 1.25  # times what their bytes are worth, that experts must gain
_ROUND = 8.66  # 12 log(2) + ...: of a step, where its noise is worth the bits that it saves
_COARSEST = 200  # code of the coarsest unit: a tap of 2
_SECTION = 3  # bytes of a small section's number and length, at most
_ENTRY = 5  # bytes of a dictionary's entry: its number, and a section with a shift


class Restoration(NamedTuple):
    """Experts with the bytes of their section.

    Attributes
    ----------
    experts : LinearExperts
    payload : bytes
        What the stream itself holds: where a dictionary has them, nothing or a shift.
    net : float
        Logarithm of the error that is left, with what their bytes are worth: below 0, about.
    entry : int or None
        Number of the dictionary's entry that they are.
    """

    experts: LinearExperts
    payload: bytes
    net: float = 0.0
    entry: int | None = None

    @property
    def is_shared(self) -> bool:
        """Whether they are those of a dictionary."""
        return self.entry is not None

    @property
    def nbytes(self) -> int:
        """Bytes that they take in a stream, at most."""
        return _ENTRY if self.is_shared else len(self.payload) + _SECTION


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
        Bytes that they may take in a stream.
    known : LinearExperts, optional
        Those of nearly the same values, whose knots are taken.
    """
    worth = worth_of(nbytes, values.size)
    likely = _screen(values, target, valid, worth) if known is None else [knots_of(known)]
    sample = draw_sample(values, target, valid) if likely else None
    if sample is None:
        return None
    total = float(sample.weights @ np.square(sample.errors))
    if not total:
        return None
    best, least = None, _HOPE
    for steep_knots, level_knots in likely:
        products, moment = multiply_columns(sample, steep_knots, level_knots)
        doubt = _DOUBT * len(moment) / len(sample.errors)
        for raised in _PRICES:
            price = raised * worth * total / 8
            found = quantise(steep_knots.knots, level_knots.knots, values.ndim, products, moment, price)
            if found[0].nbytes <= limit:
                break
        if found[0].nbytes > limit:
            continue
        left = max(total + found[1], NOTHING * total)
        net = math.log(left / total) + doubt + _MARGIN * worth * len(found[0].payload)
        if net < least:
            best, least = found[0]._replace(net=net), net
    if best is not None:
        _log.debug("experts of %d bytes: %.3f dB, net", len(best.payload), -NEPER * least)
    return best


def _screen(values: Floats, target: Floats, valid: Bools | None, worth: float) -> list[tuple[Knots, Knots]]:
    """Return the knots that are likely to gain most, by a small sample; none where none gain."""
    sample = draw_sample(values, target, valid, _SCREENED)
    if sample is None:
        return []
    total = float(sample.weights @ np.square(sample.errors))
    if not total:
        return []
    spread = math.sqrt(total / float(sample.weights.sum()))
    steepness, levels = find_knots(sample, spread, _STEEPNESS, _VALUES)
    gram, moment = multiply_columns(sample, steepness, levels)
    most = 1 - float(moment @ solve(gram, moment)) / total
    found: list[tuple[float, int, tuple[Knots, Knots]]] = []
    for steep in _FEWER_STEEP:
        for level in _FEWER_VALUES:
            own = merge_ramps(steepness, steep), merge_ramps(levels, level)
            rows, columns = (len(knots.ramps) for knots in own)
            count = 2 * values.ndim * (rows + columns - 1) + rows * columns
            # A sample tells less of many weights (Akaike): neighbours err alike. One half of the doubt is of
            # this sample, one of the larger one that weights are fitted to.
            doubt = _DOUBT * count / len(sample.errors) * (1 + 1 / _LARGER) / 2
            price = doubt + worth * (_HEAD + count * _BITS / 8)
            if math.log(max(most, NOTHING)) + price > _HOPE:  # no fewer knots gain as much
                continue
            mixing = mix_columns(*own, values.ndim)
            own_moment = mixing @ moment
            left = 1 - float(own_moment @ solve(mixing @ gram @ mixing.T, own_moment)) / total
            if left > 0 and math.log(left) + price <= _HOPE:
                found.append((math.log(left) + price, len(found), own))
    return [own for _, _, own in sorted(found, key=lambda each: each[:2])[:_TRIED]]


# -------------------------------------------------------------------------------- weights


def solve(products: Doubles, moment: Doubles) -> Doubles:
    """Return the weights of the least squares."""
    return np.asarray(np.linalg.solve(_ridge(products), moment), np.float64)


def _ridge(products: Doubles) -> Doubles:
    diagonal = np.diag(products)
    return products + np.diag(_RIDGE * diagonal + 1e-12 * diagonal.max() + np.finfo(np.float64).tiny)


def quantise(
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
    inverse = np.linalg.inv(_ridge(products))
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
        rest = inverse[i, i + 1 :]  # of the weights that are still free
        left[i + 1 :] -= rest * ((left[i] - integers[i] * step) / own)
        inverse[i + 1 :, i + 1 :] -= np.outer(rest, rest / own)
    weights = integers * steps
    change = float(weights @ products @ weights - 2 * moment @ weights)
    taps = integers[:count].reshape(shape).astype(np.int32)
    constants = integers[count:].reshape(1 + len(steepness), -1).astype(np.int32)
    return write(LinearExperts(steepness, value, (units[0], units[1]), taps, constants)), change


def write(experts: LinearExperts) -> Restoration:
    """Write the section of experts, with the distributions that suit them."""
    distributions = [choose_distribution(experts.taps), choose_distribution(experts.constants)]
    return Restoration(experts, write_linear_experts(experts, distributions))


@lru_cache(maxsize=1024)
def _bits(magnitude: int) -> float:
    """Return about the bits of a weight."""
    return 0.6 if not magnitude else 2.4 + 2 * math.log2(magnitude)
