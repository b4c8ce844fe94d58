"""Which voxels of a chunk are asked for: zarr's selections as plain indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Integers

__all__ = ["Selection", "place", "select", "short_axes", "take", "within"]


@dataclass(frozen=True)
class Selection:
    """Voxels of a chunk, on the axes of a grid or one by one.

    Attributes
    ----------
    indices : list of range or int64 array
        One for each axis of the chunk: a range where a slice selects, for the indices of a whole chunk may
        take more memory than itself; arrays of one length where `pointwise`.
    pointwise : bool
        Whether the indices are of single points rather than of the axes of a grid.
    shape : tuple of int
        Shape of the result; the grid's less the axes chosen by a number.
    """

    indices: list[range | Integers]
    pointwise: bool
    shape: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the values before axes are dropped."""
        return tuple(len(index) for index in (self.indices[:1] if self.pointwise else self.indices))

    def is_whole(self, shape: Sequence[int]) -> bool:
        """Say whether it is all of a chunk, in its order."""
        whole = zip(self.indices, map(range, shape), strict=True)
        return not self.pointwise and all(isinstance(own, range) and own == each for own, each in whole)


def _as_slice(index: range) -> slice:
    """Return the slice that selects the elements of a range."""
    return slice(index.start, index.stop if index.stop >= 0 else None, index.step)


def take(array: Array, wanted: Selection) -> Array:
    """Take what a selection selects of an array, in its `grid`; a view if it is one of slices."""
    if wanted.pointwise:
        return np.asarray(array[tuple(wanted.indices)])
    slices, chosen = _parts(wanted.indices)
    array = array[slices]
    for axis, index in chosen.items():
        array = array.take(index, axis)
    return array


def place(out: Array, values: Array, indices: list[range | Integers]) -> None:
    """Write values to the places of `out` that are given for each of its axes."""
    slices, chosen = _parts(indices)
    front = range(len(chosen))
    where = np.ix_(*chosen.values()) if chosen else ...
    part: Any = (*slices, ...)  # an array even where there is no axis
    np.moveaxis(out[part], tuple(chosen), front)[where] = np.moveaxis(values, tuple(chosen), front)


def within(wanted: Selection, shape: Sequence[int]) -> tuple[Selection, list[range | Integers]]:
    """Return what a selection selects in the leading part of its chunk, and where in it that stands."""
    if wanted.pointwise:
        indices = [np.asarray(index) for index in wanted.indices]
        inside = [index < n for index, n in zip(indices, shape, strict=True)]
        points = np.flatnonzero(np.logical_and.reduce(inside))
        return replace(wanted, indices=[index[points] for index in indices]), [points]
    kept: list[range | Integers] = []
    places: list[range | Integers] = []
    for index, n in zip(wanted.indices, shape, strict=True):
        if isinstance(index, range):
            rising = index if index.step > 0 else index[::-1]
            count = len(range(rising.start, min(rising.stop, n), rising.step))
            part = range(count) if index.step > 0 else range(len(index) - count, len(index))
            kept.append(index[part.start : part.stop])
            places.append(part)
        else:
            inner = np.flatnonzero(index < n)
            kept.append(index[inner])
            places.append(inner)
    return replace(wanted, indices=kept), places


def _parts(indices: list[range | Integers]) -> tuple[tuple[slice, ...], dict[int, Integers]]:
    """Return the slices of a selection, and the axes on which it has arrays."""
    slices = tuple(_as_slice(index) if isinstance(index, range) else slice(None) for index in indices)
    return slices, {axis: index for axis, index in enumerate(indices) if not isinstance(index, range)}


def select(selection: Any, shape: Sequence[int]) -> Selection:
    """Resolve a selection as NumPy takes it: None, slices and numbers, or integer arrays for all axes.

    Arrays of one length select points; arrays that broadcast against each other as those of
    ``np.ix_`` do select a grid. A boolean array stands for the indices at which it is true.

    Raises
    ------
    IndexError
        If it does not fit the shape or is none of these.
    """
    if selection is None:
        selection = (slice(None),) * len(shape)
    if not isinstance(selection, tuple):
        selection = (selection,)
    if Ellipsis in [item for item in selection if not isinstance(item, np.ndarray)]:
        at = next(i for i, item in enumerate(selection) if item is Ellipsis)
        fill = (slice(None),) * (len(shape) - len(selection) + 1)
        selection = selection[:at] + fill + selection[at + 1 :]
    selection = _without_masks(selection, shape)
    if len(selection) > len(shape):
        raise IndexError(f"selection of {len(selection)} axes on a chunk of {len(shape)}")
    selection += (slice(None),) * (len(shape) - len(selection))
    arrays = [item for item in selection if isinstance(item, np.ndarray) and item.ndim]
    if arrays and len(arrays) == len(shape):
        whole = np.broadcast_shapes(*(array.shape for array in arrays))
        if len(shape) == 1 or len(whole) != len(shape) or any(
            array.size != array.shape[axis] for axis, array in enumerate(arrays)
        ):  # fmt: skip
            points: list[range | Integers] = [
                _checked_index(a.ravel(), n) for a, n in zip(np.broadcast_arrays(*arrays), shape, strict=True)
            ]
            return Selection(points, True, whole)
        return Selection(
            [_checked_index(a.ravel(), n) for a, n in zip(arrays, shape, strict=True)], False, whole
        )
    indices: list[range | Integers] = []
    kept = []
    for item, n in zip(selection, shape, strict=True):
        if isinstance(item, slice):
            indices.append(range(n)[item])
            kept.append(len(indices[-1]))
        elif isinstance(item, np.ndarray) and item.ndim == 1 and len(arrays) == 1:
            indices.append(_checked_index(item, n))
            kept.append(len(item))
        elif isinstance(item, int | np.integer) or (isinstance(item, np.ndarray) and not item.ndim):
            indices.append(_checked_index(np.array([item]), n))
        else:
            raise IndexError(
                f"cannot select by {item!r}; use slices, numbers, or an integer array for every axis"
            )
    return Selection(indices, False, tuple(kept))


def _without_masks(selection: tuple[Any, ...], shape: Sequence[int]) -> tuple[Any, ...]:
    """Return a selection with the indices that its masks select in their place."""
    result: list[Any] = []
    for item in selection:
        if not isinstance(item, np.ndarray) or item.dtype != bool or not item.ndim:
            result.append(item)
            continue
        covered = tuple(shape[len(result) : len(result) + item.ndim])
        if item.shape != covered:
            raise IndexError(f"a mask of shape {item.shape} on axes of length {covered}; give one of theirs")
        result += np.nonzero(item)
    return tuple(result)


def _checked_index(index: NDArray[Any], length: int) -> Integers:
    if index.dtype.kind not in "iu":
        raise IndexError(f"an index must be of an integer dtype, got {index.dtype}")
    index = index.astype(np.int64)
    if index.size and not -length <= index.min() <= index.max() < length:
        raise IndexError(f"index {index.min()}..{index.max()} on an axis of length {length}")
    return np.where(index < 0, index + length, index)


def short_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """List the axes of length one, which neither transform nor network has."""
    return tuple(axis for axis, n in enumerate(shape) if n == 1)
