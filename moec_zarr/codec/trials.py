"""Chunks that are encoded to see what comes of it."""

from __future__ import annotations

import math

from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import read_stream
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.encode import encode
from moec_zarr.errors import BudgetError
from moec_zarr.settings import Settings

__all__ = ["OCTAVE", "measure_cost", "try_encode"]

OCTAVE = 20 * math.log10(2)  # dB
_EXACT = 400.0  # dB, in place of infinity


def try_encode(array: Array, settings: Settings) -> bytes | None:
    """Encode a chunk; None where its bytes suffice for nothing."""
    try:
        return encode(array, settings)
    except BudgetError:
        return None


def measure_cost(array: Array, stream: bytes, settings: Settings) -> float:
    """Return octaves of the error where a ratio sets the bytes, else of the bytes.

    Parameters
    ----------
    array : array
        A chunk.
    stream : bytes
        What it was encoded to.
    settings : Settings
        What with.
    """
    if settings.ratio is None:
        return math.log2(len(stream))
    scaled = open_stream(stream, array.shape, settings.shared).scaled
    psnr = read_stream(stream)[0].psnr if scaled is None else scaled.psnr
    return -min(psnr, _EXACT) / OCTAVE
