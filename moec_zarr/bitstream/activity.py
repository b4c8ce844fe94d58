"""The activity of each coefficient, from which its class follows, as wavefronts are coded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Integers
from moec_zarr.bitstream.coding_order import ABSENT, context_tables, parents, wavefronts
from moec_zarr.bitstream.contexts import (
    CLASSES,
    MAX_NEIGHBOUR,
    Context,
    log_index,
    logarithms,
    zero_context_activity,
)
from moec_zarr.model.basis import BasisFunctions

__all__ = ["Activity"]

_ADDED_AT_A_TIME = 1 << 14  # coefficients that add to the activity together
_GATHERED_AT_A_TIME = 1 << 20  # coefficients that are looked up together


def _parts(count: int) -> Iterator[slice]:
    """Parts of so many numbers that are looked up together: an index takes more room than what it finds."""
    for first in range(0, count, _GATHERED_AT_A_TIME):
        yield slice(first, min(first + _GATHERED_AT_A_TIME, count))


class Activity:
    """The activity of each coefficient that is coded, from those of earlier wavefronts.

    Attributes
    ----------
    order : int32 array
        Flat positions of the coefficients; all else here is in this order, so that a wavefront is a slice.
    ends : list of int
        Of the wavefronts.
    """

    def __init__(
        self, functions: Sequence[BasisFunctions], octaves: NDArray[np.uint8], context: Context
    ) -> None:
        extent = octaves.shape
        self.order, self.ends = wavefronts(octaves)
        size, count = octaves.size, len(self.order)
        self._size = size
        self._rank = np.full(size + 1, count, np.int32)  # the last one is nobody's
        self._octaves = np.empty(count, np.uint8)
        flat = octaves.reshape(-1)
        for part in _parts(count):
            own = self.order[part]
            self._rank[own] = np.arange(part.start, part.stop, dtype=np.int32)
            flat.take(own, out=self._octaves[part], mode="clip")
        tables = context_tables(functions, extent)
        self.tables = tables
        self._parent_weight = None
        if tables.parent_weight >= 0:  # first, since it takes the most memory on its way
            self._parent_weight = np.int32(context.neighbour_weights[tables.parent_weight])
            self._parents = self._ranks_of(parents(functions, extent).reshape(-1))
            self._magnitudes = np.zeros(count + 1, np.int16)
        floor = np.zeros(256, np.int32)
        floor[:ABSENT] = zero_context_activity(context, ABSENT)
        self._activity = np.zeros(count + 1, np.int32)
        for part in _parts(count):
            np.take(floor, self._octaves[part], out=self._activity[part], mode="clip")
        self._logarithms = logarithms() * np.int32(context.power)
        # Far out of the range of classes the base does not matter: no sum overflows.
        base = np.clip(context.offset + context.slope * np.arange(256), -(2**17), 2**17)
        self._base = base.astype(np.int32)
        strides = tables.strides
        self._weights = np.array(context.neighbour_weights, np.int32)[tables.slots[:, 1]]
        self._strides = strides.tolist()
        # By depth and index on each axis; beyond the grid where there is no such place.
        moves = np.where(tables.reach > 0, tables.reach * strides[tables.slots[:, 0], None, None], size)
        self._longest = moves.shape[2]
        self._moves = []
        for axis in range(len(extent)):
            own = moves[tables.slots[:, 0] == axis].transpose(1, 2, 0)
            self._moves.append(np.ascontiguousarray(own).reshape(own.shape[0] * own.shape[1], own.shape[2]))
        self._depth = tables.depth if tables.parent_weight >= 0 else None

    def _ranks_of(self, positions: NDArray[np.int32]) -> NDArray[np.int32]:
        """For each coefficient in order the rank of what stands at its entry; nobody's where that is -1."""
        result = np.empty(len(self.order), np.int32)
        for part in _parts(len(result)):
            result[part] = self._rank[positions[self.order[part]]]
        return result

    def classes(self, wavefront: slice) -> NDArray[np.int32]:
        """Return the classes of the coefficients of a wavefront."""
        activity = self._activity[wavefront]
        if self._parent_weight is not None:
            activity = activity + self._parent_weight * self._magnitudes.take(self._parents[wavefront])
        fine = self._logarithms.take(log_index(activity), mode="clip")
        fine += self._base.take(self._octaves[wavefront])
        fine >>= 7
        np.clip(fine, 0, CLASSES - 1, out=fine)
        return fine

    def add(self, ranks: Integers, magnitudes: Integers) -> None:
        """Add magnitudes above zero, where later coefficients find them."""
        for part in range(0, len(ranks), _ADDED_AT_A_TIME):
            some = slice(part, part + _ADDED_AT_A_TIME)
            self._add(ranks[some], magnitudes[some])

    def _add(self, ranks: Integers, magnitudes: Integers) -> None:
        magnitudes = np.minimum(magnitudes, MAX_NEIGHBOUR).astype(np.int32)
        rest = places = self.order.take(ranks)
        indices = []
        for stride in self._strides[:-1]:
            index = rest // stride
            rest = rest - index * stride
            indices.append(index)
        indices.append(rest)
        if self._depth is not None:
            self._magnitudes[ranks] = magnitudes
            depth = self._depth[0].take(indices[0])
            for table, index in zip(self._depth[1:], indices[1:], strict=True):
                depth = np.minimum(depth, table.take(index))
            depth = depth * self._longest
            indices = [index + depth for index in indices]
        moves = [table.take(index, axis=0) for table, index in zip(self._moves, indices, strict=True)]
        targets = np.concatenate(moves, axis=1)
        targets += places[:, None]
        targets = self._rank.take(targets, mode="clip")
        np.add.at(
            self._activity, targets.reshape(-1), np.multiply.outer(magnitudes, self._weights).reshape(-1)
        )
