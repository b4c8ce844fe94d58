"""The twin of :mod:`moec_zarr.model.evaluate` on a device of torch, from integers to values of a dtype.

Which voxels a tile has along each axis is found on the host, which is little work. All that is done for each
voxel is done on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from moec_zarr.arrays import Array, Floats, Integers
from moec_zarr.model.basis import SINGLE
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.device_torch import Device, on_device
from moec_zarr.model.evaluate import tiled
from moec_zarr.model.features import feature_scales
from moec_zarr.model.network import Network
from moec_zarr.model.network_torch import Experts
from moec_zarr.model.normalisation import Normalisation
from moec_zarr.model.residual import Residual
from moec_zarr.model.transform_torch import (
    Transform,
    features,
    neighbourhood,
    sampled_around,
    synthesise,
    taken,
)

__all__ = ["evaluated", "restored", "whole"]

_SLAB = 1 << 22  # voxels that a transform is evaluated at together: some tens of megabytes
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
_EXPONENT = 0x7FF0_0000_0000_0000  # the bits of a double that hold it


def whole(network: Network, field: CoefficientField, device: str) -> Floats:
    """The normalised values of a transform and the network that corrects it, on the whole grid.

    Parameters
    ----------
    network : Network
    field : CoefficientField
    device : {"cpu", "cuda"}

    Returns
    -------
    float32 array of the field's shape
    """
    with on_device(device) as own:
        return evaluated(own, network, field, field.shape, [range(n) for n in field.shape])


def evaluated(
    device: Device,
    network: Network | None,
    field: CoefficientField | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    *,
    residual: Residual | None = None,
    pointwise: bool = False,
    tile: int | None = None,
    dtype: np.dtype[Any] = SINGLE,
    limits: tuple[Any, Any] | None = None,
    order: str = "C",
) -> Array:
    """The sum of what there is of network, transform and residual, as values of a dtype.

    The device holds the model with its corrections, what one tile takes, and the values of two tiles that
    may be on their way to the host.

    Parameters
    ----------
    device : Device
    network, field, lengths, indices, residual, pointwise
        As for :func:`moec_zarr.model.evaluate.evaluate`.
    tile : int, optional
        Voxels that a network is evaluated at together, or a transform alone; by default as many as suits
        the memory of a device.
    dtype : numpy.dtype
        Of the result, in its byte order.
    limits : tuple of two scalars, optional
        The range of the values, to which they are restored as :meth:`Normalisation.restore` does. Without
        it they are returned in units of the normalisation.
    order : {"C", "F"}
        Memory order of the result.

    Returns
    -------
    array of the grid's shape, or of shape (points,)
        In memory that is pinned where the device is a GPU. Its values are there once :func:`on_device` has
        ended.
    """
    shape = [len(index) for index in (indices[:1] if pointwise else indices)]
    memory = device.memory(math.prod(shape) * dtype.itemsize)
    first = 0
    if memory.numel():
        for values in _tiles(device, network, field, residual, lengths, indices, pointwise, tile, order):
            sent = values.float().view(torch.uint8) if limits is None else restored(values, dtype, *limits)
            device.send(sent, memory[first : first + sent.numel()])
            first += sent.numel()
    return memory.numpy().view(dtype).reshape(shape, order="F" if order == "F" else "C")


def _tiles(
    device: Device,
    network: Network | None,
    field: CoefficientField | None,
    residual: Residual | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    pointwise: bool,
    tile: int | None,
    order: str,
) -> Iterator[torch.Tensor]:
    """Normalised values, shape (voxels,), in the order that they have in memory."""
    transform = None if field is None else Transform.of(field, device)
    corrections = None
    if residual is not None and residual.corrections is not None:
        corrections = device.put(residual.corrections)
    if network is not None:
        parts = _with_network(device, network, transform, lengths, indices, pointwise, tile, order)
    else:
        parts = _without_network(device, transform, indices, pointwise, tile, order)
    for rows, values in parts:
        if residual is not None and corrections is not None:
            own = taken(device, corrections, rows, pointwise).reshape(-1)
            values = values + residual.spacing * own.double()
        if order == "F" and not pointwise:
            values = values.reshape([len(row) for row in rows])
            values = values.permute(*reversed(range(values.ndim))).reshape(-1)
        yield values


def _without_network(
    device: Device,
    transform: Transform | None,
    indices: Sequence[range | Integers],
    pointwise: bool,
    tile: int | None,
    order: str,
) -> Iterator[tuple[list[Integers], torch.Tensor]]:
    """The indices of each tile, and the transform there; zeros where there is none."""
    for rows in _rows(indices, pointwise, tile or _SLAB, order):
        if transform is not None:
            yield rows, synthesise(transform, rows, pointwise).reshape(-1)
        else:
            count = math.prod(len(row) for row in (rows[:1] if pointwise else rows))
            yield rows, torch.zeros(count, dtype=torch.float64, device=device.device)


def _with_network(
    device: Device,
    network: Network,
    transform: Transform | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    pointwise: bool,
    tile: int | None,
    order: str,
) -> Iterator[tuple[list[Integers], torch.Tensor]]:
    """The indices of each tile, and the sum of the network and the transform there."""
    experts, stencils = Experts.of(network, device), network.stencils
    if transform is not None:
        scales = device.put(
            np.concatenate([feature_scales(stencil, transform.norm) for stencil in stencils])[:, None]
        )
    for slab in _rows(indices, pointwise, _SLAB, order):
        sampled = None
        if transform is not None and not pointwise:
            sampled = sampled_around(transform, stencils, slab)
        for rows in _rows(slab, pointwise, tile or experts.tile, order):
            if transform is None:
                yield rows, experts.values(lengths, rows, pointwise, None)
                continue
            near = neighbourhood(transform, sampled, stencils, rows, pointwise)
            read = features(near, scales, transform.norm)
            yield rows, experts.values(lengths, rows, pointwise, read) + near[0]


def _rows(
    indices: Sequence[range | Integers], pointwise: bool, voxels: int, order: str
) -> Iterator[list[Integers]]:
    """The indices of each tile, in the order of memory: no tile leaves gaps in it."""
    if order == "F" and not pointwise:
        yield from (rows[::-1] for _, rows in tiled(indices[::-1], pointwise=False, voxels=voxels))
    else:
        yield from (rows for _, rows in tiled(indices, pointwise=pointwise, voxels=voxels))


def restored(values: torch.Tensor, dtype: np.dtype[Any], low: Any, high: Any) -> torch.Tensor:
    """Fitted values as :meth:`Normalisation.restore` restores them, in bytes.

    Parameters
    ----------
    values : float32 or float64 tensor, shape (voxels,)
        Fitted values of a stream.
    dtype : numpy.dtype
        The bytes have its order.
    low, high : scalar of `dtype`
        The range.

    Returns
    -------
    uint8 tensor, shape (voxels * itemsize,)
    """
    normalisation = Normalisation.of_range(low, high)
    wide = normalisation.scale * values.double()
    if isinstance(normalisation.centre, int):
        numbers = _whole_numbers(wide.round(), normalisation.centre, int(low), int(high))
    else:
        wide = (normalisation.centre + wide).clamp(float(low), float(high))
        numbers = _rounded(wide, dtype)
    own = numbers.view(torch.uint8)
    return own if dtype.isnative else own.reshape(-1, dtype.itemsize).flip(1).reshape(-1)


def _whole_numbers(wide: torch.Tensor, centre: int, low: int, high: int) -> torch.Tensor:
    """64-bit integers from their differences to the centre; unsigned ones as signed ones of the same bits."""
    below, above = low - centre, high - centre
    # Doubles next to the ends of the range may lie beyond it.
    inner = (wide > float(below)) & (wide < float(above))
    ends = torch.where(wide >= float(above), above, below)
    difference = torch.where(inner, wide.where(inner, 0.0).to(torch.int64), ends)
    return difference + (centre - 2**64 if centre >= 2**63 else centre)


def _rounded(wide: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    """Doubles as numbers of a dtype; unsigned integers as signed ones of the same bits."""
    if dtype.kind != "f":
        return wide.round().to(torch.int64).to(_INTEGERS[dtype.itemsize])
    if dtype.itemsize == 2:
        # Rounded to multiples of the spacing first: torch would round to float32 before it does to float16.
        power = (wide.view(torch.int64) & _EXPONENT).view(torch.float64)  # of two, not above
        spacing = (power * 2.0**-10).clamp(min=2.0**-24)
        return ((wide / spacing).round() * spacing).half()
    return wide.float() if dtype.itemsize == 4 else wide
