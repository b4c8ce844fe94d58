"""What the sections of a stream hold, each as a pair of functions: to bytes and back."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.masks import decode_mask, encode_mask
from moec_zarr.bitstream.range_coder import (
    MAX_MAGNITUDE,
    ClassDecoder,
    decode_groups,
    encode_classes,
    encode_groups,
    inflate,
    read_varint,
    write_varint,
)
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.basis import LONGEST, LONGEST_BENT, TAPS, Kind, bases_of, most_halvings
from moec_zarr.model.coefficients import STEPS, Context, Latents, band_counts, fronts, present_bands, reach
from moec_zarr.model.features import Look, channels
from moec_zarr.model.network import GATE_LARGEST, GATE_LARGEST_BIAS, Architecture, Model
from moec_zarr.model.transform import corner, nested_axes

__all__ = [
    "Box",
    "Special",
    "find_box",
    "find_special",
    "read_box",
    "read_latents",
    "read_lossless",
    "read_model",
    "read_special",
    "write_box",
    "write_latents",
    "write_lossless",
    "write_model",
    "write_special",
]

Array = NDArray[Any]
_LARGEST_SIZE = 4096  # of a layer, and of the number of experts
_LARGEST_DEPTH = 16
_LARGEST_SYMBOL = 63  # magnitude of a coefficient that the range coder tells apart
_AT_A_TIME = 1 << 18  # coefficients whose taps are looked up together
_SPARSEST = 1 << 14  # coefficients at most to a byte of latents


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")


def _read_value(data: bytes, offset: int, dtype: np.dtype[Any]) -> tuple[Any, int]:
    if offset + dtype.itemsize > len(data):
        raise CorruptStreamError("the stream ends inside a value; it is truncated, fetch it again")
    return np.frombuffer(data, _little(dtype), 1, offset).astype(dtype.newbyteorder("="))[
        0
    ], offset + dtype.itemsize


# ------------------------------------------------------------------------------------ box


@dataclass(frozen=True)
class Box:
    """The leading `shape` of a chunk; beyond it every voxel is `fill`, as where zarr pads an edge."""

    shape: tuple[int, ...]
    fill: Any


def find_box(array: Array) -> Box | None:
    """The smallest leading box beyond which the array is constant; None where it is all or nothing."""
    if array.size < 2:
        return None
    fill = array[(-1,) * array.ndim]
    if not any(_is(array[(slice(None),) * axis + (-1,)], fill).all() for axis in range(array.ndim)):
        return None
    differs = ~_is(array, fill)
    if not differs.any():
        return None
    shape = []
    for axis in range(array.ndim):
        used = np.flatnonzero(differs.any(axis=tuple(other for other in range(array.ndim) if other != axis)))
        shape.append(int(used[-1]) + 1)
    # So few voxels, for example the last one of a line, are not worth the bytes of a box.
    return Box(tuple(shape), fill) if array.size - math.prod(shape) >= 16 else None


def _is(array: Array, value: Any) -> NDArray[np.bool_]:
    return np.isnan(array) if value != value else np.asarray(array == value)


def write_box(box: Box, dtype: np.dtype[Any]) -> bytes:
    """Extents, then the fill."""
    return b"".join(write_varint(n) for n in box.shape) + np.array(box.fill, _little(dtype)).tobytes()


def read_box(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Box:
    """The box of a chunk of `shape`."""
    inner, offset = [], 0
    for n in shape:
        length, offset = read_varint(data, offset)
        if not 1 <= length <= n:
            raise CorruptStreamError(f"a box of {length} voxels on an axis of {n}; the stream is damaged")
        inner.append(length)
    fill, offset = _read_value(data, offset, dtype)
    if offset != len(data):
        raise CorruptStreamError(f"a box of {len(data)} bytes, expected {offset}; the stream is damaged")
    return Box(tuple(inner), fill)


# -------------------------------------------------------------------------- special values


@dataclass(frozen=True)
class Special:
    """A value that is kept exactly, and the mask of where it stands."""

    value: Any
    mask: NDArray[np.bool_]


def find_special(array: Array, missing: Any) -> list[Special]:
    """NaN, infinities and `missing`, where they occur, in this order."""
    found = []
    finite = array.dtype.kind != "f" or np.isfinite(array).all()
    values = [] if finite else [np.nan, np.inf, -np.inf]
    for value in values + ([] if missing is None else [missing]):
        mask = _is(array, array.dtype.type(value))
        if mask.any():
            found.append(Special(array.dtype.type(value), mask))
    return found


def write_special(special: list[Special], dtype: np.dtype[Any]) -> bytes:
    """For each, the value, the length of its mask, the mask."""
    out = b""
    for each in special:
        out += np.array(each.value, _little(dtype)).tobytes() + _write_mask(each.mask)
    return out


def _write_mask(mask: NDArray[np.bool_]) -> bytes:
    """The length of a coded mask, the mask."""
    coded = encode_mask(mask)
    return write_varint(len(coded)) + coded


def _read_mask(data: bytes, offset: int, shape: tuple[int, ...]) -> tuple[NDArray[np.bool_], int]:
    """The mask of `shape` at `offset`, and the offset behind it."""
    length, offset = read_varint(data, offset)
    if length > len(data) - offset:
        raise CorruptStreamError(f"a mask claims {length} bytes, {len(data) - offset} are left")
    return decode_mask(data[offset : offset + length], shape), offset + length


def read_special(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[Special]:
    """The special values of a box of `shape`."""
    special, offset = [], 0
    while offset < len(data):
        value, offset = _read_value(data, offset, dtype)
        mask, offset = _read_mask(data, offset, shape)
        special.append(Special(value, mask))
    return special


# -------------------------------------------------------------------------------- lossless


def write_lossless(array: Array) -> bytes:
    """Values little endian in C order, byte planes apart, through zlib (RFC 1950)."""
    flat = np.ascontiguousarray(array, _little(array.dtype)).reshape(-1)
    return zlib.compress(flat.view(np.uint8).reshape(-1, array.itemsize).T.tobytes(), 9)


def read_lossless(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The values of a box of `shape`; inflates no more than they take."""
    raw = inflate(data, math.prod(shape) * dtype.itemsize)
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(_little(dtype)).reshape(shape)


