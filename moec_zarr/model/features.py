"""What a network reads of the transform at a voxel and around it.

A network that corrects transform coefficients reads how their field goes on along each axis: its
difference to the neighbours at two distances on either side. It acts as a nonlinear filter of a few
hundred weights, which removes the wavelets' ringing and sharpens edges. A voxel depends on the
transform of its neighbours alone, never on their networks, so a part of a chunk can be read without
the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Floats, Integers
from moec_zarr.model.backend import AnyArray, array_namespace, beside, empty_beside, take
from moec_zarr.model.coefficients import CoefficientField, SentField

__all__ = [
    "LARGEST_STENCIL",
    "NEAR_AND_FAR",
    "SampledField",
    "Stencil",
    "box_around",
    "feature_count",
    "feature_scales",
    "features",
    "features_at",
    "neighbours",
    "sample_around",
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


def features(here: AnyArray, there: Sequence[AnyArray], stencils: Sequence[Stencil], norm: float) -> AnyArray:
    """Compute the features of voxels, float32, shape (n, feature_count).

    Parameters
    ----------
    here : float array or tensor, shape (n,)
        The field at the voxels.
    there : sequence of the same kind, shape (4, n)
        The field at their neighbours along each axis.
    stencils : sequence of Stencil
        One for each axis.
    norm : float
        Root mean square of the field.
    """
    result = empty_beside((len(here), feature_count(len(stencils))), here, "float32")
    result[:, 0] = here / float(np.float32(norm))
    for axis, (stencil, values) in enumerate(zip(stencils, there, strict=True)):
        first = feature_count(axis)
        scales = beside(feature_scales(stencil, norm)[:, None], here)
        result[:, first : first + len(values)] = ((values - here) * scales).T
    return result


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


def features_at(
    field: AnyField,
    stencils: Sequence[Stencil],
    indices: Sequence[Integers],
    values: AnyArray,
    pointwise: bool,
) -> AnyArray:
    """Compute the features of the voxels of a tile, float32, shape (voxels, feature_count).

    Parameters
    ----------
    field : CoefficientField, SentField or SampledField
        The field that the network corrects.
    stencils : sequence of Stencil
        One for each axis.
    indices : sequence of int64 arrays
        Voxels along each axis of a grid; if `pointwise`, the coordinates of each point.
    values : float array or tensor
        The field at these voxels.
    """
    there = [
        _neighbour_values(field, stencil, indices, axis, pointwise) for axis, stencil in enumerate(stencils)
    ]
    return features(values.reshape(-1), there, stencils, field.norm)


def _neighbour_values(
    field: AnyField,
    stencil: Stencil,
    indices: Sequence[Integers],
    axis: int,
    pointwise: bool,
) -> AnyArray:
    """Return the field at the neighbours along an axis, shape (4, voxels)."""
    places = neighbours(indices[axis], stencil, field.shape[axis])
    before, after = indices[:axis], indices[axis + 1 :]
    if pointwise:
        parts = [field.values([*before, place, *after], True) for place in places]
    else:
        wanted, rows = np.unique(places, return_inverse=True)
        values = field.values([*before, wanted, *after])
        whole = [slice(None)] * axis
        parts = [take(values, [*whole, row]).reshape(-1) for row in rows.reshape(places.shape)]
    return array_namespace(*parts).stack(parts)
