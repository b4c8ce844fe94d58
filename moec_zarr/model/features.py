"""What a network reads of the transform at a voxel and around it.

A network that corrects transform coefficients reads how their field goes on along each axis: its
difference to the neighbours at two distances on either side. It acts as a nonlinear filter of a few
hundred weights, which removes the wavelets' ringing and sharpens edges. A voxel depends on the
transform of its neighbours alone, never on their networks, so a part of a chunk can be read without
the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Floats, Integers
from moec_zarr.model.backend import AnyArray, array_namespace, beside
from moec_zarr.model.neighbourhood import AnyField, read_around

__all__ = [
    "LARGEST_STENCIL",
    "NEAR_AND_FAR",
    "Stencil",
    "feature_count",
    "feature_scales",
    "offsets_of",
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


def offsets_of(stencils: Sequence[Stencil]) -> list[Integers]:
    """Return the offsets of the neighbours that a network reads along each axis."""
    return [stencil.distance * NEAR_AND_FAR for stencil in stencils]


def feature_scales(stencil: Stencil, norm: float) -> Floats:
    """Return what the four differences along an axis are multiplied by."""
    return np.asarray(np.float32(2.0**stencil.gain / norm) * _GAINS)


def values_and_features(
    field: AnyField, stencils: Sequence[Stencil], indices: Sequence[Integers], pointwise: bool
) -> tuple[AnyArray, AnyArray]:
    """Read a field at the voxels of a tile, and compute their features.

    Parameters
    ----------
    field : AnyField
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
    values, around = read_around(field, offsets_of(stencils), indices, pointwise)
    here, xp = values.reshape(-1), array_namespace(values)
    parts = [here[None] / float(np.float32(field.norm))]
    for stencil, there in zip(stencils, around, strict=True):
        scales = beside(feature_scales(stencil, field.norm)[:, None], here)
        parts.append((there - here) * scales)
    return values, xp.astype(xp.concat(parts), xp.float32, copy=False).T
