"""The format page, a decoder written from it, and streams of old: all must agree with the package."""

from __future__ import annotations

import contextlib
import re
import tracemalloc
import zlib
from dataclasses import astuple
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from tests.conformance import reference_decoder
from tests.support.fields import psnr, smooth
from tests.conformance.freeze_streams import FEATURES, KINDS, names
from hypothesis import given, settings
from hypothesis import strategies as st

from moec_zarr.bitstream.container import MAX_SIZE, Header, read_stream, write_header, write_stream
from moec_zarr.bitstream.masks import encode_mask
from moec_zarr.bitstream.range_coder import write_varint
from moec_zarr.codec.encode import decode, encode, open_stream
from moec_zarr.errors import CorruptStreamError, MoECError, UnsupportedVersionError
from moec_zarr.settings import Settings

TOLERANCE = 1e-4  # of half the range: docs/format.md
USUAL = 1e-5  # of small networks and latents
PAGE = (Path(__file__).parent.parent / "docs" / "format.md").read_text()


def assert_agrees(stream, decoded, expected):
    """`decoded` is `expected` but for the tolerance of a network's and latents' values."""
    assert (decoded.shape, decoded.dtype) == (expected.shape, expected.dtype)
    header = reference_decoder.decode(stream)
    half = float(header.high) / 2 - float(header.low) / 2
    if header.network is None and header.latents is None:
        np.testing.assert_array_equal(decoded, expected)
        return
    whole = 0 if decoded.dtype.kind == "f" else 1  # a value near a half may round to either side
    finite = np.isfinite(expected.astype("f8"))
    np.testing.assert_array_equal(decoded[~finite], expected[~finite])
    error = np.abs(decoded[finite].astype("f8") - expected[finite].astype("f8"))
    step = np.spacing(np.abs(expected[finite])).astype("f8") if expected.dtype.kind == "f" else 0
    assert (error <= USUAL * half + whole + step).all()
    for value, mask in header.masks:
        inner = tuple(slice(n) for n in header.box)
        np.testing.assert_array_equal(decoded[inner][mask], np.full(mask.sum(), value))


def assert_same_parts(stream):
    """All integers of a stream are the same to the package and to the reference_decoder."""
    mine, other = open_stream(stream), reference_decoder.decode(stream)
    assert (mine.header.dtype, mine.header.order == "F") == (other.dtype, other.fortran)
    assert (mine.header.shape, mine.shape) == (other.shape, other.box)
    assert (mine.header.low, mine.header.high) == (other.low, other.high)
    assert (mine.header.psnr, mine.header.max_error) == (other.psnr, other.error)
    assert len(mine.special) == len(other.masks)
    for special, (value, mask) in zip(mine.special, other.masks, strict=True):
        np.testing.assert_array_equal(special.value, value)
        np.testing.assert_array_equal(special.mask, mask)
    assert (mine.model is None) == (other.network is None)
    if mine.model is not None and other.network is not None:
        pairs = zip(mine.model.integers.items(), other.network.integers.items(), strict=True)
        for (name, integers), (title, expected) in pairs:
            np.testing.assert_array_equal(integers, expected, err_msg=f"{name}, {title}")
        weights = mine.model.weights().items()
        for (name, weight), title in zip(weights, other.network.integers, strict=True):
            if not name.startswith("gate"):
                np.testing.assert_array_equal(weight, other.network.weight(title))
    assert (mine.latents is None) == (other.latents is None)
    if mine.latents is not None and other.latents is not None:
        assert mine.latents.step == other.latents.step
        weights, *others = astuple(mine.latents.context)
        assert (*weights, *others) == other.latents.parameters
        found = mine.latents.integers
        np.testing.assert_array_equal(found, other.latents.integers[tuple(slice(n) for n in found.shape)])
        assert np.count_nonzero(found) == np.count_nonzero(other.latents.integers)
        kinds = [(kind.halvings, kind.nested) for kind in mine.latents.kinds]
        assert kinds == [(axis.halvings, axis.nested) for axis in other.latents.axes]
        for basis, axis in zip(mine.latents.bases, other.latents.axes, strict=True):
            np.testing.assert_allclose(basis.synthesis, axis.functions, atol=1e-6)


