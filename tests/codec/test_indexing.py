import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.codec.indexing import select, take
from moec_zarr.settings import Settings

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=7)
MANY = settings(max_examples=150, deadline=None)


def numbered(shape):
    """An array in which every voxel holds another number."""
    return np.arange(np.prod(shape)).reshape(shape)


def taken(selection, array):
    """What a selection takes from an array."""
    wanted = select(selection, array.shape)
    values = take(array, wanted)
    assert values.shape == wanted.grid
    return values.reshape(wanted.shape)


@MANY
@given(st.data(), SHAPES)
def test_slices_and_numbers(data, shape):
    array = numbered(shape)
    selection = data.draw(hnp.basic_indices(shape, allow_newaxis=False))
    np.testing.assert_array_equal(taken(selection, array), array[selection])


@MANY
@given(st.data(), SHAPES)
def test_points(data, shape):
    array = numbered(shape)
    result = hnp.array_shapes(max_dims=2, max_side=6)
    selection = data.draw(hnp.integer_array_indices(shape, result_shape=result))
    np.testing.assert_array_equal(taken(selection, array), array[selection])


@MANY
@given(st.data(), SHAPES)
def test_grids(data, shape):
    array = numbered(shape)
    rows = [data.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=5)) for n in shape]
    np.testing.assert_array_equal(taken(np.ix_(*rows), array), array[np.ix_(*rows)])


@MANY
@given(st.data(), SHAPES)
def test_one_array_among_slices(data, shape):
    array = numbered(shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    rows = np.array(data.draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), max_size=5)), np.int64)
    selection = tuple(rows if a == axis else slice(None, None, 2) for a in range(len(shape)))
    np.testing.assert_array_equal(taken(selection, array), array[selection])


@MANY
@given(st.data(), SHAPES)
def test_masks(data, shape):
    array = numbered(shape)
    mask = data.draw(hnp.arrays(bool, shape))
    np.testing.assert_array_equal(taken(mask, array), array[mask])
    axis = data.draw(st.integers(0, len(shape) - 1))
    rows = data.draw(hnp.arrays(bool, shape[axis]))
    selection = tuple(rows if a == axis else slice(None, None, 2) for a in range(len(shape)))
    np.testing.assert_array_equal(taken(selection, array), array[selection])
    first = data.draw(hnp.arrays(bool, shape[:1]))
    np.testing.assert_array_equal(
        taken((first, *[0] * (len(shape) - 1)), array), array[(first, *[0] * (len(shape) - 1))]
    )


def test_everything():
    array = numbered((3, 4))
    for selection in None, (), ..., (..., slice(None)), (slice(None), ..., slice(None)):
        np.testing.assert_array_equal(taken(selection, array), array)
    assert taken(None, np.array(7)).shape == ()
    assert taken((), np.array(7)) == 7
    assert taken(None, np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    "selection",
    [
        4,
        -5,
        (0, 0, 0),
        np.array([0, 4]),
        np.array([0.5]),
        np.array([True, False, True]),
        np.ones((4, 4), bool),
        np.array(True),
        ([0, 1], 0),
        None,
        "a",
    ],
    ids=str,
)
def test_what_does_not_fit(selection):
    with pytest.raises(IndexError):
        select((selection, 0) if selection is None else selection, (4, 3))


NEAR_A_CORNER = np.zeros((3, 4, 5), "i2")
NEAR_A_CORNER[:2, :3, :4] = np.arange(24).reshape(2, 3, 4)


@MANY
@given(st.data())
def test_a_part_decoded_is_a_part_of_the_whole(data):
    for array in np.arange(60, dtype="i2").reshape(3, 4, 5), NEAR_A_CORNER:
        stream = encode(array, Settings(psnr=100))
        selection = data.draw(
            st.one_of(
                hnp.basic_indices(array.shape, allow_newaxis=False),
                hnp.integer_array_indices(array.shape, result_shape=hnp.array_shapes(max_dims=1, max_side=6)),
            )
        )
        np.testing.assert_array_equal(decode(stream, selection), array[selection])


@MANY
@given(st.data())
def test_a_grid_decoded_is_a_part_of_the_whole(data):
    """Slices of any step and arrays on some axes, in a chunk with a bounding box."""
    stream = encode(NEAR_A_CORNER, Settings(psnr=100))
    shape = NEAR_A_CORNER.shape
    rows = [np.array(data.draw(st.lists(st.integers(-n, n - 1), max_size=5)), np.int64) for n in shape]
    axis = data.draw(st.integers(0, 2))
    selection = list(data.draw(st.tuples(*map(st.slices, shape))))
    selection[axis] = rows[axis]
    np.testing.assert_array_equal(decode(stream, tuple(selection)), NEAR_A_CORNER[tuple(selection)])
    if all(len(each) for each in rows):
        np.testing.assert_array_equal(decode(stream, np.ix_(*rows)), NEAR_A_CORNER[np.ix_(*rows)])


def test_the_indices_of_a_whole_chunk_take_no_memory():
    wanted = select(None, (2**32 - 1,))
    assert wanted.grid == (2**32 - 1,)
    assert sum(map(sys.getsizeof, wanted.indices)) < 1000
