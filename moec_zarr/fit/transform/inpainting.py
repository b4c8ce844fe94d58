"""Values at the voxels that do not count, chosen so that they take few bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Bools, Floats
from moec_zarr.compiled import compiled
from moec_zarr.fit.transform.basis_search import Bases, find_exceeded
from moec_zarr.model.basis import functions_of
from moec_zarr.model.transform import analyse, product, synthesise

__all__ = ["fill_smoothly", "inpaint"]

_FURTHER = 1.5  # times the way to sparse values that others move: fewer steps come as close
_SETTLED = 0.01  # of the squares of the errors, that a step changes: what takes less is not worth another one
_SAMPLED = 64  # coefficients that a sample keeps at least, by which a threshold is found
_EVERY = 3  # coefficients of which it has one, at most


def fill_smoothly(array: Floats, valid: Bools) -> Floats:
    """Fill invalid voxels with means of the nearest valid ones.

    Means of 2 x 2 x ... voxels, of such means, and so on until all are known, then back: what is not
    known takes the value of the coarser scale (push and pull; Gortler et al., SIGGRAPH 1996).
    """
    if valid.all():
        return array
    if not valid.any():
        return np.zeros_like(array)
    sums, count = np.where(valid, array, np.float32(0)), valid.astype(np.float32)
    for axis in range(array.ndim):
        sums, count = _halve(sums, axis), _halve(count, axis)
    coarse = fill_smoothly(np.asarray(sums / np.maximum(count, 1), np.float32), count > 0)
    for axis in reversed(range(array.ndim)):  # rows of the last axis, then whole ones
        coarse = _double(coarse, array.shape[axis], axis)
    return np.where(valid, array, coarse)


def _halve(array: Floats, axis: int) -> Floats:
    """Add up each two voxels along an axis; the last one of an odd number stays alone."""
    n = array.shape[axis]
    result = np.empty((*array.shape[:axis], -(-n // 2), *array.shape[axis + 1 :]), np.float32)
    _add_pairs(_lines(array, axis), _lines(result, axis))
    return result


def _double(coarse: Floats, length: int, axis: int) -> Floats:
    """Twice as many voxels along an axis, in straight lines."""
    if length == coarse.shape[axis]:
        return coarse
    result = np.empty((*coarse.shape[:axis], length, *coarse.shape[axis + 1 :]), np.float32)
    _interpolate(_lines(coarse, axis), _lines(result, axis))
    return result


def _lines(array: Floats, axis: int) -> Floats:
    """Return a view of shape (before, axis, after)."""
    shape = array.shape
    return array.reshape(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


@compiled()
def _add_pairs(array: Floats, sums: Floats) -> None:
    pairs = array.shape[1] // 2
    for i in range(array.shape[0]):
        for j in range(pairs):
            for k in range(array.shape[2]):
                sums[i, j, k] = array[i, 2 * j, k] + array[i, 2 * j + 1, k]
        for j in range(pairs, sums.shape[1]):
            for k in range(array.shape[2]):
                sums[i, j, k] = array[i, 2 * j, k]


@compiled()
def _interpolate(coarse: Floats, fine: Floats) -> None:
    near, far = np.float32(0.75), np.float32(0.25)
    last = coarse.shape[1] - 1
    for i in range(fine.shape[0]):
        for j in range(fine.shape[1]):
            own = j // 2
            other = min(max(own + 2 * (j % 2) - 1, 0), last)
            for k in range(fine.shape[2]):
                fine[i, j, k] = near * coarse[i, own, k] + far * coarse[i, other, k]


def inpaint(array: Floats, valid: Bools, bases: Bases, count: int, steps: int) -> Floats:
    """Return the array that is sparsest in some bases where its voxels do not count.

    In turn the small coefficients are dropped and the valid voxels restored, as in Guleryuz, IEEE
    Trans. Image Process. 15(3), 2006, until that changes little.
    """
    functions, everywhere = functions_of(bases, array.shape), [slice(None)] * array.ndim
    array = np.array(array, order="C")
    for step in range(steps):
        coefficients = analyse(array, bases)
        extent = np.zeros(array.ndim, np.int64)
        threshold = _find_threshold(coefficients, max(1, count * (step + 1) // steps))
        _drop(coefficients.reshape(-1), np.array(array.shape), threshold, extent)
        if not extent.any():
            return array
        core = coefficients[tuple(map(slice, extent))]
        values = synthesise(product(core, functions), everywhere)
        changed, left = _move_invalid(array.reshape(-1), valid.reshape(-1), values.reshape(-1))
        if changed <= _SETTLED * left:
            break
    return array


def _find_threshold(coefficients: Floats, count: int) -> float:
    """Find the magnitude that about so many coefficients exceed."""
    every = max(1, min(count // _SAMPLED, _EVERY)) - 1 | 1  # an odd step meets all columns of most arrays
    return find_exceeded(coefficients.reshape(-1)[::every], max(1, count // every))


@compiled()
def _drop(coefficients: Array, shape: NDArray[Any], threshold: float, extent: NDArray[np.int64]) -> None:
    """Set small coefficients to zero, and write down in which corner all others lie."""
    for i in range(coefficients.size):
        if abs(coefficients[i]) > threshold:
            left = i
            for axis in range(shape.size - 1, -1, -1):
                extent[axis] = max(extent[axis], left % shape[axis] + 1)
                left //= shape[axis]
        else:
            coefficients[i] = 0


@compiled(fastmath=True)
def _move_invalid(array: Floats, valid: Bools, values: Floats) -> tuple[float, float]:
    """Move invalid values towards others; return the squares of their distances, and of the valid ones'."""
    changed, left, further = 0.0, 0.0, np.float32(_FURTHER)
    for i in range(array.size):
        difference = np.float64(values[i]) - np.float64(array[i])
        if valid[i]:
            left += difference * difference
        else:
            changed += difference * difference
            array[i] += further * (values[i] - array[i])
    return changed, left
