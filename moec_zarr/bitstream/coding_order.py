"""The order in which coefficients are coded, and whose context each of them is.

Coefficients on a wavefront, whose indices have the same sum, depend on earlier wavefronts alone: each
wavefront is one array. Context neighbours stand before a coefficient on each axis. Seen from the other
end, each coefficient that is not zero adds to the activity of those whose neighbour it is; most are
zero, so this direction takes a fraction of the work. Where a coefficient adds to follows from its
index on one axis alone and, on joint axes, from its depth: small tables of each axis hold it all, but
for the parents of a joint basis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Integers
from moec_zarr.model.basis import AXIS_NEIGHBOURS, BasisFunctions
from moec_zarr.model.transform import corner, joint_axes, joint_levels

__all__ = [
    "ABSENT",
    "ContextTables",
    "RowOctaves",
    "band_counts",
    "band_octaves",
    "coefficient_octaves",
    "context_tables",
    "extent_of",
    "parent_parts",
    "parents",
    "present_bands",
    "wavefronts",
]

ABSENT = 255  # in place of the octave of a coefficient that is not coded
_ADDED_AT_A_TIME = 1 << 16  # positions of parents that are computed together


# --------------------------------------------------------------------------------- bands


def band_counts(functions: Sequence[BasisFunctions]) -> tuple[int, ...]:
    """Count the bands along each axis."""
    return tuple(int(each.bands[-1]) + 1 for each in functions)


def present_bands(functions: Sequence[BasisFunctions], integers: NDArray[np.signedinteger]) -> Bools:
    """Find the tensor products of bands that hold a coefficient that is not zero."""
    from moec_zarr.bitstream.coefficient_kernels import mark_bands

    counts, extent = band_counts(functions), integers.shape
    present = np.zeros(counts, bool)
    mark_bands(
        integers.reshape(-1, extent[-1]),
        _row_bands(functions, extent),
        functions[-1].bands,
        present.reshape(-1, counts[-1]),
    )
    return present


def _row_bands(functions: Sequence[BasisFunctions], extent: Sequence[int]) -> Integers:
    """Return the number of each row's bands, in C order of the bands of all axes but the last."""
    rows = np.zeros(1, np.int64)
    for each, n in zip(functions[:-1], extent[:-1], strict=True):
        rows = np.add.outer(rows * (each.bands[-1] + 1), each.bands[:n]).reshape(-1)
    return rows


def extent_of(functions: Sequence[BasisFunctions], present: Bools) -> tuple[int, ...]:
    """Count the functions on each axis up to the highest band that is present."""
    axes = range(present.ndim)
    highest = [np.flatnonzero(present.any(axis=tuple(a for a in axes if a != axis)))[-1] for axis in axes]
    return tuple(each.prefix(int(band)) for each, band in zip(functions, highest, strict=True))


def band_octaves(functions: Sequence[BasisFunctions]) -> Integers:
    """Return the octave of each band, in an array with the number of bands along each axis as shape."""
    bases = [each.basis for each in functions]
    count = joint_levels(bases)
    grids = list(np.ix_(*[np.arange(n) for n in band_counts(functions)]))
    depth = np.array(count)
    for axis in joint_axes(bases):
        depth = np.minimum(depth, np.where(grids[axis] > 0, bases[axis].levels - grids[axis], count))
    for axis in joint_axes(bases):
        detail = (grids[axis] > 0) & (bases[axis].levels - grids[axis] == depth)
        grids[axis] = np.where(detail, grids[axis], np.maximum(bases[axis].levels - depth - 1, 0))
    total: Integers = sum(grids, np.zeros((1,) * len(grids), np.int64))
    return total


class RowOctaves(NamedTuple):
    """The octave of each coefficient of a grid, by rows of its last axis, many of which are alike.

    Attributes
    ----------
    extent : tuple of int
        Coefficients along each axis.
    patterns : uint8 array, shape (patterns, length)
        Octaves of rows; ``ABSENT`` where no coefficient is coded.
    rows : int64 array
        The pattern of each row, in C order.
    """

    extent: tuple[int, ...]
    patterns: NDArray[np.uint8]
    rows: Integers

    def whole(self) -> NDArray[np.uint8]:
        """Return them in an array of the grid's shape."""
        return self.patterns[self.rows].reshape(self.extent)


