"""Names, units and places as people read them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from moec_zarr.report.comparison.labels import (
    axis_of,
    bytes_text,
    clean,
    figure_text,
    name_of,
    power_of_ten,
    units_of,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5"), (4.66e-5, "4.66 × 10⁻⁵"), (-1.234e9, "−1.23 × 10⁹"), (1e-12, "1 × 10⁻¹²"),
        (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "–"), (None, "–"), (0, "0"),
        (71_428.6, "71400"), (-1234.5, "−1230"), (999_999.0, "1000000"),
    ],
)  # fmt: skip
def test_figures(value: float | None, text: str) -> None:
    assert figure_text(value) == text


@pytest.mark.parametrize(
    ("largest", "scale", "name"),
    [(3e-5, 1e-6, "10⁻⁶"), (2e6, 1e6, "10⁶"), (300.0, 1.0, ""), (0.0, 1.0, ""), (0.001, 1.0, "")],
)
def test_powers_of_ten(largest: float, scale: float, name: str) -> None:
    assert power_of_ten(np.array([-largest, 0, math.nan])) == (pytest.approx(scale), name)


def test_text_of_a_store_is_one_short_line_that_prints() -> None:
    assert clean("a\n\tb\x00\u202ec") == "a b c"
    assert len(clean("x" * 10_000)) == 80
    assert clean("x" * 10_000).endswith("…")


def test_bytes() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 2_660_000, None)] == [
        "0 B",
        "999 B",
        "1 kB",
        "2.66 MB",
        "?",
    ]


@pytest.fixture
def array() -> xr.DataArray:
    hours = xr.Variable("time", [0, 6], {"units": "hours since 2000-01-01", "calendar": "standard"})
    return xr.DataArray(
        np.zeros((2, 3, 4, 2)),
        dims=("time", "depth", "lat", "x"),
        coords={
            "time": hours,
            "depth": ("depth", [0.5, 10, 250], {"units": "m", "positive": "down"}),
            "lat": ("lat", [60.0, 30, 0, -30], {"units": "degrees_north", "long_name": "latitude"}),
        },
        name="t",
        attrs={"units": "K", "standard_name": "sea_water_temperature"},
    )


def test_places_are_those_of_the_coordinates(array: xr.DataArray) -> None:
    time, depth, lat, x = (axis_of(array, i) for i in range(4))
    assert time.at(1) == "time 2000-01-01 06:00"
    assert depth.at(2) == "depth 250 m"
    assert lat.at(3) == "latitude −30 degrees_north"
    assert x.at(1) == "x index 1"
    assert (depth.name, lat.name, x.name) == ("depth (m)", "latitude (degrees_north)", "x (index)")
    assert depth.downward
    assert (time.step, depth.step, lat.step, x.step) == (None, None, -30, 1)
    assert (name_of(array), units_of(array)) == ("sea_water_temperature", "K")


def test_axes_compare_by_units(array: xr.DataArray) -> None:
    lon = array.rename(lat="lon").assign_coords(lon=("lon", [0.0, 30, 60, 90], {"units": "degrees_east"}))
    assert axis_of(array, 2).comparable(axis_of(lon, 2))
    assert not axis_of(array, 2).comparable(axis_of(array, 1))
    assert not axis_of(array, 2).comparable(axis_of(array, 3))


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
def test_times_are_as_short_as_all_of_them_allow(array: xr.DataArray, calendar: str) -> None:
    for hours, texts in (
        ([0, 24], ["2000-01-01", "2000-01-02"]),
        ([0, 6], ["2000-01-01 00:00", "2000-01-01 06:00"]),
    ):
        attrs = {"units": "hours since 2000-01-01", "calendar": calendar}
        axis = axis_of(array.assign_coords(time=xr.Variable("time", hours, attrs)), 0)
        assert [axis.place(i) for i in range(2)] == texts


def test_times_that_cannot_be_read_are_numbers(array: xr.DataArray) -> None:
    array.time.attrs["units"] = "moons since never"
    assert axis_of(array, 0).at(1) == "time 6 moons since never"


def test_an_array_of_numpy_has_indices() -> None:
    assert axis_of(np.zeros((2, 3)), 1).at(2) == "axis 1 index 2"
