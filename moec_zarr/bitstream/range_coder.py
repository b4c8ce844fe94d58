"""Exact entropy coding of integers with a range coder.

Everything that steers a probability is integer arithmetic, so that the bytes decode to the same
integers on every machine. The range coder has 32-bit words, 64-bit states and 24-bit probabilities
[1]_, and writes what the library constriction [2]_ writes; ``docs/format.md`` describes it for other
decoders. Here it is written in plain Python, which runs everywhere; `kernels` has the same compiled.

References
----------
.. [1] G. N. N. Martin, Range encoding: an algorithm for removing redundancy from a digitised message,
   Video and Data Recording Conference, Southampton 1979.
.. [2] R. Bamler, Understanding entropy coding with asymmetric numeral systems, arXiv 2201.01741.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Integers
from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.compiled import is_compiled
from moec_zarr.errors import CorruptStreamError

__all__ = [
    "EVEN",
    "MAX_MAGNITUDE",
    "PRECISION",
    "TAILS",
    "WIDTHS",
    "RangeDecoder",
    "RangeEncoder",
    "decode_groups",
    "encode_groups",
    "end_words",
    "frequencies",
    "range_words",
    "zero_frequency",
]

PRECISION = 24  # bits of a probability in the range coder
EVEN = 1 << PRECISION - 1  # frequency of either of two bits that are alike
MAX_MAGNITUDE = 2**15 - 1  # of a coded integer
TAILS = 8  # tails of the distributions: exponents 1, 2, 4, ..., 128
WIDTHS = 32


# ----------------------------------------------------------------------------- range coder

_WHOLE = 1 << PRECISION
_WORD = 1 << 32
_ALL = 2**64 - 1
_CODED_TOGETHER = 1 << 18  # symbols


def zero_frequency(chance: Integers) -> Integers:
    """Return the frequency of 0, out of 2**24, if 1 has this one: each keeps one of 2**24 for itself."""
    return np.asarray(1 + (((_WHOLE - chance) * (_WHOLE - 2)) >> PRECISION))


class RangeEncoder:
    """Code symbols, each of which takes an interval of ``0 .. 2**24`` that is as long as it is likely."""

    def __init__(self) -> None:
        self._intervals: list[tuple[NDArray[np.uint32], NDArray[np.uint32]]] = []  # not coded yet
        self._waiting = 0  # their number
        self._words = np.zeros(0, np.uint32)  # with room behind the last one that is used
        self._used, self._low, self._span = 0, 0, _ALL

    def flags(self, bits: Array, zeros: Integers | int) -> None:
        """Add bits, of which each, or all, are 0 with a frequency, out of 2**24, that `zeros` gives."""
        self._add(np.where(bits, zeros, 0), np.where(bits, _WHOLE - zeros, zeros))

    def symbols(self, numbers: Array, table: Integers, rows: Array) -> None:
        """Add symbols ``0, 1, ...``.

        Parameters
        ----------
        numbers : int array, shape (n,)
        table : int64 array, shape (rows, symbols + 1)
            The frequencies of all smaller symbols, out of 2**24: from 0 to 2**24.
        rows : int array, shape (n,)
            The row of the table for each symbol.
        """
        lower = table[rows, numbers]
        self._add(lower, table[rows, numbers + 1] - lower)

    def intervals(self, lower: NDArray[Any], width: NDArray[Any]) -> None:
        """Add symbols by their intervals."""
        self._add(lower, width)

    def payload(self) -> bytes:
        """Return the words, little endian, without the zero bytes at the end: a decoder reads zeros there."""
        self._code()
        return b"" if self._span == _ALL else end_words(self._words, self._used, self._low)

    def _add(self, lower: Integers, width: Integers) -> None:
        self._intervals.append((lower.astype(np.uint32), width.astype(np.uint32)))
        self._waiting += lower.size
        if self._waiting > _CODED_TOGETHER:
            self._code()

    def _code(self) -> None:
        """Code the intervals that wait."""
        if not self._waiting:
            return
        lower, width = map(np.concatenate, zip(*self._intervals, strict=True))
        self._intervals, self._waiting = [], 0
        if (room := self._used + 3 * lower.size // 4 + 2) > self._words.size:  # 24 bits a symbol at most
            self._words = np.concatenate([self._words[: self._used], np.zeros(room, np.uint32)])
        encode: Any = _encode_intervals
        if is_compiled(lower.size):
            from moec_zarr.bitstream.kernels import encode_intervals as encode
        state = encode(lower, width, self._words, self._used, np.uint64(self._low), np.uint64(self._span))
        self._used, self._low, self._span = map(int, state)


def end_words(words: NDArray[np.uint32], used: int, low: int) -> bytes:
    """Return the payload that ends at an encoder's state, with room behind the words that are used."""
    last = low + _WORD - 1  # the shortest number within the last interval
    if last > _ALL:
        _carry(words, used)
    words[used] = last >> 32 & _WORD - 1
    return words[: used + 1].astype("<u4").tobytes().rstrip(b"\0")


