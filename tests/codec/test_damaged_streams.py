"""Damaged and hostile streams: only errors of this package, and little memory."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from moec_zarr import MoECError, UnsupportedVersionError, config
from moec_zarr.codec.decode import decode
from tests.conformance import reference_decoder
from tests.conformance.freeze_streams import FEATURES, paths


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """No stream is taken from memory, nor counts as memory that the next one takes."""
    with config.set(cache=0):
        yield


def outcome(data: bytes, shape: tuple[int, ...]) -> str:
    """What decoding some bytes leads to: the name of an error of this package, or "array"."""
    try:
        decoded = decode(data, shape=shape)
    except MoECError as error:
        return type(error).__name__
    assert decoded.shape == shape
    return "array"


def repaired(stream: bytes) -> bytes:
    """A stream whose checksum matches again."""
    return stream[:4] + zlib.crc32(stream[8:]).to_bytes(4, "little") + stream[8:]


@pytest.mark.parametrize("feature", FEATURES)
def test_truncation(feature: str) -> None:
    stream, shape = paths(feature)[0].read_bytes(), FEATURES[feature][0].shape
    for length in range(len(stream)):
        assert outcome(stream[:length], shape) == "CorruptStreamError"
        if length >= 8:  # with a checksum that matches, what remains may decode
            assert outcome(repaired(stream[:length]), shape) in ("CorruptStreamError", "array")


@pytest.mark.parametrize("feature", FEATURES)
def test_damage(feature: str) -> None:
    """Every byte in turn, as damage and as an attacker who repairs the checksum would have it."""
    stream, shape = paths(feature)[0].read_bytes(), FEATURES[feature][0].shape
    outcomes = set()
    for at in range(len(stream)):
        damaged = bytearray(stream)
        damaged[at] ^= 0xFF if at % 2 else 1 << at % 8
        version = UnsupportedVersionError.__name__
        assert outcome(bytes(damaged), shape) == (version if at == 3 else "CorruptStreamError")
        outcomes.add(outcome(repaired(bytes(damaged)), shape))
    # One bit makes section 11 of section 10.
    assert outcomes <= {"CorruptStreamError", "DictionaryError", "UnsupportedVersionError", "array"}


@pytest.mark.parametrize("feature", FEATURES)
def test_damage_takes_little_memory(feature: str) -> None:
    stream, shape = paths(feature)[0].read_bytes(), FEATURES[feature][0].shape
    tracemalloc.start()
    try:
        # Tracing is slow; `tests.conformance` damages more bytes of transforms, within less memory.
        for at in range(8, len(stream), 40 if feature.startswith("transform") else 10):
            damaged = bytearray(stream)
            damaged[at] ^= 0xFF
            outcome(repaired(bytes(damaged)), shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


def test_a_small_stream_does_not_make_a_large_network() -> None:
    """A payload that claims a network far beyond its bytes is refused before it is made."""
    stream = paths("one_expert")[0].read_bytes()
    header = stream[: -len(reference_decoder.decode(stream).sections[4]) - 3]
    claims = b"\x80\x08\x80\x02\x80\x08\x10" + bytes(100)
    section = bytes([4, len(claims)]) + claims
    tracemalloc.start()
    try:
        with pytest.raises(MoECError, match="weights"):
            decode(repaired(header + section))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
