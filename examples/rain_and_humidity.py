# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
r"""Rain and humidity under the right targets: ``python examples/rain_and_humidity.py [FOLDER]``.

A month of a simulation. In the stratosphere specific humidity is a two-thousandth of that at the ground, and
on most days a place has no rain: an error that is small beside the largest value is not small here. The month
is converted with bounds on the relative error, and beside it with a PSNR that sounds good. Levels, wet
days, sums and zeros are looked at before and after. Writes ``rain.png``, and ``report.html`` with the
verdict. The command line does the same:

    moec-zarr convert FOLDER/month.nc FOLDER/archive.zarr --effort fast --chunks plev=8 \
        --var hus:max_relative_error=0.01 --var pr:max_relative_error=0.002,max_error=1e-7,exact=0
    moec-zarr report FOLDER/archive.zarr --against FOLDER/month.nc -o FOLDER/report.html
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.report.comparison.plot import plot_comparison

DAY = 86400  # s
WET = 1 / DAY  # 1 mm a day, in kg m-2 s-1
GRAVITY = 9.80665  # m s-2
LEVELS = np.array([100000, 85000, 70000, 50000, 30000, 20000, 10000, 5000], "f8")  # Pa

# Humidity within 1 %. Rain within 0.2 %, for the count of days with 20 mm, or within 1e-7 kg m-2 s-1, 0.009
# mm a day: so much may become none. None stays none.
RIGHT = {
    "hus": MoECCodec(max_relative_error=0.01, effort="fast"),
    "pr": MoECCodec(max_relative_error=0.002, max_error=1e-7, exact=0, effort="fast"),
}
WRONG = {"hus": MoECCodec(psnr=70, effort="fast"), "pr": MoECCodec(psnr=70, effort="fast")}


def weather(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise with long and short waves that drifts eastwards day by day; mean 0, standard deviation 1."""
    field = np.zeros(shape)
    edges = ["reflect"] * (len(shape) - 1) + ["wrap"]
    for share, days, width in ((1.0, 2.0, 4.0), (0.3, 0.7, 1.2)):
        widths = [days, *[1.0] * (len(shape) - 3), width, width]
        noise = gaussian_filter(rng.normal(size=shape), widths, mode=edges)
        field += share * noise / noise.std()
    return np.stack([np.roll(step, 2 * day, axis=-1) for day, step in enumerate(field)]) / field.std()


def simulate_month(rows: int = 24, columns: int = 48) -> xr.Dataset:
    """Simulate 31 days of specific humidity at eight pressure levels, and of rain."""
    rng = np.random.default_rng(0)
    lat = np.linspace(-86.25, 86.25, rows)
    polar = np.sin(np.radians(lat))[:, None] ** 2
    pressure = LEVELS[:, None, None]

    air = weather(rng, (31, len(LEVELS), rows, columns))
    temperature = np.maximum(300 * (pressure / 1e5) ** 0.19 - 40 * polar * pressure / 1e5, 200) + 2 * air
    saturated = 0.622 * 611 * np.exp(17.27 * (temperature - 273.15) / (temperature - 35.85)) / pressure
    relative = np.exp(0.4 * weather(rng, air.shape) - 0.5).clip(max=1)
    hus = np.where(pressure > 15000, saturated * relative, 3e-6 * (1 + 0.1 * air))

    clouds = weather(rng, (31, rows, columns)) + 0.3 * air[:, 1] - 0.2
    pr = 10 * np.maximum(clouds, 0) ** 2 * (1 - 0.9 * polar) / DAY

    return xr.Dataset(
        {
            "hus": (("time", "plev", "lat", "lon"), hus.astype("f4"),
                    {"standard_name": "specific_humidity", "units": "kg kg-1"}),
            "pr": (("time", "lat", "lon"), pr.astype("f4"),
                   {"standard_name": "precipitation_flux", "units": "kg m-2 s-1"}),
        },
        {
            "time": xr.date_range("2026-01-01", periods=31),
            "plev": ("plev", LEVELS, {"standard_name": "air_pressure", "units": "Pa", "positive": "down"}),
            "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", np.arange(columns) * 360 / columns,
                    {"standard_name": "longitude", "units": "degrees_east"}),
        },
    )  # fmt: skip


