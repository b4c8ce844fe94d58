"""The context that corrections of voxels are coded with, fitted to their magnitudes.

Voxels are one band, and the context neighbours of a voxel on each axis are the three before it. Whatever
lies behind a correction has it as a neighbour: these voxels, and the corrections themselves, are *active*;
all others are zeros with zero contexts. Neighbours are looked up where they are needed, which takes no
memory but a byte a voxel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array
from moec_zarr.bitstream.contexts import Context, logarithms, zero_context_activity
from moec_zarr.compiled import compiled
from moec_zarr.fit.transform.context_fit import Sample, first_parameters, fit_context, round_parameters
from moec_zarr.fit.transform.rdoq import SAMPLE_SIZE, bit_table
from moec_zarr.fit.transform.rdoq_kernels import bits_of, class_of, seen
from moec_zarr.model.basis import AXIS_NEIGHBOURS

__all__ = ["fit_voxel_context"]


def fit_voxel_context(corrections: NDArray[np.int32], steps: int) -> tuple[Context, float]:
    """Fit a context to corrections; also, about how many bits they take with it.

    Parameters
    ----------
    corrections : int32 array
        Not all zero.
    steps : int
        Of the optimiser.
    """
    shape, flat = np.array(corrections.shape), np.ascontiguousarray(corrections).reshape(-1)
    active = _active(flat, shape)
    magnitudes, repeats, beside = _sampled_rows(flat, shape, active, SAMPLE_SIZE)
    zeros = flat.size - int(repeats.sum())
    share = np.append(repeats, zeros).astype(np.float64)
    sample = Sample(
        np.append(magnitudes, 0).astype(np.float32),
        np.zeros(len(share), np.float32),
        np.concatenate([beside, np.zeros((1, beside.shape[1]), np.float32)]),
        (share / share.sum()).astype(np.float32),
    )
    context = round_parameters(fit_context(first_parameters((True,) * len(shape)), sample, 1, steps), 1)
    ground = min(int(zero_context_activity(context, 1)[0]), 2**30)
    bits = _bits(
        flat, shape, active, np.array(context.neighbour_weights, np.int32), ground, context.offset,
        context.power, logarithms(), bit_table(),
    )  # fmt: skip
    return context, bits


@compiled()
def _active(corrections: Array, shape: Array) -> Array:
    """Which voxels are not zero, or have a context neighbour that is not."""
    active = np.zeros(corrections.size, np.bool_)
    for place in range(corrections.size):
        if corrections[place] == 0:
            continue
        active[place] = True
        stride, rest = 1, place
        for axis in range(shape.size - 1, -1, -1):
            index = rest % shape[axis]
            for back in range(1, min(AXIS_NEIGHBOURS, shape[axis] - 1 - index) + 1):
                active[place + back * stride] = True
            rest //= shape[axis]
            stride *= shape[axis]
    return active


@compiled()
def _neighbours(corrections: Array, shape: Array, place: int, beside: Array) -> None:
    """Write the magnitudes of a voxel's context neighbours to `beside`."""
    stride, rest = 1, place
    for axis in range(shape.size - 1, -1, -1):
        index = rest % shape[axis]
        for back in range(1, AXIS_NEIGHBOURS + 1):
            there = index >= back
            beside[axis * AXIS_NEIGHBOURS + back - 1] = (
                abs(corrections[place - back * stride]) if there else 0
            )
        rest //= shape[axis]
        stride *= shape[axis]


@compiled()
def _sampled_rows(corrections: Array, shape: Array, active: Array, size: int) -> tuple[Array, Array, Array]:
    """At most about `size` active voxels, half of them not zero where there are so many.

    Returns
    -------
    magnitudes, repeats : int64 array, shape (n,)
        Of each, and how many voxels each stands for.
    beside : float32 array, shape (n, axes * AXIS_NEIGHBOURS)
        Magnitudes of the context neighbours of each.
    """
    total = np.zeros(2, np.int64)
    for place in range(corrections.size):
        if active[place]:
            total[1 if corrections[place] else 0] += 1
    steps = 1 + total // (size // 2)
    room = total[0] // steps[0] + total[1] // steps[1] + 2
    magnitudes, repeats = np.empty(room, np.int64), np.empty(room, np.int64)
    beside = np.empty((room, AXIS_NEIGHBOURS * shape.size), np.float32)
    count, passed = 0, np.zeros(2, np.int64)
    for place in range(corrections.size):
        if active[place]:
            kind = 1 if corrections[place] else 0
            if passed[kind] % steps[kind] == 0:
                magnitudes[count] = abs(corrections[place])
                repeats[count] = min(steps[kind], total[kind] - passed[kind])
                _neighbours(corrections, shape, place, beside[count])
                count += 1
            passed[kind] += 1
    return magnitudes[:count], repeats[:count], beside[:count]


@compiled()
def _bits(
    corrections: Array, shape: Array, active: Array, weights: Array, ground: int, base: int, power: int,
    logarithms: Array, table: Array,
) -> float:  # fmt: skip
    """Bits of all corrections."""
    beside = np.empty(weights.size, np.int64)
    total, zeros = 0.0, 0
    for place in range(corrections.size):
        if not active[place]:
            zeros += 1
            continue
        _neighbours(corrections, shape, place, beside)
        activity = ground
        for neighbour in range(weights.size):
            activity += weights[neighbour] * seen(beside[neighbour])
        number = class_of(activity, base, power, logarithms)
        total += bits_of(table, number, abs(corrections[place]))
    return float(total + zeros * table[class_of(ground, base, power, logarithms), 0])
