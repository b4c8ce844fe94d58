"""The stream: header, sections, version, checksum. ``docs/format.md`` is its twin.

Nothing here knows what the sections mean; :mod:`moec_zarr.bitstream.stream` does.
"""

from __future__ import annotations

import enum
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.errors import CorruptStreamError, MoECError, UnsupportedVersionError

__all__ = [
    "DTYPES",
    "FRAME",
    "MAX_RANK",
    "MAX_SIZE",
    "QUALITY_BYTES",
    "VERSION",
    "Header",
    "Section",
    "is_storable",
    "read_quality",
    "read_stream",
    "write_quality",
    "write_stream",
]

MAGIC = b"MoE"
VERSION = 1  # 0 was that of development versions, of which none was released
QUALITY_BYTES = 4
FRAME = 8  # bytes at most of a section's number and length
MAX_RANK = 5
MAX_SIZE = 2**32 - 1  # elements of one chunk; bounds the header too

DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class Section(enum.IntEnum):
    """What the payload of a section holds, in the order in which sections stand."""

    BOX = 1  # the leading part of the chunk that holds data; padding beyond it
    MASK = 2  # masked values: NaN, infinities and the missing value, and where they stand
    LOSSLESS = 3  # the values themselves
    MODEL = 4  # the network
    RESIDUAL = 5  # corrections that keep an absolute error
    TRANSFORM = 6  # coefficients that the network, where there is one, corrects
    SCALE = 7  # a logarithmic scale, on which the values are fitted
    INTEGERS = 8  # the values themselves, or rounded ones, as integers
    EXACT = 9  # valid values that are kept exactly, and where they stand
    LINEAR_EXPERTS = 10  # what restores the transform
    SHARED = 11  # entries of the codec's dictionary that other sections begin with


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a reader must know before anything else.

    Attributes
    ----------
    dtype : numpy.dtype
        With the byte order of the encoded array.
    order : {"C", "F"}
        Memory order of the encoded array.
    shape : tuple of int
        Shape of the encoded array.
    low, high : scalar of `dtype`, native byte order
        Range of the valid values, to which decoded values are clipped.
    psnr : float
        dB at data-range peak over the valid values, rounded down to 0.01; inf where exact.
    max_error : float
        Largest absolute error over ``high - low``, rounded up to 8 bits.
    refit : bool
        Whether a lossy stream had decoded to the encoded values: quality and bound are over these, not over
        the original.
    """

    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    shape: tuple[int, ...]
    low: Any
    high: Any
    psnr: float
    max_error: float
    refit: bool = False


def is_storable(shape: tuple[int, ...]) -> bool:
    """Say whether a chunk can have this shape; an axis without voxels counts as one with one."""
    return len(shape) <= MAX_RANK and math.prod(max(n, 1) for n in shape) <= MAX_SIZE


_Values = dict[str, Any]
_DEVELOPMENT = (
    "a development version wrote it, before release 0.1: write the store anew from its source, or read it "
    "with that very version"
)


def _unknown(what: str, last: str) -> UnsupportedVersionError:
    return UnsupportedVersionError(
        f"the stream has {what}, this moec_zarr knows those up to {last}; read it with a newer release"
    )


def _write_dtype(header: Header) -> bytes:
    dtype = header.dtype
    big = dtype.str[0] == ">"
    return bytes([DTYPES.index(dtype.str[1:]) | big << 4 | (header.order == "F") << 5 | header.refit << 6])


def _read_dtype(data: bytes, offset: int, known: _Values) -> tuple[_Values, int]:
    byte = data[offset]
    if byte >> 7:
        raise CorruptStreamError(f"reserved bit of {byte:#04x}; the stream is damaged")
    if byte & 15 >= len(DTYPES):
        raise _unknown(f"dtype {byte & 15}", f"{len(DTYPES) - 1}")
    order = ">" if byte >> 4 & 1 else "<"
    memory = "F" if byte >> 5 & 1 else "C"
    dtype = np.dtype(order + DTYPES[byte & 15])
    return {"dtype": dtype, "order": memory, "refit": bool(byte >> 6 & 1)}, offset + 1


def _write_shape(header: Header) -> bytes:
    return bytes([len(header.shape)]) + b"".join(write_varint(n) for n in header.shape)


def _read_shape(data: bytes, offset: int, known: _Values) -> tuple[_Values, int]:
    rank, offset = data[offset], offset + 1
    if rank > MAX_RANK:
        raise _unknown(f"rank {rank}", f"{MAX_RANK}")
    shape = []
    for _ in range(rank):
        n, offset = read_varint(data, offset)
        shape.append(n)
    if not is_storable(tuple(shape)):
        raise CorruptStreamError(f"shape {tuple(shape)} exceeds {MAX_SIZE} elements; the stream is damaged")
    return {"shape": tuple(shape)}, offset


def _write_range(header: Header) -> bytes:
    dtype = header.dtype.newbyteorder("<")
    return np.array([header.low, header.high], dtype).tobytes()


def _read_range(data: bytes, offset: int, known: _Values) -> tuple[_Values, int]:
    dtype = known["dtype"].newbyteorder("<")
    low, high = np.frombuffer(data, dtype, 2, offset).astype(dtype.newbyteorder("="))
    if not low <= high or not (np.isfinite(low) and np.isfinite(high)):
        raise CorruptStreamError(f"range [{low}, {high}] is not one; the stream is damaged")
    return {"low": low, "high": high}, offset + 2 * dtype.itemsize


def write_quality(psnr: float, error: float) -> bytes:
    """Write dB, rounded down to 0.01, and a share, rounded up to 8 bits."""
    centi = 0xFFFF if psnr == math.inf else min(int(max(psnr, 0) * 100), 0xFFFE)
    return struct.pack("<HH", centi, _round_up(error))


def _round_up(value: float) -> int:
    """Return the upper half of the bits of the smallest float32 with 8 bits of mantissa that is not below."""
    bits = int(np.float32(value).view(np.uint32)) >> 16
    while float(np.uint32(bits << 16).view(np.float32)) < value:
        bits += 1
    return bits


def read_quality(data: bytes, offset: int) -> tuple[float, float]:
    """Read what :func:`write_quality` wrote."""
    centi, error = struct.unpack_from("<HH", data, offset)
    psnr = math.inf if centi == 0xFFFF else centi / 100
    return psnr, float(np.uint32(error << 16).view(np.float32))


def _write_quality(header: Header) -> bytes:
    return write_quality(header.psnr, header.max_error)


def _read_quality(data: bytes, offset: int, known: _Values) -> tuple[_Values, int]:
    psnr, max_error = read_quality(data, offset)
    return {"psnr": psnr, "max_error": max_error}, offset + QUALITY_BYTES


@dataclass(frozen=True)
class _Field:
    write: Callable[[Header], bytes]
    read: Callable[[bytes, int, _Values], tuple[_Values, int]]


# The one declaration of the header, behind magic, version and checksum.
_FIELDS = (
    _Field(_write_dtype, _read_dtype),
    _Field(_write_shape, _read_shape),
    _Field(_write_range, _read_range),
    _Field(_write_quality, _read_quality),
)


def write_header(header: Header) -> bytes:
    """Write the header's bytes behind magic, version and checksum."""
    return b"".join(field.write(header) for field in _FIELDS)


