"""Integers of a grid, each predicted from its neighbours and coded by how far off the prediction is.

Voxels are coded along wavefronts of a skewed grid, as those of a mask are: all neighbours that a voxel is
predicted from lie on earlier ones, so that a wavefront is a few vectorised calls. A prediction is a weighted
sum of neighbours; how far off it was at these says how far off it may be here, by probabilities that adapt
by counting. Where values repeat, a flag says first whether a voxel has the value that most neighbours have.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Integers
from moec_zarr.bitstream.lattice import Lattice, arrange, rearrange
from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.bitstream.range_coder import PRECISION, RangeDecoder, RangeEncoder, range_words, zero_frequency
from moec_zarr.compiled import is_compiled
from moec_zarr.errors import CorruptStreamError

__all__ = ["UNIT_BITS", "Predictor", "decode_predicted", "encode_predicted", "find_repeated"]

UNIT_BITS = 10  # of a weight
ACTIVITIES, RECENTS = 96, 7  # rows of the table of classes: how far off all neighbours were, and the nearest
LARGEST_ERROR = 1 << 30  # as which all larger errors of neighbours count
LARGEST_STEP = 1 << 40  # by which a neighbour differs from the first one, at most
LARGEST_CLASS = 125  # of the errors below 2**63
FIRST_COUNT, COUNT = 2, 5  # of each class at first, and what each occurrence adds
CANDIDATES, WITNESSES = 6, 10  # neighbours whose value may repeat, and those that are asked which

_HEAD = struct.Struct("<BBqq")
_REPEATS, _BLANKS = 1, 2  # flags
_MANY = 1 << 16

_Bytes: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Predictor:
    """How integers are predicted.

    Attributes
    ----------
    weights : tuple of int
        Of the first neighbours, -32768..32767 each, in units of 2**-10.
    start : int
        What stands in for neighbours where there is none.
    common : int or None
        The most common integer, where those that repeat are told by flags.
    blank : bool
        Whether neighbours that are the common integer say nothing about others.
    """

    weights: tuple[int, ...]
    start: int
    common: int | None = None
    blank: bool = False


# ------------------------------------------------------------------------------------- bytes


def encode_predicted(flat: Integers, known: Bools, lattice: Lattice, predictor: Predictor) -> bytes | None:
    """Encode integers as `arrange` returns them; None if an error takes 64 bits."""
    # Whoever encodes has numba, and tries several predictors: it is worth while for few voxels too.
    encode = _encode_compiled if is_compiled(_MANY) else _encode_plainly
    coded = encode(flat, known, lattice, predictor)
    if coded is None:
        return None
    words, bits, largest = coded
    flags = (predictor.common is not None) * _REPEATS | predictor.blank * _BLANKS
    head = _HEAD.pack(flags, largest, predictor.start, predictor.common or 0)
    weights = struct.pack(f"<B{len(predictor.weights)}h", len(predictor.weights), *predictor.weights)
    return head + weights + write_varint(len(words)) + words + bits


def decode_predicted(data: bytes, shape: tuple[int, ...], valid: Bools | None) -> Integers:
    """Decode the integers of a grid; zero where they are not valid.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such bytes.
    """
    if len(data) <= _HEAD.size or len(data) <= (start := _HEAD.size + 1 + 2 * data[_HEAD.size]):
        raise CorruptStreamError("the stream ends inside a prediction; it is truncated, fetch it again")
    flags, largest, mean, common = _HEAD.unpack_from(data)
    weights = struct.unpack_from(f"<{data[_HEAD.size]}h", data, _HEAD.size + 1)
    if flags not in (0, _REPEATS, _REPEATS | _BLANKS) or largest > LARGEST_CLASS:
        raise CorruptStreamError(f"a reserved prediction {flags}, {largest}; the stream is damaged")
    length, start = read_varint(data, start)
    if length > len(data) - start:
        raise CorruptStreamError(f"a prediction claims {length} bytes, {len(data) - start} are left")
    predictor = Predictor(weights, mean, common if flags else None, flags > _REPEATS)
    flat, known, lattice = arrange(np.zeros(shape, np.int64), valid)
    if len(weights) > lattice.steps.size:
        raise CorruptStreamError(f"{len(weights)} weights of {lattice.steps.size} neighbours; it is damaged")
    words, bits = data[start : start + length], np.frombuffer(data[start + length :], np.uint8).copy()
    decode = _decode_compiled if is_compiled(flat.size) else _decode_plainly
    if decode(words, bits, flat, known, lattice, predictor, largest + 1) // -8 != -bits.size:
        raise CorruptStreamError("bits of a prediction are left over; the stream is damaged")
    return rearrange(flat, shape)


# ------------------------------------------------------------------------- compiled, or not


def _padded(weights: tuple[int, ...], lattice: Lattice) -> Integers:
    """Return the weights of all neighbours."""
    return np.pad(np.array(weights, np.int64), (0, lattice.steps.size - len(weights)))


def _encode_compiled(
    flat: Integers, known: Bools, lattice: Lattice, predictor: Predictor
) -> tuple[bytes, bytes, int] | None:
    """Return the words, the bits and the largest class."""
    from moec_zarr.bitstream import prediction_kernels as kernels

    measure: Any = kernels.measure
    encode: Any = kernels.encode_errors
    repeats, marked = predictor.common is not None, flat.size if predictor.common is not None else 0
    passed = (
        flat, np.zeros(flat.size, np.int32), np.empty(flat.size, np.int64), np.empty(marked, np.int32), known,
        lattice.starts, lattice.places, lattice.columns, lattice.inside, lattice.steps, lattice.moves,
        lattice.nearness, repeats,
    )  # fmt: skip
    weights = _padded(predictor.weights, lattice)
    largest = measure(*passed, weights, predictor.start, predictor.common or 0, predictor.blank)
    if largest < 0:
        return None
    count = int(np.count_nonzero(known))
    lower, width = np.empty((2, (1 + repeats) * count), np.uint32)
    bits = np.zeros(count * max(largest // 2, 1) // 8 + 1, np.uint8)
    coded, length = encode(*passed, largest + 1, lower, width, bits)
    encoder = RangeEncoder()
    encoder.intervals(lower[:coded], width[:coded])
    return encoder.payload(), bits[: -(-length // 8)].tobytes(), largest


def _decode_compiled(
    words: bytes,
    bits: _Bytes,
    flat: Integers,
    known: Bools,
    lattice: Lattice,
    predictor: Predictor,
    classes: int,
) -> int:
    """Decode integers to their places; return the number of bits read."""
    from moec_zarr.bitstream import prediction_decoding as decoding

    weights = _padded(predictor.weights, lattice)
    for dtype in (np.int32, np.int64):  # the first is faster, and mostly enough
        read = decoding.decode_as(
            dtype, range_words(words), bits, flat, known, lattice, weights, predictor.start, predictor.common,
            predictor.blank, classes,
        )  # fmt: skip
        if read == decoding.CORRUPT:
            raise _damaged()
        if read != decoding.TOO_WIDE:
            return read
    return _decode_plainly(words, bits, flat, known, lattice, predictor, classes)


def _encode_plainly(
    flat: Integers, known: Bools, lattice: Lattice, predictor: Predictor
) -> tuple[bytes, bytes, int] | None:
    measuring = _Measuring()
    _follow(measuring, flat, known, lattice, predictor)
    if measuring.largest > LARGEST_CLASS:
        return None
    encoding = _Encoding(measuring.largest + 1)
    _follow(encoding, flat, known, lattice, predictor)
    return (
        encoding.coder.payload(),
        np.packbits(np.concatenate([*encoding.bits, []]) > 0).tobytes(),
        measuring.largest,
    )


def _decode_plainly(
    words: bytes,
    bits: _Bytes,
    flat: Integers,
    known: Bools,
    lattice: Lattice,
    predictor: Predictor,
    classes: int,
) -> int:
    decoding = _Decoding(classes, words, bits)
    _follow(decoding, flat, known, lattice, predictor)
    return decoding.read


def _damaged() -> CorruptStreamError:
    return CorruptStreamError("the words or the bits of a prediction are invalid; the stream is damaged")


class _Coding(Protocol):
    """What is done to the voxels of a wavefront."""

    def flags(self, repeated: Bools, contexts: Integers) -> Bools: ...

    def errors(self, errors: Integers, rows: Integers) -> Integers: ...


class _Measuring:
    """Finds the largest class."""

    largest = 0

    def flags(self, repeated: Bools, contexts: Integers) -> Bools:
        return repeated

    def errors(self, errors: Integers, rows: Integers) -> Integers:
        sizes = np.abs(errors)
        if (sizes < 0).any():
            self.largest = LARGEST_CLASS + 1
        else:
            self.largest = max(self.largest, int(half_octaves(sizes).max(initial=0)))
        return errors


class _Counting:
    """The probabilities of flags and classes, by those before this wavefront."""

    def __init__(self, classes: int) -> None:
        self._flags = np.zeros((2, 2 << WITNESSES), np.int64)
        self._counts = np.full((ACTIVITIES * RECENTS, classes), FIRST_COUNT, np.int64)
        self._totals = self._counts.sum(axis=1)
        self._renewed = np.zeros_like(self._totals)
        self._sums = np.zeros((ACTIVITIES * RECENTS, classes + 1), np.int64)

    def _zeros(self, contexts: Integers) -> Integers:
        zero, one = self._flags[:, contexts]
        chance = np.clip(((2 * one + 1) << 16) // (2 * (zero + one) + 2), 1, 2**16 - 1)
        return zero_frequency(chance << 8)

    def _count_flags(self, contexts: Integers, repeated: Bools) -> None:
        np.add.at(self._flags, (repeated.astype(np.int64), contexts), 1)

    def _renew(self, rows: Integers) -> None:
        """Renew the frequencies of rows whose counts have grown by a sixteenth."""
        used = np.unique(rows)
        used = used[16 * self._totals[used] >= 17 * self._renewed[used]]
        whole = (1 << PRECISION) - self._counts.shape[1]
        shares = 1 + self._counts[used, 1:] * whole // self._totals[used, None]
        self._sums[used, -1] = 1 << PRECISION
        self._sums[used, 1:-1] = (1 << PRECISION) - np.cumsum(shares[:, ::-1], axis=1)[:, ::-1]
        self._renewed[used] = self._totals[used]

    def _count_classes(self, rows: Integers, classes: Integers) -> None:
        np.add.at(self._counts, (rows, classes), COUNT)
        np.add.at(self._totals, rows, COUNT)


class _Encoding(_Counting):
    """Encodes the voxels of wavefronts."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.coder = RangeEncoder()
        self.bits: list[Integers] = []

    def flags(self, repeated: Bools, contexts: Integers) -> Bools:
        self.coder.flags(repeated, self._zeros(contexts))
        self._count_flags(contexts, repeated)
        return repeated

    def errors(self, errors: Integers, rows: Integers) -> Integers:
        sizes = np.abs(errors)
        classes = half_octaves(sizes)
        self._renew(rows)
        self.coder.symbols(classes, self._sums, rows)
        self._count_classes(rows, classes)
        lengths = _bit_counts(classes)
        number = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        size, length = np.repeat(sizes, lengths), np.repeat(lengths, lengths)
        self.bits.append(
            np.where(number, (size >> (length - 1 - number)) & 1, np.repeat(errors < 0, lengths))
        )
        return errors


