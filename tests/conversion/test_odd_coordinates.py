"""Coordinates that repeat, are missing, are in no order, or count time as xarray cannot decode it."""

from __future__ import annotations

import numpy as np
import pytest

import moec_zarr
from moec_zarr import MoECError
from moec_zarr.conversion.plan.steps import find_run
from moec_zarr.conversion.verify import verify
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import DIMS, QUICK, release_files
from tests.support.fields import steps

xr = pytest.importorskip("xarray")

SHAPE = (8, 10, 12)
MONTHS = {"units": "months since 1979-01-01", "calendar": "standard"}
HOURS = {"units": "hours since 2000-01-01", "calendar": "standard"}
UNDEFINED = float("nan")


def field(**coords):
    return xr.Dataset({"a": (DIMS, steps(SHAPE), {"units": "K"})}, {"lon": np.arange(12.0), **coords})


def times(values, attrs=HOURS):
    return {"time": ("time", np.asarray(values), attrs)}


def levels():
    """As ocean models on meshes have them: a coordinate of two dimensions, named like one of them."""
    sigma = np.linspace(-1, 0, 120).reshape(10, 12)
    ds = field(**times(np.arange(8.0))).drop_vars("lon").rename(lat="siglay", lon="node")
    return ds.assign_coords(siglay=(("siglay", "node"), sigma, {"standard_name": "ocean_sigma_coordinate"}))


def bounded():
    """Months with bounds, which have the units of their times."""
    ends = np.stack([np.arange(8.0), np.arange(1.0, 9.0)], axis=1)
    ds = field(**times(np.arange(8.0), MONTHS | {"bounds": "time_bnds"}))
    return ds.assign(time_bnds=(("time", "nv"), ends))


ODD = {
    "months since": field(**times(np.arange(8.0), MONTHS)),
    "months since, with bounds": bounded(),
    "unknown calendar": field(
        **times(np.arange(8), {"units": "days since 2000-01-01", "calendar": "martian"})
    ),
    "level of two dimensions": levels(),
    "repeated times": field(**times([0.0, 6, 6, 12, 18, 18, 24, 30])),
    "times in no order": field(**times([0.0, 6, 3, 12, 18, 15, 24, 30])),
    "descending times": field(**times(np.arange(42.0, -6, -6))),
    "first time missing": field(**times([UNDEFINED, 6, 12, 18, 24, 30, 36, 42])),
    "a new time missing": field(**times([0.0, 6, 12, 18, 24, UNDEFINED, 36, 42])),
    "latitudes missing": field(**times(np.arange(8.0)), lat=[UNDEFINED] * 3 + list(range(7))),
    "text in no order": field(time=[f"r{i}" for i in range(7, 15)]),
    "some times of no use": field(
        **times(np.arange(8.0)), lag=("time", [UNDEFINED] * 8, HOURS), odd=("time", np.arange(8.0) / 7, HOURS)
    ),
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ODD)
def test_it_is_converted_verified_appended_and_compared(tmp_path, client, name, zarr_format):
    whole, dst, files = ODD[name], tmp_path / "d.zarr", [tmp_path / "0.nc", tmp_path / "1.nc"]
    for path, part in zip(files, (slice(4), slice(4, 8)), strict=True):
        whole.isel(time=part).to_netcdf(path)
    options = {"variables": ["a"], "chunks": {"time": 2}, "zarr_format": zarr_format}
    convert(files[0], dst, QUICK, client=client, **options)
    for path in files:
        assert convert(path, dst, append="time", client=client).sizes["time"] == (
            4 if path is files[0] else 8
        )
        assert verify(dst, path).ok
    with xr.open_zarr(dst, decode_times=False) as again:
        for each in set(whole.variables) - {"a"}:
            np.testing.assert_array_equal(again[each].values, whole[each].values)
            expected = {key: whole[each].attrs.get(key) for key in ("units", "calendar")}
            assert {key: again[each].attrs.get(key) for key in expected} == expected
        assert np.abs(again.a.values - whole.a.values).max() < 1e-3
        assert moec_zarr.compare(whole, again)["a"].n == whole.a.size
    if (name, zarr_format) in {("months since", 2), ("repeated times", 3), ("level of two dimensions", 3)}:
        moec_zarr.write_report(dst, tmp_path / "r.html", against=files[0])
    release_files(client)


