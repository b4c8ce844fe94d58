"""A transform made right in the mean: decoders clip values at both ends of the range, which moves it.

Where many values lie at an end, as the zeros of rain do, a transform rings about it, and clipping takes away
one side of that alone. Stretched and shifted, its values are closer when they are clipped, and right in the
mean. That takes no bytes: the step stretches them all, the coefficients of a constant shift them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Doubles, Floats
from moec_zarr.bitstream.coefficients import STEPS
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT
from moec_zarr.compiled import compiled
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.fit.transform.start import Transform, encode_transform
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.folding import folded_shape
from moec_zarr.model.transform import analyse

__all__ = [
    "Clipped",
    "Straightened",
    "measure_clipped",
    "small_bias",
    "straighten",
    "straighten_within",
    "stretch_for_shift",
]

_BIAS = 5e-4  # of the mean magnitude: what is not corrected
_CLIPPED = 0.02  # of the values, from which on they are closer once stretched
_SAMPLE = 1 << 17  # values that say how much is to be stretched
_ROUNDS, _MEAN_ROUNDS = 8, 6
_STEADY = 1e-4  # a factor that changes by less is found
_NEARLY = 0.1  # of a bias that is not corrected: a mean that is right
_FLAT = 1e-9  # of the squares of values: those that hardly differ
_STRETCH = 0.6, 1.6  # between which lies what is to be stretched
_NOTHING = 1e-3  # of the largest coefficient of a constant
_GAIN = 0.985  # times the error, at most, that is left where experts follow
_LOSS = 1.001  # times the error, at most, that the mean may cost: 0.004 dB


class Straightened(NamedTuple):
    """A transform, the mean square error of its values once they are clipped, and these."""

    transform: Transform
    error: float
    values: Floats


def straighten_within(
    transform: Transform,
    values: Floats,
    target: Floats,
    valid: Bools | None,
    zero: float,
    budget: int,
) -> Straightened:
    """Return a transform whose clipped values are right in the mean, where so many bytes hold it.

    It is the one given where there is none. All parameters but the bytes are those of :func:`straighten`.
    """
    first = measure_clipped(values, target, valid)
    most = max(abs(first.bias), small_bias(target, valid, zero))
    for coefficients in straighten(transform.coefficients, values, target, valid, zero):
        better = _encode_again(transform, coefficients)
        if better is None or better.nbytes > budget:
            continue
        own = CoefficientField(better.coefficients).whole()
        found = measure_clipped(own, target, valid)
        if found.error <= _LOSS * first.error and abs(found.bias) < most:
            return Straightened(better, found.error, own)
    return Straightened(transform, first.error, values)


def stretch_for_shift(transform: Transform, values: Floats, target: Floats, valid: Bools | None) -> Transform:
    """Return a transform that is closest once it is shifted: experts that follow do that.

    It is the one given where that gains little.
    """
    own, wanted = _chosen(values, valid), _chosen(target, valid)
    _, first, inside, _ = _clipped(own, wanted, 1.0, 0.0)
    if own.size - inside < _CLIPPED * own.size:
        return transform
    stretch, summand = _closest(own, wanted)
    step = float(np.float32(transform.coefficients.step * stretch))
    if not STEPS[0] <= step <= STEPS[1] or _clipped(own, wanted, stretch, summand)[1] > _GAIN * first:
        return transform
    return _encode_again(transform, replace(transform.coefficients, step=step)) or transform


def _encode_again(transform: Transform, coefficients: Coefficients) -> Transform | None:
    """Encode coefficients with the context of a transform; None if they cannot be coded."""
    if coefficients.integers is transform.coefficients.integers:
        step, other = (struct.pack("<f", each.step) for each in (transform.coefficients, coefficients))
        if transform.payload.count(step) == 1:  # nothing else differs
            return transform._replace(
                coefficients=coefficients, payload=transform.payload.replace(step, other)
            )
    try:
        return encode_transform(coefficients, transform.context, coefficients.shape, transform.shared)
    except DoesNotFit:
        return None


def straighten(
    coefficients: Coefficients,
    values: Floats,
    target: Floats,
    valid: Bools | None,
    zero: float,
) -> Iterator[Coefficients]:
    """Stretch and shift a transform so that its clipped values are closer, and right in the mean.

    Parameters
    ----------
    coefficients : Coefficients
    values : float32 array
        What they add up to.
    target : float32 array of the same shape
        What they stand for, between -1 and 1.
    valid : bool array of the same shape, or None
        Which values count; all where None.
    zero : float
        The target of zero: the mean need not be closer than a share of the mean distance to it.

    Yields
    ------
    Coefficients
        Better ones: first stretched and shifted, then stretched alone. Nothing where none are.
    """
    own, wanted = _chosen(values, valid), _chosen(target, valid)
    bias, first, inside, _ = _clipped(own, wanted, 1.0, 0.0)
    small = _BIAS * _mean_distance(wanted, zero)
    if abs(bias) <= small and own.size - inside < _CLIPPED * own.size:
        return
    stretch, summand = _closest(own, wanted)
    enough = _NEARLY * small

    def find_step(own: Floats) -> float | None:
        """Return the step with which these values are best; None where none is better."""
        found: list[tuple[bool, float, float]] = []
        balanced = (_balanced(own, wanted, start, enough) for start in (stretch, 1.0))
        for factor in (stretch, *balanced):
            step = float(np.float32(coefficients.step * factor))
            if STEPS[0] <= step <= STEPS[1]:
                left, error, *_ = _clipped(own, wanted, step / coefficients.step, 0.0)
                if error <= _LOSS * first and abs(left) < max(abs(bias), small):
                    found.append((abs(left) > small, error, step))
        return min(found)[2] if found else None

    added = _constant(coefficients, _unbiased(own, wanted, stretch, summand, enough) / stretch)
    if added is not None and (moved := _add(coefficients, added)).integers.any():
        waves = CoefficientField(replace(coefficients, integers=added)).whole()  # which rounding makes of it
        if (step := find_step(own + _chosen(waves, valid))) is not None:
            yield replace(moved, step=step)
    if (step := find_step(own)) is not None:
        yield replace(coefficients, step=step)


class Clipped(NamedTuple):
    """Mean error and mean square error of clipped values, and how many are not clipped."""

    bias: float
    error: float
    inside: int


def measure_clipped(values: Floats, target: Floats, valid: Bools | None, shift: float = 0.0) -> Clipped:
    """Measure the valid values once they are shifted, then clipped."""
    bias, error, inside, _ = _clipped(_chosen(values, valid), _chosen(target, valid), 1.0, shift)
    return Clipped(bias, error, inside)


def small_bias(target: Floats, valid: Bools | None, zero: float) -> float:
    """Return the mean error that is not worth a correction: a share of the mean distance to zero."""
    return _BIAS * _mean_distance(_chosen(target, valid), zero)


def _chosen(values: Floats, valid: Bools | None) -> Floats:
    return values.reshape(-1) if valid is None else values[valid]


@compiled(fastmath=True)
def _mean_distance(wanted: Floats, zero: float) -> float:
    """Return the mean distance of values to the target of zero."""
    total = 0.0
    for i in range(wanted.size):
        total += abs(np.float64(wanted[i]) - zero)
    return total / wanted.size


@compiled(fastmath=True)
def _clipped(
    values: Floats, wanted: Floats, factor: float, summand: float
) -> tuple[float, float, int, float]:
    """Stretch, shift and clip values, in one pass.

    Returns
    -------
    bias, error : float
        The mean error and the mean square error.
    inside : int
        How many are not clipped.
    total : float
        The sum of those, before.
    """
    own, added = np.float32(factor), np.float32(summand)
    bias = error = total = 0.0
    inside = 0
    for i in range(values.size):
        moved = own * values[i] + added
        if abs(moved) < 1:
            inside += 1
            total += np.float64(values[i])
        left = np.float64(min(max(moved, np.float32(-1)), np.float32(1)) - wanted[i])
        bias += left
        error += left * left
    return bias / values.size, error / values.size, inside, total


def _closest(values: Floats, wanted: Floats) -> tuple[float, float]:
    """Return the factor and the summand with which clipped values are closest."""
    every = max(1, values.size // _SAMPLE) | 1
    factor, summand = 1.0, 0.0
    for _ in range(_ROUNDS):
        inside, y, x, yy, xy = _sums_inside(values, wanted, every, factor, summand)
        spread = yy - y * y / max(inside, 1)
        if inside < 2 or spread <= _FLAT * yy:
            break
        last = factor
        factor = min(max((xy - x * y / inside) / spread, _STRETCH[0]), _STRETCH[1])
        summand = (x - factor * y) / inside
        if abs(factor - last) < _STEADY:
            break
    return factor, summand


@compiled(fastmath=True)
def _sums_inside(
    values: Floats, wanted: Floats, every: int, factor: float, summand: float
) -> tuple[int, float, float, float, float]:
    """Count those of every so many values that are not clipped once stretched and shifted; return sums.

    They are those of the values, of what is wanted, of the squares of the values, and of both multiplied.
    """
    inside = 0
    y = x = yy = xy = 0.0
    for i in range(0, values.size, every):
        own, other = np.float64(values[i]), np.float64(wanted[i])
        if abs(factor * own + summand) < 1:
            inside += 1
            y += own
            x += other
            yy += own * own
            xy += own * other
    return inside, y, x, yy, xy


def _unbiased(values: Floats, wanted: Floats, factor: float, summand: float, enough: float) -> float:
    """Return the summand with which clipped values are right in the mean, by Newton's method."""
    for _ in range(_MEAN_ROUNDS):
        bias, _, inside, _ = _clipped(values, wanted, factor, summand)
        if abs(bias) <= enough:
            break
        summand -= bias * values.size / max(inside, 1)
    return summand


