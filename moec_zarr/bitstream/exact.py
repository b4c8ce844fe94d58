"""The section of values that are kept as integers: what these stand for, which occur, and they themselves."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from moec_zarr.arrays import Array, Bools, Integers
from moec_zarr.bitstream.lattice import arrange
from moec_zarr.bitstream.prediction import Predictor, decode_predicted, encode_predicted
from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.levels import MOST_RUNGS, Bits, Grid, Ladder, Levels, restore

__all__ = ["read_exact", "write_exact", "write_planes", "write_predicted", "write_table"]

_PLANES, _PREDICTED = 0, 1
_ABSOLUTE, _RELATIVE, _TABLE = 0x20, 0x40, 0x80  # flags
_DOUBLES, _WHOLE, _BOUND = struct.Struct("<3d"), struct.Struct("<2q"), struct.Struct("<d")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


# ---------------------------------------------------------------------------------- integers


def write_predicted(integers: Integers, valid: Bools | None, predictor: Predictor) -> bytes | None:
    """Write the integers of a grid, each predicted from its neighbours; None if they are too large."""
    coded = encode_predicted(*arrange(integers, valid), predictor)
    return None if coded is None else bytes([_PREDICTED]) + coded


def write_planes(integers: Integers, level: int) -> bytes:
    """Write integers through zstd, byte planes apart: of a float's, its own."""
    low, high = int(integers.min()), int(integers.max())
    size = next(size for size in (1, 2, 4, 8) if -(1 << 8 * size - 1) <= low and high < 1 << 8 * size - 1)
    signed = np.where(integers < 0, ~integers | (-1 << 8 * size - 1), integers) if low < 0 else integers
    planes = signed.astype(f"<i{size}").view(np.uint8).reshape(-1, size).T.tobytes()
    return bytes([_PLANES, size]) + bytes(_zstd().compress(planes, level))


def _read_integers(data: bytes, shape: tuple[int, ...], valid: Bools | None) -> Integers:
    """Read the integers of the valid voxels of a grid, in C order."""
    if not data or data[0] > _PREDICTED:
        raise CorruptStreamError("integers coded in a reserved way; the stream is damaged")
    if data[0] == _PREDICTED:
        integers = decode_predicted(data[1:], shape, valid)
        return integers.reshape(-1) if valid is None else integers[valid]
    count = math.prod(shape) if valid is None else int(np.count_nonzero(valid))
    if len(data) < 2 or data[1] not in (1, 2, 4, 8):
        raise CorruptStreamError("integers of a reserved size; the stream is damaged")
    size = data[1]
    planes = np.frombuffer(_unpack(data[2:], count * size), np.uint8).reshape(size, -1)
    signed = np.ascontiguousarray(planes.T).view(f"<i{size}").reshape(-1).astype(np.int64)
    return np.where(signed < 0, ~(signed & (1 << 8 * size - 1) - 1), signed)


def _unpack(frame: bytes, size: int) -> bytes:
    """Unpack the one zstd frame (RFC 8878) of so many bytes, which its header states."""
    if _content_size(frame) != size:
        raise CorruptStreamError(f"a zstd frame that does not state {size} bytes; the stream is damaged")
    try:
        raw = _zstd().decompress(frame)
    except RuntimeError as error:
        raise CorruptStreamError(f"the integers do not unpack: {error}; the stream is damaged") from error
    if len(raw) != size:
        raise CorruptStreamError(f"{len(raw)} bytes unpacked, expected {size}; the stream is damaged")
    return bytes(raw)


def _zstd() -> Any:
    from numcodecs import zstd  # type: ignore[import-untyped]  # takes a while

    return zstd


