"""Files that are written in different ways come together as their values are."""

import logging

import numpy as np
import pytest

from moec_zarr import MoECCodec, MoECError
from moec_zarr.conversion.verify import verify
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import release_files
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")
pytest.importorskip("distributed")
pytest.importorskip("netCDF4")

DIMS = ("time", "y", "x")
CODEC = MoECCodec(max_error=0.5, effort="fast")


def write(path, first, encoding, **series):
    """A store of four steps with a field, and series of its own; what it holds as xarray reads it."""
    field = smooth((4, 24, 24), scale=30) + 280
    times = np.datetime64("2000-01-01", "ns") + np.timedelta64(6, "h") * (first + np.arange(4))
    variables = {"field": (DIMS, field)} | {name: ("time", values) for name, values in series.items()}
    ds = xr.Dataset(variables, coords={"time": times})
    ds.to_zarr(path, zarr_format=2, encoding=encoding)
    return xr.open_zarr(path).load()


KINDS = {
    "packing": (
        {"dtype": "i2", "scale_factor": 0.001, "add_offset": 10.0, "_FillValue": -32768},
        {"dtype": "i2", "scale_factor": 0.002, "add_offset": 40.0, "_FillValue": -32768},
        [1.0, 9.5, 12.0, 30.0], [28.0, 33.0, 42.0, 60.0],
    ),
    "integers of two widths": ({"dtype": "i2"}, {"dtype": "i4"}, [1, 2, 3, 4], [32767, 40000, -70000, 9]),
    "integers and floats": ({"dtype": "i4"}, {"dtype": "f4"}, [1, 2, 3, 4], [1.4, 2.5, -3.25, 9.0]),
    "single and double": ({"dtype": "f4"}, {"dtype": "f8"}, [1.5, 2, 3, 4], [0.1, 1 / 3, 2e-9, 9.0]),
    "sentinels": (
        {"dtype": "f4", "_FillValue": -1.0}, {"dtype": "f4", "_FillValue": 7.0},
        [np.nan, 2, 7, 4], [-1.0, np.nan, 2.5, 9.0],
    ),
    "text": ({}, {}, ["g1", "g2", "g3", "g4"], ["g10", "g11", "g12", "g1300"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_lossless_variables_of_files_that_differ_come_back(tmp_path, client, kind):
    one, other, first, second = KINDS[kind]
    files = [
        write(tmp_path / "a.zarr", 0, {"series": one}, series=np.array(first)),
        write(tmp_path / "b.zarr", 4, {"series": other}, series=np.array(second)),
    ]
    expected = np.concatenate([each.series.values for each in files])
    convert([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "z", CODEC, client=client).close()
    with xr.open_zarr(tmp_path / "z") as stored:
        np.testing.assert_array_equal(stored.series.values, expected)
        np.testing.assert_array_equal(
            stored.time.values, np.concatenate([each.time.values for each in files])
        )
    assert verify(tmp_path / "z", [tmp_path / "a.zarr", tmp_path / "b.zarr"], client=client).ok


def test_times_that_are_counted_in_different_ways_come_back(tmp_path, client):
    parts = [
        (
            np.arange("2000-01-01", "2000-01-05", dtype="M8[D]"),
            {"dtype": "i4", "units": "days since 2000-01-01"},
        ),
        (
            np.arange("2000-02-01", "2000-02-05", dtype="M8[D]") + np.timedelta64(90, "m"),
            {"dtype": "f8", "units": "hours since 1999-01-01"},
        ),
    ]
    for i, (times, encoding) in enumerate(parts):
        ds = xr.Dataset({"field": (DIMS, smooth((4, 24, 24)))}, coords={"time": times.astype("M8[ns]")})
        ds.to_zarr(tmp_path / f"{i}.zarr", zarr_format=2, encoding={"time": encoding})
    convert([tmp_path / "0.zarr", tmp_path / "1.zarr"], tmp_path / "z", CODEC, client=client).close()
    with xr.open_zarr(tmp_path / "z") as stored:
        np.testing.assert_array_equal(stored.time.values, np.concatenate([times for times, _ in parts]))


def test_limits_that_differ_are_left_out_and_named(tmp_path, client, caplog):
    for i, scale in enumerate((0.001, 0.002)):
        integers = (smooth((4, 24, 24)) * 100).astype("i2")
        attrs = {"scale_factor": scale, "add_offset": 280.0, "valid_range": [-30000, 30000]}
        raw = xr.Dataset({"field": (DIMS, integers, attrs)}, coords={"time": np.arange(4) + 4 * i})
        raw.to_zarr(tmp_path / f"{i}.zarr", zarr_format=2)
    with caplog.at_level(logging.WARNING, "moec_zarr"):
        stored = convert([tmp_path / "0.zarr", tmp_path / "1.zarr"], tmp_path / "z", CODEC, client=client)
    assert "valid_range" not in stored.field.attrs
    assert "such as valid_range, of 'field'" in caplog.text


def test_files_that_share_a_step_are_refused(tmp_path, client):
    write(tmp_path / "a.zarr", 0, {})
    write(tmp_path / "b.zarr", 3, {})
    with pytest.raises(MoECError, match="overlap: time 2000-01-01 18:00:00 is in two of them"):
        convert([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "z", CODEC, client=client)


def test_integers_of_64_bits_with_a_fill_value_come_back(tmp_path, client):
    ids = np.array([2**60 + 1, -(2**61) + 3, -1, 2**53 + 1])
    raw = xr.Dataset(
        {
            "field": (DIMS, smooth((4, 24, 24))),
            "ids": ("time", ids, {"_FillValue": -1}),
            "unsigned": ("time", ids.astype("u8"), {"missing_value": np.uint64(2**64 - 1)}),
        },
        coords={"time": np.arange(4)},
    )
    raw.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    convert(tmp_path / "a.zarr", tmp_path / "z", CODEC, client=client).close()
    with xr.open_zarr(tmp_path / "z", mask_and_scale=False) as stored:
        np.testing.assert_array_equal(stored["ids"].values, ids)
        np.testing.assert_array_equal(stored["unsigned"].values, ids.astype("u8"))
        assert stored["ids"].attrs["_FillValue"] == -1
    assert verify(tmp_path / "z", tmp_path / "a.zarr", client=client).ok


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_what_is_packed_in_single_precision_comes_back_as_it_was_decoded(tmp_path, client, dtype):
    packing = {"dtype": dtype, "scale_factor": np.float32(0.1), "add_offset": np.float32(1 / 3)}
    packing["_FillValue"] = np.array(-999, dtype)
    ds = xr.Dataset(
        {"field": (DIMS, smooth((4, 24, 24))), "series": ("time", np.array([1, 2.5, 7, 9.25], "f4"))}
    )
    ds.to_netcdf(tmp_path / "a.nc", encoding={"series": packing})
    with xr.open_dataset(tmp_path / "a.nc") as source:
        expected = source.series.values
    convert(str(tmp_path / "a.nc"), tmp_path / "z", CODEC, client=client).close()
    release_files(client)
    with xr.open_zarr(tmp_path / "z") as stored:
        assert stored.series.dtype == expected.dtype == np.float32
        np.testing.assert_array_equal(stored.series.values, expected)


def test_an_append_refuses_other_flags_and_names_other_attributes(tmp_path, client, caplog):
    kinds = [("a", 0, "good bad", "point"), ("b", 4, "bad good", "point"), ("c", 4, "good bad", "mean")]
    for name, first, meanings, method in kinds:
        quality = ("time", np.array([0, 1, 0, 1], "i1"), {"flag_values": [0, 1], "flag_meanings": meanings})
        field = (DIMS, smooth((4, 24, 24)), {"cell_methods": f"time: {method}"})
        ds = xr.Dataset({"field": field, "quality": quality}, coords={"time": np.arange(4) + first})
        ds.to_zarr(tmp_path / f"{name}.zarr", zarr_format=2)
    convert(tmp_path / "a.zarr", tmp_path / "z", CODEC, client=client).close()
    with pytest.raises(MoECError, match="flag_meanings 'bad good', and 'good bad' in the store"):
        convert(tmp_path / "b.zarr", tmp_path / "z", append="time", client=client)
    with caplog.at_level(logging.WARNING, "moec_zarr"):
        convert(tmp_path / "c.zarr", tmp_path / "z", append="time", client=client).close()
    assert "cell_methods of field" in caplog.text


def test_a_sentinel_that_a_dtype_cannot_hold_is_refused_before_any_work(tmp_path, client):
    ds = xr.Dataset({"a": (DIMS, smooth((4, 24, 24))), "b": (DIMS, smooth((4, 24, 24)).astype("u1"))})
    with pytest.raises(MoECError, match=r"'b'.*missing=-999 is no value of dtype uint8"):
        convert(ds, tmp_path / "z", MoECCodec(ratio=2, effort="fast", missing=-999), client=client)
    assert not (tmp_path / "z").exists()


def test_limits_of_packed_values_are_unpacked_with_them(tmp_path, client):
    """An error below the step of packing, so that every value stays within its limits."""
    integers = (smooth((4, 24, 24)) * 100).astype("i2")
    limits = np.array([integers.min() - 100, integers.max() + 100], "i2")
    attrs = {"scale_factor": 0.5, "add_offset": 280.0, "valid_range": limits}
    raw = xr.Dataset({"field": (DIMS, integers, attrs)}, coords={"time": np.arange(4)})
    raw.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    stored = convert(tmp_path / "a.zarr", tmp_path / "z", CODEC, client=client)
    low, high = stored.field.attrs["valid_range"]
    assert [low, high] == [limits[0] * 0.5 + 280, limits[1] * 0.5 + 280]
    assert ((low <= stored.field.values) & (stored.field.values <= high)).all()
