"""Streams made to cost much, each with a checksum that matches: what they may take of CPU time and memory.

Beside what the declared array takes, the memory is what `docs/security.md` promises.
"""

from __future__ import annotations

import math
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numcodecs import zstd

from moec_zarr import MoECError, config, inspect
from moec_zarr.bitstream.container import write_header
from moec_zarr.bitstream.masks import encode_mask
from moec_zarr.bitstream.network import write_network
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.codec.decode import decode
from tests.support.strategies import random_network
from tests.support.streams import (
    coefficients_section,
    experts_section,
    header,
    restored_body,
    transform_body,
    with_checksum,
)

MIB = 2**20
WORDS_OF_ONES = b"\xff\xff\xff\xfe"  # words for symbols that take next to no bytes


@dataclass(frozen=True)
class Case:
    """A stream, and what it may take.

    `match` is what the error says; where it is None, the stream decodes. `fixed` are bytes beside those that
    follow from the stream and the array, `a_voxel` those of each voxel beside its values, and `read` is what
    is done with it.
    """

    body: bytes
    shape: tuple[int, ...]
    match: str | None = None
    dtype: str = "u1"
    fixed: int = 2 * MIB
    a_voxel: int = 64
    seconds: float = 2.0
    read: Callable[..., Any] = decode

    @property
    def memory(self) -> int:
        """Bytes that it may take."""
        if self.match is not None or self.read is inspect:
            return self.fixed + 256 * len(self.body)
        voxels, size = math.prod(self.shape), np.dtype(self.dtype).itemsize
        return self.fixed + 256 * len(self.body) + (self.a_voxel + 5 * size) * voxels


def section(number: int, payload: bytes) -> bytes:
    return bytes([number]) + write_varint(len(payload)) + payload


def start(shape: tuple[int, ...], dtype: str = "u1") -> bytes:
    return write_header(header(dtype, shape, low=np.zeros((), dtype)[()]))


def masks(count: int, shape: tuple[int, ...]) -> bytes:
    """Masks of no voxel, of three bytes each."""
    return start(shape) + section(2, b"".join(bytes([n % 256, 1, 0]) for n in range(count)))


