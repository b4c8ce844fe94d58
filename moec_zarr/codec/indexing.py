"""Which voxels of a chunk are asked for: zarr's selections as plain indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Selection", "select"]


@dataclass(frozen=True)
class Selection:
    """Voxels of a chunk, on the axes of a grid or one by one.

    Attributes
    ----------
    indices : list of int64 arrays
        One for each axis of the chunk; of one length where `pointwise`.
    pointwise : bool
        Whether the indices are of single points rather than of the axes of a grid.
    shape : tuple of int
        Shape of the result; the grid's less the axes chosen by a number.
    """

    indices: list[NDArray[np.int64]]
    pointwise: bool
    shape: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the values before axes are dropped."""
        return tuple(len(index) for index in (self.indices[:1] if self.pointwise else self.indices))


def select(selection: Any, shape: Sequence[int]) -> Selection:
    """A selection as NumPy takes it: None, slices and numbers, or integer arrays for all axes.

    Arrays of one length select points; arrays that broadcast against each other as those of
    ``np.ix_`` do select a grid.

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
    if len(selection) > len(shape):
        raise IndexError(f"selection of {len(selection)} axes on a chunk of {len(shape)}")
    selection += (slice(None),) * (len(shape) - len(selection))
    arrays = [item for item in selection if isinstance(item, np.ndarray) and item.ndim]
    if arrays and len(arrays) == len(shape):
        whole = np.broadcast_shapes(*(array.shape for array in arrays))
        if len(shape) == 1 or len(whole) != len(shape) or any(
            array.size != array.shape[axis] for axis, array in enumerate(arrays)
        ):  # fmt: skip
            points = [
                _checked_index(a.ravel(), n) for a, n in zip(np.broadcast_arrays(*arrays), shape, strict=True)
            ]
            return Selection(points, True, whole)
        return Selection(
            [_checked_index(a.ravel(), n) for a, n in zip(arrays, shape, strict=True)], False, whole
        )
    indices, kept = [], []
    for item, n in zip(selection, shape, strict=True):
        if isinstance(item, slice):
            indices.append(np.arange(*item.indices(n), dtype=np.int64))
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


def _checked_index(index: NDArray[Any], length: int) -> NDArray[np.int64]:
    if index.dtype.kind not in "iu":
        raise IndexError(f"an index must be of an integer dtype, got {index.dtype}")
    index = index.astype(np.int64)
    if index.size and not -length <= index.min() <= index.max() < length:
        raise IndexError(f"index {index.min()}..{index.max()} on an axis of length {length}")
    return np.where(index < 0, index + length, index)
