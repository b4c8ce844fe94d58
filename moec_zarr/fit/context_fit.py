"""The context that latents are coded with, fitted to their magnitudes.

In real numbers the scale of a coefficient's Laplace distribution is ``exp(offset + slope g + power
log(exp(floor + rise g) + sum of exp(weight) |q|))``, g its level and q the integers at its taps.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from moec_zarr.model.basis import TAPS
from moec_zarr.model.coefficients import Context

__all__ = ["ContextFit"]

_FITTED = 1 << 17  # coefficients at most that the context is fitted to, beside zeros among zeros
_MOST_FLOOR = 15  # its logarithm
_LOG_SCALES = math.log(0.03), math.log(900.0)  # between which scales lie
_MOST_LOGARITHM = 20.0  # of weights, floor and offset: beyond what is written
_RIDGE = 1e-4  # keeps the floor of the activity in bounds where it hardly matters
_STEPS = 12  # of its optimiser, in each fit
_FLOOR, _RISE, _POWER = -5, -4, -3  # among the parameters
_EIGHTH = math.log(2) / 8  # of an octave, in which logarithms of the activity are written

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Singles = NDArray[np.float32]


class ContextFit:
    """Fits contexts by L-BFGS, each from the one before."""

    def __init__(self, axes: int) -> None:
        self._found = np.array([*[-1.0] * (axes * TAPS), -2.0, 0.0, 0.9, 0.0, 0.0])

    def __call__(self, magnitudes: _Ints, taps: _Ints, levels: _Ints, quiet: _Ints) -> Context:
        """The context with which magnitudes take the fewest bits.

        Parameters
        ----------
        magnitudes, levels : int64 array, shape (n,)
        taps : int64 array, shape (n, axes * TAPS)
            Magnitudes there.
        quiet : int64 array
            How many zeros among zeros each level has beside these.
        """
        # What is zero among zeros differs in its level alone.
        active = np.flatnonzero((magnitudes > 0) | taps.any(axis=1))
        quiet = quiet + np.bincount(levels, minlength=len(quiet))
        quiet -= np.bincount(levels[active], minlength=len(quiet))
        kept = active[:: 1 + len(active) // _FITTED]
        weight = len(active) / max(len(kept), 1)
        parts = (
            np.append(magnitudes[kept], np.zeros_like(quiet)),
            np.append(taps[kept], np.zeros((len(quiet), taps.shape[1]), np.int64), axis=0),
            np.append(levels[kept], np.arange(len(quiet))),
            np.append(np.full(len(kept), weight), quiet) / (weight * len(kept) + quiet.sum()),
        )
        source = tuple(part.astype(np.float32) for part in parts)
        bounds = _bounds(len(self._found), len(quiet))
        found = _fitted(self._found, source, bounds)
        # The rise is written in coarse units, and all levels hang on it: the rest is fitted to what is.
        written = round(found[_RISE] / _EIGHTH) * _EIGHTH
        found[_FLOOR] += (found[_RISE] - written) * float(source[2] @ source[3])
        bounds[_RISE] = written
        self._found = _fitted(found, source, bounds)
        return _rounded(_split(self._found))


def _fitted(start: _Floats, source: tuple[_Singles, ...], bounds: _Floats) -> _Floats:
    limits = {"maxiter": _STEPS}
    found = minimize(_bits, start, source, "L-BFGS-B", jac=True, bounds=bounds, options=limits)
    return np.asarray(found.x)


class _Parameters(NamedTuple):
    """Of a context, in real numbers."""

    weights: _Floats
    floor: float
    rise: float
    power: float
    offset: float
    slope: float


def _split(p: _Floats) -> _Parameters:
    return _Parameters(p[:-5], *p[-5:].tolist())


def _bounds(count: int, levels: int) -> _Floats:
    """Beyond which no parameters of so many levels lie; shape (count, 2)."""
    most = np.full(count, _MOST_LOGARITHM)
    most[_RISE] /= levels  # the ground of each level is bounded
    least = -most
    least[_POWER] = 0
    return np.stack([least, most], axis=1)


def _bits(p: _Floats, q: _Singles, t: _Singles, g: _Singles, share: _Singles) -> tuple[float, _Floats]:
    """Mean bits of magnitudes q under Laplace distributions in bins of unit width, and its gradient.

    Parameters
    ----------
    q, g : float32 array, shape (n,)
        Magnitudes and levels.
    t : float32 array, shape (n, axes * TAPS)
        Magnitudes at the taps.
    share : float32 array, shape (n,)
        Weight of each, in sum 1.
    """
    c = _split(p)
    weights = np.exp(c.weights).astype(np.float32)
    ground = np.exp(c.floor + c.rise * g)
    activity = ground + t @ weights
    logarithm = np.log(activity)
    fine = c.offset + c.slope * g + c.power * logarithm
    half = 0.5 / np.exp(np.clip(fine, *_LOG_SCALES))
    loud = q > 0
    rise = np.where(loud, 2 * half, half)
    inverse = 1 / np.expm1(rise)
    nats = np.where(loud, (2 * q - 1) * half + math.log(2), 0) + np.log1p(inverse)
    slope = np.where(loud, 2 * q - 1 - 2 * inverse, -inverse)
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
    unit = min(255 / np.exp(p.weights.max()), 2.0**_MOST_FLOOR / np.exp(p.floor))

    def whole(value: Any, low: int, high: int) -> int:
        return int(min(max(round(float(value)), low), high))

    # Both exponential and logarithm run in eighths of an octave, classes in quarters from 2**-5 on.
    floor = (p.floor + np.log(unit)) / _EIGHTH
    offset = 128 * (4 * (p.offset - p.power * np.log(unit)) / octave + 20.5)
    return Context(
        weights=tuple(whole(w, 0, 255) for w in unit * np.exp(p.weights)),
        floor=whole(floor, -128, 127),
        rise=whole(p.rise / _EIGHTH, -128, 127),
        power=whole(64 * p.power, 0, 255),
        offset=whole(offset, -(2**15), 2**15 - 1),
        slope=whole(128 * 4 * p.slope / octave, -(2**15), 2**15 - 1),
    )
