"""Values rounded as far as a bound allows: every one in exact arithmetic, and beside other ways to round."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from numcodecs import BitRound, Shuffle, Zstd

from moec_zarr.bitstream.container import Section, read_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.lossless import encode_lossless, encode_lossless_within, encode_rounded
from moec_zarr.codec.prepare import prepare
from moec_zarr.codec.rounding import keep_mean, round_within
from moec_zarr.config import config
from moec_zarr.model.levels import Grid, restore
from tests.support.fields import smooth

DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
BOUNDS = ((0.0, 0.0), (3.5, 0.0), (0.01, 0.0), (0.0, 0.05), (0.0, 1e-3), (2.0, 0.1), (1e-300, 0.01))
OVERHEAD = 64  # bytes of the stream around what is coded


def stored(array, absolute=0.0, relative=0.0, missing=None):
    stream = encode_rounded(prepare(array, missing, None), absolute, relative)
    assert stream is not None
    return stream


def assert_within(original, decoded, absolute, relative):
    """Each value, as a fraction."""
    a, r = Fraction(absolute), Fraction(relative)
    for x, y in zip(original.ravel().tolist(), decoded.ravel().tolist(), strict=True):
        assert abs(Fraction(y) - Fraction(x)) <= max(a, r * abs(Fraction(x))), (x, y)


def values_of(dtype, size=120):
    """Small and large ones, the ends of the dtype, zeros, neighbours, and both signs."""
    rng = np.random.default_rng(3)
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        wide = rng.integers(info.min, info.max, size, dtype, endpoint=True)
        near = np.clip(rng.integers(-90, 90, size), info.min, info.max).astype(dtype)
        return np.concatenate([wide, near, np.array([info.min, info.max, 0, 0, 1], dtype)])
    info = np.finfo(dtype)
    with np.errstate(over="ignore"):
        decades = np.exp(rng.uniform(np.log(float(info.tiny)), np.log(float(info.max)) * 0.999, size))
        wide = (decades * rng.choice([-1, 1], size)).astype(dtype)
    near = rng.normal(0, 50, size).astype(dtype)
    ends = [info.max, -info.max, info.smallest_subnormal, -info.tiny, 0.0, -0.0, 1.0, info.eps]
    return np.concatenate([wide, near, np.nextafter(near, dtype.type(9)), np.array(ends, dtype)])


@pytest.mark.parametrize(("absolute", "relative"), BOUNDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_is_within_the_bound(dtype, absolute, relative):
    for values in (values_of(dtype), values_of(dtype)[-13:], np.sort(values_of(dtype))):
        for rounded in round_within(values, absolute, relative):
            assert_within(values, rounded.values, absolute, relative)
            if relative and not absolute:
                np.testing.assert_array_equal(np.sign(values), np.sign(rounded.values))
        decoded = decode(stored(values, absolute, relative))
        assert_within(values, decoded, absolute, relative)
        if not absolute and not relative:
            assert decoded.tobytes() == values.tobytes()


@pytest.mark.parametrize("relative", [0.51, 0.3, 0.03])
@pytest.mark.parametrize("absolute", [0.0, 5e-324])
def test_the_smallest_doubles_are_within_the_bound(absolute, relative):
    """Where a product of bound and value is rounded to a whole subnormal double."""
    values = np.tile(np.arange(-90, 90) * 5e-324, 8)
    assert_within(values, decode(stored(values, absolute, relative)), absolute, relative)


@pytest.mark.parametrize("missing", [None, 3.0, 1.7e308])
@pytest.mark.parametrize(("absolute", "relative"), [(1e303, 0.0), (0.0, 0.3), (1e308, 0.5), (1.7e308, 0.0)])
def test_few_values_next_to_the_largest_double_are_rounded_without_a_warning(absolute, relative, missing):
    values = np.tile(np.array([-1.0, -0.99, 0.0, 0.99, 1.0]) * np.finfo("f8").max, 9)
    decoded = decode(stored(values, absolute, relative, missing))
    assert_within(values, decoded, absolute, relative)
    assert missing not in decoded


@pytest.mark.parametrize(("absolute", "relative"), BOUNDS)
@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8"])
def test_invalid_places_and_the_sentinel_stay(dtype, absolute, relative):
    data = smooth((6, 7, 8), dtype)
    data[1:3, 2:5, :4], data[4, 4, 4], data[5, :2, 1] = np.nan, np.inf, -np.inf
    data[0, 3:] = 33.0
    data[0, 0, :3] = np.nextafter(np.dtype(dtype).type(33), np.dtype(dtype).type(40))
    decoded = decode(stored(data, absolute, relative, missing=33.0))
    for value in (np.inf, -np.inf, 33.0):
        np.testing.assert_array_equal(decoded == value, data == value)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(data))
    valid = np.isfinite(data) & (data != 33)
    assert_within(data[valid], decoded[valid], absolute, relative)


@pytest.mark.parametrize("dtype", ["i2", "u8"])
def test_no_integer_becomes_the_sentinel(dtype):
    data = smooth((9, 10, 11), dtype, scale=200)
    data[2:4, 3:6] = 100
    for absolute in 1.0, 2.0, 7.9:
        decoded = decode(stored(data, absolute, missing=100))
        np.testing.assert_array_equal(decoded == 100, data == 100)
        assert_within(data, decoded, absolute, 0)


def rain(shape, seed=0):
    """Tenths where it rains."""
    rng = np.random.default_rng(seed)
    field = smooth(shape, "f8", scale=40) - 20 + rng.normal(0, 2, shape)
    return (np.rint(np.maximum(field, 0) * 10) / 10).astype("f4")


def hard_fields():
    rng = np.random.default_rng(5)
    yield "smooth", smooth((16, 30, 40))
    yield "noise", rng.normal(size=(20, 30, 40)).astype("f4")
    yield "rain", rain((20, 30, 40))
    yield "a long period", np.resize(rng.normal(size=5000), (10, 40, 60)).astype("f4")
    yield "labels", (smooth((20, 30, 40)) // 20).astype("u1")
    yield "decades", np.exp(smooth((20, 30, 40), "f8", scale=30) + rng.normal(size=(20, 30, 40))).astype("f4")
    yield "one axis", np.cumsum(rng.normal(size=30000)).astype("f4")


@pytest.mark.parametrize(("name", "data"), list(hard_fields()), ids=[name for name, _ in hard_fields()])
def test_never_more_bytes_than_rounding_by_hand_and_zstd(name, data):
    def zstd(values):
        return len(Zstd(level=9).encode(Shuffle(values.itemsize).encode(values)))

    span = float(data.max()) - float(data.min())
    for share in 1e-2, 1e-3:
        grid = np.rint(data.astype("f8") / (2 * share * span)).astype("i2")
        assert len(stored(data, share * span)) <= zstd(grid) + OVERHEAD
        if data.dtype.kind == "f":
            bits = BitRound(keepbits=math.ceil(-math.log2(share)) - 1)
            rounded = bits.decode(bits.encode(data.copy())).view(data.dtype).reshape(data.shape)
            assert len(stored(data, 0.0, share)) <= zstd(rounded) + OVERHEAD
    assert len(stored(data)) <= zstd(data) + OVERHEAD


def test_contexts_of_neighbours_take_far_fewer_bytes_than_zstd_where_fields_are_smooth():
    data = smooth((24, 32, 40), "f8")
    data = (data + np.random.default_rng(2).normal(0, 0.02, data.shape)).astype("f4")
    grid = np.rint(data / 0.1).astype("i2")
    peer = len(Zstd(level=19).encode(Shuffle(2).encode(grid)))
    assert len(stored(data, 0.05)) < 0.7 * peer


def test_decimals_and_few_values_are_the_integers_that_they_were():
    rng = np.random.default_rng(4)
    whole = np.rint(smooth((16, 24, 32), "f8", scale=900) + rng.normal(0, 3, (16, 24, 32)))
    decimals = len(stored((whole / 100).astype("f4")))
    integers = len(stored(whole.astype("i2")))
    assert decimals < integers + 100
    packed = (whole * np.float32(0.0173) + np.float32(271.4)).astype("f4")  # by whatever scale and offset
    assert len(stored(packed)) < 1.35 * integers
    scattered = rng.normal(size=12).astype("f8")[(whole // 100).astype(int)]
    assert len(stored(scattered)) < len(stored((whole // 100).astype("u1"))) + 300


def test_exact_zeros_take_next_to_nothing():
    data = np.zeros((50, 60, 70), "f4")
    data[20, 30, 30:40] = np.arange(10) + 0.25
    assert len(stored(data)) < 400
    assert len(stored(data, 0.0, 0.01)) < 400
    whole = data.copy()
    whole[::2] = 7.0  # every second plane another value
    assert len(stored(whole)) < 500


@pytest.mark.parametrize(("absolute", "relative"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.01)])
def test_parts_are_those_of_the_whole(absolute, relative):
    data = rain((9, 10, 11))
    data[2, 3:6] = np.nan
    stream = stored(data, absolute, relative)
    assert Section.INTEGERS in read_stream(stream)[1]
    whole = decode(stream)
    for part in (slice(2, 7), 3, slice(None)), (4, 5, 6), (slice(None, None, -2), slice(1, 9, 3), -1):
        np.testing.assert_array_equal(decode(stream, part), whole[part])


def test_compiled_or_not_the_stream_is_the_same():
    data = rain((12, 50, 120))  # from 65536 voxels on it is compiled
    streams, decoded = [], []
    for compiled in True, False:
        with config.set(compiled=compiled, cache=0):
            streams.append(stored(data))
            decoded.append(decode(streams[0]))
    assert streams[0] == streams[1]
    np.testing.assert_array_equal(decoded[0], data)
    np.testing.assert_array_equal(decoded[1], data)


def test_a_limit_that_is_far_away_is_told_from_samples():
    data = np.random.default_rng(6).normal(size=(60, 60, 60)).astype("f4")
    chunk = prepare(data, None, None)
    assert encode_lossless_within(chunk, 3000) is None
    exact = encode_lossless(chunk)
    assert encode_lossless_within(chunk, len(exact)) == exact
    assert encode_lossless_within(chunk, len(exact) - 1) is None


def test_what_is_stored_says_how_close_it_is():
    data = smooth((9, 10, 11))
    header, _ = read_stream(stored(data, 0.4))
    decoded = decode(stored(data, 0.4)).astype("f8")
    error = np.abs(decoded - data).max() / (float(data.max()) - float(data.min()))
    assert error <= header.max_error <= 1.01 * error
    noise = np.sqrt(np.square(decoded - data).mean())
    assert header.psnr == pytest.approx(20 * np.log10(100 / noise), abs=0.02)
    exact, _ = read_stream(stored(data))
    assert (exact.psnr, exact.max_error) == (math.inf, 0)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i4"])
@pytest.mark.parametrize("sign", [1, -1])
def test_means_are_kept_by_values_between_two_levels(dtype, sign):
    values = (sign * np.exp(np.random.default_rng(2).normal(3, 1.5, 20_000))).astype(dtype)
    values[::3] = 0
    size = np.abs(values.astype("f8")).mean()
    for bound in 9, 20:
        (nearest,) = (each for each in round_within(values, bound) if isinstance(each.levels, Grid))
        kept = keep_mean(values, nearest)
        before, after = (each.values.astype("f8") - values for each in (nearest, kept))
        assert abs(before.mean()) > 0.005 * size
        assert abs(after.mean()) < 1e-3 * size
        assert (kept.values[::3] == 0).all()
        assert np.abs(after).max() <= 1.5 * bound + 1
        restored = restore(kept.levels, kept.integers, kept.values.dtype, values.min(), values.max())
        np.testing.assert_array_equal(kept.values, restored)
