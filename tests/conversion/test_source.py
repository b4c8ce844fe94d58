from __future__ import annotations

import os

import numpy as np
import pytest

from moec_zarr import MoECError
from moec_zarr.conversion.plan.joining import files_behind
from moec_zarr.conversion.plan.source import SourceError, fingerprint, open_source
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")


def month(first, days=4):
    times = np.datetime64(first, "ns") + np.arange(days) * np.timedelta64(1, "D")
    return xr.Dataset({"t": (("time", "x"), smooth((days, 8)))}, {"time": times, "x": np.arange(8.0)})


@pytest.fixture
def folder(tmp_path):
    for first in ("2026-01-01", "2026-01-05"):
        month(first).to_netcdf(tmp_path / f"{first}.nc")
    return tmp_path


def refused(source, error, message):
    with pytest.raises(error, match=message), open_source(source):
        pass


def test_what_is_open_is_taken_as_it_is(folder):
    ds = month("2026-01-01")
    with open_source(ds) as same, open_source(ds.t) as of_array:
        assert same is ds
        assert list(of_array.data_vars) == ["t"]
    refused(ds.t.rename(None), MoECError, "needs a name")


def test_files_are_joined_however_they_are_named(folder):
    files = sorted(folder.glob("*.nc"))
    for source in (folder, f"{folder}/*.nc", files, [str(path) for path in files], f"file://{folder}/*.nc"):
        with open_source(source) as ds:
            assert ds.time.size == 8
            assert ds.time.values[-1] == np.datetime64("2026-01-08")


def test_one_store_or_file_keeps_time_as_it_is(folder):
    original = month("2026-01-01")
    original.to_zarr(folder / "store", consolidated=False)
    original.to_zarr(folder / "two.zarr", zarr_format=2)
    for name in ("store", "two.zarr", "2026-01-01.nc"):
        with open_source(folder / name) as ds:
            assert ds.time.dtype.kind == "i"
            assert " since " in ds.time.units
            xr.testing.assert_identical(xr.decode_cf(ds).load(), original)


def test_what_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "absent.nc", FileNotFoundError, "nothing at")
    refused(f"{tmp_path}/*.nc", MoECError, "match nothing")
    refused(tmp_path, MoECError, "neither a zarr store nor files")
    refused([], MoECError, "empty list")


def test_the_fingerprint_is_that_of_the_source(folder):
    path = folder / "2026-01-01.nc"

    def current(source=path):
        with open_source(source) as ds:
            return fingerprint(source, ds)

    first = current()
    assert current() == first
    assert current(folder) != first
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert current() != first


def test_the_fingerprint_of_an_open_dataset(folder):
    ds = month("2026-01-01")
    first = fingerprint(ds, ds)
    assert fingerprint(ds.copy(deep=True), ds.copy(deep=True)) == first
    for other in (ds.assign_attrs(a=1), ds.isel(time=slice(2)), ds.assign_coords(x=ds.x + 1)):
        assert fingerprint(other, other) != first
    with xr.open_dataset(folder / "2026-01-01.nc") as opened:
        before = fingerprint(opened, opened)
        os.utime(folder / "2026-01-01.nc", (0, 0))
        assert fingerprint(opened, opened) != before


@pytest.fixture
def station(tmp_path):
    """Write a file with all that stands beside a field in real ones."""

    def write(name, first, **changes):
        ds = month(first)
        ds["packed"] = (("time", "x"), np.round(smooth((4, 8)), 1).astype("f4"))
        ds["packed"].encoding = {"dtype": "i2", "scale_factor": np.float32(0.1), "_FillValue": np.int16(-1)}
        ds["mask"] = ("x", np.arange(8, dtype="i1") % 2)
        ds["name"] = ("x", np.array([f"station {i}" for i in range(8)]))
        ds["crs"] = ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"})
        ds["time_bnds"] = (("time", "nv"), np.stack([ds.time.values] * 2, axis=1))
        ds["flag"] = ("time", np.arange(4, dtype="i1"), {"flag_values": np.arange(4, dtype="i1")})
        ds = ds.assign_coords(height=("x", np.arange(8.0)))
        ds.time.attrs["bounds"] = "time_bnds"
        ds.time.encoding = {"units": f"days since {first}", "calendar": "noleap"}
        ds.assign(changes).to_netcdf(tmp_path / name)
        return tmp_path / name

    return write


def test_static_variables_are_taken_once(station):
    files = [station("a.nc", "2026-01-01"), station("b.nc", "2026-01-05")]
    with open_source(files) as ds, xr.open_dataset(files[0]) as first:
        for name in ("mask", "name", "crs", "height"):
            xr.testing.assert_identical(ds[name].variable.load(), first[name].variable.load())
        assert {name for name in ds.variables if "time" in ds[name].dims} == {
            "t", "packed", "time", "time_bnds", "flag"
        }  # fmt: skip
        assert (ds.sizes["time"], str(ds.time.dtype)) == (8, "object")  # of another calendar than numpy's
        assert ds.packed.encoding["dtype"] == np.int16
        np.testing.assert_array_equal(ds.flag, [0, 1, 2, 3] * 2)


def test_files_that_do_not_belong_together_are_refused(station):
    first = station("a.nc", "2026-01-01")
    for second, changes, message in (
        ("2026-01-05", {"mask": ("x", np.zeros(8, "i1"))}, "mask"),
        ("2026-01-05", {"x": np.arange(8.0) + 0.5}, "x"),
        ("2026-01-03", {}, "monotonic"),
        ("2026-01-05", {"time": month("2026-01-05").time}, "mixed types"),  # another calendar
    ):
        files = [first, station("b.nc", second, **changes)]
        refused(files, MoECError, f"cannot be joined: .*{message}")


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"not a file"])
def test_a_damaged_file_is_named(station, damage):
    files = [station("a.nc", "2026-01-01"), station("b.nc", "2026-01-05")]
    files[1].write_bytes(damage(files[1].read_bytes()))
    for source in (files, files[1]):
        refused(source, SourceError, r"b\.nc cannot be opened; it may be truncated.*fetch or write it again")


def test_the_files_behind_a_region_are_known(station):
    files = [station("a.nc", "2026-01-01"), station("b.nc", "2026-01-05")]
    with open_source(files) as ds:
        for region, expected in (((0, 4), files[:1]), ((3, 5), files), ((4, 8), files[1:])):
            found = files_behind(ds, ("time", "x"), (slice(*region), slice(0, 8)))
            assert found == [str(path) for path in expected]
        assert files_behind(ds, ("x",), (slice(0, 8),)) == [str(path) for path in files]
    with open_source(files[0]) as ds:
        assert files_behind(ds, ("time", "x"), (slice(0, 4), slice(0, 8))) == [str(files[0])]


def test_an_unfinished_store_is_not_taken_for_a_whole_one(tmp_path, caplog):
    month("2026-01-01").assign_attrs(moec_zarr_status="incomplete: 1 of 3 chunks").to_zarr(
        tmp_path / "d.zarr", consolidated=False
    )
    with open_source(tmp_path / "d.zarr"):
        assert "is unfinished, values are missing from it: incomplete: 1 of 3" in caplog.text
