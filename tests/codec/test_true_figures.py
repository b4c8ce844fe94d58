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
from moec_zarr.codec.fidelity import measure_values
from moec_zarr.codec.repeated import Raced
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


@pytest.mark.parametrize(
    ("shape", "dtype", "ratio"),
    [
        ((24, 40, 1, 36), "f4", 60),
        ((70, 64, 64), "f4", 400),
        ((30, 40, 50), "i2", 40),
        ((9, 3000), ">f8", 60),
    ],
    ids=str,
)
def test_values_of_a_fit_are_those_of_a_decoder_to_the_last_bit(shape, dtype, ratio, monkeypatch):
    """Steep edges, which experts restore, cut at one end of the range, so that the mean is put right."""
    z = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    field = np.where(np.hypot(*z[-2:]) < 0.7, 900, 300) * np.maximum(0, 1 - z[0] - z[1] / 3)
    array = (field + rough(shape, "f8", noise=0.1)).clip(0).astype(dtype)
    found = []

    def measured(chunk, values):
        found.append((chunk, values, measure_values(chunk, values)))
        return found[-1][-1]

    monkeypatch.setattr("moec_zarr.codec.encode.measure_values", measured)
    monkeypatch.setattr("moec_zarr.codec.encode.race_repeated", lambda chunk, *_, **__: Raced(chunk))
    decoded = decode(encode(array, Settings(ratio=ratio, effort="fast")))
    [(chunk, values, fidelity)] = found
    everywhere = (slice(None),) * values.ndim
    np.testing.assert_array_equal(chunk.squeezed.restore(everywhere, values).reshape(shape), decoded)
    error = np.abs(decoded.astype("f8") - array.astype("f8"))
    assert fidelity.plain.max_error == error.max()
    assert fidelity.plain.rmse == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-12)
    assert (fidelity.plain.n, fidelity.plain.n_valid) == (array.size, array.size)
