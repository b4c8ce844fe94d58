"""A decoder written from docs/format.md alone: slow, plain, and without a line of the package's code."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
OFFSETS = (
    (0, 0, -1), (0, 0, -2), (0, -1, -1), (0, -1, 0), (0, -1, 1), (0, -2, 0),
    (-1, 0, 0), (-1, 0, 1), (-1, 1, 0), (-1, 1, 1),
)  # fmt: skip


class CorruptError(Exception):
    """The bytes are not a stream."""


class VersionError(Exception):
    """Another version of the format wrote them, or a later release."""


def check(condition: bool, what: str) -> None:
    if not condition:
        raise CorruptError(what)


def know(condition: bool, what: str) -> None:
    if not condition:
        raise VersionError(what)


class Reader:
    """Reads bytes from the start to the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        check(count <= self.left, "end")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        value = 0
        for position in range(9):
            byte = self.number(1)
            value += (byte % 128) << (7 * position)
            if byte < 128:
                check(byte > 0 or position == 0, "varint of too many bytes")
                return value
        raise CorruptError("varint")

    def value(self, dtype: np.dtype[Any]) -> Any:
        return np.frombuffer(self.take(dtype.itemsize), dtype.newbyteorder("<"))[0]


# --------------------------------------------------------------------------- range decoder


class RangeDecoder:
    """The range decoder, in Python's integers."""

    def __init__(self, data: bytes) -> None:
        self.words = (int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4))
        self.range = 2**64 - 1
        self.point = next(self.words, 0) * 2**32 + next(self.words, 0)

    def symbol(self, cumulative: Sequence[int]) -> int:
        """Number of the next symbol; `cumulative` are the sums of frequencies before each, then 2**24."""
        scale = self.range >> 24
        q = self.point // scale
        check(q < 2**24, "words")
        found = bisect_right(cumulative, q) - 1
        self.point -= scale * cumulative[found]
        self.range = scale * (cumulative[found + 1] - cumulative[found])
        if self.range < 2**32:
            self.range *= 2**32
            self.point = self.point * 2**32 + next(self.words, 0)
        assert self.point < 2**64
        return found


