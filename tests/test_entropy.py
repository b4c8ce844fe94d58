import math
import tracemalloc

import numpy as np
import pytest
import stranger
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from moec_zarr.entropy import (
    decode_groups,
    decode_mask,
    encode_groups,
    encode_mask,
    frequencies,
    read_varint,
    write_varint,
)
from moec_zarr.errors import CorruptStreamError

GROUPS = st.lists(
    st.one_of(
        st.lists(st.integers(-3, 3), max_size=50),
        st.lists(st.integers(-500, 500), max_size=20),
        st.integers(0, 50).map(lambda n: [0] * n),
    ),
    max_size=5,
)
SMALL = settings(max_examples=60, deadline=None)


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3))
def test_varints_come_back(value, behind):
    data = write_varint(value)
    assert len(data) == max(1, math.ceil(value.bit_length() / 7))
    assert read_varint(b"x" + data + behind, 1) == (value, 1 + len(data))
    assert stranger.Bytes(data).varint() == value
    for length in range(len(data)):
        with pytest.raises(CorruptStreamError):
            read_varint(data[:length], 0)


# ------------------------------------------------------------------------------- integers


@SMALL
@given(GROUPS)
@example([[0, 2**15 - 1, -5], [], [1 - 2**15]])
def test_integers_come_back(groups):
    arrays = [np.array(group, np.int64) for group in groups]
    data = encode_groups(arrays)
    sizes = [len(group) for group in groups]
    assert [group.tolist() for group in decode_groups(data, sizes)] == groups
    assert stranger.read_integers(stranger.Bytes(data), sizes) == groups


def test_integers_too_large_are_not_coded():
    with pytest.raises(OverflowError, match="32768"):
        encode_groups([np.array([1, -(2**15)])])


@pytest.mark.parametrize("largest", [1, 2, 7, 300, 2**15 - 1])
def test_frequencies_are_those_of_the_page(largest):
    tails = [0, 31, 32 * 3 + 9, 32 * 7, 255]
    half = frequencies(largest, np.array(tails))
    assert (half > 0).all()
    assert (half[:, 0] + 2 * half[:, 1:].sum(axis=1) == 2**24).all()
    assert (np.diff(half, axis=1) <= 0).all()
    for row, code in zip(half, tails, strict=True):
        table = stranger.starts(largest, code)
        assert (table[0], table[-1]) == (0, 2**24)
        np.testing.assert_array_equal(np.diff(table)[largest:], row)
        np.testing.assert_array_equal(np.diff(table)[: largest + 1], row[::-1])


@pytest.mark.parametrize("code", [4, 40, 32 * 3, 32 * 5 + 20, 255])
@pytest.mark.parametrize("largest", [40, 2000])
def test_frequencies_follow_their_density(largest, code):
    """The density that the docstring gives, in floating point."""
    m, s2 = 2 ** (code // 32), (8 - code % 4) / 8 * 2.0 ** -(code % 32 // 4)
    k = np.arange(largest + 1) / (largest + 1)
    density = (1 + k**2 / (2 * m * s2)) ** -m
    density /= density[0] + 2 * density[1:].sum()
    found = frequencies(largest, code) / 2**24
    # Twenty bits of p and what is rounded away of every frequency, all of which 0 gets.
    np.testing.assert_allclose(found[1:], density[1:], rtol=0.01, atol=1e-5 * density[0] + 2**-23)
    assert density[0] * 0.99 <= found[0] <= density[0] * 1.01 + 2 * (largest + 1) / 2**24


@pytest.mark.parametrize("deviation", [0.4, 3, 60, 3000])
@pytest.mark.parametrize("kind", ["normal", "laplace", "logistic"])
def test_bytes_are_close_to_the_entropy(kind, deviation):
    rng = np.random.default_rng(7)
    draw = getattr(rng, kind)(size=5000)
    values = np.clip(np.rint(draw / draw.std() * deviation), -32767, 32767).astype(np.int64)
    # What a coder that knows the distribution pays: its probability of each bin of width one.
    width = draw.std() / deviation
    law = {"normal": stats.norm, "laplace": stats.laplace, "logistic": stats.logistic}[kind]
    ideal = -np.log2(law.cdf((values + 0.5) * width) - law.cdf((values - 0.5) * width)).sum() / 8
    assert len(encode_groups([values])) <= 1.02 * ideal + 8


def test_every_prefix_of_integers_is_corrupt_or_other_integers():
    """Zeros are read beyond the end, so a prefix may decode: the checksum is what tells."""
    groups = [np.arange(-9, 9), np.zeros(5, int), np.array([300, -2, 7] * 20)]
    sizes = [len(group) for group in groups]
    data = encode_groups(groups)
    outcomes = set()
    for length in range(len(data)):
        try:
            decoded = decode_groups(data[:length], sizes)
        except CorruptStreamError:
            outcomes.add("corrupt")
        else:
            outcomes.add("other")
            assert [len(group) for group in decoded] == sizes
            same = [np.array_equal(a, b) for a, b in zip(decoded, groups, strict=True)]
            assert not all(same)
    assert outcomes == {"corrupt", "other"}


@SMALL
@given(st.binary(max_size=60))
def test_any_bytes_decode_to_integers_or_are_corrupt(data):
    sizes = [3, 40, 0]
    try:
        decoded = decode_groups(data, sizes)
    except CorruptStreamError:
        with pytest.raises(stranger.CorruptError):
            stranger.read_integers(stranger.Bytes(data), sizes)
    else:
        other = stranger.read_integers(stranger.Bytes(data), sizes)
        assert [group.tolist() for group in decoded] == other


def test_words_that_no_encoder_writes_are_corrupt():
    with pytest.raises(CorruptStreamError, match="words"):
        decode_groups(b"\5\x46" + b"\xff" * 16, [20])
    with pytest.raises(CorruptStreamError, match="words"):
        decode_mask(b"\0" + b"\xff" * 16, (4, 4))


# ---------------------------------------------------------------------------------- masks

SHAPES = st.lists(st.integers(0, 6), max_size=5).map(tuple)


@SMALL
@given(SHAPES, st.sampled_from([0, 0.05, 0.5, 1]), st.integers(0, 99))
def test_masks_come_back(shape, share, seed):
    mask = np.random.default_rng(seed).random(shape) < share
    data = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data, shape), mask)
    np.testing.assert_array_equal(stranger.read_mask(data, shape), mask)


@pytest.mark.parametrize("shape", [(5000,), (1200, 3, 1, 2), (2, 5000)])
def test_long_thin_masks_come_back(shape):
    mask = np.random.default_rng(0).random(shape) < 0.2
    data = encode_mask(mask)
    assert data[0] & 0x80
    np.testing.assert_array_equal(decode_mask(data, shape), mask)
    np.testing.assert_array_equal(stranger.read_mask(data, shape), mask)


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


@SMALL
@given(st.binary(max_size=40), st.sampled_from([(), (3,), (2, 3), (3, 2, 4), (5000,)]))
def test_any_bytes_decode_to_a_mask_or_are_corrupt(data, shape):
    try:
        decoded = decode_mask(data, shape)
    except CorruptStreamError:
        with pytest.raises(stranger.CorruptError):
            stranger.read_mask(data, shape)
    else:
        np.testing.assert_array_equal(decoded, stranger.read_mask(data, shape))


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
