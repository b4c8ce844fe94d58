"""The section of integers, written from docs/format.md alone."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from tests.conformance.reference_decoder import CorruptError, RangeDecoder, Reader, check, fold, place

Index = tuple[int, ...]


def wrapped(k: int) -> int:
    """Modulo 2**64, with a sign."""
    return (k + 2**63) % 2**64 - 2**63


def read_values(
    data: bytes, valid: NDArray[np.bool_], dtype: np.dtype[Any], low: Any, high: Any
) -> NDArray[Any]:
    source = Reader(data)
    head = source.number(1)
    kind = head % 32
    for flag in (32, 64):
        if head & flag:
            check(0 < float(source.value(np.dtype("f8"))) < math.inf, "bound")
    check(kind < 3 and (kind < 2 or dtype.kind == "f"), "levels")
    numbers: list[Any] = []
    if kind == 0:
        numbers = [source.number(1)]
        check(numbers[0] < 8 * dtype.itemsize, "shift")
    elif dtype.kind == "f":
        numbers = [float(source.value(np.dtype("f8"))) for _ in range(3)]
        check(all(map(math.isfinite, numbers)) and (kind == 2 or numbers[1] != 0), "levels")
    else:
        numbers = [int(source.value(np.dtype("i8"))) for _ in range(2)]
    table = None
    if head >= 128:
        count = source.varint()
        check(2 <= count <= int(valid.sum()), "table")
        table = [int(source.value(np.dtype("i8")))]
        for gap in read_coded(source.take(source.varint()), np.ones(count - 1, bool)):
            table.append(wrapped(table[-1] + gap + 1))
    integers = read_coded(source.take(source.left), valid)
    if table is not None:
        check(all(0 <= k < len(table) for k in integers), "no entry")
        integers = [table[k] for k in integers]
    if kind == 0:
        return np.array([clipped(of_bits(k, numbers[0], dtype), low, high) for k in integers], dtype)
    if dtype.kind != "f":
        spacing, origin = numbers
        whole = (wrapped(k * spacing + origin) for k in integers)
        unsigned = dtype == np.uint64
        return np.array([clipped(k % 2**64 if unsigned else k, int(low), int(high)) for k in whole], dtype)
    if kind == 1:
        spacing, divisor, origin = numbers
        values = [k * spacing / divisor + origin for k in integers]
    else:
        check(all(abs(k) <= 2**18 for k in integers), "ladder")
        rungs = [numbers[0]]
        for _ in range(max(map(abs, integers))):
            rungs.append(max(rungs[-1] + numbers[1], rungs[-1] * numbers[2]))
        values = [math.copysign(rungs[abs(k) - 1], k) if k else 0.0 for k in integers]
    return np.array([clipped(v, float(low), float(high)) for v in values]).astype(dtype)


def clipped(value: Any, low: Any, high: Any) -> Any:
    return low if value < low else high if value > high else value


def of_bits(k: int, shift: int, dtype: np.dtype[Any]) -> Any:
    size = 8 * dtype.itemsize
    if dtype.kind == "f":
        bits = (k << shift) % 2**size if k >= 0 else ((-1 - k) << shift) % 2**size | 2 ** (size - 1)
        return np.frombuffer(bits.to_bytes(dtype.itemsize, "little"), dtype.newbyteorder("<"))[0]
    k = (k << shift) % 2**64
    if dtype == np.uint64:
        return np.uint64((k + 2**63) % 2**64)
    return np.frombuffer(k.to_bytes(8, "little")[: dtype.itemsize], dtype.newbyteorder("<"))[0]


def read_coded(data: bytes, valid: NDArray[np.bool_]) -> list[int]:
    """The integers of the valid voxels, in C order."""
    source = Reader(data)
    method = source.number(1)
    check(method < 2, "method")
    if method == 1:
        return read_predicted(source, valid)
    size, count = source.number(1), int(valid.sum())
    check(size in (1, 2, 4, 8), "size")
    frame = source.take(source.left)
    check(frame[:4] == b"\x28\xb5\x2f\xfd", "zstd")
    try:
        raw = bytes(zstd.decompress(frame))
    except Exception as error:
        raise CorruptError("zstd") from error
    check(len(raw) == count * size, "zstd")
    top, result = 2 ** (8 * size - 1), []
    for i in range(count):
        k = sum(raw[plane * count + i] << 8 * plane for plane in range(size))
        result.append(k if k < top else -1 - (k - top))
    return result


def neighbours(d: int) -> list[Index]:
    found = []
    for offset in itertools.product((-2, -1, 0, 1), repeat=d):
        moved = [each for each in offset if each]
        if moved in ([-1], [-2], [-1, -1], [-1, 1], [-1, -1, -1]):
            found.append(offset)
    return sorted(found, key=lambda o: (sum(each**2 for each in o), [-each for each in o]))


def size_class(n: int) -> int:
    if n < 4:
        return n
    o = n.bit_length() - 1
    return 2 * o + (n >> (o - 1) & 1)


def read_predicted(source: Reader, valid: NDArray[np.bool_]) -> list[int]:
    flags, largest = source.number(1), source.number(1)
    check(flags in (0, 1, 3) and largest <= 125, "prediction")
    repeats, blank = bool(flags & 1), bool(flags & 2)
    start, common = (int(source.value(np.dtype("i8"))) for _ in range(2))
    weights = [int(source.value(np.dtype("i2"))) for _ in range(source.number(1))]
    decoder = RangeDecoder(source.take(source.varint()))
    rest = source.take(source.left)
    bits = iter([byte >> 7 - i & 1 for byte in rest for i in range(8)])
    used = 0

    def bit() -> int:
        nonlocal used
        used += 1
        check(used <= 8 * len(rest), "bits")
        return next(bits)

    long = [n for n in valid.shape if n > 1] or [1]
    lengths = [fold(n) for n in long]
    folded = [n for each in lengths for n in each]
    axes = sorted(range(len(folded)), key=lambda axis: folded[axis])
    shape = [folded[axis] for axis in axes]
    d = len(shape)
    offsets = neighbours(d)
    check(len(weights) <= len(offsets), "weights")
    weights += [0] * (len(offsets) - len(weights))
    near = [{1: 4, 2: 2}.get(sum(each**2 for each in o), 1) for o in offsets]

    voxels = []  # where each valid one stands, in C order
    for index in zip(*np.nonzero(valid.reshape(long)), strict=True):
        spread = [x for i, each in zip(index, lengths, strict=True) for x in place(int(i), each)]
        voxels.append(tuple(spread[axis] for axis in axes))

    def skew(v: Index) -> int:
        return sum(2 ** (d - 1 - axis) * v[axis] for axis in range(d - 1))

    order = sorted(voxels, key=lambda v: (skew(v) + v[-1], skew(v), v[:-1]))
    k: dict[Index, int] = {}
    wrong: dict[Index, int] = {}
    seen: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    counts: dict[int, list[int]] = defaultdict(lambda: [2] * (largest + 1))
    tables: dict[int, tuple[int, list[int]]] = {}
    for _, group in itertools.groupby(order, key=lambda v: skew(v) + v[-1]):
        wavefront = list(group)
        beside = {v: [tuple(map(sum, zip(v, o, strict=True))) for o in offsets] for v in wavefront}
        repeated: dict[Index, int] = {}
        if repeats:
            told = []
            for v in wavefront:
                there = [k.get(w) for w in beside[v][:10]]
                shared = [(there.count(x), -i) for i, x in enumerate(there[:6]) if x is not None]
                candidate = there[-max(shared)[1]] if shared else common
                context = 0
                for x in there:
                    context = 2 * context + (x == candidate)
                context = 2 * context + (candidate == common)
                zeros, ones = seen[context]
                c = min(max((2 * ones + 1) * 65536 // (2 * (zeros + ones) + 2), 1), 65535)
                flag = decoder.symbol([0, 1 + ((65536 - c) * (2**24 - 2) >> 16), 2**24])
                told.append((context, flag))
                if flag:
                    assert candidate is not None
                    repeated[v] = candidate
            for context, flag in told:
                seen[context][flag] += 1
        coded = []
        for v in wavefront:
            counting = [
                (k[w], weight)
                for w, weight in zip(beside[v], weights, strict=True)
                if w in k and not (blank and k[w] == common)
            ]
            b = counting[0][0] if counting else start
            total = sum(weight * min(max(wrapped(x - b), -(2**40)), 2**40) for x, weight in counting)
            guess = wrapped(b + ((512 + total) >> 10))
            around = [wrong.get(w, 0) for w in beside[v]]
            a = min(size_class(sum(e * weight for e, weight in zip(around, near, strict=True))), 95)
            r = min(max((size_class(16 * around[0]) - a + 8) >> 1, 0), 6)
            if v in repeated:
                k[v] = repeated[v]
            else:
                row = 7 * a + r
                n = counts[row]
                if row not in tables or 16 * sum(n) >= 17 * tables[row][0]:
                    f = [1 + each * (2**24 - largest - 1) // sum(n) for each in n[1:]]
                    tables[row] = sum(n), [0, *itertools.accumulate([2**24 - sum(f), *f])]
                c = decoder.symbol(tables[row][1])
                coded.append((row, c))
                e = c
                if c:
                    negative = bit()
                    if c > 3:
                        e = 2 + c % 2
                        for _ in range(c // 2 - 1):
                            e = 2 * e + bit()
                    e = -e if negative else e
                k[v] = wrapped(guess + e)
            wrong[v] = 0 if blank and k[v] == common else min(abs(wrapped(k[v] - guess)), 2**30)
        for row, c in coded:
            counts[row][c] += 5
    check(-(-used // 8) == len(rest), "bits left over")
    return [k[v] for v in voxels]