# ----------------------------------------------------------------------------------- model


def write_model(model: Model) -> bytes:
    """How it looks at latents, sizes, step codes, then all integers."""
    a = model.architecture
    head = bytes(look.gain << 4 | look.distance for look in model.looks)
    head += b"".join(write_varint(n) for n in (a.encoder, a.experts, a.width, a.layers))
    codes = bytes(model.codes[name] for name in a.shapes() if name in model.codes)
    return head + codes + encode_groups([model.integers[name] for name in a.shapes()])


def read_model(data: bytes, axes: int, reads: bool) -> Model:
    """The model of a box with so many axes longer than one, and whether it reads latents."""
    looks = tuple(Look(byte & 15, byte >> 4) for byte in data[: axes * reads])
    if len(looks) < axes * reads or any(look.distance == 0 for look in looks):
        raise CorruptStreamError(f"looks {looks} along {axes} axes; the stream is damaged")
    sizes, offset = [], len(looks)
    for limit in (_LARGEST_SIZE, _LARGEST_SIZE, _LARGEST_SIZE, _LARGEST_DEPTH):
        size, offset = read_varint(data, offset)
        if not 1 <= size <= limit:
            raise CorruptStreamError(
                f"a network of size {size}, expected 1 to {limit}; the stream is damaged"
            )
        sizes.append(size)
    encoder, experts, width, layers = sizes
    read = channels(axes) if reads else 0
    architecture = Architecture(axes, encoder, experts, width, layers, read)
    if axes < 1 or architecture.weights > 16 * len(data):
        raise CorruptStreamError(
            f"{architecture.weights} weights in {len(data)} bytes on {axes} axes; the stream is damaged"
        )
    shapes = architecture.shapes()
    stepped = [name for name in shapes if not name.startswith("gate")]
    codes = dict(zip(stepped, data[offset:], strict=False))
    if len(codes) != len(stepped):
        raise CorruptStreamError("the stream ends inside the step codes; it is truncated, fetch it again")
    groups = decode_groups(data[offset + len(codes) :], [math.prod(shape) for shape in shapes.values()])
    integers = {name: group.reshape(shapes[name]) for name, group in zip(shapes, groups, strict=True)}
    for name, limit in (("gate.weight", GATE_LARGEST), ("gate.bias", GATE_LARGEST_BIAS)):
        if name in integers and np.abs(integers[name]).max() > limit:
            raise CorruptStreamError(f"{name} exceeds {limit}; the stream is damaged")
    return Model(architecture, integers, codes, looks)


# --------------------------------------------------------------------------------- latents


_NESTED, _BENT = 1 << 4, 1 << 5


def _write_kind(kind: Kind) -> bytes:
    """Halvings and flags; where cosines bend, their edges' weights follow, two a byte."""
    head = bytes([kind.halvings | _NESTED * kind.nested | _BENT * bool(kind.weights)])
    low, high = kind.weights[::2], kind.weights[1::2]
    return head + bytes(a | b << 4 for a, b in zip_longest(low, high, fillvalue=0))