def _content_size(frame: bytes) -> int | None:
    """Read the size that the header of a zstd frame states; None where it states none."""
    if frame[:4] != _ZSTD_MAGIC or len(frame) < 5:
        return None
    single, flag = frame[4] >> 5 & 1, frame[4] >> 6
    length = (single, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[frame[4] & 3]
    if not length or len(frame) < start + length:
        return None
    return int.from_bytes(frame[start : start + length], "little") + 256 * (flag == 1)


# ------------------------------------------------------------------------------------ values


def write_table(integers: Integers) -> bytes:
    """Write rising integers: their number, the first one, and the gaps between them."""
    gaps = np.diff(integers) - 1
    coded = min(
        (each for each in (write_planes(gaps, 19), write_predicted(gaps, None, Predictor((), 0))) if each),
        key=len,
    )
    return write_varint(integers.size) + struct.pack("<q", integers[0]) + write_varint(len(coded)) + coded


def write_exact(
    levels: Levels, table: bytes | None, coded: bytes, absolute: float = 0.0, relative: float = 0.0
) -> bytes:
    """Write the section's bytes.

    Parameters
    ----------
    levels : Levels
        What the integers stand for.
    table : bytes, optional
        The integers that occur, where those that are coded are numbers of these.
    coded : bytes
        The integers themselves.
    absolute, relative : float
        The bounds that are kept; 0 for none.
    """
    if isinstance(levels, Bits):
        kind, parameters = 0, bytes([levels.shift])
    elif isinstance(levels, Ladder):
        kind, parameters = 2, _DOUBLES.pack(levels.first, levels.step, levels.ratio)
    elif isinstance(levels.origin, int):
        kind, parameters = 1, _WHOLE.pack(levels.spacing, levels.origin)
    else:
        kind, parameters = 1, _DOUBLES.pack(levels.spacing, levels.divisor, levels.origin)
    flags = bool(absolute) * _ABSOLUTE | bool(relative) * _RELATIVE | (table is not None) * _TABLE
    bounds = b"".join(_BOUND.pack(bound) for bound in (absolute, relative) if bound)
    return bytes([kind | flags]) + bounds + parameters + (table or b"") + coded


def read_exact(
    data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], valid: Bools | None, low: Any, high: Any
) -> tuple[Array, tuple[float, float]]:
    """Read the values of a box of `shape`, `low` where they are not valid, and the two bounds that they keep.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such a section.
    """
    if 0 in shape or (valid is not None and not valid.any()):
        raise CorruptStreamError(f"integers of no valid voxel of shape {shape}; the stream is damaged")
    bounds, start = _read_bounds(data)
    levels, start = _read_levels(data, start, dtype)
    table = None
    if data[0] & _TABLE:
        table, start = _read_table(data, start, math.prod(shape) if valid is None else int(valid.sum()))
    integers = _read_integers(data[start:], shape, valid)
    if table is not None:
        if int(integers.min()) < 0 or int(integers.max()) >= table.size:
            raise CorruptStreamError(f"a number beyond a table of {table.size}; the stream is damaged")
        integers = table[integers]
    if (
        isinstance(levels, Ladder)
        and not -MOST_RUNGS <= int(integers.min()) <= int(integers.max()) <= MOST_RUNGS
    ):
        raise CorruptStreamError(f"a ladder of more than {MOST_RUNGS} rungs; the stream is damaged")
    values = restore(levels, integers, dtype, low, high)
    if valid is None:
        return values.reshape(shape), bounds
    result = np.full(shape, low, values.dtype)
    result[valid] = values
    return result, bounds


def _read_bounds(data: bytes) -> tuple[tuple[float, float], int]:
    bounds, start = [], 1
    for flag in (_ABSOLUTE, _RELATIVE):
        bound = 0.0
        if data and data[0] & flag:
            if len(data) < start + _BOUND.size:
                raise CorruptStreamError("the stream ends inside the bounds of integers; it is truncated")
            (bound,) = _BOUND.unpack_from(data, start)
            start += _BOUND.size
            if not 0 < bound < math.inf:
                raise CorruptStreamError(f"a bound of {bound}; the stream is damaged")
        bounds.append(bound)
    return (bounds[0], bounds[1]), start


def _read_levels(data: bytes, start: int, dtype: np.dtype[Any]) -> tuple[Levels, int]:
    kind = data[0] & ~(_ABSOLUTE | _RELATIVE | _TABLE) if data else 3
    layout = {0: 1, 1: _DOUBLES.size if dtype.kind == "f" else _WHOLE.size, 2: _DOUBLES.size}
    if kind not in layout or (kind == 2 and dtype.kind != "f"):
        raise CorruptStreamError("reserved levels of integers; the stream is damaged")
    end = start + layout[kind]
    if len(data) < end:
        raise CorruptStreamError("the stream ends inside the levels of integers; it is truncated")
    if kind == 0:
        if data[start] >= 8 * dtype.itemsize:
            raise CorruptStreamError(f"values of {data[start]} zero bits; the stream is damaged")
        return Bits(data[start]), end
    if dtype.kind != "f":
        spacing, origin = _WHOLE.unpack_from(data, start)
        return Grid(spacing, 1, origin), end
    numbers = _DOUBLES.unpack_from(data, start)
    if not all(math.isfinite(number) for number in numbers):
        raise CorruptStreamError(f"levels of {numbers}; the stream is damaged")
    if kind == 2:
        return Ladder(*numbers), end
    if numbers[1] == 0:
        raise CorruptStreamError("a divisor of 0; the stream is damaged")
    return Grid(*numbers), end


def _read_table(data: bytes, start: int, most: int) -> tuple[Integers, int]:
    count, start = read_varint(data, start)
    if not 2 <= count <= most or len(data) < start + 8:
        raise CorruptStreamError(f"a table of {count} integers for {most} voxels; the stream is damaged")
    first, (length, end) = struct.unpack_from("<q", data, start)[0], read_varint(data, start + 8)
    if length > len(data) - end:
        raise CorruptStreamError(f"a table claims {length} bytes, {len(data) - end} are left")
    gaps = _read_integers(data[end : end + length], (count - 1,), None)
    return first + np.concatenate([[0], np.cumsum(gaps + 1)]), end + length
