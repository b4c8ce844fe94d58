"""Errors and PSNR, against exact arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr.quality import Quality, absolute_error, keeps, measure, merge
from tests.support.strategies import FEW

DTYPES = ["i1", "u1", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def exact_errors(original, decoded):
    return [abs(Fraction(a) - Fraction(b)) for a, b in zip(original.tolist(), decoded.tolist(), strict=True)]


def square_root(value: Fraction) -> float:
    return float(_decimal(value).sqrt())


def assert_exact(quality, original, decoded, rel=1e-12):
    """Every number is that of exact arithmetic, rounded to double precision."""
    errors = exact_errors(original, decoded)
    mean_square = sum(error**2 for error in errors) / len(errors)
    assert quality.n_valid == len(errors)
    assert (quality.low, quality.high) == (min(original.tolist()), max(original.tolist()))
    assert quality.max_error == pytest.approx(float(max(errors)), rel=rel, abs=0)
    assert quality.rmse == pytest.approx(square_root(mean_square), rel=rel, abs=0)
    width = Fraction(quality.high) - Fraction(quality.low)
    if mean_square and width:
        expected = 10 * _decimal(width**2 / mean_square).log10()
        assert quality.psnr == pytest.approx(float(expected), abs=1e-9)
        assert quality.relative_max_error == pytest.approx(float(max(errors) / width), rel=1e-9)


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


@pytest.mark.parametrize(
    ("dtype", "original", "decoded"),
    [
        ("i8", [2**60 + 1, 2**60 + 5, 2**60 + 1000], [2**60 + 2, 2**60 + 5, 2**60 + 993]),
        ("i8", [-(2**63), 0, 2**63 - 1], [2**63 - 1, 1, -(2**63)]),
        ("u8", [2**64 - 1, 2**64 - 3, 2**64 - 1000], [2**64 - 2, 2**64 - 3, 2**64 - 1]),
        ("u8", [0, 2**64 - 1], [2**64 - 1, 0]),
        ("i1", [-128, 127], [127, -128]),
        ("f8", [1e9 + 1e-3, 1e9 + 2e-3, 1e9 + 7e-3], [1e9 + 1.5e-3, 1e9 + 2e-3, 1e9 + 6e-3]),
        ("f8", [-1.7e308, 1.7e308, 0.0], [-1.6e308, 1.7e308, 1e307]),
        ("f8", [1e-300, 3e-300], [2e-300, 3e-300]),
        ("f4", [16777216.0, 16777218.0], [16777218.0, 16777218.0]),
    ],
)
def test_measure_is_exact_at_large_offsets(dtype, original, decoded):
    original, decoded = np.array(original, dtype), np.array(decoded, dtype)
    assert_exact(measure(original, decoded), original, decoded)


def values_of(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return st.integers(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    limit = float(np.finfo(dtype).max) / 4
    smallest = 1e-6 if dtype.itemsize == 2 else 1e-30
    finite = st.floats(-limit, limit, width=8 * dtype.itemsize)
    return finite.map(lambda x: 0.0 if abs(x) < smallest else x)


@st.composite
def pairs(draw, max_size=12):
    """Two arrays of one shape and dtype."""
    dtype = draw(st.sampled_from(DTYPES))
    both = draw(st.lists(st.tuples(values_of(dtype), values_of(dtype)), min_size=1, max_size=max_size))
    original, decoded = zip(*both, strict=True)
    return np.array(original, dtype), np.array(decoded, dtype)


@FEW
@given(pairs())
def test_measure_matches_exact_arithmetic(pair):
    assert_exact(measure(*pair), *pair)


@FEW
@given(pairs())
def test_absolute_error_matches_exact_arithmetic(pair):
    errors = absolute_error(*pair)
    assert errors.dtype == np.float64
    for error, exact in zip(errors.tolist(), exact_errors(*pair), strict=True):
        assert error == pytest.approx(float(exact), rel=1e-15, abs=0)


@FEW
@given(pairs(), st.lists(st.integers(0, 12), max_size=4))
def test_merged_parts_equal_the_whole(pair, cuts):
    original, decoded = pair
    parts = zip(np.split(original, sorted(cuts)), np.split(decoded, sorted(cuts)), strict=True)
    merged, whole = merge(measure(*part) for part in parts), measure(original, decoded)
    assert (merged.n, merged.n_valid) == (whole.n, whole.n_valid)
    assert (merged.low, merged.high, merged.max_error) == (whole.low, whole.high, whole.max_error)
    assert merged.rmse == pytest.approx(whole.rmse, rel=1e-12, abs=0)
    assert merged.psnr == pytest.approx(whole.psnr, abs=1e-9)


@FEW
@given(pairs(), st.integers(0, 2**12 - 1), st.lists(st.integers(0, 12), max_size=3))
def test_only_valid_voxels_count(pair, bits, cuts):
    """In parts as in the whole, though some parts may have no valid voxel."""
    original, decoded = pair
    valid = np.array([bits >> place & 1 for place in range(len(original))], bool)
    quality = measure(original, decoded, valid)
    assert quality.n == len(original)
    if valid.any():
        assert_exact(quality, original[valid], decoded[valid])
    else:
        assert quality == Quality(n=len(original))
    parts = zip(*(np.split(array, sorted(cuts)) for array in (original, decoded, valid)), strict=True)
    merged = merge(measure(*part) for part in parts)
    assert (merged.n, merged.n_valid) == (quality.n, quality.n_valid)
    assert (merged.low, merged.high, merged.max_error) == (quality.low, quality.high, quality.max_error)
    assert merged.rmse == pytest.approx(quality.rmse, rel=1e-12, abs=0)


@FEW
@given(pairs(), st.booleans())
def test_keeps_compares_exactly(pair, at_the_error):
    """With the largest error as the bound, which doubles of integers may miss, and next to it."""
    largest = max(exact_errors(*pair))
    bound = float(largest) if at_the_error else math.nextafter(float(largest), 0)
    if pair[0].dtype.kind in "iu":
        assert keeps(*pair, None, bound) == (Fraction(bound) >= largest)
    elif largest:  # differences of floats are rounded
        assert not keeps(*pair, None, float(largest) * (1 - 2**-9))
        assert keeps(*pair, None, float(largest) * (1 + 2**-9))
    outside = np.zeros(len(pair[0]), bool)
    assert keeps(*pair, outside, 0.0)


def test_merge_weighs_parts_by_their_voxels():
    """Of squares 4 three times and 16 once, the mean is 7."""
    one = Quality(n=5, n_valid=3, low=-1, high=3, rmse=2.0, max_error=2.0)
    other = Quality(n=1, n_valid=1, low=0, high=9, rmse=4.0, max_error=4.0)
    merged = merge([one, Quality(n=2), other])
    expected = Quality(n=8, n_valid=4, low=-1, high=9, rmse=merged.rmse, max_error=4.0)
    assert merged == expected
    assert merged.rmse == pytest.approx(math.sqrt(7))


def test_nothing_to_measure():
    nothing = np.zeros((0, 3), "f4")
    assert measure(nothing, nothing) == merge([]) == Quality()
    assert Quality().psnr == math.inf
    assert Quality().relative_max_error == 0


def test_exact_values_have_infinite_psnr():
    array = np.array([1.0, 2.0])
    quality = measure(array, array)
    assert (quality.rmse, quality.max_error, quality.relative_max_error) == (0, 0, 0)
    assert quality.psnr == math.inf


def test_errors_of_a_constant_are_infinitely_large():
    quality = measure(np.array([3, 3]), np.array([3, 4]))
    assert quality.psnr == -math.inf
    assert quality.relative_max_error == math.inf
    assert quality.rmse == pytest.approx(math.sqrt(0.5))


def test_mixed_dtypes_are_compared_in_double_precision():
    original, decoded = np.array([1, 2, 300], "i4"), np.array([1.5, 2.0, 299.0], "f4")
    quality = measure(original, decoded)
    assert quality.max_error == 1.0
    assert quality.rmse == pytest.approx(math.sqrt((0.25 + 1) / 3))
