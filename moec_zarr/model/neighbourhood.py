"""Fields read at voxels and around them, on the axes of a grid or at points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moec_zarr.arrays import Integers
from moec_zarr.model.backend import AnyArray, array_namespace, take, take_along

__all__ = ["AnyField", "SampledField", "box_around", "neighbours", "read_around", "sample_around"]


class AnyField(Protocol):
    """What is read at voxels: a transform, on the host or on a device, what restores it, or its samples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid."""

    @property
    def norm(self) -> float:
        """Root mean square of the transform about its mean."""

    def values(self, indices: Sequence[Integers], pointwise: bool = False) -> AnyArray:
        """Return the values at voxels, of the grid's shape or (points,)."""


@dataclass(frozen=True)
class SampledField:
    """A field evaluated once on a grid of voxels, which is read instead of it.

    Attributes
    ----------
    array : float array or tensor
        The values.
    indices : sequence of int64 arrays
        Voxels along each axis, ascending.
    shape : tuple of int
        Of the whole field.
    norm : float
        Root mean square of the whole field.
    """

    array: AnyArray
    indices: Sequence[Integers]
    shape: tuple[int, ...]
    norm: float

    def values(self, indices: Sequence[Integers], pointwise: bool = False) -> AnyArray:
        """Return the values at voxels of the grid, as :meth:`CoefficientField.values` does."""
        places = [np.searchsorted(own, index) for own, index in zip(self.indices, indices, strict=True)]
        return take(self.array, places, pointwise)


def neighbours(index: Integers, offsets: Integers, length: int) -> Integers:
    """Return neighbours of voxels on an axis of `length`, shape (offsets, n); clipped to its ends."""
    return np.asarray(np.clip(index + offsets[:, None], 0, length - 1))


def sample_around(field: AnyField, offsets: Sequence[Integers], indices: Sequence[Integers]) -> AnyField:
    """Evaluate a field at the voxels of a grid and all their neighbours; itself if these are too many."""
    box = box_around(field.shape, offsets, indices)
    return field if box is None else SampledField(field.values(box), box, field.shape, field.norm)


def box_around(
    shape: Sequence[int], offsets: Sequence[Integers], indices: Sequence[Integers]
) -> list[Integers] | None:
    """Return the box of a grid and all their neighbours, voxels along each axis; None if too many.

    Evaluated for each axis apart, the neighbours of a few scattered voxels are fewer than the box that
    holds all of them; those of a dense grid overlap.

    Parameters
    ----------
    shape : sequence of int
        Of the whole field.
    offsets : sequence of int64 arrays
        Of the neighbours, for each axis.
    indices : sequence of int64 arrays
        Voxels along each axis of the grid.
    """
    box = [
        np.unique(np.concatenate([index, neighbours(index, own, length).ravel()]))
        for index, own, length in zip(indices, offsets, shape, strict=True)
    ]
    voxels = math.prod(len(index) for index in indices)
    apart = voxels + sum(voxels // len(i) * len(near) for i, near in zip(indices, box, strict=True))
    return None if math.prod(len(near) for near in box) > apart else box


def read_around(
    field: AnyField, offsets: Sequence[Integers], indices: Sequence[Integers], pointwise: bool
) -> tuple[AnyArray, Iterable[AnyArray]]:
    """Read a field at voxels, and at the neighbours along each axis.

    Parameters
    ----------
    field : AnyField
    offsets : sequence of int64 arrays
        Of the neighbours, for each axis; as many for all.
    indices : sequence of int64 arrays
        Voxels along each axis of a grid; if `pointwise`, the coordinates of each point.

    Returns
    -------
    values : float array or tensor
        The field, of the grid's shape or (points,).
    around : iterable of float arrays or tensors, shape (offsets, voxels)
        For each axis.
    """
    return (_around_points if pointwise else _around_grid)(field, offsets, indices)


def _around_grid(
    field: AnyField, offsets: Sequence[Integers], indices: Sequence[Integers]
) -> tuple[AnyArray, Iterable[AnyArray]]:
    def around(axis: int) -> AnyArray:
        before, after = indices[:axis], indices[axis + 1 :]
        places = neighbours(indices[axis], offsets[axis], field.shape[axis])
        wanted, rows = np.unique(places, return_inverse=True)
        values = field.values([*before, wanted, *after])
        near = take_along(values, rows.reshape(-1), axis)
        split = near.reshape(*values.shape[:axis], *places.shape, *values.shape[axis + 1 :])
        return array_namespace(split).moveaxis(split, axis, 0).reshape(len(places), -1)

    return field.values(indices), map(around, range(len(offsets)))


def _around_points(
    field: AnyField, offsets: Sequence[Integers], indices: Sequence[Integers]
) -> tuple[AnyArray, Iterable[AnyArray]]:
    moved = [list(indices)]
    for axis, own in enumerate(offsets):
        for places in neighbours(indices[axis], own, field.shape[axis]):
            moved.append([*indices[:axis], places, *indices[axis + 1 :]])
    values = field.values(moved[0], True)
    if isinstance(values, np.ndarray):
        around = np.concatenate([field.values(each, True) for each in moved[1:]])
    else:  # together they share more, but NumPy's values then differ in last bits
        around = field.values([np.concatenate(each) for each in zip(*moved[1:], strict=True)], True)
    return values, around.reshape(len(offsets), len(offsets[0]), -1)
