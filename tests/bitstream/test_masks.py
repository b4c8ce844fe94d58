import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr import compiled as compiled_module
from moec_zarr.bitstream.masks import decode_mask, encode_mask
from moec_zarr.config import config
from moec_zarr.errors import CorruptStreamError
from tests.conformance import reference_decoder
from tests.support.decoders import decode_with_both
from tests.support.strategies import FEW, mask_shapes


@FEW
@given(mask_shapes, st.sampled_from([0, 0.05, 0.5, 1]), st.integers(0, 99))
def test_mask_round_trip(shape, share, seed):
    mask = np.random.default_rng(seed).random(shape) < share
    data = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data, shape), mask)
    np.testing.assert_array_equal(reference_decoder.read_mask(data, shape), mask)


@pytest.mark.parametrize("shape", [(5000,), (1200, 3, 1, 2), (2, 5000)])
def test_long_thin_mask_round_trip(shape):
    mask = np.random.default_rng(0).random(shape) < 0.2
    data = encode_mask(mask)
    assert data[0] & 0x80
    np.testing.assert_array_equal(decode_mask(data, shape), mask)
    np.testing.assert_array_equal(reference_decoder.read_mask(data, shape), mask)


@pytest.mark.parametrize(("length", "packed"), [(4154, False), (4155, True)])
def test_from_which_length_a_mask_is_packed(length, packed):
    """n + 2 + 4 wavefronts are too many where they are more than 4096 + n // 64."""
    mask = np.random.default_rng(0).random(length) < 0.2
    data = encode_mask(mask)
    assert bool(data[0] & 0x80) == packed
    np.testing.assert_array_equal(decode_mask(data, mask.shape), mask)
    np.testing.assert_array_equal(reference_decoder.read_mask(data, mask.shape), mask)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("shape", [(70, 1100), (9, 90, 110), (5, 3, 40, 50)])
def test_compiled_and_plain_coders_agree(shape, compiled, monkeypatch):
    """Both write the same mask, and read it: noise, and a shape with long runs."""
    rng = np.random.default_rng(1)
    monkeypatch.setattr(compiled_module, "_FROM", 0)
    for mask in rng.random(shape) < 0.3, np.add.outer(rng.random(shape[0]), np.zeros(shape[1:])) < 0.4:
        data = encode_mask(mask)
        with config.set(compiled=compiled):
            assert encode_mask(mask) == data
            np.testing.assert_array_equal(decode_mask(data, shape), mask)
            with pytest.raises(CorruptStreamError, match="words"):
                decode_mask(data[:1] + b"\xff" * 64, shape)


@pytest.mark.parametrize("axis", range(3))
def test_mask_constant_along_an_axis_has_the_size_of_one_slice(axis):
    plane = np.random.default_rng(0).random((30, 30)) < 0.5
    mask = np.repeat(np.expand_dims(plane, axis), 12, axis)
    assert len(encode_mask(mask)) == len(encode_mask(np.expand_dims(plane, axis)))
    decoded = decode_mask(encode_mask(mask), mask.shape)
    np.testing.assert_array_equal(decoded, mask)


def test_size_is_close_to_the_entropy():
    rng = np.random.default_rng(0)
    noise = rng.random((40, 40, 40)) < 0.1
    entropy = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9)) * noise.size / 8
    assert len(encode_mask(noise)) < 1.1 * entropy
    x, y, z = np.ogrid[-1:1:40j, -1:1:40j, -1:1:40j]
    ball = x**2 + y**2 + z**2 < 0.5
    assert len(encode_mask(ball)) < 500  # of 8,000 as bits
    assert len(encode_mask(np.ones((40, 40, 40), bool))) <= 5


def test_prefix_of_a_mask_is_corrupt_or_another_mask():
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


def test_invalid_words_are_corrupt():
    with pytest.raises(CorruptStreamError, match="words"):
        decode_mask(b"\0" + b"\xff" * 16, (4, 4))


@FEW
@given(st.binary(max_size=40), st.sampled_from([(), (3,), (2, 3), (3, 2, 4), (5000,)]))
def test_any_bytes_are_a_mask_or_corrupt(data, shape):
    results = decode_with_both(
        lambda: decode_mask(data, shape), lambda: reference_decoder.read_mask(data, shape)
    )
    if results:
        np.testing.assert_array_equal(*results)


def test_memory_is_proportional_to_the_shape():
    shape = (64, 64, 64)
    data = encode_mask(np.random.default_rng(0).random(shape) < 0.01)
    tracemalloc.start()
    try:
        decode_mask(data, shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 16 * math.prod(shape)
