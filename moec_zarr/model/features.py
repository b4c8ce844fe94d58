"""What a network reads of the transform at a voxel and around it.

A network that corrects transform coefficients reads how their field goes on along each axis: its
difference to the neighbours at two distances on either side. It acts as a nonlinear filter of a few
hundred weights, which removes the wavelets' ringing and sharpens edges. A voxel depends on the
transform of its neighbours alone, never on their networks, so a part of a chunk can be read without
the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Floats, Integers
from moec_zarr.model.backend import AnyArray, array_namespace, beside, take, take_along
from moec_zarr.model.coefficients import CoefficientField, SentField

__all__ = [
    "LARGEST_STENCIL",
    "NEAR_AND_FAR",
    "SampledField",
    "Stencil",
    "box_around",
    "feature_count",
    "feature_scales",
    "neighbours",
    "sample_around",
    "values_and_features",
]

LARGEST_STENCIL = 15  # of a distance, and of a gain
NEAR_AND_FAR = np.array([1, -1, 3, -3])  # in units of a stencil's distance
_GAINS = np.array([1, 1, 0.5, 0.5], np.float32)  # far differences are larger, hence amplified less


class Stencil(NamedTuple):
    """The neighbours that a network reads along one axis.

    Attributes
    ----------
    distance : int
        1..``LARGEST_STENCIL``, in voxels, of the near neighbours; the far ones are three times as far.
    gain : int
        0..``LARGEST_STENCIL``, octaves by which the near differences are amplified; the far ones are
        amplified by one octave less.
    """

    distance: int
    gain: int


def feature_count(axes: int) -> int:
    """Return the number of features of a voxel on a grid of so many axes."""
    return 1 + len(NEAR_AND_FAR) * axes


def neighbours(index: Integers, stencil: Stencil, length: int) -> Integers:
    """Return neighbours of voxels on an axis of `length`, shape (4, n); clipped to its ends."""
    return np.asarray(np.clip(index + stencil.distance * NEAR_AND_FAR[:, None], 0, length - 1))


def feature_scales(stencil: Stencil, norm: float) -> Floats:
    """Return what the four differences along an axis are multiplied by."""
    return np.asarray(np.float32(2.0**stencil.gain / norm) * _GAINS)


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


AnyField = CoefficientField | SentField | SampledField


def sample_around(field: AnyField, stencils: Sequence[Stencil], indices: Sequence[Integers]) -> AnyField:
    """Evaluate a field at the voxels of a grid and all their neighbours; itself if these are too many."""
    box = box_around(field.shape, stencils, indices)
    return field if box is None else SampledField(field.values(box), box, field.shape, field.norm)


def box_around(
    shape: Sequence[int], stencils: Sequence[Stencil], indices: Sequence[Integers]
) -> list[Integers] | None:
    """Return the box of a grid and all their neighbours, voxels along each axis; None if too many.

    Evaluated for each axis apart, the neighbours of a few scattered voxels are fewer than the box that
    holds all of them; those of a dense grid overlap.

    Parameters
    ----------
    shape : sequence of int
        Of the whole field.
    stencils : sequence of Stencil
        One for each axis.
    indices : sequence of int64 arrays
        Voxels along each axis of the grid.
    """
    box = [
        np.unique(np.concatenate([index, neighbours(index, stencil, length).ravel()]))
        for index, stencil, length in zip(indices, stencils, shape, strict=True)
    ]
    voxels = math.prod(len(index) for index in indices)
    apart = voxels + sum(voxels // len(i) * len(near) for i, near in zip(indices, box, strict=True))
    return None if math.prod(len(near) for near in box) > apart else box


def values_and_features(
    field: AnyField, stencils: Sequence[Stencil], indices: Sequence[Integers], pointwise: bool
) -> tuple[AnyArray, AnyArray]:
    """Read a field at the voxels of a tile, and compute their features.

    Parameters
    ----------
    field : CoefficientField, SentField or SampledField
        The field that the network corrects.
    stencils : sequence of Stencil
        One for each axis.
    indices : sequence of int64 arrays
        Voxels along each axis of a grid; if `pointwise`, the coordinates of each point.

    Returns
    -------
    values : float array or tensor
        The field, of the grid's shape or (points,).
    features : float32 array or tensor, shape (voxels, feature_count)
    """
    values, around = (_around_points if pointwise else _around_grid)(field, stencils, indices)
    here, xp = values.reshape(-1), array_namespace(values)
    parts = [here[None] / float(np.float32(field.norm))]
    for stencil, there in zip(stencils, around, strict=True):
        scales = beside(feature_scales(stencil, field.norm)[:, None], here)
        parts.append((there - here) * scales)
    return values, xp.astype(xp.concat(parts), xp.float32, copy=False).T


def _around_grid(
    field: AnyField, stencils: Sequence[Stencil], indices: Sequence[Integers]
) -> tuple[AnyArray, Iterable[AnyArray]]:
    """Return the field on a grid, and at the neighbours along each axis, shape (4, voxels)."""

    def around(axis: int) -> AnyArray:
        before, after = indices[:axis], indices[axis + 1 :]
        places = neighbours(indices[axis], stencils[axis], field.shape[axis])
        wanted, rows = np.unique(places, return_inverse=True)
        values = field.values([*before, wanted, *after])
        near = take_along(values, rows.reshape(-1), axis)
        split = near.reshape(*values.shape[:axis], *places.shape, *values.shape[axis + 1 :])
        return array_namespace(split).moveaxis(split, axis, 0).reshape(len(places), -1)

    return field.values(indices), map(around, range(len(stencils)))


def _around_points(
    field: AnyField, stencils: Sequence[Stencil], indices: Sequence[Integers]
) -> tuple[AnyArray, Iterable[AnyArray]]:
    """Return the field at points, and at their neighbours along each axis, shape (4, points)."""
    moved = [list(indices)]
    for axis, stencil in enumerate(stencils):
        for places in neighbours(indices[axis], stencil, field.shape[axis]):
            moved.append([*indices[:axis], places, *indices[axis + 1 :]])
    if isinstance(field, SentField):  # together they share more, but NumPy's values then differ in last bits
        points = [np.concatenate(each) for each in zip(*moved, strict=True)]
        values = field.values(points, True).reshape(len(moved), -1)
    else:
        values = np.stack([field.values(each, True) for each in moved])
    return values[0], values[1:].reshape(len(stencils), len(NEAR_AND_FAR), -1)