def network(encoder: int, experts: int, width: int, layers: int, axes: int = 2) -> bytes:
    """The largest one of its sizes that so few bytes may hold: all weights but the gate's are 0."""
    made = random_network(axes, encoder=encoder, experts=experts, width=width, layers=layers)
    for name, integers in made.integers.items():
        if not name.startswith("gate"):
            integers[...] = 0
    payload = write_network(made, dict.fromkeys(made.integers, 0))
    return section(4, payload.ljust(-(-made.architecture.parameter_count // 16), b"\0"))


def residual(shape: tuple[int, ...], coded: bytes, likely: bool = True) -> bytes:
    """Corrections of a grid, which cost next to nothing."""
    offset = 8191 if likely else -8192  # classes of the largest scale, or of the smallest
    context = bytes([9] * 3 * len(shape)) + struct.pack("<bbBhh", 0, 0, 64, offset, 0)
    return start(shape) + section(5, struct.pack("<df", 1.0, 0.5) + context + coded)


def transform(
    shape: tuple[int, ...], coded: bytes, bases: bytes | None = None, bands: int = 0, likely: bool = True
) -> bytes:
    """All coefficients of a grid, which cost next to nothing."""
    counts = [bands or n.bit_length() for n in shape]
    mask = encode_mask(np.ones(counts, bool))
    payload = coefficients_section(
        bases or bytes(len(shape)), mask=mask, coded=coded, axes=len(shape), likely=likely
    )
    return transform_body(payload, shape)


def most_experts(shape: tuple[int, ...]) -> bytes:
    """All ramps that there can be, with weights that are not zero; a transform that costs next to nothing."""
    folded = (32, 2048) if shape == (2**16,) else shape
    mask = encode_mask(np.ones([n.bit_length() for n in folded], bool))
    payload = coefficients_section(bytes(len(folded)), mask=mask, axes=len(folded)) + bytes(16)
    ramps = b"\xff" + bytes([*range(1, 16), *range(16)]) + bytes([104, 104, 0])
    return restored_body(experts_section(ramps, b"\3\0\3\0", WORDS_OF_ONES * 200), payload, shape, "f4")


def cases() -> Iterator[tuple[str, Case]]:
    yield "five masks", Case(masks(5, (512, 512)), (512, 512), "masked values")
    yield "500 masks of three bytes", Case(masks(500, (512, 512)), (512, 512), "masked values", seconds=0.5)
    yield "a mask of three bytes", Case(masks(1, (256, 256)), (256, 256))
    bomb = zlib.compress(bytes(2**24), 9)
    thin = section(2, b"\0" + write_varint(len(bomb) + 1) + b"\x80" + bomb)
    yield "bomb in a packed mask", Case(start((2**16,)) + thin, (2**16,), "inflate", fixed=MIB // 4)
    yield "lossless bomb", Case(start((1000,)) + section(3, bomb), (1000,), "inflate", fixed=MIB // 4)

    side = (255, 255)
    likely = transform(side, b"\1" + WORDS_OF_ONES)
    yield "coefficients that are not zero", Case(likely, side, "not zero", fixed=8 * MIB)
    yield (
        "corrections that are not zero",
        Case(residual(side, b"\1" + WORDS_OF_ONES), side, "not zero", fixed=8 * MIB),
    )
    nothing = residual((0, 2**31), b"\1")
    flat = struct.pack("<df", 1.0, 0.5)
    scale = b"\2" + struct.pack("<ffHH", 0.0, 700.0, 0, 0) + b"\1\0"
    masked = start((256, 256), "f4") + section(5, flat) + section(7, scale)
    yield "signs of a scale", Case(masked, (256, 256), dtype="f4")
    exact = start((256, 256)) + section(9, b"".join(bytes([n, 1, 0]) for n in range(4)))
    yield "four exact values", Case(exact, (256, 256), seconds=4.0)
    many = start((512, 512)) + section(9, b"".join(bytes([n % 256, 1, 0]) for n in range(500)))
    yield "500 exact values", Case(many, (512, 512), "masked values", seconds=0.5)
    yield "scale of nothing", Case(start((2**16,)) + section(7, scale), (2**16,), "nothing", fixed=MIB // 4)
    yield "corrections of no voxels", Case(nothing, (0, 2**31), "no voxels", fixed=MIB // 4)
    yield "corrections that are all zero", Case(residual((500, 500), b"\1", likely=False), (500, 500))
    large = transform(side, b"\x3e" + WORDS_OF_ONES)
    yield "large coefficients", Case(large, side, "not zero", fixed=8 * MIB)
    larger = transform(side, b"\x3f" + WORDS_OF_ONES)
    yield "coefficients with excesses", Case(larger, side, "not zero", fixed=8 * MIB)
    yield "all zero", Case(transform(side, b"\1", likely=False), side)
    beyond = transform((2047, 2047), b"\1")
    yield "more coefficients than bytes", Case(beyond, (2047, 2047), "coefficients in", seconds=0.5)
    five = (84,) * 5
    yield "the most bands", Case(transform(five, b"\1"), five, "coefficients in", seconds=1, read=inspect)
    long = transform((2048,), b"\1" + bytes(80), b"\x0b", bands=12, likely=False)
    yield "the matrix of the longest axis", Case(long, (2048,), fixed=120 * MIB)

    field = (128, 128)
    for name, sizes in {
        "most sines": (1024, 1, 1, 1),
        "most experts": (4, 256, 1, 16),
        "deepest network": (16, 1, 85, 16),
        "widest network": (100, 1, 1024, 1),
    }.items():
        body = start(field, "f4") + network(*sizes)
        yield name, Case(body, field, dtype="f4", fixed=32 * MIB)
    vast = (64,) * 5
    gate = start(vast) + network(1, 256, 1, 1, axes=5)
    yield "load of a vast grid", Case(gate, vast, fixed=48 * MIB, read=inspect)
    line = start((2**29,)) + network(1, 256, 1, 1, axes=1)
    yield "load of a long axis", Case(line, (2**29,), fixed=96 * MIB, read=inspect)

    for shape in (2**16,), (256, 256), (32, 16, 16, 16, 2):
        fixed = 64 * MIB if len(shape) == 1 else 2 * MIB  # the matrix of a long axis
        yield f"most experts of {len(shape)} axes", Case(most_experts(shape), shape, dtype="f4", fixed=fixed)
    claim = experts_section(b"\xff", b"")
    mean = coefficients_section(bytes(2), mask=encode_mask(np.ones((9, 9), bool)), coded=b"\1")
    yield (
        "experts that are only claimed",
        Case(restored_body(claim, mean, (256, 256)), (256, 256), "truncated", fixed=8 * MIB, seconds=0.5),
    )

    likely = bytes([1, 0, 1]) + bytes(16) + b"\0\0"  # integers that are foretold, in no words
    repeated = bytes([1, 3, 1]) + bytes(16) + b"\0\0"
    for name, coded in ("predicted", likely), ("repeated", repeated):
        for shape in (512, 512), (2**18,), (4, 4, 4, 4, 1024):
            body = start(shape) + section(8, b"\0\0" + coded)
            yield f"{name} integers of {len(shape)} axes", Case(body, shape, fixed=8 * MIB)
    ladder = np.array([1.0, 1.0, 1.0]).tobytes()
    far = b"\0\4" + zstd.compress(bytes(2) + b"\4" + bytes(1), 1)
    yield "a long ladder", Case(start((1,), "f8") + section(8, b"\2" + ladder + far), (1,), fixed=96 * MIB)
    frame = section(8, b"\0\0\0\1" + zstd.compress(bytes(2**24)))
    yield "bomb of integers", Case(start((1000,)) + frame, (1000,), "zstd", fixed=MIB // 4)
    claim = b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little")
    yield (
        "a frame that claims much",
        Case(start((9,)) + section(8, b"\0\0\0\1" + claim), (9,), "zstd", fixed=MIB // 4),
    )
    table = section(8, b"\x80\0" + write_varint(2**31) + bytes(8) + b"\0")
    yield "a table that is only claimed", Case(start((9,)) + table, (9,), "table", fixed=MIB // 4)

    axis = (2**22,)
    yield "one axis", Case(start(axis), axis, seconds=1, a_voxel=0)
    most = (2**32 - 1,)
    yield "another shape", Case(start(most, "f8"), (4,), "shape", fixed=MIB // 4, seconds=0.5)


CASES = dict(cases())


@pytest.fixture(scope="module", autouse=True)
def _tables() -> None:
    """Tables and compiled code that the first stream pays for, and all others share."""
    decode(with_checksum(transform((4, 4), b"\1", likely=False)))
    decode(with_checksum(masks(1, (256, 256))), shape=(256, 256))
    decode(with_checksum(most_experts((256, 256))), shape=(256, 256))


@pytest.mark.parametrize("name", CASES)
def test_hostile_stream(name: str) -> None:
    case = CASES[name]
    stream = with_checksum(case.body)
    with config.set(cache=0):
        tracemalloc.start()
        before = time.process_time()
        try:
            if case.match is None:
                result = case.read(stream, shape=case.shape)
                assert result.shape == case.shape
            else:
                with pytest.raises(MoECError, match=case.match):
                    case.read(stream, shape=case.shape)
            seconds, peak = time.process_time() - before, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < case.memory, f"{peak / MIB:.1f} MiB"
    assert seconds < case.seconds, f"{seconds:.2f} CPU seconds"


def test_what_a_stream_declares_is_limited_where_nothing_else_says_its_shape() -> None:
    stream = with_checksum(start((2**32 - 1,), "f8"))
    assert len(stream) < 40
    for read in decode, inspect:
        tracemalloc.start()
        try:
            with pytest.raises(MoECError, match="largest"):
                read(stream)
            assert tracemalloc.get_traced_memory()[1] < MIB // 4
        finally:
            tracemalloc.stop()
