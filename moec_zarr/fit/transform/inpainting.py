"""Values at the voxels that do not count, chosen so that they take few bytes."""

from __future__ import annotations

import numpy as np

from moec_zarr.arrays import Bools, Floats
from moec_zarr.fit.transform.basis_search import Bases, find_exceeded
from moec_zarr.model.basis import functions_of
from moec_zarr.model.transform import analyse, product, synthesise

__all__ = ["fill_smoothly", "inpaint"]


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
        starts = np.arange(0, array.shape[axis], 2)
        sums, count = np.add.reduceat(sums, starts, axis), np.add.reduceat(count, starts, axis)
    coarse = fill_smoothly(np.asarray(sums / np.maximum(count, 1), np.float32), count > 0)
    for axis, n in enumerate(array.shape):
        coarse = _double(coarse, n, axis)
    return np.where(valid, array, coarse)


def _double(coarse: Floats, length: int, axis: int) -> Floats:
    """Twice as many voxels along an axis, in straight lines."""
    if length == coarse.shape[axis]:
        return coarse
    place = np.arange(length)
    own = place // 2
    other = np.clip(own + 2 * (place % 2) - 1, 0, coarse.shape[axis] - 1)
    mixed = np.float32(0.75) * coarse.take(own, axis) + np.float32(0.25) * coarse.take(other, axis)
    return np.asarray(mixed, np.float32)


def inpaint(array: Floats, valid: Bools, bases: Bases, count: int, steps: int) -> Floats:
    """Return the array that is sparsest in some bases where its voxels do not count.

    In turn the small coefficients are dropped and the valid voxels restored, as in Guleryuz, IEEE
    Trans. Image Process. 15(3), 2006.
    """
    functions, everywhere = functions_of(bases, array.shape), [slice(None)] * array.ndim
    for step in range(steps):
        coefficients = analyse(array, bases)
        threshold = find_exceeded(coefficients, max(1, count * (step + 1) // steps))
        sparse = np.where(np.abs(coefficients) > threshold, coefficients, np.float32(0))
        kept = np.nonzero(sparse)
        if not kept[0].size:
            return array
        core = sparse[tuple(slice(int(index.max()) + 1) for index in kept)]
        array = np.where(valid, array, synthesise(product(core, functions), everywhere))
    return array
