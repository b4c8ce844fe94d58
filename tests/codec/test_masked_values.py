"""Values that are kept exactly, and ranges at the ends of a dtype."""

import numpy as np
import pytest

from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
from tests.codec.checks import FLOOR, assert_quality_is_stored
from tests.codec.conftest import SHAPE
from tests.conformance import reference_decoder
from tests.support.fields import psnr, smooth
from tests.support.fits import fast


def test_nan_and_infinities_come_back():
    array = smooth((9, 10, 11), "f8")
    rng = np.random.default_rng(0)
    for value in np.nan, np.inf, -np.inf:
        x, y, z = rng.integers(0, 6, 3)
        array[x : x + 3, y : y + 4, z : z + 5] = value
    stream = encode(array, Settings(**fast(array, 330)))
    decoded = decode(stream)
    masked = ~np.isfinite(array)
    np.testing.assert_array_equal(decoded[masked], array[masked])
    assert np.isfinite(decoded[~masked]).all()
    assert psnr(array, decoded) > FLOOR
    assert_quality_is_stored(array, stream, decoded)


@pytest.mark.parametrize(("dtype", "missing"), [("i2", -32768), ("f4", 1e20), (">u8", 2**64 - 1)])
@pytest.mark.parametrize("fill_value", [False, True], ids=["missing", "fill_value"])
def test_a_sentinel_is_exact_and_out_of_the_range(dtype, missing, fill_value):
    array = smooth(SHAPE, dtype)
    array[2:6, :4, 5:] = missing
    at = array == np.dtype(dtype).type(missing)
    if fill_value:
        stream = encode(array, Settings(**fast(array, 270)), fill_value=missing)
    else:
        stream = encode(array, Settings(**fast(array, 270, missing=missing)))
    decoded = decode(stream)
    np.testing.assert_array_equal(decoded == np.dtype(dtype).type(missing), at)
    assert np.abs(decoded[~at].astype("f8") - array[~at].astype("f8")).max() < 40
    assert_quality_is_stored(array, stream, decoded)


def test_a_fill_value_among_the_values_is_one_of_them():
    array = smooth(SHAPE)
    array[:4] = 50
    assert reference_decoder.decode(encode(array, Settings(**fast(array)), fill_value=50)).masked_values == []


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_ends_of_64_bits(dtype):
    ends = np.iinfo(dtype)
    array = (smooth(SHAPE, "f8", scale=0.9 * (ends.max / 2 - ends.min / 2) * 2) + ends.min * 0.9).astype(
        dtype
    )
    array.flat[0], array.flat[-1] = ends.min, ends.max
    stream = encode(array, Settings(**fast(array)))
    decoded = decode(stream)
    assert np.abs(decoded.astype("f8") - array.astype("f8")).mean() < 0.1 * 2.0**64
    assert psnr(array, decoded) > FLOOR
    np.testing.assert_allclose(
        decoded.astype("f8"), reference_decoder.decode(stream).array.astype("f8"), rtol=0, atol=2.0**64 * 1e-5
    )


def test_ranges_beyond_the_largest_double():
    array = (smooth(SHAPE, "f8", scale=2.0) - 1) * np.finfo("f8").max
    stream = encode(array, Settings(**fast(array)))
    decoded, big = decode(stream), np.finfo("f8").max
    measured = psnr(array / big, decoded / big)
    assert measured > FLOOR
    assert open_stream(stream).header.psnr == pytest.approx(measured, abs=0.011)


@pytest.mark.torch
def test_ranges_of_subnormal_numbers():
    array = np.random.default_rng(0).integers(0, 2, SHAPE) * 5e-324
    decoded = decode(encode(array, Settings(**fast(array, 200))))
    assert set(np.unique(decoded)) <= {0, 5e-324}
