"""Values that are kept exactly: those asked for, and those that occur often where the rest gains by it."""

import zlib

import numpy as np
import pytest

from moec_zarr import MoECCodec, MoECError, UnsupportedArrayError, inspect
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec import encode as encoding
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.codec.repeated import Raced
from moec_zarr.config import config
from moec_zarr.runtime import is_installed
from moec_zarr.settings import Settings
from tests.codec.checks import assert_quality_is_stored
from tests.conformance import reference_decoder
from tests.support.decoders import assert_agrees, assert_same_parts
from tests.support.fields import psnr, rough, smooth

SHAPE = (6, 10, 12)
TARGETS = [
    {"ratio": 6},
    {"psnr": 45},
    {"max_error": 3},
    {"max_relative_error": 0.05},
    {"max_relative_error": 0.05, "max_error": 2},
    {"ratio": 6, "scale": "log"},
]


def clipped(dtype="f4", shape=SHAPE):
    """A field at both of whose ends many values are the same."""
    return np.clip(rough(shape, "f8", noise=4) - 20, 0, 60).astype(dtype)


def decodings(stream):
    with config.set(cache=0, compiled=False):
        yield decode(stream)
    if is_installed("torch"):
        with config.set(decoder="torch"):
            yield decode(stream)
    yield reference_decoder.decode(stream).array


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "i2"])
def test_what_is_asked_for_is_kept(target, dtype):
    array = clipped(dtype)
    if dtype == "<f4":
        array[3, 4:6] = np.nan
    stream = encode(array, Settings(exact=[0, 60], effort="fast", **target))
    assert_same_parts(stream)
    assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)
    for decoded in decodings(stream):
        for value in 0, 60:
            np.testing.assert_array_equal(decoded[array == value], value)
        np.testing.assert_array_equal(np.isnan(decoded), np.isnan(array))
    part = (slice(2, None, 3), slice(None, None, 2), slice(5, 11))
    part_decoded = decode(stream, part)
    assert (part_decoded[array[part] == 0] == 0).all()
    assert_quality_is_stored(array, stream, decode(stream))


def test_all_that_is_valid_may_be_exact():
    array = np.where(smooth((12, 20, 24)) > 50, 7, -2).astype("i4")
    stream = encode(array, Settings(ratio=50, exact=(7, -2), effort="fast"))
    np.testing.assert_array_equal(decode(stream), array)
    np.testing.assert_array_equal(reference_decoder.decode(stream).array, array)
    assert inspect(stream).psnr == np.inf


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("value", [7, -7])
def test_zero_and_an_exact_value_are_all_there_is(target, value):
    """Nothing is left for a logarithm to be taken of."""
    array = np.where(smooth((12, 20, 24)) > 50, value, 0).astype("f4")
    stream = encode(array, Settings(exact=value, effort="fast", **target))
    if "log" in str(target) or target == {"max_relative_error": 0.05}:
        np.testing.assert_array_equal(decode(stream), array)
    np.testing.assert_array_equal(decode(stream)[array == value], value)
    assert_same_parts(stream)


def island():
    """Land that is filled with zeros: sharp edges at which a transform rings, if it has to fit them."""
    array = rough((16, 24, 28), noise=1) + 100
    y, x = np.indices((24, 28))
    array[:, np.hypot(y - 12, x - 14) < 8] = 0
    return array


@pytest.mark.parametrize("target", [{"ratio": 20}, {"psnr": 50}], ids=str)
def test_a_place_that_never_changes_is_kept_exactly(target, monkeypatch):
    array = island()
    land = (array == 0).all(axis=0)
    stream = encode(array, Settings(effort="fast", **target))
    (zeros,) = open_stream(stream).exact_values
    assert zeros.value == 0
    np.testing.assert_array_equal(decode(stream)[:, land], 0)
    monkeypatch.setattr(encoding, "race_repeated", lambda chunk, *_, **__: Raced(chunk))
    without = encode(array, Settings(effort="fast", **target))
    if "ratio" in target:
        assert len(stream) <= array.nbytes / 20
        assert psnr(array, decode(stream)) > psnr(array, decode(without)) + 0.5
    else:
        assert psnr(array, decode(stream)) >= 50
        assert len(stream) < 0.9 * len(without)


@pytest.mark.parametrize("target", [{"ratio": 20}, {"psnr": 40}], ids=str)
def test_no_field_loses_by_it(target, monkeypatch):
    """Places that change everywhere take more bytes than they are worth."""
    array = clipped(shape=(12, 20, 24))
    stream = encode(array, Settings(effort="fast", **target))
    monkeypatch.setattr(encoding, "race_repeated", lambda chunk, *_, **__: Raced(chunk))
    without = encode(array, Settings(effort="fast", **target))
    if "ratio" in target:
        assert psnr(array, decode(stream)) >= psnr(array, decode(without)) - 0.01
    else:
        assert len(stream) <= len(without)


