import math

import numpy as np
import pytest
from tests.conformance import reference_decoder
from tests.support.decoders import both
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from moec_zarr.bitstream.range_coder import (
    decode_groups,
    encode_groups,
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
    assert reference_decoder.Bytes(data).varint() == value
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
    assert reference_decoder.read_integers(reference_decoder.Bytes(data), sizes) == groups


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
        table = reference_decoder.starts(largest, code)
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
    if found := both(
        lambda: decode_groups(data, sizes), lambda: reference_decoder.read_integers(reference_decoder.Bytes(data), sizes)
    ):
        decoded, other = found
        assert [group.tolist() for group in decoded] == other


def test_words_that_no_encoder_writes_are_corrupt():
    with pytest.raises(CorruptStreamError, match="words"):
        decode_groups(b"\5\x46" + b"\xff" * 16, [20])
