"""Sentinels, packed values and their limits, against what xarray itself decodes."""

import numpy as np
import pytest

import moec_zarr
from moec_zarr import MoECCodec, MoECError
from moec_zarr.adapters.meaning import stored_dtype, unpack_limits

xr = pytest.importorskip("xarray")

DIMS = ("time", "y", "x")
SHAPE = (4, 24, 32)
CODEC = MoECCodec(ratio=10, effort="fast")


def wave(dtype="f4"):
    return (285 + 15 * np.sin(np.indices(SHAPE).sum(axis=0) / 9)).astype(dtype)


def raw(fill, missing, dtype="f4"):
    """A field with two sentinels, as it lies in a file."""
    values = wave(dtype)
    values[:, :3], values[:, :, :4] = -999, -99
    attrs = {"_FillValue": fill, "missing_value": missing}
    return xr.Dataset(
        {"a": (DIMS, values, {key: value for key, value in attrs.items() if value is not None})}
    )


@pytest.mark.filterwarnings("ignore:variable .* has multiple fill values")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("fill", "missing"),
    [
        (np.float32(-999), np.float32(-99)),
        (np.float32(-999), np.array([-999, -99], "f4")),
        (None, np.array([-999, -99], "f4")),
        (np.float32(np.nan), np.array([-999, -99], "f4")),
    ],
    ids=["two", "fill and vector", "vector", "nan and vector"],
)
def test_of_several_sentinels_one_is_written_and_all_are_missing(tmp_path, zarr_format, fill, missing):
    ds = xr.decode_cf(raw(fill, missing))
    expected = np.isnan(ds.a.values)
    assert expected.sum() == 4 * (24 * 32 - 21 * 28)
    ds.to_zarr(tmp_path, encoding=moec_zarr.encoding(ds, CODEC, zarr_format), zarr_format=zarr_format)
    again = xr.open_zarr(tmp_path)
    np.testing.assert_array_equal(np.isnan(again.a.values), expected)
    assert np.nanmax(np.abs(again.a.values - ds.a.values)) < 3


@pytest.mark.filterwarnings("ignore:variable .* has multiple fill values")
def test_a_lossless_variable_with_two_sentinels_is_written(tmp_path):
    ds = xr.decode_cf(raw(np.int16(-999), np.int16(-99), "i2")).rename(a="mask")
    ds["a"] = (DIMS, wave())
    ds.to_zarr(tmp_path, encoding=moec_zarr.encoding(ds, CODEC))
    np.testing.assert_array_equal(xr.open_zarr(tmp_path).mask.values, ds.mask.values)


def test_two_sentinels_that_were_not_decoded_are_refused():
    with pytest.raises(MoECError, match=r"'a': -999, -99 all stand for missing values.*decode_cf"):
        moec_zarr.encoding(raw(np.float32(-999), np.float32(-99)), CODEC)


def packed(scale, offset, dtype="i2", **attrs):
    """A packed variable as xarray decodes it."""
    integers = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)
    packing = {"scale_factor": scale, "add_offset": offset}
    return xr.decode_cf(xr.Dataset({"a": (DIMS, integers, packing | attrs)})).a.variable


@pytest.mark.parametrize(
    ("scale", "offset", "dtype", "expected"),
    [
        (0.01, 273.15, "i2", "f4"),
        (1.0, 100_000.0, "i2", "f4"),
        (0.01, 100_000.0, "i2", "f8"),  # a step of 0.01 beside float32's 0.0078
        (0.5, 0.0, "u1", "f4"),
        (0.01, 273.15, "i4", "f8"),
    ],
)
def test_packed_integers_take_float32_where_it_tells_them_apart(scale, offset, dtype, expected):
    var = packed(scale, offset, dtype)
    assert var.dtype == np.float64
    assert stored_dtype(var, bounded=False) == expected
    assert stored_dtype(var, bounded=True) == np.float64
    if dtype != "i4":
        everything = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1) * scale + offset
        back = np.rint((everything.astype("f4").astype("f8") - offset) / scale)
        if expected == "f4":
            np.testing.assert_array_equal(back, np.rint((everything - offset) / scale))


@pytest.mark.parametrize("scale", [0.01, -0.01])
def test_limits_of_packed_values_are_unpacked(scale):
    low, high = np.int16(-1000), np.int16(2000)
    var = packed(
        scale, 5.0, valid_range=np.array([low, high]), valid_min=low, actual_range=np.array([4.0, 9.0])
    )
    ends = sorted((low * scale + 5, high * scale + 5))
    found = unpack_limits(var)
    assert found["valid_range"] == pytest.approx(ends)
    assert found["valid_min" if scale > 0 else "valid_max"] == pytest.approx(low * scale + 5)
    assert ("valid_min" in found) == (scale > 0)
    assert found["actual_range"].tolist() == [4.0, 9.0]


def test_limits_of_unsigned_values_are_unsigned():
    var = packed(2.0, 0.0, "i1", _Unsigned="true", valid_max=np.int8(-1))
    assert unpack_limits(var)["valid_max"] == 510


def test_limits_of_unpacked_values_stay():
    var = packed(0.01, 5.0, valid_range=np.array([4.0, 9.0]))
    assert unpack_limits(var)["valid_range"].tolist() == [4.0, 9.0]
    plain = xr.Variable(DIMS, wave(), {"valid_range": [0, 400]})
    assert unpack_limits(plain)["valid_range"] == [0, 400]


def test_the_encoding_warns_of_limits_that_it_cannot_change(caplog):
    ds = xr.Dataset({"a": packed(0.01, 5.0, valid_max=np.int16(2000))})
    moec_zarr.encoding(ds, CODEC)
    assert "'a' is stored unpacked, and its attributes valid_max are of packed values" in caplog.text
