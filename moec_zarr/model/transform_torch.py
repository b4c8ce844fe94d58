"""The transform on a device of torch, and what a network reads of it: twin of `transform` and `features`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from moec_zarr.arrays import Integers
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.device_torch import Device
from moec_zarr.model.features import Stencil, box_around, neighbours
from moec_zarr.model.transform import point_groups

__all__ = [
    "Sampled",
    "Transform",
    "features",
    "neighbourhood",
    "sampled_around",
    "synthesise",
    "taken",
]


class Transform(NamedTuple):
    """A transform on a device.

    Attributes
    ----------
    device : Device
    coefficients : float32 or float64 tensor
        Those of :class:`moec_zarr.model.transform.Product`.
    matrices : list of tensors
        Its matrices.
    shape : tuple of int
        Of the grid.
    norm : float
        Root mean square of the values about their mean.
    """

    device: Device
    coefficients: torch.Tensor
    matrices: list[torch.Tensor]
    shape: tuple[int, ...]
    norm: float

    @classmethod
    def of(cls, field: CoefficientField, device: Device) -> Transform:
        """The transform of a field, sent to a device."""
        coefficients, matrices = field.product
        sent = [device.put(matrix) for matrix in matrices]
        return cls(device, device.put(coefficients), sent, field.shape, field.norm)


class Sampled(NamedTuple):
    """A transform evaluated on a grid of voxels, to be read there.

    Attributes
    ----------
    array : tensor
        The values.
    indices : sequence of int64 arrays
        Voxels along each axis, ascending.
    """

    array: torch.Tensor
    indices: Sequence[Integers]


def taken(
    device: Device, array: torch.Tensor, indices: Sequence[Integers], pointwise: bool = False
) -> torch.Tensor:
    """The elements of a grid at indices along its first axes, or at points."""
    if pointwise:
        return array[tuple(device.put(index) for index in indices)]
    for axis, index in enumerate(indices):
        if len(index) and (np.diff(index) == 1).all():  # a view
            array = array.narrow(axis, int(index[0]), len(index))
        else:
            array = array.index_select(axis, device.put(index))
    return array


def synthesise(transform: Transform, indices: Sequence[Integers], pointwise: bool = False) -> torch.Tensor:
    """As :func:`moec_zarr.model.transform.synthesise`, for a transform on a device."""
    if pointwise:
        return _at_points(transform, indices)
    rows = [
        taken(transform.device, matrix, [index])
        for matrix, index in zip(transform.matrices, indices, strict=True)
    ]
    values = transform.coefficients
    # The axis that leaves the fewest numbers comes first.
    for axis in sorted(range(len(rows)), key=lambda axis: len(rows[axis]) / rows[axis].shape[1]):
        values = _along(values, rows[axis], axis)
    return values


def _along(array: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """A matrix, shape (new, old), applied along an axis."""
    if axis == array.ndim - 1:
        return array @ matrix.T
    flat = array.reshape(-1, array.shape[axis], array.shape[axis + 1 :].numel())
    return (matrix @ flat).reshape(*array.shape[:axis], len(matrix), *array.shape[axis + 1 :])


def _at_points(transform: Transform, points: Sequence[Integers]) -> torch.Tensor:
    """Values at single points, shape (points,)."""
    core, put = transform.coefficients, transform.device.put
    total = core.new_empty(len(points[0]))
    for group in point_groups(core.shape, points):
        places = [put(place) for place in group.places]
        if group.grid is not None:
            values = synthesise(transform, group.grid)[tuple(places)]
        else:
            rows = [matrix[place] for matrix, place in zip(transform.matrices, places, strict=True)]
            values = torch.tensordot(rows[0], core, dims=1)
            for row in rows[1:]:
                values = torch.einsum("pi...,pi->p...", values, row)
        total[put(group.which)] = values
    return total


def sampled_around(
    transform: Transform, stencils: Sequence[Stencil], indices: Sequence[Integers]
) -> Sampled | None:
    """The transform at the voxels of a grid and all their neighbours; None where these are too many."""
    box = box_around(transform.shape, stencils, indices)
    return None if box is None else Sampled(synthesise(transform, box), box)


def neighbourhood(
    transform: Transform,
    sampled: Sampled | None,
    stencils: Sequence[Stencil],
    indices: Sequence[Integers],
    pointwise: bool,
) -> torch.Tensor:
    """The transform at voxels, then at the four neighbours along each axis, shape (feature_count, voxels).

    Parameters
    ----------
    transform : Transform
    sampled : Sampled or None
        Read instead of it, where there is one.
    stencils : sequence of Stencil
        One for each axis.
    indices : sequence of int64 arrays
        Voxels along each axis of a grid; if `pointwise`, the coordinates of each point.
    pointwise : bool
        Whether the indices are of single points.
    """
    beside = [neighbours(*each) for each in zip(indices, stencils, transform.shape, strict=True)]
    if pointwise:
        moved = [
            [*indices[:axis], place, *indices[axis + 1 :]]
            for axis, places in enumerate(beside)
            for place in places
        ]
        points = [np.concatenate(own) for own in zip(indices, *moved, strict=True)]
        return synthesise(transform, points, True).reshape(1 + len(moved), -1)

    def read(voxels: Sequence[Integers]) -> torch.Tensor:
        if sampled is None:
            return synthesise(transform, voxels)
        places = [np.searchsorted(own, index) for own, index in zip(sampled.indices, voxels, strict=True)]
        return taken(transform.device, sampled.array, places)

    parts = [read(indices).reshape(1, -1)]
    for axis, places in enumerate(beside):
        values = read([*indices[:axis], places.ravel(), *indices[axis + 1 :]])
        parts.append(values.unflatten(axis, places.shape).movedim(axis, 0).reshape(len(places), -1))
    return torch.cat(parts)


def features(values: torch.Tensor, scales: torch.Tensor, norm: float) -> torch.Tensor:
    """Features from a :func:`neighbourhood`, float32, shape (feature_count, voxels).

    Parameters
    ----------
    values : tensor, shape (feature_count, voxels)
    scales : float32 tensor, shape (feature_count - 1, 1)
        What the differences are multiplied by.
    norm : float
        Root mean square of the transform.
    """
    return torch.cat([values[:1] / norm, (values[1:] - values[:1]) * scales]).float()
