"""What was decoded lately, so that an encoder notices values that were lost to a stream before.

zarr writes a part of a chunk by decoding all of it and encoding it again: values that are kept lose accuracy
twice, and a bound holds over what was decoded, not over the original. Such a stream says so in its header.

Noticed are chunks that hold what this process decoded as a whole chunk of the same shape and dtype, among the
last few hundred: all of it, or all but a box that holds new values. Of single precision and more, new values
may also stand anywhere in up to three quarters. Some thousand voxels are compared; those at the ends of the
range, masked ones and the most frequent value tell nothing, for originals have them too. So what keeps fewer
than some dozens of other values goes unnoticed, as do chunks of a stream that is exact at most voxels, values
that were changed all over, moved to other places or decoded by another process: nothing in them says so.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from moec_zarr.arrays import Array, Bools, Integers
from moec_zarr.bitstream.stream import Stream
from moec_zarr.runtime import renew_after_fork

__all__ = ["is_refit", "remember"]

_MOST = 256  # chunks that are remembered
_SAMPLES = 1 << 12  # voxels of each
_LEAST = 16  # voxels that are kept at least; fewer may be padding
_LIKELY = 1e-6  # that an original has the values kept by chance: less is no chance
_SCATTERED = 0.25  # of the values kept, where new ones stand anywhere


class _Decoded(NamedTuple):
    """Values of some voxels, and which of them no original has but by a chance of so much each."""

    values: Array
    telling: Bools
    chance: float
    largest: float


_Key = tuple[tuple[int, ...], str, bytes]
_kept: OrderedDict[_Key, _Decoded] = OrderedDict()  # the last one decoded comes last
_lock = threading.Lock()


@renew_after_fork
def _renew() -> None:
    global _lock
    _lock = threading.Lock()


def remember(digest: bytes, stream: Stream, array: Array) -> None:
    """Remember what a whole stream decoded to, unless it is exact.

    Parameters
    ----------
    digest : bytes
        What tells the stream from others.
    stream : Stream
    array : array
        Of the chunk's shape.
    """
    header = stream.header
    if (header.psnr == math.inf and not header.refit) or array.size < _LEAST:
        return
    key = array.shape, array.dtype.str[1:], digest
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return
    decoded = _sampled(stream, array)
    with _lock:
        _kept[key] = decoded
        while len(_kept) > _MOST:
            _kept.popitem(last=False)


def is_refit(array: Array) -> bool:
    """Say whether a chunk holds values that a lossy stream decoded to."""
    with _lock:
        alike = [each for (*own, _), each in _kept.items() if own == [array.shape, array.dtype.str[1:]]]
    if not alike:
        return False
    places = _places(array.shape)
    values = array[places].astype(array.dtype.newbyteorder("="))
    share = max(1.0, array.size / _SAMPLES)
    return any(_holds(values, each, places, share) for each in reversed(alike))


def _sampled(stream: Stream, array: Array) -> _Decoded:
    places = _places(array.shape)
    values = array[places].astype(array.dtype.newbyteorder("="))
    low, high, missing, _ = stream.limits
    telling = (values > low) & (values < high)
    if missing is not None:
        telling &= values != missing
    for axis, n in enumerate(stream.shape):
        telling &= places[axis] < n
    distinct, counts = np.unique(values[telling], return_counts=True)
    if counts.size and counts.max() > 1:
        telling &= values != distinct[counts.argmax()]
    span = float(high) / 2 - float(low) / 2
    largest = 2 * stream.header.max_error * span
    if values.dtype.kind == "f":
        # Where the next value is further away than any error, an original is the same.
        with np.errstate(over="ignore", invalid="ignore"):
            telling &= np.spacing(np.abs(values)) <= largest
    error = 10 ** (-stream.header.psnr / 20)  # of the range
    step = 1.0
    if values.dtype.kind == "f":
        below = np.nextafter(np.finfo(values.dtype).max, values.dtype.type(0))
        step = float(np.spacing(min(max(abs(low), abs(high)), below)))
    chance = 0.5
    if error and span:
        # Of errors of this root mean square, none above the largest: so many are not 0 at least.
        wrong = min(1.0, (error / stream.header.max_error) ** 2) if stream.header.max_error else 0.0
        chance = min(1 - wrong, max(step / span / error, 0.01))
    return _Decoded(values, telling, chance, largest)


def _holds(values: Array, decoded: _Decoded, places: tuple[Integers, ...], share: float) -> bool:
    """Say whether values are those decoded, but for a box, or a part, of new ones."""
    equal = values == decoded.values
    told = decoded.telling & equal
    count = int(told.sum())
    if share * count < _LEAST:
        return False
    differs = ~equal & ~((values != values) & (decoded.values != decoded.values))
    inside = np.full(values.shape, bool(differs.any()))
    if differs.any():
        for index in places:
            new = index[differs]
            inside &= (index >= new.min()) & (index <= new.max())
    inner = decoded.telling & inside
    by_chance = (int((told & inside).sum()) + 1) / (int(inner.sum()) + 2) if inside.any() else 0.0
    kept = int((told & ~inside).sum())
    if share * kept >= _LEAST and max(by_chance, decoded.chance) ** kept <= _LIKELY:
        return True
    if values.dtype.kind != "f" or values.itemsize < 4 or count < _SCATTERED * decoded.telling.sum():
        return False
    # Not the original, all of which is near; and no other array has so many of the values.
    with np.errstate(over="ignore", invalid="ignore"):
        far = np.abs(values.astype(np.float64) - decoded.values) > decoded.largest
    return bool((far & decoded.telling).any()) and decoded.chance**count <= _LIKELY


@lru_cache(maxsize=16)
def _places(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Choose voxels of a chunk: all, or so many on each of its slices along every axis alike, nearly."""
    if math.prod(shape) <= _SAMPLES:
        return tuple(index.ravel() for index in np.indices(shape))
    root = 2.0  # the generalised golden ratio, by which the points of a sequence are spread evenly
    for _ in range(60):
        root = (1 + root) ** (1 / (len(shape) + 1))
    number = np.arange(1, _SAMPLES + 1)
    return tuple(
        np.minimum((n * ((0.5 + number * root ** -(axis + 1.0)) % 1)).astype(np.int64), n - 1)
        for axis, n in enumerate(shape)
    )
