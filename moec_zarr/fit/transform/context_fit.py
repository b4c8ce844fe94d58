"""The context that coefficients are coded with, fitted to their magnitudes.

In real numbers the scale of a coefficient's Laplace distribution is ``exp(offset + slope g + power
log(exp(floor + rise g) + sum of exp(weight) |q|))``, g its octave and q the integers of its neighbours.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from moec_zarr.arrays import Doubles, Floats
from moec_zarr.bitstream.contexts import Context
from moec_zarr.compiled import compiled
from moec_zarr.model.basis import AXIS_NEIGHBOURS

__all__ = ["Sample", "first_parameters", "fit_context", "real_parameters", "round_parameters"]

_LARGEST_LOG_FLOOR = 15  # its logarithm
_LOG_SCALES = math.log(0.03), math.log(900.0)  # between which scales lie
_LARGEST_PARAMETER = 20.0  # of weights, floor and offset: beyond what is written
_RIDGE = 1e-4  # keeps the floor of the activity in bounds where it hardly matters
_FLOOR, _RISE, _POWER = -5, -4, -3  # among the parameters
_EIGHTH = math.log(2) / 8  # of an octave, in which logarithms of the activity are written
# Half the inverse scale beyond which the ratios of magnitudes stay as they are: classes 13 and 18.
_HALF_FIRST, _HALF_LATER = 1.6, 2 / 3
_LEAST_CHANCE = 2.0**-16
_LARGEST_TAIL = 18.0  # nats of a magnitude beyond 2, at most: large ones are written plainly
_DAMPING, _LEAST_DAMPING = 0.01, 1e-7
_LARGEST_CHANGE = 2.0  # of a parameter in a step
_REJECTIONS = 6  # steps that take no bits away, at most
_GAIN = 2e-4  # of the bits: less is not worth another step

Parameters: TypeAlias = Doubles


class Sample(NamedTuple):
    """Coefficients that a context is fitted to.

    Attributes
    ----------
    magnitudes, octaves : float32 array, shape (n,)
    beside : float32 array, shape (n, axes * AXIS_NEIGHBOURS)
        Magnitudes of the neighbours.
    share : float32 array, shape (n,)
        How many coefficients each stands for, in sum 1.
    """

    magnitudes: Floats
    octaves: Floats
    beside: Floats
    share: Floats


def first_parameters(cosines: tuple[bool, ...]) -> Parameters:
    """Return where a fit starts: the mean over contexts that were fitted to many fields."""
    weights = [w for each in cosines for w in ((0.0, -1.0, -1.0) if each else (0.2, -2.0, -0.6))]
    return np.array([*weights, 0.0, -0.2, 1.0, -2.0, 0.0])


def fit_context(start: Parameters, sample: Sample, octaves: int, steps: int) -> Parameters:
    """Fit the parameters with which a sample takes the fewest bits, by so many steps of Fisher's scoring.

    Each step is damped (Levenberg and Marquardt) until it takes bits away.

    Parameters
    ----------
    start : float64 array
        Weights of the neighbours, floor, rise, power, offset, slope.
    sample : Sample
    octaves : int
        How many there are.
    """
    upper = np.full(len(start), _LARGEST_PARAMETER)
    upper[_RISE] /= max(octaves, 1)  # the ground of each octave is bounded
    lower = -upper
    lower[_POWER] = 0
    best, damping = np.clip(start, lower, upper), _DAMPING
    bits, gradient, information = _sample_bits(best, *sample)
    rejected = 0
    while steps and rejected < _REJECTIONS:
        scale = np.diag(information)
        damped = information + np.diag(damping * scale + _LEAST_DAMPING)
        change = np.clip(np.linalg.solve(damped, gradient), -_LARGEST_CHANGE, _LARGEST_CHANGE)
        new = np.clip(best - change, lower, upper)
        result = _sample_bits(new, *sample)
        if result[0] >= bits:
            damping, rejected = 8 * damping, rejected + 1
            continue
        gain, best = bits - result[0], new
        bits, gradient, information = result
        damping, steps = 0.2 * damping, steps - 1
        if gain < _GAIN * bits:
            break
    # All are written in units of the largest: a weight of what never occurs must not be that one.
    weights, seen = best[: sample.beside.shape[1]], sample.beside.any(axis=0)
    if np.any(seen):
        weights[~seen] = weights[seen].min()
    return best


@compiled(fastmath=True)
def _sample_bits(p: Any, q: Any, g: Any, t: Any, share: Any) -> tuple[float, Any, Any]:
    """Mean bits of magnitudes, their gradient, and the information of the parameters."""
    neighbours, size = t.shape[1], p.size
    weights = np.exp(p[:neighbours])
    floor, rise, power, offset, slope = p[-5], p[-4], p[-3], p[-2], p[-1]
    gradient = np.zeros(size)
    information = np.zeros((size, size))
    by = np.empty(size)  # the derivatives of the logarithm of the scale
    total = 0.0
    for i in range(q.size):
        ground = math.exp(floor + rise * g[i])
        activity = ground
        for neighbour in range(neighbours):
            activity += weights[neighbour] * t[i, neighbour]
        logarithm = math.log(activity)
        fine = offset + slope * g[i] + power * logarithm
        inside = _LOG_SCALES[0] < fine < _LOG_SCALES[1]
        half = 0.5 * math.exp(-min(max(fine, _LOG_SCALES[0]), _LOG_SCALES[1]))
        chance = math.exp(-half)
        odds = chance / (1 - chance)
        if q[i] == 0:
            nats = -math.log(1 - chance)
            by_half = -odds
        else:
            nats = half if chance > _LEAST_CHANCE else -math.log(_LEAST_CHANCE)
            by_half = 1.0 if chance > _LEAST_CHANCE else 0.0
            first, later = min(half, _HALF_FIRST), min(half, _HALF_LATER)
            if q[i] == 1:
                ratio = math.exp(-2 * first)
                nats -= math.log(1 - ratio)
                if half < _HALF_FIRST:
                    by_half -= 2 * ratio / (1 - ratio)
            else:
                ratio = math.exp(-2 * later)
                tail = 2 * later * (q[i] - 2)
                nats += 2 * first + min(tail, _LARGEST_TAIL) - math.log(1 - ratio)
                if half < _HALF_FIRST:
                    by_half += 2
                if half < _HALF_LATER and tail < _LARGEST_TAIL:
                    by_half += 2 * (q[i] - 2) - 2 * ratio / (1 - ratio)
        total += nats * share[i]
        if not inside:
            continue
        by_fine = -half * by_half * share[i]
        known = half * half * odds * share[i]
        if half < _HALF_LATER:
            ratio = math.exp(-2 * half)
            known += half * half * chance * 4 * ratio / ((1 - ratio) * (1 - ratio)) * share[i]
        relative = power / activity
        for neighbour in range(neighbours):
            by[neighbour] = relative * weights[neighbour] * t[i, neighbour]
        by[neighbours] = relative * ground
        by[neighbours + 1] = relative * ground * g[i]
        by[neighbours + 2] = logarithm
        by[neighbours + 3] = 1.0
        by[neighbours + 4] = g[i]
        for row in range(size):
            gradient[row] += by_fine * by[row]
            own = known * by[row]
            if own != 0:
                for column in range(row + 1):
                    information[row, column] += own * by[column]
    for row in range(size):
        for column in range(row):
            information[column, row] = information[row, column]
    gradient[neighbours] += 2 * _RIDGE * floor
    gradient[neighbours + 1] += 2 * _RIDGE * rise
    information[neighbours, neighbours] += 2 * _RIDGE
    information[neighbours + 1, neighbours + 1] += 2 * _RIDGE
    return total + _RIDGE * (floor * floor + rise * rise), gradient, information


def round_rise(p: Parameters, octave: float) -> Parameters:
    """Round a rise to the coarse units in which it is written; change the floor to make up for it."""
    result = p.copy()
    result[_RISE] = round(p[_RISE] / _EIGHTH) * _EIGHTH
    result[_FLOOR] += (p[_RISE] - result[_RISE]) * octave
    return result


def round_parameters(p: Parameters, octaves: int) -> Context:
    """Round the parameters to the units of `Context`, for so many octaves."""
    octave = math.log(2)
    weights, (floor, rise, power, offset, slope) = p[:-5], p[-5:].tolist()
    # Whole numbers of activity in one of the real ones: as many as weights and grounds have room for.
    ground = floor + max(rise * (octaves - 1), 0.0)
    unit = min(255 / np.exp(weights.max()), 2.0**_LARGEST_LOG_FLOOR / np.exp(ground))

    def whole(value: Any, low: int, high: int) -> int:
        return int(min(max(round(float(value)), low), high))

    # Both exponential and logarithm run in eighths of an octave, classes in quarters from 2**-5 on.
    return Context(
        neighbour_weights=tuple(whole(w, 0, 255) for w in unit * np.exp(weights)),
        floor=whole((floor + np.log(unit)) / _EIGHTH, -128, 127),
        rise=whole(rise / _EIGHTH, -128, 127),
        power=whole(64 * power, 0, 255),
        offset=whole(128 * (4 * (offset - power * np.log(unit)) / octave + 20.5), -(2**15), 2**15 - 1),
        slope=whole(128 * 4 * slope / octave, -(2**15), 2**15 - 1),
    )


def real_parameters(context: Context) -> Parameters:
    """Return the parameters that a context was rounded from, about."""
    octave = math.log(2)
    weights = np.log(np.maximum(np.array(context.neighbour_weights, float), 0.5))
    offset, slope = octave * (context.offset / 128 - 20.5) / 4, octave * context.slope / 512
    others = [context.floor * _EIGHTH, context.rise * _EIGHTH, context.power / 64, offset, slope]
    return np.array([*weights, *others])


assert AXIS_NEIGHBOURS == 3  # of the first weights
