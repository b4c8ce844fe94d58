"""Parts of stored arrays are the parts of what all of them decodes to."""

import numpy as np
import pytest
import zarr

from tests.support.fields import assert_near

BASIC = [
    (),
    (3,),
    (3, 5, 7),
    (-1, slice(None), -1),
    (slice(1, 6, 3), slice(None, None, 5), slice(14, 19)),
    (slice(3, 5), 0, slice(15, 17)),
    (Ellipsis, slice(None, None, 7)),
    (slice(5, 5),),
]


@pytest.mark.parametrize("selection", BASIC, ids=str)
def test_basic_selection(stored, selection):
    path, full = stored
    assert_near(np.asarray(zarr.open_array(path, mode="r")[selection]), np.asarray(full[selection]))


def test_advanced_selections(stored):
    path, full = stored
    array = zarr.open_array(path, mode="r")
    rows, columns, planes = [1, 5, 3], [0, 11], [19, 5, 15, 16]
    assert_near(array.oindex[rows, columns, planes], full[np.ix_(rows, columns, planes)])
    assert_near(array.oindex[rows, 2:9:2, 4], full[rows, 2:9:2, 4])
    assert_near(array.oindex[:, np.arange(12) % 5 == 0, :], full[:, ::5])
    assert_near(array.oindex[np.arange(6) % 3 > 0, :, 1:18:4], full[np.arange(6) % 3 > 0, :, 1:18:4])
    assert_near(array.oindex[np.arange(6) > 6], full[:0])
    points = [0, 5, 3, 3], [0, 11, 1, 1], [0, 19, 17, 2]
    assert_near(array.vindex[points], full[points])
    assert_near(array[rows], full[rows])
    mask = full > np.quantile(full, 0.99)
    assert_near(array[mask], full[mask])
    block = tuple(slice(0, extent) for extent in array.shards or array.chunks)
    assert_near(array.blocks[0, 0, 0], full[block])
