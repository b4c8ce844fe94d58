# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""Convert a series of NetCDF files into one compressed store: ``python examples/convert_netcdf.py [FOLDER]``.

The files are days of a small simulation. Writes ``temperature.png``, and ``report.html`` to look at before
the files are deleted. The command line does the same:

    moec-zarr convert 'FOLDER/*.nc' FOLDER/archive.zarr --ratio 10 --effort fast --chunks time=4
    moec-zarr report FOLDER/archive.zarr --against 'FOLDER/*.nc' -o FOLDER/report.html
"""

import sys
from pathlib import Path

import xarray as xr

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.demo.simulate import simulate
from moec_zarr.report.comparison.plot import plot_comparison


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    both = simulate((8, 1, 16, 16))[["temperature"]]
    for day in range(2):
        both.isel(time=slice(4 * day, 4 * day + 4)).to_netcdf(folder / f"day-{day}.nc")

    # If it is killed, the same call continues where it stopped.
    archive = moec_zarr.convert(
        f"{folder}/*.nc",
        folder / "archive.zarr",
        MoECCodec(ratio=10, effort="fast"),
        chunks={"time": 4},
        workers=2,
        progress=lambda done: print(f"{len(done.records)}/{done.plan.tasks} chunks"),
    )
    print(archive.temperature.attrs)

    # Reading needs only zarr and this package.
    with xr.open_dataset(folder / "day-1.nc") as day:
        print(moec_zarr.compare(day.temperature, archive.temperature[4:8]))
        plot_comparison(day.temperature, archive.temperature[4:8], folder / "temperature.png")
    moec_zarr.write_report(folder / "archive.zarr", folder / "report.html", against=f"{folder}/*.nc")


# The workers of the cluster import this file, and must not convert too.
if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "convert_netcdf"))
