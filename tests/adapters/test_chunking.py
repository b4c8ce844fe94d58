import math
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr import BudgetError, MoECError
from moec_zarr.adapters.chunking import LEAST_BYTES, choose_chunks
from moec_zarr.settings import Settings

SHAPES = st.lists(st.integers(1, 3000), min_size=1, max_size=5).map(tuple)
DTYPES = st.sampled_from(["u1", "i2", "f4", "f8"])
SETTINGS = st.one_of(
    st.builds(lambda ratio: Settings(ratio=ratio), st.floats(1, 1e5)),
    st.just(Settings(psnr=40)),
)
RATIO = Settings(ratio=1000)


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((744, 33, 49), "f4", (744, 33, 49)),  # fits whole
        ((744, 721, 1440), "f4", (8, 721, 1440)),  # time is split, space stays whole
        ((3, 744, 721, 1440), "f4", (3, 8, 241, 1440)),  # a short axis is not split
        ((5000, 5000), "f4", (1667, 1667)),  # a transform takes at most 2048 voxels along an axis
        ((5000,), "f4", (5000,)),  # too few bytes to be split
        ((40, 700, 300, 500), "f4", (8, 8, 150, 500)),  # 8 voxels along an axis before the next is split
        ((), "f8", ()),
        ((0, 5), "f4", (1, 5)),
    ],
)
def test_choice(shape, dtype, expected):
    assert choose_chunks(shape, dtype, RATIO) == expected


@given(SHAPES, DTYPES, SETTINGS)
def test_chunks_are_within_the_array_and_about_the_target(shape, dtype, settings):
    chunk = choose_chunks(shape, dtype, settings)
    nbytes = math.prod(chunk) * np.dtype(dtype).itemsize
    whole = math.prod(shape) * np.dtype(dtype).itemsize
    assert len(chunk) == len(shape)
    assert all(1 <= extent <= length for extent, length in zip(chunk, shape, strict=True))
    assert nbytes <= max(2**25, math.ceil(2048 * (settings.ratio or 1)))
    assert chunk == shape if whole <= 2**25 and max(shape) <= 2048 else nbytes >= min(whole, 2**20)


@given(SHAPES, DTYPES, SETTINGS)
def test_pieces_of_an_axis_are_about_equal(shape, dtype, settings):
    chunk = choose_chunks(shape, dtype, settings)
    for extent, length in zip(chunk, shape, strict=True):
        pieces = math.ceil(length / extent)
        assert pieces * extent - length < pieces  # padding: less than one voxel a piece


@given(SHAPES, DTYPES, st.floats(1, 1e5))
def test_ratio_leaves_a_kilobyte_where_the_array_does(shape, dtype, ratio):
    itemsize = np.dtype(dtype).itemsize
    budget = math.prod(choose_chunks(shape, dtype, Settings(ratio=ratio))) * itemsize / ratio
    assert budget >= min(500, math.prod(shape) * itemsize / ratio)


@st.composite
def blocked(draw):
    """A shape and, for each axis, blocks as dask has them: equal but for the last one."""
    blocks = []
    for _ in range(draw(st.integers(1, 4))):
        size, count = draw(st.integers(1, 300)), draw(st.integers(0, 4))
        last = draw(st.integers(1, size))
        blocks.append((size,) * count + (last,))
    return tuple(map(sum, blocks)), tuple(blocks)


@given(blocked(), DTYPES)
def test_no_two_blocks_share_a_chunk(array, dtype):
    shape, blocks = array
    chunk = choose_chunks(shape, dtype, Settings(psnr=40), align=blocks, target_bytes=2**16)
    for extent, sizes, length in zip(chunk, blocks, shape, strict=True):
        assert 1 <= extent <= length
        assert not any(boundary % extent for boundary in np.cumsum(sizes)[:-1])
    block_shape = tuple(sizes[0] for sizes in blocks)
    assert choose_chunks(shape, dtype, Settings(psnr=40), align=block_shape, target_bytes=2**16) == chunk


def test_uneven_blocks_are_aligned_by_their_common_divisor():
    assert choose_chunks((60, 50), "f4", Settings(psnr=40), align=((12, 18, 30), (50,))) == (6, 50)


@pytest.mark.parametrize(("ratio", "pieces"), [(2e4, 25), (1e5, 5), (2e5, 3), (4e5, 2)])
def test_a_ratio_leaves_each_chunk_about_2_kb(ratio, pieces):
    """Of the fewest pieces that are no larger than that, or than the target of 32 MiB."""
    length = 100_000
    chunk = choose_chunks((length, 100, 100), "u1", Settings(ratio=ratio))
    assert chunk == (math.ceil(length / pieces), 100, 100)


@pytest.mark.parametrize("left", [299, 300])
def test_blocks_are_refused_below_300_bytes(left):
    """Of two blocks of bytes, while the whole array would leave twice as much."""
    settings = Settings(ratio=100)
    refused = pytest.raises(BudgetError, match="leaves 299 bytes; at least 300 are needed")
    with refused if left < 300 else nullcontext():
        assert choose_chunks((200, left), "u1", settings, align=(100, left)) == (100, left)


def test_small_blocks_are_refused_with_the_remedy():
    with pytest.raises(BudgetError, match=r"rechunk to \(8, 721, 1440\)"):
        choose_chunks((744, 721, 1440), "f4", RATIO, align=(1, 100, 100))
    # but not where no other block would do better
    assert math.prod(choose_chunks((10, 10), "f4", RATIO, align=(5, 10))) * 4 < LEAST_BYTES * 1000


@pytest.mark.parametrize("align", [(10,), (10, 0), ((5, 4), (10,))])
def test_blocks_of_another_array_are_refused(align):
    with pytest.raises(MoECError, match="block"):
        choose_chunks((10, 10), "f4", RATIO, align=align)