class _Decoding(_Counting):
    """Decodes the voxels of wavefronts."""

    def __init__(self, classes: int, words: bytes, bits: _Bytes) -> None:
        super().__init__(classes)
        self._coder = RangeDecoder(words)
        self._bits, self.read = bits, 0

    def flags(self, repeated: Bools, contexts: Integers) -> Bools:
        repeated = np.array(self._coder.flags(self._zeros(contexts).tolist()), bool)
        self._count_flags(contexts, repeated)
        return repeated

    def errors(self, errors: Integers, rows: Integers) -> Integers:
        self._renew(rows)
        used, which = np.unique(rows, return_inverse=True)
        classes = np.array(self._coder.symbols(self._sums[used].tolist(), which.tolist()), np.int64)
        self._count_classes(rows, classes)
        lengths = _bit_counts(classes)
        ends = self.read + np.cumsum(lengths)
        if ends.size and ends[-1] > 8 * self._bits.size:
            raise _damaged()
        sizes = np.where(classes > 3, 2 + classes % 2, classes)
        for number in range(1, int(lengths.max(initial=0))):
            more = lengths > number
            sizes[more] = 2 * sizes[more] + self._bits_at((ends - lengths)[more] + number)
        signed = lengths > 0
        sizes[signed] *= 1 - 2 * self._bits_at((ends - lengths)[signed])
        self.read = int(ends[-1]) if ends.size else self.read
        return sizes

    def _bits_at(self, places: Integers) -> Integers:
        return np.asarray((self._bits[places >> 3] >> (7 - (places & 7))) & 1, np.int64)


