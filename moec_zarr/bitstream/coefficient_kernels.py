"""Compiled loops over the wavefronts of a `Grid`: coefficients to words of the range coder, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.coding_order import ABSENT
from moec_zarr.bitstream.contexts import EXACT_LOGARITHMS, LARGEST_SYMBOL, MAX_COEFFICIENT, MAX_NEIGHBOUR
from moec_zarr.bitstream.kernels import encode_one, first_point, refill, take_bit
from moec_zarr.compiled import compiled

__all__ = ["CORRUPT", "EXCESS", "TOO_MANY", "class_of", "decode_grid", "encode_grid"]

Array = NDArray[Any]

# In place of a count: of invalid words, of an excess that is too large, of more coefficients than allowed.
CORRUPT, EXCESS, TOO_MANY = -1, -2, -3
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
def _add(grid: Any, state: Array, values: Array, places: Array, start: int, end: int) -> None:
    """Add the magnitudes of the values at some places to the activity of whatever they are neighbours of."""
    strides, depth, slots, reach = grid.strides, grid.depth, grid.slots, grid.reach
    weights = grid.weights
    index = np.empty(strides.size, np.int64)
    for i in range(start, end):
        rest, deep = np.int64(places[i]), 1 << 30
        seen = min(abs(values[rest]), MAX_NEIGHBOUR)
        place = rest
        for axis in range(strides.size):
            index[axis] = rest // strides[axis]
            rest -= index[axis] * strides[axis]
            deep = min(deep, depth[axis, index[axis]])
        for slot in range(slots.shape[0]):
            axis = slots[slot, 0]
            step = reach[slot, deep, index[axis]]
            if step:
                state[place + step * strides[axis]] += weights[slot] * seen


@compiled()
def _grounds(grid: Any) -> Array:
    """Return the activity of each coefficient whose context neighbours are zero."""
    state = np.empty(grid.octaves.size, np.int32)
    for place in range(state.size):
        state[place] = grid.ground[grid.octaves[place]]
    return state


@compiled()
def decode_grid(
    words: Array, grid: Any, zeros: Array, sums: Array, symbols: int, most: int
) -> tuple[int, Array]:
    """Decode coefficients; return how many are not zero, or what is wrong, and all of them, flat.

    `zeros` has the frequency of zero in each class, `sums` those of all magnitudes below each one. The
    integers take the place of the activity, which no decoded coefficient needs any more.
    """
    bits = np.uint64(24)
    state = _grounds(grid)
    places = np.empty(state.size, np.int32)  # memory is taken as it is used
    chosen = np.empty(state.size, np.uint8)
    octaves, length, rows, starts = grid.octaves, grid.length, grid.rows, grid.starts
    firsts, lasts, row_depths, depth = grid.firsts, grid.lasts, grid.row_depths, grid.depth[-1]
    row_parents, parents, parent_weight = grid.row_parents, grid.parents, grid.parent_weight
    base, power = grid.base, grid.power
    span, point = np.uint64(0xFFFFFFFFFFFFFFFF), first_point(words)
    used, total, first, last = 2, 0, 0, 0
    for t in range(starts[-1] + length):
        while last < starts.size and starts[last] <= t:
            last += 1
        while first < last and starts[first] + length <= t:
            first += 1
        start = total
        for row in range(first, last):
            at = t - starts[row]
            if at < firsts[row] or at >= lasts[row]:
                continue
            place = rows[row] + at
            octave = octaves[place]
            if octave == ABSENT:
                continue
            value = state[place]
            if parent_weight:
                deep = min(row_depths[row], depth[at])
                if deep < parents.shape[0]:
                    parent = row_parents[row, deep] + parents[deep, at]
                    if octaves[parent] != ABSENT:
                        value += parent_weight * min(state[parent], MAX_NEIGHBOUR)
            number = class_of(value, base[octave], power)
            scale = span >> bits
            if point >= scale << bits:
                return CORRUPT, state
            bound = scale * np.uint64(zeros[number])
            if point < bound:
                span = bound
                state[place] = 0
            else:
                point -= bound
                span = scale * np.uint64((1 << 24) - zeros[number])
                places[total] = place
                chosen[total] = number
                total += 1
            span, point, used = refill(span, point, words, used)
        if total > most:
            return TOO_MANY, state
        for i in range(start, total):
            magnitude = 1
            if symbols > 1:
                scale = span >> bits
                if point >= scale << bits:
                    return CORRUPT, state
                number = chosen[i]
                while point >= scale * np.uint64(sums[number, magnitude]):
                    magnitude += 1
                low = np.uint64(sums[number, magnitude - 1])
                point -= scale * low
                span = scale * (np.uint64(sums[number, magnitude]) - low)
                span, point, used = refill(span, point, words, used)
            state[places[i]] = magnitude
        if symbols == LARGEST_SYMBOL:
            for i in range(start, total):
                if state[places[i]] < LARGEST_SYMBOL:
                    continue
                order: Any = max(np.int64(chosen[i]) // 4 - 5, 0)
                size = order
                bit, span, point, used = take_bit(span, point, words, used)
                while bit == 1:
                    size += 1
                    if size > 23:
                        return EXCESS, state
                    bit, span, point, used = take_bit(span, point, words, used)
                scale = span >> bits
                if bit < 0 or point >= scale << bits:
                    return CORRUPT, state
                span = scale << np.uint64(24 - size)
                rest = point // span
                point -= rest * span
                span, point, used = refill(span, point, words, used)
                excess = np.int64(rest) + (1 << size) - (1 << order)
                if excess > MAX_COEFFICIENT - LARGEST_SYMBOL:
                    return EXCESS, state
                state[places[i]] += excess
        if total > start:
            _add(grid, state, state, places, start, total)
    for i in range(total):
        bit, span, point, used = take_bit(span, point, words, used)
        if bit < 0:
            return CORRUPT, state
        if bit:
            state[places[i]] *= -1
    for place in range(state.size):  # to which others have added
        if octaves[place] == ABSENT:
            state[place] = 0
    return total, state


@compiled()
def encode_grid(
    values: Array, grid: Any, zeros: Array, sums: Array, symbols: int
) -> tuple[Array, int, Any, Any]:
    """Encode coefficients, which are flat; return words, how many of them are used, and the coder's state.

    The other arguments are those of `decode_grid`.
    """
    state = _grounds(grid)
    octaves, length, rows, starts = grid.octaves, grid.length, grid.rows, grid.starts
    firsts, lasts, row_depths, depth = grid.firsts, grid.lasts, grid.row_depths, grid.depth[-1]
    row_parents, parents, parent_weight = grid.row_parents, grid.parents, grid.parent_weight
    base, power = grid.base, grid.power
    places = np.empty(values.size, np.int32)  # memory is taken as it is used
    total = 0
    for place in range(values.size):
        if values[place]:
            places[total] = place
            total += 1
    _add(grid, state, values, places, 0, total)
    chosen = np.empty(total, np.uint8)
    # 24 bits a symbol at most; an excess takes three times that.
    words = np.empty(3 * values.size // 4 + 4 * total + 4, np.uint32)
    low, span = np.uint64(0), np.uint64(0xFFFFFFFFFFFFFFFF)
    used, total, first, last = 0, 0, 0, 0
    for t in range(starts[-1] + length):
        while last < starts.size and starts[last] <= t:
            last += 1
        while first < last and starts[first] + length <= t:
            first += 1
        start = total
        for row in range(first, last):
            at = t - starts[row]
            if at < firsts[row] or at >= lasts[row]:
                continue
            place = rows[row] + at
            octave = octaves[place]
            if octave == ABSENT:
                continue
            value = state[place]
            if parent_weight:
                deep = min(row_depths[row], depth[at])
                if deep < parents.shape[0]:
                    parent = row_parents[row, deep] + parents[deep, at]
                    if octaves[parent] != ABSENT:
                        value += parent_weight * min(abs(values[parent]), MAX_NEIGHBOUR)
            number = class_of(value, base[octave], power)
            zero = np.uint64(zeros[number])
            if values[place]:
                places[total] = place
                chosen[total] = number
                total += 1
                used, low, span = encode_one(zero, np.uint64(1 << 24) - zero, words, used, low, span)
            else:
                used, low, span = encode_one(_NONE, zero, words, used, low, span)
        if symbols > 1:
            for i in range(start, total):
                symbol = min(abs(values[places[i]]), symbols) - 1
                below = np.uint64(sums[chosen[i], symbol])
                width = np.uint64(sums[chosen[i], symbol + 1]) - below
                used, low, span = encode_one(below, width, words, used, low, span)
        if symbols == LARGEST_SYMBOL:
            for i in range(start, total):
                excess = abs(values[places[i]]) - LARGEST_SYMBOL
                if excess < 0:
                    continue
                # An Exp-Golomb code: a flag for each bit beyond the order, one that ends them, and the bits.
                order: Any = max(np.int64(chosen[i]) // 4 - 5, 0)
                number, size = np.int64(excess + (1 << order)), order
                while number >> (size + 1):
                    size += 1
                    used, low, span = encode_one(_HALF, _HALF, words, used, low, span)
                used, low, span = encode_one(_NONE, _HALF, words, used, low, span)
                unit = np.uint64(1 << (24 - size))
                rest = np.uint64(number - (1 << size))
                used, low, span = encode_one(rest * unit, unit, words, used, low, span)
    for i in range(total):
        bit = _HALF if values[places[i]] < 0 else _NONE
        used, low, span = encode_one(bit, _HALF, words, used, low, span)
    return words, used, low, span
