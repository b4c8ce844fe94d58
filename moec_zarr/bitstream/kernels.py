"""Compiled loops: the same words and masks as `range_coder` and `masks` have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.compiled import compiled

__all__ = [
    "decode_cells",
    "encode_cells",
    "encode_intervals",
    "encode_one",
    "first_point",
    "refill",
    "rows_at",
    "take_bit",
    "zero_frequency",
]

Array = NDArray[Any]


@compiled()
def encode_intervals(
    lower: Array, width: Array, words: Array, used: int, low: Any, span: Any
) -> tuple[int, Any, Any]:
    """Encode intervals into the words from `used` on; return the state that follows."""
    for i in range(lower.size):
        used, low, span = encode_one(lower[i], width[i], words, used, low, span)
    return used, low, span


@compiled()
def encode_one(lower: Any, width: Any, words: Array, used: int, low: Any, span: Any) -> tuple[int, Any, Any]:
    """Encode one interval."""
    scale = span >> np.uint64(24)
    before = low
    low += scale * np.uint64(lower)
    span = scale * np.uint64(width)
    if low < before:
        _carry(words, used)
    if span < np.uint64(1 << 32):
        words[used] = low >> np.uint64(32)
        used += 1
        low <<= np.uint64(32)
        span <<= np.uint64(32)
    return used, low, span


@compiled()
def _carry(words: Array, used: int) -> None:
    """Add one to the number that the first words are."""
    at = used - 1
    while words[at] == np.uint32(0xFFFFFFFF):
        words[at] = 0
        at -= 1
    words[at] += np.uint32(1)


@compiled()
def refill(span: Any, point: Any, words: Array, used: int) -> tuple[Any, Any, int]:
    """Read another word into the range coder's state if it needs one; beyond the last one stand zeros."""
    if span < np.uint64(1 << 32):
        word = np.uint64(words[used]) if used < words.size else np.uint64(0)
        return span << np.uint64(32), (point << np.uint64(32)) | word, used + 1
    return span, point, used


@compiled()
def first_point(words: Array) -> Any:
    """Return what the range coder's first two words say."""
    point = np.uint64(words[0]) << np.uint64(32) if words.size else np.uint64(0)
    return point | np.uint64(words[1]) if words.size > 1 else point


@compiled()
def take_bit(span: Any, point: Any, words: Array, used: int) -> tuple[int, Any, Any, int]:
    """Decode a bit that is as likely as not; -1 in its place if the words are invalid."""
    scale = span >> np.uint64(24)
    if point >= scale << np.uint64(24):
        return -1, span, point, used
    half, bit = scale << np.uint64(23), 0
    if point >= half:
        point, bit = point - half, 1
    span, point, used = refill(half, point, words, used)
    return bit, span, point, used


@compiled()
def rows_at(t: int, starts: Array, columns: int, first: int, last: int) -> tuple[int, int]:
    """Return the first row on a wavefront and the one behind its last, from those of the one before.

    `starts` are the first wavefronts of all rows, rising.
    """
    while last < starts.size and starts[last] <= t:
        last += 1
    while first < last and starts[first] + columns <= t:
        first += 1
    return first, last


@compiled()
def zero_frequency(zeros: int, ones: int) -> int:
    """Return the frequency of 0 in a context that has seen so many zeros and ones."""
    # Doubles divide faster than integers, and as exactly below 2**53.
    share = int(float((2 * ones + 1) << 16) / float(2 * (zeros + ones) + 2))
    chance = min(max(share, 1), (1 << 16) - 1) << 8
    return 1 + ((((1 << 24) - chance) * ((1 << 24) - 2)) >> 24)


@compiled()
def _context_of(cells: Array, place: int, neighbours: Array) -> int:
    """Return which neighbours of a cell are set, as a number."""
    context = 0
    for neighbour in neighbours:
        context = 2 * context + cells[place + neighbour]
    return context


@compiled()
def encode_cells(
    cells: Array, start: Array, places: Array, columns: int, neighbours: Array
) -> tuple[Array, int, Any]:
    """Encode the cells of a mask; return words, how many of them are used, and the coder's state.

    The arguments are those of `decode_cells`.
    """
    counts = np.zeros((1 << neighbours.size, 2), np.int64)
    contexts = np.empty(start.size, np.int32)
    words = np.empty(3 * (start.size * columns) // 4 + 2, np.uint32)  # 24 bits a cell at most
    none = np.uint64(0)
    low, span = none, np.uint64(0xFFFFFFFFFFFFFFFF)
    used, first, last = 0, 0, 0
    length = start[-1] + columns if start.size and columns else 0
    for t in range(length):
        first, last = rows_at(t, start, columns, first, last)
        for line in range(first, last):
            place = places[line] + t - start[line]
            context = contexts[line] = _context_of(cells, place, neighbours)
            zero = np.uint64(zero_frequency(counts[context, 0], counts[context, 1]))
            if cells[place]:
                used, low, span = encode_one(zero, np.uint64(1 << 24) - zero, words, used, low, span)
            else:
                used, low, span = encode_one(none, zero, words, used, low, span)
        for line in range(first, last):
            counts[contexts[line], cells[places[line] + t - start[line]]] += 1
    return words, used, low


@compiled()
def decode_cells(
    words: Array, cells: Array, start: Array, places: Array, columns: int, neighbours: Array
) -> bool:
    """Decode a mask into its cells; return False if the words are invalid.

    Parameters
    ----------
    cells : uint8 array, flat
        Those of the padded grid, all zero.
    start, places : int64 array
        The first wavefront of each row, rising, and the position of its first cell.
    columns : int
        Cells of a row.
    neighbours : int64 array
        Where the neighbours of a cell stand, seen from it.
    """
    bits = np.uint64(24)
    counts = np.zeros((1 << neighbours.size, 2), np.int64)
    contexts = np.empty(start.size, np.int32)
    span, point = np.uint64(0xFFFFFFFFFFFFFFFF), first_point(words)
    used, first, last = 2, 0, 0
    length = start[-1] + columns if start.size and columns else 0
    for t in range(length):
        first, last = rows_at(t, start, columns, first, last)
        for line in range(first, last):
            place = places[line] + t - start[line]
            context = contexts[line] = _context_of(cells, place, neighbours)
            zero = np.uint64(zero_frequency(counts[context, 0], counts[context, 1]))
            scale = span >> bits
            if point >= scale << bits:
                return False
            bound = scale * zero
            if point < bound:
                span = bound
            else:
                point -= bound
                span = scale * (np.uint64(1 << 24) - zero)
                cells[place] = 1
            span, point, used = refill(span, point, words, used)
        for line in range(first, last):  # counts change when all of the wavefront are known
            counts[contexts[line], cells[places[line] + t - start[line]]] += 1
    return True
