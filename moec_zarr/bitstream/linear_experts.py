"""The section of linear experts that restore a transform: the gate's knots, then all weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from moec_zarr.bitstream.range_coder import decode_groups, encode_groups
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.linear_experts import LinearExperts
from moec_zarr.model.steps import step_size

__all__ = [
    "LARGEST_WEIGHT",
    "MOST_RAMPS",
    "OWN_SHIFTS",
    "SHARED_SHIFTS",
    "read_linear_experts",
    "write_linear_experts",
    "write_shift",
]

MOST_RAMPS = 15  # of steepness, and of the value
LARGEST_WEIGHT = 16.0  # of a tap, and of a constant
_SHARED = 32  # what codes of shifts are larger by, behind experts of a dictionary: these leave larger means
OWN_SHIFTS = 1, 127  # the least and the largest code
SHARED_SHIFTS = 1 + _SHARED, 127 + _SHARED  # behind experts of a dictionary


def write_linear_experts(experts: LinearExperts, distributions: Sequence[int]) -> bytes:
    """Write the section's bytes.

    Parameters
    ----------
    experts : LinearExperts
    distributions : sequence of int
        Codes of the distributions that the taps and the constants are coded with.
    """
    steep, level = len(experts.steepness), max(len(experts.value) - 1, 0)
    head = bytes([steep | level << 4, *experts.steepness])
    head += np.array(experts.value, np.int8).tobytes() + bytes(experts.units)
    head += experts.shift.to_bytes(1, signed=True)
    return head + encode_groups([experts.taps, experts.constants], distributions)


def write_shift(shift: int) -> bytes:
    """Write a shift that stands behind experts of a dictionary: 0, or a code with its sign."""
    return (shift - (shift > 0) * _SHARED + (shift < 0) * _SHARED).to_bytes(1, signed=True)


def read_linear_experts(data: bytes, axes: int, *, taken: int = 0) -> LinearExperts:
    """Read the experts of a grid of so many axes longer than one.

    Parameters
    ----------
    data : bytes
    axes : int
    taken : int
        How many of the first bytes are a dictionary's entry: whole experts, behind which there may be a shift
        in place of theirs.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such a section.
    """
    if taken:
        experts, own = _read_entry(data[:taken], axes), data[taken:]
        if len(own) > 1:
            raise CorruptStreamError(
                f"{len(own)} bytes stand behind experts of the dictionary, at most a shift does; the stream "
                "is damaged"
            )
        shift = _read_shift(own)
        shift += (shift > 0) * _SHARED - (shift < 0) * _SHARED
        return replace(experts, shift=shift) if own else experts
    if not data:
        raise CorruptStreamError("the section of linear experts is empty; the stream is damaged")
    steep, level = data[0] & 15, data[0] >> 4
    knots = level + 1 if level else 0
    offset = 1 + steep + knots + 3
    if len(data) < offset:
        raise CorruptStreamError("the stream ends inside linear experts; it is truncated, fetch it again")
    steepness = tuple(data[1 : 1 + steep])
    value = tuple(np.frombuffer(data, np.int8, knots, 1 + steep).tolist())
    if any(np.diff(steepness) <= 0) or any(np.diff(value) <= 0):
        raise CorruptStreamError(f"knots {steepness} and {value} do not rise; the stream is damaged")
    units = data[offset - 3], data[offset - 2]
    shift = _read_shift(data[offset - 1 : offset])
    shapes = (1 + steep + level, axes, 2), (1 + steep, 1 + level)
    groups = decode_groups(data[offset:], [int(np.prod(shape)) for shape in shapes])
    for group, unit in zip(groups, units, strict=True):
        if (largest := int(np.abs(group).max(initial=0)) * step_size(unit)) > LARGEST_WEIGHT:
            raise CorruptStreamError(
                f"a weight of {largest}, at most {LARGEST_WEIGHT} is written; the stream is damaged"
            )
    taps, constants = (group.reshape(shape) for group, shape in zip(groups, shapes, strict=True))
    return LinearExperts(steepness, value, units, taps, constants, shift)


@lru_cache(maxsize=16)
def _read_entry(data: bytes, axes: int) -> LinearExperts:
    """Read experts of a dictionary, which many chunks take."""
    return read_linear_experts(data, axes)


def _read_shift(data: bytes) -> int:
    shift = int.from_bytes(data, signed=True)
    if shift == -128:
        raise CorruptStreamError("a shift of -128 is reserved; the stream is damaged")
    return shift
