"""Masks of voxels, coded exactly.

A mask is coded along wavefronts of a skewed grid: every voxel of a wavefront depends on earlier wavefronts
only, so that a wavefront is one vectorised call. Contexts are the neighbours already known in the same
plane (as in JBIG, ITU-T T.82) and four voxels of the plane before; probabilities adapt by counting
(Krichevsky and Trofimov, 1981). A long thin mask has too many wavefronts of too few voxels for that to
be fast: it is packed, eight voxels a byte, and deflated.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Doubles, Integers
from moec_zarr.bitstream.primitives import inflate, read_varint, write_varint
from moec_zarr.bitstream.range_coder import decode_with, payload, range_decoder
from moec_zarr.errors import CorruptStreamError

__all__ = ["decode_mask", "encode_mask", "read_coded_mask", "write_mask"]

_NEIGHBOURS = (
    (0, 0, -1), (0, 0, -2), (0, -1, -1), (0, -1, 0), (0, -1, 1), (0, -2, 0),
    (-1, 0, 0), (-1, 0, 1), (-1, 1, 0), (-1, 1, 1),
)  # fmt: skip
_PAD = ((1, 0), (2, 1), (2, 1))
_PACKED = 0x80  # flag in a mask's first byte


def encode_mask(mask: Bools) -> bytes:
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
    contexts, bernoulli = _Contexts(flat, cells.shape), _bernoulli()
    for wavefront in _wavefronts(cells.shape):
        bits = flat[wavefront]
        encoder.encode(bits.astype(np.int32), bernoulli, contexts.chances(wavefront))
        contexts.count(bits)
    return bytes([head]) + payload(encoder)


def decode_mask(data: bytes, shape: tuple[int, ...]) -> Bools:
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
    decoder = range_decoder(data[1:])
    contexts, bernoulli = _Contexts(flat, cells.shape), _bernoulli()
    for wavefront in _wavefronts(cells.shape):
        bits = decode_with(decoder, bernoulli, contexts.chances(wavefront)).astype(np.uint8)
        flat[wavefront] = bits
        contexts.count(bits)
    return np.broadcast_to(cells[1:, 2:-1, 2:-1].reshape(core).astype(bool), shape)


def write_mask(mask: Bools) -> bytes:
    """The length of a coded mask, the mask."""
    coded = encode_mask(mask)
    return write_varint(len(coded)) + coded


def read_coded_mask(data: bytes, offset: int) -> tuple[bytes, int]:
    """The bytes of the mask at `offset`, for `decode_mask`, and the offset behind it.

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


def _wavefronts(padded: tuple[int, ...]) -> Iterator[Integers]:
    """Flat positions in the padded grid, wavefront by wavefront: ``column + 2 row + 4 plane`` constant."""
    planes, rows, columns = (n - sum(pad) for n, pad in zip(padded, _PAD, strict=True))
    plane, row = (i.ravel() for i in np.meshgrid(np.arange(planes), np.arange(rows), indexing="ij"))
    start = 4 * plane + 2 * row
    base = ((plane + 1) * padded[1] + row + 2) * padded[2] + 2
    order = np.argsort(start, kind="stable")
    start, base = start[order], base[order]
    for t in range(int(start[-1]) + columns if start.size else 0):
        first, last = np.searchsorted(start, [t - columns + 1, t + 1])
        yield base[first:last] + (t - start[first:last])


class _Contexts:
    """The chances of a one, which follow from the neighbours' values and from what was counted after them."""

    def __init__(self, flat: NDArray[np.uint8], padded: tuple[int, ...]) -> None:
        self._flat = flat
        offsets = [(plane * padded[1] + row) * padded[2] + column for plane, row, column in _NEIGHBOURS]
        self._offsets = np.array(offsets)[:, None]
        self._weights = 2.0 ** np.arange(len(_NEIGHBOURS))[::-1]
        self._ones = np.zeros(2 ** len(_NEIGHBOURS), np.int64)
        self._all = self._ones.copy()

    def chances(self, wavefront: Integers) -> Doubles:
        """The chance of a one at each voxel of a wavefront, a multiple of 2**-16."""
        values = self._flat.take(self._offsets + wavefront)
        self._context = (self._weights @ values).astype(np.int64)  # below 2**10, hence exact
        ones, both = self._ones.take(self._context), self._all.take(self._context)
        # Below 2**16 as it is, for there are no more ones than voxels.
        return np.asarray(np.maximum(((2 * ones + 1) << 16) // (2 * both + 2), 1) / 2**16)

    def count(self, bits: NDArray[np.uint8]) -> None:
        """Count the values of that wavefront."""
        size = len(self._all)
        self._ones += np.bincount(self._context[bits > 0], minlength=size)
        self._all += np.bincount(self._context, minlength=size)


def _bernoulli() -> Any:
    return constriction.stream.model.Bernoulli(perfect=False)
