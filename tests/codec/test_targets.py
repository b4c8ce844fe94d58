"""Targets: a ratio is kept, a PSNR is reached, and what cannot be met is refused with what would do."""

import math
import re
import zlib
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from moec_zarr import BudgetError, inspect
from moec_zarr.codec.bounded import Encoded
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.quality import Quality
from moec_zarr.settings import Settings
from tests.support.fields import psnr, rough, smooth
from tests.support.fits import fast


@pytest.mark.parametrize("decibels", [30, 45])
def test_psnr_is_reached(decibels):
    array = smooth((10, 11, 12))
    stream = encode(array, Settings(psnr=decibels, effort="fast"))
    assert psnr(array, decode(stream)) >= decibels
    assert len(stream) < len(zlib.compress(array.tobytes(), 9))


@pytest.mark.parametrize("levels", [20, 40, 80, 160])
def test_psnr_is_reached_where_values_are_rounded(levels):
    """What rounding to integers takes, a few hundredths of a decibel and more, is not left out."""
    array = np.rint(rough((8, 12, 20), noise=3) / 100 * levels).astype("i2")
    for decibels in range(24, 40):
        stream = encode(array, Settings(psnr=decibels, effort="fast"))
        assert psnr(array, decode(stream)) >= decibels


@pytest.mark.torch
@pytest.mark.parametrize(("missed", "kind"), [(0.05, "lossless"), (0.0, "model")])
def test_a_network_that_misses_the_psnr_by_little_is_not_taken(monkeypatch, missed, kind):
    """Whatever its bytes, the fit reaches no more than that."""
    array = rough((8, 12, 20), noise=3)
    network = encode(array, Settings(**fast(array, experts=1)))

    def fit(chunk, settings, room, share):
        rmse = float(np.ptp(array)) * 10 ** (-(40 - missed) / 20)
        low, high = float(array.min()), float(array.max())
        return Encoded(network, Quality(n=array.size, n_valid=array.size, low=low, high=high, rmse=rmse))

    monkeypatch.setattr("moec_zarr.codec.encode._fit", fit)
    assert inspect(encode(array, Settings(psnr=40, effort="fast", experts=1))).kind == kind


@pytest.mark.parametrize(("shape", "noise"), [((10, 30, 30), 2.0), ((40, 50), 0.5), ((12, 20, 30), 20.0)])
def test_a_higher_psnr_takes_more_bytes(shape, noise):
    """None falls back to the lossless stream on the way."""
    array = rough(shape, noise=noise)
    sizes = [len(encode(array, Settings(psnr=decibels, effort="fast"))) for decibels in range(14, 60, 5)]
    for before, after in pairwise(sizes):
        assert before <= 1.03 * after + 30
    assert sizes[0] < 120


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"),
    [("i8", 2**60, 5000), ("i8", -(2**62), 10**6), ("u8", 2**63 + 2**62, 10**5), ("f8", 10**9, 0.001)],
)
def test_values_far_from_zero_are_fitted_and_their_psnr_is_true(dtype, offset, scale):
    field = smooth((10, 11, 12)) * scale
    array = np.array(offset, dtype) + (field if dtype == "f8" else np.rint(field - field.min())).astype(dtype)
    stream = encode(array, Settings(psnr=50, effort="fast"))
    pairs = zip(array.ravel().tolist(), decode(stream).ravel().tolist(), strict=True)
    mean_square = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs) / array.size
    width = Fraction(array.max().item()) - Fraction(array.min().item())
    true = 10 * math.log10(width**2 / mean_square)
    assert len(stream) < array.nbytes / 8
    assert 50 <= true < 51
    assert inspect(stream).psnr == pytest.approx(true, abs=0.011)


def test_a_psnr_that_only_exact_values_reach(caplog):
    """Nothing to warn of: it is what was asked for."""
    array = np.random.default_rng(0).integers(0, 256, (12, 16), "u1")
    array.flat[:2] = 0, 255
    for experts in None, 1:
        encode(array, Settings(psnr=60, effort="fast", experts=experts))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    stream = encode(array, Settings(psnr=60, effort="fast"))
    np.testing.assert_array_equal(decode(stream), array)
    assert len(stream) < array.nbytes + 60


