"""What compiled loops read to walk a grid of coefficients by wavefronts, where its coefficients stand.

Coefficients are looked up in place: no list of them in coding order is made, which would take more time
than to code them where most are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Integers
from moec_zarr.bitstream.coding_order import ABSENT, context_tables, parent_parts
from moec_zarr.bitstream.contexts import Context, zero_context_activity
from moec_zarr.model.basis import BasisFunctions

__all__ = ["Grid", "lay_out"]


class Grid(NamedTuple):
    """A grid, the rows of its last axis that hold a coded coefficient, and the context.

    Attributes
    ----------
    octaves : uint8 array, flat
        ``ABSENT`` where none is coded.
    length : int
        Coefficients of a row.
    rows, starts : int64 array
        The place of each row's first coefficient, and its wavefront: rising, equal ones in C order.
    firsts, lasts : int64 array
        Which part of each row is coded, gaps aside.
    row_depths : int32 array
        The smallest depth of a row's indices, but for that on the last axis.
    depth : int32 array, shape (axes, longest axis)
        The depth of each index on an axis.
    row_parents : int64 array, shape (rows, depths)
        By depth, what a row's indices add to the place of a parent.
    parents : int64 array, shape (depths, length)
        The same of the last axis.
    parent_weight : int
        0 in bases without parents.
    strides : int64 array, shape (axes,)
    slots, reach
        Those of `ContextTables`.
    weights : int32 array
        Of each slot.
    ground, base : int32 array, shape (256,)
        The activity of a zero context in each octave, and what the octave adds to the class.
    power : int
    """

    octaves: NDArray[np.uint8]
    length: int
    rows: Integers
    starts: Integers
    firsts: Integers
    lasts: Integers
    row_depths: NDArray[np.int32]
    depth: NDArray[np.int32]
    row_parents: Integers
    parents: Integers
    parent_weight: int
    strides: Integers
    slots: NDArray[np.int32]
    reach: NDArray[np.int32]
    weights: NDArray[np.int32]
    ground: NDArray[np.int32]
    base: NDArray[np.int32]
    power: int


def lay_out(functions: Sequence[BasisFunctions], octaves: NDArray[np.uint8], context: Context) -> Grid:
    """Make the tables of a grid of the first functions of each axis.

    Parameters
    ----------
    octaves : uint8 array
        Of each coefficient; ``ABSENT`` where none is coded.
    """
    extent, length = octaves.shape, octaves.shape[-1]
    coded = octaves.reshape(-1, length) != ABSENT
    rows = np.flatnonzero(coded.any(axis=1))
    outer: tuple[Integers, ...] = np.unravel_index(rows, extent[:-1]) if len(extent) > 1 else ()
    starts = np.zeros(len(rows), np.int64)
    for index in outer:
        starts += index
    by_start = np.argsort(starts, kind="stable")
    rows, starts, outer = rows[by_start], starts[by_start], tuple(index[by_start] for index in outer)
    coded = coded[rows]
    tables = context_tables(functions, extent)
    parents = parent_parts(functions, extent)
    row_parents = np.zeros((len(rows), len(parents)), np.int64)
    for deep, parts in enumerate(parents):
        for part, index in zip(parts, outer, strict=False):
            row_parents[:, deep] += part[index]
    row_depths = np.full(len(rows), len(parents), np.int32)
    for depth, index in zip(tables.depth, outer, strict=False):
        np.minimum(row_depths, depth[index], out=row_depths)
    floor = np.zeros(256, np.int32)
    floor[:ABSENT] = zero_context_activity(context, ABSENT)
    # Far out of the range of classes the base does not matter: no sum overflows.
    base = np.clip(context.offset + context.slope * np.arange(256), -(2**17), 2**17)
    weights = np.array(context.neighbour_weights, np.int32)
    return Grid(
        octaves=octaves.reshape(-1),
        length=length,
        rows=rows * length,
        starts=starts,
        firsts=coded.argmax(axis=1).astype(np.int64),
        lasts=length - coded[:, ::-1].argmax(axis=1).astype(np.int64),
        row_depths=row_depths,
        depth=tables.depth,
        row_parents=row_parents,
        parents=np.array([parts[-1] for parts in parents], np.int64).reshape(len(parents), length),
        parent_weight=int(weights[tables.parent_weight]) if tables.parent_weight >= 0 else 0,
        strides=tables.strides,
        slots=tables.slots,
        reach=tables.reach,
        weights=weights[tables.slots[:, 1]],
        ground=floor,
        base=base.astype(np.int32),
        power=context.power,
    )
