"""Values that occur often: kept exactly by a mask of where they stand, where the rest gains by it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np

from moec_zarr.bitstream.container import read_stream
from moec_zarr.codec.prepare import Prepared, keep_exactly
from moec_zarr.errors import BudgetError

__all__ = ["race_repeated"]

_log = logging.getLogger(__name__)
_SAMPLE = 1 << 12  # voxels of which values are counted
_OFTEN = 0.05  # share of them from which a value occurs often
_MOST = 2  # values that are tried
_STATIC = 0.02  # share of the voxels from which those where a value never changes are tried


def race_repeated(
    chunk: Prepared, encode: Callable[[Prepared], bytes], limit: int | None
) -> tuple[Prepared, bytes | None]:
    """Encode a chunk with and without values that occur often kept exactly.

    Parameters
    ----------
    chunk : Prepared
    encode : callable
        Encodes a chunk.
    limit : int, optional
        Bytes of a stream, at most: then the PSNR decides, else the bytes.

    Returns
    -------
    chunk : Prepared
        With what is best kept exactly.
    stream : bytes or None
        Its stream; None where no value occurs often, and nothing was encoded.
    """
    best, stream = chunk, None
    for value in _find_repeated(chunk):
        for other in _ways(best, value):
            stream = encode(chunk) if stream is None else stream
            spent = sum(len(each.coded) for each in other.exact)
            if spent >= (len(stream) if limit is None else limit):
                continue
            try:
                tried = encode(other)
            except BudgetError:
                continue
            better = len(tried) < len(stream)
            if limit is not None:
                better = len(tried) <= max(limit, len(stream)) and _psnr(tried) > _psnr(stream)
            _log.debug("%s kept exactly by %d bytes: %s", value, spent, "better" if better else "no better")
            if better:
                best, stream = other, tried
    return best, stream


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


def _psnr(stream: bytes) -> float:
    return read_stream(stream)[0].psnr