@pytest.mark.parametrize("feature", FEATURES)
def test_frozen_stream(feature):
    path, beside = names(feature)
    stream, expected = path.read_bytes(), np.load(beside)["expected"]
    assert_same_parts(stream)
    decoded = decode(stream)
    assert_agrees(stream, decoded, expected)
    assert_agrees(stream, reference_decoder.decode(stream).array, expected)
    data = FEATURES[feature][0]
    assert decoded.dtype == data.dtype
    assert decoded.flags.f_contiguous == data.flags.f_contiguous
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(data))


def test_frozen_streams_show_what_they_are_named_for():
    of = {feature: reference_decoder.decode(names(feature)[0].read_bytes()) for feature in FEATURES}
    networks = {"one_expert": 1, "experts": 3, "mask": 1, "big_endian_f_order": 1, "uint64": 1}
    for feature, experts in (networks | {"rank_1": 1, "rank_5": 1}).items():
        assert of[feature].network.experts == experts
        assert of[feature].latents is None
    for feature in "latents", "latents_mask", "latents_rank_1", "latents_rank_5":
        assert of[feature].latents is not None
        assert of[feature].network is None
    for feature, expected in KINDS.items():
        axes = of[feature].latents.axes
        assert [(axis.halvings, axis.nested) for axis in axes] == [(k.halvings, k.nested) for k in expected]
    assert any(kind.weights for kind in KINDS["latents_bent"])
    assert set(of["latents_and_experts"].sections) == {4, 6}
    assert of["latents_and_experts"].network.experts == 2
    assert max(np.abs(each.latents.integers).max() for each in of.values() if each.latents) > 63
    assert [str(value) for value, _ in of["latents_mask"].masks] == ["nan", "inf", "-inf"]
    assert [str(value) for value, _ in of["mask"].masks] == ["nan", "inf", "-inf"]
    assert of["mask_packed"].sections[2][2] & 0x80
    assert [value for value, _ in of["missing"].masks] == [-999]
    assert of["box"].box == (8, 9, 10) != of["box"].shape
    assert 3 in of["lossless"].sections
    assert of["constant"].sections == {}
    assert of["big_endian_f_order"].fortran
    assert of["big_endian_f_order"].dtype.str == ">f4"
    assert of["int16"].dtype == "i2"
    assert of["uint64"].dtype == "u8"
    assert (len(of["rank_1"].shape), len(of["rank_5"].shape)) == (1, 5)


def test_a_new_stream():
    data = smooth((9, 11, 13), ">i4", scale=5000)
    data[:3, 4:8] = 2**31 - 1
    stream = encode(data, Settings(ratio=20, effort="fast", missing=2**31 - 1, experts=2))
    assert_same_parts(stream)
    assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)
    assert psnr(np.where(data == 2**31 - 1, np.nan, data), reference_decoder.decode(stream).array) > 20


# ------------------------------------------------------------------------------ the page


