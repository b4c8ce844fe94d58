"""Lengths, values and deflated bytes: what sections are built from."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from moec_zarr.errors import CorruptStreamError

__all__ = ["inflate", "little_endian", "read_value", "read_varint", "write_value", "write_varint"]


def write_varint(value: int) -> bytes:
    """Write `value` >= 0 as LEB128: seven bits a byte, low bits first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """Read the LEB128 integer at `offset`, and the offset behind it.

    Raises
    ------
    CorruptStreamError
        If the data end inside it, it exceeds 63 bits, or fewer bytes would do.
    """
    value = 0
    for shift in range(0, 63, 7):
        if offset >= len(data):
            raise CorruptStreamError("the stream ends inside a length; it is truncated, fetch it again")
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 < shift:
                raise CorruptStreamError(f"{value} stands in more bytes than it needs; the stream is damaged")
            return value, offset
    raise CorruptStreamError("a length in the stream exceeds 63 bits; the stream is damaged")


def inflate(data: bytes, size: int) -> bytes:
    """Inflate the `size` bytes that a zlib stream (RFC 1950) holds, and no more.

    Raises
    ------
    CorruptStreamError
        If it holds another number of bytes, or `data` is not one whole zlib stream.
    """
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise CorruptStreamError(f"the values do not inflate: {error}; the stream is damaged") from error
    if len(raw) != size or not inflater.eof or inflater.unused_data:
        raise CorruptStreamError(f"{len(raw)} bytes inflated, expected {size}; the stream is damaged")
    return raw


def little_endian(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype as the stream holds its values."""
    return dtype.newbyteorder("<")


def write_value(value: Any, dtype: np.dtype[Any]) -> bytes:
    """Write one value of a dtype."""
    return np.array(value, little_endian(dtype)).tobytes()


def read_value(data: bytes, offset: int, dtype: np.dtype[Any]) -> tuple[Any, int]:
    """Read the value of a dtype at `offset`, and the offset behind it.

    Raises
    ------
    CorruptStreamError
        If the data end inside it.
    """
    end = offset + dtype.itemsize
    if end > len(data):
        raise CorruptStreamError("the stream ends inside a value; it is truncated, fetch it again")
    return np.frombuffer(data, little_endian(dtype), 1, offset).astype(dtype.newbyteorder("="))[0], end
