"""Exact entropy coding of integers and of masks with a range coder.

Everything that steers a probability is integer arithmetic, so that the bytes decode to the same
integers on every machine. The range coder is constriction's (32-bit words, 64-bit state, 24-bit
probabilities; Bamler, arXiv 2201.01741); ``docs/format.md`` describes it for other decoders.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from moec_zarr.errors import CorruptStreamError

__all__ = [
    "CLASSES",
    "ClassDecoder",
    "class_frequencies",
    "decode_groups",
    "decode_mask",
    "encode_classes",
    "encode_groups",
    "encode_mask",
    "inflate",
    "read_varint",
    "write_varint",
]

PRECISION = 24  # bits of a probability in the range coder
MAX_MAGNITUDE = 2**15 - 1  # of a coded integer
_SHAPES = 8  # tails of the distributions: exponents 1, 2, 4, ..., 128
_WIDTHS = 32
_SEARCH_BITS = 9  # of the magnitudes among which the best distribution is searched

_Ints = NDArray[np.int64]


def write_varint(value: int) -> bytes:
    """`value` >= 0 as LEB128: seven bits a byte, low bits first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The LEB128 integer at `offset`, and the offset behind it.

    Raises
    ------
    CorruptStreamError
        If the data end inside it, or it exceeds 63 bits.
    """
    value = 0
    for shift in range(0, 63, 7):
        if offset >= len(data):
            raise CorruptStreamError("the stream ends inside a length; it is truncated, fetch it again")
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise CorruptStreamError("a length in the stream exceeds 63 bits; the stream is damaged")


def inflate(data: bytes, size: int) -> bytes:
    """The `size` bytes that a zlib stream (RFC 1950) holds; inflates no more.

    Raises
    ------
    CorruptStreamError
        If it holds another number of bytes, or `data` is not one whole zlib stream.
    """
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data, size + 1)
    except zlib.error as error:
        raise CorruptStreamError(f"the values do not inflate: {error}; the stream is damaged") from error
    if len(raw) != size or not inflater.eof or inflater.unused_data:
        raise CorruptStreamError(f"{len(raw)} bytes inflated, expected {size}; the stream is damaged")
    return raw


# ------------------------------------------------------------------------------- integers


def frequencies(largest: int, code: int | _Ints) -> _Ints:
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
    doublings, width = code // _WIDTHS, code % _WIDTHS
    a = ((8 - width % 4) << (29 - width // 4)) << (doublings + 1)
    x = (np.arange(largest + 1, dtype=np.int64) << 16) // (largest + 1)
    p = (a << 20) // (a + x * x)
    for step in range(_SHAPES - 1):
        p = np.where(step < doublings, (p * p) >> 20, p)
    return _normalised(p, 2 * p.sum(axis=-1, keepdims=True) - p[..., :1])


def _normalised(p: _Ints, total: Any) -> _Ints:
    """Magnitudes' shares of `total` as frequencies above zero that make 2**24 with both signs."""
    count = 2 * p.shape[-1] - 1
    f = 1 + p * (2**PRECISION - count) // total
    f[..., 0] += 2**PRECISION - (2 * f.sum(axis=-1) - f[..., 0])
    return np.asarray(f, np.int64)


def _weights(half: _Ints) -> NDArray[np.float64]:
    """What constriction is given for frequencies of magnitudes: of both signs, from the least value on.

    Its fast quantisation adds one to each probability; given frequencies less one, whose sum is
    2**24 less their number, it keeps them as they are.
    """
    return np.concatenate([half[..., :0:-1], half], axis=-1).astype(np.float64) - 1


def _model(largest: int, code: int) -> Any:
    return constriction.stream.model.Categorical(_weights(frequencies(largest, code)), perfect=False)


