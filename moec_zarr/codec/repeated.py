"""Values that occur often: kept exactly by a mask, or all values rounded, where that is better than a fit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Doubles
from moec_zarr.codec.fills import refuse_fills
from moec_zarr.codec.lossless import encode_lossless_within
from moec_zarr.codec.prepare import Prepared, keep_exactly
from moec_zarr.codec.stored import round_closer, round_smaller, stated_psnr
from moec_zarr.errors import BudgetError
from moec_zarr.fit.advice import read_advice

__all__ = ["Raced", "is_better", "race_repeated"]

_log = logging.getLogger(__name__)
_SAMPLE = 1 << 12  # voxels of which values are counted
_OFTEN = 0.05  # share of them from which a value occurs often
_MOST = 2  # values that are tried
_STATIC = 0.02  # share of the voxels from which those where a value never changes are tried
_SEEN, _PLACES = 1 << 14, (0.2, 0.5, 0.8)  # voxels of boxes that are transformed, and where they lie
_COEFFICIENTS = 1.5  # that a byte pays for, about
_DENSEST = 0.6  # of the voxels, that coefficients are kept for
_NOTHING = 1e-12  # of the square of half the range: an error next to none
_LIKELY = 0.2  # dB that keeping a value exactly is to gain by what boxes say, to be tried
_FAR_CLOSER, _FAR_FEWER = 6.0, 0.7  # dB, and share of the bytes: more than values kept exactly bring
_POOR = 20.0  # dB that rounded values have at least


class Raced(NamedTuple):
    """What came out of a race.

    Attributes
    ----------
    chunk : Prepared
        With what is best kept exactly beside a fit.
    fitted : bytes or None
        Its stream; None where no value occurs often, and nothing was encoded.
    stored : bytes or None
        The stream of rounded values; None where the fit is better without anything kept exactly.
    decided : bool
        Whether rounded values are better than any fit will be.
    """

    chunk: Prepared
    fitted: bytes | None = None
    stored: bytes | None = None
    decided: bool = False


def race_repeated(
    chunk: Prepared,
    encode: Callable[[Prepared], bytes],
    *,
    limit: int | None = None,
    psnr: float | None = None,
) -> Raced:
    """Encode a chunk with and without values that occur often kept exactly, and rounded without a fit.

    Parameters
    ----------
    chunk : Prepared
    encode : callable
        Fits a chunk.
    limit : int, optional
        Bytes of a stream, at most: then the PSNR decides, else the bytes.
    psnr : float, optional
        dB that a stream is to reach, where there is no limit.
    """
    often = _find_repeated(chunk)
    if not often:
        return Raced(chunk)
    stored = None
    if limit is not None and read_advice(chunk.dictionary).fits_lost:
        stored = _store(chunk, limit)
        # Far closer than boxes say that a transform is: nothing is fitted.
        if stored is not None and stated_psnr(stored) > _Boxes(chunk).psnr(chunk, limit) + _FAR_CLOSER:
            return Raced(chunk, None, stored, decided=True)
    best, fitted = chunk, encode(chunk)
    if limit is not None and stated_psnr(fitted) == math.inf:
        return Raced(chunk, fitted)
    most = len(fitted) if limit is None else max(limit, len(fitted))
    if limit is not None:
        stored = stored or round_closer(chunk, most, stated_psnr(fitted))
    elif psnr is not None:
        stored = round_smaller(chunk, psnr, most)
    if stored is not None and _is_far_better(stored, fitted, limit):
        return Raced(chunk, fitted, stored, decided=True)
    boxes = _Boxes(chunk)
    for value in often:
        for other in _ways(best, value):
            room = len(fitted) if limit is None else limit
            gain = boxes.gain(best, other, room)
            _log.debug("%s kept exactly: %.2f dB more, about", value, gain)
            if gain < _LIKELY:
                continue
            try:
                tried = encode(other)
            except BudgetError:
                continue
            better = len(tried) <= most and is_better(tried, fitted, limit)
            _log.debug("%s kept exactly: %s", value, "better" if better else "no better")
            if better:
                best, fitted = other, tried
    return Raced(best, fitted, stored)


def _store(chunk: Prepared, limit: int) -> bytes | None:
    """Return values exactly, or rounded, in so many bytes; None if they take more."""
    if (exact := encode_lossless_within(chunk, limit)) is not None:
        return exact
    refuse_fills(chunk)
    return round_closer(chunk, limit, _POOR)


def is_better(one: bytes, other: bytes, limit: int | None) -> bool:
    """Say whether a stream has a higher PSNR than another; where no bytes are given, fewer bytes."""
    return len(one) < len(other) if limit is None else stated_psnr(one) > stated_psnr(other)


def _is_far_better(stored: bytes, fitted: bytes, limit: int | None) -> bool:
    """Say whether values rounded are so much better than a fit that keeping some exactly is not tried."""
    if limit is None:
        return len(stored) < _FAR_FEWER * len(fitted)
    return stated_psnr(stored) > stated_psnr(fitted) + _FAR_CLOSER


def _find_repeated(chunk: Prepared) -> list[float]:
    """Return values that occur often among those fitted, the most frequent one first."""
    fitted = chunk.fitted
    values = chunk.array.reshape(-1) if fitted is None else chunk.array[fitted]
    sample = values[:: max(1, values.size // _SAMPLE) | 1]  # an odd step meets all columns of most arrays
    distinct, counts = np.unique(sample, return_counts=True)
    often = np.flatnonzero(counts >= _OFTEN * sample.size)
    if often.size == distinct.size:  # the mask of one would be that of the other
        return []
    return [distinct[i].item() for i in sorted(often, key=lambda i: -counts[i])[:_MOST]]


class _Boxes:
    """Boxes of a chunk, whose coefficients say what a transform leaves of it in so many bytes.

    Where a value is kept exactly, what is fitted there is as smooth as can be. Nothing is made of the error
    that this takes off those places: a transform has hardly any there that a decoder does not clip.
    """

    def __init__(self, chunk: Prepared) -> None:
        shape = chunk.squeezed.array.shape
        share = min(1.0, (_SEEN / math.prod(shape)) ** (1 / len(shape)))
        lengths = [max(math.ceil(n * share), min(n, 4)) for n in shape]
        self._boxes = [
            tuple(
                slice(int(place * (n - m)), int(place * (n - m)) + m)
                for n, m in zip(shape, lengths, strict=True)
            )
            for place in (_PLACES if share < 1 else _PLACES[:1])
        ]
        self._known: dict[int, tuple[Prepared, Doubles]] = {}
        self._size, self._plain = chunk.array.size, len(chunk.write(chunk.kept()))

    def gain(self, one: Prepared, other: Prepared, room: int) -> float:
        """Return how many dB the other is likely to be closer in a stream of so many bytes."""
        left = room - self._plain - _spent(one)
        if self._closeness(other, left) - self._closeness(one, left) < _LIKELY:
            return 0.0  # masks, which are coded for their size, take further bytes
        left_by_other = room - self._plain - _spent(other)
        if left_by_other <= 0:
            return -math.inf
        return self._closeness(other, left_by_other) - self._closeness(one, left)

    def psnr(self, chunk: Prepared, room: int) -> float:
        """Return about the PSNR that a transform of so many bytes has."""
        return 20 * math.log10(2) + self._closeness(chunk, room - self._plain - _spent(chunk))

    def _closeness(self, chunk: Prepared, nbytes: float) -> float:
        if id(chunk) not in self._known:
            self._known[id(chunk)] = chunk, self._left(chunk)
        left = self._known[id(chunk)][1]
        count = min(_COEFFICIENTS * max(nbytes, 1) / self._size, _DENSEST) * left.size
        return -10 * math.log10(max(float(left[int(count)]), _NOTHING))

    def _left(self, chunk: Prepared) -> Doubles:
        """Return the mean square that is left without so many of the largest coefficients."""
        from moec_zarr.fit.transform.basis_search import wavelets_of
        from moec_zarr.fit.transform.inpainting import fill_smoothly
        from moec_zarr.model.transform import analyse

        field, parts = chunk.field, []
        for box in self._boxes:
            normalised = field.normalisation.normalise(field.array[box])
            if field.valid is None:
                target = normalised.astype(np.float32)
            else:  # others may lie beyond single precision
                valid = field.valid[box]
                target = fill_smoothly(np.where(valid, normalised, 0).astype(np.float32), valid)
            parts.append(analyse(target, [wavelets_of(n) for n in target.shape]).reshape(-1))
        squares = np.sort(np.square(np.concatenate(parts), dtype=np.float64))
        return np.asarray(np.cumsum(squares)[::-1] / squares.size)


def _spent(chunk: Prepared) -> int:
    return sum(len(each.coded) for each in chunk.exact)


def _ways(chunk: Prepared, value: float) -> Iterator[Prepared]:
    """Keep a value where it never changes along the first axis, then wherever it stands."""
    whole = keep_exactly(chunk, value)
    if chunk.array.ndim > 1 and len(chunk.array) > 1:
        static = keep_exactly(chunk, value, static=True)
        count, all_of_them = (_count(each, value) for each in (static, whole))
        if _STATIC * chunk.array.size <= count < all_of_them:
            yield static
    if whole is not chunk:
        yield whole


def _count(chunk: Prepared, value: float) -> int:
    return sum(int(np.count_nonzero(each.mask)) for each in chunk.exact if each.value == value)
