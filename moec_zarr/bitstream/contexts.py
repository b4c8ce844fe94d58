"""The probability model of a coefficient: classes from contexts, and the frequencies of each class.

Most coefficients are zero. Those that are not lie near one another, and below a coefficient that is
not zero on the scale above: the distribution of a coefficient follows from the magnitudes of those
before it on each axis, its context neighbours. All of that is integer arithmetic, so it decodes alike
on every machine. The distributions are Laplace's, of 64 scales, for three kinds of symbols: whether a
coefficient is zero, its magnitude where it is not, and its sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Doubles, Integers
from moec_zarr.bitstream.range_coder import PRECISION, zero_frequency

__all__ = [
    "CLASSES",
    "EXACT_LOGARITHMS",
    "FLOOR_CLASSES",
    "LARGEST_SYMBOL",
    "MAX_COEFFICIENT",
    "MAX_NEIGHBOUR",
    "Context",
    "class_roots",
    "classes",
    "excess_order",
    "exponential",
    "log_index",
    "logarithms",
    "magnitude_frequencies",
    "significance",
    "zero_context_activity",
    "zero_frequencies",
]

CLASSES = 64
LARGEST_SYMBOL = 63  # magnitude that has a frequency of its own; of it and larger ones follows the excess
MAX_COEFFICIENT = 2**23 - 1  # magnitude of a coefficient
MAX_NEIGHBOUR = 2**15 - 1  # as which all larger context neighbours count
FLOOR_CLASSES = 13, 18  # whose ratios are the smallest for magnitudes of 2 and more, and of 3 and more
_ROOT_BITS = 30
_SMALLEST_CHANCE = 1 << 8  # of not being zero, out of 2**24
EXACT_LOGARITHMS = 1 << 18  # activities that are looked up; of larger ones the last eight bits do not matter
_LARGEST_ACTIVITY = 1 << 27


@dataclass(frozen=True)
class Context:
    """How the class of a coefficient follows from its context neighbours.

    The activity of a coefficient of octave g, the sum of its bands, is ``exponential(floor + rise *
    g)`` plus the weighted magnitudes of its context neighbours. Its class is ``power`` times the
    logarithm of the activity, plus ``offset + slope * g``, in units of 1/128.

    Attributes
    ----------
    neighbour_weights : tuple of int
        0..255 each, ``AXIS_NEIGHBOURS`` for each axis.
    floor, rise : int
        -128..127.
    power : int
        0..255.
    offset, slope : int
        -32768..32767.
    """

    neighbour_weights: tuple[int, ...]
    floor: int
    rise: int
    power: int
    offset: int
    slope: int


def exponential(code: Integers) -> Integers:
    """Compute about ``2**(code / 8)``, eight steps to the octave, in whole numbers."""
    return ((8 + code % 8) << (code // 8)) >> 3


@lru_cache(maxsize=1)
def logarithms() -> NDArray[np.int32]:
    """Tabulate about ``8 log2(v)`` of activities v, the inverse of :func:`exponential`, by `log_index`."""
    large = np.arange(_LARGEST_ACTIVITY >> 8, dtype=np.int64) << 8
    value = np.maximum(np.concatenate([np.arange(EXACT_LOGARITHMS, dtype=np.int64), large]), 1)
    octave = np.frexp(value.astype(np.float64))[1].astype(np.int64) - 1
    return np.asarray(8 * octave + ((value << 3) >> octave) - 8, np.int32)


def log_index(activity: NDArray[Any]) -> NDArray[Any]:
    """Return where :func:`logarithms` holds those of activities."""
    if activity.max(initial=0) < EXACT_LOGARITHMS:
        return activity
    return np.asarray(np.where(activity < EXACT_LOGARITHMS, activity, EXACT_LOGARITHMS + (activity >> 8)))


def zero_context_activity(context: Context, octaves: int) -> Integers:
    """Compute the activity in each octave where all context neighbours are zero."""
    return np.asarray(exponential(np.clip(context.floor + context.rise * np.arange(octaves), 0, 127)))


def classes(context: Context, activity: Integers, octaves: NDArray[Any]) -> Integers:
    """Compute the classes of coefficients with these activities in these octaves."""
    logarithm = logarithms().take(log_index(activity), mode="clip").astype(np.int64)
    fine = (context.power * logarithm + context.offset + context.slope * np.asarray(octaves, np.int64)) >> 7
    return np.asarray(np.minimum(np.maximum(fine, 0), CLASSES - 1))


def excess_order(number: Any) -> Any:
    """Return the order of the Exp-Golomb code of excesses in these classes: about their scale's octave."""
    return np.maximum(number // 4 - 5, 0)


@lru_cache(maxsize=1)
def class_roots() -> Integers:
    """Compute ``exp(-1 / (2 s))`` of each class in units of 2**-30, rounded down.

    The scale of class k is ``s = (4 + k % 4) * 2**(k // 4 - 7)``, in bins of unit width.
    """
    unit = 1 << _ROOT_BITS
    k = np.arange(CLASSES)
    roots = [Decimal(-1) / (2 * Decimal(int(4 + i % 4)) * Decimal(2) ** int(i // 4 - 7)) for i in k]
    return np.array([int(unit * r.exp()) for r in roots], np.int64)


@lru_cache(maxsize=1)
def significance() -> Doubles:
    """Compute each class's probability that a coefficient is not zero, a multiple of 2**-24."""
    chances = np.maximum(class_roots() >> (_ROOT_BITS - PRECISION), _SMALLEST_CHANCE)
    return np.asarray(chances / 2.0**PRECISION)


@lru_cache(maxsize=1)
def zero_frequencies() -> Integers:
    """Compute each class's frequency of zero, out of 2**24."""
    return zero_frequency(np.rint(significance() * 2**PRECISION).astype(np.int64))


@lru_cache(maxsize=64)
def magnitude_frequencies(largest: int) -> Integers:
    """Compute frequencies of the magnitudes ``1..largest``, out of 2**24, shape (CLASSES, largest).

    A magnitude is the last one or goes on, with a probability that follows from the class. Where the
    class is low, coefficients that are not zero after all are larger than it says: hence
    ``FLOOR_CLASSES``.
    """
    ratios = (class_roots() ** 2) >> _ROOT_BITS
    number = np.arange(CLASSES)
    first, later = (ratios[np.maximum(number, floor)] for floor in FLOOR_CLASSES)
    p: Integers = np.empty((CLASSES, largest), np.int64)
    rest, ratio = np.full(CLASSES, 1 << _ROOT_BITS), first
    for magnitude in range(1, largest):
        above = (rest * ratio) >> _ROOT_BITS
        p[:, magnitude - 1] = rest - above
        rest, ratio = above, later
    p[:, -1] = rest
    f = np.asarray(1 + ((p * (2**PRECISION - largest)) >> _ROOT_BITS), np.int64)
    f[:, 0] += 2**PRECISION - f.sum(axis=1)
    f.setflags(write=False)
    return f