def _read_kind(data: bytes, offset: int, length: int) -> tuple[Kind, int]:
    """The kind of an axis of `length`, and the offset behind it."""
    head = data[offset] if offset < len(data) else -1
    offset += 1
    halvings, nested, bent = head & 15, bool(head & _NESTED), bool(head & _BENT)
    if not 0 <= head < 2 * _BENT or (nested and not halvings) or halvings > most_halvings(length):
        raise CorruptStreamError(f"an axis of {length} in a basis {head}; the stream is damaged")
    if not bent:
        return Kind(halvings, nested), offset
    packed = data[offset : offset + length // 2]
    if halvings or not 2 < length <= LONGEST_BENT or len(packed) < length // 2:
        raise CorruptStreamError(f"cosines of an axis of {length} cannot bend; the stream is damaged")
    weights = [part for pair in packed for part in (pair & 15, pair >> 4)]
    if any(weights[length - 1 :]):
        raise CorruptStreamError("weights beyond the last edge; the stream is damaged")
    return Kind(weights=tuple(weights[: length - 1])), offset + len(packed)


def write_latents(latents: Latents) -> bytes:
    """Bases, step, context, the bands that are present, then the coefficients front by front."""
    bases, integers, context = latents.bases, latents.integers, latents.context
    present = present_bands(bases, integers)
    order = fronts(bases, latents.kinds, present)
    values = np.append(_extended(integers, order.extent).ravel(), np.int32(0))
    magnitudes = np.abs(values)
    own = values[order.where].astype(np.int64)
    if magnitudes.max() > MAX_MAGNITUDE:
        raise OverflowError(f"coefficient of {magnitudes.max()} steps, at most {MAX_MAGNITUDE} can be coded")
    largest = min(int(magnitudes.max()), _LARGEST_SYMBOL)
    head = b"".join(map(_write_kind, latents.kinds))
    head += struct.pack("<f", latents.step) + bytes(context.weights)
    head += struct.pack("<bbBhh", context.floor, context.rise, context.power, context.offset, context.slope)
    head += _write_mask(present) + write_varint(largest)
    if largest == _LARGEST_SYMBOL:
        beyond = np.abs(own[np.abs(own) >= largest]) - largest
        head += write_varint(len(beyond)) + b"".join(write_varint(int(excess)) for excess in beyond)
    parts = [slice(i, i + _AT_A_TIME) for i in range(0, len(own), _AT_A_TIME)]
    classes = [context.classes(magnitudes[order.taps[part]], order.levels(part)) for part in parts]
    data = head + encode_classes(np.clip(own, -largest, largest), np.concatenate(classes), largest)
    if math.prod(order.extent) > _SPARSEST * len(data):
        raise OverflowError(f"{order.extent} coefficients are too many for {len(data)} bytes")
    return data


def _extended(integers: NDArray[np.int32], extent: tuple[int, ...]) -> NDArray[np.int32]:
    """`integers` as an array of `extent`, which holds all that are not zero."""
    out = np.zeros(extent, np.int32)
    common = corner(tuple(map(min, integers.shape, extent)))
    out[common] = integers[common]
    return out


def read_latents(data: bytes, shape: tuple[int, ...]) -> Latents:
    """The latents of a grid of `shape`, its axes longer than one."""
    axes = len(shape)
    if not axes or max(shape) > LONGEST:
        raise CorruptStreamError(f"latents of a grid of {shape}; the stream is damaged")
    kinds, offset = [], 0
    for length in shape:
        kind, offset = _read_kind(data, offset, length)
        kinds.append(kind)
    if len(nested_axes(kinds)) == 1:
        raise CorruptStreamError("one axis nested on its own; the stream is damaged")
    fixed = offset + 4 + axes * TAPS
    if len(data) < fixed + 7:
        raise CorruptStreamError("the stream ends inside a context; it is truncated, fetch it again")
    (step,) = struct.unpack_from("<f", data, offset)
    if not STEPS[0] <= step <= STEPS[1]:
        raise CorruptStreamError(f"a step of {step}; the stream is damaged")
    context = Context(tuple(data[offset + 4 : fixed]), *struct.unpack_from("<bbBhh", data, fixed))
    bases = bases_of(kinds, shape)
    present, offset = _read_mask(data, fixed + 7, band_counts(bases))
    largest, offset = read_varint(data, offset)
    if not present.any() or not 1 <= largest <= _LARGEST_SYMBOL:
        raise CorruptStreamError("latents without a coefficient, or too large a one; the stream is damaged")
    spanned = reach(bases, present)
    if math.prod(spanned) > _SPARSEST * len(data):
        raise CorruptStreamError(f"{spanned} coefficients in {len(data)} bytes; the stream is damaged")
    order = fronts(bases, kinds, present)
    values = np.zeros(math.prod(order.extent) + 1, np.int64)
    beyond: list[int] = []
    if largest == _LARGEST_SYMBOL:
        count, offset = read_varint(data, offset)
        for _ in range(min(count, len(data))):
            excess, offset = read_varint(data, offset)
            beyond.append(excess)
    beyond.reverse()
    decoder = ClassDecoder(data[offset:], largest)
    for first, last in pairwise(order.starts):
        if first == last:
            continue
        front = slice(first, last)
        classes = context.classes(np.abs(values[order.taps[front]]), order.levels(front))
        own = decoder.decode(classes).astype(np.int64)
        for i in np.flatnonzero(np.abs(own) == largest) if largest == _LARGEST_SYMBOL else ():
            if not beyond or beyond[-1] > MAX_MAGNITUDE:
                raise CorruptStreamError("large coefficients lack their excess; the stream is damaged")
            own[i] += np.sign(own[i]) * beyond.pop()
        values[order.where[front]] = own
    if beyond:
        raise CorruptStreamError(f"{len(beyond)} excesses that belong to nothing; the stream is damaged")
    return Latents(shape, tuple(kinds), step, context, values[:-1].astype(np.int32).reshape(order.extent))
