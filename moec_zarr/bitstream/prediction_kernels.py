"""The compiled encoder of `prediction`: the same words and bits as it has in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.kernels import rows_at, zero_frequency
from moec_zarr.compiled import compiled

__all__ = ["TOO_LARGE", "encode_errors", "measure", "renew_sums"]

Array = NDArray[Any]

TOO_LARGE = -1  # in place of a class: an error of 64 bits


@compiled()
def measure(
    values: Array, errors: Array, guesses: Array, marks: Array, known: Array, starts: Array, places: Array,
    columns: int, inside: Array, steps: Array, moves: Array, nearness: Array, repeats: bool, weights: Array,
    mean: int, common: int, blank: bool,
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
def encode_errors(
    values: Array, errors: Array, guesses: Array, marks: Array, known: Array, starts: Array, places: Array,
    columns: int, inside: Array, steps: Array, moves: Array, nearness: Array, repeats: bool, classes: int,
    lower: Array, width: Array, bits: Array,
) -> tuple[int, int]:  # fmt: skip
    """Encode the integers of a lattice, wavefront by wavefront, by what `measure` writes.

    Returns how many intervals were coded, and how many bits.
    """
    taps = steps.size
    flags = np.zeros((1 << 11, 2), np.int64)
    counts = np.full((96 * 7, classes), 2, np.int64)
    sums = np.empty((96 * 7, classes + 1), np.int64)
    totals = np.full(96 * 7, 2 * classes, np.int64)
    renewed = np.zeros(96 * 7, np.int64)
    here = np.empty(starts.size, np.int64)  # of each voxel of a wavefront: its row of the lattice
    table = np.empty(starts.size, np.int32)
    symbols = np.empty(starts.size, np.int32)
    coded, bit, first, last = 0, 0, 0, 0
    for t in range(starts[-1] + columns):
        first, last = rows_at(t, starts, columns, first, last)
        size = 0
        for line in range(first, last):
            if known[places[line] + t - starts[line]]:
                here[size] = line
                size += 1
        if repeats:
            for i in range(size):
                mark = marks[places[here[i]] + t - starts[here[i]]]
                zero = zero_frequency(flags[mark >> 1, 0], flags[mark >> 1, 1])
                lower[coded] = zero if mark & 1 else 0
                width[coded] = (1 << 24) - zero if mark & 1 else zero
                coded += 1
            for i in range(size):
                mark = marks[places[here[i]] + t - starts[here[i]]]
                flags[mark >> 1, mark & 1] += 1
        for i in range(size):
            line = here[i]
            column = t - starts[line]
            place = places[line] + column
            symbols[i] = -1
            if repeats and marks[place] & 1:
                continue
            activity, recent = 0, 0
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
            level = min(_class(activity), 95)
            row = 7 * level + min(max((_class(recent) - level + 8) >> 1, 0), 6)
            table[i] = row
            if 16 * totals[row] >= 17 * renewed[row]:
                renew_sums(counts[row], sums[row], totals[row])
                renewed[row] = totals[row]
            error = values[place] - guesses[place]
            size_of = abs(error)
            symbol = _class(size_of)
            symbols[i] = symbol
            lower[coded] = sums[row, symbol]
            width[coded] = sums[row, symbol + 1] - sums[row, symbol]
            coded += 1
            if symbol > 0:
                _put_bit(bits, bit, error < 0)
                bit += 1
                for below in range((symbol >> 1) - 2 if symbol > 3 else -1, -1, -1):
                    _put_bit(bits, bit, (size_of >> below) & 1)
                    bit += 1
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
def renew_sums(counts: Array, sums: Array, total: int) -> None:
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