def _encode_intervals(
    lower: NDArray[np.uint32],
    width: NDArray[np.uint32],
    words: NDArray[np.uint32],
    used: int,
    low: Any,
    span: Any,
) -> tuple[int, int, int]:
    """Code intervals into the words from `used` on; the state that follows."""
    low, span = int(low), int(span)
    for start, length in zip(lower.tolist(), width.tolist(), strict=True):
        scale = span >> PRECISION
        low += scale * start
        span = scale * length
        if low > _ALL:
            _carry(words, used)
            low -= _ALL + 1
        if span < _WORD:
            words[used] = low >> 32
            used += 1
            low = low % _WORD << 32
            span <<= 32
    return used, low, span


def _carry(words: NDArray[np.uint32], used: int) -> None:
    """Add one to the number that the first words are."""
    at = used - 1
    while words[at] == _WORD - 1:
        words[at] = 0
        at -= 1
    words[at] += 1


class RangeDecoder:
    """Decode what a `RangeEncoder` coded, symbol by symbol.

    Parameters
    ----------
    data : bytes
        A payload. Beyond its end stand zeros.
    """

    def __init__(self, data: bytes) -> None:
        self._words = iter(range_words(data).tolist())
        self._span = _ALL
        self._point = next(self._words, 0) << 32 | next(self._words, 0)

    def flags(self, zeros: Iterable[int]) -> list[int]:
        """Decode the next bits, of which each is 0 with the given frequency.

        Raises
        ------
        CorruptStreamError
            If no encoder writes such words.
        """
        span, point, words = self._span, self._point, self._words
        bits = []
        for zero in zeros:
            scale = span >> PRECISION
            bound = scale * zero
            if point < bound:
                span = bound
                bits.append(0)
            else:
                point -= bound
                span = scale * (_WHOLE - zero)
                bits.append(1)
                if point >= span:
                    raise _invalid_words()
            if span < _WORD:
                span <<= 32
                point = point << 32 | next(words, 0)
        self._span, self._point = span, point
        return bits

    def symbols(self, table: Sequence[Sequence[int]], rows: Iterable[int]) -> list[int]:
        """Decode the next symbols, by rows of a table as `RangeEncoder.symbols` takes it.

        Raises
        ------
        CorruptStreamError
            If no encoder writes such words.
        """
        span, point, words = self._span, self._point, self._words
        numbers = []
        for row in rows:
            sums = table[row]
            scale = span >> PRECISION
            number = bisect_right(sums, point // scale) - 1
            if number == len(sums) - 1:
                raise _invalid_words()
            numbers.append(number)
            point -= scale * sums[number]
            span = scale * (sums[number + 1] - sums[number])
            if span < _WORD:
                span <<= 32
                point = point << 32 | next(words, 0)
        self._span, self._point = span, point
        return numbers


def _invalid_words() -> CorruptStreamError:
    return CorruptStreamError("the range coder's words are invalid; the stream is damaged")


def range_words(data: bytes) -> NDArray[np.uint32]:
    """Return the words of a payload."""
    return np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)


# ------------------------------------------------------------------------------- integers


