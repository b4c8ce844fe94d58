import math
import tracemalloc

import numpy as np
import pytest
from tests.conformance import reference_decoder
from tests.support.decoders import both
from hypothesis import given, settings
from hypothesis import strategies as st

from moec_zarr.bitstream.masks import decode_mask, encode_mask
from moec_zarr.errors import CorruptStreamError

SMALL = settings(max_examples=60, deadline=None)
SHAPES = st.lists(st.integers(0, 6), max_size=5).map(tuple)


@SMALL
@given(SHAPES, st.sampled_from([0, 0.05, 0.5, 1]), st.integers(0, 99))
def test_masks_come_back(shape, share, seed):
    mask = np.random.default_rng(seed).random(shape) < share
    data = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data, shape), mask)
    np.testing.assert_array_equal(reference_decoder.read_mask(data, shape), mask)


@pytest.mark.parametrize("shape", [(5000,), (1200, 3, 1, 2), (2, 5000)])
def test_long_thin_masks_come_back(shape):
    mask = np.random.default_rng(0).random(shape) < 0.2
    data = encode_mask(mask)
    assert data[0] & 0x80
    np.testing.assert_array_equal(decode_mask(data, shape), mask)
    np.testing.assert_array_equal(reference_decoder.read_mask(data, shape), mask)


@pytest.mark.parametrize("axis", range(3))
def test_a_mask_constant_along_an_axis_costs_what_one_slice_does(axis):
    plane = np.random.default_rng(0).random((30, 30)) < 0.5
    mask = np.repeat(np.expand_dims(plane, axis), 12, axis)
    assert len(encode_mask(mask)) == len(encode_mask(np.expand_dims(plane, axis)))
    decoded = decode_mask(encode_mask(mask), mask.shape)
    np.testing.assert_array_equal(decoded, mask)


def test_masks_are_small():
    rng = np.random.default_rng(0)
    noise = rng.random((40, 40, 40)) < 0.1
    entropy = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9)) * noise.size / 8
    assert len(encode_mask(noise)) < 1.1 * entropy
    x, y, z = np.ogrid[-1:1:40j, -1:1:40j, -1:1:40j]
    ball = x**2 + y**2 + z**2 < 0.5
    assert len(encode_mask(ball)) < 500  # of 8,000 as bits
    assert len(encode_mask(np.ones((40, 40, 40), bool))) <= 5


def test_every_prefix_of_a_mask_is_corrupt_or_a_mask():
    for shape in (6, 7, 8), (9000,):
        mask = np.random.default_rng(0).random(shape) < 0.3
        data = encode_mask(mask)
        with pytest.raises(CorruptStreamError):
            decode_mask(b"", shape)
        for length in range(1, len(data), 1 + len(data) // 200):
            try:
                decoded = decode_mask(data[:length], shape)
            except CorruptStreamError:
                continue
            assert decoded.shape == shape
            assert not np.array_equal(decoded, mask)


def test_words_that_no_encoder_writes_are_corrupt():
    with pytest.raises(CorruptStreamError, match="words"):
        decode_mask(b"\0" + b"\xff" * 16, (4, 4))


@SMALL
@given(st.binary(max_size=40), st.sampled_from([(), (3,), (2, 3), (3, 2, 4), (5000,)]))
def test_any_bytes_decode_to_a_mask_or_are_corrupt(data, shape):
    if found := both(lambda: decode_mask(data, shape), lambda: reference_decoder.read_mask(data, shape)):
        np.testing.assert_array_equal(*found)


def test_memory_of_a_mask_follows_its_shape():
    shape = (64, 64, 64)
    data = encode_mask(np.random.default_rng(0).random(shape) < 0.01)
    tracemalloc.start()
    try:
        decode_mask(data, shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 16 * math.prod(shape)
