"""Run by ``make wheel`` and ``make release``: does an environment with the wheel and an extra do its part?

``python -I tests/smoke.py base`` reads, ``encode`` writes transforms too, and ``all`` writes networks and
converts a file on the command line.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import zarr

SAMPLES = Path(__file__).parent.parent / "docs" / "zarr-extension" / "sample_data"
ABSENT = {
    "base": ("numba", "scipy", "torch", "typer", "xarray"),
    "encode": ("torch", "typer", "xarray"),
    "all": (),
}


def field(*shape: int) -> np.ndarray:
    i, j, k = np.indices(shape)
    return (100 * np.sin((i + 2 * j + 3 * k) / 12)).astype("f4")


def read() -> None:
    for name in "max_error", "dictionary":
        array = zarr.open_array(SAMPLES / f"{name}.zarr", mode="r")  # without an import of the package
        values, expected = array[:], field(*array.shape)
        expected[np.isnan(values)] = np.nan
        assert np.nanmax(np.abs(values - expected)) <= 0.25 + 1e-5
        assert np.array_equal(array[1, 3:5], values[1, 3:5], equal_nan=True)


def write(folder: Path, **parameters: object) -> None:
    data = field(16, 24, 32)
    codec = moec_zarr.MoECCodec(effort="fast", **parameters)
    for zarr_format in 2, 3:
        array = moec_zarr.open(
            folder / f"{zarr_format}.zarr", mode="w", shape=data.shape, chunks=data.shape, dtype=data.dtype,
            compressor=codec, zarr_format=zarr_format,
        )  # fmt: skip
        array[:] = data
        again = zarr.open_array(folder / f"{zarr_format}.zarr", mode="r")
        assert again.nbytes_stored() < data.nbytes / 10
        assert np.abs(again[:] - data).max() < 5


def convert(folder: Path) -> None:
    import xarray as xr

    data = xr.Dataset({"f": (("t", "y", "x"), field(16, 24, 32))})
    data.to_netcdf(folder / "in.nc")
    command = Path(sys.executable).parent / "moec-zarr"
    for arguments in (
        ("--version",),
        ("convert", folder / "in.nc", folder / "out.zarr", "--max-error", "0.5", "--effort", "fast"),
        ("verify", folder / "out.zarr", "--against", folder / "in.nc"),
        ("report", folder / "out.zarr", "--against", folder / "in.nc", "-o", folder / "report.html"),
    ):
        subprocess.run([command, *arguments], check=True, stdout=subprocess.DEVNULL)
    with xr.open_zarr(folder / "out.zarr") as out:
        assert float(abs(out.f - data.f).max()) <= 0.5


extra = sys.argv[1]
for absent in ABSENT[extra]:
    assert find_spec(absent) is None, f"{absent} is installed; this environment should have [{extra}] alone"
read()

import moec_zarr  # noqa: E402

assert "site-packages" in moec_zarr.__file__, moec_zarr.__file__
assert moec_zarr.__version__ == version("moec-zarr")
with tempfile.TemporaryDirectory() as temporary:
    if extra != "base":
        write(Path(temporary), max_error=1)
    if extra == "all":
        write(Path(temporary), ratio=30, experts=2)
        convert(Path(temporary))
print(f"moec_zarr {moec_zarr.__version__} [{extra}] works in {moec_zarr.__file__}")
