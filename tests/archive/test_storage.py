"""Objects of a store, against the files that zarr writes."""

import numpy as np
import pytest
import zarr

from moec_zarr.archive.storage import stored_bytes


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_bytes_are_those_of_the_chunks_alone(tmp_path, zarr_format):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=zarr_format)
    array = group.create_array("a", shape=(6, 4), chunks=(3, 2), dtype="f8", attributes={"long": "x" * 5000})
    array[:] = np.random.default_rng(0).normal(size=(6, 4))
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    chunks = [path for path in files if path.name.lstrip(".")[:1].isdigit()]
    assert len(chunks) == 4
    assert stored_bytes(array) == sum(path.stat().st_size for path in chunks)
