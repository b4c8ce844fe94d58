"""Values that are stored rounded, without a fit, under a ratio or a PSNR: where many of them repeat."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from functools import cache
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Doubles
from moec_zarr.bitstream.container import read_stream
from moec_zarr.codec.lossless import encode_gridded
from moec_zarr.codec.prepare import Prepared
from moec_zarr.quality import measure

__all__ = ["round_closer", "round_smaller", "stated_psnr"]

_log = logging.getLogger(__name__)
_SAMPLE = 1 << 16  # values that say which bound has which error
_HALVINGS = 24  # of the interval in which that bound is searched
_TRIALS = 4  # bounds that are tried
_CLOSE, _AIM = 0.983, 0.991  # of a limit: near enough, and what is aimed at
_OCTAVE = 20 * math.log10(2)  # dB of a bound that is half as wide
_UNEVEN = 1.0  # dB by which a PSNR may be higher than such bounds say
_MARGIN = 0.005  # dB above a PSNR that is aimed at
_COMPARED = 1 << 13  # voxels that are compared with their neighbours
_FEWEST = 1 << 7  # of them with valid neighbours, that say something
_SMALL = 8  # integers whose entropy is taken one by one
_MISJUDGED = 0.45  # of the bytes that these say, at least, rounded values take
_SIDE = 60  # bytes of what predicts values, about
_PART = 16  # parts of an octave in which bounds are tried
_FINER, _WIDER = 24, 1  # octaves around the bound of a PSNR, between which one of a limit is searched


class _Compared(NamedTuple):
    """Some values with their neighbours before them on each axis, which say how many bytes rounded ones take.

    Attributes
    ----------
    values : float64 array, shape (n,)
    neighbours : float64 array, shape (axes, n)
    voxels : int
        Number of all valid values.
    whole : bool
        Whether they are integers.
    """

    values: Doubles
    neighbours: Doubles
    voxels: int
    whole: bool

    def estimate(self, bound: float) -> float:
        """Estimate the bytes of all values rounded in a bound, by the entropy of what neighbours leave."""
        if self.values.size < _FEWEST:
            return 0.0
        spacing = 2 * math.floor(bound) + 1 if self.whole else 2 * bound
        own, others = np.rint(self.values / spacing), np.rint(self.neighbours / spacing)
        alike = (others == others[0]).all(axis=0)
        bits = min(
            _entropy((own - other)[alike]) + _entropy((own - other)[~alike])
            for other in (*others, np.median(others, axis=0), np.rint(others.mean(axis=0)))
        )
        return bits / 8 * self.voxels / self.values.size


def _entropy(values: Doubles) -> float:
    """Return the bits of integers: of small ones, and of the octave of others with what it leaves open."""
    magnitude = np.abs(values)
    octave = np.where(magnitude < _SMALL, 0, np.floor(np.log2(np.maximum(magnitude, 1))))
    classes = np.where(octave > 0, np.copysign(_SMALL + octave, values), values)
    counts = np.unique(classes, return_counts=True)[1]
    return float(counts @ np.log2(values.size / counts) + octave.sum())


def _compare(chunk: Prepared) -> _Compared:
    own = chunk.squeezed
    inner = tuple(n - 1 for n in own.array.shape)
    size = math.prod(inner)
    step = max(1, size // _COMPARED) | 1  # an odd step meets all columns of most arrays
    place = [each + 1 for each in np.unravel_index(np.arange(0, size, step), inner)]
    before = [[*place[:axis], each - 1, *place[axis + 1 :]] for axis, each in enumerate(place)]
    values = np.stack([own.array[tuple(each)] for each in (place, *before)]).astype(np.float64)
    count = own.array.size
    if own.valid is not None:
        known = np.logical_and.reduce([own.valid[tuple(each)] for each in (place, *before)])
        values, count = values[:, known], int(np.count_nonzero(own.valid))
    return _Compared(values[0], values[1:], count, chunk.header.dtype.kind in "iu")


def round_closer(chunk: Prepared, limit: int, psnr: float) -> bytes | None:
    """Return values rounded by the least bound found that takes at most so many bytes.

    What values leave of their neighbours says about which bound that is; how many bytes it takes says how far
    that is off.

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
    compared, wanted = _compare(chunk), math.log2(_bound_of(chunk, psnr))
    if _MISJUDGED * compared.estimate(2.0**wanted) > limit:
        return None
    best, side = None, len(chunk.write(chunk.kept())) + _SIDE
    first, last = (round(_PART * (wanted + octaves)) for octaves in (-_FINER, _WIDER))
    actual, reached = 1.0, math.inf  # bytes over those estimated, and dB with a bound of one part

    @cache
    def estimate(part: int) -> float:
        return compared.estimate(2.0 ** (part / _PART))

    for _ in range(_TRIALS):
        if first > last:
            break
        part = first + bisect_left(
            range(first, last), side - _AIM * limit, key=lambda part: -actual * estimate(part)
        )
        if reached - _OCTAVE * part / _PART + _UNEVEN < psnr:
            break
        stream = encode_gridded(chunk, 2.0 ** (part / _PART))
        assert stream is not None
        _log.debug("rounded by 2^%.2f: %d bytes of %d", part / _PART, len(stream), limit)
        if estimated := estimate(part):
            actual = max((len(stream) - side) / estimated, _MISJUDGED)
        reached = stated_psnr(stream) + _OCTAVE * part / _PART
        if len(stream) > limit:
            first = part + 1
            continue
        if best is None or stated_psnr(stream) > stated_psnr(best):
            best = stream
        if len(stream) >= _CLOSE * limit or stated_psnr(stream) == math.inf:
            break
        last = part - 1
    return best if best and stated_psnr(best) > psnr else None


def round_smaller(chunk: Prepared, psnr: float, limit: int) -> bytes | None:
    """Return values rounded as far as a PSNR allows; None if that takes as many bytes as a limit, or more."""
    aim = psnr + _MARGIN
    if _MISJUDGED * _compare(chunk).estimate(_bound_of(chunk, aim)) > limit:
        return None
    for _ in range(_TRIALS):
        stream = encode_gridded(chunk, _bound_of(chunk, aim), limit - 1)
        if stream is None or stated_psnr(stream) >= psnr:
            return stream
        aim += psnr - stated_psnr(stream) + _MARGIN
    return None


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
