"""Arrays to and from coefficients in products of one basis an axis.

Most axes have their whole basis in each product. Joint ones are decomposed together (Mallat, IEEE
Trans. Pattern Anal. Mach. Intell. 11(7), 1989): details of one level meet details or averages of the
same level on the other joint axes. The coefficients stand where those of the same axes not joint
would: averages, spanned by all that is coarser, in the place of the bands that they span.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Floats, Integers
from moec_zarr.model.basis import AxisBasis, BasisFunctions, analysis_matrix, split_matrices

__all__ = [
    "Layer",
    "LayerPart",
    "along",
    "analyse",
    "corner",
    "joint_axes",
    "joint_levels",
    "layer_parts",
    "layers",
    "synthesise",
]

_POINT_ROOM = 1 << 22  # numbers held at a time for single points


def corner(shape: Sequence[int]) -> tuple[slice, ...]:
    """The index of the first `shape` elements."""
    return tuple(slice(n) for n in shape)


def joint_axes(bases: Sequence[AxisBasis]) -> list[int]:
    """The axes that are decomposed together."""
    return [axis for axis, basis in enumerate(bases) if basis.joint]


def joint_levels(bases: Sequence[AxisBasis]) -> int:
    """Decomposition levels of the joint axes; some of them may have fewer."""
    return max((basis.levels for basis in bases if basis.joint), default=0)


@dataclass(frozen=True)
class Layer:
    """Coefficients that belong to one product of functions.

    Attributes
    ----------
    matrices : tuple of float32 arrays
        For each axis the functions, shape (voxels, functions).
    inner : tuple of int, or None
        The corner whose coefficients belong to coarser layers.
    """

    matrices: tuple[Floats, ...]
    inner: tuple[int, ...] | None

    @property
    def outer(self) -> tuple[int, ...]:
        """The corner that the layer and all coarser ones fill."""
        return tuple(matrix.shape[1] for matrix in self.matrices)


def layers(functions: Sequence[BasisFunctions]) -> list[Layer]:
    """From coarse to fine; a single one where no axes are joint."""
    count = max(joint_levels([each.basis for each in functions]), 1)
    result: list[Layer] = []
    for depth in reversed(range(count)):
        matrices = []
        for each in functions:
            band = each.basis.levels - depth
            if not each.basis.joint:
                matrices.append(each.synthesis)
            elif band < 1:
                matrices.append(each.averages[0])
            else:
                span = slice(each.prefix(band - 1), each.prefix(band))
                matrices.append(np.concatenate([each.averages[band - 1], each.synthesis[:, span]], axis=1))
        result.append(Layer(tuple(matrices), result[-1].outer if result else None))
    return result


def analyse(array: Floats, bases: Sequence[AxisBasis]) -> Floats:
    """The coefficients of an array, in its shape."""
    for axis, (basis, n) in enumerate(zip(bases, array.shape, strict=True)):
        if not basis.joint:
            array = along(array, analysis_matrix(basis, n), axis)
    return _decomposed(array, bases) if joint_axes(bases) else array


def _decomposed(array: Floats, bases: Sequence[AxisBasis]) -> Floats:
    array, averages = array.copy(), list(array.shape)
    for level in range(joint_levels(bases)):
        axes = [axis for axis in joint_axes(bases) if level < bases[axis].levels]
        for axis in axes:
            matrix = split_matrices(bases[axis], array.shape[axis])[level]
            array[corner(averages)] = along(array[corner(averages)], matrix, axis)
        for axis in axes:
            averages[axis] = -(-averages[axis] // 2)
    return array


def along(array: Floats, matrix: Floats, axis: int) -> Floats:
    """A matrix, shape (new, old), applied along an axis."""
    before, (old, *after) = array.shape[:axis], array.shape[axis:]
    if not after:
        return np.asarray(array @ matrix.T)
    flat = array.reshape(math.prod(before), old, math.prod(after))
    return np.asarray(np.matmul(matrix, flat).reshape(*before, len(matrix), *after))


class LayerPart(NamedTuple):
    """The coefficients of an array that belong to one layer.

    Attributes
    ----------
    coefficients : float32 array
        Zero where they belong to coarser layers.
    matrices : tuple of float32 arrays
        For each axis the functions of the coefficients, shape (voxels, functions).
    """

    coefficients: Floats
    matrices: tuple[Floats, ...]


def layer_parts(core: Floats, spanned: Sequence[Layer]) -> list[LayerPart]:
    """What each layer holds, of those that hold any: the coarsest one always.

    Parameters
    ----------
    core : float32 array
        The first coefficients on each axis; all others are zero.
    spanned : sequence of Layer
        The layers that they belong to.
    """
    result = []
    for layer in spanned:
        part = core[corner(layer.outer)]
        if layer.inner is not None:
            part = part.copy()
            part[corner(layer.inner)] = 0
            if not part.any():
                continue
        cut = zip(layer.matrices, part.shape, strict=True)
        result.append(LayerPart(part, tuple(matrix[:, :n] for matrix, n in cut)))
    return result


def synthesise(
    parts: Sequence[LayerPart], indices: Sequence[Integers | slice], pointwise: bool = False
) -> Floats:
    """The values that coefficients add up to.

    Parameters
    ----------
    parts : sequence of LayerPart
        The coefficients of each layer.
    indices : sequence of int64 arrays or slices
        Voxels along each axis of a grid; if `pointwise`, arrays of the coordinates of each point.

    Returns
    -------
    float32 array
        Of the grid's shape, or of shape (points,).
    """
    total: Floats | None = None
    for part, matrices in parts:
        rows = [matrix[index] for matrix, index in zip(matrices, indices, strict=True)]
        own = _at_points(part, rows) if pointwise else _on_grid(part, rows)
        total = own if total is None else total + own
    assert total is not None  # the coarsest layer is there
    return total


def _on_grid(part: Floats, rows: list[Floats]) -> Floats:
    for axis, row in enumerate(rows):
        part = along(part, row, axis)
    return part


def _at_points(part: Floats, rows: list[Floats]) -> Floats:
    total = np.empty(len(rows[0]), np.float32)
    room = max(1, _POINT_ROOM // math.prod(part.shape[1:]))  # each point first needs the other axes whole
    for first in range(0, len(total), room):
        points = slice(first, first + room)
        sums = np.tensordot(rows[0][points], part, axes=1)
        for row in rows[1:]:
            sums = np.einsum("pi...,pi->p...", sums, row[points])
        total[points] = sums
    return total
