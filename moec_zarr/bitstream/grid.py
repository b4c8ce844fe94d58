"""What compiled loops read to walk a grid of coefficients by wavefronts.

All of it is said of rows and of axes: no list of the coefficients in coding order is made, which would take
more time than to code them where most are zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Integers
from moec_zarr.bitstream.coding_order import ABSENT, RowOctaves, context_tables, parent_parts
from moec_zarr.bitstream.contexts import Context, zero_context_activity
from moec_zarr.model.basis import BasisFunctions

__all__ = ["Grid", "lay_out"]


class Grid(NamedTuple):
    """A grid, the rows of its last axis that hold a coded coefficient, and the context.

    Attributes
    ----------
    length : int
        Coefficients of a row.
    rows, starts : int64 array
        The number of each row among all, in C order, and its first wavefront: rising, equal ones in C order.
    ranks : int32 array
        Of each row among all its place in `rows`, -1 if it is none of them.
    strides : int64 array, shape (axes - 1,)
        How far apart rows are on each other axis.
    indices : int32 array, shape (rows, axes - 1)
        Where each row stands on the other axes.
    patterns : uint8 array, shape (patterns, length)
    pattern : int64 array
        The octaves in rows, and which of them each row has; see `RowOctaves`.
    row_depths : int32 array
        The smallest depth of a row's indices, but for that on the last axis.
    depths : int32 array
        The depth of each index on the last axis.
    row_parents : int64 array, shape (rows, depths)
        By depth, in which of the rows parents are; -1 where in none.
    parents : int64 array, shape (depths, length)
        Where on the last axis they stand.
    parent_weight : int
        0 in bases without parents.
    reach : int32 array, shape (axes, depths, longest axis, slots)
        By axis, depth and index, how many functions further on those stand that have a coefficient as their
        neighbour; 0 where there is none.
    weights : int32 array, shape (axes, slots)
        What they count its magnitude with.
    ground, base : int32 array, shape (256,)
        The activity of a zero context in each octave, and what the octave adds to the class.
    power : int
    """

    length: int
    rows: Integers
    starts: Integers
    ranks: NDArray[np.int32]
    strides: Integers
    indices: NDArray[np.int32]
    patterns: NDArray[np.uint8]
    pattern: Integers
    row_depths: NDArray[np.int32]
    depths: NDArray[np.int32]
    row_parents: Integers
    parents: Integers
    parent_weight: int
    reach: NDArray[np.int32]
    weights: NDArray[np.int32]
    ground: NDArray[np.int32]
    base: NDArray[np.int32]
    power: int


class _Tables(NamedTuple):
    """What the extent of a grid alone decides."""

    reach: NDArray[np.int32]
    numbers: Integers  # of the weights
    parent_number: int
    depth: NDArray[np.int32]
    parents: list[list[Integers]]


@lru_cache(maxsize=16)
def _tables(functions: tuple[BasisFunctions, ...], extent: tuple[int, ...]) -> _Tables:
    """Make the tables of the first `extent` functions of each axis; kept for the next chunk."""
    tables = context_tables(functions, extent)
    own = [np.flatnonzero(tables.slots[:, 0] == axis) for axis in range(len(extent))]
    slots = max(map(len, own))
    reach = np.zeros((len(extent), *tables.reach.shape[1:], slots), np.int32)
    numbers = np.zeros((len(extent), slots), np.int64)
    for axis, which in enumerate(own):
        reach[axis, ..., : len(which)] = np.moveaxis(tables.reach[which], 0, -1)
        numbers[axis, : len(which)] = tables.slots[which, 1]
    return _Tables(reach, numbers, tables.parent_weight, tables.depth, parent_parts(functions, extent))


def lay_out(functions: Sequence[BasisFunctions], octaves: RowOctaves, context: Context) -> Grid:
    """Make the tables of a grid of the first functions of each axis."""
    *outer, length = octaves.extent
    tables = _tables(tuple(functions), octaves.extent)
    starts = np.zeros(1, np.int64)
    for n in outer:
        starts = np.add.outer(starts, np.arange(n)).reshape(-1)
    rows = np.flatnonzero((octaves.patterns != ABSENT).any(axis=1)[octaves.rows])
    rows = rows[np.argsort(starts[rows], kind="stable")]
    ranks = np.full(len(starts), -1, np.int32)
    ranks[rows] = np.arange(len(rows))
    indices = np.unravel_index(rows, outer) if outer else ()
    row_parents = np.full((len(rows), len(tables.parents)), -1, np.int64)
    for deep, parts in enumerate(tables.parents):
        places = np.zeros(len(rows), np.int64)
        for part, index in zip(parts, indices, strict=False):
            places += part[index]
        row_parents[:, deep] = ranks[places // length]
    row_depths = np.full(len(rows), len(tables.parents), np.int32)
    for depth, index in zip(tables.depth, indices, strict=False):
        np.minimum(row_depths, depth[index], out=row_depths)
    floor = np.zeros(256, np.int32)
    floor[:ABSENT] = zero_context_activity(context, ABSENT)
    # Far out of the range of classes the base does not matter: no sum overflows.
    base = np.clip(context.offset + context.slope * np.arange(256), -(2**17), 2**17)
    weights = np.array(context.neighbour_weights, np.int32)
    return Grid(
        length=length,
        rows=rows,
        starts=starts[rows],
        ranks=ranks,
        strides=np.array([math.prod(outer[axis + 1 :]) for axis in range(len(outer))], np.int64),
        indices=np.array(indices, np.int32).T.reshape(len(rows), len(outer)).copy(),
        patterns=np.ascontiguousarray(octaves.patterns),  # kernels are compiled for each order
        pattern=octaves.rows[rows],
        row_depths=row_depths,
        depths=tables.depth[-1],
        row_parents=row_parents,
        parents=np.array([parts[-1] for parts in tables.parents], np.int64).reshape(-1, length),
        parent_weight=int(weights[tables.parent_number]) if tables.parent_number >= 0 else 0,
        reach=tables.reach,
        weights=weights[tables.numbers],
        ground=floor,
        base=base.astype(np.int32),
        power=context.power,
    )
