"""Streams changed at random, aware of their structure: the checksum always matches, lengths mostly do."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from moec_zarr.bitstream.container import read_stream
from moec_zarr.bitstream.primitives import write_varint
from tests.conformance import reference_decoder
from tests.conformance.freeze_streams import FEATURES, paths
from tests.support.streams import with_checksum

Parts = list[tuple[int, bytes]]  # number and payload of each section; number 0 has the header

EXTREMES = (0, 1, 0x3F, 0x7F, 0x80, 0xFE, 0xFF)
LENGTHS = (0, 1, 2, 3, 5, 16, 17, 63, 65, 127, 129, 300, 2047, 2049, 2**13, 2**16, 2**31)


@cache
def seeds() -> list[Parts]:
    """The frozen streams: one for each feature of the format."""
    return [taken_apart(paths(feature)[0].read_bytes()) for feature in FEATURES]


def taken_apart(stream: bytes) -> Parts:
    """The parts of a stream.

    Raises
    ------
    CorruptStreamError
        If its header or a section's length is damaged.
    """
    sections = read_stream(stream)[1]
    behind = sum(1 + len(write_varint(len(payload))) + len(payload) for payload in sections.values())
    return [(0, stream[8 : len(stream) - behind]), *((int(n), payload) for n, payload in sections.items())]


def mutated(rng: random.Random, parts: Parts | None = None) -> bytes:
    """A stream with one to four changes, made of any seed where no parts are given."""
    parts = list(rng.choice(seeds()) if parts is None else parts)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(CHANGES)(parts, rng)
    lie = rng.random() < 0.05  # about the length of a section
    body = parts[0][1]
    for number, payload in parts[1:]:
        length = max(0, len(payload) + (rng.randint(-9, 9) if lie else 0))
        body += bytes([number & 0xFF]) + write_varint(length) + payload
    return with_checksum(body)


def _bytes(parts: Parts, rng: random.Random) -> None:
    """A few bytes of a part, near its start more often than elsewhere."""
    at = rng.randrange(len(parts))
    number, payload = parts[at]
    changed = bytearray(payload)
    for _ in range(rng.choice((1, 1, 2, 8)) if payload else 0):
        place = rng.randrange(min(len(changed), rng.choice((12, 40, len(changed)))))
        kind = rng.randrange(3)
        changed[place] = (
            changed[place] ^ 1 << rng.randrange(8),
            rng.choice(EXTREMES),
            (changed[place] + rng.choice((-1, 1))) & 0xFF,
        )[kind]
    parts[at] = number, bytes(changed)


def _run(parts: Parts, rng: random.Random) -> None:
    """A run of bytes is cut out, repeated, or put in."""
    at = rng.randrange(len(parts))
    number, payload = parts[at]
    first = rng.randrange(len(payload) + 1)
    last = min(len(payload), first + rng.choice((1, 2, 4, 30)))
    put = rng.choice((b"", payload[first:last] * 2, rng.randbytes(4), bytes(8), b"\xff" * 8))
    parts[at] = number, payload[:first] + put + payload[last:]


def _end(parts: Parts, rng: random.Random) -> None:
    """A part ends early."""
    at = rng.randrange(len(parts))
    number, payload = parts[at]
    parts[at] = number, payload[: rng.randrange(len(payload) + 1)]


def _shape(parts: Parts, rng: random.Random) -> None:
    """Another length of an axis, or another rank."""
    header = parts[0][1]
    rank = header[1] if len(header) > 1 else 0
    source = reference_decoder.Reader(header[2:])
    try:
        shape = [source.varint() for _ in range(rank)]
    except reference_decoder.CorruptError:
        return
    if rng.random() < 0.2:
        shape.insert(rng.randrange(len(shape) + 1), rng.choice(LENGTHS))
    if shape:
        axis = rng.randrange(len(shape))
        shape[axis] = rng.choice((rng.choice(LENGTHS), max(0, shape[axis] + rng.randint(-2, 2))))
    lengths = b"".join(map(write_varint, shape))
    parts[0] = 0, header[:1] + bytes([len(shape)]) + lengths + header[2 + source.at :]


def _section(parts: Parts, rng: random.Random) -> None:
    """A section is dropped, doubled, renumbered, or put in from another stream."""
    kind, donor = rng.randrange(4), rng.choice(seeds())
    at = rng.randrange(1, len(parts)) if len(parts) > 1 else 0
    if kind == 0 and len(donor) > 1:
        parts[1:] = sorted([*parts[1:], rng.choice(donor[1:])])
    elif kind == 1 and at:
        del parts[at]
    elif kind == 2 and at:
        parts.insert(at, parts[at])
    elif at:
        parts[at] = rng.randrange(8), parts[at][1]


CHANGES: tuple[Callable[[Parts, random.Random], None], ...] = (
    _bytes, _bytes, _bytes, _run, _end, _shape, _section,
)  # fmt: skip