def test_the_example_on_the_page():
    (example,) = re.findall(r"The stream's bytes of this mask are `([0-9A-F ]+)`", PAGE)
    mask = np.array([[0, 1, 1], [0, 1, 1]], bool)
    assert encode_mask(mask) == bytes.fromhex(example)
    np.testing.assert_array_equal(reference_decoder.read_mask(bytes.fromhex(example), (2, 3)), mask)
    coder = reference_decoder.Coder(bytes.fromhex(example)[1:])
    rows = re.findall(r"^\| \d \| (\d{10}) \| \d, \d \| (\d+) \| (\d+) \| (\d) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 3
    for _, c, s, bit in rows:
        assert int(s) == 1 + ((65536 - int(c)) * (2**24 - 2) >> 16)
        assert coder.symbol([0, int(s), 2**24]) == int(bit)


def test_the_constants_on_the_page():
    """Of the classes, in more digits than either decoder has; and of the lifting steps."""
    unit = 2**30
    rows = re.findall(r"^\| (\d+)\.\.(\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [(int(first), int(last)) for first, last, *_ in rows] == [(n, n + 3) for n in range(0, 64, 4)]
    for number, r in enumerate(int(r) for row in rows for r in row[2:]):
        scale = Decimal(4 + number % 4) * Decimal(2) ** (number // 4 - 7)
        exact = unit * (-1 / (2 * scale)).exp()
        assert r == int(exact) == reference_decoder.root(number)
        assert abs(exact - round(exact)) > 1e-5  # so that double precision suffices
    (factors,) = re.findall(r"^\| factor \| (.+) \|$", PAGE, re.MULTILINE)
    assert tuple(float(factor) for factor in factors.split(" | ")) == reference_decoder.UNDO


# ---------------------------------------------------------------------------- the header


def header(dtype="f8", shape=(128, 128, 128, 128, 16), **others):
    one = np.dtype(dtype).newbyteorder("=").type(1)
    given = {"dtype": np.dtype(dtype), "order": "C", "shape": shape, "low": one, "high": one, "psnr": 40.0}
    return Header(**given | {"max_error": 0.1} | others)


@pytest.mark.parametrize(
    "shape",
    [
        (2**32 - 1,),
        (128, 128, 128, 128, 15),
        (2**14, 2**14, 15, 1, 1),
        (2**28, 1, 1, 1, 15),
    ],
)
def test_no_header_exceeds_40_bytes(shape):
    assert np.prod(shape, dtype=object) <= MAX_SIZE
    stream = write_stream(header(shape=shape), {})
    assert len(stream) <= 40
    assert read_stream(stream)[0].shape == shape


@given(st.floats(0, 1.0), st.floats(0, 400))
def test_quality_is_rounded_to_the_safe_side(error, decibels):
    stored = reference_decoder.decode(write_stream(header("f4", (3,), max_error=error, psnr=decibels), {}))
    assert error <= stored.error <= error * (1 + 2**-7) + 1e-37
    assert decibels - 0.0101 <= stored.psnr <= decibels + 1e-9


def repaired(body, version=0):
    return b"MoE" + bytes([version]) + zlib.crc32(body).to_bytes(4, "little") + body


def bodies():
    """Bodies of streams, each damaged in one way that the page calls corrupt."""
    plain = write_header(header("u1", (2, 3), low=np.uint8(0), high=np.uint8(9)))
    yield "dtype 11", b"\x0b" + plain[1:]
    yield "reserved bit of dtype", bytes([plain[0] | 0x40]) + plain[1:]
    yield "rank 6", plain[:1] + b"\x06" + plain[2:]
    yield "too many elements", write_header(header("u1", (2**16, 2**16)))
    yield "an axis without voxels hides a long one", write_header(header("u1", (0, 2**32)))
    yield "low above high", write_header(header("u1", (2, 3), low=np.uint8(9), high=np.uint8(0)))
    yield "infinite range", write_header(header("f4", (2, 3), high=np.float32(np.inf)))
    yield "range of NaN", write_header(header("f4", (2, 3), high=np.float32(np.nan)))
    yield "endless length", plain[:2] + b"\xff" * 20
    yield from ((f"header of {n} bytes", plain[:n]) for n in range(len(plain)))
    yield "section 0", plain + b"\0\0"
    yield "section 5", plain + b"\5\0"
    yield "section 7", plain + b"\7\0"
    yield "section twice", plain + b"\1\3\2\3\7" * 2
    yield "sections out of order", plain + b"\2\0" + b"\1\3\2\3\7"
    yield "section beyond the end", plain + b"\2\5\0"
    yield "box of nothing", plain + b"\1\3\0\3\7"
    yield "box beyond the array", plain + b"\1\3\2\4\7"
    yield "box without fill", plain + b"\1\2\2\3"
    yield "box with more", plain + b"\1\4\2\3\7\7"
    yield "mask of other axes", plain + b"\2\4\7\2\4\0"
    yield "mask of reserved bits", plain + b"\2\4\7\2\x20\0"
    yield "mask packed without need", plain + b"\2\3\7\1\x80"
    yield "mask without bytes", plain + b"\2\2\7\0"
    yield "values do not inflate", plain + b"\3\3abc"
    packed = zlib.compress(bytes(6))
    for name, values in {
        "too few values": zlib.compress(bytes(5)),
        "too many values": zlib.compress(bytes(7)),
        "values cut": packed[:-1],
        "values with more": packed + b"\0",
    }.items():
        yield name, plain + bytes([3, len(values)]) + values
    yield "a model and values", plain + bytes([3, len(packed)]) + packed + b"\4\0"
    yield "empty model", plain + b"\4\0"
    yield "model of no width", plain + b"\4\x06\4\1\0\1\0\0"
    yield "model of no axis", write_header(header("f4", (1, 1))) + b"\4\x05\4\1\4\1\0"
    distances = bytes([1, 0x20, 4, 1, 4, 1]) + bytes(9)  # the second is 0
    yield "model that looks no way", plain + b"\4\x0f" + distances + with_latents(latents())[len(plain) :]
    yield "model of too few looks", plain + b"\4\1\1" + with_latents(latents())[len(plain) :]
    yield "model beyond the bytes", plain + b"\4\x08\x80\x20\x80\x20\x80\x20\x10\0"


ALL = encode_mask(np.ones((1, 2), bool))  # bands: one of wavelets on 2 voxels, two of cosines on 3


def latents(bases=b"\1\0", step=0.5, mask=ALL, coded=b"\1", axes=2):
    """A payload of latents, by default sound ones of shape (2, 3)."""
    head = bases + np.float32(step).tobytes() + bytes([9] * 3 * axes)
    return head + bytes([0, 1, 64, 0, 4, 0, 0]) + write_varint(len(mask)) + mask + coded


def with_latents(payload, shape=(2, 3), dtype="u1"):
    low = np.zeros((), dtype)[()]
    return write_header(header(dtype, shape, low=low)) + bytes([6]) + write_varint(len(payload)) + payload


def bodies_of_latents():
    """As :func:`bodies`."""
    whole = latents()
    yield from ((f"latents of {n} bytes", with_latents(whole[:n])) for n in range(len(whole)))
    for what, bases in (
        ("reserved bases", b"\0\x40"),
        ("wavelets halved too often", b"\2\0"),
        ("one axis nested", b"\x11\0"),
        ("cosines nested", b"\x10\x10"),
        ("wavelets bent", b"\x21\x80\x80"),
        ("cosines too short to bend", b"\x20\x08\0"),
        ("weights beyond the end", b"\0\x20"),
    ):
        yield f"latents in {what}", with_latents(latents(bases=bases))
    yield "latents in weights too many", with_latents(latents((b"\x20\x88\x18") + b"\0"), (4, 2))
    yield "latents in cosines too long to bend", with_latents(latents(b"\x20" + bytes(32) + b"\0"), (65, 2))
    for step in np.nan, np.inf, -np.inf, 0.0, -0.0, -0.5:
        yield f"latents in steps of {step}", with_latents(latents(step=step))
    yield "latents of no axis", with_latents(latents(bases=b"", axes=0), (1, 1))
    yield "latents of an axis too long", with_latents(latents(mask=b"\3"), (2, 2049))
    yield "latents without a band", with_latents(latents(mask=encode_mask(np.zeros((1, 2), bool))))
    yield "latents of reserved bands", with_latents(latents(mask=b"\x04" + ALL[1:]))
    yield "latents of packed bands", with_latents(latents(mask=b"\x83" + zlib.compress(b"\x80")))
    yield "latents of bands beyond the end", with_latents(latents(mask=b"")[:-2] + b"\x7f" + ALL)
    yield "latents without a mask", with_latents(latents(mask=b""))
    yield "latents up to 0", with_latents(latents(coded=b"\0"))
    yield "latents up to 256", with_latents(latents(coded=b"\x80\2"))
    yield "latents without excesses", with_latents(latents(coded=b"\x3f\0"))
    yield "latents of too few excesses", with_latents(latents(coded=b"\x3f\2\5"))
    yield "latents of too large an excess", with_latents(latents(coded=b"\x3f\1\x80\x80\2"))
    endless = b"\x3f" + b"\xff" * 8 + b"\x7f" + b"\5" * 9
    yield "latents of endless excesses", with_latents(latents(coded=endless))
    yield "latents of other words", with_latents(latents(coded=b"\1" + b"\xff" * 16))
    values = zlib.compress(bytes(6))
    both = write_header(header("u1", (2, 3))) + bytes([3, len(values)]) + values
    yield "latents and values", both + bytes([6, len(whole)]) + whole
    yield "latents twice", with_latents(whole) + bytes([6, len(whole)]) + whole
    yield "latents before a model", with_latents(whole) + b"\4\0"


def test_latents_as_the_corrupt_ones_but_sound():
    """What the bodies of corrupt latents differ from, decodes."""
    some = latents(), latents(coded=b"\1\x12\x34\x56"), latents(b"\0\x20\x58"), latents(b"\x11\x11")
    for payload in some:
        stream = repaired(with_latents(payload, dtype="f4"))
        assert_same_parts(stream)
        assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)
    excess = latents(coded=b"\x3f\6" + b"\x80\2" * 6)
    assert np.abs(open_stream(repaired(with_latents(excess))).latents.integers).max() == 319
    assert_same_parts(repaired(with_latents(excess)))


CORRUPT = [*bodies(), *bodies_of_latents()]


@pytest.mark.parametrize(("what", "body"), [pytest.param(*body, id=body[0]) for body in CORRUPT])
def test_corrupt(what, body):
    with pytest.raises(CorruptStreamError):
        decode(repaired(body))
    with pytest.raises(reference_decoder.CorruptError):
        reference_decoder.decode(repaired(body))


def test_magic_version_and_checksum():
    stream = write_stream(header("u1", (2, 3)), {})
    assert decode(stream).tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(CorruptStreamError, match="not a MoEC stream"):
        decode(b"MoX" + stream[3:])
    with pytest.raises(UnsupportedVersionError, match=r"version 9.*version 0"):
        decode(repaired(stream[8:], version=9))
    with pytest.raises(CorruptStreamError, match="checksum"):
        decode(stream[:-1] + bytes([stream[-1] ^ 1]))
    for length in range(len(stream)):
        with pytest.raises(MoECError):
            decode(stream[:length])


LATENTS = sorted(feature for feature in FEATURES if feature.startswith("latents"))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(LATENTS),
    st.lists(st.tuples(st.integers(8, 10**4), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_damaged_latents_are_as_corrupt_to_both(feature, damages):
    """With a checksum that matches, the package reads what the stranger reads, and no more."""
    damaged = bytearray(names(feature)[0].read_bytes())
    for at, change in damages:
        damaged[8 + (at - 8) % (len(damaged) - 8)] ^= change
    stream = repaired(bytes(damaged[8:]))
    shape = FEATURES[feature][0].shape
    try:
        decoded = decode(stream, shape=shape)
    except CorruptStreamError:
        try:
            assert reference_decoder.decode(stream).shape != shape
        except reference_decoder.CorruptError:
            return
    else:
        assert decoded.shape == shape
        assert_same_parts(stream)


@pytest.mark.parametrize("feature", LATENTS)
def test_damaged_latents_take_little_memory(feature):
    stream, shape = names(feature)[0].read_bytes(), FEATURES[feature][0].shape
    tracemalloc.start()
    try:
        for at in range(8, len(stream), 9):
            damaged = bytearray(stream)
            damaged[at] ^= 0xFF
            with contextlib.suppress(MoECError):
                decode(repaired(bytes(damaged[8:])), shape=shape)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_the_tolerance_is_the_pages():
    assert f"**{TOLERANCE * 1e4:g} in 10,000 of half the range**" in PAGE
