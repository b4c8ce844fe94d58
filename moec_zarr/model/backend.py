"""What NumPy and torch have in common: the model is written once, for arrays of either.

Which voxels are wanted, and where they stand, is worked out by NumPy on the host, which is little work. All
that is done for each voxel is done where the model's arrays are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from moec_zarr.arrays import Array, Integers

__all__ = ["AnyArray", "affine", "array_namespace", "beside", "empty_beside", "sine", "take", "take_along"]

AnyArray = Any
"""An array of NumPy or a tensor of torch, on any device."""


def beside(array: Array, other: AnyArray) -> AnyArray:
    """Return an array of the host as one of the kind of `other`, on its device."""
    if isinstance(other, np.ndarray):
        return array
    from moec_zarr.model.device_torch import put

    return put(array, other.device)


def empty_beside(shape: Sequence[int], other: AnyArray, dtype: str = "") -> AnyArray:
    """Make an array without values on the device of `other`, of a named dtype or of its own."""
    xp = array_namespace(other)
    return xp.empty(tuple(shape), dtype=getattr(xp, dtype) if dtype else other.dtype, device=device(other))


def take(array: AnyArray, indices: Sequence[Integers | slice], pointwise: bool = False) -> AnyArray:
    """Take the elements at indices along the first axes, or at points; a view where it can be one.

    Parameters
    ----------
    array : array or tensor
    indices : sequence of int64 arrays or slices
        Along each of the first axes; if `pointwise`, int64 arrays of the coordinates of each point.
    pointwise : bool
        Whether the indices are of single points rather than of the axes of a grid.
    """
    if pointwise:
        return array[tuple(beside(np.asarray(index), array) for index in indices)]
    for axis, index in enumerate(indices):
        if not isinstance(index, slice) and len(index) and (index[1:] - index[:-1] == 1).all():
            index = slice(index[0], index[-1] + 1)
        if isinstance(index, slice):
            array = array[(slice(None),) * axis + (index,)]
        else:
            array = take_along(array, index, axis)
    return array


def take_along(array: AnyArray, index: Integers, axis: int) -> AnyArray:
    """Take the elements at indices along one axis, none of them negative."""
    if isinstance(array, np.ndarray):
        return array.take(index, axis)
    return array.index_select(axis, beside(index, array))


def sine(array: AnyArray) -> AnyArray:
    """Return the sines, in place of an array that nobody differentiates."""
    xp = array_namespace(array)
    return xp.sin(array) if getattr(array, "requires_grad", False) else xp.sin(array, out=array)


def affine(points: AnyArray, weight: AnyArray, bias: AnyArray) -> AnyArray:
    """Apply ``x -> weight x + bias`` to points, shape (..., points, inputs).

    Parameters
    ----------
    points : array of two axes, or tensor of three
    weight : shape (..., outputs, inputs)
    bias : shape (..., outputs)
    """
    if not isinstance(points, np.ndarray):
        return array_namespace(points).baddbmm(bias[..., None, :], points, weight.mT)
    result = points @ weight.T
    result += bias
    return result
