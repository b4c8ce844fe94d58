import json
import pickle

import numcodecs
import numpy as np
import pytest
from tests.support.fields import assert_near, psnr, smooth

from moec_zarr import CorruptStreamError, MoECCodec, MoECError, MoECSerializer, UnsupportedArrayError

FAST = {"ratio": 20, "effort": "fast"}


@pytest.fixture(scope="module")
def array():
    return smooth((16, 24, 32))


@pytest.fixture(scope="module")
def stream(array):
    return MoECCodec(**FAST).encode(array)


def test_configuration_holds_plain_types_and_no_defaults():
    codec = MoECCodec(ratio=np.float32(1000), missing=np.int16(-999), seed=np.int64(3))
    config = codec.get_config()
    assert json.loads(json.dumps(config)) == {"id": "moec", "ratio": 1000, "missing": -999, "seed": 3}
    assert MoECCodec.from_config(config) == codec
    assert MoECCodec(psnr=40).get_config() == {"id": "moec", "psnr": 40}


def test_configuration_of_another_version_is_refused():
    with pytest.raises(MoECError, match=r"unknown setting 'rate'.*upgrade"):
        numcodecs.get_codec({"id": "moec", "rate": 20})


def test_arguments_are_named_and_checked():
    with pytest.raises(TypeError):
        MoECCodec(1000)
    with pytest.raises(MoECError, match="exactly one target"):
        MoECCodec()


def test_a_codec_is_its_settings():
    codec = MoECCodec(**FAST)
    assert codec == MoECCodec(**FAST) == pickle.loads(pickle.dumps(codec))
    assert len({codec, MoECCodec(**FAST), MoECCodec(ratio=21)}) == 2
    assert codec != MoECCodec(ratio=21)
    assert codec != MoECSerializer(**FAST)
    assert repr(codec) == "MoECCodec(ratio=20, effort='fast')"
    assert codec.serializer() == MoECSerializer(**FAST)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: a.astype(">f4"),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],  # a strided view
        lambda a: a.astype("u1"),
    ],
)
def test_round_trip(array, change):
    given = change(array)
    before = given.copy(order="K")
    given.flags.writeable = False
    decoded = MoECCodec(**FAST).decode(MoECCodec(**FAST).encode(given))
    np.testing.assert_array_equal(given, before)
    assert (decoded.shape, decoded.dtype) == (given.shape, given.dtype)
    assert decoded.flags.f_contiguous == given.flags.f_contiguous
    assert psnr(given, decoded) > 30


def test_decode_takes_any_buffer(array, stream):
    decoded = MoECCodec(**FAST).decode(stream)
    assert psnr(array, decoded) > 30
    frozen = np.frombuffer(stream, "u1")
    assert not frozen.flags.writeable
    for buffer in (bytearray(stream), memoryview(stream), frozen):
        np.testing.assert_array_equal(MoECCodec(ratio=1000).decode(buffer), decoded)


def test_decode_into_out(array, stream):
    codec = MoECCodec(**FAST)
    decoded = codec.decode(stream)
    for out in (np.empty_like(array), np.empty((16, 24, 64), "f4")[..., ::2]):
        assert codec.decode(stream, out=out) is out
        assert_near(out, decoded)
    flat = bytearray(array.nbytes)
    codec.decode(stream, out=flat)
    assert_near(np.frombuffer(flat, "f4").reshape(array.shape), decoded)


@pytest.mark.parametrize(
    ("out", "match"),
    [
        (np.empty((16, 24, 31), "f4"), r"\(16, 24, 31\).*\(16, 24, 32\)"),
        (np.empty((16, 24, 32), "i4"), "int32.*float32"),
        (np.frombuffer(bytes(16 * 24 * 32 * 4), "f4").reshape(16, 24, 32), "read-only"),
        (bytearray(7), r"\(7,\)"),
    ],
)
def test_decode_refuses_an_out_that_does_not_match(stream, out, match):
    with pytest.raises(MoECError, match=match):
        MoECCodec(**FAST).decode(stream, out=out)


def test_damaged_stream_is_refused(stream):
    with pytest.raises(CorruptStreamError):
        MoECCodec(**FAST).decode(stream[:-1])


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        bytearray(b"bytes"),
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
        MoECCodec(**FAST).encode(value)
    assert len(str(caught.value)) > 30
