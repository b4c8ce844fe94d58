"""An absolute error is kept: every dtype, layout and masked value, whole and in parts, by every decoder."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec_zarr import inspect
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.model.residual import NETWORK_TOLERANCE, TOLERANCE
from moec_zarr.runtime import is_installed
from moec_zarr.settings import Settings
from tests.codec.checks import assert_quality_is_stored
from tests.conformance import reference_decoder
from tests.support.fields import REAL_FIELDS, rough, smooth

SHAPE = (9, 14, 17)
DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


def largest_error(array, decoded, valid=None):
    """In exact arithmetic."""
    valid = np.ones(array.shape, bool) if valid is None else valid
    pairs = zip(array[valid].tolist(), decoded[valid].tolist(), strict=True)
    return max((abs(Fraction(a) - Fraction(b)) for a, b in pairs), default=Fraction(0))


def assert_keeps(array, stream, bound, valid=None):
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
        assert largest_error(array, decoded, valid) <= Fraction(bound)
        if valid is not None:
            np.testing.assert_array_equal(decoded[~valid], array[~valid])
    parts = [(slice(1, None, 2),) * array.ndim, tuple(n // 2 for n in array.shape)]
    for part in parts:
        own = None if valid is None else np.atleast_1d(valid[part])
        original, decoded = np.atleast_1d(array[part]), np.atleast_1d(decode(stream, part))
        assert largest_error(original, decoded, own) <= Fraction(bound)


def encoded(array, bound, **others):
    return encode(array, Settings(max_error=bound, **{"effort": "fast"} | others))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.sampled_from(DTYPES),
    st.sampled_from("<>"),
    st.sampled_from([(300,), (13, 17), (5, 7, 9), (3, 4, 1, 5, 6)]),
    st.sampled_from(["C", "F"]),
    st.sampled_from([0.3, 0.03, 0.003]),
    st.sampled_from([0, 2**7]),
)
def test_any_dtype_and_shape(dtype, byte_order, shape, order, share, offset):
    scale = 100 if np.dtype(dtype).kind == "f" else min(np.iinfo(dtype).max / 2.5, 1e15)
    array = (rough(shape, "f8", noise=5) / 120 * scale + offset / 128 * scale).astype(byte_order + dtype)
    array = np.asarray(array, order=order)
    bound = share * (float(array.max()) - float(array.min()))
    stream = encoded(array, bound)
    assert_keeps(array, stream, bound)
    assert_quality_is_stored(array, stream, decode(stream))


def test_masked_values_stay_exact():
    array = rough(SHAPE, "f4", noise=5)
    array[2:5, 3:9] = np.nan
    array[0, 0, :5] = np.inf
    array[6:, 10:, 3] = -999
    valid = np.isfinite(array) & (array != -999)
    stream = encoded(array, 3.0, missing=-999)
    assert_keeps(array, stream, 3.0, valid)
    assert {"mask", "residual", "transform"} <= inspect(stream).sections.keys()


def test_padding_is_kept_exactly():
    array = np.full((12, 16, 24), np.nan, "f4")
    array[:9, :14, :17] = rough(SHAPE, noise=5)
    stream = encoded(array, 3.0)
    assert_keeps(array, stream, 3.0, np.isfinite(array))
    assert "box" in inspect(stream).sections


def test_bytes_fall_as_the_bound_grows():
    array = rough((16, 24, 24), noise=2)
    sizes = [len(encoded(array, bound)) for bound in (0.5, 2.0, 8.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 5
    assert sizes[0] < array.nbytes / 4


@pytest.mark.torch
def test_more_effort_never_takes_more_bytes():
    array = smooth((8, 9, 10))
    fast, balanced = encoded(array, 9.0), encoded(array, 9.0, effort="balanced")
    assert len(balanced) <= len(fast)
    assert largest_error(array, decode(balanced)) <= 9


@pytest.mark.torch
def test_a_network_keeps_the_bound():
    array = rough((16, 17, 18), noise=1)
    for experts in 1, 2:
        stream = encoded(array, 9.0, experts=experts)
        assert inspect(stream).kind == "model"
        assert_keeps(array, stream, 9.0)


def test_axes_that_are_folded():
    array = (np.cumsum(np.random.default_rng(1).normal(size=5000)) + 50).astype("f4")
    stream = encoded(array, 4.0)
    assert largest_error(array, decode(stream)) <= 4
    assert len(stream) < array.nbytes / 20


def test_a_bound_of_zero_is_lossless():
    integers = rough(SHAPE, "i2", noise=3)
    for array in rough(SHAPE, "f8"), integers:
        stream = encoded(array, 0)
        np.testing.assert_array_equal(decode(stream), array)
        assert inspect(stream).psnr == math.inf
    # Corrections are smaller than deflated bytes, though both are exact.
    assert inspect(encoded(integers, 0.99)).kind == "transform"
    np.testing.assert_array_equal(decode(encoded(integers, 0.99)), integers)


def test_a_bound_beyond_the_range_takes_a_header():
    array = rough(SHAPE)
    stream = encoded(array, 1e6)
    assert len(stream) < 60
    assert_keeps(array, stream, 1e6)


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize(
    ("dtype", "offset", "scale", "bound"),
    [
        ("f4", 1e6, 1.0, 0.04), ("f4", 1e6, 1.0, 0.1), ("f8", 1e9, 1e-3, 1e-5), ("f8", -1e9, 1e-3, 1e-7),
        ("f4", 0.0, 1e-38, 1e-39), ("f8", 0.0, 1e306, 1e304), ("i8", 2**60, 5000, 100),
        ("u8", 2**63, 2000, 3), ("i4", -(2**30), 1.5e9, 10**6), ("f2", 1000.0, 60.0, 1.5),
    ],
)  # fmt: skip
def test_values_that_the_dtype_rounds(dtype, offset, scale, bound):
    """Far from zero, next to the smallest and the largest numbers: the rounding is a part of the error."""
    field = rough(SHAPE, "f8", noise=5) / 100 * scale
    array = np.array(offset, dtype) + (field if dtype[0] == "f" else np.rint(field - field.min())).astype(
        dtype
    )
    stream = encoded(array, bound)
    assert_keeps(array, stream, bound)
    if dtype[0] == "f":
        assert np.abs(array - decode(stream)).max() <= bound  # in the dtype's own arithmetic
        if bound >= np.spacing(np.abs(array).max()):  # else only exact values may do
            assert inspect(stream).kind == "transform"


def test_fine_bounds_take_double_precision():
    """Single precision is off by more than so fine a bound leaves room for."""
    array = smooth((12, 14, 16), "f8")
    stream = encoded(array, 6e-5)
    assert inspect(stream).kind == "transform"
    assert_keeps(array, stream, 6e-5)


def test_bounds_beyond_what_coefficients_hold():
    """The largest coefficient has no room for so small a step: corrections take the rest."""
    array = smooth((12, 14, 16), "f8")
    for bound in 1e-6, 2e-5:
        stream = encoded(array, bound)
        assert len(stream) < array.nbytes / 7
        assert_keeps(array, stream, bound)


@pytest.mark.usefixtures("fitted", "wrong_corrections")
def test_the_encoder_checks_what_it_wrote():
    """Corrections that are left out, or one too many, are found: the chunk is stored exactly."""
    array = rough(SHAPE, noise=5)
    stream = encoded(array, 4.0)
    assert inspect(stream).kind == "lossless"
    np.testing.assert_array_equal(decode(stream), array)


@pytest.mark.usefixtures("fitted")
@pytest.mark.torch
def test_corrections_leave_room_for_the_tolerance():
    """Whatever a decoder adds within the tolerance, the bound is kept."""
    array = rough(SHAPE, "f8", noise=5)
    for others, tolerance in ({}, TOLERANCE), ({"experts": 1}, NETWORK_TOLERANCE):
        stream = encoded(array, 4.0, **others)
        reference = reference_decoder.decode(stream)
        half = (reference.high - reference.low) / 2
        error = np.abs(array - reference.array)
        inner = (reference.array > reference.low) & (reference.array < reference.high)
        assert error[inner].max() <= 4.0 - tolerance * half * 0.999
        assert error.max() > 3.0  # nor is more than that left


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize(
    ("bound", "others", "tolerance"),
    [
        (1.2e-6, {}, 2.0**-27),
        pytest.param(1e-3, {"experts": 1}, 1e-4, marks=pytest.mark.torch),
    ],
)
def test_the_tolerance_is_that_of_the_format(bound, others, tolerance):
    """So fine a bound that many values would lie within the tolerance of it."""
    array = smooth((12, 14, 16), "f8")
    half = float(np.ptp(array)) / 2
    reference = reference_decoder.decode(encoded(array, bound * half, **others))
    inner = (reference.array > reference.low) & (reference.array < reference.high)
    error = np.abs(array - reference.array)[inner].max() / half
    assert 0.9 * bound - 2 * tolerance < error <= bound - 0.999 * tolerance


def test_the_bound_is_on_record():
    array = rough(SHAPE)
    info = inspect(encoded(array, 4.0))
    assert info.bound == 4.0
    assert 3.0 < info.max_error <= 4.0
    assert inspect(encode(array, Settings(ratio=20, effort="fast"))).bound is None


@pytest.mark.parametrize("name", ["um_xwind_4d", "cmip6_siconc_nan_3d", "ct_chest_3d"])
def test_a_crop_of_a_real_field(name):
    path = REAL_FIELDS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    with np.load(path) as archive:
        array = archive[archive.files[0]]
    crop = array[tuple(slice(n // 2 - min(n, 16) // 2, n // 2 + min(n, 16) // 2) for n in array.shape)]
    valid = np.isfinite(crop)
    for share in 0.1, 0.001:
        bound = share * (float(crop[valid].max()) - float(crop[valid].min()))
        stream = encoded(crop, bound)
        assert largest_error(crop, decode(stream), valid) <= Fraction(bound)


def test_what_is_all_within_the_bound_takes_no_more_than_its_middle():
    """Values of which every coefficient is zero at the bound: nothing is stored but the bound."""
    values = np.random.default_rng(0).integers(-32768, -32268, (2, 700)).astype(np.int16)
    stream = encode(values, Settings(max_relative_error=0.3, max_error=0.05, effort="fast"))
    assert len(stream) < 100
    decoded = decode(stream).astype(float)
    assert (np.abs(decoded - values) <= 0.3 * np.abs(values.astype(float))).all()
