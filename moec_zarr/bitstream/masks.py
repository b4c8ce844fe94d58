"""Masks of voxels, coded exactly.

A mask is coded along wavefronts of a skewed grid: every voxel of a wavefront depends on earlier wavefronts
only, so that a wavefront is one vectorised call. Contexts are the neighbours already known in the same
plane (as in JBIG, ITU-T T.82) and four voxels of the plane before; probabilities adapt by counting
(Krichevsky and Trofimov, 1981). A long thin mask has too many wavefronts of too few voxels for that to
be fast: it is packed, eight voxels a byte, and deflated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Integers
from moec_zarr.bitstream.primitives import inflate, read_varint, write_varint
from moec_zarr.bitstream.range_coder import RangeDecoder, RangeEncoder, end_words, range_words, zero_frequency
from moec_zarr.compiled import is_compiled
from moec_zarr.errors import CorruptStreamError

__all__ = ["decode_mask", "encode_mask", "read_coded_mask", "write_mask"]

_NEIGHBOURS = (
    (0, 0, -1), (0, 0, -2), (0, -1, -1), (0, -1, 0), (0, -1, 1), (0, -2, 0),
    (-1, 0, 0), (-1, 0, 1), (-1, 1, 0), (-1, 1, 1),
)  # fmt: skip
_PAD = ((1, 0), (2, 1), (2, 1))
_KNOWN = 5  # wavefronts that stand in memory: this one, and those before that hold its neighbours
_PACKED = 0x80  # flag in a mask's first byte

_Bits: TypeAlias = NDArray[np.uint8]


def encode_mask(mask: Bools) -> bytes:
    """Encode a boolean array of any rank: the axes along which it is constant, then what remains."""
    firsts = [mask[(slice(None),) * axis + (slice(1),)] for axis in range(mask.ndim)]
    constant = [bool((mask == first).all()) for first in firsts]
    core = np.ascontiguousarray(mask[tuple(slice(0, 1) if flag else slice(None) for flag in constant)])
    head = sum(flag << axis for axis, flag in enumerate(constant))
    if _is_thin(core.shape):
        return bytes([head | _PACKED]) + zlib.compress(np.packbits(core).tobytes(), 9)
    encode = _encode_compiled if core.size and is_compiled(core.size) else _encode_plainly
    return bytes([head]) + encode(core.reshape(_planes(core.shape)).view(np.uint8))


def decode_mask(data: bytes, shape: tuple[int, ...]) -> Bools:
    """Decode the mask of :func:`encode_mask`: a read-only view if it is constant along an axis.

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
    decoded = _decode_compiled if is_compiled(int(np.prod(planes, dtype=np.int64))) else _decode_plainly
    return np.broadcast_to(decoded(data[1:], planes).reshape(core), shape)


class _Cells(NamedTuple):
    """A mask with a border that is zero, and what compiled code reads of it by wavefronts."""

    flat: _Bits
    start: Integers  # of each row, rising
    places: Integers  # of the first cell of each row
    columns: int
    neighbours: Integers  # where they stand, seen from a cell


def _lay_out(planes: tuple[int, ...]) -> tuple[_Bits, _Cells]:
    """Return room for a mask of so many planes, rows and columns, and the cells that it is a part of."""
    cells = np.zeros([n + sum(pad) for n, pad in zip(planes, _PAD, strict=True)], np.uint8)
    neighbours = np.array(_NEIGHBOURS, np.int64) @ np.array([cells[0].size, cells.shape[2], 1], np.int64)
    start, plane, row = _lines(planes)
    places = ((plane + 1) * cells.shape[1] + row + 2) * cells.shape[2] + 2
    return cells[1:, 2:-1, 2:-1], _Cells(cells.reshape(-1), start, places, planes[2], neighbours)


def _encode_compiled(core: _Bits) -> bytes:
    """Do the same as `_encode_plainly`, compiled."""
    from moec_zarr.bitstream import kernels

    inner, cells = _lay_out(core.shape)
    inner[...] = core
    encode: Any = kernels.encode_cells
    words, used, low = encode(*cells)
    return end_words(words, int(used), int(low))


def _encode_plainly(core: _Bits) -> bytes:
    """Encode a mask, shape (planes, rows, columns)."""
    flat = core.reshape(-1)
    encoder = RangeEncoder()

    def write(positions: Integers, zeros: Integers) -> _Bits:
        bits = flat[positions]
        encoder.flags(bits, zeros)
        return bits

    _follow(core.shape, write)
    return encoder.payload()


