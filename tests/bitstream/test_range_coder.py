"""Exact coding of integers, against the reference decoder and the entropy of known distributions."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moec_zarr.bitstream.range_coder import (
    TAILS,
    WIDTHS,
    decode_groups,
    encode_groups,
    frequencies,
)
from moec_zarr.errors import CorruptStreamError
from tests.conformance import reference_decoder
from tests.support.decoders import decode_with_both
from tests.support.strategies import FEW

GROUPS = st.lists(
    st.one_of(
        st.lists(st.integers(-3, 3), max_size=50),
        st.lists(st.integers(-500, 500), max_size=20),
        st.integers(0, 50).map(lambda n: [0] * n),
    ),
    max_size=5,
)
CODES = st.lists(st.integers(0, TAILS * WIDTHS - 1), min_size=5, max_size=5)


# ----------------------------------------------------------- groups with distributions of their own


@FEW
@given(GROUPS, CODES)
@example([[0, 2**15 - 1, -5], [], [1 - 2**15]], [0, 100, 255, 0, 0])
def test_groups_round_trip(groups, codes):
    data = encode_groups([np.array(group, np.int64) for group in groups], codes[: len(groups)])
    sizes = [len(group) for group in groups]
    assert [group.tolist() for group in decode_groups(data, sizes)] == groups
    assert reference_decoder.read_integers(reference_decoder.Reader(data), sizes) == groups


@pytest.mark.parametrize("largest", [1, 2, 7, 300, 2**15 - 1])
def test_frequencies_match_the_reference(largest):
    codes = [0, 31, 32 * 3 + 9, 32 * 7, 255]
    half = frequencies(largest, np.array(codes))
    assert (half > 0).all()
    assert (half[:, 0] + 2 * half[:, 1:].sum(axis=1) == 2**24).all()
    assert (np.diff(half, axis=1) <= 0).all()
    for row, code in zip(half, codes, strict=True):
        cumulative = reference_decoder.cumulative_frequencies(largest, code)
        assert (cumulative[0], cumulative[-1]) == (0, 2**24)
        np.testing.assert_array_equal(np.diff(cumulative)[largest:], row)
        np.testing.assert_array_equal(np.diff(cumulative)[: largest + 1], row[::-1])


@pytest.mark.parametrize("code", [4, 40, 32 * 3, 32 * 5 + 20, 255])
@pytest.mark.parametrize("largest", [40, 2000])
def test_frequencies_follow_their_density(largest, code):
    """The density of the docstring, in floating point."""
    m, s2 = 2 ** (code // 32), (8 - code % 4) / 8 * 2.0 ** -(code % 32 // 4)
    k = np.arange(largest + 1) / (largest + 1)
    density = (1 + k**2 / (2 * m * s2)) ** -m
    density /= density[0] + 2 * density[1:].sum()
    probability = frequencies(largest, code) / 2**24
    # p has twenty bits, and 0 gets what is rounded away of all frequencies.
    np.testing.assert_allclose(probability[1:], density[1:], rtol=0.01, atol=1e-5 * density[0] + 2**-23)
    assert density[0] * 0.99 <= probability[0] <= density[0] * 1.01 + 2 * (largest + 1) / 2**24


def test_prefix_of_groups_is_corrupt_or_other_integers():
    """Zeros are read beyond the end, so a prefix may decode: the checksum of the stream detects it."""
    groups = [np.arange(-9, 9), np.zeros(5, int), np.array([300, -2, 7] * 20)]
    sizes = [len(group) for group in groups]
    data = encode_groups(groups, [192, 0, 64])
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


@FEW
@given(st.binary(max_size=60))
def test_any_bytes_are_groups_or_corrupt(data):
    sizes = [3, 40, 0]
    results = decode_with_both(
        lambda: decode_groups(data, sizes),
        lambda: reference_decoder.read_integers(reference_decoder.Reader(data), sizes),
    )
    if results:
        decoded, expected = results
        assert [group.tolist() for group in decoded] == expected


def test_invalid_words_are_corrupt():
    with pytest.raises(CorruptStreamError, match="words"):
        decode_groups(b"\5\x46" + b"\xff" * 16, [20])
