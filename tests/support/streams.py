"""Streams put together byte by byte, sound or damaged."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from moec_zarr.bitstream.coefficients import write_coefficients
from moec_zarr.bitstream.container import Header, write_header
from moec_zarr.bitstream.contexts import Context
from moec_zarr.bitstream.masks import encode_mask
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.model.basis import AxisBasis
from moec_zarr.model.coefficients import Coefficients


def header(
    dtype: DTypeLike = "f8", shape: tuple[int, ...] = (128, 128, 128, 128, 16), **others: Any
) -> Header:
    """A header, by default of a constant array of ones."""
    one = np.dtype(dtype).newbyteorder("=").type(1)
    fields = {"dtype": np.dtype(dtype), "order": "C", "shape": shape, "low": one, "high": one, "psnr": 40.0}
    return Header(**fields | {"max_error": 0.1} | others)


def with_checksum(body: bytes, version: int = 1) -> bytes:
    """The stream of a body, so that only what is in the body can be wrong."""
    return b"MoE" + bytes([version]) + zlib.crc32(body).to_bytes(4, "little") + body


# Bands of a (2, 3) grid: one of wavelets on two voxels, two of cosines on three.
ALL_BANDS = encode_mask(np.ones((1, 2), bool))


def coefficients_section(
    bases: bytes = b"\1\0",
    step: float = 0.5,
    mask: bytes = ALL_BANDS,
    coded: bytes = b"\1",
    axes: int = 2,
    likely: bool = False,
) -> bytes:
    """The payload of a transform section, by default a sound one of shape (2, 3).

    Where `likely`, coefficients that are not zero take next to no bytes.
    """
    head = bases + np.float32(step).tobytes() + bytes([9] * 3 * axes)
    offset = 8191 if likely else 1024  # classes of the largest scale, or of a small one
    head += struct.pack("<bbBhh", 0, 1, 64, offset, 0)
    return head + write_varint(len(mask)) + mask + coded


def large_words(magnitude: int = 319) -> bytes:
    """Words of the range coder for six coefficients of 63 and more in a section of shape (2, 3)."""
    context = Context((9,) * 6, floor=0, rise=1, power=64, offset=1024, slope=0)
    integers = magnitude * np.array([[1, -1, 1], [-1, 1, -1]], np.int32)
    payload = write_coefficients(Coefficients((2, 3), (AxisBasis(1), AxisBasis()), 0.5, integers), context)
    before = coefficients_section(coded=b"\x3f")
    assert payload.startswith(before)
    return payload[len(before) :]


def experts_section(
    head: bytes = b"\x11\xc0\0\x40\xa8\x90\x88", coded: bytes = b"\2\x0c\2\x0c", words: bytes = b"\x55\xaa"
) -> bytes:
    """The payload of a section of linear experts, by default a sound one.

    It has one ramp of steepness, to 1, and one of the value, from 0 to a half, taps of 1/8, constants of 1/64
    and a shift.
    """
    return head + coded + words


def restored_body(
    experts: bytes, transform: bytes | None = None, shape: tuple[int, ...] = (2, 3), dtype: DTypeLike = "u1"
) -> bytes:
    """The body of a stream with a transform and linear experts, by default of a sound transform."""
    body = transform_body(coefficients_section() if transform is None else transform, shape, dtype)
    return body + bytes([10]) + write_varint(len(experts)) + experts


def transform_body(payload: bytes, shape: tuple[int, ...] = (2, 3), dtype: DTypeLike = "u1") -> bytes:
    """The body of a stream with a transform alone."""
    low = np.zeros((), dtype)[()]
    return write_header(header(dtype, shape, low=low)) + bytes([6]) + write_varint(len(payload)) + payload
