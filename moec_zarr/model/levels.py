"""The values that integers stand for where values are stored exactly, or rounded as far as a bound allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from moec_zarr.arrays import Array, Doubles, Integers

__all__ = ["MOST_RUNGS", "Bits", "Grid", "Ladder", "Levels", "as_integers", "restore"]

MOST_RUNGS = 1 << 18


@dataclass(frozen=True)
class Bits:
    """All values of a dtype whose last bits are zero, as far as they lie in a range.

    Attributes
    ----------
    shift : int
        Number of these bits, 0..63.
    """

    shift: int


@dataclass(frozen=True)
class Grid:
    """Values at equal distances: ``spacing * k / divisor + origin``, clipped to a range.

    Attributes
    ----------
    spacing, divisor, origin : float or int
        Doubles where the values are floats; integers, with a divisor of 1, where they are.
    """

    spacing: Any
    divisor: Any
    origin: Any


@dataclass(frozen=True)
class Ladder:
    """Zero, and on both sides of it magnitudes at distances that grow with them, clipped to a range.

    The first is `first`; each other one is the larger of the one before it plus `step` or times `ratio`.
    """

    first: float
    step: float
    ratio: float

    def rungs(self, count: int) -> Doubles:
        """Compute so many magnitudes."""
        rungs, value = [], self.first
        for _ in range(count):
            rungs.append(value)
            value = max(value + self.step, value * self.ratio)
        return np.array(rungs, np.float64)


Levels: TypeAlias = Bits | Grid | Ladder


def as_integers(values: Array) -> Integers:
    """Return integers in the order of values, which `Bits(0)` restores: a float's bits without their sign.

    A negative float is below all others: -1 is minus zero.
    """
    if values.dtype.kind != "f":
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return (
            (native ^ np.uint64(1 << 63)).view(np.int64)
            if native.dtype == np.uint64
            else native.astype(np.int64)
        )
    size = values.dtype.itemsize
    bits = np.ascontiguousarray(values, f"=f{size}").view(f"=i{size}").astype(np.int64)
    low = np.int64((1 << 8 * size - 1) - 1)
    return np.where(bits < 0, ~(bits & low), bits)


def restore(levels: Levels, integers: Integers, dtype: np.dtype[Any], low: Any, high: Any) -> Array:
    """Return the values, in native byte order, that integers stand for in a range."""
    dtype = dtype.newbyteorder("=")
    if isinstance(levels, Bits):
        values = _from_integers(integers, levels.shift, dtype)
        inside = np.where(values < low, low, np.where(values > high, high, values))  # minus zero stays
        return np.asarray(inside, dtype)
    if dtype.kind in "iu":
        assert isinstance(levels, Grid)
        whole = integers * np.int64(levels.spacing) + np.int64(levels.origin)
        if dtype.itemsize == 8:
            return np.asarray(np.clip(whole.astype(dtype), low, high))
        return np.asarray(np.clip(whole, int(low), int(high)), dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(levels, Grid):
            values = integers.astype(np.float64) * levels.spacing / levels.divisor + levels.origin
        else:
            rungs = levels.rungs(int(np.abs(integers).max(initial=0)))
            values = np.append(rungs, 0.0)[np.abs(integers) - 1] * np.sign(integers)
        return np.asarray(np.clip(values, float(low), float(high)), dtype)


def _from_integers(integers: Integers, shift: int, dtype: np.dtype[Any]) -> Array:
    if dtype.kind != "f":
        wide = integers << np.int64(shift)
        return wide.view(np.uint64) ^ np.uint64(1 << 63) if dtype == np.uint64 else wide.astype(dtype)
    bits = np.where(integers < 0, ~integers, integers) << np.int64(shift)
    bits = np.where(integers < 0, bits | np.int64(-1 << 8 * dtype.itemsize - 1), bits)
    return bits.astype(f"=i{dtype.itemsize}").view(dtype)
