"""The compiled loop of `prediction`: the same words, bits and integers as it has in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.compiled import compiled

__all__ = ["CORRUPT", "DECODE", "ENCODE", "TOO_LARGE", "follow", "measure"]

Array = NDArray[Any]

ENCODE, DECODE = 0, 1
CORRUPT, TOO_LARGE = -1, -2  # in place of a count: invalid words or too few bits; an error of 64 bits


@compiled()
def measure(
    values: Array, errors: Array, guesses: Array, marks: Array, known: Array, starts: Array, places: Array,
    columns: int, inside: Array, steps: Array, moves: Array, nearness: Array, weights: Array, mean: int,
    common: int, repeats: bool, blank: bool,
) -> int:  # fmt: skip
    """Predict the integers of a lattice, which are known, and return the largest class of an error.

    Errors and guesses are written to their places; where values repeat, twice the context of the flag and the
    flag are written to `marks`.
    """
    taps, largest = steps.size, 0
    there, seen = np.empty(taps, np.uint8), np.empty(taps, np.int64)
    for line in range(places.size):
        for column in range(columns):
            place = places[line] + column
            if not known[place]:
                continue
            repeated = False
            if repeats:
                value, context = _find_repeated(
                    values, known, place, column, columns, inside[line], steps, moves, common, there, seen
                )
                repeated = values[place] == value
                marks[place] = 2 * context + repeated
            base, found, total = mean, False, 0
            for tap in range(taps):
                if found and not weights[tap]:
                    continue
                beside = column + moves[tap]
                if not (inside[line, tap] and 0 <= beside < columns):
                    continue
                at = place + steps[tap]
                if not known[at] or (blank and values[at] == common):
                    continue
                if not found:
                    base, found = values[at], True
                else:
                    total += weights[tap] * min(max(values[at] - base, -(1 << 40)), 1 << 40)
            guess = base + ((total + 512) >> 10)
            size = abs(values[place] - guess)
            if not repeated:
                if size < 0:
                    return TOO_LARGE
                largest = max(largest, _class(size))
            guesses[place] = guess
            errors[place] = 1 << 30 if size < 0 else min(size, 1 << 30)
            if blank and values[place] == common:
                errors[place] = 0
    return largest


@compiled()
def _find_repeated(
    values: Array, known: Array, place: int, column: int, columns: int, inside: Array, steps: Array,
    moves: Array, common: int, there: Array, seen: Array,
) -> tuple[int, int]:  # fmt: skip
    """Find the value that most neighbours have, and a number that says which ones.

    `there` and `seen` are written over, and have room for the neighbours.
    """
    witnesses = min(steps.size, 10)
    for tap in range(witnesses):
        beside = column + moves[tap]
        there[tap] = inside[tap] and 0 <= beside < columns and known[place + steps[tap]]
        seen[tap] = values[place + steps[tap]] if there[tap] else 0
    value, most = common, 0
    for tap in range(min(steps.size, 6)):
        if there[tap]:
            alike = 0
            for other in range(witnesses):
                alike += there[other] and seen[other] == seen[tap]
            if alike > most:
                value, most = seen[tap], alike
    context = 0
    for tap in range(witnesses):
        context = 2 * context + (there[tap] and seen[tap] == value)
    return value, 2 * context + (value == common)


@compiled()
def follow(
    direction: int, values: Array, errors: Array, guesses: Array, marks: Array, known: Array, starts: Array,
    places: Array, columns: int, inside: Array, steps: Array, moves: Array, nearness: Array, weights: Array,
    mean: int, common: int, repeats: bool, blank: bool, classes: int, lower: Array, width: Array,
    words: Array, bits: Array,
) -> tuple[int, int]:  # fmt: skip
    """Encode or decode the integers of a lattice, wavefront by wavefront.

    Encoding takes the errors, guesses and marks that `measure` writes. Returns how many intervals were coded,
    or what is wrong, and how many bits.
    """
    taps = steps.size
    flags = np.zeros((1 << 11, 2), np.int64)
    counts = np.full((96 * 7, classes), 2, np.int64)
    sums = np.empty((96 * 7, classes + 1), np.int64)
    totals = np.full(96 * 7, 2 * classes, np.int64)
    renewed = np.zeros(96 * 7, np.int64)
    here = np.empty(starts.size, np.int64)  # of each voxel of a wavefront: its row of the lattice
    contexts = np.empty(starts.size, np.int32)
    repeated = np.empty(starts.size, np.uint8)
    table = np.empty(starts.size, np.int32)
    symbols = np.empty(starts.size, np.int32)
    there, seen = np.empty(taps, np.uint8), np.empty(taps, np.int64)
    span, point, used = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0), 2
    if direction == DECODE:
        point = np.uint64(words[0]) << np.uint64(32) if words.size else np.uint64(0)
        if words.size > 1:
            point |= np.uint64(words[1])
    coded, bit, first, last = 0, 0, 0, 0
    for t in range(starts[-1] + columns):
        while last < starts.size and starts[last] <= t:
            last += 1
        while first < last and starts[first] + columns <= t:
            first += 1
        size = 0
        for line in range(first, last):
            if known[places[line] + t - starts[line]]:
                here[size] = line
                size += 1
        if repeats:
            for i in range(size):
                line = here[i]
                column = t - starts[line]
                place = places[line] + column
                if direction == ENCODE:
                    repeated[i], context = marks[place] & 1, marks[place] >> 1
                else:
                    value, context = _find_repeated(
                        values, known, place, column, columns, inside[line], steps, moves, common, there, seen
                    )
                contexts[i] = context
                ones, both = flags[context, 1], flags[context, 0] + flags[context, 1]
                chance = min(max(((2 * ones + 1) << 16) // (2 * both + 2), 1), (1 << 16) - 1) << 8
                zero = 1 + ((((1 << 24) - chance) * ((1 << 24) - 2)) >> 24)
                if direction == ENCODE:
                    lower[coded] = zero if repeated[i] else 0
                    width[coded] = (1 << 24) - zero if repeated[i] else zero
                    coded += 1
                    continue
                scale = span >> np.uint64(24)
                if point >= scale << np.uint64(24):
                    return CORRUPT, bit
                bound = scale * np.uint64(zero)
                if point < bound:
                    span = bound
                    repeated[i] = 0
                else:
                    point -= bound
                    span = scale * np.uint64((1 << 24) - zero)
                    repeated[i] = 1
                    values[place] = value
                if span < np.uint64(1 << 32):
                    word = np.uint64(words[used]) if used < words.size else np.uint64(0)
                    span, point, used = span << np.uint64(32), (point << np.uint64(32)) | word, used + 1
            for i in range(size):
                flags[contexts[i], repeated[i]] += 1
        for i in range(size):
            line = here[i]
            if direction == ENCODE and repeats and repeated[i]:
                symbols[i] = -1
                continue
            column = t - starts[line]
            place = places[line] + column
            base, found = mean, False
            total, activity, recent = 0, 0, 0
            for tap in range(taps):
                beside = column + moves[tap]
                if not (inside[line, tap] and 0 <= beside < columns):
                    continue
                at = place + steps[tap]
                if not known[at]:
                    continue
                activity += nearness[tap] * errors[at]
                if tap == 0:
                    recent = 16 * errors[at]
                if direction == ENCODE or (blank and values[at] == common):
                    continue
                if not found:
                    base, found = values[at], True
                elif weights[tap]:
                    step = min(max(values[at] - base, -(1 << 40)), 1 << 40)
                    total += weights[tap] * step
            guess = guesses[place] if direction == ENCODE else base + ((total + 512) >> 10)
            if repeats and repeated[i]:
                symbols[i] = -1
            else:
                level = min(_class(activity), 95)
                row = 7 * level + min(max((_class(recent) - level + 8) >> 1, 0), 6)
                table[i] = row
                if 16 * totals[row] >= 17 * renewed[row]:
                    _renew(counts[row], sums[row], totals[row])
                    renewed[row] = totals[row]
                if direction == ENCODE:
                    error = values[place] - guess
                    size_of = abs(error)
                    symbol = _class(size_of)
                    lower[coded] = sums[row, symbol]
                    width[coded] = sums[row, symbol + 1] - sums[row, symbol]
                    coded += 1
                    if symbol > 0:
                        _put_bit(bits, bit, error < 0)
                        bit += 1
                        for below in range((symbol >> 1) - 2 if symbol > 3 else -1, -1, -1):
                            _put_bit(bits, bit, (size_of >> below) & 1)
                            bit += 1
                else:
                    scale = span >> np.uint64(24)
                    if point >= scale << np.uint64(24):
                        return CORRUPT, bit
                    symbol = 0
                    while point >= scale * np.uint64(sums[row, symbol + 1]):
                        symbol += 1
                    point -= scale * np.uint64(sums[row, symbol])
                    span = scale * np.uint64(sums[row, symbol + 1] - sums[row, symbol])
                    if span < np.uint64(1 << 32):
                        word = np.uint64(words[used]) if used < words.size else np.uint64(0)
                        span, point, used = span << np.uint64(32), (point << np.uint64(32)) | word, used + 1
                    error = np.int64(min(symbol, 3))
                    if symbol > 0:
                        length = (symbol >> 1) - 1 if symbol > 3 else 0
                        if bit + 1 + length > 8 * bits.size:
                            return CORRUPT, bit
                        negative = _bit(bits, bit)
                        bit += 1
                        if symbol > 3:
                            error = np.int64(2 + (symbol & 1))
                        for _ in range(length):
                            error = 2 * error + _bit(bits, bit)
                            bit += 1
                        if negative:
                            error = -error
                    values[place] = guess + error
                symbols[i] = symbol
            if direction == ENCODE:
                continue
            if not (blank and values[place] == common):
                off = abs(values[place] - guess)
                errors[place] = min(off, 1 << 30) if off >= 0 else 1 << 30
            else:
                errors[place] = 0
        for i in range(size):
            if symbols[i] >= 0:
                counts[table[i], symbols[i]] += 5
                totals[table[i]] += 5
    return coded, bit


@compiled()
def _class(size: int) -> int:
    """Return the half octave of a size."""
    if size < 4:
        return size
    octave, rest = 2, size >> 2
    if rest >> 32:
        octave, rest = octave + 32, rest >> 32
    if rest >> 16:
        octave, rest = octave + 16, rest >> 16
    if rest >> 8:
        octave, rest = octave + 8, rest >> 8
    while rest > 1:
        octave, rest = octave + 1, rest >> 1
    return 2 * octave + ((size >> (octave - 1)) & 1)


@compiled()
def _renew(counts: Array, sums: Array, total: int) -> None:
    """Make frequencies of counts."""
    whole, above = (1 << 24) - counts.size, 0
    for symbol in range(counts.size - 1, 0, -1):
        above += 1 + counts[symbol] * whole // total
        sums[symbol] = (1 << 24) - above
    sums[0], sums[counts.size] = 0, 1 << 24


@compiled()
def _put_bit(bits: Array, at: int, value: int) -> None:
    if value:
        bits[at >> 3] |= np.uint8(128 >> (at & 7))


@compiled()
def _bit(bits: Array, at: int) -> Any:
    return (bits[at >> 3] >> (7 - (at & 7))) & 1
