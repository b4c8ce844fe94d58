"""The section of transform coefficients: bases, step, context, bands present, integers by wavefront."""

from __future__ import annotations

import math
import struct
from itertools import pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.coding_order import (
    Context,
    band_counts,
    extent_of,
    present_bands,
    wavefronts,
)
from moec_zarr.bitstream.masks import read_mask, write_mask
from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE, ClassDecoder, encode_classes
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.basis import (
    AXIS_NEIGHBOURS,
    LONGEST_AXIS,
    LONGEST_GRAPH_AXIS,
    AxisBasis,
    functions_of,
    maximum_levels,
)
from moec_zarr.model.coefficients import Coefficients
from moec_zarr.model.transform import corner, joint_axes

__all__ = ["COEFFICIENTS_PER_BYTE", "STEPS", "read_coefficients", "write_coefficients"]

STEPS = 2.0**-64, 2.0**64  # between which a step lies
COEFFICIENTS_PER_BYTE = 1 << 14  # of the extent that is coded, at most
_LARGEST_SYMBOL = 63  # magnitude of a coefficient that the range coder tells apart
_LOOKUPS_AT_A_TIME = 1 << 18  # coefficients whose context neighbours are looked up together
_JOINT, _GRAPH = 1 << 4, 1 << 5  # flags of an axis' basis


def write_coefficients(coefficients: Coefficients, context: Context) -> bytes:
    """The section's bytes.

    Parameters
    ----------
    coefficients : Coefficients
        Integers of at most ``MAX_MAGNITUDE``, not all zero. A decoder takes no more than
        ``COEFFICIENTS_PER_BYTE`` of them in the extent of the bands that are present.
    context : Context
        The probability model that they are coded with.
    """
    functions, integers = coefficients.functions, coefficients.integers
    present = present_bands(functions, integers)
    order = wavefronts(functions, present)
    values = np.append(_extended(integers, order.extent).ravel(), np.int32(0))
    magnitudes = np.abs(values)
    own = values[order.where].astype(np.int64)
    largest = min(int(magnitudes.max()), _LARGEST_SYMBOL)
    head = b"".join(map(_write_basis, coefficients.bases))
    head += struct.pack("<f", coefficients.step) + bytes(context.neighbour_weights)
    head += struct.pack("<bbBhh", context.floor, context.rise, context.power, context.offset, context.slope)
    head += write_mask(present) + write_varint(largest)
    if largest == _LARGEST_SYMBOL:
        beyond = np.abs(own[np.abs(own) >= largest]) - largest
        head += write_varint(len(beyond)) + b"".join(write_varint(int(excess)) for excess in beyond)
    parts = [slice(i, i + _LOOKUPS_AT_A_TIME) for i in range(0, len(own), _LOOKUPS_AT_A_TIME)]
    classes = [context.classes(magnitudes[order.neighbours[part]], order.octaves(part)) for part in parts]
    return head + encode_classes(np.clip(own, -largest, largest), np.concatenate(classes), largest)


def read_coefficients(data: bytes, shape: tuple[int, ...]) -> Coefficients:
    """The coefficients of a grid of `shape`, its axes longer than one.

    Raises
    ------
    CorruptStreamError
        If a value is reserved, the bytes cannot hold so many coefficients, or they end early.
    """
    axes = len(shape)
    if not axes or max(shape) > LONGEST_AXIS:
        raise CorruptStreamError(f"coefficients of a grid of {shape}; the stream is damaged")
    bases: list[AxisBasis] = []
    offset = 0
    for length in shape:
        basis, offset = _read_basis(data, offset, length)
        bases.append(basis)
    if len(joint_axes(bases)) == 1:
        raise CorruptStreamError("a single joint axis; the stream is damaged")
    fixed = offset + 4 + axes * AXIS_NEIGHBOURS
    if len(data) < fixed + 7:
        raise CorruptStreamError("the stream ends inside a context; it is truncated, fetch it again")
    (step,) = struct.unpack_from("<f", data, offset)
    if not STEPS[0] <= step <= STEPS[1]:
        raise CorruptStreamError(f"a step of {step}; the stream is damaged")
    context = Context(tuple(data[offset + 4 : fixed]), *struct.unpack_from("<bbBhh", data, fixed))
    functions = functions_of(bases, shape)
    present, offset = read_mask(data, fixed + 7, band_counts(functions))
    largest, offset = read_varint(data, offset)
    if not present.any() or not 1 <= largest <= _LARGEST_SYMBOL:
        raise CorruptStreamError("no coefficient, or too large a one; the stream is damaged")
    extent = extent_of(functions, present)
    if math.prod(extent) > COEFFICIENTS_PER_BYTE * len(data):
        raise CorruptStreamError(f"{extent} coefficients in {len(data)} bytes; the stream is damaged")
    beyond: list[int] = []
    if largest == _LARGEST_SYMBOL:
        count, offset = read_varint(data, offset)
        for _ in range(min(count, len(data))):
            excess, offset = read_varint(data, offset)
            beyond.append(excess)
    beyond.reverse()
    order = wavefronts(functions, present)
    values = np.zeros(math.prod(extent) + 1, np.int64)
    decoder = ClassDecoder(data[offset:], largest)
    for first, last in pairwise(order.starts):
        if first == last:
            continue
        wavefront = slice(first, last)
        classes = context.classes(np.abs(values[order.neighbours[wavefront]]), order.octaves(wavefront))
        own = decoder.decode(classes).astype(np.int64)
        for i in np.flatnonzero(np.abs(own) == largest) if largest == _LARGEST_SYMBOL else ():
            if not beyond or beyond[-1] > MAX_MAGNITUDE:
                raise CorruptStreamError("large coefficients lack their excess; the stream is damaged")
            own[i] += np.sign(own[i]) * beyond.pop()
        values[order.where[wavefront]] = own
    if beyond:
        raise CorruptStreamError(f"{len(beyond)} excesses that belong to nothing; the stream is damaged")
    return Coefficients(shape, tuple(bases), step, values[:-1].astype(np.int32).reshape(extent))


def _extended(integers: NDArray[np.int32], extent: tuple[int, ...]) -> NDArray[np.int32]:
    """`integers` as an array of `extent`, which holds all that are not zero."""
    out = np.zeros(extent, np.int32)
    common = corner(tuple(map(min, integers.shape, extent)))
    out[common] = integers[common]
    return out


def _write_basis(basis: AxisBasis) -> bytes:
    """Levels and flags; the edge weights of a graph Fourier basis follow, two a byte."""
    weights = basis.edge_weights
    head = bytes([basis.levels | _JOINT * basis.joint | _GRAPH * bool(weights)])
    pairs = zip_longest(weights[::2], weights[1::2], fillvalue=0)
    return head + bytes(low | high << 4 for low, high in pairs)


def _read_basis(data: bytes, offset: int, length: int) -> tuple[AxisBasis, int]:
    """The basis of an axis of `length`, and the offset behind it."""
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
