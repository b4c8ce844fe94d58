"""Compiled loops: the same words, integers and masks as `range_coder`, `coefficients` and `masks` have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.compiled import compiled

__all__ = ["CORRUPT", "EXCESS", "TOO_MANY", "decode_cells", "decode_wavefronts", "encode_intervals"]

Array = NDArray[Any]

# In place of a count: of invalid words, of an excess that is too large, of more coefficients than allowed.
CORRUPT, EXCESS, TOO_MANY = -1, -2, -3


@compiled()
def encode_intervals(
    lower: Array, width: Array, words: Array, used: int, low: Any, span: Any
) -> tuple[int, Any, Any]:
    """Encode intervals into the words from `used` on; return the state that follows."""
    bits, word_bits = np.uint64(24), np.uint64(32)
    for i in range(lower.size):
        scale = span >> bits
        before = low
        low += scale * np.uint64(lower[i])
        span = scale * np.uint64(width[i])
        if low < before:
            _carry(words, used)
        if span < np.uint64(1 << 32):
            words[used] = low >> word_bits
            used += 1
            low <<= word_bits
            span <<= word_bits
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
def _refill(span: Any, point: Any, words: Array, used: int) -> tuple[Any, Any, int]:
    """Read another word into the range coder's state if it needs one; beyond the last one stand zeros."""
    if span < np.uint64(1 << 32):
        word = np.uint64(words[used]) if used < words.size else np.uint64(0)
        return span << np.uint64(32), (point << np.uint64(32)) | word, used + 1
    return span, point, used


@compiled()
def _first_point(words: Array) -> Any:
    """Return what the range coder's first two words say."""
    point = np.uint64(words[0]) << np.uint64(32) if words.size else np.uint64(0)
    return point | np.uint64(words[1]) if words.size > 1 else point


@compiled()
def _take_bit(span: Any, point: Any, words: Array, used: int) -> tuple[int, Any, Any, int]:
    """Decode a bit that is as likely as not; -1 in its place if the words are invalid."""
    scale = span >> np.uint64(24)
    if point >= scale << np.uint64(24):
        return -1, span, point, used
    half, bit = scale << np.uint64(23), 0
    if point >= half:
        point, bit = point - half, 1
    span, point, used = _refill(half, point, words, used)
    return bit, span, point, used


@compiled()
def decode_wavefronts(
    words: Array, order: Array, ends: Array, octaves: Array, activity: Array, base: Array, logarithms: Array,
    parents: Array, parent_weight: int, strides: Array, slots: Array, reach: Array, depth: Array,
    weights: Array, rank: Array,
    zeros: Array, sums: Array, exact: int, symbols: int, largest_neighbour: int, largest: int, most: int,
) -> tuple[int, Array]:  # fmt: skip
    """Decode coefficients; return how many are not zero, or what is wrong, and where they stand in the order.

    The arrays are those of `Activity`; `zeros` has the frequency of zero in each class, `sums` those of all
    magnitudes below each one. The integers take the place of the activity, which no decoded coefficient
    needs any more.
    """
    bits = np.uint64(24)
    axes, count = strides.size, order.size
    ranks = np.empty(count, np.int32)  # memory is taken as it is used
    chosen = np.empty(count, np.uint8)
    span, point = np.uint64(0xFFFFFFFFFFFFFFFF), _first_point(words)
    used, total = 2, 0
    index = np.empty(axes, np.int64)
    first = 0
    for end in ends:
        start = total
        for last in range(first, end):
            value = activity[last]
            if parent_weight and parents[last] < count:
                value += parent_weight * min(activity[parents[last]], largest_neighbour)
            fine = (logarithms[value if value < exact else exact + (value >> 8)] + base[octaves[last]]) >> 7
            number = min(max(fine, 0), 63)
            scale = span >> bits
            if point >= scale << bits:
                return CORRUPT, ranks
            bound = scale * np.uint64(zeros[number])
            if point < bound:
                span = bound
                activity[last] = 0
            else:
                point -= bound
                span = scale * np.uint64((1 << 24) - zeros[number])
                ranks[total] = last
                chosen[total] = number
                total += 1
            span, point, used = _refill(span, point, words, used)
        if total > most:
            return TOO_MANY, ranks
        for i in range(start, total):
            magnitude = 1
            if symbols > 1:
                scale = span >> bits
                if point >= scale << bits:
                    return CORRUPT, ranks
                number = chosen[i]
                while point >= scale * np.uint64(sums[number, magnitude]):
                    magnitude += 1
                low = np.uint64(sums[number, magnitude - 1])
                point -= scale * low
                span = scale * (np.uint64(sums[number, magnitude]) - low)
                span, point, used = _refill(span, point, words, used)
            activity[ranks[i]] = magnitude
        if symbols == 63:
            for i in range(start, total):
                if activity[ranks[i]] < 63:
                    continue
                start_length = max(chosen[i] // 4 - 5, 0)
                length = start_length
                bit, span, point, used = _take_bit(span, point, words, used)
                while bit == 1:
                    length += 1
                    if length > 23:
                        return EXCESS, ranks
                    bit, span, point, used = _take_bit(span, point, words, used)
                scale = span >> bits
                if bit < 0 or point >= scale << bits:
                    return CORRUPT, ranks
                span = scale << np.uint64(24 - length)
                number = point // span
                point -= number * span
                span, point, used = _refill(span, point, words, used)
                excess = np.int64(number) + (1 << length) - (1 << start_length)
                if excess > largest - 63:
                    return EXCESS, ranks
                activity[ranks[i]] += excess
        for i in range(start, total):
            rest, deep = order[ranks[i]], 1 << 30
            seen = min(activity[ranks[i]], largest_neighbour)
            for axis in range(axes):
                index[axis] = rest // strides[axis]
                rest -= index[axis] * strides[axis]
                deep = min(deep, depth[axis, index[axis]])
            for slot in range(slots.shape[0]):
                axis = slots[slot, 0]
                step = reach[slot, deep, index[axis]]
                if step:
                    activity[rank[order[ranks[i]] + step * strides[axis]]] += weights[slot] * seen
        first = end
    for i in range(total):
        bit, span, point, used = _take_bit(span, point, words, used)
        if bit < 0:
            return CORRUPT, ranks
        if bit:
            activity[ranks[i]] *= -1
    return total, ranks


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
    span, point = np.uint64(0xFFFFFFFFFFFFFFFF), _first_point(words)
    used, first, last = 2, 0, 0
    length = start[-1] + columns if start.size and columns else 0
    for t in range(length):
        while last < start.size and start[last] <= t:
            last += 1
        while first < last and start[first] + columns <= t:
            first += 1
        for line in range(first, last):
            place, context = places[line] + t - start[line], 0
            for neighbour in neighbours:
                context = 2 * context + cells[place + neighbour]
            contexts[line] = context
            ones, both = counts[context, 1], counts[context, 0] + counts[context, 1]
            chance = min(max(((2 * ones + 1) << 16) // (2 * both + 2), 1), (1 << 16) - 1) << 8
            scale = span >> bits
            if point >= scale << bits:
                return False
            zero = 1 + ((((1 << 24) - chance) * ((1 << 24) - 2)) >> 24)
            bound = scale * np.uint64(zero)
            if point < bound:
                span = bound
            else:
                point -= bound
                span = scale * np.uint64((1 << 24) - zero)
                cells[place] = 1
            span, point, used = _refill(span, point, words, used)
        for line in range(first, last):  # counts change when all of the wavefront are known
            counts[contexts[line], cells[places[line] + t - start[line]]] += 1
    return True
