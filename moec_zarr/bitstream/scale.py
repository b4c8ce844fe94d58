"""The section of a logarithmic scale: the part of it that values lie on, and what it does not hold."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from moec_zarr.arrays import Bools
from moec_zarr.bitstream.container import QUALITY_BYTES, read_quality, write_quality
from moec_zarr.bitstream.masks import decode_mask, read_coded_mask
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.scale import Scale

__all__ = ["Scaled", "read_scale", "write_scale"]

_KNEE, _SIGNS = 1, 2
_RANGE = struct.Struct("<ff")
_KNEE_BYTES = struct.Struct("<d")


@dataclass(frozen=True)
class Scaled:
    """A logarithmic scale and what is kept beside it.

    Attributes
    ----------
    scale : Scale
    signs : bool array of the bounding box's shape, or None
        Where values are negative; never beside a knee, on whose two sides stand both signs.
    psnr : float
        dB on the scale, over the valid values that are not kept exactly, with their range on it as the peak;
        rounded down to 0.01, inf where exact.
    error : float
        Largest error of a valid value over the larger of its magnitude and the knee, rounded up to 8 bits.
    """

    scale: Scale
    signs: Bools | None
    psnr: float = math.inf
    error: float = 0.0


def write_scale(scaled: Scaled, signs: bytes) -> bytes:
    """Write the section's bytes; the mask of signs as `write_mask` wrote it, nothing where there is none."""
    scale = scaled.scale
    flags = (scaled.signs is not None) * _SIGNS | (scale.knee > 0) * _KNEE
    head = bytes([flags]) + _RANGE.pack(scale.centre, scale.half) + write_quality(scaled.psnr, scaled.error)
    return head + (_KNEE_BYTES.pack(scale.knee) if scale.knee else b"") + signs


def read_scale(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Scaled:
    """Read the scale of a bounding box of a shape and a dtype.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such a section.
    """
    at = 1 + _RANGE.size + QUALITY_BYTES
    flags = data[0] if data else 0
    if len(data) < at + _KNEE_BYTES.size * (flags & _KNEE):
        raise CorruptStreamError("the stream ends inside a scale; it is truncated, fetch it again")
    if flags >> 2 or (flags & _SIGNS and (flags & _KNEE or dtype.kind == "u")):
        raise CorruptStreamError(f"a scale with flags {flags:#04x} of {dtype}; the stream is damaged")
    centre, half = _RANGE.unpack_from(data, 1)
    psnr, error = read_quality(data, 1 + _RANGE.size)
    knee = 0.0
    if flags & _KNEE:
        (knee,) = _KNEE_BYTES.unpack_from(data, at)
        at += _KNEE_BYTES.size
    if not (np.isfinite(centre) and 0 < half < math.inf and (0 < knee < math.inf or not flags & _KNEE)):
        raise CorruptStreamError(
            f"a scale about {centre}, {half} to either side, knee {knee}; the stream is damaged"
        )
    signs = None
    if flags & _SIGNS:
        coded, at = read_coded_mask(data, at)
        signs = decode_mask(coded, shape)
    if at != len(data):
        raise CorruptStreamError(f"a scale of {len(data)} bytes, expected {at}; the stream is damaged")
    return Scaled(Scale(knee, centre, half), signs, psnr, error)