def _balanced(values: Floats, wanted: Floats, factor: float, enough: float) -> float:
    """Return a factor near another one with which clipped values are right in the mean."""
    for _ in range(_MEAN_ROUNDS):
        bias, _, _, total = _clipped(values, wanted, factor, 0.0)
        if abs(bias) <= enough or not total:
            break
        change = bias * values.size / total
        factor -= min(max(change, -0.05), 0.05)
    return factor


def _constant(coefficients: Coefficients, height: float) -> NDArray[np.int32] | None:
    """Return the integers of a constant, up to the last that is not zero; None where a step is too coarse."""
    parts: list[Doubles] = []
    for n, basis in zip(folded_shape(coefficients.shape), coefficients.bases, strict=True):
        own = analyse(np.ones(n, np.float32), (replace(basis, joint=False),)).astype(np.float64)
        own[np.abs(own) < _NOTHING * np.abs(own).max()] = 0
        parts.append(own[: int(np.flatnonzero(own)[-1]) + 1])
    integers = np.rint(reduce(np.multiply.outer, parts) * (height / coefficients.step))
    return integers.astype(np.int32) if 0 < np.abs(integers).max() < MAX_COEFFICIENT else None


def _add(coefficients: Coefficients, added: NDArray[np.int32]) -> Coefficients:
    shape = [max(pair) for pair in zip(coefficients.integers.shape, added.shape, strict=True)]
    integers = np.zeros(shape, np.int32)
    integers[tuple(map(slice, coefficients.integers.shape))] = coefficients.integers
    integers[tuple(map(slice, added.shape))] += added
    return replace(coefficients, integers=integers)
