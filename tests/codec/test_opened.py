"""Parsed streams are kept for further reads: the same result, parsed once, within a limit of memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from moec_zarr import CorruptStreamError, config
from moec_zarr.codec import opened
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings


@pytest.fixture(autouse=True)
def parsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The streams that were parsed; none is kept from before, nor after."""
    streams: list[bytes] = []
    parse = opened.open_stream

    def recorded(data: bytes, *others: Any) -> Any:
        streams.append(data)
        return parse(data, *others)

    monkeypatch.setattr(opened, "open_stream", recorded)
    opened._kept.clear()
    yield streams
    opened._kept.clear()


def exact(number: int) -> tuple[np.ndarray, bytes]:
    """An array of 1200 bytes, and a stream that holds it exactly."""
    array = np.random.default_rng(number).integers(0, 200, (10, 30), "i4")
    return array, encode(array, Settings(ratio=1))


def test_a_stream_is_parsed_once(parsed):
    array, stream = exact(0)
    for index in (0, 3, -1):
        np.testing.assert_array_equal(decode(stream, index), array[index])
    np.testing.assert_array_equal(decode(bytearray(stream)), array)
    assert parsed == [stream]


def test_what_is_decoded_may_be_changed():
    array, stream = exact(0)
    decode(stream)[:] = 0
    decode(stream, (slice(2), slice(2)))[:] = 0
    np.testing.assert_array_equal(decode(stream), array)


def test_nothing_is_kept_without_room(parsed):
    array, stream = exact(0)
    with config.set(cache=0):
        for _ in range(2):
            np.testing.assert_array_equal(decode(stream), array)
    assert parsed == [stream] * 2
    assert not opened._kept


def test_the_least_recently_used_leave_first(parsed):
    streams = [exact(number)[1] for number in range(3)]
    two = sum(1200 + len(stream) for stream in streams[:2]) + 200
    with config.set(cache=two):
        for number in (0, 1, 0, 2, 0, 1):
            decode(streams[number])
    assert [streams.index(stream) for stream in parsed] == [0, 1, 2, 1]
    assert len(opened._kept) == 2


def test_a_kept_stream_of_another_shape_is_refused():
    _, stream = exact(0)
    decode(stream)
    with pytest.raises(CorruptStreamError, match=r"\(10, 30\).*\(30, 10\)"):
        decode(stream, shape=(30, 10))
    assert decode(stream, shape=(10, 30)).shape == (10, 30)


def test_damage_is_never_kept(parsed):
    _, stream = exact(0)
    for _ in range(2):
        with pytest.raises(CorruptStreamError):
            decode(stream[:-1])
    assert len(parsed) == 2
    assert not opened._kept


def test_threads_share_what_is_kept():
    arrays, streams = zip(*map(exact, range(6)), strict=True)
    with config.set(cache=5000), ThreadPoolExecutor(4) as pool:
        for number, decoded in enumerate(pool.map(decode, streams * 20)):
            np.testing.assert_array_equal(decoded, arrays[number % 6])
