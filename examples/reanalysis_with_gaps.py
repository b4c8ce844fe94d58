# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""Missing values and a bound on the error: ``python examples/reanalysis_with_gaps.py [FOLDER]``.

Sea surface temperature as a reanalysis has it: hourly, and NaN over land. NaN is kept exactly, and no
value over the sea is farther from the original than the bound. Writes ``sst.png``.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.report.comparison.plot import plot_comparison

BOUND = 0.05  # kelvin


def sea_surface_temperature() -> xr.Dataset:
    """A day over an ocean with two islands."""
    hours, lat, lon = np.arange(24), np.linspace(-30, 30, 40), np.linspace(0, 80, 56)
    t, y, x = np.meshgrid(hours, lat, lon, indexing="ij")
    sst = 300 - 0.004 * y**2 + 1.5 * np.sin(x / 9 + t / 24) * np.cos(y / 7) + 0.2 * np.sin(t * np.pi / 12)
    island = ((x - 20) ** 2 + (y - 5) ** 2 < 80) | ((x - 60) ** 2 + (y + 12) ** 2 < 120)
    sst = np.where(island, np.nan, sst).astype("f4")
    attrs = {"units": "K", "long_name": "sea surface temperature"}
    return xr.Dataset(
        {"sst": (("time", "lat", "lon"), sst, attrs)},
        {"time": xr.date_range("2026-01-01", periods=24, freq="h"), "lat": lat, "lon": lon},
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ds = sea_surface_temperature()
    codec = MoECCodec(max_error=BOUND, effort="fast")
    ds.to_zarr(folder / "sst.zarr", mode="w", encoding=moec_zarr.encoding(ds, codec), consolidated=False)

    again = xr.open_zarr(folder / "sst.zarr", consolidated=False).load()
    result = moec_zarr.compare(ds.sst, again.sst)
    assert result.max_error <= BOUND
    assert np.array_equal(np.isnan(ds.sst), np.isnan(again.sst))
    streams = sum(path.stat().st_size for path in (folder / "sst.zarr/sst/c").rglob("*") if path.is_file())
    ratio = ds.sst.nbytes / streams
    print(f"{ratio:.0f} times smaller, largest error {result.max_error:.3f} K, NaN where it was")
    plot_comparison(ds.sst, again.sst, folder / "sst.png", ratio=ratio, psnr=result.psnr)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "reanalysis_with_gaps"))
