"""Levels of an image: how a coarser one is made of the finest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from moec_zarr.arrays import Array
from moec_zarr.errors import MoECError

__all__ = ["METHODS", "Method", "coarsen", "find_factors"]

Method = Literal["mean", "nearest"]
METHODS: tuple[Method, ...] = ("mean", "nearest")
"""Ways to make a voxel of a block of finer ones: their mean, or the first of them."""


def find_factors(fine: Sequence[int], coarse: Sequence[int]) -> tuple[int, ...]:
    """Return how many voxels of a level lie along each axis in one of a coarser level.

    Raises
    ------
    MoECError
        If that is no whole number, with a rest at the end of an axis at most.
    """
    fits = len(fine) == len(coarse)
    factors = [_factor(a, b) for a, b in zip(fine, coarse, strict=True)] if fits else [0]
    if not all(factors):
        raise MoECError(f"a level of shape {tuple(coarse)} is not made of blocks of one of {tuple(fine)}")
    return tuple(factors)


def _factor(fine: int, coarse: int) -> int:
    """Return the length of blocks; 0 where there is none. Powers of two come first, then what is nearest."""
    if fine == coarse:
        return 1
    ratio = fine / coarse if coarse else 0.0
    possible = [n for n in {int(ratio), int(ratio) + 1} if n and coarse in (fine // n, -(-fine // n))]
    return min(possible, key=lambda n: (n & (n - 1) != 0, abs(n - ratio)), default=0)


def coarsen(values: Array, factors: Sequence[int], method: Method) -> Array:
    """Make voxels of blocks of finer ones; a block at the end of an axis may be shorter.

    Parameters
    ----------
    values : array of any shape
    factors : sequence of int
        Voxels of a block along each axis.
    method : {"mean", "nearest"}

    Returns
    -------
    array of the same dtype
        Means of integers are rounded to the nearest, halves to even.
    """
    if method == "nearest":
        return np.ascontiguousarray(values[tuple(slice(None, None, factor) for factor in factors)])
    sums = values.astype(np.float64)
    for axis, factor in enumerate(factors):
        if factor > 1:
            starts = np.arange(0, values.shape[axis], factor)
            counts = np.diff(starts, append=values.shape[axis])
            sums = np.add.reduceat(sums, starts, axis=axis)
            sums /= counts.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return (np.rint(sums) if values.dtype.kind in "iu" else sums).astype(values.dtype)
