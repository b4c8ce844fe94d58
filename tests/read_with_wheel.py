"""Run by ``make wheel``, in an environment that has the wheel and no extra: a reader needs no more."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import zarr

STORE = Path(__file__).parent.parent / "docs" / "zarr-extension" / "sample.zarr"

for absent in ("torch", "numba", "scipy", "xarray", "typer"):
    assert find_spec(absent) is None, f"{absent} is installed; this environment should have the wheel alone"
array = zarr.open_array(STORE, mode="r")  # without an import of the package
i, j, k = np.indices(array.shape)
expected = 100 * np.sin((i + 2 * j + 3 * k) / 12)
assert np.abs(array[:] - expected).max() <= 0.25 + 1e-5
assert np.array_equal(array[1, 3:5], array[:][1, 3:5])

import moec_zarr  # noqa: E402

assert "site-packages" in moec_zarr.__file__, moec_zarr.__file__
print(f"moec_zarr {moec_zarr.__version__} reads a store from {moec_zarr.__file__}")