def write_stream(header: Header, sections: Mapping[Section, bytes]) -> bytes:
    """Write header and sections as one stream."""
    body = write_header(header)
    for section in sorted(sections):
        payload = sections[section]
        body += bytes([section]) + write_varint(len(payload)) + payload
    return MAGIC + bytes([VERSION]) + struct.pack("<I", zlib.crc32(body)) + body


def read_stream(data: bytes) -> tuple[Header, dict[Section, bytes]]:
    """Read header and sections of a stream; allocate nothing beyond its length.

    Raises
    ------
    CorruptStreamError
        If the bytes are not a whole, undamaged stream.
    UnsupportedVersionError
        If they follow a version of the format other than this one, or hold what is reserved for later
        releases.
    """
    if data[:3] != MAGIC:
        raise CorruptStreamError(
            f"not a MoEC stream: it begins with {data[:4]!r}, expected {MAGIC!r} and a version"
        )
    if len(data) > 3 and data[3] != VERSION:
        raise UnsupportedVersionError(
            f"the stream has version {data[3]} of the format, this moec_zarr reads version {VERSION}; "
            + (_DEVELOPMENT if data[3] < VERSION else "read it with a newer release")
        )
    body = data[8:]
    if len(data) < 8 or struct.unpack_from("<I", data, 4)[0] != zlib.crc32(body):
        raise CorruptStreamError(
            f"checksum of {len(data)} bytes does not match; truncated or damaged, fetch them again"
        )
    known: _Values = {}
    offset = 0
    try:
        for field in _FIELDS:
            values, offset = field.read(body, offset, known)
            known |= values
    except (IndexError, struct.error, ValueError) as error:
        if isinstance(error, MoECError):
            raise
        raise CorruptStreamError(
            "the stream ends inside its header; it is truncated, fetch it again"
        ) from error
    return Header(**known), _read_sections(body, offset)


def _read_sections(body: bytes, offset: int) -> dict[Section, bytes]:
    sections: dict[Section, bytes] = {}
    while offset < len(body):
        number = body[offset]
        if number <= max(sections, default=0):
            raise CorruptStreamError(f"section {number} is out of order; the stream is damaged")
        if number > max(Section):
            raise _unknown(f"section {number}", f"{max(Section)}")
        length, offset = read_varint(body, offset + 1)
        if length > len(body) - offset:
            raise CorruptStreamError(f"section {number} claims {length} bytes, {len(body) - offset} are left")
        sections[Section(number)] = body[offset : offset + length]
        offset += length
    return sections