def _best_code(values: _Ints, largest: int) -> int:
    """The cheapest code, found downhill from the Gaussian of the values' own width."""
    # A code's width is relative, hence large values can be scaled down: the search stays fast.
    shift = max(0, largest.bit_length() - _SEARCH_BITS)
    values, largest = np.abs(values) >> shift, largest >> shift
    counts = np.bincount(values, minlength=largest + 1)

    def cost(code: int) -> float:
        return float(-(counts @ np.log2(frequencies(largest, code))))

    narrow = -2 * np.log2(np.sqrt(np.mean(np.square(values + 0.5))) / (largest + 1))
    code = 6 * _WIDTHS + int(np.clip(4 * narrow, 0, _WIDTHS - 1))
    costs = {code: cost(code)}
    while True:
        tail, width = divmod(code, _WIDTHS)
        for t, w in ((tail - 1, width), (tail + 1, width), (tail, width - 1), (tail, width + 1)):
            if 0 <= t < _SHAPES and 0 <= w < _WIDTHS and t * _WIDTHS + w not in costs:
                costs[t * _WIDTHS + w] = cost(t * _WIDTHS + w)
        best = min(costs, key=lambda c: (costs[c], c))
        if best == code:
            return code
        code = best


def encode_groups(groups: Sequence[NDArray[np.integer[Any]]]) -> bytes:
    """Integers as bytes; each group gets the distribution that suits it best.

    Parameters
    ----------
    groups : sequence of integer arrays
        Magnitudes below 2**15; shapes and sizes are the caller's to know on decoding.
    """
    encoder = constriction.stream.queue.RangeEncoder()
    head = bytearray()
    for group in groups:
        values = np.asarray(group, np.int64).ravel()
        largest = int(np.abs(values).max(initial=0))
        if largest > MAX_MAGNITUDE:
            raise OverflowError(f"integer of magnitude {largest}, at most {MAX_MAGNITUDE} can be coded")
        head += write_varint(largest)
        if largest:
            code = _best_code(values, largest)
            head.append(code)
            encoder.encode((values + largest).astype(np.int32), _model(largest, code))
    return bytes(head) + _payload(encoder)


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
    decoder = _decoder(data[offset:])
    out = []
    for size, (largest, code) in zip(sizes, models, strict=True):
        if largest:
            out.append(_decode(decoder, _model(largest, code), size).astype(np.int32) - largest)
        else:
            out.append(np.zeros(size, np.int32))
    return out


# ----------------------------------------------------------- integers of known distribution

CLASSES = 64  # distributions that a symbol's neighbours choose among
_LAPLACE_BITS = 30
_AT_A_TIME = 4096  # symbols whose distributions are laid out together


