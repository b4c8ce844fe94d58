"""Decoded values on a device of torch, up to the bytes of an array on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from moec_zarr.arrays import Array, Integers
from moec_zarr.model.basis import SINGLE
from moec_zarr.model.device_torch import Device
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.linear_experts import AnyTransform
from moec_zarr.model.network import Network
from moec_zarr.model.normalisation import Limits, Normalisation, neighbours
from moec_zarr.model.residual import Residual
from moec_zarr.model.scale import Scale

__all__ = ["evaluate_on", "restored"]

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
_EXPONENT = 0x7FF0_0000_0000_0000  # the bits of a double that hold it


def evaluate_on(
    device: Device,
    network: Network | None,
    field: AnyTransform | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    *,
    residual: Residual | None = None,
    pointwise: bool = False,
    tile: int | None = None,
    dtype: np.dtype[Any] = SINGLE,
    limits: Limits | None = None,
) -> Array:
    """Evaluate as :func:`moec_zarr.model.evaluate.evaluate` does, and send values of a dtype to the host.

    The device holds the values of two tiles that may be on their way to the host, beside what it evaluates.

    Parameters
    ----------
    device : Device
    network, field, lengths, indices, residual, pointwise, tile
        As for `evaluate`.
    dtype : numpy.dtype
        Of the result, in its byte order.
    limits : Limits, optional
        The range of the values: they are restored as :meth:`Limits.restore` does. Without it they are
        returned in units of the normalisation.

    Returns
    -------
    array of the grid's shape, or of shape (points,)
        In memory that is pinned if the device is a GPU. Its values are there once :func:`on_device` has
        ended.
    """
    shape = [len(index) for index in (indices[:1] if pointwise else indices)]
    memory = device.memory(math.prod(shape) * dtype.itemsize)
    first = 0
    options: Any = {"residual": residual, "pointwise": pointwise, "tile": tile, "device": device}
    for _, values in evaluate(network, field, lengths, indices, **options) if memory.numel() else ():
        flat = values.reshape(-1)
        sent = flat.float().view(torch.uint8) if limits is None else restored(flat, dtype, *limits)
        device.send(sent, memory[first : first + sent.numel()])
        first += sent.numel()
    return memory.numpy().view(dtype).reshape(shape)


def restored(
    values: torch.Tensor,
    dtype: np.dtype[Any],
    low: Any,
    high: Any,
    missing: Any = None,
    scale: Scale | None = None,
) -> torch.Tensor:
    """Fitted values as :meth:`Limits.restore` restores them, in bytes.

    Parameters
    ----------
    values : float32 or float64 tensor, shape (voxels,)
        Fitted values of a stream.
    dtype : numpy.dtype
        The bytes have its order.
    low, high : scalar of `dtype`
        The range.
    missing : scalar of `dtype`, optional
        A value between the two that none of these is.
    scale : Scale, optional
        The logarithmic scale that was fitted.

    Returns
    -------
    uint8 tensor, shape (voxels * itemsize,)
    """
    if scale is not None:
        return _in_order(_on_scale(scale.values(values.double()), dtype, *scale.ends(low, high)), dtype)
    normalisation = Normalisation.of_range(low, high)
    wide = normalisation.scale * values.double()
    if isinstance(normalisation.centre, int):
        numbers = _whole_numbers(wide.round(), normalisation.centre, int(low), int(high))
    else:
        wide = (normalisation.centre + wide).clamp(float(low), float(high))
        numbers = _round(wide, dtype)
    if missing is not None:
        place = int(missing) - normalisation.centre if isinstance(normalisation.centre, int) else missing
        numbers = _beside(numbers, wide < float(place), missing)
    return _in_order(numbers, dtype)


def _in_order(numbers: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    """Bytes of numbers in the order of a dtype."""
    own = numbers.view(torch.uint8)
    return own if dtype.isnative else own.reshape(-1, dtype.itemsize).flip(1).reshape(-1)


def _on_scale(wide: torch.Tensor, dtype: np.dtype[Any], bottom: Any, top: Any) -> torch.Tensor:
    """Values of a logarithmic scale as numbers of a dtype."""
    if dtype.kind == "f" or dtype.itemsize < 8:
        top = top if dtype.kind == "f" else min(top, int(np.iinfo(dtype).max))
        return _round(wide.clamp(float(bottom), float(top)), dtype)
    top = min(top, int(np.iinfo(dtype).max))
    wide = wide.round()
    # Doubles next to the ends of the range may lie beyond it.
    inner = wide.where((wide > float(bottom)) & (wide < float(top)), 0.0)
    far = inner >= 2.0**63  # of unsigned integers, which are held as signed ones of the same bits
    numbers = torch.where(far, inner - 2.0**64, inner).to(torch.int64)
    numbers = torch.where(wide <= float(bottom), _signed(bottom), numbers)
    return torch.where(wide >= float(top), _signed(top), numbers)


def _signed(value: int) -> int:
    """Return the signed integer of the same 64 bits."""
    return value - 2**64 if value >= 2**63 else value


def _whole_numbers(wide: torch.Tensor, centre: int, low: int, high: int) -> torch.Tensor:
    """64-bit integers from their differences to the centre; unsigned ones as signed ones of the same bits."""
    below, above = low - centre, high - centre
    # Doubles next to the ends of the range may lie beyond it.
    inner = (wide > float(below)) & (wide < float(above))
    ends = torch.where(wide >= float(above), above, below)
    difference = torch.where(inner, wide.where(inner, 0.0).to(torch.int64), ends)
    return difference + _signed(centre)


def _beside(numbers: torch.Tensor, beneath: torch.Tensor, missing: Any) -> torch.Tensor:
    """Numbers of which those that are `missing` take its neighbour, the smaller one where `beneath`."""
    below, above = neighbours(missing)
    around = np.array([below, missing, above])
    # Unsigned integers are held as signed ones of the same bits.
    around = around.view(f"i{around.itemsize}") if around.dtype.kind == "u" else around
    smaller, own, larger = torch.from_numpy(around).to(numbers.device)
    return torch.where(numbers == own, torch.where(beneath, smaller, larger), numbers)


def _round(wide: torch.Tensor, dtype: np.dtype[Any]) -> torch.Tensor:
    """Doubles as numbers of a dtype; unsigned integers as signed ones of the same bits."""
    if dtype.kind != "f":
        return wide.round().to(torch.int64).to(_INTEGERS[dtype.itemsize])
    if dtype.itemsize == 2:
        # Rounded to multiples of the spacing first: torch would round to float32 before it does to float16.
        power = (wide.view(torch.int64) & _EXPONENT).view(torch.float64)  # of two, not above
        spacing = (power * 2.0**-10).clamp(min=2.0**-24)
        return ((wide / spacing).round() * spacing).half()
    return wide.float() if dtype.itemsize == 4 else wide
