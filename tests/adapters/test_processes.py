"""Stores are read by processes that know nothing of the package, and have no torch."""

import pytest

import moec_zarr
from moec_zarr import MoECCodec
from tests.adapters.layouts import CHUNK
from tests.support.processes import run_python

NO_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails
"""

READ = """
import zarr
array = zarr.open_array(sys.argv[1], mode="r")
assert array[3, 4:6].shape == (2, 20)
assert array[:].shape == array.shape
assert "torch" not in sys.modules or sys.modules["torch"] is None
"""

READ_WITH_DASK = """
import xarray as xr
for path in sys.argv[1:]:
    ds = xr.open_zarr(path, consolidated=False)
    assert ds.t.chunks is not None
    assert ds.t.mean().compute() > 0
assert "torch" not in sys.modules or sys.modules["torch"] is None
assert "moec_zarr" in sys.modules
"""


@pytest.mark.parametrize("prologue", ["import sys", NO_TORCH], ids=["plain", "without torch"])
def test_a_fresh_process_finds_the_codec(stored, prologue):
    run_python(prologue + READ, stored[0])


def test_xarray_and_dask_read_without_torch(tmp_path):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("dask")
    ds = xr.Dataset({"t": (("z", "y", "x"), CHUNK)})
    codec = MoECCodec(ratio=10, effort="fast")
    for zarr_format in (2, 3):
        entries = moec_zarr.encoding(ds, codec, zarr_format=zarr_format)
        assert list(entries) == ["t"]
        ds.to_zarr(tmp_path / f"{zarr_format}", zarr_format=zarr_format, encoding=entries, consolidated=False)
    run_python(NO_TORCH + READ_WITH_DASK, tmp_path / "2", tmp_path / "3")
