"""The context that coefficients are coded with, fitted to their magnitudes.

In real numbers the scale of a coefficient's Laplace distribution is ``exp(offset + slope g + power
log(exp(floor + rise g) + sum of exp(weight) |q|))``, g its octave and q its context neighbours.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from moec_zarr.arrays import Doubles, Floats, Integers
from moec_zarr.bitstream.coding_order import Context
from moec_zarr.model.basis import AXIS_NEIGHBOURS

__all__ = ["fit_context", "initial_parameters"]

_SAMPLE_SIZE = 1 << 17  # coefficients at most that the context is fitted to, beside zero contexts
_LARGEST_LOG_FLOOR = 15
_LOG_SCALES = math.log(0.03), math.log(900.0)  # between which scales lie
_LARGEST_PARAMETER = 20.0  # logarithms of weights, floor and offset: beyond what is written
_RIDGE = 1e-4  # keeps the floor of the activity in bounds where it hardly matters
_ITERATIONS = 12  # of L-BFGS, in each fit
_FLOOR, _RISE, _POWER = -5, -4, -3  # among the parameters
_LOG_EIGHTH = math.log(2) / 8  # an eighth of an octave, the unit of the activity's logarithm


def initial_parameters(axes: int) -> Doubles:
    """Parameters from which the first fit starts."""
    return np.array([*[-1.0] * (axes * AXIS_NEIGHBOURS), -2.0, 0.0, 0.9, 0.0, 0.0])


def fit_context(
    parameters: Doubles,
    magnitudes: Integers,
    neighbours: Integers,
    octaves: Integers,
    zero_context_counts: Integers,
) -> tuple[Doubles, Context]:
    """The context with which magnitudes take the fewest bits, by L-BFGS.

    Parameters
    ----------
    parameters : float64 array, shape (axes * AXIS_NEIGHBOURS + 5,)
        From which the fit starts: those of an earlier one, or :func:`initial_parameters`.
    magnitudes, octaves : int64 array, shape (n,)
        Of coefficients.
    neighbours : int64 array, shape (n, axes * AXIS_NEIGHBOURS)
        Magnitudes of their context neighbours.
    zero_context_counts : int64 array
        Beside these, how many zeros with zero context neighbours each octave has.

    Returns
    -------
    parameters : float64 array
        To start the next fit from.
    context : Context
    """
    # Zeros with zero context neighbours differ in their octave alone.
    active = np.flatnonzero((magnitudes > 0) | neighbours.any(axis=1))
    counts = zero_context_counts + np.bincount(octaves, minlength=len(zero_context_counts))
    counts -= np.bincount(octaves[active], minlength=len(counts))
    kept = active[:: 1 + len(active) // _SAMPLE_SIZE]
    weight = len(active) / max(len(kept), 1)
    parts = (
        np.append(magnitudes[kept], np.zeros_like(counts)),
        np.append(neighbours[kept], np.zeros((len(counts), neighbours.shape[1]), np.int64), axis=0),
        np.append(octaves[kept], np.arange(len(counts))),
        np.append(np.full(len(kept), weight), counts) / (weight * len(kept) + counts.sum()),
    )
    source = tuple(part.astype(np.float32) for part in parts)
    bounds = _bounds(len(parameters), len(counts))
    fitted = _minimised(parameters, source, bounds)
    # The rise is written in coarse units, and all octaves hang on it: the rest is fitted to what is written.
    written = round(fitted[_RISE] / _LOG_EIGHTH) * _LOG_EIGHTH
    fitted[_FLOOR] += (fitted[_RISE] - written) * float(source[2] @ source[3])
    bounds[_RISE] = written
    fitted = _minimised(fitted, source, bounds)
    return fitted, _rounded(_named(fitted))


def _minimised(start: Doubles, source: tuple[Floats, ...], bounds: Doubles) -> Doubles:
    limits = {"maxiter": _ITERATIONS}
    result = minimize(_mean_bits, start, source, "L-BFGS-B", jac=True, bounds=bounds, options=limits)
    return np.asarray(result.x)


class _Parameters(NamedTuple):
    """Of a context, in real numbers."""

    weights: Doubles
    floor: float
    rise: float
    power: float
    offset: float
    slope: float


def _named(p: Doubles) -> _Parameters:
    return _Parameters(p[:-5], *p[-5:].tolist())


def _bounds(count: int, octaves: int) -> Doubles:
    """Bounds of the parameters, shape (count, 2)."""
    upper = np.full(count, _LARGEST_PARAMETER)
    upper[_RISE] /= octaves  # the floor of each octave is bounded
    lower = -upper
    lower[_POWER] = 0
    return np.stack([lower, upper], axis=1)


def _mean_bits(p: Doubles, q: Floats, t: Floats, g: Floats, share: Floats) -> tuple[float, Doubles]:
    """Mean bits of magnitudes q under Laplace distributions in bins of unit width, and its gradient.

    Parameters
    ----------
    p : float64 array
        The parameters.
    q, g : float32 array, shape (n,)
        Magnitudes and octaves.
    t : float32 array, shape (n, axes * AXIS_NEIGHBOURS)
        Magnitudes of the context neighbours.
    share : float32 array, shape (n,)
        Weight of each, in sum 1.
    """
    c = _named(p)
    weights = np.exp(c.weights).astype(np.float32)
    ground = np.exp(c.floor + c.rise * g)
    activity = ground + t @ weights
    logarithm = np.log(activity)
    fine = c.offset + c.slope * g + c.power * logarithm
    half = 0.5 / np.exp(np.clip(fine, *_LOG_SCALES))
    significant = q > 0
    exponent = np.where(significant, 2 * half, half)
    inverse = 1 / np.expm1(exponent)
    nats = np.where(significant, (2 * q - 1) * half + math.log(2), 0) + np.log1p(inverse)
    slope = np.where(significant, 2 * q - 1 - 2 * inverse, -inverse)
    inside = (fine > _LOG_SCALES[0]) & (fine < _LOG_SCALES[1])
    by_fine = np.where(inside, -half * slope, 0) * share / math.log(2)
    by_activity = by_fine * np.float32(c.power) / activity
    gradient = [
        *((by_activity @ t) * weights),
        by_activity @ ground + 2 * _RIDGE * c.floor,
        by_activity @ (ground * g) + 2 * _RIDGE * c.rise,
        by_fine @ logarithm,
        by_fine.sum(),
        by_fine @ g,
    ]
    bits = float(nats @ share) / math.log(2) + _RIDGE * (c.floor**2 + c.rise**2)
    return bits, np.array(gradient, np.float64)


def _rounded(p: _Parameters) -> Context:
    """The parameters in the units of :class:`Context`."""
    octave = math.log(2)
    # Whole numbers of activity in one of the real ones: as many as weights and floor have room for.
    unit = min(255 / np.exp(p.weights.max()), 2.0**_LARGEST_LOG_FLOOR / np.exp(p.floor))

    def whole(value: Any, low: int, high: int) -> int:
        return int(min(max(round(float(value)), low), high))

    # Both exponential and logarithm run in eighths of an octave, classes in quarters from 2**-5 on.
    floor = (p.floor + np.log(unit)) / _LOG_EIGHTH
    offset = 128 * (4 * (p.offset - p.power * np.log(unit)) / octave + 20.5)
    return Context(
        neighbour_weights=tuple(whole(w, 0, 255) for w in unit * np.exp(p.weights)),
        floor=whole(floor, -128, 127),
        rise=whole(p.rise / _LOG_EIGHTH, -128, 127),
        power=whole(64 * p.power, 0, 255),
        offset=whole(offset, -(2**15), 2**15 - 1),
        slope=whole(128 * 4 * p.slope / octave, -(2**15), 2**15 - 1),
    )
