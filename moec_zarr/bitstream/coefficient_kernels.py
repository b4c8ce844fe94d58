"""Compiled loops over the wavefronts of a `Grid`: coefficients to words of the range coder, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.coding_order import ABSENT
from moec_zarr.bitstream.contexts import EXACT_LOGARITHMS, LARGEST_SYMBOL, MAX_COEFFICIENT, MAX_NEIGHBOUR
from moec_zarr.bitstream.kernels import encode_one, first_point, refill, rows_at, take_bit
from moec_zarr.compiled import compiled

__all__ = ["CORRUPT", "EXCESS", "TOO_MANY", "class_of", "decode_grid", "encode_grid", "mark_bands"]

Array = NDArray[Any]

# In place of a count: of invalid words, of an excess that is too large, of more coefficients than allowed.
CORRUPT, EXCESS, TOO_MANY = -1, -2, -3
_index = np.uint64  # which cannot be negative: compiled code need not ask whether it counts from the end
_NONE, _HALF = np.uint64(0), np.uint64(1 << 23)  # of one type, for which the coder is compiled once


@compiled()
def class_of(activity: Any, base: Any, power: Any) -> Any:
    """Return the class of an activity.

    `contexts.logarithms` has its logarithm in a table: that is the upper part of a float's bits, whose
    exponent counts octaves and whose next three bits count eighths.
    """
    value = activity if activity < EXACT_LOGARITHMS else (activity >> 8) << 8
    eighths = (np.int32(np.float32(max(value, 1)).view(np.int32)) >> 20) - 1016
    return min(max((power * eighths + base) >> 7, 0), 63)


@compiled()
def mark_bands(values: Array, rows: Array, bands: Array, present: Array) -> None:
    """Mark the bands that hold a value that is not zero.

    Parameters
    ----------
    values : int32 array, shape (rows, length)
    rows, bands : int64 array
        The band of each row, and of each column.
    present : bool array, shape (bands of rows, bands of columns)
    """
    for row in range(values.shape[0]):
        marks = present[_index(rows[row])]
        for at in range(values.shape[1]):
            if values[row, at]:
                marks[_index(bands[at])] = True


@compiled()
def _wavefronts(grid: Any) -> tuple[Array, Array, Array]:
    """Return of each wavefront its first row and the one behind its last, and where its row 0 would stand.

    Coefficients stand by wavefronts here, and by rows on each: then all loops below read on and on.
    """
    starts, length = grid.starts, grid.length
    count = starts[-1] + length
    firsts, lasts, origins = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    first, last, end = 0, 0, 0
    for t in range(count):
        first, last = rows_at(t, starts, length, first, last)
        firsts[t], lasts[t], origins[t] = first, last, end - first
        end += last - first
    return firsts, lasts, origins


@compiled()
def _add(grid: Any, state: Array, origins: Array, t: int, found: Array, magnitudes: Array) -> None:
    """Add magnitudes of a wavefront to the activity of whatever these coefficients are neighbours of."""
    rows, ranks, starts, indices, strides = grid.rows, grid.ranks, grid.starts, grid.indices, grid.strides
    reach, weights, row_depths, depths = grid.reach, grid.weights, grid.row_depths, grid.depths
    last, slots = _index(strides.size), _index(reach.shape[3])
    for i in range(magnitudes.size):
        row, seen = _index(found[0, i]), min(abs(magnitudes[i]), MAX_NEIGHBOUR)
        at = _index(t - starts[row])
        deep = _index(min(row_depths[row], depths[at]))
        for axis in range(last):
            steps, stride = reach[axis, deep, _index(indices[row, axis])], strides[axis]
            for slot in range(slots):
                step = steps[slot]
                if step:
                    other = ranks[_index(rows[row] + step * stride)]
                    if other >= 0:
                        place = _index(origins[_index(t + step)] + other)
                        state[place] += weights[axis, slot] * seen
        steps = reach[last, deep, at]
        for slot in range(slots):
            step = steps[slot]
            if step:
                state[_index(origins[_index(t + step)] + np.int64(row))] += weights[last, slot] * seen


@compiled()
def _classify(
    grid: Any, state: Array, values: Array, origins: Array, t: int, first: int, last: int, found: Array
) -> Any:
    """Find the coefficients of a wavefront among some rows: rows and classes; return how many.

    `values` are those of all wavefronts before, `state` the sums of weighted neighbours.
    """
    patterns, pattern, starts = grid.patterns, grid.pattern, grid.starts
    row_depths, depths = grid.row_depths, grid.depths
    row_parents, parents, parent_weight = grid.row_parents, grid.parents, grid.parent_weight
    ground, base, power = grid.ground, grid.base, grid.power
    count, origin = _index(0), origins[t]
    for row in range(_index(first), _index(last)):
        at = _index(t - starts[row])
        octave = patterns[_index(pattern[row]), at]
        if octave == ABSENT:
            continue
        value = state[_index(origin + np.int64(row))] + ground[octave]
        if parent_weight:
            deep = _index(min(row_depths[row], depths[at]))
            if deep < _index(parents.shape[0]):
                parent = row_parents[row, deep]
                if parent >= 0:
                    place = origins[_index(starts[_index(parent)] + parents[deep, at])] + parent
                    value += parent_weight * min(abs(values[_index(place)]), MAX_NEIGHBOUR)
        found[0, count] = row
        found[1, count] = class_of(value, base[octave], power)
        count += _index(1)
    return count


@compiled()
def decode_grid(
    words: Array, grid: Any, zeros: Array, sums: Array, smallest: Array, symbols: int, most: int
) -> tuple[int, Array]:
    """Decode coefficients; return how many are not zero, or what is wrong, and all of them, flat.

    Parameters
    ----------
    words : uint32 array
    grid : Grid
    zeros : int64 array
        The frequency of zero in each class.
    sums : int64 array
        In each class those of all magnitudes below each one.
    smallest : uint8 array, shape (classes, 256)
        The smallest magnitude that may stand where the frequencies below it have these upper bits.
    symbols : int
        The largest magnitude that has a frequency of its own.
    most : int
        Coefficients that are not zero, at most.
    """
    bits = np.uint64(24)
    rows, starts, length, parent_weight = grid.rows, grid.starts, grid.length, grid.parent_weight
    firsts, lasts, origins = _wavefronts(grid)
    values = np.zeros(grid.ranks.size * length, np.int32)
    state = np.zeros(rows.size * length, np.int32)
    seen = np.zeros(state.size if parent_weight else 0, np.int16)
    places, magnitudes = np.empty(state.size, np.int32), np.empty(state.size, np.int32)  # taken as used
    found = np.empty((2, rows.size), np.int32)
    span, point = np.uint64(0xFFFFFFFFFFFFFFFF), first_point(words)
    used, total = 2, 0
    for t in range(firsts.size):
        count, some = _classify(grid, state, seen, origins, t, firsts[t], lasts[t], found), 0
        for i in range(count):
            number = _index(found[1, i])
            zero = np.uint64(zeros[number])
            scale = span >> bits
            if point >= scale << bits:
                return CORRUPT, values
            bound = scale * zero
            if point < bound:
                span = bound
            else:
                point -= bound
                span = scale * (np.uint64(1 << 24) - zero)
                found[0, some], found[1, some] = found[0, i], number
                some += 1
            span, point, used = refill(span, point, words, used)
        if total + some > most:
            return TOO_MANY, values
        for i in range(some):
            magnitude: Any = 1
            if symbols > 1:
                scale = span >> bits
                if point >= scale << bits:
                    return CORRUPT, values
                own = sums[_index(found[1, i])]
                magnitude = np.int64(smallest[_index(found[1, i]), point // (scale << np.uint64(16))])
                while point >= scale * np.uint64(own[_index(magnitude)]):
                    magnitude += 1
                low = np.uint64(own[_index(magnitude - 1)])
                point -= scale * low
                span = scale * (np.uint64(own[_index(magnitude)]) - low)
                span, point, used = refill(span, point, words, used)
            magnitudes[total + i] = magnitude
        if symbols == LARGEST_SYMBOL:
            for i in range(some):
                if magnitudes[total + i] < LARGEST_SYMBOL:
                    continue
                order: Any = max(np.int64(found[1, i]) // 4 - 5, 0)
                size = order
                bit, span, point, used = take_bit(span, point, words, used)
                while bit == 1:
                    size += 1
                    if size > 23:
                        return EXCESS, values
                    bit, span, point, used = take_bit(span, point, words, used)
                scale = span >> bits
                if bit < 0 or point >= scale << bits:
                    return CORRUPT, values
                span = scale << np.uint64(24 - size)
                rest = point // span
                point -= rest * span
                span, point, used = refill(span, point, words, used)
                excess = np.int64(rest) + (1 << size) - (1 << order)
                if excess > MAX_COEFFICIENT - LARGEST_SYMBOL:
                    return EXCESS, values
                magnitudes[total + i] += excess
        _add(grid, state, origins, t, found, magnitudes[total : total + some])
        for i in range(some):
            row = _index(found[0, i])
            if parent_weight:
                seen[_index(origins[t] + np.int64(row))] = min(magnitudes[total], MAX_NEIGHBOUR)
            places[total] = rows[row] * length + t - starts[row]
            total += 1
    for i in range(total):
        bit, span, point, used = take_bit(span, point, words, used)
        if bit < 0:
            return CORRUPT, values
        values[_index(places[i])] = -magnitudes[i] if bit else magnitudes[i]
    return total, values


@compiled()
def encode_grid(
    values: Array, grid: Any, zeros: Array, sums: Array, symbols: int
) -> tuple[Array, int, Any, Any]:
    """Encode coefficients, which are flat; return words, how many of them are used, and the coder's state.

    The other arguments are those of `decode_grid`.
    """
    rows, starts, length = grid.rows, grid.starts, grid.length
    firsts, lasts, origins = _wavefronts(grid)
    state, own = np.zeros(rows.size * length, np.int32), np.zeros(rows.size * length, np.int32)
    total = 0
    for row in range(rows.size):
        line = values[rows[row] * length : (rows[row] + 1) * length]
        for at in range(length):
            if line[at]:
                own[origins[starts[row] + at] + row] = line[at]
                total += 1
    found, signed = np.empty((2, rows.size), np.int32), np.empty(total, np.int32)
    # 24 bits a symbol at most; an excess takes three times that.
    words = np.empty(3 * state.size // 4 + 4 * total + 4, np.uint32)
    low, span = np.uint64(0), np.uint64(0xFFFFFFFFFFFFFFFF)
    used, total = 0, 0
    for t in range(firsts.size):
        count, some = _classify(grid, state, own, origins, t, firsts[t], lasts[t], found), 0
        for i in range(count):
            number = _index(found[1, i])
            zero = np.uint64(zeros[number])
            value = own[_index(origins[t] + found[0, i])]
            if value:
                used, low, span = encode_one(zero, np.uint64(1 << 24) - zero, words, used, low, span)
                signed[total + some], found[0, some], found[1, some] = value, found[0, i], number
                some += 1
            else:
                used, low, span = encode_one(_NONE, zero, words, used, low, span)
        if symbols > 1:
            for i in range(some):
                number, symbol = found[1, i], min(abs(signed[total + i]), symbols) - 1
                below = np.uint64(sums[number, symbol])
                width = np.uint64(sums[number, symbol + 1]) - below
                used, low, span = encode_one(below, width, words, used, low, span)
        if symbols == LARGEST_SYMBOL:
            for i in range(some):
                excess = abs(signed[total + i]) - LARGEST_SYMBOL
                if excess < 0:
                    continue
                # An Exp-Golomb code: a flag for each bit beyond the order, one that ends them, and the bits.
                order: Any = max(np.int64(found[1, i]) // 4 - 5, 0)
                coded, size = np.int64(excess + (1 << order)), order
                while coded >> (size + 1):
                    size += 1
                    used, low, span = encode_one(_HALF, _HALF, words, used, low, span)
                used, low, span = encode_one(_NONE, _HALF, words, used, low, span)
                unit = np.uint64(1 << (24 - size))
                rest = np.uint64(coded - (1 << size))
                used, low, span = encode_one(rest * unit, unit, words, used, low, span)
        _add(grid, state, origins, t, found, signed[total : total + some])
        total += some
    for i in range(total):
        bit = _HALF if signed[i] < 0 else _NONE
        used, low, span = encode_one(bit, _HALF, words, used, low, span)
    return words, used, low, span
