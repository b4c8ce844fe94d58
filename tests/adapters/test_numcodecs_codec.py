"""The codec of numcodecs: arrays to streams and back, into whatever buffer there is."""

import array
import tracemalloc

import numpy as np
import pytest

from moec_zarr import CorruptStreamError, MoECCodec, MoECError, UnsupportedArrayError, config
from moec_zarr.bitstream.container import write_header
from tests.adapters.layouts import CHUNK as ARRAY
from tests.adapters.layouts import CODEC
from tests.support.fields import assert_near, psnr
from tests.support.fits import fast
from tests.support.streams import header, with_checksum


@pytest.fixture(scope="module")
def stream():
    return CODEC.encode(ARRAY)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: a.astype(">f4"),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],  # a strided view
        lambda a: a.astype("u1"),
    ],
)
def test_round_trip(change):
    given = change(ARRAY)
    before = given.copy(order="K")
    given.flags.writeable = False
    codec = MoECCodec(**fast(given, 300))
    decoded = codec.decode(codec.encode(given))
    np.testing.assert_array_equal(given, before)
    assert (decoded.shape, decoded.dtype) == (given.shape, given.dtype)
    assert decoded.flags.f_contiguous == given.flags.f_contiguous
    assert psnr(given, decoded) > 30


def test_decode_takes_any_buffer(stream):
    decoded = CODEC.decode(stream)
    assert psnr(ARRAY, decoded) > 30
    frozen = np.frombuffer(stream, "u1")
    assert not frozen.flags.writeable
    for buffer in (bytearray(stream), memoryview(stream), frozen):
        np.testing.assert_array_equal(MoECCodec(ratio=1000).decode(buffer), decoded)


def test_decode_into_out(stream):
    decoded = CODEC.decode(stream)
    for out in (np.empty_like(ARRAY), np.empty((4, 12, 32), "f4")[..., ::2]):
        assert CODEC.decode(stream, out=out) is out
        assert_near(out, decoded)
    flat = bytearray(ARRAY.nbytes)
    CODEC.decode(stream, out=flat)
    assert_near(np.frombuffer(flat, "f4").reshape(ARRAY.shape), decoded)


@pytest.mark.parametrize(
    ("out", "match"),
    [
        (np.empty((4, 12, 15), "f4"), r"\(4, 12, 15\).*\(4, 12, 16\)"),
        (np.empty((4, 12, 16), "i4"), "int32.*float32"),
        (np.frombuffer(bytes(4 * 12 * 16 * 4), "f4").reshape(4, 12, 16), "read-only"),
        (bytearray(7), r"\(7,\)"),
    ],
)
def test_decode_refuses_an_out_that_does_not_match(stream, out, match):
    with pytest.raises(MoECError, match=match):
        CODEC.decode(stream, out=out)


def test_damaged_stream_is_refused(stream):
    with pytest.raises(CorruptStreamError):
        CODEC.decode(stream[:-1])


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        bytearray(b"bytes"),
        memoryview(b"bytes"),
        array.array("B", b"bytes"),
        array.array("b", b"bytes"),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), complex),
        np.zeros((4, 4), "M8[s]"),
        np.zeros((4, 4), "U3"),
        np.zeros((4, 4), object),
        np.zeros((4, 4), [("a", "f4")]),
    ],
    ids=lambda value: str(getattr(value, "dtype", type(value).__name__)),
)
def test_unsupported_values_are_refused_with_a_remedy(value):
    with pytest.raises(UnsupportedArrayError) as caught:
        CODEC.encode(value)
    assert len(str(caught.value)) > 30


def test_object_arrays_are_a_type_error():
    """As numcodecs' own tests demand of a codec."""
    for value in np.array(["a", 1], object), np.empty((), object):
        with pytest.raises(TypeError):
            CODEC.encode(value)
        with pytest.raises(TypeError):
            CODEC.decode(value)


def test_typed_buffers_are_encoded():
    for given in memoryview(np.full((3, 2), 0.5)), array.array("h", [5, 5, 5]):
        np.testing.assert_array_equal(CODEC.decode(MoECCodec(psnr=50).encode(given)), np.asarray(given))


# 2 GiB of ones.
LARGE = with_checksum(write_header(header("f8", (2**28,))))


def test_out_is_looked_at_before_anything_is_decoded():
    tracemalloc.start()
    try:
        for out in np.empty(5, "f8"), np.empty(2**4, "f8").reshape(4, 4), bytearray(100):
            with pytest.raises(MoECError, match="268435456"):
                CODEC.decode(LARGE, out=out)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_stream_declares_no_more_than_the_largest_chunk():
    """Where its reader knows no shape; `out` is one."""
    ones = with_checksum(write_header(header("f8", (100,))))
    tracemalloc.start()
    try:
        with pytest.raises(MoECError, match="largest"):
            CODEC.decode(LARGE)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with config.set(largest=799):
        with pytest.raises(MoECError, match="largest"):
            CODEC.decode(ones)
        with pytest.raises(MoECError, match="largest"):
            CODEC.encode(np.ones(100))
        out = np.empty(100)
        assert CODEC.decode(ones, out=out) is out
        np.testing.assert_array_equal(out, 1)
        with pytest.raises(MoECError, match="largest"):  # though it is in memory now
            CODEC.decode(ones)
    with config.set(largest=800):
        np.testing.assert_array_equal(CODEC.decode(ones), np.ones(100))