@pytest.mark.parametrize(
    ("shape", "dtype", "ratio", "experts"),
    [
        ((6, 6), "f4", 8, None),
        ((100,), "f4", 9, None),
        ((2, 3, 2, 3, 2), "f4", 11, None),
        pytest.param((8, 9, 10), "f4", 15, 30, marks=pytest.mark.torch),
    ],
)
def test_the_smallest_chunk_in_the_message_suffices(shape, dtype, ratio, experts):
    rng = np.random.default_rng(0)
    asked = Settings(ratio=ratio, effort="fast", experts=experts)
    with pytest.raises(BudgetError) as caught:
        encode(rng.integers(0, 200, shape).astype(dtype), asked)
    (named,) = re.findall(r"for example \(([\d, ]+)\)", str(caught.value))
    enough = tuple(int(n) for n in named.split(",") if n.strip())
    array = rng.integers(0, 200, enough).astype(dtype)
    assert len(encode(array, asked)) <= array.nbytes / ratio
    (count,) = re.findall(r"would do has (\d+) elements", str(caught.value))
    assert int(count) <= array.size
    if len(shape) == 1:
        with pytest.raises(BudgetError):  # less than that would not do
            encode(array[: int(count) - 3], asked)


def test_the_smallest_chunk_for_a_single_value_has_an_axis():
    with pytest.raises(BudgetError, match=r"for example \((\d+),\)") as caught:
        encode(np.array(2.5), Settings(ratio=4, effort="fast"))
    (count,) = re.findall(r"for example \((\d+),\)", str(caught.value))
    encode(np.full(int(count), 2.5), Settings(ratio=4, effort="fast"))


def test_the_seed_decides(stored):
    array, stream = stored
    asked = Settings(**fast(array, experts=2))
    assert encode(array, asked) == stream
    assert encode(array, Settings(**fast(array, experts=2, seed=1))) != stream


def test_the_budget_is_used(stored):
    _, stream = stored
    assert 0.95 * 230 <= len(stream) <= 230


@pytest.mark.parametrize("dtype", ["f4", "i4"])
@pytest.mark.parametrize("shape", [(4, 4, 4), (16, 16), (32, 32)])
@pytest.mark.parametrize("target", [20, 60, 100])
def test_a_single_value_that_differs_keeps_its_psnr(dtype, shape, target):
    """Integers times the step hit it exactly: no error is left to aim by."""
    array = np.zeros(shape, dtype)
    array.flat[1] = 1
    decoded = decode(encode(array, Settings(psnr=target, effort="fast")))
    assert psnr(array, decoded) >= target


def test_extreme_values_are_encoded_without_warnings():
    """Ranges whose squares overflow, values without a next one, NaN of both kinds."""
    wide = np.zeros((7, 7, 6))
    wide.flat[::2], wide.flat[-1] = np.finfo("f8").max, np.finfo("f8").min
    np.testing.assert_array_equal(decode(encode(wide, Settings(psnr=20, effort="fast"))), wide)
    for dtype in "f2", "f4", "f8":
        top = np.array([[np.finfo(dtype).max, 0], [1, 2]], dtype)
        for bound in 0, 0.5:
            error = np.abs(decode(encode(top, Settings(max_error=bound, effort="fast"))) - top)
            assert error.max() <= bound
    anything = np.frombuffer(np.random.default_rng(1).bytes(432), "f4").reshape(3, 2, 2, 3, 3)
    decoded = decode(encode(anything, Settings(psnr=60, effort="fast")))
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(anything))


def test_noise_uses_most_of_a_budget():
    """A slightly coarser step drops all of it, and finer ones did not take it up again."""
    noise = np.random.default_rng(0).standard_normal((48, 40, 40))
    array = (280 + 10 * np.cos(np.indices(noise.shape) / 20).sum(axis=0) + 0.1 * noise).astype("f4")
    sizes = [len(encode(array, Settings(ratio=ratio, effort="fast"))) for ratio in (50, 100, 200)]
    assert all(size * ratio > 0.9 * array.nbytes for size, ratio in zip(sizes, (50, 100, 200), strict=True))


def test_bounds_beyond_any_error_cause_no_warnings():
    array = (1e-20 * np.sin(np.arange(512.0))).reshape(8, 8, 8)
    assert np.isfinite(decode(encode(array, Settings(max_error=1e20, effort="fast")))).all()
    array[3] = 1e20
    decoded = decode(encode(array, Settings(psnr=40, missing=1e20, effort="fast")))
    np.testing.assert_array_equal(decoded[3], array[3])


def test_a_chunk_without_a_value_says_what_it_needs():
    with pytest.raises(BudgetError, match="at least 36 are needed"):
        encode(np.full((2, 3), -999, "f4"), Settings(ratio=2, missing=-999, effort="fast"))
