"""Targets: a ratio is kept, a PSNR is reached, and what cannot be met is refused with what would do."""

import re
import zlib

import numpy as np
import pytest

from moec_zarr import BudgetError
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
from tests.support.fields import psnr, smooth
from tests.support.fits import fast


@pytest.mark.parametrize("decibels", [30, 45])
def test_psnr_is_reached(decibels):
    array = smooth((10, 11, 12))
    stream = encode(array, Settings(psnr=decibels, effort="fast"))
    assert psnr(array, decode(stream)) >= decibels
    assert len(stream) < len(zlib.compress(array.tobytes(), 9))


def test_a_psnr_that_only_exact_values_reach():
    array = np.random.default_rng(0).integers(0, 256, (20, 26), "u1")
    stream = encode(array, Settings(psnr=60, effort="fast"))
    np.testing.assert_array_equal(decode(stream), array)
    assert len(stream) < array.nbytes + 60


@pytest.mark.parametrize(
    ("shape", "dtype", "ratio", "experts"),
    [
        ((6, 6), "f4", 8, None),
        ((100,), "f4", 9, None),
        ((2, 3, 2, 3, 2), "f4", 11, None),
        ((8, 9, 10), "f4", 15, 30),
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


def test_the_seed_decides(stored):
    array, stream = stored
    asked = Settings(**fast(array, experts=2))
    assert encode(array, asked) == stream
    assert encode(array, Settings(**fast(array, experts=2, seed=1))) != stream


def test_the_budget_is_used(stored):
    _, stream = stored
    assert 0.95 * 230 <= len(stream) <= 230
