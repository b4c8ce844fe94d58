"""The context that coefficients are coded with, fitted to their magnitudes.

In real numbers the scale of a coefficient's Laplace distribution is ``exp(offset + slope g + power
log(exp(floor + rise g) + sum of exp(weight) |q|))``, g its octave and q the integers of its neighbours.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from moec_zarr.arrays import Doubles, Floats
from moec_zarr.bitstream.contexts import Context
from moec_zarr.compiled import compiled
from moec_zarr.model.basis import AXIS_NEIGHBOURS

__all__ = ["Sample", "first_parameters", "fit_context", "real_parameters", "round_parameters"]

_LARGEST_LOG_FLOOR = 15  # its logarithm
_LOG_SCALES = math.log(0.03), math.log(900.0)  # between which scales lie
_LARGEST_POWER = 255 / 64  # that is written
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
_CELLS = 1024  # of the logarithm of the scale, in which nats are linear, about
_BLOCK = 256  # rows of a sample whose derivatives are multiplied together

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
    lower[_POWER], upper[_POWER] = 0, _LARGEST_POWER
    best, damping, table = np.clip(start, lower, upper), _DAMPING, _laplace_table()
    bits, gradient, information = _sample_bits(best, *sample, table, True)
    rejected = 0
    while steps and rejected < _REJECTIONS:
        scale = np.diag(information)
        damped = information + np.diag(damping * scale + _LEAST_DAMPING)
        change = np.clip(np.linalg.solve(damped, gradient), -_LARGEST_CHANGE, _LARGEST_CHANGE)
        new = np.clip(best - change, lower, upper)
        fewer = _sample_bits(new, *sample, table, False)[0]
        if fewer >= bits:
            damping, rejected = 8 * damping, rejected + 1
            continue
        gain, best, steps = bits - fewer, new, steps - 1
        if not steps or gain < _GAIN * bits:
            break
        damping *= 0.2
        bits, gradient, information = _sample_bits(best, *sample, table, True)
    # All are written in units of the largest: a weight of what never occurs must not be that one.
    weights, seen = best[: sample.beside.shape[1]], sample.beside.any(axis=0)
    if np.any(seen):
        weights[~seen] = weights[seen].min()
    return best


@lru_cache(maxsize=1)
def _laplace_table() -> Floats:
    """Tabulate what follows from the logarithm of a scale, in the middle of each cell; (_CELLS, 9).

    Nats of the magnitudes 0, 1 and 2, and of each step beyond; their slopes; the information of a magnitude.
    """
    low, high = _LOG_SCALES
    half = 0.5 * np.exp(-(low + (np.arange(_CELLS) + 0.5) * (high - low) / _CELLS))
    is_first, is_later = half < _HALF_FIRST, half < _HALF_LATER
    first, later = np.minimum(half, _HALF_FIRST), np.minimum(half, _HALF_LATER)
    chance, after_one, after_two = np.exp(-half), np.exp(-2 * first), np.exp(-2 * later)
    odds, is_likely = chance / (1 - chance), chance > _LEAST_CHANCE
    some = np.where(is_likely, half, -math.log(_LEAST_CHANCE))
    nats = [
        -np.log(1 - chance), some - np.log(1 - after_one), some + 2 * first - np.log(1 - after_two), 2 * later
    ]  # fmt: skip
    by_half = [
        -odds,
        is_likely - is_first * 2 * after_one / (1 - after_one),
        is_likely + is_first * 2 - is_later * 2 * after_two / (1 - after_two),
        is_later * 2,
    ]
    information = half**2 * (odds + is_later * chance * 4 * after_two / (1 - after_two) ** 2)
    return np.stack([*nats, *(-half * each for each in by_half), information], axis=1).astype(np.float32)


@compiled(fastmath=True)
def _sample_bits(
    p: Any, q: Any, g: Any, t: Any, share: Any, table: Any, derive: bool
) -> tuple[float, Any, Any]:  # fmt: skip
    """Mean bits of magnitudes; where wanted, their gradient and the information of the parameters too."""
    neighbours, size = t.shape[1], p.size
    weights = np.exp(p[:neighbours]).astype(np.float32)
    floor, rise, power, offset, slope = p[-5], p[-4], p[-3], p[-2], p[-1]
    grounds = np.exp(floor + rise * np.arange(int(g.max()) + 1))
    low, width = _LOG_SCALES[0], (_LOG_SCALES[1] - _LOG_SCALES[0]) / _CELLS
    gradient = np.zeros(size)
    information = np.zeros((size, size))
    # Of a block of the sample: derivatives of the logarithm of the scale, and what they count.
    by = np.ones((size, _BLOCK), np.float32)
    slopes, known = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    weighted = np.empty(_BLOCK, np.float32)
    total = 0.0
    for start in range(0, q.size, _BLOCK):
        count = min(_BLOCK, q.size - start)
        for place in range(count):
            i = start + place
            ground, around = grounds[int(g[i])], np.float32(0)
            for neighbour in range(neighbours):
                around += weights[neighbour] * t[i, neighbour]
            activity = ground + around
            logarithm = math.log(activity)
            cells = (offset + slope * g[i] + power * logarithm - low) / width
            inside = 0 < cells < _CELLS
            cell = int(min(max(cells, 0.0), _CELLS - 1.0))
            beyond = (cells - cell - 0.5) * width if inside else 0.0
            kind = int(min(q[i], 2.0))
            nats, by_fine = table[cell, kind] + beyond * table[cell, 4 + kind], table[cell, 4 + kind]
            if kind == 2:
                tail = (table[cell, 3] + beyond * table[cell, 7]) * (q[i] - 2)
                nats += min(tail, _LARGEST_TAIL)
                by_fine += table[cell, 7] * (q[i] - 2) if tail < _LARGEST_TAIL else 0.0
            total += nats * share[i]
            if not derive:
                continue
            counts = share[i] if inside else 0.0
            slopes[place], known[place] = by_fine * counts, table[cell, 8] * counts
            relative = np.float32(power / activity)
            for neighbour in range(neighbours):
                by[neighbour, place] = relative * weights[neighbour] * t[i, neighbour]
            by[neighbours, place] = relative * ground
            by[neighbours + 1, place] = relative * ground * g[i]
            by[neighbours + 2, place] = logarithm
            by[neighbours + 4, place] = g[i]
        for row in range(size if derive else 0):
            along = np.float32(0)
            for place in range(count):
                along += slopes[place] * by[row, place]
                weighted[place] = known[place] * by[row, place]
            gradient[row] += along
            for column in range(row + 1):
                both = np.float32(0)
                for place in range(count):
                    both += weighted[place] * by[column, place]
                information[row, column] += both
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
