"""The compiled decoder of `prediction`: what neighbours say is worked out for many voxels at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Integers
from moec_zarr.bitstream.kernels import first_point, refill, rows_at, zero_frequency
from moec_zarr.bitstream.lattice import Lattice, neighbours
from moec_zarr.bitstream.prediction_kernels import renew_sums
from moec_zarr.compiled import compiled

__all__ = ["CORRUPT", "TOO_WIDE", "decode_as"]

Array = NDArray[Any]

# In place of a number of bits: invalid words or too few bits; an integer does not fit.
CORRUPT, TOO_WIDE = -1, -2
_WAITING = -1  # in place of an error: where an integer is coded that is not decoded yet
_BORDER = 2  # how far neighbours are along an axis, at most
_LANES = 256  # voxels that each loop runs over: what they take stays in the nearest cache


def decode_as(
    dtype: type[np.signedinteger[Any]],
    words: NDArray[np.uint32],
    bits: NDArray[np.uint8],
    flat: Integers,
    known: Bools,
    lattice: Lattice,
    weights: Integers,
    start: int,
    common: int | None,
    blank: bool,
    classes: int,
) -> int:
    """Decode integers to their places, computing with those of a type.

    Returns
    -------
    int
        The number of bits read, or `CORRUPT`, or `TOO_WIDE`.
    """
    lowest = int(np.iinfo(dtype).min)
    if not lowest < (common or 0) <= -lowest - 1:
        return TOO_WIDE
    # A border before each axis, so that all neighbours have places: those behind one lie in the next border.
    cells = np.zeros([*(n + _BORDER for n in lattice.shape), 2], dtype)
    cells[..., 0] = lowest
    inner = cells[(slice(_BORDER, None),) * len(lattice.shape)]
    there = known.reshape(lattice.shape)
    inner[there, 1] = _WAITING
    strides = np.array(cells.strides[:-1]) // cells.strides[-2]
    index = np.stack(np.unravel_index(lattice.places, lattice.shape))
    decode: Any = _decode
    read = decode(
        cells.reshape(-1, 2), lowest, lattice.starts, strides @ (index + _BORDER), lattice.columns,
        neighbours(len(lattice.shape)) @ strides, lattice.nearness, weights, start, common or 0,
        common is not None, blank, classes, words, bits,
    )  # fmt: skip
    if read >= 0:
        np.copyto(flat.reshape(lattice.shape), inner[..., 0], where=there)
    return int(read)


@compiled(error_model="numpy")
def _decode(
    cells: Array, lowest: int, starts: Array, places: Array, columns: int, steps: Array,
    nearness: Array, weights: Array, mean: int, common: int, repeats: bool, blank: bool, classes: int,
    words: Array, bits: Array,
) -> int:  # fmt: skip
    """Decode the integers of a lattice that has a border, wavefront by wavefront; return the number of bits.

    Parameters
    ----------
    cells : int32 or int64 array, shape (cells, 2)
        Integers, and how far off their predictions are. First `lowest`, the least integer of the type, and
        -1 where integers are coded, 0 elsewhere; written over where they are.
    starts, places : int64 array
        The first wavefront of each row, rising, and the position of its first voxel.
    steps : int64 array
        Where neighbours stand, seen from a voxel.
    """
    taps, none, nobody = steps.size, np.int64(0), cells.dtype.type(lowest)
    flags, zeros = np.zeros((1 << 11, 2), np.int64), np.full(1 << 11, 1 << 23, np.int64)
    counts = np.full((96 * 7, classes), 2, np.int64)
    sums = np.empty((96 * 7, classes + 1), np.int64)
    totals, renewed = np.full(96 * 7, 2 * classes, np.int64), np.zeros(96 * 7, np.int64)
    room = starts.size
    here, guesses, table = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64)
    candidates, contexts = np.empty(room, cells.dtype), np.empty(room, cells.dtype)
    symbols, repeated = np.empty(room, np.int64), np.zeros(room, np.uint8)
    seen, off = np.empty((taps, _LANES), cells.dtype), np.empty((taps, _LANES), cells.dtype)
    few, scratch = np.empty((2, _LANES), cells.dtype), np.empty((3, _LANES), np.int64)
    span, point, used = np.uint64(0xFFFFFFFFFFFFFFFF), first_point(words), 2
    bit, first, last = 0, 0, 0
    for t in range(starts[-1] + columns):
        first, last = rows_at(t, starts, columns, first, last)
        size = 0
        for line in range(first, last):
            place = np.uint64(places[line] + t - starts[line])  # compiled code does not ask if it is negative
            if cells[place, 1] == _WAITING:
                here[size] = place
                size += 1
        for start in range(0, size, _LANES):
            stop = min(start + _LANES, size)
            lanes = stop - start
            those = here[start:stop]
            for tap in range(taps):
                step, own, wrong = np.uint64(steps[tap]), seen[tap], off[tap]
                for i in range(lanes):
                    own[i], wrong[i] = cells[those[i] + step, 0], cells[those[i] + step, 1]
            if repeats:
                _find_candidates(
                    seen, nobody, cells.dtype.type(common), candidates[start:stop], contexts[start:stop], few
                )
            _predict(seen, nobody, weights, mean, common, blank, guesses[start:stop], scratch[0])
            _find_rows(off, nearness, table[start:stop], scratch)
        if repeats:
            for i in range(size):
                zero = np.uint64(zeros[contexts[i]])
                scale = span >> np.uint64(24)
                if point >= scale << np.uint64(24):
                    return CORRUPT
                bound = scale * zero
                if point < bound:
                    span, repeated[i] = bound, 0
                else:
                    point -= bound
                    span, repeated[i] = scale * (np.uint64(1 << 24) - zero), 1
                span, point, used = refill(span, point, words, used)
            for i in range(size):
                flags[contexts[i], repeated[i]] += 1
            for i in range(size):
                context = contexts[i]
                zeros[context] = zero_frequency(flags[context, 0], flags[context, 1])
        for i in range(size):
            place, guess = here[i], guesses[i]
            if repeated[i]:
                value = none + candidates[i]
            else:
                row = table[i]
                if 16 * totals[row] >= 17 * renewed[row]:
                    renew_sums(counts[row], sums[row], totals[row])
                    renewed[row] = totals[row]
                scale = span >> np.uint64(24)
                if point >= scale << np.uint64(24):
                    return CORRUPT
                own, symbol = sums[row], 0
                while point >= scale * np.uint64(own[symbol + 1]):
                    symbol += 1
                symbols[i] = symbol
                point -= scale * np.uint64(own[symbol])
                span = scale * np.uint64(own[symbol + 1] - own[symbol])
                span, point, used = refill(span, point, words, used)
                error = none + min(symbol, 3)
                if symbol > 0:
                    length = (symbol >> 1) - 1 if symbol > 3 else 0
                    if bit + 1 + length > 8 * bits.size:
                        return CORRUPT
                    negative = _bit(bits, bit)
                    bit += 1
                    if symbol > 3:
                        error = none + 2 + (symbol & 1)
                    for _ in range(length):
                        error = 2 * error + _bit(bits, bit)
                        bit += 1
                    if negative:
                        error = -error
                value = guess + error
            fitting = cells.dtype.type(value)
            if fitting != value or fitting == nobody:
                return TOO_WIDE
            cells[place, 0] = fitting
            size_of = abs(value - guess)
            size_of = min(size_of, 1 << 30) if size_of >= 0 else 1 << 30
            cells[place, 1] = 0 if blank and value == common else size_of
        for i in range(size):  # counts change when all of the wavefront are known
            if not repeated[i]:
                counts[table[i], symbols[i]] += 5
                totals[table[i]] += 5
    return bit


@compiled(error_model="numpy")
def _find_candidates(
    seen: Array, nobody: Any, common: Any, candidates: Array, contexts: Array, few: Array
) -> None:
    """Find the value that most neighbours have, and a number that says which ones."""
    size, witnesses = candidates.size, min(seen.shape[0], 10)
    alike, most = few[0, :size], few[1, :size]
    candidates[:], most[:], contexts[:] = common, 0, 0
    for tap in range(min(seen.shape[0], 6)):
        own = seen[tap, :size]
        alike[:] = 0
        for other in range(witnesses):
            beside = seen[other, :size]
            for i in range(size):
                alike[i] += beside[i] == own[i]
        for i in range(size):
            better = (own[i] != nobody) & (alike[i] > most[i])
            candidates[i] = own[i] if better else candidates[i]
            most[i] = alike[i] if better else most[i]
    for tap in range(witnesses):
        own = seen[tap, :size]
        for i in range(size):
            contexts[i] += contexts[i] + (own[i] == candidates[i])
    for i in range(size):
        contexts[i] += contexts[i] + (candidates[i] == common)


@compiled(error_model="numpy")
def _predict(
    seen: Array, nobody: Any, weights: Array, mean: int, common: int, blank: bool, guesses: Array,
    totals: Array,
) -> None:  # fmt: skip
    """Predict integers from those seen beside them."""
    size, missing = guesses.size, guesses.size
    mute = common if blank else np.int64(nobody)  # another integer that says nothing about others
    guesses[:], totals[:size] = mean, 0
    for tap in range(seen.shape[0]):
        if not missing:
            break
        own, missing = seen[tap], 0
        for i in range(size):
            new = (totals[i] == 0) & (own[i] != nobody) & (own[i] != mute)
            guesses[i] = own[i] if new else guesses[i]
            totals[i] += new
            missing += totals[i] == 0
    totals[:size] = 0
    for tap in range(seen.shape[0]):
        weight, own = weights[tap], seen[tap]
        if weight:
            for i in range(size):
                step = min(max(own[i] - guesses[i], -(1 << 40)), 1 << 40)
                totals[i] += weight * step if (own[i] != nobody) & (own[i] != mute) else 0
    for i in range(size):
        guesses[i] += (totals[i] + 512) >> 10


@compiled(error_model="numpy")
def _find_rows(off: Array, nearness: Array, table: Array, scratch: Array) -> None:
    """Find the rows of the table of classes, by how far off neighbours were."""
    size = table.size
    activity, classes = scratch[0], scratch[1]
    activity[:size] = 0
    for tap in range(off.shape[0]):
        near, own = nearness[tap], off[tap]
        for i in range(size):
            activity[i] += near * np.int64(own[i])
    _find_classes(activity, table, scratch[2])
    nearest = off[0]
    for i in range(size):
        activity[i] = 16 * np.int64(nearest[i])
    _find_classes(activity, classes[:size], scratch[2])
    for i in range(size):
        level = min(table[i], 95)
        table[i] = 7 * level + min(max((classes[i] - level + 8) >> 1, 0), 6)


@compiled(error_model="numpy")
def _find_classes(sizes: Array, classes: Array, scratch: Array) -> None:
    """Find the half octaves of sizes below 2**53: exponent and first bit of doubles that are exact."""
    doubles = scratch.view(np.float64)
    for i in range(classes.size):
        doubles[i] = np.float64(sizes[i])
    for i in range(classes.size):
        classes[i] = sizes[i] if sizes[i] < 4 else (scratch[i] >> 51) - 2046


@compiled()
def _bit(bits: Array, at: int) -> Any:
    return (bits[at >> 3] >> (7 - (at & 7))) & 1