@pytest.mark.parametrize("name", ["months since", "months since, with bounds", "level of two dimensions"])
def test_several_files_are_joined(tmp_path, client, name):
    whole, files = ODD[name], [tmp_path / "0.nc", tmp_path / "1.nc"]
    for path, part in zip(files, (slice(4), slice(4, 8)), strict=True):
        whole.isel(time=part).to_netcdf(path)
    convert(files, tmp_path / "d.zarr", QUICK, client=client, variables=["a"], chunks={"time": 2})
    assert verify(tmp_path / "d.zarr", files).ok
    with xr.open_zarr(tmp_path / "d.zarr", decode_times=False) as again:
        for each in set(whole.variables) - {"a"}:
            np.testing.assert_array_equal(again[each].values, whole[each].values)
    release_files(client)


def test_what_has_no_meaning_is_said(tmp_path, client):
    dst = tmp_path / "d.zarr"
    options = {"variables": ["a"], "chunks": {"time": 2}, "resume": False}

    def appended(first, second):
        convert(first.isel(time=slice(4)), dst, QUICK, client=client, **options)
        convert(second.isel(time=slice(4, 8)), dst, append="time", client=client)

    months = ODD["months since"]
    later = months.assign_coords(times(np.arange(8.0), MONTHS | {"units": "months since 1980-01-01"}))
    ascending, constant = field(**times(np.arange(8.0))), field(**times(np.zeros(8)))
    for first, second, message in (
        (months, later, "counts time in months since 1980-01-01, and in the store in months since 1979"),
        (constant, constant, r"values of 'time' are all 2000-01-01T00.*cannot be told which"),
        (field(**times([UNDEFINED] * 8)), field(**times([UNDEFINED] * 8)), "are all NaT in the source"),
        (ODD["descending times"], ascending.assign_coords(times(np.arange(8.0) + 50)), "is out of order"),
        (ascending, ascending.assign_coords(times([0.0, 1, 2, 3, 4, 6, 5, 7])), "own steps are out of order"),
        (
            ODD["text in no order"],
            ascending.assign_coords(time=[*"abcd", "r9", "r7", "x", "y"]),
            "again",
        ),
    ):
        with pytest.raises(MoECError, match=message):
            appended(first, second)
    paths = [tmp_path / "0.nc", tmp_path / "1.nc"]
    for path, ds in zip(paths, (months, later), strict=True):
        ds.to_netcdf(path)
    with pytest.raises(MoECError, match=r"'time' counts 'months since 1979.* and 'months since 1980"):
        convert(paths, tmp_path / "e.zarr", QUICK, client=client)


def test_a_part_that_stands_in_several_places_is_not_compared_with_one_of_them(tmp_path, client):
    ds = field(**times([0.0, 6, 6, 6, 12, 6, 6, 6]))
    convert(ds, tmp_path / "d.zarr", QUICK, client=client, variables=["a"], chunks={"time": 2})
    assert verify(tmp_path / "d.zarr", ds).ok
    assert verify(tmp_path / "d.zarr", ds.isel(time=slice(3, 6))).ok
    with pytest.raises(MoECError, match=r"values of 'time' repeat in the store.* at step 1 or 5"):
        verify(tmp_path / "d.zarr", ds.isel(time=slice(1, 4)))


@pytest.mark.parametrize(
    ("steps_there", "run", "expected"),
    [
        ([1, 2, 3], [2, 3], [1]),
        ([1, 2, 3], [3, 4], []),
        ([1, 2, 1, 2, 1, 2], [1, 2], [0, 2]),
        ([UNDEFINED, 1, UNDEFINED, 2], [UNDEFINED, 2], [2]),
        ([1, 2], [1, 2, 3], []),
        ([1, 2], [], []),
        (["b", "a"], ["a"], [1]),
    ],
)
def test_a_run_is_found_where_it_stands(steps_there, run, expected):
    assert find_run(np.array(steps_there), np.array(run, np.array(steps_there).dtype)) == expected
