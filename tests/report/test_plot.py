"""Pictures of an original, what was decoded, and the error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.image import imread

from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.plot import plot_comparison
from tests.report.pairs import pair
from tests.support.processes import run_python


@pytest.mark.parametrize("shape", [(20, 30), (3, 4, 20, 30), (2, 20, 1, 30)])
def test_picture_is_saved(shape: tuple[int, ...], tmp_path: Path) -> None:
    a, b = pair(shape)
    a.flat[5] = np.nan
    plot_comparison(a, b, tmp_path / "p.png", title="field", ratio=100.0, psnr=30.0)
    image = imread(tmp_path / "p.png")
    assert image.shape[0] > 600  # two rows of panels
    assert image.shape[1] > image.shape[0]


def test_picture_shows_an_error_where_it_is(tmp_path: Path) -> None:
    a = xr.DataArray(np.zeros((10, 10), "i2"), dims=("y", "x"), coords={"y": np.arange(10.0)})
    b = a.copy()
    b[:5] = 1  # the lower half: y grows upwards
    plot_comparison(a, b, str(tmp_path / "p.png"))
    image = imread(tmp_path / "p.png")[:, :, :3]
    height, width = image.shape[:2]
    x = int(width * 0.2)  # in the panel of the error, which is the one at the left below
    np.testing.assert_allclose(image[int(0.62 * height), x], 0.97, atol=0.03)  # none: white
    red, green, blue = image[int(0.85 * height), x]
    assert red > green + 0.3
    assert red > blue + 0.2


def test_picture_takes_names_from_xarray_and_any_values(tmp_path: Path) -> None:
    a, _ = pair((12, 12))
    named = xr.DataArray(a, dims=("y", "x"), name="v", attrs={"units": "K"})
    plot_comparison(named, named, tmp_path / "equal.png")
    plot_comparison(named * np.nan, named * np.nan, tmp_path / "nan.png")
    infinite = np.full((9, 9), np.inf)
    plot_comparison(infinite, infinite, tmp_path / "inf.png")
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_picture_needs_two_axes(tmp_path: Path) -> None:
    for a, b in [(np.zeros(5), np.zeros(5)), (np.zeros((5, 5)), np.zeros((5, 6)))]:
        with pytest.raises(MoECError, match="two axes longer than 1"):
            plot_comparison(a, b, tmp_path / "p.png")


def test_picture_leaves_pyplot_alone(tmp_path: Path) -> None:
    code = """
import sys
import numpy as np
from moec_zarr.report.comparison.plot import plot_comparison
a = np.eye(9)
plot_comparison(a, a, sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    run_python(code, tmp_path / "p.png")
