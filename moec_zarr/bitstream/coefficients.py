"""The section of transform coefficients: bases, step, context, bands present, integers by wavefront.

Of each wavefront come first the flags of what is not zero, then the magnitudes of those that are not,
then the excesses of the largest; the signs of all stand at the end. The activity, from which a
coefficient's class follows, is kept for the whole grid: whatever is not zero adds to it where its
`context_tables` say.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise, repeat, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Integers
from moec_zarr.bitstream.activity import Activity
from moec_zarr.bitstream.coding_order import (
    RowOctaves,
    band_counts,
    coefficient_octaves,
    extent_of,
    present_bands,
)
from moec_zarr.bitstream.contexts import (
    CLASSES,
    LARGEST_SYMBOL,
    MAX_COEFFICIENT,
    Context,
    excess_order,
    magnitude_frequencies,
    zero_frequencies,
)
from moec_zarr.bitstream.grid import Grid, lay_out
from moec_zarr.bitstream.masks import decode_mask, read_coded_mask, write_mask
from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.bitstream.range_coder import EVEN, PRECISION, RangeDecoder, end_words, range_words
from moec_zarr.compiled import is_compiled
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.basis import (
    AXIS_NEIGHBOURS,
    LONGEST_GRAPH_AXIS,
    AxisBasis,
    BasisFunctions,
    functions_of,
    maximum_levels,
)
from moec_zarr.model.coefficients import Coefficients
from moec_zarr.model.folding import folded_shape
from moec_zarr.model.transform import corner, joint_axes

__all__ = [
    "COEFFICIENTS_PER_BYTE",
    "NONZERO_PER_BYTE",
    "STEPS",
    "read_bases",
    "read_coefficients",
    "read_context",
    "read_integers",
    "write_bases",
    "write_coefficients",
    "write_context",
    "write_integers",
]

STEPS = 2.0**-64, 2.0**64  # between which a step lies
COEFFICIENTS_PER_BYTE = 1 << 13  # of the extent that is coded, at most
NONZERO_PER_BYTE = 8  # coefficients that are not zero, at most; real streams have less than two
_JOINT, _GRAPH = 1 << 4, 1 << 5  # flags of an axis' basis


def write_coefficients(
    coefficients: Coefficients, context: Context, *, step_last: bool = False, present: Bools | None = None
) -> bytes:
    """Write the section's bytes.

    Parameters
    ----------
    coefficients : Coefficients
        Integers of at most ``MAX_COEFFICIENT``, not all zero. A decoder takes no more than
        ``COEFFICIENTS_PER_BYTE`` of them in the extent of the bands that are present, of which no more
        than ``NONZERO_PER_BYTE`` are not zero.
    context : Context
        The probability model that they are coded with.
    step_last : bool
        Whether the step stands behind what transforms have in common, as where an entry of a dictionary
        comes first.
    present : bool array, optional
        Bands that are coded, all that are needed among them; those alone by default.
    """
    functions = coefficients.functions
    if present is None:
        present = present_bands(functions, coefficients.integers)
    octaves = coefficient_octaves(functions, present)
    head, step = write_bases(coefficients.bases), struct.pack("<f", coefficients.step)
    common = write_context(context) + write_mask(present)
    head += common + step if step_last else step + common
    return head + write_integers(_extend(coefficients.integers, octaves.extent), functions, octaves, context)


def write_integers(
    integers: NDArray[np.int32],
    functions: Sequence[BasisFunctions],
    octaves: RowOctaves,
    context: Context,
) -> bytes:
    """Write the integers of a grid, not all zero, wavefront by wavefront.

    Parameters
    ----------
    integers : int32 array
    functions : sequence of BasisFunctions
        Of each axis, at least as many as the grid has.
    octaves : RowOctaves
        Of each integer.
    context : Context
        The probability model that they are coded with.
    """
    from moec_zarr.bitstream.coefficient_kernels import encode_grid

    symbols = min(max(int(integers.max()), -int(integers.min())), LARGEST_SYMBOL)
    encode: Any = encode_grid
    grid = lay_out(functions, octaves, context)
    words, used, low, _ = encode(integers.reshape(-1), grid, zero_frequencies(), _sums(symbols), symbols)
    payload = end_words(words, int(used), int(low))
    return write_varint(symbols) + payload


def _extend(integers: NDArray[Any], extent: tuple[int, ...]) -> NDArray[np.int32]:
    """`integers` as an array of `extent`, which holds all that are not zero."""
    if integers.shape == extent and integers.dtype == np.int32:
        return np.ascontiguousarray(integers)
    out = np.zeros(extent, np.int32)
    common = corner(tuple(map(min, integers.shape, extent)))
    out[common] = integers[common]
    return out


def read_coefficients(data: bytes, shape: tuple[int, ...], *, taken: int = 0) -> Coefficients:
    """Read the coefficients of a grid of `shape`, its axes longer than one.

    Parameters
    ----------
    data : bytes
        The section's payload.
    shape : tuple of int
    taken : int
        How many of the bytes are a dictionary's. Then the step stands behind the bands that are present, and
        only the other bytes allow for coefficients.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such a section; before anything of the declared shape is allocated.
    """
    folded = folded_shape(shape)
    if not folded:
        raise CorruptStreamError("coefficients of a single voxel; the stream is damaged")
    bases, offset = read_bases(data, folded)
    if not taken:
        step, offset = _read_step(data, offset)
    context, offset = read_context(data, offset, len(folded))
    functions = functions_of(bases, folded)
    coded, offset = read_coded_mask(data, offset)
    if taken:
        step, offset = _read_step(data, offset)
    present = decode_mask(coded, band_counts(functions))
    if not present.any():
        raise CorruptStreamError("no band of coefficients is present; the stream is damaged")
    extent = extent_of(functions, present)
    if math.prod(extent) > COEFFICIENTS_PER_BYTE * (len(data) - taken):
        raise CorruptStreamError(f"{extent} coefficients in {len(data) - taken} bytes; the stream is damaged")
    octaves = coefficient_octaves(functions, present)
    integers = read_integers(data, offset, functions, octaves, context, taken=taken)
    return Coefficients(shape, bases, step, integers)


def read_bases(data: bytes, folded: tuple[int, ...]) -> tuple[tuple[AxisBasis, ...], int]:
    """Read the bases of folded axes of these lengths; return the offset behind them too.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such bases.
    """
    bases: list[AxisBasis] = []
    offset = 0
    for length in folded:
        basis, offset = _read_basis(data, offset, length)
        bases.append(basis)
    if len(joint_axes(bases)) == 1:
        raise CorruptStreamError("a single joint axis; the stream is damaged")
    return tuple(bases), offset


def write_bases(bases: Sequence[AxisBasis]) -> bytes:
    """Write the bases of folded axes."""
    return b"".join(map(_write_basis, bases))


def _read_step(data: bytes, offset: int) -> tuple[float, int]:
    if len(data) < offset + 4:
        raise CorruptStreamError("the stream ends before a step; it is truncated, fetch it again")
    (step,) = struct.unpack_from("<f", data, offset)
    if not STEPS[0] <= step <= STEPS[1]:
        raise CorruptStreamError(f"a step of {step}; the stream is damaged")
    return step, offset + 4


def read_integers(
    data: bytes,
    offset: int,
    functions: Sequence[BasisFunctions],
    octaves: RowOctaves,
    context: Context,
    *,
    taken: int = 0,
) -> NDArray[np.int32]:
    """Read what :func:`write_integers` wrote, from `offset` to the section's end; zero where none is coded.

    All but `taken` of the section's bytes allow for integers that are not zero.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such bytes.
    """
    symbols, offset = read_varint(data, offset)
    if not 1 <= symbols <= LARGEST_SYMBOL:
        raise CorruptStreamError(f"magnitudes up to {symbols}; the stream is damaged")
    most = NONZERO_PER_BYTE * (len(data) - taken)
    size = math.prod(octaves.extent)
    if is_compiled(size):
        integers = _decode_compiled(data[offset:], lay_out(functions, octaves, context), symbols, most)
    else:
        activity = Activity(functions, octaves.whole(), context)
        places, values = _decode_plainly(data[offset:], activity, symbols, most)
        integers = np.zeros(size, np.int32)
        integers[places] = values
    return integers.reshape(octaves.extent)


def write_context(context: Context) -> bytes:
    """Write the numbers of a context."""
    numbers = context.floor, context.rise, context.power, context.offset, context.slope
    return bytes(context.neighbour_weights) + struct.pack("<bbBhh", *numbers)


def read_context(data: bytes, offset: int, axes: int) -> tuple[Context, int]:
    """Read the context of so many axes at `offset`; return the offset behind it too."""
    numbers = offset + axes * AXIS_NEIGHBOURS
    if len(data) < numbers + 7:
        raise CorruptStreamError("the stream ends inside a context; it is truncated, fetch it again")
    return Context(tuple(data[offset:numbers]), *struct.unpack_from("<bbBhh", data, numbers)), numbers + 7


def _decode_compiled(data: bytes, grid: Grid, symbols: int, most: int) -> NDArray[np.int32]:
    """Return all coefficients of a grid, flat."""
    from moec_zarr.bitstream import coefficient_kernels as kernels

    decode: Any = kernels.decode_grid
    count, integers = decode(
        range_words(data), grid, zero_frequencies(), _sums(symbols), _smallest(symbols), symbols, most
    )
    if count == kernels.CORRUPT:
        raise CorruptStreamError("the range coder's words are invalid; the stream is damaged")
    if count == kernels.TOO_MANY:
        raise _too_many(most, most + 1)
    if count == kernels.EXCESS:
        raise _too_large()
    return np.asarray(integers)


def _too_many(most: int, count: int) -> CorruptStreamError:
    return CorruptStreamError(
        f"{count} or more coefficients that are not zero, at most {most} fit the bytes; the stream is damaged"
    )


@lru_cache(maxsize=64)
def _sums(symbols: int) -> Integers:
    """For each class the frequencies of all magnitudes below each one, shape (CLASSES, symbols + 1)."""
    sums = np.cumsum(magnitude_frequencies(symbols), axis=1)
    return np.concatenate([np.zeros((CLASSES, 1), np.int64), sums], axis=1)


@lru_cache(maxsize=64)
def _smallest(symbols: int) -> NDArray[np.uint8]:
    """For each class the smallest magnitude whose sum exceeds multiples of 2**16, shape (CLASSES, 256)."""
    steps = np.arange(256) << 16
    found = [np.searchsorted(sums[1:], steps, side="right") + 1 for sums in _sums(symbols)]
    return np.array(found, np.uint8)


@lru_cache(maxsize=64)
def _rows(symbols: int) -> list[list[int]]:
    """Return the same for plain Python."""
    return _sums(symbols).tolist()  # type: ignore[no-any-return]


def _decode_plainly(
    data: bytes, activity: Activity, symbols: int, most: int
) -> tuple[NDArray[np.int32], Integers]:
    """Positions and integers of the coefficients that are not zero, at most `most` of them."""
    decoder = RangeDecoder(data)
    zeros, table = zero_frequencies(), _rows(symbols)
    nothing = np.zeros(0, np.int64)
    where, sizes, total = [nothing], [nothing], 0
    for first, last in pairwise([0, *activity.ends]):
        chosen = activity.classes(slice(first, last))
        some = np.flatnonzero(decoder.flags(zeros[chosen].tolist()))
        if not some.size:
            continue
        total += some.size
        if total > most:
            raise _too_many(most, total)
        magnitudes = np.ones(some.size, np.int64)
        if symbols > 1:
            magnitudes += decoder.symbols(table, chosen[some].tolist())
        if symbols == LARGEST_SYMBOL:
            for each in np.flatnonzero(magnitudes == symbols):
                magnitudes[each] += _read_excess(decoder, int(excess_order(chosen[some[each]])))
        some += first
        activity.add(some, magnitudes)
        where.append(some)
        sizes.append(magnitudes)
    positions, values = activity.order[np.concatenate(where)], np.concatenate(sizes)
    negative = decoder.flags(repeat(EVEN, values.size))
    return positions, np.where(negative, -values, values) if values.size else values


def _read_excess(decoder: RangeDecoder, order: int) -> int:
    """Read an Exp-Golomb code of an order."""
    length = order
    while decoder.flags([EVEN])[0]:
        length += 1
        if length > MAX_COEFFICIENT.bit_length():
            raise _too_large()
    (number,) = decoder.symbols([range(0, (1 << PRECISION) + 1, 1 << PRECISION - length)], [0])
    excess = (1 << length) - (1 << order) + number
    if excess > MAX_COEFFICIENT - LARGEST_SYMBOL:
        raise _too_large()
    return excess


def _too_large() -> CorruptStreamError:
    return CorruptStreamError(f"a coefficient above {MAX_COEFFICIENT}; the stream is damaged")


def _write_basis(basis: AxisBasis) -> bytes:
    """Levels and flags; the edge weights of a graph Fourier basis follow, two a byte."""
    weights = basis.edge_weights
    head = bytes([basis.levels | _JOINT * basis.joint | _GRAPH * bool(weights)])
    pairs = zip_longest(weights[::2], weights[1::2], fillvalue=0)
    return head + bytes(low | high << 4 for low, high in pairs)


def _read_basis(data: bytes, offset: int, length: int) -> tuple[AxisBasis, int]:
    """Return the basis of an axis of `length`, and the offset behind it."""
    head = data[offset] if offset < len(data) else -1
    offset += 1
    levels, joint, graph = head & 15, bool(head & _JOINT), bool(head & _GRAPH)
    if not 0 <= head < 2 * _GRAPH or (joint and not levels) or levels > maximum_levels(length):
        raise CorruptStreamError(f"an axis of {length} in a basis {head}; the stream is damaged")
    if not graph:
        return AxisBasis(levels, joint), offset
    packed = data[offset : offset + length // 2]
    if levels or not 2 < length <= LONGEST_GRAPH_AXIS or len(packed) < length // 2:
        raise CorruptStreamError(
            f"an axis of {length} cannot have a graph Fourier basis; the stream is damaged"
        )
    weights = [part for pair in packed for part in (pair & 15, pair >> 4)]
    if any(weights[length - 1 :]):
        raise CorruptStreamError("weights beyond the last edge; the stream is damaged")
    return AxisBasis(edge_weights=tuple(weights[: length - 1])), offset + len(packed)