def look(original: xr.Dataset, archive: xr.Dataset) -> dict[str, str]:
    """Work out what such a month is analysed for, and how far it is off."""
    x, y = original.astype("f8"), archive.astype("f8")
    found = {f"{name}: times smaller": f"{archive[name].attrs['moec_zarr_ratio']:.1f}" for name in RIGHT}

    error = y.hus - x.hus
    for level in LEVELS:
        values, off = x.hus.sel(plev=level), error.sel(plev=level)
        rms, largest = np.sqrt((off**2).mean()) / values.mean(), abs(off / values).max()
        found[f"hus at {level / 100:g} hPa: error over the mean, largest"] = f"{rms:.2%}, {largest:.1%}"
    layers = -xr.DataArray(np.gradient(LEVELS), dims="plev") / GRAVITY  # kg m-2, of what is around a level
    columns = [(ds.hus * layers).sum("plev") for ds in (x, y)]
    found["water in a column, mean before and after"] = " ".join(f"{each.mean():.4f}" for each in columns)
    found["    any column off by at most"] = f"{abs(columns[1] / columns[0] - 1).max():.2%}"

    none, wet, still_wet = x.pr == 0, x.pr >= WET, y.pr >= WET
    dry = [ds.pr.where(none, 1) == 0 for ds in (x, y)]
    found["days without rain, and how many stayed so"] = " ".join(f"{days.sum().item()}" for days in dry)
    found["days with 1 mm or more, before and after"] = f"{wet.sum().item()} {still_wet.sum().item()}"
    found["    crossed 1 mm, of all days"] = f"{(wet != still_wet).sum().item()} of {wet.size}"
    sums = [DAY * ds.pr.sum("time") for ds in (x, y)]
    found["rain of the month in mm, mean before and after"] = " ".join(f"{each.mean():.4f}" for each in sums)
    found["    any place off by at most"] = f"{abs(sums[1] - sums[0]).max():.3f}"
    found["smallest value of both"] = f"{y.to_array().min():g}"
    return found


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    simulate_month().to_netcdf(folder / "month.nc")

    # A chunk has whole columns, for those who read profiles. A PSNR alone would have each level in its own.
    whole = {"plev": len(LEVELS)}
    for name, codecs in (("archive", RIGHT), ("wrong", WRONG)):
        moec_zarr.convert(folder / "month.nc", folder / f"{name}.zarr", codecs, chunks=whole, workers=1)

    original = xr.open_dataset(folder / "month.nc").load()
    archive = xr.open_zarr(folder / "archive.zarr", consolidated=False).load()
    wrong = xr.open_zarr(folder / "wrong.zarr", consolidated=False).load()
    right, beside = look(original, archive), look(original, wrong)
    print(f"{'':50}{'bounds':>18}{'70 dB':>18}")
    for name in right:
        print(f"{name:50}{right[name]:>18}{beside[name]:>18}")

    for name, ds in (("bounds", archive), ("70 dB", wrong)):
        print(f"\n{name}:", *moec_zarr.judge(original, ds).values(), sep="\n")

    # What the targets guarantee, of every value. What is printed above is measured, and follows from it.
    assert (abs(archive.hus.astype("f8") - original.hus) <= 0.01 * original.hus).all()
    assert (abs(archive.pr.astype("f8") - original.pr) <= np.maximum(1e-7, 0.002 * original.pr)).all()
    assert (archive.pr.where(original.pr == 0, 0) == 0).all()
    assert archive.pr.min() >= 0
    assert archive.hus.min() > 0

    plot_comparison(original.pr, archive.pr, folder / "rain.png", ratio=archive.pr.attrs["moec_zarr_ratio"])
    moec_zarr.write_report(folder / "archive.zarr", folder / "report.html", against=folder / "month.nc")


# The workers of the cluster import this file, and must not convert too.
if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "rain_and_humidity"))
