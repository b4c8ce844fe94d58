"""A relative error is kept: every dtype, range, sign and zero, whole and in parts, by every decoder."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec_zarr import BudgetError, MoECCodec, MoECError, inspect
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.codec.fidelity import find_missed
from moec_zarr.config import config
from moec_zarr.quality import measure
from moec_zarr.runtime import is_installed
from moec_zarr.settings import Settings
from tests.codec.checks import assert_quality_is_stored
from tests.conformance import reference_decoder
from tests.support.decoders import assert_agrees, assert_same_parts
from tests.support.fields import rough, smooth

SHAPE = (9, 14, 17)
DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


def count_beyond(array, decoded, relative, absolute=0):
    """Values that are further off than max(absolute, relative |x|), in exact arithmetic."""
    relative, absolute = Fraction(relative), Fraction(absolute)
    beyond = 0
    for x, y in zip(array.ravel().tolist(), decoded.ravel().tolist(), strict=True):
        if isinstance(x, float) and not math.isfinite(x):
            beyond += not (x == y or (x != x and y != y))
        else:
            beyond += abs(Fraction(y) - Fraction(x)) > max(absolute, relative * abs(Fraction(x)))
    return beyond


def assert_keeps(array, stream, relative, absolute=0):
    """Whole and in parts, with NumPy alone, compiled, by torch, and by the reference decoder."""
    whole = decode(stream)
    assert (whole.shape, whole.dtype) == (array.shape, array.dtype)
    with config.set(compiled=False, cache=0):
        plain = decode(stream)
    all_decoded = [whole, plain, reference_decoder.decode(stream).array]
    if is_installed("torch"):
        with config.set(decoder="torch"):
            all_decoded.append(decode(stream))
    for decoded in all_decoded:
        assert count_beyond(array, decoded, relative, absolute) == 0
        if not absolute:
            np.testing.assert_array_equal(np.sign(decoded), np.sign(array))
    for part in (slice(1, None, 2),) * array.ndim, tuple(n // 2 for n in array.shape):
        assert (
            count_beyond(np.atleast_1d(array[part]), np.atleast_1d(decode(stream, part)), relative, absolute)
            == 0
        )


def encoded(array, relative, **others):
    with config.set(refit="allow"):  # arrays of a search are much alike
        return encode(array, Settings(max_relative_error=relative, **{"effort": "fast"} | others))


def decades(shape, dtype, low, high):
    """A field whose magnitudes lie evenly between two powers of ten."""
    field = rough(shape, "f8", noise=2)
    share = (field - field.min()) / np.ptp(field)
    return (10.0 ** (low + share * (high - low))).astype(dtype)


@st.composite
def fields(draw):
    """Arrays of any dtype: so many decades, with zeros, both signs, NaN and infinities."""
    dtype = np.dtype(draw(st.sampled_from("<>")) + draw(st.sampled_from(DTYPES)))
    shape = draw(st.sampled_from([(300,), (13, 17), (5, 7, 9), (3, 4, 1, 5, 6)]))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        least, most = math.log10(float(limits.smallest_subnormal)), math.log10(float(limits.max)) - 0.01
        low = draw(st.sampled_from([least, math.log10(float(limits.tiny)), -2.0]))
        high = draw(st.sampled_from([low + 0.5, low + 3, 1.0, most]))
    else:
        low, most = 0.0, math.log10(np.iinfo(dtype).max)
        high = draw(st.sampled_from([1.0, most - 0.3, most]))
    low, high = min(low, high), min(max(low, high), most)
    field = smooth(shape, "f8") + rng.normal(0, draw(st.sampled_from([0.0, 3.0, 30.0])), shape)
    share = (field - field.min()) / (np.ptp(field) or 1)
    with np.errstate(over="ignore"):
        values = np.minimum(10.0 ** (low + share * (high - low)), float(np.finfo("f8").max))
    if dtype.kind == "f":
        values = np.minimum(values, float(np.finfo(dtype).max))
        array = values.astype(dtype)
    else:
        largest = int(np.iinfo(dtype).max)
        array = np.array([min(int(v), largest) for v in values.ravel().tolist()], dtype).reshape(shape)
    if draw(st.booleans()) and dtype.kind != "u":
        array = np.where(rng.random(shape) < draw(st.sampled_from([0.02, 0.5])), -array, array).astype(dtype)
    if draw(st.booleans()):
        array[rng.random(shape) < draw(st.sampled_from([0.02, 0.6]))] = 0
    if dtype.kind == "f" and draw(st.booleans()):
        array[rng.random(shape) < 0.05] = np.nan
        array.flat[3] = np.inf
    return np.asarray(array, order=draw(st.sampled_from("CF")))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(fields(), st.sampled_from([0.5, 0.05, 1e-2, 1e-3, 1e-5]))
def test_any_dtype_range_sign_and_zero(array, relative):
    stream = encoded(array, relative)
    assert_same_parts(stream)
    assert_keeps(array, stream, relative)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(fields(), st.sampled_from([0.05, 1e-3]), st.sampled_from([1e-3, 0.3, 0.9]))
def test_any_dtype_beside_an_absolute_bound(array, relative, place):
    magnitudes = np.abs(array[np.isfinite(array)].astype("f8"))
    absolute = relative * float(np.quantile(magnitudes, place)) or 0.5
    assert_keeps(array, encoded(array, relative, max_error=absolute), relative, absolute)


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_field_over_decades_is_fitted(dtype):
    """Neither exact nor bounded by its smallest value, which would take most of the bytes."""
    array = decades((12, 30, 31), dtype, -3 if dtype == "f2" else -30, 3)
    stream = encoded(array, 0.01)
    assert inspect(stream).kind == "transform"
    assert len(stream) < array.size * 1.4
    assert_keeps(array, stream, 0.01)
    assert_quality_is_stored(array, stream, decode(stream))


def test_zeros_and_signs_are_kept_exactly():
    array = decades((12, 30, 31), "f4", -5, 2)
    array[:, 10:20, :7] = 0
    array[:, :, 15:] *= -1
    stream = encoded(array, 0.02)
    parts = open_stream(stream)
    (zeros,) = parts.exact_values
    np.testing.assert_array_equal(zeros.mask, array == 0)
    assert parts.scaled.signs is not None
    assert_keeps(array, stream, 0.02)
    assert open_stream(encoded(np.abs(array), 0.02)).scaled.signs is None
    assert open_stream(encoded(np.abs(array) + np.float32(1), 0.02)).exact_values == []


def test_masked_values_and_padding_stay_exact():
    array = decades((12, 20, 24), "f4", -4, 4)
    array[9:], array[:, :, 20:] = np.nan, np.nan
    array[2:4, 5:9], array[0, 0, :3], array[5, 1] = -999, np.inf, 0
    stream = encoded(array, 0.03, missing=-999)
    assert "box" in inspect(stream).sections
    valid = array != -999
    decoded = decode(stream)
    np.testing.assert_array_equal(decoded == -999, ~valid)
    assert count_beyond(array[valid], decoded[valid], 0.03) == 0


@pytest.mark.parametrize("dtype", ["f4", "i4", "i8"])
def test_no_value_becomes_a_sentinel_among_them(dtype):
    array = np.rint(decades((12, 20, 24), "f8", 2, 5)).astype(dtype)
    array[array == 1000] = 1001
    valid = np.ones(array.shape, bool)
    valid[3:5, 4:8] = False
    array[~valid] = 1000
    stream = encoded(array, 0.01, missing=1000)
    assert inspect(stream).kind == "transform"
    decoded = decode(stream)
    np.testing.assert_array_equal(decoded == 1000, ~valid)
    assert count_beyond(array, decoded, 0.01) == 0
    assert_agrees(stream, decoded, reference_decoder.decode(stream).array)


def test_magnitudes_up_to_the_absolute_bound_may_become_zero():
    """A field that crosses zero takes fewer bytes than one whose every sign counts."""
    array = (rough((12, 30, 31), noise=3) - 40).astype("f4")
    stream = encoded(array, 0.01, max_error=0.2)
    assert_keeps(array, stream, 0.01, 0.2)
    assert len(stream) < 0.8 * len(encoded(array, 0.01))
    assert open_stream(stream).scaled.signs is None
    info = inspect(stream)
    assert (info.relative_bound, info.relative_bound * info.knee) == (0.01, pytest.approx(0.2))


def test_a_bound_beside_a_tiny_one():
    """What lies far beyond the knee of the scale is not divided by it."""
    array = np.full((4, 5, 60), 100, "f4") + np.arange(60, dtype="f4")
    codec = MoECCodec(max_relative_error=1e-3, max_error=5e-324, effort="fast")
    assert count_beyond(array, codec.decode(codec.encode(array)), 1e-3) == 0


def test_bounds_beyond_the_largest_number():
    array = decades((6, 12, 14), "f8", 306, 308.2)
    assert_keeps(array, encoded(array, 0.7), 0.7)
    array[:, 3:6] *= -1
    assert_keeps(array, encoded(array, 0.5, missing=-1e308), 0.5)


@pytest.mark.parametrize("relative", [0.0, 0.004])
def test_integers_that_leave_no_room_are_exact(relative):
    array = rough(SHAPE, "u1", noise=20)
    stream = encoded(array, relative)
    np.testing.assert_array_equal(decode(stream), array)
    assert inspect(stream).psnr == math.inf


def test_bytes_fall_as_the_bound_grows():
    array = decades((16, 24, 24), "f4", -6, 0)
    sizes = [len(encoded(array, relative)) for relative in (1e-3, 1e-2, 0.1)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 3


@pytest.mark.usefixtures("fitted", "wrong_corrections")
def test_the_encoder_checks_what_it_wrote():
    """Corrections that are left out, or one too many, are found: the chunk is stored exactly."""
    array = decades(SHAPE, "f4", -3, 3)
    np.testing.assert_array_equal(decode(encoded(array, 0.02)), array)


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize("relative", [0.01, 3e-7])
def test_the_tolerance_is_that_of_the_format(relative):
    """Whatever a decoder adds within the tolerance, the bound is kept; nor is more than that left."""
    array = decades((12, 14, 16), "f8", -2, 2)
    stream = encoded(array, relative)
    reference = reference_decoder.decode(stream)
    error = np.abs(np.log(reference.array / array))
    inner = (reference.array > reference.low) & (reference.array < reference.high)
    tolerance = 2.0**-27 * reference.scale.half
    assert math.log1p(relative) - 2 * tolerance - 1e-3 * relative < error[inner].max()
    assert error[inner].max() <= math.log1p(relative) - 0.999 * tolerance


@pytest.mark.torch
def test_a_network_keeps_the_bound():
    array = decades((16, 17, 18), "f4", -1, 0)
    stream = encoded(array, 0.1, experts=2)
    assert inspect(stream).kind == "model"
    assert_keeps(array, stream, 0.1)


def test_what_a_stream_says_of_its_errors():
    array = decades((12, 20, 24), "f4", -6, 2)
    array[:, :5] = 0
    stream = encoded(array, 0.05)
    decoded, positive = decode(stream).astype("f8"), array > 0
    info, scaled = inspect(stream), open_stream(stream).scaled
    largest = np.max(np.abs(decoded - array)[positive] / array[positive])
    assert largest <= scaled.error <= 1.01 * largest
    logs, errors = np.log(array[positive].astype("f8")), np.log(decoded[positive] / array[positive])
    assert scaled.psnr == pytest.approx(10 * math.log10(np.ptp(logs) ** 2 / np.mean(errors**2)), abs=0.011)
    assert info.relative_bound == 0.05
    assert info.bound is None
    assert info.max_relative_error == scaled.error


@pytest.mark.parametrize("decibels", [30, 45, 110])
def test_a_psnr_of_logarithms(decibels):
    array = decades((12, 20, 24), "f4", -20, 2)
    array[3, :5] = 0
    stream = encode(array, Settings(psnr=decibels, scale="log", effort="fast"))
    decoded = decode(stream).astype("f8")
    np.testing.assert_array_equal(decoded == 0, array == 0)
    logs, errors = (
        np.log(x[array > 0].astype("f8")) for x in (array, decoded / np.where(array == 0, 1, array))
    )
    assert 10 * math.log10(np.ptp(logs) ** 2 / np.mean(errors**2)) >= decibels
    assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)


def test_a_ratio_of_logarithms_serves_small_values():
    """Over 22 decades the linear scale sees the largest values alone."""
    array = decades((12, 20, 24), "f4", -20, 2)
    array[3, :5] = 0
    errors = {}
    for scale in "linear", "log":
        stream = encode(array, Settings(ratio=20, scale=scale, effort="fast"))
        assert len(stream) <= array.nbytes / 20
        decoded = decode(stream).astype("f8")
        errors[scale] = np.median(np.abs(decoded - array)[array > 0] / array[array > 0])
    np.testing.assert_array_equal(decoded == 0, array == 0)
    assert errors["log"] < 0.5
    assert errors["linear"] > 0.9


def test_a_ratio_that_signs_leave_no_room_for():
    rng = np.random.default_rng(0)
    array = (decades((12, 20, 24), "f4", -3, 2) * rng.choice([-1, 1], (12, 20, 24))).astype("f4")
    with pytest.raises(BudgetError, match="exact values and signs"):
        encode(array, Settings(ratio=200, scale="log", effort="fast"))


@pytest.mark.parametrize(
    ("asked", "value", "missed"),
    [
        ({"max_relative_error": 0.01}, 2e-6 * 1.009, None),
        ({"max_relative_error": 0.01}, 2e-6 * 1.011, "0.011"),
        ({"max_relative_error": 0.01}, 0.0, "1 of a value"),
        ({"max_relative_error": 0.01}, -2e-6, "2 of a value"),
        ({"max_relative_error": 0.01, "max_error": 1e-6}, 1.1e-6, None),
        ({"max_relative_error": 0.01, "max_error": 1e-6}, 3.1e-6, "error"),
        ({"psnr": 70, "scale": "log"}, 2e-6 * 1.01, None),
        ({"psnr": 70, "scale": "log"}, 4e-6, "dB"),
        ({"psnr": 70}, 4e-6, None),
    ],
)
def test_what_missed_its_target(asked, value, missed):
    """A single small value that reads back as another: the linear scale does not see it."""
    array = decades((12, 20, 24), "f8", -6, 2)
    array[2, 3, 4], array[0, 0, 0] = 2e-6, 0
    decoded = array.copy()
    decoded[2, 3, 4] = value
    found = find_missed(Settings(**asked), array, decoded, measure(array, decoded))
    assert (found is None) == (missed is None)
    assert missed is None or missed in found


def test_settings_go_together():
    stored = MoECCodec(max_error=1, max_relative_error=0.01).get_config()
    assert stored == {"id": "moec", "max_error": 1, "max_relative_error": 0.01}
    for wrong in (
        {"max_relative_error": 1.0}, {"max_relative_error": -0.1}, {"max_relative_error": 0.1, "psnr": 40},
        {"max_relative_error": 0.1, "scale": "log"}, {"ratio": 10, "scale": "lin"},
    ):  # fmt: skip
        with pytest.raises(MoECError, match="got"):
            Settings(**wrong)