def coefficient_octaves(functions: Sequence[BasisFunctions], present: Bools) -> RowOctaves:
    """Return each coefficient's octave up to the highest bands present; ``ABSENT`` if it is not coded."""
    extent = extent_of(functions, present)
    octaves = np.where(present, band_octaves(functions), ABSENT).astype(np.uint8)
    patterns = octaves.reshape(-1, octaves.shape[-1])[:, functions[-1].bands[: extent[-1]]]
    return RowOctaves(extent, patterns, _row_bands(functions, extent))


def wavefronts(octaves: NDArray[np.uint8]) -> tuple[NDArray[np.int32], list[int]]:
    """List the flat positions of the coefficients that are coded, by wavefront, and where each one ends.

    On a wavefront the last index falls; where it is the same, coefficients stand in C order of the others.

    Parameters
    ----------
    octaves : uint8 array
        Those of `RowOctaves.whole`.
    """
    length = octaves.shape[-1]
    rows = np.flatnonzero((octaves.reshape(-1, length) != ABSENT).any(axis=1))
    start = np.zeros(octaves.shape[:-1], np.int64)
    for axis, n in enumerate(octaves.shape[:-1]):
        start += np.arange(n).reshape(-1, *[1] * (octaves.ndim - 2 - axis))
    start = start.reshape(-1)[rows]
    by_start = np.argsort(start, kind="stable")
    start, base = start[by_start], rows[by_start] * length
    base -= start  # the position of index t - start on the row is base + t
    flat = octaves.reshape(-1)
    bounds = np.searchsorted(start, np.arange(int(start[-1]) + length) + 1)
    order, ends = np.empty(int(np.count_nonzero(flat != ABSENT)), np.int32), []
    count = 0
    for t, last in enumerate(bounds.tolist()):
        first = int(bounds[t - length]) if t >= length else 0
        wavefront = base[first:last] + t
        coded = wavefront[flat.take(wavefront) != ABSENT]
        if coded.size:
            order[count : count + coded.size] = coded
            count += coded.size
            ends.append(count)
    return order, ends


# ------------------------------------------------------------------------------ neighbours


@dataclass(frozen=True)
class ContextTables:
    """Whose context neighbour a coefficient is.

    Attributes
    ----------
    extent : tuple of int
        Coefficients along each axis of the grid that positions refer to, in C order.
    slots : int32 array, shape (n, 2)
        The axis of each place that a coefficient may add to, and the number of the weight that it is
        added with.
    reach : int32 array, shape (n, depths, longest axis)
        How many functions further along its axis this place is, by the coefficient's depth and its
        index on the axis; 0 where there is none.
    depth : int32 array, shape (axes, longest axis)
        A coefficient's depth is the smallest of these over its indices.
    parent_weight : int
        The number of the parent's weight in a joint basis; -1 in others.
    """

    extent: tuple[int, ...]
    slots: NDArray[np.int32]
    reach: NDArray[np.int32]
    depth: NDArray[np.int32]
    parent_weight: int

    @property
    def strides(self) -> Integers:
        """Distance of neighbours along each axis, in positions."""
        return np.array([math.prod(self.extent[axis + 1 :]) for axis in range(len(self.extent))], np.int64)


def context_tables(functions: Sequence[BasisFunctions], extent: Sequence[int]) -> ContextTables:
    """Make the tables of a grid of the first `extent` functions of each axis, or return those kept."""
    return _context_tables(tuple(functions), tuple(extent))


@lru_cache(maxsize=16)
def _context_tables(functions: tuple[BasisFunctions, ...], extent: tuple[int, ...]) -> ContextTables:
    bases = [each.basis for each in functions]
    count, joint = joint_levels(bases), joint_axes(bases)
    longest = max(extent)
    slots, reach = [], []
    depth = np.full((len(extent), longest), count, np.int32)
    for axis, (each, n) in enumerate(zip(functions, extent, strict=True)):
        if each.basis.joint:
            bands = each.bands[:n]
            depth[axis, :n] = np.where(bands > 0, each.basis.levels - bands, count)
            by_neighbour = {back - 1: _joint_reach(each, n, count, back)[None] for back in (1, 2)}
        else:
            by_neighbour = {
                number: _reach(each.neighbours[number, :n])[:, None] for number in range(AXIS_NEIGHBOURS)
            }
        for number, places in by_neighbour.items():
            table = np.zeros((len(places), count + 1, longest), np.int32)
            table[..., :n] = places
            slots += [(axis, axis * AXIS_NEIGHBOURS + number)] * len(table)
            reach.append(table)
    parent_weight = joint[0] * AXIS_NEIGHBOURS + AXIS_NEIGHBOURS - 1 if joint else -1
    places = np.array(slots, np.int32).reshape(-1, 2)
    return ContextTables(tuple(extent), places, np.concatenate(reach), depth, parent_weight)


