"""Values that are stored rounded, without a fit, under a ratio or a PSNR: where many of them repeat."""

from __future__ import annotations

import logging
import math

import numpy as np

from moec_zarr.bitstream.container import read_stream
from moec_zarr.codec.lossless import encode_gridded
from moec_zarr.codec.prepare import Prepared
from moec_zarr.quality import measure

__all__ = ["round_closer", "round_smaller", "stated_psnr"]

_log = logging.getLogger(__name__)
_SAMPLE = 1 << 16  # values that say which bound has which error
_HALVINGS = 24  # of the interval in which that bound is searched
_TRIALS = 4  # bounds that are tried
_CLOSE = 0.98  # of a limit: near enough
_MARGIN = 0.005  # dB above a PSNR that is aimed at


def round_closer(chunk: Prepared, limit: int, psnr: float) -> bytes | None:
    """Return values rounded by the least bound found that takes at most so many bytes.

    Parameters
    ----------
    chunk : Prepared
    limit : int
        Bytes of the stream, at most.
    psnr : float
        dB above which the stream is wanted; None is returned if it is not.
    """
    if not math.isfinite(psnr):
        return None
    x = math.log2(_bound_of(chunk, psnr))
    best = encode_gridded(chunk, 2.0**x, limit)
    if best is None:
        return None
    fits = x, len(best)  # octave and bytes of the least bound that fits
    over: tuple[float, int] | None = None  # those of the widest one that does not
    per_octave = _changing(chunk) / 8  # a bit of each value that does not repeat
    for turn in range(_TRIALS):
        if fits[1] >= _CLOSE * limit or stated_psnr(best) == math.inf:
            break
        left = (1 + _CLOSE) / 2 * limit - fits[1]
        if over is None:
            x = fits[0] - left / per_octave
        else:  # sizes may stay the same for octaves: then interpolation ends nowhere
            share = left / (over[1] - fits[1]) if turn % 2 else 0.5
            x = fits[0] + min(max(share, 0.1), 0.9) * (over[0] - fits[0])
        stream = encode_gridded(chunk, 2.0**x)
        assert stream is not None
        _log.debug("rounded by 2^%.2f: %d bytes of %d", x, len(stream), limit)
        if len(stream) > limit:
            over = x, len(stream)
            continue
        per_octave = max((len(stream) - fits[1]) / (fits[0] - x), per_octave / 8)
        fits, best = (x, len(stream)), stream
    return best if stated_psnr(best) > psnr else None


def round_smaller(chunk: Prepared, psnr: float, limit: int) -> bytes | None:
    """Return values rounded as far as a PSNR allows; None if that takes as many bytes as a limit, or more."""
    aim = psnr + _MARGIN
    for _ in range(_TRIALS):
        stream = encode_gridded(chunk, _bound_of(chunk, aim), limit - 1)
        if stream is None or stated_psnr(stream) >= psnr:
            return stream
        aim += psnr - stated_psnr(stream) + _MARGIN
    return None


def _changing(chunk: Prepared) -> float:
    """Return about how many of the valid values are not the most frequent one."""
    values = chunk.valid_values
    sample = values[:: max(1, values.size // _SAMPLE) | 1]
    counts = np.unique(sample, return_counts=True)[1]
    return values.size * max(1 - int(counts.max()) / sample.size, 1 / values.size)


def _bound_of(chunk: Prepared, psnr: float) -> float:
    """Return about the bound whose rounded values have a PSNR."""
    scale, whole = chunk.field.normalisation.scale, chunk.header.dtype.kind in "iu"
    values = chunk.valid_values
    sample = values[:: max(1, values.size // _SAMPLE) | 1].astype(np.float64) / scale

    def error(octave: float) -> float:  # over half the range
        bound = 2.0**octave
        spacing = (2 * math.floor(bound * scale) + 1) / scale if whole else 2 * bound
        rounded = np.clip(np.rint(sample / spacing) * spacing, sample.min(), sample.max())
        return measure(sample, rounded).rmse

    allowed = 2 * 10 ** (-psnr / 20)
    low, high = math.log2(allowed), max(1.0, math.log2(allowed) + 2)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) <= allowed else (low, middle)
    return min(math.exp2(low) * scale, float(np.finfo(np.float64).max))


def stated_psnr(stream: bytes) -> float:
    """Read the PSNR that a stream states."""
    psnr: float = read_stream(stream)[0].psnr
    return psnr
