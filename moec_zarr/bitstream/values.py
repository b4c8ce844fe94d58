"""Sections of values that are kept exactly: bounding box, masked values, and lossless chunks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moec_zarr.arrays import Array, Bools
from moec_zarr.bitstream.masks import decode_mask, read_coded_mask, write_mask
from moec_zarr.bitstream.primitives import (
    inflate,
    little_endian,
    read_value,
    read_varint,
    write_value,
    write_varint,
)
from moec_zarr.errors import CorruptStreamError

__all__ = [
    "BoundingBox",
    "MaskedValue",
    "find_missing",
    "read_bounding_box",
    "read_exact_values",
    "read_lossless",
    "read_masked_values",
    "write_bounding_box",
    "write_lossless",
    "write_masked_values",
]

_MOST_MASKED_VALUES = 4  # NaN, both infinities, and a sentinel: each mask costs a reader time and memory


@dataclass(frozen=True)
class BoundingBox:
    """The leading `shape` of a chunk; beyond it every voxel is `fill`, as where zarr pads an edge."""

    shape: tuple[int, ...]
    fill: Any


def write_bounding_box(box: BoundingBox, dtype: np.dtype[Any]) -> bytes:
    """Write the extents, then the fill."""
    return b"".join(write_varint(n) for n in box.shape) + write_value(box.fill, dtype)


def read_bounding_box(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> BoundingBox:
    """Read the bounding box of a chunk of `shape`."""
    inner, offset = [], 0
    for n in shape:
        length, offset = read_varint(data, offset)
        if not 1 <= length <= n:
            raise CorruptStreamError(
                f"a bounding box of {length} voxels on an axis of {n}; the stream is damaged"
            )
        inner.append(length)
    fill, offset = read_value(data, offset, dtype)
    if tuple(inner) == shape:
        raise CorruptStreamError(f"a bounding box of the whole shape {shape}; the stream is damaged")
    if offset != len(data):
        raise CorruptStreamError(
            f"a bounding box of {len(data)} bytes, expected {offset}; the stream is damaged"
        )
    return BoundingBox(tuple(inner), fill)


@dataclass(frozen=True)
class MaskedValue:
    """A value that is kept exactly, and the mask of where it stands."""

    value: Any
    mask: Bools

    @cached_property
    def coded(self) -> bytes:
        """The mask as it is written; that takes its time."""
        return write_mask(self.mask)


def find_missing(masked: list[MaskedValue], low: Any, high: Any) -> Any:
    """Find the masked value within the range of the valid ones, which none of these may become; else None."""
    return next((each.value for each in masked if low < each.value < high), None)


def write_masked_values(masked: Sequence[MaskedValue], dtype: np.dtype[Any]) -> bytes:
    """Write for each the value, the length of its mask, the mask."""
    return b"".join(write_value(each.value, dtype) + each.coded for each in masked)


def read_masked_values(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[MaskedValue]:
    """Read the masked values of a bounding box of `shape`.

    Raises
    ------
    CorruptStreamError
        If they are none, too many, not distinct, more than one of them finite, or damaged.
    """
    return _read_values(data, shape, dtype)


def read_exact_values(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[MaskedValue]:
    """Read the values of a bounding box of `shape` that are kept exactly, though others may be the same.

    Raises
    ------
    CorruptStreamError
        If they are none, too many, not distinct, not finite, or damaged.
    """
    return _read_values(data, shape, dtype, finite=True)


def _read_values(
    data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], *, finite: bool = False
) -> list[MaskedValue]:
    """Read masked values: all finite, or one of them at most."""
    parts: list[tuple[Any, bytes]] = []
    offset = 0
    while offset < len(data):
        value, offset = read_value(data, offset, dtype)
        coded, offset = read_coded_mask(data, offset)
        if len(parts) == _MOST_MASKED_VALUES:
            raise CorruptStreamError(f"more than {_MOST_MASKED_VALUES} masked values; the stream is damaged")
        if any(_is_same(value, other) for other, _ in parts):
            raise CorruptStreamError(f"the masked value {value} stands twice; the stream is damaged")
        if finite and not np.isfinite(value):
            raise CorruptStreamError(f"the exact value {value} is not finite; the stream is damaged")
        if not finite and np.isfinite(value) and any(np.isfinite(other) for other, _ in parts):
            raise CorruptStreamError("two masked values that are finite; the stream is damaged")
        parts.append((value, coded))
    if not parts:
        raise CorruptStreamError("no masked value; the stream is damaged")
    return [MaskedValue(value, decode_mask(coded, shape)) for value, coded in parts]


def _is_same(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


def write_lossless(array: Array, *, quick: bool = False) -> bytes:
    """Write values little endian in C order, byte planes apart, through zlib (RFC 1950).

    If `quick`, in a fraction of the time, and in somewhat more bytes.
    """
    flat = np.ascontiguousarray(array, little_endian(array.dtype)).reshape(-1)
    return zlib.compress(flat.view(np.uint8).reshape(-1, array.itemsize).T.tobytes(), 1 if quick else 9)


def read_lossless(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Read the values of a bounding box of `shape`; inflate no more than they take."""
    raw = inflate(data, math.prod(shape) * dtype.itemsize)
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(little_endian(dtype)).reshape(shape)
