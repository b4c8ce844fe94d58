"""A transform made right in the mean: decoders clip values at both ends of the range, which moves it.

Where many values lie at an end, as the zeros of rain do, a transform rings about it, and clipping takes away
one side of that alone. Stretched and shifted, its values are closer when they are clipped, and right in the
mean. That takes no bytes: the step stretches them all, the coefficients of a constant shift them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Doubles, Floats
from moec_zarr.bitstream.coefficients import STEPS
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT
from moec_zarr.compiled import compiled
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.folding import folded_shape
from moec_zarr.model.transform import analyse

__all__ = ["measure_clipped", "small_bias", "straighten"]

_BIAS = 5e-4  # of the mean magnitude: what is not corrected
_CLIPPED = 0.02  # of the values, from which on they are closer once stretched
_SAMPLE = 1 << 17  # values that say how much is to be stretched
_ROUNDS, _MEAN_ROUNDS = 8, 6
_STRETCH = 0.6, 1.6  # between which lies what is to be stretched
_NOTHING = 1e-3  # of the largest coefficient of a constant
_LOSS = 1.001  # times the error, at most, that the mean may cost: 0.004 dB


def straighten(
    coefficients: Coefficients, values: Floats, target: Floats, valid: Bools | None, zero: float
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

    def chosen(values: Floats) -> Floats:
        return values.reshape(-1) if valid is None else values[valid]

    wanted, values = chosen(target), chosen(values)
    bias, first, inside, _ = _clipped(values, wanted, 1.0, 0.0)
    small = small_bias(wanted, None, zero)
    if abs(bias) <= small and values.size - inside < _CLIPPED * values.size:
        return
    stretch, summand = _closest(values, wanted)
    moved = _shifted(coefficients, _unbiased(values, wanted, stretch, summand) / stretch)
    for each in (moved, coefficients) if moved is not None else (coefficients,):
        own = values if each is coefficients else chosen(CoefficientField(each).whole())
        found: list[tuple[bool, float, float]] = []
        for factor in (stretch, _balanced(own, wanted, stretch), _balanced(own, wanted, 1.0)):
            step = float(np.float32(each.step * factor))
            if STEPS[0] <= step <= STEPS[1]:
                left, error, *_ = _clipped(own, wanted, step / each.step, 0.0)
                if error <= _LOSS * first and abs(left) < max(abs(bias), small):
                    found.append((abs(left) > small, error, step))
        if found:
            yield replace(each, step=min(found)[2])


def measure_clipped(values: Floats, target: Floats, valid: Bools | None) -> tuple[float, float]:
    """Return the mean error and the mean square error of the valid values once they are clipped."""
    own, wanted = (each.reshape(-1) if valid is None else each[valid] for each in (values, target))
    bias, error, _, _ = _clipped(own, wanted, 1.0, 0.0)
    return bias, error


def small_bias(target: Floats, valid: Bools | None, zero: float) -> float:
    """Return the mean error that is not worth a correction: a share of the mean distance to zero."""
    return _BIAS * float(np.abs((target if valid is None else target[valid]) - np.float32(zero)).mean())


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
    y, x = (each[::every].astype(np.float64) for each in (values, wanted))
    factor, summand = 1.0, 0.0
    for _ in range(_ROUNDS):
        inside = np.abs(factor * y + summand) < 1
        if np.count_nonzero(inside) < 2 or not (spread := float(y[inside].var())):
            break
        mean_y, mean_x = float(y[inside].mean()), float(x[inside].mean())
        slope = float(((y[inside] - mean_y) * (x[inside] - mean_x)).mean()) / spread
        factor = float(np.clip(slope, *_STRETCH))
        summand = mean_x - factor * mean_y
    return factor, summand


def _unbiased(values: Floats, wanted: Floats, factor: float, summand: float) -> float:
    """Return the summand with which clipped values are right in the mean, by Newton's method."""
    for _ in range(_MEAN_ROUNDS):
        bias, _, inside, _ = _clipped(values, wanted, factor, summand)
        summand -= bias * values.size / max(inside, 1)
    return summand


def _balanced(values: Floats, wanted: Floats, factor: float) -> float:
    """Return a factor near another one with which clipped values are right in the mean."""
    for _ in range(_MEAN_ROUNDS):
        bias, _, _, total = _clipped(values, wanted, factor, 0.0)
        if not total:
            break
        change = bias * values.size / total
        factor -= min(max(change, -0.05), 0.05)
    return factor


def _shifted(coefficients: Coefficients, distance: float) -> Coefficients | None:
    """Return coefficients of values that are larger by a constant, about; None where a step is too coarse."""
    constant = _constant(coefficients)
    added = np.rint(constant * (distance / coefficients.step))
    if not added.any() or not np.abs(added).max() < MAX_COEFFICIENT:
        return None
    shape = [max(pair) for pair in zip(coefficients.integers.shape, added.shape, strict=True)]
    integers = np.zeros(shape, np.int32)
    integers[tuple(map(slice, coefficients.integers.shape))] = coefficients.integers
    integers[tuple(map(slice, added.shape))] += added.astype(np.int32)
    return replace(coefficients, integers=integers) if integers.any() else None


def _constant(coefficients: Coefficients) -> Doubles:
    """Return the first coefficients of a constant 1, up to the last that is not zero."""
    parts: list[NDArray[np.float64]] = []
    for n, basis in zip(folded_shape(coefficients.shape), coefficients.bases, strict=True):
        own = analyse(np.ones(n, np.float32), (replace(basis, joint=False),)).astype(np.float64)
        own[np.abs(own) < _NOTHING * np.abs(own).max()] = 0
        parts.append(own[: int(np.flatnonzero(own)[-1]) + 1])
    return np.asarray(reduce(np.multiply.outer, parts))