def frequencies(largest: int, code: int | Integers) -> Integers:
    """Compute integer frequencies, out of 2**24, of the symbols ``0, 1, ..., largest`` and their negatives.

    The density is ``(1 + k^2 / (2 m s^2)) ** -m`` with tail exponent ``m`` and width ``s``: heavy
    tails for small m, a Gaussian for large m. Both are a part of `code`, the width in units of
    ``largest + 1``.

    Parameters
    ----------
    largest : int
        Largest magnitude that occurs.
    code : int or array of int64, shape (n,)
        ``32 * log2(m) + j`` with 0 <= log2(m) < 8 and width ``s^2 = (8 - j % 4) / 8 * 2**-(j // 4)``.

    Returns
    -------
    array of int64, shape (largest + 1,) or (n, largest + 1)
        Frequency of each magnitude k; of +k and of -k alike where k > 0.
    """
    code = np.asarray(code, np.int64)[..., None]
    doublings, width = code // WIDTHS, code % WIDTHS
    a = ((8 - width % 4) << (29 - width // 4)) << (doublings + 1)
    x = (np.arange(largest + 1, dtype=np.int64) << 16) // (largest + 1)
    p = (a << 20) // (a + x * x)
    for step in range(TAILS - 1):
        p = np.where(step < doublings, (p * p) >> 20, p)
    return _as_frequencies(p, 2 * p.sum(axis=-1, keepdims=True) - p[..., :1])


def _as_frequencies(p: Integers, total: Any) -> Integers:
    """Magnitudes' shares of `total` as frequencies above zero that make 2**24 with both signs."""
    count = 2 * p.shape[-1] - 1
    f = 1 + p * (2**PRECISION - count) // total
    f[..., 0] += 2**PRECISION - (2 * f.sum(axis=-1) - f[..., 0])
    return np.asarray(f, np.int64)


def _cumulative(largest: int, code: int) -> Integers:
    """Cumulative frequencies of ``-largest .. largest``, as a table of one row."""
    half = frequencies(largest, code)
    return np.concatenate([[0], np.cumsum(np.concatenate([half[:0:-1], half]))])[None]


def encode_groups(groups: Sequence[NDArray[np.integer[Any]]], codes: Sequence[int]) -> bytes:
    """Encode integers, each group with a distribution of its own.

    Parameters
    ----------
    groups : sequence of integer arrays
        Magnitudes of at most ``MAX_MAGNITUDE``; shapes and sizes are the caller's to know on decoding.
    codes : sequence of int
        Distribution of each group, as :func:`frequencies` takes it; not used where all are zero.
    """
    encoder = RangeEncoder()
    head = bytearray()
    for group, code in zip(groups, codes, strict=True):
        values = np.asarray(group, np.int64).ravel()
        largest = int(np.abs(values).max(initial=0))
        head += write_varint(largest)
        if largest:
            head.append(code)
            encoder.symbols(values + largest, _cumulative(largest, code), np.zeros(values.size, np.int64))
    return bytes(head) + encoder.payload()


def decode_groups(data: bytes, sizes: Sequence[int]) -> list[NDArray[np.int32]]:
    """Decode the integers of :func:`encode_groups`, one flat array for each of `sizes`.

    Raises
    ------
    CorruptStreamError
        If the data end early or hold a reserved value.
    """
    offset, models = 0, []
    for _ in sizes:
        largest, offset = read_varint(data, offset)
        if largest > MAX_MAGNITUDE:
            raise CorruptStreamError(
                f"coded integers reach {largest}, more than {MAX_MAGNITUDE}; the stream is damaged"
            )
        code = -1
        if largest:
            if offset >= len(data):
                raise CorruptStreamError(
                    "the stream ends inside a distribution; it is truncated, fetch it again"
                )
            code, offset = data[offset], offset + 1
        models.append((largest, code))
    decoder = RangeDecoder(data[offset:])
    out = []
    for size, (largest, code) in zip(sizes, models, strict=True):
        if largest:
            symbols = decoder.symbols(_cumulative(largest, code).tolist(), repeat(0, size))
            out.append(np.array(symbols, np.int32) - np.int32(largest))
        else:
            out.append(np.zeros(size, np.int32))
    return out
