"""What a reader sees who has zarr and not this package."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec
from tests.support.bare import python_without_package

PAGE = Path(__file__).parents[2] / "docs" / "libraries.md"
CODEC = MoECCodec(ratio=2, effort="fast")
NAMES = {2: "'moec'", 3: "'moec_zarr.moec'"}
OPENERS = {
    "array": "import zarr; zarr.open_array(sys.argv[1] + '/field', mode='r')",
    "group": "import zarr; zarr.open_group(sys.argv[1], mode='r')['field']",
    "xarray": "import xarray; xarray.open_zarr(sys.argv[1], consolidated=False)",
}


@pytest.fixture(params=[2, 3])
def store(request, tmp_path):
    """A group of a compressed field and a lossless coordinate."""
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=request.param)
    chosen = {"compressors": CODEC}
    names = {}
    if request.param == 3:
        chosen, names = {"serializer": CODEC.serializer(), "compressors": None}, {"dimension_names": ("x",)}
    field = group.create_array("field", shape=(64,), dtype="f4", **chosen, **names)
    field[:] = np.zeros(64, "f4")
    coordinate = group.create_array("x", shape=(64,), dtype="i4", **names)
    coordinate[:] = np.arange(64)
    for array in (field, coordinate):
        array.attrs["_ARRAY_DIMENSIONS"] = ["x"]
    return request.param, tmp_path / "s.zarr"


@pytest.mark.parametrize("opener", OPENERS)
def test_the_error_names_the_codec(store, tmp_path, opener):
    if importlib.util.find_spec(opener) is None and opener == "xarray":
        pytest.skip("xarray is not installed")
    zarr_format, path = store
    command = python_without_package(tmp_path / "bare", OPENERS[opener])
    done = subprocess.run([*command, str(path)], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert NAMES[zarr_format] in last
    page = PAGE.read_text()
    if f"zarr {zarr.__version__}" in page:
        _, _, message = last.partition("Error: ")
        assert message.split(". ")[0] in page


def test_lossless_arrays_can_be_read_by_themselves(store, tmp_path):
    _, path = store
    code = "import zarr; print(zarr.open_array(sys.argv[1] + '/x', mode='r')[:].sum())"
    command = python_without_package(tmp_path / "bare", code)
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == sum(range(64))
