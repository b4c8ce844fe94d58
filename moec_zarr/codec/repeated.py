"""Values that occur often: kept exactly by a mask, or all values rounded, where that is better than a fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from moec_zarr.codec.prepare import Prepared, keep_exactly
from moec_zarr.codec.stored import round_closer, round_smaller, stated_psnr
from moec_zarr.errors import BudgetError

__all__ = ["Raced", "is_better", "race_repeated"]

_log = logging.getLogger(__name__)
_SAMPLE = 1 << 12  # voxels of which values are counted
_OFTEN = 0.05  # share of them from which a value occurs often
_MOST = 2  # values that are tried
_STATIC = 0.02  # share of the voxels from which those where a value never changes are tried
_FAR_CLOSER, _FAR_FEWER = 6.0, 0.7  # dB, and share of the bytes: more than values kept exactly bring


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
    best, fitted, stored = chunk, encode(chunk), None
    most = len(fitted) if limit is None else max(limit, len(fitted))
    if limit is not None:
        stored = round_closer(chunk, most, stated_psnr(fitted))
    elif psnr is not None:
        stored = round_smaller(chunk, psnr, most)
    if stored is not None and _is_far_better(stored, fitted, limit):
        return Raced(chunk, fitted, stored, decided=True)
    for value in often:
        for other in _ways(best, value):
            spent = sum(len(each.coded) for each in other.exact)
            if spent >= (len(fitted) if limit is None else limit):
                continue
            try:
                tried = encode(other)
            except BudgetError:
                continue
            better = len(tried) <= most and is_better(tried, fitted, limit)
            _log.debug("%s kept exactly by %d bytes: %s", value, spent, "better" if better else "no better")
            if better:
                best, fitted = other, tried
    return Raced(best, fitted, stored)


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
