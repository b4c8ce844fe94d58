"""Values that are stored rounded, without a fit, under a ratio or a PSNR: where many of them repeat."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Doubles
from moec_zarr.bitstream.container import read_stream
from moec_zarr.codec.lossless import Layout, encode_alike, encode_best, may_take
from moec_zarr.codec.prepare import Prepared
from moec_zarr.codec.rounding import Rounded, keep_mean, round_to_grid
from moec_zarr.quality import Quality, measure

__all__ = ["round_closer", "round_smaller", "stated_psnr"]

_log = logging.getLogger(__name__)
_SAMPLE = 1 << 14  # values that say which bound has which error
_HALVINGS = 16  # of the interval in which that bound is searched
_TRIALS, _ESTIMATED = 5, 2  # bounds that are tried, and how many of them by estimates
_CLOSE, _AIM = 0.98, 0.994  # of a limit: near enough, and what is aimed at
_UNEVEN = 1.0  # dB by which a PSNR may be higher than such bounds say
_MARGIN = 0.005  # dB above a PSNR that is aimed at
_COMPARED = 1 << 13  # voxels that are compared with their neighbours
_FEWEST = 1 << 7  # of them with valid neighbours, that say something
_SMALL = 8  # integers whose entropy is taken one by one
_MOST_OCTAVES = 1 << 11  # of doubles
_MISJUDGED = 0.6  # of the bytes that these say, at least, rounded values take
_FEW, _ALIKE = 1 << 15, 0.5  # voxels, and octaves within which bounds have a layout in common
_SIDE = 60  # bytes of what predicts values, about
_PART, _NEAR = 64, 3  # parts of an octave in which bounds are tried, and how many lie near one
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
    octave = np.where(magnitude < _SMALL, 0, np.frexp(magnitude)[1] - 1)
    classes = np.where(octave > 0, np.copysign(_SMALL + octave, values), values)
    counts = np.bincount((classes + (_SMALL + _MOST_OCTAVES)).astype(np.int64))
    counts = counts[counts > 0]
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


class _Gridded:
    """The valid values of a chunk, rounded to equal distances by one bound after another.

    To the nearest, but where the mean calls for another one: hence a stream states a wider bound. How they
    are laid out is chosen once for bounds that are alike: then a stream takes a fraction of the time.
    """

    def __init__(self, chunk: Prepared) -> None:
        self._chunk, self._values = chunk, chunk.valid_values
        self._exact = [(each.value, self._values == each.value) for each in chunk.exact]
        self._chosen: tuple[float, Layout] | None = None  # a bound, and what was best there

    def round(self, bound: float) -> tuple[Rounded, Quality] | None:
        """Round them; None if that is not to be."""
        rounded = round_to_grid(self._values, bound, avoid=self._chunk.missing)
        if rounded is None:
            return None
        if self._chunk.missing is None:
            rounded = keep_mean(self._values, rounded)
        if not all((rounded.values[where] == value).all() for value, where in self._exact):
            return None
        return rounded, measure(self._values, rounded.values)

    def encode(self, bound: float, rounded: Rounded, quality: Quality) -> bytes | None:
        """Encode what `round` returned; None if that is not to be."""
        largest = quality.max_error
        bounds = math.nextafter(largest, math.inf) if largest else 0.0, 0.0
        if self._chosen is not None and self._values.size > _FEW:
            chosen_at, layout = self._chosen
            if abs(math.log2(bound / chosen_at)) < _ALIKE:
                return encode_alike(self._chunk, rounded, bounds, layout)
        if (best := encode_best(self._chunk, [rounded], bounds)) is None:
            return None
        self._chosen = bound, best[1]
        return best[0]


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
    compared, error_at = _compare(chunk), _errors_of(chunk)
    wanted = math.log2(_bound_of(chunk, psnr, error_at))
    side, gridded = len(chunk.write(chunk.kept())) + _SIDE, _Gridded(chunk)
    if side + _MISJUDGED * compared.estimate(2.0**wanted) > limit:
        return None
    best: bytes | None = None
    first, last = (round(_PART * (wanted + octaves)) for octaves in (-_FINER, _WIDER))
    actual = 1.0  # bytes over those estimated
    tried: list[tuple[int, float]] = []  # parts, and octaves of bytes over those that are aimed at

    @cache
    def estimate(part: int) -> float:
        return compared.estimate(2.0 ** (part / _PART))

    @cache
    def unevenness(part: int) -> float:
        bound: float = 2.0 ** (part / _PART)
        return error_at(bound) / bound

    for _ in range(_TRIALS):
        if first > last:
            break
        if len(tried) < _ESTIMATED:
            wide = side - _AIM * limit
            part = first + bisect_left(range(first, last), wide, key=lambda part: -actual * estimate(part))
        else:
            part = min(max(_between(tried), first), last)
        # Where many values are alike, bounds next to one another differ by whether a level is there.
        part = min(range(max(part - _NEAR, first), min(part + _NEAR, last) + 1), key=unevenness)
        bound = 2.0 ** (part / _PART)
        found = gridded.round(bound)
        if found is None or (stream := gridded.encode(bound, *found)) is None:
            break
        _log.debug("rounded by 2^%.2f: %d bytes of %d", part / _PART, len(stream), limit)
        tried.append((part, math.log2(len(stream) / (_AIM * limit))))
        if estimated := estimate(part):
            actual = max((len(stream) - side) / estimated, _MISJUDGED)
        reached = stated_psnr(stream)
        if len(stream) > limit:
            first = part + 1
            if reached + _UNEVEN < psnr:
                break
            continue
        if best is None or reached > stated_psnr(best):
            best = stream
        if len(stream) >= _CLOSE * limit or reached == math.inf:
            break
        last = part - 1
    return best if best and stated_psnr(best) > psnr else None


def _between(tried: list[tuple[int, float]]) -> int:
    """Return where a line through the two nearest of those tried is zero."""
    (one, left), (other, more) = sorted(tried, key=lambda each: abs(each[1]))[:2]
    return round(one - left * (other - one) / (more - left)) if more != left else (one + other) // 2


def round_smaller(chunk: Prepared, psnr: float, limit: int) -> bytes | None:
    """Return values rounded as far as a PSNR allows; None if that takes as many bytes as a limit, or more."""
    error_at = _errors_of(chunk)
    bound = _bound_of(chunk, psnr, error_at)
    if _MISJUDGED * _compare(chunk).estimate(bound) > limit:
        return None
    gridded, aim = _Gridded(chunk), psnr
    for _ in range(_TRIALS):
        found = gridded.round(bound)
        if found is None or not may_take(chunk, bound, limit - 1):
            return None
        if (reached := found[1].psnr) >= psnr:
            stream = gridded.encode(bound, *found)
            return stream if stream is not None and len(stream) < limit else None
        aim += psnr - reached + _MARGIN
        bound = _bound_of(chunk, aim, error_at)
    return None


def _bound_of(chunk: Prepared, psnr: float, error_at: Callable[[float], float]) -> float:
    """Return about the bound whose rounded values have a PSNR, by what `_errors_of` returns."""
    scale = chunk.field.normalisation.scale
    allowed = 2 * 10 ** (-psnr / 20)  # over half the range
    least, most = math.log2(allowed), max(1.0, math.log2(allowed) + 2)

    def bound_at(octave: float) -> float:
        return min(math.exp2(octave) * scale, float(np.finfo(np.float64).max))

    for _ in range(_HALVINGS):
        middle = (least + most) / 2
        least, most = (middle, most) if error_at(bound_at(middle)) <= allowed else (least, middle)
    return bound_at(least)


def _errors_of(chunk: Prepared) -> Callable[[float], float]:
    """Return what says by some values which error over half the range rounding in a bound makes."""
    scale, whole = chunk.field.normalisation.scale, chunk.header.dtype.kind in "iu"
    values = chunk.valid_values
    sample = values[:: max(1, values.size // _SAMPLE) | 1].astype(np.float64) / scale
    low, high = sample.min(), sample.max()

    def error_at(bound: float) -> float:
        spacing = (2 * math.floor(bound) + 1) / scale if whole else 2 * (bound / scale)
        left = np.clip(np.rint(sample / spacing) * spacing, low, high) - sample
        return math.sqrt(float(left @ left) / left.size)

    return error_at


def stated_psnr(stream: bytes) -> float:
    """Read the PSNR that a stream states."""
    psnr: float = read_stream(stream)[0].psnr
    return psnr