def _decode_compiled(data: bytes, planes: tuple[int, int, int]) -> Bools:
    """Do the same as `_decode_plainly`, compiled."""
    from moec_zarr.bitstream import kernels

    inner, cells = _lay_out(planes)
    if not kernels.decode_cells(range_words(data), *cells):
        raise CorruptStreamError("the range coder's words are invalid; the stream is damaged")
    return inner.astype(bool)


def _decode_plainly(data: bytes, planes: tuple[int, int, int]) -> Bools:
    """Return the mask of so many planes, rows and columns."""
    flat = np.empty(planes, bool).reshape(-1)
    decoder = RangeDecoder(data)

    def read(positions: Integers, zeros: Integers) -> _Bits:
        bits = np.array(decoder.flags(zeros.tolist()), np.uint8)
        flat[positions] = bits
        return bits

    _follow(planes, read)
    return flat


def write_mask(mask: Bools) -> bytes:
    """Write the length of a coded mask, then the mask."""
    coded = encode_mask(mask)
    return write_varint(len(coded)) + coded


def read_coded_mask(data: bytes, offset: int) -> tuple[bytes, int]:
    """Read the bytes of the mask at `offset`, for `decode_mask`, and the offset behind it.

    Raises
    ------
    CorruptStreamError
        If it claims more bytes than are left.
    """
    length, offset = read_varint(data, offset)
    if length > len(data) - offset:
        raise CorruptStreamError(f"a mask claims {length} bytes, {len(data) - offset} are left")
    return data[offset : offset + length], offset + length


def _planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`shape` as (planes, rows, columns): the last two axes longer than one, the others merged."""
    longer = [n for n in shape if n != 1]
    rows, columns = [1, 1, *longer][-2:]
    return int(np.prod(longer[:-2], dtype=np.int64)), rows, columns


def _is_thin(shape: tuple[int, ...]) -> bool:
    """Whether the wavefronts of a mask are too many for its size."""
    planes, rows, columns = _planes(shape)
    return columns + 2 * rows + 4 * planes > 4096 + planes * rows * columns // 64


def _lines(planes: tuple[int, ...]) -> tuple[Integers, Integers, Integers]:
    """For each row of each plane its first wavefront, its plane and its number there, in order of the first.

    The wavefront of a voxel is ``column + 2 row + 4 plane``; on it the rows stand in this order.
    """
    plane, row = (i.ravel() for i in np.meshgrid(*map(np.arange, planes[:2]), indexing="ij"))
    start = 4 * plane + 2 * row
    order = np.argsort(start, kind="stable")
    return start[order], plane[order], row[order]


def _follow(planes: tuple[int, ...], code: Callable[[Integers, Integers], _Bits]) -> None:
    """Code a mask, wavefront by wavefront.

    Neighbours lie at a fixed distance in wavefronts and in rows: where a wavefront has a place for each row,
    they are slices of earlier ones.

    Parameters
    ----------
    code : callable
        Given the flat positions of a wavefront's voxels, and the frequency of 0 at each, returns their bits.
    """
    height, columns = planes[1] + sum(_PAD[1]), planes[2]
    start, plane, row = _lines(planes)
    place, base = (plane + 1) * height + row + 2, (plane * planes[1] + row) * columns - start
    back = [(-4 * p - 2 * r - c, p * height + r) for p, r, c in _NEIGHBOURS]
    known = np.zeros((_KNOWN, (planes[0] + 1) * height), np.uint8)
    contexts = np.zeros(known.shape[1], np.uint16)
    zeros, ones = counts = np.zeros((2, 2 ** len(_NEIGHBOURS)), np.int64)
    length = int(start[-1]) + columns if start.size and columns else 0
    bounds = np.searchsorted(start, np.arange(-columns, length) + 1).tolist()
    for t, (first, last) in enumerate(zip(bounds, bounds[columns:], strict=False)):
        # Planes that this wavefront may meet.
        lower = max(0, -((2 * planes[1] + columns - 3 - t) // 4)) + 1
        part = slice(lower * height, (min(t // 4, planes[0] - 1) + 2) * height)
        own = contexts[part]
        own[:] = 0
        for wavefronts, rows in back:
            own <<= 1
            own |= known[(t - wavefronts) % _KNOWN, part.start + rows : part.stop + rows]
        here = place[first:last]
        context = contexts.take(here)
        one = ones.take(context)
        chance = ((2 * one + 1) << 16) // (2 * (zeros.take(context) + one) + 2)
        chance = np.minimum(np.maximum(chance, 1), 2**16 - 1)
        bits = code(base[first:last] + t, zero_frequency(chance << 8))
        latest = known[t % _KNOWN]
        latest[:] = 0
        latest[here] = bits
        counts += np.bincount(context + bits * np.int64(ones.size), minlength=counts.size).reshape(2, -1)
