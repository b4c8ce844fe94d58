"""Tiny chunks of all dtypes, up to the ends of these, at all targets: kept or refused, without a warning.

What is asked for is checked with Python's own numbers, and with the reference decoder.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moec_zarr import BudgetError, MoECCodec, inspect
from moec_zarr.quality import measure
from tests.conformance import reference_decoder
from tests.support.decoders import assert_agrees

DTYPES = ("i1", ">i2", "i4", "i8", ">i8", "u1", "u2", ">u4", "u8", ">u8", "f2", "f4", ">f8", "f8")
LARGEST = sys.float_info.max


def contents(dtype: str) -> Iterator[NDArray[Any]]:
    """Chunks at the ends of a dtype, of two values, of few voxels, and with hardly any valid one."""
    rng, own = np.random.default_rng(0), np.dtype(dtype)
    yield np.array([0, 1], own)
    yield rng.integers(0, 2, (3, 4)).astype(own)
    if own.kind != "f":
        ends = np.iinfo(own)
        yield rng.integers(ends.min, ends.max, (3, 5, 2), own.newbyteorder("="), endpoint=True).astype(own)
        yield rng.integers(ends.max - 5, ends.max, (4, 6), own.newbyteorder("="), endpoint=True).astype(own)
        yield rng.choice(np.array([ends.min, ends.max], own), (5, 5))
        return
    top = float(np.finfo(own).max)
    yield rng.choice([-top, top, 0.0, 1.0], (3, 5)).astype(own)
    yield (top * (1 - 1e-2 * rng.random((4, 5)))).astype(own)
    yield (rng.integers(0, 5, (4, 5)) * float(np.finfo(own).smallest_subnormal)).astype(own)
    yield (rng.normal(size=(3, 3, 4)) * top**0.5).astype(own)
    yield (1 + rng.normal(size=20) * 3 * float(np.finfo(own).eps)).astype(own)
    hardly = np.full((4, 8, 8), np.nan)
    hardly[0, 0, 0], hardly[3, 7, 7], hardly[1, 1, 1] = 1, 3, np.inf
    yield hardly.astype(own)


def targets(array: NDArray[Any]) -> Iterator[dict[str, float]]:
    yield {"ratio": 1.5}
    yield from ({"psnr": value} for value in (0, 40, 200, 400))
    low, high = extent(array)
    width = min(float(high - low), LARGEST / 2) if high - low < Fraction(LARGEST) else LARGEST / 2
    yield from (
        {"max_error": value} for value in (5e-324, 1.0, 1e154, LARGEST, width / 1000, width / 10, width)
    )


def extent(array: NDArray[Any]) -> tuple[Fraction, Fraction]:
    values = [Fraction(value) for value in array[np.isfinite(array)].tolist()]
    return min(values), max(values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_targets_are_kept_at_the_ends_of_a_dtype(dtype):
    for array in contents(dtype):
        for target in targets(array):
            codec = MoECCodec(effort="fast", **target)
            try:
                stream = codec.encode(array)
            except BudgetError:
                assert "ratio" in target
                continue
            decoded, info = codec.decode(stream), inspect(stream)
            valid = np.isfinite(array)
            np.testing.assert_array_equal(decoded[~valid], array[~valid])
            pairs = zip(array[valid].tolist(), decoded[valid].tolist(), strict=True)
            errors = [abs(Fraction(x) - Fraction(y)) for x, y in pairs]
            assert max(errors) <= target.get("max_error", math.inf)
            assert max(errors) <= info.max_error * (1 + 1e-12), (target, info)
            assert len(stream) <= array.nbytes / target.get("ratio", 1e-9)
            low, high = extent(array)
            mean = sum(error**2 for error in errors) / len(errors)
            if mean:
                share = (high - low) ** 2 / mean
                psnr = 10 * (math.log10(share.numerator) - math.log10(share.denominator))
                assert psnr >= target.get("psnr", 0) - 1e-9
                # A root mean square of a few of the smallest numbers is rounded to one of them.
                assert info.psnr <= psnr + (1e-6 if high - low > 1e-300 else 3.1)
            else:
                assert info.psnr == math.inf
            assert_agrees(stream, decoded, reference_decoder.decode(stream).array)


def test_figures_of_ranges_and_errors_that_halves_cannot_hold():
    tiny = 5e-324
    quality = measure(np.array([0.0, 4 * tiny]), np.array([tiny, 4 * tiny]))
    assert quality.psnr == pytest.approx(10 * math.log10(16 / 0.5), abs=3.1)  # of a whole number of them
    assert quality.relative_max_error == 0.25
    quality = measure(np.array([0.0, tiny]), np.array([tiny, tiny]))
    assert (quality.psnr, quality.relative_max_error) == (pytest.approx(0, abs=0.01), 1)


def test_errors_of_large_integers_in_either_byte_order():
    original = np.array([2**63 - 3, 2**63 - 1], ">i8")
    quality = measure(original, np.array([2**63 - 2, 2**63 - 1], "<i8"))
    assert (quality.max_error, quality.relative_max_error) == (1, 0.5)