def _bit_counts(classes: Integers) -> Integers:
    """Return how many bits follow a class: the sign, and what the class leaves open of the size."""
    return np.where(classes > 3, classes >> 1, np.minimum(classes, 1))


def half_octaves(sizes: Integers) -> Integers:
    """Compute the class of sizes: themselves up to 3, then two for each octave."""
    high = sizes >> 32
    octave = np.where(
        high > 0,
        31 + np.frexp(high.astype(np.float64))[1],
        np.frexp((sizes & 0xFFFFFFFF).astype(np.float64))[1] - 1,
    )
    octave = np.maximum(octave, 1).astype(np.int64)
    return np.asarray(np.where(sizes < 4, sizes, 2 * octave + ((sizes >> (octave - 1)) & 1)))


def _follow(coding: _Coding, flat: Integers, known: Bools, lattice: Lattice, predictor: Predictor) -> None:
    """Code integers, wavefront by wavefront; those decoded take their places."""
    nobody = flat.size  # stands where no voxel does
    values, there = np.append(flat, 0), np.append(known, False)
    errors = np.zeros(flat.size + 1, np.int64)
    taps, columns, common = lattice.steps.size, lattice.columns, predictor.common
    weights = np.zeros(taps, np.int64)
    weights[: len(predictor.weights)] = predictor.weights
    bounds = np.searchsorted(lattice.starts, np.arange(-columns, int(lattice.starts[-1]) + columns) + 1)
    for t, (first, last) in enumerate(zip(bounds.tolist(), bounds[columns:].tolist(), strict=False)):
        column = t - lattice.starts[first:last]
        place = lattice.places[first:last] + column
        coded = np.flatnonzero(there[place])
        if not coded.size:
            continue
        place, beside = place[coded], column[coded, None] + lattice.moves
        around = place[:, None] + lattice.steps
        around[~(lattice.inside[first:last][coded] & (beside >= 0) & (beside < columns))] = nobody
        beside, seen = there[around], values[around]
        repeated = np.zeros(place.size, bool)
        if common is not None:
            candidate, context = find_repeated(seen, beside, common)
            repeated = coding.flags(values[place] == candidate, context)
            values[place[repeated]] = candidate[repeated]
        guess = _predict(
            seen, beside & (seen != common) if predictor.blank else beside, weights, predictor.start
        )
        wrong = errors[around]
        level = np.minimum(half_octaves(wrong @ lattice.nearness), ACTIVITIES - 1)
        recent = np.clip((half_octaves(16 * wrong[:, 0]) - level + 8) >> 1, 0, RECENTS - 1)
        new = ~repeated
        rows = (RECENTS * level + recent)[new]
        values[place[new]] = guess[new] + coding.errors(values[place[new]] - guess[new], rows)
        size = np.abs(values[place] - guess)
        size[(size < 0) | (size > LARGEST_ERROR)] = LARGEST_ERROR
        if predictor.blank:
            size[values[place] == common] = 0
        errors[place] = size
    flat[:] = values[:-1]


def _predict(seen: Integers, beside: Bools, weights: Integers, start: int) -> Integers:
    """Predict integers from those seen beside them."""
    nearest = beside.argmax(axis=1)
    base = np.where(beside.any(axis=1), seen[np.arange(len(seen)), nearest], start)
    step = np.where(beside, np.clip(seen - base[:, None], -LARGEST_STEP, LARGEST_STEP), 0)
    return np.asarray(base + ((step @ weights + (1 << UNIT_BITS - 1)) >> UNIT_BITS))


def find_repeated(seen: Integers, beside: Bools, common: int) -> tuple[Integers, Integers]:
    """Find the value that most neighbours have, and a number that says which ones."""
    seen, beside = seen[:, :WITNESSES], beside[:, :WITNESSES]
    alike = ((seen[:, :CANDIDATES, None] == seen[:, None]) & beside[:, None]).sum(axis=2)
    alike = np.where(beside[:, :CANDIDATES], alike, 0)
    best = alike.argmax(axis=1)
    each = np.arange(len(seen))
    candidate = np.where(alike[each, best] > 0, seen[each, best], common)
    has = beside & (seen == candidate[:, None])
    powers = 1 << np.arange(seen.shape[1], 0, -1)
    return candidate, has @ powers + (candidate == common)