def _reach(neighbour: Integers) -> NDArray[np.int32]:
    """How far the functions lie that have each function as this neighbour, shape (places, functions)."""
    later = np.flatnonzero(neighbour >= 0)
    source = neighbour[later]  # rising
    place = np.arange(len(later)) - np.searchsorted(source, source)
    table = np.zeros((int(place.max(initial=-1)) + 1, len(neighbour)), np.int32)
    table[place, source] = later - source
    return table


def _joint_reach(functions: BasisFunctions, length: int, count: int, back: int) -> NDArray[np.int32]:
    """Return the same on a joint axis for the function `back` places on, shape (depths, functions).

    Details go on to the end of their band, averages as far as all that is coarser than their depth.
    """
    table = np.zeros((count + 1, length), np.int32)
    index = np.arange(length)
    for depth in range(count + 1):
        band = functions.basis.levels - depth
        inner = functions.prefix(max(band - 1, 0)) if depth < count else functions.prefix(0)
        outer = functions.prefix(max(band, 0)) if depth < count else inner
        end = np.where(index < inner, inner, outer)
        table[depth] = np.where(index + back < np.minimum(end, length), back, 0)
    return table


def parent_parts(functions: Sequence[BasisFunctions], extent: Sequence[int]) -> list[list[Integers]]:
    """Return, by depth and axis, what each index adds to the flat position of a parent in a joint basis.

    A coefficient has a parent where its depth is among these. Beyond the indices that such a depth has on an
    axis stand zeros.
    """
    strides = [math.prod(extent[axis + 1 :]) for axis in range(len(extent))]
    result = []
    for depth in range(joint_levels([each.basis for each in functions])):
        parts = []
        for each, n, stride in zip(functions, extent, strides, strict=True):
            index = np.arange(n)
            if each.basis.joint:
                band = each.basis.levels - depth
                inner = each.prefix(max(band, 0))
                average = index // 2 if depth + 1 < each.basis.levels else index
                detail = (each.bands[:n] == band) & (band > 0)
                index = np.where(detail, each.neighbours[AXIS_NEIGHBOURS - 1, :n], average)
                index[inner:] = 0
            parts.append(stride * index)
        result.append(parts)
    return result


def parents(functions: Sequence[BasisFunctions], extent: Sequence[int]) -> NDArray[np.int32]:
    """Find the flat position of the parent of each coefficient of a joint basis; -1 if it has none."""
    result = np.full(tuple(extent), -1, np.int32)
    for depth, whole in enumerate(parent_parts(functions, extent)):
        sides = [
            each.prefix(max(each.basis.levels - depth, 0)) if each.basis.joint else n
            for each, n in zip(functions, extent, strict=True)
        ]
        parts = [part[:n] for part, n in zip(whole, sides, strict=True)]
        first, rest = parts[0].astype(np.int32), _outer_sum(parts[1:])
        rows = max(_ADDED_AT_A_TIME // max(rest.size, 1), 1)
        for start in range(0, first.size, rows):  # no further copy of the grid
            some = first[start : start + rows]
            block = result[start : start + some.size]
            block[corner((some.size, *rest.shape))] = some.reshape(-1, *[1] * rest.ndim) + rest
    coarsest = tuple(slice(each.prefix(0)) if each.basis.joint else slice(None) for each in functions)
    result[coarsest] = -1
    return result


def _outer_sum(parts: Sequence[Integers]) -> NDArray[np.int32]:
    """Return sums of one number of each part."""
    total = np.zeros((1,) * len(parts), np.int32)
    for each in np.ix_(*[part.astype(np.int32) for part in parts]):
        total = total + each
    return total
