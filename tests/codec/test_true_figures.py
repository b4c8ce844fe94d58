"""The quality that a stream states is true to exact arithmetic, whatever offset, range and dtype."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
from tests.conformance import reference_decoder
from tests.support.fields import rough

SHAPE = (6, 9, 11)


def far_from_zero(dtype, offset, scale):
    """A rough field: `scale` and `offset` are shares of what the dtype holds, the first in its logarithm."""
    field = rough(SHAPE, "f8", noise=5)
    field = (field - field.min()) / np.ptp(field)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        base, width = 10.0 ** (9 * offset), 10.0 ** (12 * scale - 6)
        width = max(width, base * float(np.finfo(dtype).eps) * 1000)
        return (base + width * field).astype(dtype)
    info = np.iinfo(dtype)
    width = max(50, int(2 ** ((info.bits - 2) * scale)))
    low = int(info.min) + int((int(info.max) - int(info.min) - width) * offset)
    return np.array(low, dtype) + np.rint(width * field).astype(dtype)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from(["i1", "u2", "i4", "i8", "u8", "f4", "f8"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([{"psnr": 38}, {"ratio": 9}, {"max_error": 0.04}]),
)
def test_quality_is_true(dtype, offset, scale, target):
    array = far_from_zero(dtype, offset, scale)
    width = Fraction(array.max().item()) - Fraction(array.min().item())
    if "max_error" in target:
        target = {"max_error": target["max_error"] * float(width)}
    stream = encode(array, Settings(effort="fast", **target))
    pairs = zip(array.ravel().tolist(), decode(stream).ravel().tolist(), strict=True)
    errors = [abs(Fraction(a) - Fraction(b)) for a, b in pairs]
    header = reference_decoder.decode(stream)
    mean_square = sum(error**2 for error in errors) / len(errors)
    if not mean_square:
        assert header.psnr == math.inf
        return
    ratio = width**2 / mean_square
    psnr = 10 * float((Decimal(ratio.numerator) / Decimal(ratio.denominator)).log10())
    assert header.psnr == pytest.approx(psnr - 0.005, abs=0.0061)
    largest = float(max(errors) / width)
    assert largest * (1 - 1e-9) <= header.max_error <= largest * (1 + 2**-7)
    if "psnr" in target:
        assert psnr >= target["psnr"]
    if "max_error" in target:
        assert max(errors) <= Fraction(target["max_error"])
