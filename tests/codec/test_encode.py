"""Round trips: any dtype, layout and masked values, within the bytes asked for."""

import math

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from moec_zarr import BudgetError, UnsupportedArrayError
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.settings import Settings
from tests.codec.checks import FLOOR, assert_quality_is_stored
from tests.conformance import reference_decoder
from tests.support.fields import REAL_FIELDS, assert_near, psnr, smooth
from tests.support.fits import fast

DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]


def laid_out(array, layout):
    """The same values at other places of memory."""
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed":
        return array[..., ::-1].copy()[..., ::-1]
    if layout == "transposed":
        return np.ascontiguousarray(array.T).T
    if layout == "strided":
        return np.repeat(array, 3, axis=-1)[..., ::3]
    if layout == "sliced":
        return np.pad(array, 2)[(slice(2, -2),) * array.ndim]
    return array


LAYOUTS = ["C", "F", "reversed", "transposed", "strided", "sliced"]
RANKED = [(700,), (26, 29), (7, 11, 9), (5, 3, 7, 8), (3, 4, 1, 7, 9)]


def scale_of(dtype):
    dtype = np.dtype(dtype)
    return 100.0 if dtype.kind == "f" else float(np.iinfo(dtype).max) * 0.9


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    st.sampled_from(DTYPES), st.sampled_from("<>"), st.sampled_from(RANKED), st.sampled_from(LAYOUTS),
    st.booleans(),
)  # fmt: skip
def test_round_trip(dtype, byte_order, shape, layout, writeable):
    array = laid_out(smooth(shape, dtype, scale=scale_of(dtype)).astype(byte_order + dtype), layout)
    array.flags.writeable = writeable
    before = array.copy()
    asked = Settings(**fast(array))
    stream = encode(array, asked)
    np.testing.assert_array_equal(array, before)
    assert len(stream) <= array.nbytes / asked.ratio
    decoded = decode(stream)
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)
    in_f = array.flags.f_contiguous and not array.flags.c_contiguous
    assert decoded.flags.f_contiguous if in_f else decoded.flags.c_contiguous
    assert psnr(array, decoded) > FLOOR
    assert array.min() <= decoded.min()
    assert decoded.max() <= array.max()
    assert_quality_is_stored(array, stream, decoded)
    corner = (slice(2),) * len(shape)
    assert_near(decode(stream, corner), decoded[corner], scale_of(dtype))


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.sampled_from("<>"),
    st.lists(st.integers(0, 4), max_size=5),
    st.sampled_from(["C", "F"]),
    st.integers(0, 2**20),
    st.booleans(),
)
def test_small_arrays_are_stored_exactly(dtype, byte_order, shape, order, seed, special):
    """Any values, NaN and infinities among them: no network is smaller than they are."""
    rng = np.random.default_rng(seed)
    shape = tuple(shape[: 5 if math.prod(shape) <= 40 else 2])
    size = math.prod(shape)
    dtype = np.dtype(byte_order + dtype)
    array = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).reshape(shape).copy(order)
    if dtype.kind == "f":
        array[~np.isfinite(array)] = 0
        if special:
            array[rng.random(shape) < 0.3] = rng.choice([np.nan, np.inf, -np.inf])
    stream = encode(array, Settings(max_error=0))
    for decoded in decode(stream), reference_decoder.decode(stream).array:
        np.testing.assert_array_equal(decoded, array)
        assert decoded.dtype == array.dtype
        assert decoded.flags.f_contiguous == array.flags.f_contiguous or size < 2
    if size:
        assert open_stream(stream).header.psnr == math.inf


@pytest.mark.parametrize("value", [7, np.nan, np.inf, -np.inf, -0.0])
def test_constant_arrays_take_a_header(value):
    array = np.full((40, 50, 60), value, "f4")
    stream = encode(array, Settings(ratio=5000))
    assert len(stream) < 60
    np.testing.assert_array_equal(decode(stream), array)


def test_empty_and_scalar_arrays():
    for shape in (0,), (3, 0, 2):
        decoded = decode(encode(np.zeros(shape, ">i2"), Settings(ratio=1000)))
        assert (decoded.shape, decoded.dtype) == (shape, ">i2")
    assert decode(encode(np.array(2.5), Settings(psnr=40))) == 2.5
    with pytest.raises(BudgetError):
        encode(np.array(2.5), Settings(ratio=2))


def test_broadcast_arrays():
    row = smooth((40,))
    array = np.broadcast_to(row, (30, 40))
    decoded = decode(encode(array, Settings(**fast(array))))
    assert psnr(array, decoded) > FLOOR


@pytest.mark.parametrize("name", ["um_xwind_4d", "cmip6_siconc_nan_3d"])
def test_a_crop_of_a_real_field(name):
    path = REAL_FIELDS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    with np.load(path) as archive:
        array = archive[archive.files[0]]
    middle = tuple(slice(n // 2 - min(n, 16) // 2, n // 2 + min(n, 16) // 2) for n in array.shape)
    crop = array[middle]
    stream = encode(crop, Settings(ratio=crop.nbytes / 400, effort="fast"))
    decoded = decode(stream)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(crop))
    assert len(stream) <= 400
    if len(np.unique(crop[np.isfinite(crop)])) > 1:
        assert psnr(crop, decoded) > 12


@pytest.mark.parametrize("shape", [(1,) * 6, (0, 2**33)], ids=str)
def test_shapes_that_cannot_be_stored_are_refused(shape):
    with pytest.raises(UnsupportedArrayError, match="Remedy"):
        encode(np.zeros(shape, "u1"), Settings(ratio=1))
