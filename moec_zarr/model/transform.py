"""Arrays to and from coefficients in products of one basis an axis.

Most axes have their whole basis in each product. Joint ones are decomposed together (Mallat, IEEE
Trans. Pattern Anal. Mach. Intell. 11(7), 1989): details of one level meet details or averages of the
same level on the other joint axes. The coefficients stand where those of the same axes not joint
would: averages, spanned by all that is coarser, in the place of the bands that they span.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from moec_zarr.arrays import Array, Floats, Integers
from moec_zarr.compiled import is_compiled
from moec_zarr.model.backend import AnyArray, array_namespace, beside, empty_beside, take
from moec_zarr.model.basis import (
    AxisBasis,
    BasisFunctions,
    analysis_matrix,
    average_matrices,
    merge_matrices,
    split_matrices,
    synthesis_matrix,
)

__all__ = [
    "PointGroup",
    "Product",
    "along",
    "analyse",
    "corner",
    "decompose",
    "joint_axes",
    "joint_levels",
    "point_groups",
    "product",
    "synthesise",
]

_POINT_ROOM = 1 << 22  # numbers held at a time for single points
_LARGEST_GRID = 1 << 24  # voxels that are evaluated for the points among them
_SPARSE_FROM = 1 << 16  # numbers that a sparse matrix is applied to as such
_SPARSE = 3  # columns for each number that is not zero: with fewer, the whole matrix takes less time


def corner(shape: Sequence[int]) -> tuple[slice, ...]:
    """Return the index of the first `shape` elements."""
    return tuple(slice(n) for n in shape)


def joint_axes(bases: Sequence[AxisBasis]) -> list[int]:
    """Return the axes that are decomposed together."""
    return [axis for axis, basis in enumerate(bases) if basis.joint]


def joint_levels(bases: Sequence[AxisBasis]) -> int:
    """Count the decomposition levels of the joint axes; some of them may have fewer."""
    return max((basis.levels for basis in bases if basis.joint), default=0)


def analyse(array: Floats, bases: Sequence[AxisBasis]) -> Floats:
    """Return the coefficients of an array, in its shape."""
    for axis, (basis, n) in enumerate(zip(bases, array.shape, strict=True)):
        if not basis.joint:
            array = along(array, analysis_matrix(basis, n), axis)
    return decompose(array, bases) if joint_axes(bases) else array


def decompose(array: Floats, bases: Sequence[AxisBasis]) -> Floats:
    """Return the coefficients on the joint axes alone: all others stay as they are."""
    result, averages = array, list(array.shape)
    for level in range(joint_levels(bases)):
        axes = [axis for axis in joint_axes(bases) if level < bases[axis].levels]
        block = result[corner(averages)]
        for axis in axes:
            block = along(block, split_matrices(bases[axis], array.shape[axis])[level], axis)
        if level:
            result[corner(averages)] = block
        else:
            result = block
        for axis in axes:
            averages[axis] = -(-averages[axis] // 2)
    return result


@np.errstate(invalid="ignore")  # BLAS may compute in lanes beyond the end, whose values are nobody's
def along(array: AnyArray, matrix: AnyArray, axis: int) -> AnyArray:
    """Apply a matrix, shape (new, old), along an axis."""
    before, (old, *after) = array.shape[:axis], array.shape[axis:]
    if not after:
        return array @ matrix.T
    flat = array.reshape(math.prod(before), old, math.prod(after))
    result = _along_sparse(flat, matrix) if isinstance(array, np.ndarray) else None
    return (matrix @ flat if result is None else result).reshape(*before, len(matrix), *after)


def _along_sparse(array: Array, matrix: Array) -> Array | None:
    """Do the same by compiled code if few numbers in each row of the matrix are not zero, as of wavelets.

    Whether it does follows from sizes alone, so that values are the same each time.
    """
    if array.size < _SPARSE_FROM or not is_compiled(array.size):
        return None
    from moec_zarr.model.transform_kernels import apply_sparse, list_nonzero

    columns, numbers = list_nonzero(np.ascontiguousarray(matrix), len(matrix.T) // _SPARSE)
    if not numbers.size:
        return None
    out = np.empty((len(array), len(matrix), array.shape[2]), np.result_type(array, matrix))
    apply_sparse(np.ascontiguousarray(array), columns, numbers, out)
    return out


class Product(NamedTuple):
    """A field as one product: coefficients, and the functions of each axis that they belong to.

    Attributes
    ----------
    coefficients : float array or tensor
        The first ones on each axis; all others are zero.
    matrices : tuple of arrays of the same kind and dtype
        For each axis the functions of the coefficients, shape (voxels, functions).
    """

    coefficients: AnyArray
    matrices: tuple[AnyArray, ...]


def product(core: Array, functions: Sequence[BasisFunctions]) -> Product:
    """Return the product that coefficients stand for.

    On joint axes, coarser levels are merged into the averages of the finest level that holds any details:
    few numbers, for they are sampled as coarsely as the averages are.

    Parameters
    ----------
    core : float array
        The first coefficients on each axis; all others are zero. Its dtype is that of the product.
    functions : sequence of BasisFunctions
        Of each axis.
    """
    bases, precision = [each.basis for each in functions], core.dtype
    boxes = _level_boxes(functions)
    finest = 0
    while finest + 1 < len(boxes) - 1 and _within(core, boxes[finest + 1]):
        finest += 1
    core = core[corner(boxes[finest])]
    levels = range(finest + 1, len(boxes) - 1)
    if levels:  # room for all that the averages grow to, so that no level copies the grid
        extent = core.shape
        room = np.zeros(tuple(map(max, extent, boxes[finest + 1])), core.dtype)
        room[corner(extent)] = core
        for level in reversed(levels):
            own = room[corner(tuple(map(min, extent, boxes[level])))]
            for axis in joint_axes(bases):
                if level < bases[axis].levels:
                    matrix = merge_matrices(bases[axis], len(functions[axis].bands), precision)[level]
                    own = along(own, matrix[:, : own.shape[axis]], axis)
            room[corner(own.shape)] = own
            extent = tuple(map(max, extent, own.shape))
        core = room[corner(extent)]
    matrices = [_functions_at(each, finest, precision) for each in functions]
    return Product(core, tuple(matrix[:, :n] for matrix, n in zip(matrices, core.shape, strict=True)))


def _level_boxes(functions: Sequence[BasisFunctions]) -> list[tuple[int, ...]]:
    """Return the corner that each joint level decomposes, the finest first; last, that of the averages."""
    bases = [each.basis for each in functions]
    boxes = [tuple(len(each.bands) for each in functions)]
    for level in range(joint_levels(bases)):
        split = (
            n if level >= basis.levels or not basis.joint else -(-n // 2)
            for n, basis in zip(boxes[-1], bases, strict=True)
        )
        boxes.append(tuple(split))
    return boxes


def _within(core: Array, box: tuple[int, ...]) -> bool:
    """Whether all coefficients that are not zero lie in a corner."""
    beyond = (core[(slice(None),) * axis + (slice(n, None),)] for axis, n in enumerate(box))
    return not any(each.any() for each in beyond)


def _functions_at(functions: BasisFunctions, level: int, precision: np.dtype[Any]) -> Array:
    """Return the functions of an axis down to a joint level, with the averages that span all coarser ones."""
    basis, length = functions.basis, len(functions.bands)
    if not basis.joint:
        return synthesis_matrix(basis, length, precision)
    band = basis.levels - level
    averages = average_matrices(basis, length, precision)
    if band < 1:
        return averages[0]
    span = slice(functions.prefix(band - 1), functions.prefix(band))
    details = synthesis_matrix(basis, length, precision)[:, span]
    return np.concatenate([averages[band - 1], details], axis=1)


def synthesise(field: Product, indices: Sequence[Integers | slice], pointwise: bool = False) -> AnyArray:
    """Add up coefficients to values.

    Parameters
    ----------
    field : Product
        On any device.
    indices : sequence of int64 arrays or slices
        Voxels along each axis of a grid; if `pointwise`, arrays of the coordinates of each point.
    pointwise : bool
        Whether the indices are of single points rather than of the axes of a grid.

    Returns
    -------
    array of the field's kind and dtype
        Of the grid's shape, or of shape (points,).
    """
    if pointwise:
        return _at_points(field, [np.asarray(index) for index in indices])
    rows = [take(matrix, [index]) for matrix, index in zip(field.matrices, indices, strict=True)]
    values = field.coefficients
    # The axis that leaves the fewest numbers comes first.
    for axis in sorted(range(len(rows)), key=lambda axis: len(rows[axis]) / rows[axis].shape[1]):
        values = along(values, rows[axis], axis)
    return values


def _at_points(field: Product, points: list[Integers]) -> AnyArray:
    """Return the values at single points."""
    core = field.coefficients
    xp = array_namespace(core)
    total = empty_beside(points[0].shape, core)
    for group in point_groups(core.shape, points):
        if group.grid is not None:
            values = take(synthesise(field, group.grid), group.places, pointwise=True)
        else:
            rows = [matrix[beside(i, core)] for matrix, i in zip(field.matrices, group.places, strict=True)]
            values = xp.tensordot(rows[0], core, axes=1)
            for row in rows[1:]:
                values = xp.einsum("pi...,pi->p...", values, row)
        total[beside(group.which, core)] = values
    return total


class PointGroup(NamedTuple):
    """Points that are evaluated together.

    Attributes
    ----------
    which : int64 array
        Their numbers.
    grid : list of int64 arrays, or None
        Voxels along each axis of a grid that holds all of them; None where they are evaluated one by one.
    places : list of int64 arrays
        Where each point stands in the grid; without one, its coordinates.
    """

    which: Integers
    grid: list[Integers] | None
    places: list[Integers]


def point_groups(extent: Sequence[int], points: Sequence[Integers]) -> Iterator[PointGroup]:
    """Group points: read from the grid of their indices if that is less work, otherwise one by one.

    Parameters
    ----------
    extent : sequence of int
        Number of coefficients along each axis.
    points : sequence of int64 arrays
        Coordinates of each point.
    """
    room = max(1, _POINT_ROOM // math.prod(extent[1:]))  # a point needs all other axes first
    pending = [np.arange(len(points[0]))]
    while pending:
        which = pending.pop()
        own = [index[which] for index in points]
        unique = [np.unique(index, return_inverse=True) for index in own]
        sides = [len(values) for values, _ in unique]
        if len(which) < 2 or _grid_work(extent, sides) >= len(which) * math.prod(extent):
            for first in range(0, len(which), room):
                some = slice(first, first + room)
                yield PointGroup(which[some], None, [index[some] for index in own])
        elif math.prod(sides) <= _LARGEST_GRID:
            yield PointGroup(which, [values for values, _ in unique], [place for _, place in unique])
        else:  # points that are near each other along the longest side share a smaller grid
            order = np.argsort(own[int(np.argmax(sides))], kind="stable")
            pending += np.array_split(which[order], 2)


def _grid_work(extent: Sequence[int], sides: Sequence[int]) -> float:
    """Multiplications that a grid takes, axis after axis."""
    shape, work = list(extent), 0.0
    for axis in sorted(range(len(sides)), key=lambda axis: sides[axis] / shape[axis]):
        work += float(math.prod(shape)) * sides[axis]
        shape[axis] = sides[axis]
    return work
