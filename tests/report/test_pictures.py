"""Panels of pictures: colours, their limits, and axes in coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from moec_zarr.report.comparison.pictures import (
    Limits,
    Slice,
    draw_field,
    error_limits,
    even_places,
    field_limits,
)
from moec_zarr.report.page.slices import Pair, sample_slices


def test_limits_of_a_signed_field_lie_evenly_about_zero() -> None:
    values = np.linspace(-2, 5, 1001)
    limits = field_limits(values)
    assert limits.signed
    assert limits.low == -limits.high
    assert limits.high == pytest.approx(5, abs=0.01)
    assert not field_limits(values + 1.5).signed  # from -0.5 to 6.5 there is a sign, but no balance
    assert not field_limits(np.full((3, 3), np.nan)).signed


def test_limits_leave_out_the_extremes_and_arrows_say_so() -> None:
    values = np.concatenate([np.linspace(0, 1, 100_000), [50.0]])
    limits = field_limits(values)
    assert limits.high < 1.01
    assert limits.arrows(values) == "both"
    assert limits.arrows(np.array([0.5, 50.0])) == "max"
    assert limits.arrows(np.array([-3.0, 0.5])) == "min"
    assert limits.arrows(np.array([0.5, np.nan])) == "neither"
    error = error_limits(values)
    assert error.low == -error.high


def test_limits_of_what_hardly_varies_hold_all_of_it() -> None:
    few = np.zeros(10_000)
    few[0] = 3.0
    assert field_limits(few) == Limits(low=0.0, high=3.0, signed=False)
    assert error_limits(few).high == 3.0
    assert error_limits(np.zeros(5)).high == 1.0


def axes_of(field: xr.DataArray | NDArray[np.float64]):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    values = np.asarray(field, np.float64)
    draw_field(axes, Slice.of(field, values), field_limits(values), units="K")
    figure.canvas.draw()
    return axes


def test_axes_show_coordinates_to_the_edges_of_the_voxels() -> None:
    coords = {"lat": ("lat", [60.0, 50, 40], {"units": "degrees_north"}),
              "lon": ("lon", [0.0, 10, 20, 30], {"units": "degrees_east"})}  # fmt: skip
    axes = axes_of(xr.DataArray(np.eye(3, 4), dims=("lat", "lon"), coords=coords))
    assert axes.get_xlim() == (-5, 35)
    assert axes.get_ylim() == (35, 65)  # north is up though the first row is the northernmost
    assert axes.get_aspect() == 1
    assert axes.get_ylabel() == "lat (degrees_north)"
    (image,) = axes.get_images()
    left, right, bottom, top = image.get_extent()
    assert (left, right, bottom, top) == (-5, 35, 65, 35)


def test_axes_of_some_voxels_without_coordinates_count_those_of_the_whole() -> None:
    """A large array: the middle of a slice, of which every second column is drawn."""
    whole = xr.DataArray(np.zeros((2, 600, 1400)), dims=("z", "y", "x"))
    sample = sample_slices(Pair(decoded=whole, original=whole, missing=None), 1, None, {})
    view = sample.views[0]
    for field in (view.original, view.decoded, view.error):
        figure = Figure()
        axes = figure.subplots()
        draw_field(axes, field, field_limits(field.values), units="")
        assert axes.get_xlim() == (188 - 2, 188 + 1024 - 2)  # of the middle 1024 of 1400 every fourth
        assert axes.get_ylim() == (600 - 1, -1)  # every second
        assert field.x.place(3) == "index 200"


def test_depth_grows_downwards_and_unlike_units_are_not_of_one_scale() -> None:
    coords = {"depth": ("depth", [0.0, 10, 20], {"units": "m", "positive": "down"}),
              "x": ("x", [0.0, 1, 2, 3], {"units": "km"})}  # fmt: skip
    axes = axes_of(xr.DataArray(np.eye(3, 4), dims=("depth", "x"), coords=coords))
    assert axes.get_ylim() == (25, -5)
    assert axes.get_aspect() == "auto"


def test_uneven_coordinates_label_their_voxels() -> None:
    coords = {"p": ("p", [1000.0, 850, 500, 200, 10], {"units": "hPa"}),
              "time": np.arange("2000-01-01", "2000-01-07", dtype="M8[D]").astype("M8[ns]")}  # fmt: skip
    axes = axes_of(xr.DataArray(np.ones((5, 6)), dims=("p", "time"), coords=coords))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1000", "850", "500", "200", "10"]
    assert axes.get_xticklabels()[0].get_text() == "2000-01-01"


def test_an_image_without_coordinates_stands_as_images_do() -> None:
    axes = axes_of(np.eye(8))
    low, high = axes.get_ylim()
    assert low > high  # the first row is at the top
    assert axes.get_xlabel() == "axis 1 (index)"


def test_mathematics_in_names_is_text() -> None:
    field = xr.DataArray(np.eye(4), dims=("$\\frac{", "x"), attrs={"units": "$^{"})
    assert axes_of(field).get_ylabel() == "$\\frac{ (index)"


@pytest.mark.parametrize(
    ("length", "places"), [(1, [0]), (4, [0, 1, 2, 3]), (12, [0, 3, 6, 9]), (13, [0, 3, 6, 9, 12])]
)
def test_ticks_are_at_even_steps(length: int, places: list[int]) -> None:
    assert even_places(length, 5) == places
