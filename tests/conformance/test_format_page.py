"""Examples, constants and tolerance as docs/format.md states them."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from moec_zarr.bitstream.linear_experts import read_linear_experts, write_linear_experts
from moec_zarr.bitstream.masks import encode_mask
from moec_zarr.bitstream.range_coder import RangeDecoder
from tests.conformance import reference_decoder
from tests.support.decoders import USUAL_ERROR

TOLERANCE = 1e-4  # of half the range
PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()


def test_example_of_a_mask():
    (example,) = re.findall(r"The stream's bytes of this mask are `([0-9A-F ]+)`", PAGE)
    mask = np.array([[0, 1, 1], [0, 1, 1]], bool)
    assert encode_mask(mask) == bytes.fromhex(example)
    np.testing.assert_array_equal(reference_decoder.read_mask(bytes.fromhex(example), (2, 3)), mask)
    decoder = reference_decoder.RangeDecoder(bytes.fromhex(example)[1:])
    rows = re.findall(r"^\| \d \| (\d{10}) \| \d, \d \| (\d+) \| (\d+) \| (\d) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for _, c, s, bit in rows:
        assert int(s) == 1 + ((65536 - int(c)) * (2**24 - 2) >> 16)
        assert decoder.symbol([0, int(s), 2**24]) == int(bit)


def test_example_of_linear_experts():
    (example,) = re.findall(r"The bytes `([0-9A-F ]+)` are experts", PAGE)
    rows = re.findall(r"^\|((?: -?[\d.]+ \|){6} -?0\.\d{9} )\|$", PAGE, re.MULTILINE)
    table = np.array([[float(number) for number in row.split("|")] for row in rows])
    assert table.shape == (5, 7)
    data = bytes.fromhex(example)
    experts = read_linear_experts(data, 1)
    assert write_linear_experts(experts, (data[8], data[10])) == data
    taps, constants = experts.weights()
    np.testing.assert_array_equal(taps, np.array([[-1, 0], [-2, 1], [1, 0]]) / 8)
    np.testing.assert_array_equal(constants, np.array([[0, 1], [2, 0]]) / 64 - [[1 / 512, 0], [0, 0]])
    z, near, far, steepness, rise, level, restored = table.T
    ahead, behind = np.append(z[1:], z[-1]), np.append(z[0], z[:-1])
    np.testing.assert_array_equal(near, ahead + behind - 2 * z)
    np.testing.assert_array_equal(steepness, abs(ahead - behind))
    filtered = taps @ [near, far]
    by_hand = z + filtered[0] + rise * filtered[1] + level * filtered[2]
    by_hand += constants[0, 0] + constants[0, 1] * level + constants[1, 0] * rise
    np.testing.assert_array_equal(by_hand, restored)
    np.testing.assert_array_equal(reference_decoder.read_linear_experts(data, 1).restored(z), restored)


def test_constants_of_the_classes():
    """In more digits than either decoder has."""
    unit = 2**30
    rows = re.findall(r"^\| (\d+)\.\.(\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [(int(first), int(last)) for first, last, *_ in rows] == [(n, n + 3) for n in range(0, 64, 4)]
    for number, r in enumerate(int(r) for row in rows for r in row[2:]):
        scale = Decimal(4 + number % 4) * Decimal(2) ** (number // 4 - 7)
        exact = unit * (-1 / (2 * scale)).exp()
        assert r == int(exact) == reference_decoder.class_constant(number)
        assert abs(exact - round(exact)) > 1e-5  # so that double precision suffices


@pytest.mark.parametrize("seed", range(20))
def test_an_encoder_as_the_page_says(seed):
    """It writes words that both decoders take back, with frequencies down to 1 of 2^24."""
    rng = np.random.default_rng(seed)
    rest = rng.choice([1, 5, 1000, 2**22], 40)
    table = np.concatenate([[0], np.cumsum(rest[rest.cumsum() < 2**24]), [2**24]])
    symbols = rng.integers(0, len(table) - 1, 300)
    lower, span, words = 0, 2**64 - 1, 2
    for symbol in symbols:
        before, frequency = int(table[symbol]), int(table[symbol + 1] - table[symbol])
        scale = span >> 24
        lower, span = lower + scale * before, scale * frequency
        if span < 2**32:
            lower, span, words = lower << 32, span << 32, words + 1
    number = lower + span - 1
    for cleared in range(31, 0, -1):
        if number >> cleared << cleared >= lower:
            number = number >> cleared << cleared
            break
    data = b"".join(word.to_bytes(4, "little") for word in split_words(number, words)).rstrip(b"\0")
    reference, decoder = reference_decoder.RangeDecoder(data), RangeDecoder(data)
    assert [reference.symbol(table.tolist()) for _ in symbols] == symbols.tolist()
    assert decoder.symbols([table.tolist()], [0] * len(symbols)) == symbols.tolist()


def split_words(number: int, count: int) -> list[int]:
    return [number >> 32 * i & 2**32 - 1 for i in reversed(range(count))]


def test_lifting_factors():
    (factors,) = re.findall(r"^\| factor \| (.+) \|$", PAGE, re.MULTILINE)
    assert tuple(float(factor) for factor in factors.split(" | ")) == reference_decoder.LIFTING_FACTORS


def test_tolerance():
    """Tests demand a tenth of it."""
    assert f"**{TOLERANCE * 1e4:g} in 10,000 of half the range**" in PAGE
    assert USUAL_ERROR <= TOLERANCE / 10