def cumulative_frequencies(largest: int, distribution: int) -> list[int]:
    """Sums of frequencies before each of the symbols -largest, ..., largest, then 2**24."""
    t, j = divmod(distribution, 32)
    a = (8 - j % 4) * 2 ** (29 - j // 4) * 2 ** (t + 1)
    p = []
    for k in range(largest + 1):
        x = 65536 * k // (largest + 1)
        p.append(2**20 * a // (a + x * x))
        for _ in range(t):
            p[k] = p[k] * p[k] >> 20
    total = p[0] + 2 * sum(p[1:])
    f = [1 + each * (2**24 - 2 * largest - 1) // total for each in p]
    f[0] += 2**24 - (f[0] + 2 * sum(f[1:]))
    return [0, *itertools.accumulate(f[:0:-1] + f)]


def read_integers(source: Reader, sizes: list[int]) -> list[list[int]]:
    heads = []
    for _ in sizes:
        largest = source.varint()
        check(largest <= 32767, "largest")
        heads.append((largest, source.number(1) if largest else 0))
    decoder = RangeDecoder(source.take(source.left))
    tensors = []
    for size, (largest, distribution) in zip(sizes, heads, strict=True):
        table = cumulative_frequencies(largest, distribution)
        tensors.append([decoder.symbol(table) - largest for _ in range(size)] if largest else [0] * size)
    return tensors


# ---------------------------------------------------------------------------------- masks


def inflate(data: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data)
    except zlib.error as error:
        raise CorruptError("zlib") from error
    check(len(raw) == size and inflater.eof and not inflater.unused_data, "zlib")
    return raw


def read_mask(data: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    source = Reader(data)
    head = source.number(1)
    check(head % 128 < 2 ** len(shape), "mask")
    core = tuple(1 if head >> axis & 1 else n for axis, n in enumerate(shape))
    long = [n for n in core if n != 1]
    columns = long[-1] if long else 1
    rows = long[-2] if len(long) > 1 else 1
    planes = math.prod(long[:-2])
    size = planes * rows * columns
    packed = columns + 2 * rows + 4 * planes > 4096 + size // 64
    check(packed == (head >= 128), "packed")
    if packed:
        raw = inflate(source.take(source.left), -(-size // 8))
        bits = [raw[i // 8] >> (7 - i % 8) & 1 for i in range(size)]
    else:
        bits = read_wavefronts(RangeDecoder(source.take(source.left)), planes, rows, columns)
    return np.broadcast_to(np.array(bits, bool).reshape(core), shape)


def read_wavefronts(decoder: RangeDecoder, planes: int, rows: int, columns: int) -> list[int]:
    grid = itertools.product(range(planes), range(rows), range(columns))
    order = sorted(grid, key=lambda v: (v[2] + 2 * v[1] + 4 * v[0], 2 * v[1] + 4 * v[0], v[0]))
    bits: dict[tuple[int, ...], int] = {}
    counts: dict[tuple[int, ...], list[int]] = {}
    for _, wavefront in itertools.groupby(order, key=lambda v: v[2] + 2 * v[1] + 4 * v[0]):
        seen = []
        for voxel in wavefront:
            context = tuple(bits.get(tuple(map(sum, zip(voxel, o, strict=True))), 0) for o in OFFSETS)
            zeros, ones = counts.get(context, (0, 0))
            c = min(max((2 * ones + 1) * 65536 // (2 * (zeros + ones) + 2), 1), 65535)
            s = 1 + ((65536 - c) * (2**24 - 2) >> 16)
            bits[voxel] = decoder.symbol([0, s, 2**24])
            seen.append((context, bits[voxel]))
        for context, bit in seen:
            counts.setdefault(context, [0, 0])[bit] += 1
    return [bits[voxel] for voxel in sorted(bits)]


# -------------------------------------------------------------------------------- network


@dataclass
class Network:
    axes: int
    feature_count: int
    encoder: int
    experts: int
    width: int
    layers: int
    integers: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    stencils: list[int] = field(default_factory=list)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        d, e, m, w = self.axes, self.encoder, self.experts, self.width
        shapes: dict[str, tuple[int, ...]] = {}
        if m > 1:
            shapes |= {"gate weight": (d, m), "gate bias": (m,)}
        shapes |= {f"encoder weight {axis}": (e,) for axis in range(d)} | {"encoder bias": (e,)}
        for layer in range(self.layers):
            shapes[f"weight {layer}"] = (m, w, w if layer else e + self.feature_count)
            shapes[f"bias {layer}"] = (m, w)
        return shapes | {"decoder weight": (w,), "decoder bias": (1,)}

    def weight(self, name: str) -> NDArray[np.float64]:
        return self.integers[name] * self.steps[name]

    def expert(self, u: NDArray[np.float64]) -> NDArray[np.int64]:
        """Expert of each point; `u` has shape (points, axes)."""
        if self.experts == 1:
            return np.zeros(len(u), np.int64)
        units = np.rint(4096 * u).astype(np.int64)
        return np.argmax(units @ self.integers["gate weight"] + 4096 * self.integers["gate bias"], axis=1)

    def values(self, u: NDArray[np.float64], features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value of each point, in double precision; `features` has shape (points, feature_count)."""
        experts = self.expert(u)
        y = np.empty(len(u))
        phase = self.weight("encoder bias") + sum(
            u[:, axis, None] * self.weight(f"encoder weight {axis}") for axis in range(self.axes)
        )
        for k in range(self.experts):
            h = np.concatenate([np.sin(phase), features], axis=1)[experts == k]
            for layer in range(self.layers):
                h = np.sin(h @ self.weight(f"weight {layer}")[k].T + self.weight(f"bias {layer}")[k])
            y[experts == k] = h @ self.weight("decoder weight") + self.weight("decoder bias")
        return y


def read_network(data: bytes, axes: int, reads_transform: bool, taken: int = 0) -> Network:
    source = Reader(data)
    stencils = list(source.take(axes)) if reads_transform else []
    check(all(stencil % 16 > 0 for stencil in stencils), "stencil")
    feature_count = 1 + 4 * axes if reads_transform else 0
    network = Network(axes, feature_count, *(source.varint() for _ in range(4)), stencils=stencils)
    sizes = network.encoder, network.experts, network.width
    check(all(1 <= n <= most for n, most in zip(sizes, (1024, 256, 1024), strict=True)), "sizes")
    check(1 <= network.layers <= 16, "sizes")
    shapes = network.shapes()
    check(axes > 0 and sum(map(math.prod, shapes.values())) <= 16 * (len(data) - taken), "weights")
    one_expert = replace(network, experts=1).shapes()
    check(sum(map(math.prod, one_expert.values())) <= 2**17, "weights of a voxel")
    for name in shapes:
        if not name.startswith("gate"):
            code = source.number(1)
            network.steps[name] = step(code)
    integers = read_integers(source, [math.prod(shape) for shape in shapes.values()])
    for (name, shape), values in zip(shapes.items(), integers, strict=True):
        network.integers[name] = np.array(values, np.int64).reshape(shape)
    for name, limit in ("gate weight", 127), ("gate bias", 511):
        check(np.abs(network.integers.get(name, np.zeros(1))).max() <= limit, "gate")
    return network


# ------------------------------------------------------------------------------ transform


@dataclass
class Basis:
    """The functions of an axis: function i at voxel x in ``functions[x, i]``."""

    functions: NDArray[np.float64]
    bands: list[int]
    neighbours: list[list[int | None]]
    levels: int = 0
    joint: bool = False

    def averages(self, levels: int) -> NDArray[np.float64]:
        """The averages that so many levels leave, at the voxels."""
        return wavelets(len(self.functions), levels).functions if levels else np.eye(len(self.functions))


def cosines(n: int) -> Basis:
    k, x = np.arange(n), np.arange(n)[:, None]
    return with_bands_of_cosines(np.sqrt(np.where(k == 0, 1, 2) / n) * np.cos(np.pi * k * (x + 0.5) / n))


def graph_fourier(weights: Sequence[int]) -> Basis:
    laplacian = np.zeros((len(weights) + 1,) * 2)
    for i, weight in enumerate(weights):
        laplacian[i : i + 2, i : i + 2] += math.sqrt(2) ** weight * np.array([[1, -1], [-1, 1]])
    modes = np.linalg.eigh(laplacian)[1]
    for mode in modes.T:
        mode *= next(np.sign(v) for v in mode if abs(v) >= abs(mode).max() / 2)
    return with_bands_of_cosines(modes)


def with_bands_of_cosines(functions: NDArray[np.float64]) -> Basis:
    n = len(functions)
    bands = [max(b for b in range(12) if 2**b <= i + 1) for i in range(n)]
    neighbours = [[i - back if i >= back else None for back in (1, 2, 3)] for i in range(n)]
    return Basis(functions, bands, neighbours)


LIFTING_FACTORS = (0.443506852043971, 0.882911075530934, -0.052980118572961, -1.586134342059924)


def merge(averages: NDArray[np.float64], details: NDArray[np.float64]) -> NDArray[np.float64]:
    """What was split into averages and details along the first axis."""
    n = len(averages) + len(details)
    x = np.empty((n, *averages.shape[1:]))
    x[::2], x[1::2] = averages, details
    for turn, factor in enumerate(LIFTING_FACTORS):
        for i in range(turn % 2, n, 2):
            x[i] = x[i] - factor * (x[abs(i - 1)] + x[i + 1 if i + 1 < n else n - 2])
    return x


@functools.cache
def wavelets(n: int, levels: int, joint: bool = False) -> Basis:
    lengths = [n]
    for _ in range(levels):
        lengths.insert(0, -(-lengths[0] // 2))
    values = np.eye(n)
    x, at = values[: lengths[0]], lengths[0]
    sizes = [at]
    for length in lengths[1:]:
        sizes.append(length - len(x))
        x, at = merge(x, values[at : at + sizes[-1]]), at + sizes[-1]
    bands, neighbours = [], []
    first = before = 0
    for band, size in enumerate(sizes):
        for p in range(size):
            parent = None if band == 0 else before + (p if band == 1 else min(p // 2, sizes[band - 1] - 1))
            neighbours.append([first + p - back if p >= back else None for back in (1, 2)] + [parent])
            bands.append(band)
        first, before = first + size, first
    return Basis(x / np.sqrt((x**2).sum(axis=0)), bands, neighbours, levels, joint)


def read_basis(source: Reader, n: int) -> Basis:
    head = source.number(1)
    levels, joint, graph = head % 16, bool(head & 16), bool(head & 32)
    check(head < 64 and levels <= math.ceil(math.log2(n)), "basis")
    if levels:
        check(not graph, "basis")
        return wavelets(n, levels, joint)
    check(not joint, "basis")
    if not graph:
        return cosines(n)
    check(3 <= n <= 64, "basis")
    weights = [part for byte in source.take(n // 2) for part in (byte % 16, byte // 16)]
    check(not any(weights[n - 1 :]), "weights")
    return graph_fourier(weights[: n - 1])


def exponential(k: int) -> int:
    return (8 + k % 8) * 2 ** (k // 8) // 8


def logarithm(v: int) -> int:
    o = v.bit_length() - 1
    return 8 * o + 8 * v // 2**o - 8


def class_constant(number: int) -> int:
    """The constant r that the frequencies of a class follow from."""
    return int(2**30 * math.exp(-1 / (2 * (4 + number % 4) * 2.0 ** (number // 4 - 7))))


@functools.cache
def cumulative_flag_frequencies(number: int) -> list[int]:
    """Of 0 and 1, for a class of coefficients."""
    c = max(class_constant(number) >> 6, 256)
    return [0, 1 + ((2**24 - c) * (2**24 - 2) >> 24), 2**24]


@functools.cache
def cumulative_magnitude_frequencies(largest: int, number: int) -> list[int]:
    """Of the magnitudes 1, ..., `largest`, for a class of coefficients."""
    a, b = (class_constant(max(number, least)) ** 2 >> 30 for least in (13, 18))
    rest, f = 2**30, []
    for k in range(1, largest + 1):
        above = 0 if k == largest else rest * (a if k == 1 else b) >> 30
        f.append(1 + ((rest - above) * (2**24 - largest) >> 30))
        rest = above
    f[0] += 2**24 - sum(f)
    return [0, *itertools.accumulate(f)]


@dataclass
class Coefficients:
    """The integers have the shape of the bounding box, folded, without its axes of length 1."""

    shape: tuple[int, ...]
    bases: list[Basis]
    step: float
    present: NDArray[np.bool_]
    context: tuple[int, ...]
    integers: NDArray[np.int64]
    experts: LinearExperts | None = None

    def __post_init__(self) -> None:
        self.joint_axes = [axis for axis, basis in enumerate(self.bases) if basis.joint]

    def depth(self, index: Sequence[int]) -> int:
        """How many levels come before the finest one that a coefficient takes part in."""
        joint = [(self.bases[axis].levels, self.bases[axis].bands[index[axis]]) for axis in self.joint_axes]
        details = [levels - band for levels, band in joint if band]
        return min(details) if details else max((levels for levels, _ in joint), default=0)

    def has_detail(self, axis: int, index: Sequence[int]) -> bool:
        """Whether a coefficient has on a joint axis the detail of its own number."""
        basis = self.bases[axis]
        return basis.bands[index[axis]] == basis.levels - self.depth(index) > 0

    def function(self, axis: int, index: Sequence[int]) -> NDArray[np.float64]:
        basis = self.bases[axis]
        if not basis.joint or self.has_detail(axis, index):
            return basis.functions[:, index[axis]]
        averages = basis.averages(min(self.depth(index) + 1, basis.levels))
        return averages[:, index[axis]]

    def context_neighbours(self, axis: int, index: tuple[int, ...]) -> list[tuple[int, ...] | None]:
        """Indices of the context neighbours of a coefficient on an axis."""
        basis, i = self.bases[axis], index[axis]

        def moved(place: int | None) -> tuple[int, ...] | None:
            return None if place is None else (*index[:axis], place, *index[axis + 1 :])

        if not basis.joint:
            return [moved(neighbour) for neighbour in basis.neighbours[i]]
        first = basis.bands.index(basis.bands[i]) if self.has_detail(axis, index) else 0
        near = [moved(i - back) if i - back >= first else None for back in (1, 2)]
        if axis != self.joint_axes[0] or not any(self.bases[a].bands[index[a]] for a in self.joint_axes):
            return [*near, None]
        parent = list(index)
        for other in self.joint_axes:
            if self.has_detail(other, index):
                (*_, place) = self.bases[other].neighbours[index[other]]
                assert place is not None
                parent[other] = place
            elif self.depth(index) + 1 < self.bases[other].levels:
                parent[other] //= 2
        return [*near, tuple(parent)]

    def octave(self, index: Sequence[int]) -> int:
        """The sum over all axes."""
        total = 0
        for axis, basis in enumerate(self.bases):
            if not basis.joint or self.has_detail(axis, index):
                total += basis.bands[index[axis]]
            else:
                total += max(basis.levels - self.depth(index) - 1, 0)
        return total

    def values(self) -> NDArray[np.float64]:
        """z at each voxel, in C order."""
        z = self.folded_values()[tuple(places(self.shape).T)]
        return self.experts.restored(z.reshape(self.shape)).ravel() if self.experts else z

    def folded_values(self) -> NDArray[np.float64]:
        coefficients = self.integers * self.step
        if self.joint_axes:
            total = np.zeros(coefficients.shape)
            for index in zip(*np.nonzero(coefficients), strict=True):
                functions = [self.function(axis, index) for axis in range(len(self.bases))]
                total += coefficients[index] * functools.reduce(np.multiply.outer, functions)
            return total
        for axis, basis in enumerate(self.bases):
            coefficients = np.moveaxis(np.tensordot(basis.functions, coefficients, (1, axis)), 0, axis)
        return coefficients

    def features(self, stencils: Sequence[int]) -> NDArray[np.float64]:
        """What a network reads at each voxel, in C order."""
        others = self.integers * self.step
        others[(0,) * others.ndim] = 0
        z = self.values().reshape(self.shape)
        norm = math.sqrt((others**2).sum() / z.size) or 1
        features = [z / norm]
        for axis, stencil in enumerate(stencils):
            gain, s = divmod(stencil, 16)
            for distance, amplified in ((s, gain), (-s, gain), (3 * s, gain - 1), (-3 * s, gain - 1)):
                there = [min(max(i + distance, 0), z.shape[axis] - 1) for i in range(z.shape[axis])]
                features.append(2.0**amplified * (z.take(there, axis) - z) / norm)
        return np.stack([feature.ravel() for feature in features], axis=1)


def read_step(source: Reader) -> float:
    step = float(np.frombuffer(source.take(4), "<f4")[0])
    check(2.0**-64 <= step <= 2.0**64, "step")
    return step


def read_coefficients(data: bytes, shape: tuple[int, ...], taken: int = 0) -> Coefficients:
    source, size = Reader(data), len(data) - taken
    check(len(shape) > 0, "shape")
    folded = [n for length in shape for n in fold(length)]
    bases = [read_basis(source, n) for n in folded]
    check(sum(basis.joint for basis in bases) != 1, "joint")
    step = 0.0 if taken else read_step(source)
    context = read_context(source, len(folded))
    mask = source.take(source.varint())
    step = step or read_step(source)
    present = read_mask(mask, tuple(basis.bands[-1] + 1 for basis in bases))
    check(bool(present.any()), "bands")
    extent = 1
    for axis, basis in enumerate(bases):
        highest = max(np.nonzero(present)[axis])
        extent *= sum(band <= highest for band in basis.bands)
    check(extent <= 2**13 * size, "too many coefficients")

    array = np.zeros(folded, np.int64)
    coefficients = Coefficients(shape, bases, step, present, context, array)
    held = present[np.ix_(*(basis.bands for basis in bases))]
    read_by_wavefront(
        source, size, context, array, held, coefficients.octave,
        lambda index: [coefficients.context_neighbours(axis, index) for axis in range(len(bases))],
    )  # fmt: skip
    return coefficients


def read_context(source: Reader, axes: int) -> tuple[int, ...]:
    weights = list(source.take(3 * axes))
    floor, rise = (int(v) for v in np.frombuffer(source.take(2), "i1"))
    power = source.number(1)
    offset, slope = (int(v) for v in np.frombuffer(source.take(4), "<i2"))
    return (*weights, floor, rise, power, offset, slope)


EVEN = [0, 2**23, 2**24]


def read_by_wavefront(
    source: Reader,
    size: int,
    context: tuple[int, ...],
    array: NDArray[np.int64],
    held: NDArray[np.bool_],
    octave: Callable[[tuple[int, ...]], int],
    neighbours: Callable[[tuple[int, ...]], list[list[tuple[int, ...] | None]]],
) -> None:
    """Fill in the integers that are coded wavefront by wavefront, to the end of a section."""
    *weights, floor, rise, power, offset, slope = context
    largest = source.varint()
    check(1 <= largest <= 63, "largest")
    decoder = RangeDecoder(source.take(source.left))
    order = sorted((tuple(map(int, at)) for at in np.argwhere(held)), key=lambda at: (sum(at), -at[-1], at))
    magnitudes: dict[tuple[int, ...] | None, int] = {}
    for _, wavefront in itertools.groupby(order, sum):
        numbers = {}
        for index in wavefront:
            g = octave(index)
            v = exponential(min(max(floor + rise * g, 0), 127))
            for axis, near in enumerate(neighbours(index)):
                for neighbour, weight in zip(near, weights[3 * axis : 3 * axis + 3], strict=True):
                    v += weight * min(magnitudes.get(neighbour, 0), 32767)
            numbers[index] = min(max((power * logarithm(v) + offset + slope * g) // 128, 0), 63)
        flags = {at: decoder.symbol(cumulative_flag_frequencies(k)) for at, k in numbers.items()}
        for index in [at for at, flag in flags.items() if flag]:
            magnitude = 1
            if largest > 1:
                magnitude += decoder.symbol(cumulative_magnitude_frequencies(largest, numbers[index]))
            magnitudes[index] = magnitude
        for index in [at for at, flag in flags.items() if flag and magnitudes[at] == 63]:
            order = max(numbers[index] // 4 - 5, 0)
            length = order
            while decoder.symbol(EVEN):
                length += 1
                check(length < 24, "excess")
            number = decoder.symbol(range(0, 2**24 + 1, 2 ** (24 - length)))
            magnitudes[index] += 2**length - 2**order + number
            check(magnitudes[index] < 2**23, "excess")
    check(len(magnitudes) <= 8 * size, "too many coefficients")
    for index, magnitude in magnitudes.items():
        array[index] = -magnitude if decoder.symbol(EVEN) else magnitude


# -------------------------------------------------------------------------- linear experts


def step(code: int) -> float:
    return float((8 + code % 8) * 2.0 ** (code // 8 - 27))


@dataclass
class LinearExperts:
    """Knots and weights as they are coded."""

    steepness: list[int]
    value: list[int]
    units: list[int]
    shift: int
    taps: NDArray[np.int64]
    constants: NDArray[np.int64]

    def restored(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """What becomes of z, of the shape of the box without its axes of length 1."""

        def moved(axis: int, k: int) -> NDArray[np.float64]:
            n = z.shape[axis]
            return z.take([min(max(i + k, 0), n - 1) for i in range(n)], axis)

        taps, constants = self.taps * step(self.units[0]), self.constants * step(self.units[1])
        if self.shift:
            constants[0, 0] += math.copysign(step(abs(self.shift)), self.shift)
        steepness = sum(abs(moved(axis, 1) - moved(axis, -1)) for axis in range(z.ndim))
        steep = ramps(np.asarray(steepness), [0.0, *map(step, self.steepness)])
        level = ramps(z, [knot / 128 for knot in self.value])
        result = z.copy()
        for row, height in enumerate(steep + level[1:]):
            for axis, distance in itertools.product(range(z.ndim), (1, 2)):
                bend = moved(axis, distance) + moved(axis, -distance) - 2 * z
                result += taps[row, axis, distance - 1] * height * bend
        for (j, s), (k, v) in itertools.product(enumerate(steep), enumerate(level)):
            result += constants[j, k] * s * v
        return result


def ramps(values: NDArray[np.float64], knots: list[float]) -> list[NDArray[np.float64]]:
    """One, and the height of each ramp at each voxel."""
    rising = [np.clip((values - a) / (b - a), 0, 1) for a, b in itertools.pairwise(knots)]
    return [np.ones(values.shape), *rising]


def read_linear_experts(data: bytes, axes: int, taken: int = 0) -> LinearExperts:
    if taken:
        experts, own = read_linear_experts(data[:taken], axes), data[taken:]
        check(len(own) < 2 and own != b"\x80", "shift")
        shift = int.from_bytes(own, signed=True)
        return replace(experts, shift=shift + 32 * int(np.sign(shift))) if own else experts
    source = Reader(data)
    level, steep = divmod(source.number(1), 16)
    steepness = list(source.take(steep))
    value = np.frombuffer(source.take(level + 1 if level else 0), "i1").tolist()
    check(all(a < b for knots in (steepness, value) for a, b in itertools.pairwise(knots)), "knots")
    units = list(source.take(2))
    shift = int(np.frombuffer(source.take(1), "i1")[0])
    check(shift != -128, "shift")
    shapes = (1 + steep + level, axes, 2), (1 + steep, 1 + level)
    groups = [np.array(group) for group in read_integers(source, [math.prod(shape) for shape in shapes])]
    for group, unit in zip(groups, units, strict=True):
        check(abs(group).max() * step(unit) <= 16, "weight")
    taps, constants = (group.reshape(shape) for group, shape in zip(groups, shapes, strict=True))
    return LinearExperts(steepness, value, units, shift, taps, constants)


# -------------------------------------------------------------------------------- residual


@dataclass
class Residual:
    bound: float
    spacing: float
    corrections: NDArray[np.int64]
    context: tuple[int, ...] | None


def fold(length: int) -> list[int]:
    """Lengths of the axes that an axis becomes."""
    parts = -(-length // 2048)
    return [length] if parts == 1 else [*fold(parts), -(-length // parts)]


def place(x: int, lengths: list[int]) -> tuple[int, ...]:
    """Where a voxel of an axis stands on the axes that it becomes."""
    if len(lengths) == 1:
        return (x,)
    return (*place(x // lengths[-1], lengths[:-1]), x % lengths[-1])


def places(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Where all voxels of a grid stand on its folded axes, in C order."""
    axes = [[place(x, fold(n)) for x in range(n)] for n in shape]
    return np.array([sum(index, ()) for index in itertools.product(*axes)], np.int64)


def read_residual(data: bytes, shape: tuple[int, ...], taken: int = 0) -> Residual:
    source = Reader(data)
    bound = float(np.frombuffer(source.take(8), "<f8")[0])
    spacing = float(np.frombuffer(source.take(4), "<f4")[0])
    check(0 <= bound < math.inf and 0 < spacing < math.inf, "bound or spacing")
    if not source.left:
        return Residual(bound, spacing, np.zeros(shape, np.int64), None)
    check(len(shape) > 0, "axes")
    folded = [n for length in shape for n in fold(length)]
    stands = tuple(places(shape).T)
    held = np.zeros(folded, bool)
    held[stands] = True
    context = read_context(source, len(folded))
    array = np.zeros(folded, np.int64)

    def neighbours(index: tuple[int, ...]) -> list[list[tuple[int, ...] | None]]:
        return [
            [(*index[:axis], i - back, *index[axis + 1 :]) if i >= back else None for back in (1, 2, 3)]
            for axis, i in enumerate(index)
        ]

    read_by_wavefront(source, len(data) - taken, context, array, held, lambda index: 0, neighbours)
    return Residual(bound, spacing, array[stands].reshape(shape), context)


# ----------------------------------------------------------------------------------- scale


@dataclass
class Scale:
    knee: float
    centre: float
    half: float
    psnr: float
    error: float
    signs: NDArray[np.bool_] | None


def read_quality(source: Reader) -> tuple[float, float]:
    centi = source.number(2)
    error = float(np.array(source.number(2) << 16, np.uint32).view(np.float32))
    return math.inf if centi == 65535 else centi / 100, error


def read_scale(data: bytes, box: tuple[int, ...], dtype: np.dtype[Any]) -> Scale:
    source = Reader(data)
    flags = source.number(1)
    check(flags < 3, "flags")
    check(flags != 2 or dtype.kind != "u", "signs")
    centre, half = (float(v) for v in np.frombuffer(source.take(8), "<f4"))
    psnr, error = read_quality(source)
    knee = float(np.frombuffer(source.take(8), "<f8")[0]) if flags & 1 else 0.0
    check(math.isfinite(centre) and 0 < half < math.inf, "range of the scale")
    check(not flags & 1 or 0 < knee < math.inf, "knee")
    signs = read_mask(source.take(source.varint()), box) if flags & 2 else None
    check(not source.left, "scale")
    return Scale(knee, centre, half, psnr, error, signs)


def restore_from_scale(
    y: NDArray[np.float64], scale: Scale, low: Any, high: Any, dtype: np.dtype[Any], taken: Any
) -> NDArray[Any]:
    """Values of the box, in C order."""
    first, last = low.item(), high.item()
    bottom, top = (first, last) if scale.knee else (type(first)(0), max(abs(first), abs(last)))
    if dtype.kind in "iu":
        top = min(top, int(np.iinfo(dtype).max))
    result = np.empty(y.size, dtype)
    for place, each in enumerate(y.tolist()):
        t = scale.centre + scale.half * min(max(each, -1.0), 1.0)
        try:
            if scale.knee:
                m = scale.knee * (abs(t) if abs(t) <= 1 else math.exp(abs(t) - 1))
                m = -m if t < 0 else m
            else:
                m = math.exp(t)
        except OverflowError:
            m = -math.inf if scale.knee and t < 0 else math.inf
        if dtype.kind == "f":
            v: Any = dtype.type(min(max(m, bottom), top))
        elif m >= top:
            v = top
        else:
            v = bottom if m <= bottom else round(m)
        if scale.signs is not None:
            v = -v if scale.signs.flat[place] else v
            v = low if v < low else high if v > high else v
        if taken is not None and low < taken < high and v == taken:
            v = np.nextafter(taken, dtype.type(math.inf)) if dtype.kind == "f" else int(taken) + 1
        result[place] = v
    return result


# --------------------------------------------------------------------------------- stream


@dataclass
class Decoded:
    """All that a stream says."""

    dtype: np.dtype[Any]
    is_fortran: bool
    shape: tuple[int, ...]
    low: Any
    high: Any
    psnr: float
    max_error: float
    bounding_box: tuple[int, ...]
    sections: dict[int, bytes]
    masked_values: list[tuple[Any, NDArray[np.bool_]]]
    exact_values: list[tuple[Any, NDArray[np.bool_]]]
    network: Network | None
    coefficients: Coefficients | None
    residual: Residual | None
    scale: Scale | None
    array: NDArray[Any]


def decode(data: bytes, dictionary: bytes | None = None) -> Decoded:
    check(data[:3] == b"MoE" and len(data) > 3, "magic")
    know(data[3] == 1, "version")
    check(zlib.crc32(data[8:]) == int.from_bytes(data[4:8], "little"), "checksum")
    source = Reader(data[8:])
    head = source.number(1)
    check(head < 128, "reserved bit")
    know(head % 16 <= 10, "dtype")
    dtype = np.dtype((">" if head >> 4 & 1 else "<") + DTYPES[head % 16])
    rank = source.number(1)
    know(rank <= 5, "rank")
    shape = tuple(source.varint() for _ in range(rank))
    check(math.prod(max(n, 1) for n in shape) < 2**32, "shape")
    low, high = source.value(dtype), source.value(dtype)
    check(bool(np.isfinite(low) and np.isfinite(high) and low <= high), "range")
    psnr, max_error = read_quality(source)

    sections: dict[int, bytes] = {}
    while source.left:
        number = source.number(1)
        check(max(sections, default=0) < number, "section")
        know(number <= 11, "section")
        sections[number] = source.take(source.varint())
    held = dict(sections)
    taken = expand(sections, dictionary) if 11 in sections else {}
    stored = {3, 4, 5, 6, 8, 9} & set(sections)
    check(not {3, 8} & stored or len(stored) == 1, "values twice")
    check(7 not in sections or bool({4, 5, 6} & set(sections)), "scale of nothing")
    check(10 not in sections or 6 in sections, "experts of nothing")

    box, fill = shape, low
    if 1 in sections:
        part = Reader(sections[1])
        box = tuple(part.varint() for _ in shape)
        check(all(1 <= inner <= n for inner, n in zip(box, shape, strict=True)) and box != shape, "box")
        fill = part.value(dtype)
        check(not part.left, "box")
    masked_values, exact_values = (read_masks(sections, number, box, dtype) for number in (2, 9))
    check(all(np.isfinite(value) for value, _ in exact_values), "exact value")
    finite = [value for value, _ in masked_values if np.isfinite(value)]
    check(len(finite) < 2, "two finite masked values")
    check(0 not in box or not {4, 5, 6} & set(sections), "no voxels")
    network = coefficients = residual = scale = None
    native = dtype.newbyteorder("=")
    inner = np.full(box, low, native)
    if 3 in sections:
        size = math.prod(box)
        raw = inflate(sections[3], size * dtype.itemsize)
        values = (bytes(raw[plane * size + i] for plane in range(dtype.itemsize)) for i in range(size))
        inner = np.frombuffer(b"".join(values), dtype.newbyteorder("<")).astype(native).reshape(box)
    if 8 in sections:
        from tests.conformance.reference_integers import read_values

        valid = np.ones(box, bool)
        for _, mask in masked_values:
            valid &= ~mask
        check(bool(valid.any()), "no valid voxel")
        inner[valid] = read_values(sections[8], valid, native, low, high)
    long = tuple(n for n in box if n > 1)
    if 4 in sections:
        network = read_network(sections[4], len(long), 6 in sections, taken.get(4, 0))
    if 6 in sections:
        coefficients = read_coefficients(sections[6], long, taken.get(6, 0))
        if 10 in sections:
            coefficients.experts = read_linear_experts(sections[10], len(long), taken.get(10, 0))
    if 5 in sections:
        residual = read_residual(sections[5], long, taken.get(5, 0))
    if 7 in sections:
        scale = read_scale(sections[7], box, dtype)
    if network or coefficients or residual:
        y = coefficients.values() if coefficients else np.zeros(math.prod(box))
        if network:
            read = coefficients.features(network.stencils) if coefficients else np.empty((len(y), 0))
            y = y + network.values(points(box), read)
        if residual:
            y = y + residual.spacing * residual.corrections.ravel()
        if scale:
            inner = restore_from_scale(y, scale, low, high, native, *(finite or [None])).reshape(box)
        else:
            inner = restore(y, low, high, native, *finite).reshape(box)
    for value, mask in exact_values + masked_values:
        inner[mask] = value

    array = np.full(shape, fill, dtype, order="F" if head >> 5 & 1 else "C")
    array[tuple(slice(n) for n in box)] = inner
    return Decoded(
        dtype, bool(head >> 5 & 1), shape, low, high, psnr, max_error, box, held, masked_values,
        exact_values, network, coefficients, residual, scale, array,
    )  # fmt: skip


def expand(sections: dict[int, bytes], dictionary: bytes | None) -> dict[int, int]:
    """Put entries before what sections hold themselves; how many bytes each got."""
    source = Reader(sections.pop(11))
    checksum = source.take(4)
    check(source.left > 0, "no entry")
    check(dictionary is not None and hashlib.sha256(dictionary).digest()[:4] == checksum, "dictionary")
    assert dictionary is not None
    shared = Reader(dictionary)
    rows = [(shared.number(1), shared.number(2)) for _ in range(shared.number(2))]
    entries = [(section, shared.take(length)) for section, length in rows]
    taken: dict[int, int] = {}
    while source.left:
        number = source.varint()
        check(number < len(entries), "entry")
        section, data = entries[number]
        check(section > max(taken, default=0), "order of entries")
        check(section in sections or section in {1, 2, 7, 9, 10}, "an entry of nothing")
        taken[section] = len(data)
        sections[section] = data + sections.get(section, b"")
    return taken


def read_masks(
    sections: dict[int, bytes], number: int, box: tuple[int, ...], dtype: np.dtype[Any]
) -> list[tuple[Any, NDArray[np.bool_]]]:
    """Values and where they stand, of a section."""
    found: list[tuple[Any, NDArray[np.bool_]]] = []
    part = Reader(sections.get(number, b""))
    while part.left:
        value = part.value(dtype)
        same = (value == other or (value != value and other != other) for other, _ in found)
        check(not any(same), "masked value twice")
        found.append((value, read_mask(part.take(part.varint()), box)))
    check(number not in sections or 1 <= len(found) <= 4, "masked values")
    return found


def points(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Coordinates of all voxels of a bounding box, in C order."""
    axes = [2 * np.arange(n) / (n - 1) - 1 for n in shape if n > 1]
    return np.stack([u.ravel() for u in np.meshgrid(*axes, indexing="ij")], axis=1)


def restore(
    y: NDArray[np.float64], low: Any, high: Any, dtype: np.dtype[Any], taken: Any = None
) -> NDArray[Any]:
    if dtype.kind in "iu" and dtype.itemsize == 8:
        first, last = int(low), int(high)
        centre = math.ceil(Fraction(first + last, 2))
        half = max(float(Fraction(last - first, 2)), 2.0**-1000)
        differences = np.rint(half * y)
        above, below = float(last - centre), float(first - centre)
        numbers = [last if d >= above else first if d <= below else centre + int(d) for d in differences]
        if taken is not None and low < taken < high:
            s, d = int(taken), float(int(taken) - centre)
            sides = [-1 if v < d else 1 for v in half * y]
            numbers = [n + side if n == s else n for n, side in zip(numbers, sides, strict=True)]
        return np.array(numbers, dtype)
    bottom, top = float(low), float(high)
    half = max(top / 2 - bottom / 2, 2.0**-1000)
    with np.errstate(over="ignore"):  # beyond the largest double lies the end of the range
        v = np.clip(top / 2 + bottom / 2 + half * y, bottom, top)
    result = (v if dtype.kind == "f" else np.rint(v)).astype(dtype)
    if taken is not None and low < taken < high:
        for place in np.flatnonzero(result == taken):
            side = -1 if v[place] < float(taken) else 1
            if dtype.kind == "f":
                result[place] = np.nextafter(result[place], dtype.type(side * math.inf))
            else:
                result[place] = int(result[place]) + side
    return result
