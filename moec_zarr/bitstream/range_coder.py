"""Exact entropy coding of integers with a range coder.

Everything that steers a probability is integer arithmetic, so that the bytes decode to the same
integers on every machine. The range coder is constriction's (32-bit words, 64-bit state, 24-bit
probabilities; Bamler, arXiv 2201.01741); ``docs/format.md`` describes it for other decoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Doubles, Integers
from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.errors import CorruptStreamError

__all__ = [
    "MAX_MAGNITUDE",
    "PRECISION",
    "TAILS",
    "WIDTHS",
    "decode_groups",
    "decode_with",
    "encode_groups",
    "frequencies",
    "payload",
    "range_decoder",
    "range_words",
]

PRECISION = 24  # bits of a probability in the range coder
MAX_MAGNITUDE = 2**15 - 1  # of a coded integer
TAILS = 8  # tails of the distributions: exponents 1, 2, 4, ..., 128
WIDTHS = 32


# ------------------------------------------------------------------------------- integers


def frequencies(largest: int, code: int | Integers) -> Integers:
    """Integer frequencies, out of 2**24, of the symbols ``0, 1, ..., largest`` and their negatives.

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


def _for_constriction(half: Integers) -> Doubles:
    """What constriction is given for frequencies of magnitudes: of both signs, from the smallest value on.

    Its fast quantisation adds one to each probability; given frequencies less one, whose sum is
    2**24 less their number, it keeps them as they are.
    """
    return np.concatenate([half[..., :0:-1], half], axis=-1).astype(np.float64) - 1


def _model(largest: int, code: int) -> Any:
    return constriction.stream.model.Categorical(_for_constriction(frequencies(largest, code)), perfect=False)


def encode_groups(groups: Sequence[NDArray[np.integer[Any]]], codes: Sequence[int]) -> bytes:
    """Integers as bytes, each group with a distribution of its own.

    Parameters
    ----------
    groups : sequence of integer arrays
        Magnitudes of at most ``MAX_MAGNITUDE``; shapes and sizes are the caller's to know on decoding.
    codes : sequence of int
        Distribution of each group, as :func:`frequencies` takes it; not used where all are zero.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    head = bytearray()
    for group, code in zip(groups, codes, strict=True):
        values = np.asarray(group, np.int64).ravel()
        largest = int(np.abs(values).max(initial=0))
        head += write_varint(largest)
        if largest:
            head.append(code)
            encoder.encode((values + largest).astype(np.int32), _model(largest, code))
    return bytes(head) + payload(encoder)


def decode_groups(data: bytes, sizes: Sequence[int]) -> list[NDArray[np.int32]]:
    """The integers of :func:`encode_groups`, one flat array for each of `sizes`.

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
    decoder = range_decoder(data[offset:])
    out = []
    for size, (largest, code) in zip(sizes, models, strict=True):
        if largest:
            out.append(decode_with(decoder, _model(largest, code), size).astype(np.int32) - largest)
        else:
            out.append(np.zeros(size, np.int32))
    return out


def payload(encoder: Any) -> bytes:
    """The words, little endian, without the zero bytes at the end: a decoder reads zeros there."""
    return bytes(encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0"))


def range_decoder(data: bytes) -> Any:
    """Constriction's decoder of a :func:`payload`."""
    return constriction.stream.queue.RangeDecoder(range_words(data))


def range_words(data: bytes) -> NDArray[np.uint32]:
    """The words of a :func:`payload`."""
    return np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)


def decode_with(decoder: Any, *model_and_amount: Any) -> NDArray[Any]:
    """The decoder's next symbols.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such words.
    """
    try:
        return np.asarray(decoder.decode(*model_and_amount))
    except AssertionError as error:  # constriction's
        raise CorruptStreamError("the range coder's words are invalid; the stream is damaged") from error
