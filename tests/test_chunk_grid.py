"""Chunks of a grid against zarr's own chunks and against a brute-force cut."""

import numpy as np
import pytest
import zarr

from moec_zarr.chunk_grid import ChunkGrid


@pytest.mark.parametrize(
    ("shape", "chunk"), [((7, 5), (3, 2)), ((6,), (3,)), ((4, 1, 9), (5, 1, 4)), ((), ()), ((0, 3), (2, 2))]
)
def test_regions_cover_each_voxel_once(shape, chunk):
    grid = ChunkGrid(shape, chunk)
    seen = np.zeros(shape, int)
    for index in grid.indices():
        seen[grid.region(index)] += 1
    np.testing.assert_array_equal(seen, 1)
    assert len(list(grid.indices())) == len(grid)
    assert [grid.index(number) for number in range(len(grid))] == list(grid.indices())


@pytest.mark.parametrize("shards", [None, (6, 4)])
def test_objects_are_those_that_zarr_stores(shards):
    files: dict = {}
    store = zarr.storage.MemoryStore(files)
    array = zarr.create_array(store, shape=(13, 9), chunks=(3, 2), shards=shards, dtype="f4")
    array[:] = 1
    stored = {key for key in files if key != "zarr.json"}
    assert {array.metadata.encode_chunk_key(i) for i in ChunkGrid.of_objects(array).indices()} == stored


def test_spread_reaches_from_the_first_to_the_last():
    grid = ChunkGrid((100, 10), (10, 5))
    assert list(grid.spread(99)) == list(grid.indices())
    some = list(grid.spread(4))
    assert (some[0], some[-1], len(some)) == ((0, 0), (9, 1), 4)
