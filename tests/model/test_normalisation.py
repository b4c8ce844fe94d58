"""The affine map to fitted values and back, against exact arithmetic."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moec_zarr.bitstream.container import DTYPES
from moec_zarr.model.normalisation import Normalisation
from tests.support.strategies import FEW

finite = st.floats(allow_nan=False, allow_infinity=False)


@FEW
@given(finite, finite, st.integers(0, 10))
def test_normalise_maps_the_range_to_one(a, b, shift):
    low, high = sorted((a, b))
    scale = (Fraction(high) - Fraction(low)) / 2
    assume(scale > Fraction(2) ** -900 and scale > Fraction(2) ** -40 * Fraction(max(abs(a), abs(b))))
    normalisation = replace(Normalisation.of_range(low, high), shift=shift)
    assert Fraction(normalisation.scale) == pytest.approx(scale, rel=2**-50)
    values = normalisation.normalise(np.array([low, high, normalisation.centre]))
    assert values.dtype == np.float64
    error = 2.0**-50 * max(abs(a), abs(b)) / normalisation.scale * 2**shift  # of rounding centre and scale
    np.testing.assert_allclose(values, [-(2.0**shift), 2.0**shift, 0], rtol=1e-15, atol=error)


@pytest.mark.parametrize("dtype", DTYPES)
def test_restore_inverts_normalise(dtype):
    """Within the single precision of fitted values, and of integers exactly at both ends."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        array = (rng.normal(size=1000) * 30 + 7).astype(dtype)
    else:
        info = np.iinfo(dtype)
        array = rng.integers(info.min, info.max, 1000, dtype, endpoint=True)
        array[:2] = info.min, info.max
    low, high = array.min(), array.max()
    normalisation = Normalisation.of_range(low, high)
    fitted = normalisation.normalise(array).astype(np.float32)
    restored = normalisation.restore(fitted, np.dtype(dtype).newbyteorder(">"), low, high)
    assert restored.dtype == np.dtype(dtype)
    width = int(high) - int(low) if array.dtype.kind in "iu" else float(high) - float(low)
    rounding = float(np.finfo(dtype).eps) if array.dtype.kind == "f" else 0
    for value, original in zip(restored.tolist(), array.tolist(), strict=True):
        bound = Fraction(width) * Fraction(2) ** -24 + Fraction(rounding) * Fraction(abs(original))
        bound += Fraction(1, 2) if array.dtype.kind in "iu" else 0
        assert abs(Fraction(value) - Fraction(original)) <= bound
    if array.dtype.kind in "iu":
        assert restored[array.argmin()] == low
        assert restored[array.argmax()] == high


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("i8", -(2**63), 2**63 - 1),
        ("i8", 2**62 + 1, 2**62 + 2**12),
        ("u8", 0, 2**64 - 1),
        ("u8", 2**64 - 2**14, 2**64 - 1),
        ("i2", -500, 500),
        ("f4", -1.5, 2.25),
        ("f8", -1.7e308, 1.7e308),
    ],
)
def test_restore_clips_to_the_range(dtype, low, high):
    low, high = np.dtype(dtype).type(low), np.dtype(dtype).type(high)
    normalisation = Normalisation.of_range(low, high)
    beyond = np.array([-3e38, -1.01, -1, 1, 1.01, 3e38], np.float32)
    restored = normalisation.restore(beyond, np.dtype(dtype), low, high)
    assert restored.tolist() == [low.item()] * 3 + [high.item()] * 3


def test_restore_rounds_integers_to_nearest():
    low, high = np.int16(0), np.int16(10)
    values = np.array([-1.0, -0.91, -0.89, 0.09, 0.11, 1.0], np.float32)  # 0, 0.45, 0.55, 5.45, 5.55, 10
    restored = Normalisation.of_range(low, high).restore(values, np.dtype("i2"), low, high)
    assert restored.tolist() == [0, 0, 1, 5, 6, 10]


def test_constant_range_has_a_positive_scale():
    normalisation = Normalisation.of_range(3.0, 3.0)
    assert normalisation.scale > 0
    assert normalisation.normalise(np.array([3.0])).tolist() == [0.0]
