"""Arrays are compared where their coordinates say so."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.alignment import align
from moec_zarr.report.comparison.metrics import compare

DIMS = ("time", "lat", "lon")
SHAPE = (6, 9, 12)


def field(first_hour=0, hours=SHAPE[0], **attrs):
    """A field whose values tell where they stand, so that a wrong alignment is an error."""
    times = np.arange(first_hour, first_hour + hours)
    lat, lon = np.linspace(-60, 60, SHAPE[1]), np.linspace(0, 330, SHAPE[2])
    values = times[:, None, None] * 1000.0 + lat[:, None] + lon / 1000
    day = np.datetime64("2026-01-01", "ns") + times * np.timedelta64(1, "h")
    return xr.Dataset({"t": (DIMS, values)}, {"time": day, "lat": lat, "lon": lon})


def one(a, b):
    (result,) = compare(a, b).values()
    return result


def test_a_month_of_a_year():
    month, year = field(2, 3), field()
    result = one(month, year)
    assert result.max_error == 0
    assert result.n == 3 * 9 * 12
    assert result.left_out == (
        "time: 2026-01-01 00:00:00 .. 2026-01-01 01:00:00, 2026-01-01 05:00:00 only in the decoded (3 of 6)",
    )
    assert one(year, month).left_out[0].endswith("only in the original (3 of 6)")


def test_shifted_in_time_both_lack_something():
    result = one(field(0, 4), field(2, 5))
    assert result.max_error == 0
    assert result.n == 2 * 9 * 12
    assert result.left_out == (
        "time: 2026-01-01 00:00:00 .. 2026-01-01 01:00:00 only in the original (2 of 4)",
        "time: 2026-01-01 04:00:00 .. 2026-01-01 06:00:00 only in the decoded (3 of 5)",
    )


def test_an_error_is_still_seen():
    changed = field(2, 3)
    changed.t[1, 2, 3] += 5
    assert one(field(), changed).max_error == pytest.approx(5)


@pytest.mark.parametrize(
    "order",
    [
        {"lat": slice(None, None, -1)},
        {"time": [3, 1, 0, 5, 2, 4]},
        {"lat": slice(None, None, -1), "lon": [5, 0, 7]},
        {"lon": slice(2, 8, 2), "time": slice(4, 0, -1)},
    ],
    ids=["reversed", "shuffled", "subset", "strided"],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_other_orders_and_subsets(order, lazy, tmp_path):
    a, b = field(), field().isel(order)
    if lazy:
        b.to_zarr(tmp_path, consolidated=False)
        b = xr.open_zarr(tmp_path, consolidated=False, chunks=None)
    for first, second in ((a, b), (b, a)):
        result = one(first, second)
        assert result.max_error == 0
        assert result.n == b.t.size
    x, y, _ = align(a.t, b.t)
    assert x.shape == y.shape
    np.testing.assert_array_equal(x, y)


def test_dimensions_in_another_order():
    assert one(field(), field().transpose("lon", "time", "lat")).max_error == 0
    with pytest.raises(
        MoECError, match=r"\('time', 'lat', 'lon'\) in the original and \('time', 'y', 'lon'\)"
    ):
        compare(field(), field().rename(lat="y"))


@pytest.mark.parametrize(
    "units", ["hours since 2026-01-01", "seconds since 1970-01-01", "days since 1900-01-01"]
)
def test_times_that_count_from_elsewhere(units, tmp_path):
    """As `moec-zarr` opens a file, with times as the numbers that it holds."""
    a, b = field(2, 3), field()
    a.to_zarr(tmp_path / "a", encoding={"time": {"units": units, "dtype": "f8"}}, consolidated=False)
    b.to_zarr(tmp_path / "b", encoding={"time": {"units": "hours since 2025-12-31"}}, consolidated=False)
    raw, other = (
        xr.open_zarr(tmp_path / name, decode_times=False, chunks=None, consolidated=False) for name in "ab"
    )
    assert raw.time.dtype.kind == "f"
    for second in (b, other):
        result = one(raw, second)
        assert (result.max_error, result.n) == (0, 3 * 9 * 12)


def test_numbers_of_the_same_count_stay_numbers():
    """They need not be dates that a calendar has."""
    a = field().assign_coords(time=("time", np.arange(6), {"units": "months since 2026-01-31"}))
    assert one(a, a.isel(time=slice(2, None))).n == 4 * 9 * 12


def test_other_calendars():
    pytest.importorskip("cftime")
    days = xr.date_range("2026-02-28", periods=6, calendar="360_day", use_cftime=True)
    a = field().assign_coords(time=days)
    assert (
        one(a, a.isel(time=slice(3, None))).left_out[0].startswith("time: 2026-02-28 00:00:00 .. 2026-02-30")
    )
    with pytest.raises(MoECError, match="nothing in common"):
        compare(a, field())


@pytest.mark.parametrize("change", [lambda v: v.astype("f4"), lambda v: v + 1e-9, lambda v: v * (1 + 1e-7)])
def test_floats_need_not_be_equal_in_their_last_digits(change):
    a = field()
    b = a.assign_coords(lat=change(a.lat.values), lon=change(a.lon.values)).isel(lat=slice(None, None, -1))
    result = one(a, b)
    assert result.max_error == 0
    assert result.left_out == ()


def test_coordinates_that_are_near_are_others():
    a = field()
    b = a.assign_coords(lat=a.lat + 0.5)
    with pytest.raises(
        MoECError, match=r"nothing in common: lat: -60 \.\. 60 only in the original \(9 of 9\)"
    ):
        compare(a, b)
    b = a.assign_coords(lat=np.where(a.lat > 0, a.lat + 0.5, a.lat))
    assert one(a, b).left_out == (
        "lat: 15 .. 60 only in the original (4 of 9)",
        "lat: 15.5 .. 60.5 only in the decoded (4 of 9)",
    )


def test_without_coordinates_lengths_must_agree():
    a = field().drop_vars(["lat", "time"])
    assert one(a, field()).max_error == 0
    with pytest.raises(MoECError, match="9 voxels along 'lat', the decoded 8"):
        compare(a, a.isel(lat=slice(8)))
    # A variable that is not compared may have what it likes.
    more = {"mask": ("cell", np.zeros(4, bool))}
    assert one(a.assign(more), field().assign(mask=("cell", np.zeros(5, bool)))).max_error == 0


def test_a_value_that_stands_twice():
    a = field()
    b = xr.concat([a, a.isel(time=[2])], "time")
    with pytest.raises(MoECError, match="'time' of the decoded holds 2026-01-01 02:00:00 twice"):
        compare(a, b)


def test_many_ranges_are_cut_short():
    a = field(hours=12)
    (text,) = one(a, a.isel(time=[1, 3, 5, 7, 9])).left_out
    assert text.count("2026") == 3
    assert text.endswith(", and others only in the original (7 of 12)")


def test_single_values():
    a = field()
    assert one(a, a.isel(time=[3], lat=[2])).n == 12
    with pytest.raises(MoECError, match="nothing in common"):
        compare(a.isel(lat=[2]), a.isel(lat=[3]))
    with pytest.raises(MoECError, match="nothing in common"):
        compare(a.isel(lat=[2]), a.isel(lat=[1, 3]))