def showers(dtype="f4"):
    """Zeros, and values over decades wherever there are none: what no transform is close to."""
    rng = np.random.default_rng(3)
    wet = smooth((24, 40, 48)) > 60
    return np.where(wet, np.exp(rng.normal(5, 1.5, wet.shape)), 0).astype(dtype)


def gridded(array, limit):
    """Values on the finest grid whose integers, deflated, take so many bytes: without any codec of ours."""
    for spacing in np.ptp(array) * 2.0 ** -np.arange(24, 0, -0.25):
        places = np.rint(array / spacing).astype("i4")
        if len(zlib.compress(places.view("u1").reshape(-1, 4).T.tobytes(), 9)) <= limit:
            return (places * spacing).astype(array.dtype)
    return np.zeros_like(array)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u2"])
@pytest.mark.parametrize("share", [0.25, 0.1])
def test_a_ratio_is_met_by_rounded_values_where_a_fit_is_no_better(dtype, share):
    array = showers(dtype)
    limit = int(share * len(zlib.compress(array.tobytes())))
    stream = encode(array, Settings(ratio=array.nbytes / limit, effort="fast"))
    assert len(stream) <= limit
    decoded = decode(stream)
    # The mean is kept too, which takes bytes where few of them are left.
    assert psnr(array, decoded) > psnr(array, gridded(array.astype("f8"), limit)) + (2 if share > 0.2 else -1)
    assert (decoded[array == 0] == 0).all()
    original = array.astype("f8")
    assert abs(decoded.astype("f8").mean() - original.mean()) < 1e-3 * original.mean()
    largest = np.abs(decoded.astype("f8") - original).max()
    assert largest <= open_stream(stream).bounds[0] <= 1.001 * largest
    assert_quality_is_stored(array, stream, decoded)
    assert_same_parts(stream)


@pytest.mark.parametrize("target", [40, 70])
def test_a_psnr_is_reached_by_rounded_values_where_a_fit_takes_more_bytes(target):
    array = showers()
    stream = encode(array, Settings(psnr=target, effort="fast"))
    assert target <= psnr(array, decode(stream)) < target + 1
    error = np.ptp(array) * 10 ** (-target / 20)
    spacing = error * np.sqrt(12)  # zeros are exact, so that others may be off by more
    places = np.rint(array / spacing).astype("i2")
    assert len(stream) < len(zlib.compress(places.view("u1").reshape(-1, 2).T.tobytes(), 9))


def test_rounded_values_keep_what_is_asked_for():
    array = showers()
    array[:, :6] = 333.3
    stream = encode(array, Settings(ratio=12, exact=[0, 333.3], effort="fast"))
    for decoded in decodings(stream):
        assert (decoded[array == array[0, 0, 0]] == array[0, 0, 0]).all()
        assert (decoded[array == 0] == 0).all()


def test_where_nothing_repeats_nothing_is_tried(monkeypatch):
    calls = []
    fit = encoding._encode_ratio
    monkeypatch.setattr(encoding, "_encode_ratio", lambda *args: calls.append(args) or fit(*args))
    encode(rough((12, 20, 24)), Settings(ratio=20, effort="fast"))
    assert len(calls) == 1
    encode(clipped(shape=(12, 20, 24)), Settings(ratio=20, effort="fast"))
    assert len(calls) == 2  # of values cut off nothing is left that a transform rings at
    encode(island(), Settings(ratio=20, effort="fast"))
    assert len(calls) > 3


def test_what_may_be_asked_for():
    assert Settings(ratio=9, exact=0).exact_values == (0,)
    stored = MoECCodec(ratio=9, exact=(np.float32(0), 100)).get_config()
    assert stored == {"id": "moec", "ratio": 9, "exact": [0, 100]}
    assert MoECCodec.from_config(stored) == MoECCodec(ratio=9, exact=[0, 100])
    hash(Settings(ratio=9, exact=[0, 1]))
    for wrong in [], [0, 0], [1, 2, 3, 4, 5], "0", [np.nan], [None]:
        with pytest.raises(MoECError, match="got"):
            Settings(ratio=9, exact=wrong)
    with pytest.raises(UnsupportedArrayError, match=r"exact=0\.5"):
        encode(smooth(SHAPE, "i2"), Settings(ratio=9, exact=0.5, effort="fast"))