@lru_cache(maxsize=64)
def class_frequencies(largest: int) -> _Ints:
    """Integer frequencies, out of 2**24, of ``0, 1, ..., largest`` and their negatives, by class.

    Class k is the Laplace distribution of scale ``s = (4 + k % 4) * 2**(k // 4 - 7)`` in bins of
    unit width, its tail folded into `largest`. It follows from one number a class,
    ``exp(-1 / (2 s))`` in units of 2**-30, rounded down.

    Returns
    -------
    array of int64, shape (CLASSES, largest + 1)
        Frequency of each magnitude m; of +m and of -m alike where m > 0.
    """
    unit = 1 << _LAPLACE_BITS
    k = np.arange(CLASSES)
    roots = [Decimal(-1) / (2 * Decimal(int(4 + i % 4)) * Decimal(2) ** int(i // 4 - 7)) for i in k]
    root = np.array([int(unit * r.exp()) for r in roots], np.int64)
    ratio = (root * root) >> _LAPLACE_BITS
    p = np.empty((CLASSES, largest + 1), np.int64)
    p[:, 0] = unit - root
    above = root // 2  # of the magnitudes not yet given a share, on one side
    for m in range(1, largest + 1):
        rest = (above * ratio) >> _LAPLACE_BITS
        p[:, m] = above - rest if m < largest else above
        above = rest
    f = _normalised(p, unit)
    f.setflags(write=False)
    return f


def encode_classes(values: _Ints, classes: _Ints, largest: int) -> bytes:
    """Integers of magnitude at most `largest` >= 1, each coded with the distribution of its class."""
    encoder = constriction.stream.queue.RangeEncoder()
    table = _weights(class_frequencies(largest))
    family = constriction.stream.model.Categorical(perfect=False)
    for part in range(0, len(values), _AT_A_TIME):
        chosen = slice(part, part + _AT_A_TIME)
        encoder.encode((values[chosen] + largest).astype(np.int32), family, table[classes[chosen]])
    return _payload(encoder)


class ClassDecoder:
    """Decodes what :func:`encode_classes` encoded, in parts whose classes may depend on earlier ones."""

    def __init__(self, data: bytes, largest: int) -> None:
        self._decoder, self._largest = _decoder(data), largest
        self._table = _weights(class_frequencies(largest))
        self._family = constriction.stream.model.Categorical(perfect=False)

    def decode(self, classes: _Ints) -> NDArray[np.int32]:
        """The next integers, one for each of `classes`."""
        parts = [
            _decode(self._decoder, self._family, self._table[classes[part : part + _AT_A_TIME]])
            for part in range(0, len(classes), _AT_A_TIME)
        ]
        return np.concatenate(parts).astype(np.int32) - self._largest


def _payload(encoder: Any) -> bytes:
    """The words, little endian, without the zero bytes at the end: a decoder reads zeros there."""
    return bytes(encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0"))


def _decoder(data: bytes) -> Any:
    words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
    return constriction.stream.queue.RangeDecoder(words)


def _decode(decoder: Any, *model_and_amount: Any) -> NDArray[Any]:
    try:
        return np.asarray(decoder.decode(*model_and_amount))
    except AssertionError as error:  # constriction's, for words that no encoder writes
        raise CorruptStreamError("the range coder's words are invalid; the stream is damaged") from error


# ---------------------------------------------------------------------------------- masks
#
# A mask is coded along wavefronts of a skewed grid: every voxel of a front depends on earlier
# fronts only, so that a front is one vectorised call. Contexts are the neighbours already known
# in the same plane (as in JBIG, ITU-T T.82) and four voxels of the plane before; probabilities
# adapt by counting (Krichevsky and Trofimov, 1981). A long thin mask has too many fronts of too few
# voxels for that to be fast: it is packed, eight voxels a byte, and deflated.

_NEIGHBOURS = (
    (0, 0, -1), (0, 0, -2), (0, -1, -1), (0, -1, 0), (0, -1, 1), (0, -2, 0),
    (-1, 0, 0), (-1, 0, 1), (-1, 1, 0), (-1, 1, 1),
)  # fmt: skip
_PAD = ((1, 0), (2, 1), (2, 1))
_PACKED = 0x80  # flag in a mask's first byte


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """A boolean array of any rank as bytes: which axes it is constant along, then what remains."""
    firsts = [mask[(slice(None),) * axis + (slice(1),)] for axis in range(mask.ndim)]
    constant = [bool((mask == first).all()) for first in firsts]
    core = mask[tuple(slice(0, 1) if flag else slice(None) for flag in constant)]
    head = sum(flag << axis for axis, flag in enumerate(constant))
    if _is_thin(core.shape):
        return bytes([head | _PACKED]) + zlib.compress(np.packbits(core).tobytes(), 9)
    cells = np.zeros([n + sum(pad) for n, pad in zip(_planes(core.shape), _PAD, strict=True)], np.uint8)
    cells[1:, 2:-1, 2:-1] = core.reshape(_planes(core.shape))
    flat = cells.reshape(-1)
    encoder = constriction.stream.queue.RangeEncoder()
    counts = np.zeros((2 ** len(_NEIGHBOURS), 2), np.int64)
    for front in _fronts(cells.shape):
        bits = flat[front]
        context, chance = _chances(flat, front, cells.shape, counts)
        encoder.encode(bits.astype(np.int32), _bernoulli(), chance)
        np.add.at(counts, (context, bits), 1)
    return bytes([head]) + _payload(encoder)


def decode_mask(data: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask of :func:`encode_mask`, a read-only view where it is constant along an axis.

    Raises
    ------
    CorruptStreamError
        If `data` is empty, names axes that `shape` lacks or does not hold a mask of its size.
    """
    if not data or (data[0] & ~_PACKED) >> len(shape):
        raise CorruptStreamError("a mask that does not fit the shape; the stream is damaged")
    core = tuple(1 if data[0] >> axis & 1 else n for axis, n in enumerate(shape))
    if bool(data[0] & _PACKED) != _is_thin(core):
        raise CorruptStreamError(f"a mask of shape {core} is coded in another way; the stream is damaged")
    if data[0] & _PACKED:
        size = int(np.prod(core, dtype=np.int64))
        bits = np.frombuffer(inflate(data[1:], -(-size // 8)), np.uint8)
        return np.broadcast_to(np.unpackbits(bits, count=size).astype(bool).reshape(core), shape)
    planes = _planes(core)
    cells = np.zeros([n + sum(pad) for n, pad in zip(planes, _PAD, strict=True)], np.uint8)
    flat = cells.reshape(-1)
    decoder = _decoder(data[1:])
    counts = np.zeros((2 ** len(_NEIGHBOURS), 2), np.int64)
    for front in _fronts(cells.shape):
        context, chance = _chances(flat, front, cells.shape, counts)
        bits = _decode(decoder, _bernoulli(), chance).astype(np.uint8)
        flat[front] = bits
        np.add.at(counts, (context, bits), 1)
    return np.broadcast_to(cells[1:, 2:-1, 2:-1].reshape(core).astype(bool), shape)


def _planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`shape` as (planes, rows, columns): the last two axes longer than one, the others merged."""
    long = [n for n in shape if n != 1]
    rows, columns = [1, 1, *long][-2:]
    return int(np.prod(long[:-2], dtype=np.int64)), rows, columns


def _is_thin(shape: tuple[int, ...]) -> bool:
    """Whether the fronts of a mask are too many for its size."""
    planes, rows, columns = _planes(shape)
    return columns + 2 * rows + 4 * planes > 4096 + planes * rows * columns // 64


def _fronts(padded: tuple[int, ...]) -> Iterator[_Ints]:
    """Flat positions in the padded grid, front by front: ``column + 2 row + 4 plane`` constant."""
    planes, rows, columns = (n - sum(pad) for n, pad in zip(padded, _PAD, strict=True))
    plane, row = (i.ravel() for i in np.meshgrid(np.arange(planes), np.arange(rows), indexing="ij"))
    start = 4 * plane + 2 * row
    base = ((plane + 1) * padded[1] + row + 2) * padded[2] + 2
    order = np.argsort(start, kind="stable")
    start, base = start[order], base[order]
    for t in range(int(start[-1]) + columns if start.size else 0):
        first, last = np.searchsorted(start, [t - columns + 1, t + 1])
        yield base[first:last] + (t - start[first:last])


def _chances(
    flat: NDArray[np.uint8], front: _Ints, padded: tuple[int, ...], counts: _Ints
) -> tuple[_Ints, NDArray[np.float64]]:
    """Context of each voxel of a front, and the chance of a one there in units of 2**-16."""
    context = np.zeros(front.size, np.int64)
    for plane, row, column in _NEIGHBOURS:
        context = 2 * context + flat[front + (plane * padded[1] + row) * padded[2] + column]
    ones, both = counts[context, 1], counts[context].sum(axis=1)
    chance = np.clip(((2 * ones + 1) << 16) // (2 * both + 2), 1, 2**16 - 1)
    return context, chance / 2**16  # a multiple of 2**-16, hence exact


def _bernoulli() -> Any:
    return constriction.stream.model.Bernoulli(perfect=False)
