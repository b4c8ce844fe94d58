"""Exact coding of integers, against the reference decoder and the entropy of known distributions."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moec_zarr import compiled as compiled_module
from moec_zarr.bitstream.range_coder import (
    EVEN,
    TAILS,
    WIDTHS,
    RangeDecoder,
    RangeEncoder,
    decode_groups,
    encode_groups,
    frequencies,
    zero_frequency,
)
from moec_zarr.config import config
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


# ---------------------------------------------------------------- flags and symbols

both = pytest.mark.parametrize("is_compiled", [True, False])


@pytest.fixture
def coder(is_compiled, monkeypatch):
    """The coder compiled, or in plain Python."""
    monkeypatch.setattr(compiled_module, "_FROM", 0)
    with config.set(compiled=is_compiled):
        yield


def constriction_words(rounds):
    """What the library constriction writes for rounds of (flags, chances of a one, symbols, weights)."""
    constriction = pytest.importorskip("constriction")
    encoder = constriction.stream.queue.RangeEncoder()
    bernoulli = constriction.stream.model.Bernoulli(perfect=False)
    family = constriction.stream.model.Categorical(perfect=False)
    for flags, chances, symbols, frequencies_of in rounds:
        encoder.encode(flags.astype(np.int32), bernoulli, chances)
        # Its fast quantisation adds one to each of the weights, which make 2**24 with that.
        encoder.encode(symbols.astype(np.int32), family, frequencies_of.astype(float) - 1)
    return encoder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


@both
@pytest.mark.parametrize("likely", [0.5, 1e-4])
def test_the_library_constriction_writes_the_same(coder, likely):
    rng = np.random.default_rng(1)
    rounds, encoder = [], RangeEncoder()
    for count in 1, 700, 30:
        chances = np.rint(rng.random(count) * likely * 2**16).clip(1) / 2**16
        flags = rng.random(count) < chances
        table = rng.integers(1, 1000, (5, 9))
        table[:, 0] += 2**24 - table.sum(axis=1)
        rows = rng.integers(0, 5, count)
        symbols = np.where(rng.random(count) < likely, rng.integers(0, 9, count), 0)
        rounds.append((flags, chances, symbols, table[rows]))
        encoder.flags(flags, zero_frequency(np.rint(chances * 2**24).astype(np.int64)))
        encoder.symbols(symbols, np.concatenate([np.zeros((5, 1), int), table.cumsum(axis=1)], axis=1), rows)
    assert encoder.payload() == constriction_words(rounds)


@both
@pytest.mark.parametrize("count", [1, 40, 400])
def test_a_carry_runs_through_all_words(coder, count):
    """Intervals that hold 1/2 until the last symbols: the words are 7fffffff ffffffff ... until then."""
    rng = np.random.default_rng(count)
    low, span, half = 0, 2**64 - 1, 2**63
    bits, zeros = [], []
    while len(bits) < count or low <= half:
        zero = int(rng.integers(2**20, 2**24 - 2**20))
        bound = low + (span >> 24) * zero
        bit = len(bits) >= count or bound <= half
        bits.append(int(bit))
        zeros.append(zero)
        low, span = (bound, (span >> 24) * (2**24 - zero)) if bit else (low, (span >> 24) * zero)
        if span < 2**32:
            low, span, half = low << 32, span << 32, half << 32
    encoder = RangeEncoder()
    encoder.flags(np.array(bits, bool), np.array(zeros))
    data = encoder.payload()
    assert data[3] >= 128
    reference = reference_decoder.RangeDecoder(data)
    assert [reference.symbol([0, zero, 2**24]) for zero in zeros] == bits


@both
@FEW
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 2**24 - 1)), max_size=300))
def test_any_flags_round_trip(is_compiled, pairs):
    bits, zeros = [bit for bit, _ in pairs], [zero for _, zero in pairs]
    with config.set(compiled=is_compiled):
        encoder = RangeEncoder()
        encoder.flags(np.array(bits, bool), np.array(zeros, np.int64))
        assert RangeDecoder(encoder.payload()).flags(zeros) == bits


def test_nothing_takes_no_bytes():
    encoder = RangeEncoder()
    encoder.flags(np.zeros(0, bool), np.zeros(0, np.int64))
    assert encoder.payload() == RangeEncoder().payload() == b""


def test_bits_that_are_alike_take_a_bit():
    bits = np.random.default_rng(2).random(8000) < 0.5
    encoder = RangeEncoder()
    encoder.flags(bits, np.full(bits.size, EVEN))
    assert 1000 <= len(encoder.payload()) <= 1005


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
