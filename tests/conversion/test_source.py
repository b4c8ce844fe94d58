from __future__ import annotations

import os

import numpy as np
import pytest

from moec_zarr import MoECError
from moec_zarr.conversion.source import fingerprint, open_source
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
