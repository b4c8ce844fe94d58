"""The context that corrections of voxels are coded with, fitted to their magnitudes.

Voxels are one band, and the context neighbours of a voxel on each axis are the three before it. Whatever
lies behind a correction has it as a neighbour: these voxels, and the corrections themselves, are *active*;
all others are zeros with zero contexts. Neighbours are looked up where they are needed, which takes no
memory but a byte a voxel.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Bools, Doubles, Floats
from moec_zarr.bitstream.contexts import Context
from moec_zarr.compiled import compiled
from moec_zarr.fit.transform.context_fit import Sample, first_parameters, fit_context, round_parameters
from moec_zarr.fit.transform.rdoq import SAMPLE_SIZE
from moec_zarr.model.basis import AXIS_NEIGHBOURS

__all__ = ["estimate_voxel_bits", "find_corrections", "fit_voxel_context"]

_LARGEST = 1 << 30  # correction that is found: integers beyond any stream's are refused when they are written
_WEIGHTS = np.array([3, 1, 1])  # of neighbours on an axis, where bits are estimated
_SMALL = 8  # activities and magnitudes that an estimate counts apart; of larger ones it counts half octaves
_CLASSES = 80  # room for those of both


def find_corrections(
    target: Floats | Doubles, values: Floats | Doubles, valid: Bools | None, bound: float
) -> NDArray[np.int32]:
    """Return by how many times twice the bound to correct each voxel; 0 if it is within it, or not valid.

    Parameters
    ----------
    target, values : float array
        Normalised, of one shape or one that broadcasts to that of `target`; a decoder clips values to -1..1
        once they are corrected.
    """
    values = np.ascontiguousarray(np.broadcast_to(values, target.shape))
    inner = np.zeros(0, np.bool_) if valid is None else np.ascontiguousarray(valid).reshape(-1)
    found = _find(np.ascontiguousarray(target).reshape(-1), values.reshape(-1), inner, bound)
    return np.asarray(found.reshape(target.shape), np.int32)


def estimate_voxel_bits(corrections: NDArray[np.int32]) -> float:
    """Estimate how many bits corrections take with a context that suits them.

    That is the entropy of their magnitudes, given how large those before them are on each axis.
    """
    counts = np.zeros((_CLASSES, _CLASSES), np.int64)
    more = _count(np.ascontiguousarray(corrections).reshape(-1), np.array(corrections.shape), counts)
    each, together = counts.astype(np.float64), counts.sum(axis=1).astype(np.float64)
    bits = (together * np.log2(np.maximum(together, 1))).sum() - (each * np.log2(np.maximum(each, 1))).sum()
    return float(bits) + float(counts[:, 1:].sum()) + more


def fit_voxel_context(corrections: NDArray[np.int32], steps: int) -> Context:
    """Fit a context to corrections.

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
    return round_parameters(fit_context(first_parameters((True,) * len(shape)), sample, 1, steps), 1)


@compiled()
def _find(target: Array, values: Array, valid: Array, bound: float) -> Array:
    result = np.zeros(target.size, np.int32)
    for place in range(target.size):
        if valid.size and not valid[place]:
            continue
        if abs(target[place] - min(max(values[place], -1), 1)) > bound:
            number = np.rint((target[place] - values[place]) / (2 * bound))
            result[place] = min(max(number, -_LARGEST), _LARGEST)
    return result


@compiled()
def _count(corrections: Array, shape: Array, counts: Array) -> float:
    """Count magnitudes by the class of their activity; return the bits that their own classes leave open."""
    activity = np.zeros(corrections.size, np.int64)
    open_bits = 0.0
    for place in range(corrections.size):
        magnitude = abs(corrections[place])
        counts[_class(activity[place]), _class(magnitude)] += 1
        if magnitude == 0:
            continue
        if magnitude >= _SMALL:
            open_bits += math.log2(magnitude) - 1
        stride, rest = 1, place
        for axis in range(shape.size - 1, -1, -1):
            index = rest % shape[axis]
            for back in range(1, min(AXIS_NEIGHBOURS, shape[axis] - 1 - index) + 1):
                activity[place + back * stride] += _WEIGHTS[back - 1] * magnitude
            rest //= shape[axis]
            stride *= shape[axis]
    return open_bits


@compiled()
def _class(size: int) -> int:
    octave = 0
    while size >> octave >= 2 * _SMALL:
        octave += 1
    if size < _SMALL:
        return size
    return _SMALL + 2 * octave + (size >> octave >= _SMALL + _SMALL // 2)


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
