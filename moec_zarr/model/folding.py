"""Axes too long for a matrix of their basis, as two axes or more that are short enough.

An axis becomes blocks of equal length, and an axis of the blocks: what comes back from block to block, such
as the course of a year, is expanded along the latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Integers
from moec_zarr.model.backend import AnyArray, array_namespace, take_along
from moec_zarr.model.basis import LONGEST_AXIS

__all__ = ["fold", "folded_shape", "read_folded"]


def folded_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape in which no axis is longer than ``LONGEST_AXIS``: longer ones become two."""
    result: list[int] = []
    for n in shape:
        parts = -(-n // LONGEST_AXIS)
        result += [n] if parts == 1 else [*folded_shape([parts]), -(-n // parts)]
    return tuple(result)


def fold(array: NDArray[np.generic], fill: int | None = 0) -> Array:
    """Fold an array into its folded shape; behind the last voxels of an axis stands `fill`, or the last."""
    inner = [math.prod(folded_shape([n])) for n in array.shape]
    if inner != list(array.shape):
        pad = [(0, n - old) for n, old in zip(inner, array.shape, strict=True)]
        array = np.pad(array, pad, "edge") if fill is None else np.pad(array, pad, constant_values=fill)
    return array.reshape(folded_shape(array.shape))


def read_folded(
    read: Callable[[Sequence[Integers], bool], AnyArray],
    shape: Sequence[int],
    indices: Sequence[Integers | slice],
    pointwise: bool,
) -> AnyArray:
    """Read voxels of a grid from its folded form.

    Parameters
    ----------
    read : callable
        Reads voxels of the folded grid, by their indices, and whether these are of single points.
    shape : sequence of int
        Of the grid, not folded.
    indices : sequence of int64 arrays or slices
        Voxels along each axis; if `pointwise`, arrays of the coordinates of each point.
    pointwise : bool
        Whether the indices are of single points rather than of the axes of a grid.
    """
    wanted = [np.arange(n)[index] for index, n in zip(indices, shape, strict=True)]
    if pointwise:
        places = (_places(index, n) for index, n in zip(wanted, shape, strict=True))
        return read([place for axis in places for place in axis], True)
    return _read_grid(read, shape, wanted, [])


def _read_grid(
    read: Callable[[Sequence[Integers], bool], AnyArray],
    shape: Sequence[int],
    wanted: Sequence[Integers],
    chosen: list[Integers],
) -> AnyArray:
    """Read a grid, block by block of its first axis; `chosen` are the folded indices of the axes before."""
    if not shape:
        return read(chosen, False)
    places = _places(wanted[0], shape[0])
    if len(places) == 1:
        return _read_grid(read, shape[1:], wanted[1:], [*chosen, *places])
    blocks = wanted[0] // math.prod(folded_shape(shape[:1])[-1:])
    order = np.argsort(blocks, kind="stable")
    starts = np.flatnonzero(np.diff(blocks[order], prepend=-1))
    parts = []
    for group in np.split(order, starts[1:]):
        own = [*(place[group[:1]] for place in places[:-1]), places[-1][group]]
        part = _read_grid(read, shape[1:], wanted[1:], [*chosen, *own])
        axis = len(chosen)
        parts.append(part.reshape(*part.shape[:axis], *part.shape[axis + len(own) - 1 :]))
    values = array_namespace(parts[0]).concat(parts, axis=len(chosen))
    return values if (np.diff(order) > 0).all() else take_along(values, np.argsort(order), len(chosen))


def _places(index: Integers, length: int) -> list[Integers]:
    """Return where voxels of an axis stand on the axes that it becomes."""
    lengths = folded_shape([length])
    places = []
    for n in reversed(lengths[1:]):
        places.append(index % n)
        index = index // n
    return [index, *reversed(places)]
