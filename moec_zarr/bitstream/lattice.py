"""The order in which the voxels of a grid are predicted, and the neighbours of each.

The axes longer than one, folded where they are too long, are ordered by length: the longest is the last.
Voxels are coded along wavefronts of a skewed grid, as those of a mask are.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Integers
from moec_zarr.model.folding import fold, folded_shape

__all__ = ["Lattice", "arrange", "neighbours", "rearrange", "surroundings"]


@dataclass(frozen=True)
class Lattice:
    """The neighbours of each voxel of a grid, and the order of coding; the longest axis is the last.

    Attributes
    ----------
    shape : tuple of int
    columns : int
        Length of the last axis; everything before it counts rows.
    starts, places : int64 array
        The first wavefront of each row, rising, and the flat position of its first voxel.
    inside : bool array, shape (rows, neighbours)
        Whether the row of a neighbour is one.
    steps, moves : int64 array
        Where neighbours stand, seen from a voxel: in flat positions, and in columns alone.
    nearness : int64 array
        Weights of the neighbours' errors.
    """

    shape: tuple[int, ...]
    columns: int
    starts: Integers
    places: Integers
    inside: Bools
    steps: Integers
    moves: Integers
    nearness: Integers


@lru_cache(maxsize=8)
def neighbours(axes: int) -> NDArray[np.int64]:
    """List the neighbours of a voxel, nearest first.

    All that differ by at most one on up to two axes, and lie before the voxel on the first of these; those
    before it on three; and those two before it on one.
    """
    found = []
    for offset in itertools.product((-1, 0, 1), repeat=axes):
        moved = [step for step in offset if step]
        if moved and moved[0] == -1 and (len(moved) < 3 or (len(moved) == 3 and max(moved) < 0)):
            found.append(offset)
    found += [tuple(-2 * (axis == own) for axis in range(axes)) for own in range(axes)]
    found.sort(key=lambda offset: (sum(step * step for step in offset), [-step for step in offset]))
    return np.array(found, np.int64)


@lru_cache(maxsize=4)  # a grid, boxes of it, a table of what occurs
def _lattice(shape: tuple[int, ...]) -> Lattice:
    axes, columns = len(shape), shape[-1]
    taps = neighbours(axes)
    strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(axes)], np.int64)
    index = np.indices(shape[:-1]).reshape(axes - 1, math.prod(shape[:-1]))
    starts = (2 ** np.arange(axes - 1, 0, -1)) @ index
    order = np.argsort(starts, kind="stable")
    inside = np.ones((order.size, len(taps)), bool)
    for axis in range(axes - 1):
        there = index[axis, order, None] + taps[:, axis]
        inside &= (there >= 0) & (there < shape[axis])
    distance = (taps**2).sum(axis=1)
    return Lattice(
        shape=shape,
        columns=columns,
        starts=starts[order],
        places=order * columns,
        inside=inside,
        steps=taps @ strides,
        moves=taps[:, -1].copy(),
        nearness=np.where(distance == 1, 4, np.where(distance == 2, 2, 1)),
    )


def _arranged(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the folded shape of the axes longer than one, and these axes by length."""
    folded = folded_shape([n for n in shape if n > 1] or [1])
    return folded, tuple(sorted(range(len(folded)), key=lambda axis: folded[axis]))


def arrange(values: Integers, valid: Bools | None) -> tuple[Integers, Bools, Lattice]:
    """Return integers and which of them are coded as a lattice has them, flat, and the lattice."""
    folded, order = _arranged(values.shape)
    longer = [n for n in values.shape if n > 1] or [1]
    known = np.ones(longer, bool) if valid is None else valid.reshape(longer)
    lattice = _lattice(tuple(folded[axis] for axis in order))
    flat = np.ascontiguousarray(fold(values.reshape(longer)).transpose(order)).reshape(-1)
    return flat, fold(known, 0).transpose(order).flatten(), lattice


def surroundings(flat: Integers, known: Bools, lattice: Lattice, places: Integers) -> tuple[Integers, Bools]:
    """Return the neighbours' integers at places, and which of them there are."""
    row, column = places // lattice.columns, places % lattice.columns
    rank = np.empty(lattice.places.size, np.int64)
    rank[lattice.places // lattice.columns] = np.arange(rank.size)
    beside = column[:, None] + lattice.moves
    there = lattice.inside[rank[row]] & (beside >= 0) & (beside < lattice.columns)
    around = np.where(there, places[:, None] + lattice.steps, 0)
    there &= known[around]
    return np.where(there, flat[around], 0), there


def rearrange(flat: Integers, shape: tuple[int, ...]) -> Integers:
    """Return the integers of a grid from those of a lattice."""
    folded, order = _arranged(shape)
    longer = [n for n in shape if n > 1] or [1]
    values = flat.reshape([folded[axis] for axis in order]).transpose(np.argsort(order))
    values = values.reshape([math.prod(folded_shape([n])) for n in longer])
    return values[tuple(slice(n) for n in longer)].reshape(shape)
