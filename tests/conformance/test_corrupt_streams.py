"""Streams with a valid checksum, each damaged in one way that the format page calls corrupt."""

from __future__ import annotations

import itertools
import struct
import zlib

import numpy as np
import pytest
from numcodecs import zstd

from moec_zarr.bitstream.container import write_header
from moec_zarr.bitstream.masks import encode_mask, write_mask
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.errors import CorruptStreamError, UnsupportedVersionError
from tests.conformance import reference_decoder
from tests.support.decoders import assert_agrees, assert_same_parts
from tests.support.streams import (
    ALL_BANDS,
    coefficients_section,
    experts_section,
    header,
    large_words,
    restored_body,
    transform_body,
    with_checksum,
)

PLAIN = write_header(header("u1", (2, 3), low=np.uint8(0), high=np.uint8(9)))
PACKED = zlib.compress(bytes(6))
LARGEST = b"\xff\xff\xff\xfe"  # words of the largest symbol, again and again


def bad_headers():
    yield "reserved bit of dtype", bytes([PLAIN[0] | 0x80]) + PLAIN[1:]
    yield "too many elements", write_header(header("u1", (2**16, 2**16)))
    yield "too many elements beside an empty axis", write_header(header("u1", (0, 2**32)))
    yield "low above high", write_header(header("u1", (2, 3), low=np.uint8(9), high=np.uint8(0)))
    yield "infinite range", write_header(header("f4", (2, 3), high=np.float32(np.inf)))
    yield "range of NaN", write_header(header("f4", (2, 3), high=np.float32(np.nan)))
    yield "endless varint", PLAIN[:2] + b"\xff" * 20
    yield "an axis in two bytes", PLAIN[:2] + b"\x82\0" + PLAIN[3:]
    yield from ((f"{n} bytes", PLAIN[:n]) for n in range(len(PLAIN)))


def bad_sections():
    yield "number 0", PLAIN + b"\0\0"
    yield "number 5", PLAIN + b"\5\0"
    yield "number 8", PLAIN + b"\x08\0"
    yield "twice", PLAIN + b"\1\3\2\3\7" * 2
    yield "out of order", PLAIN + b"\2\0" + b"\1\3\2\3\7"
    yield "beyond the end", PLAIN + b"\2\5\0"
    yield "a length in two bytes", PLAIN + b"\2\x83\0\7\1\3"
    yield "network and lossless", PLAIN + bytes([3, len(PACKED)]) + PACKED + b"\4\0"
    whole = coefficients_section()
    both = write_header(header("u1", (2, 3))) + bytes([3, len(PACKED)]) + PACKED
    yield "transform and lossless", both + bytes([6, len(whole)]) + whole
    yield "two transforms", transform_body(whole) + bytes([6, len(whole)]) + whole
    yield "transform before a network", transform_body(whole) + b"\4\0"


def bad_bounding_boxes():
    yield "empty", PLAIN + b"\1\3\0\3\7"
    yield "beyond the array", PLAIN + b"\1\3\2\4\7"
    yield "the whole array", PLAIN + b"\1\3\2\3\7"
    yield "of no axes", write_header(header("u1", ())) + b"\1\1\7"
    yield "without fill", PLAIN + b"\1\2\2\3"
    yield "bytes left over", PLAIN + b"\1\4\2\3\7\7"


def bad_masks():
    yield "constant along an axis too many", PLAIN + b"\2\4\7\2\4\0"
    yield "reserved bits", PLAIN + b"\2\4\7\2\x20\0"
    yield "packed without need", PLAIN + b"\2\3\7\1\x80"
    yield "empty", PLAIN + b"\2\2\7\0"
    yield "no value", PLAIN + b"\2\0"
    yield "five values", PLAIN + b"\2\x0f" + b"".join(bytes([n, 1, 3]) for n in range(5))
    yield "a value twice", PLAIN + b"\2\6" + b"\7\1\3" * 2
    floats = write_header(header("f4", (2, 3)))
    nans, zeros = np.array([0x7FC00000, 0xFFC00001], "<u4"), np.array([0, 0x80000000], "<u4")
    for name, values in ("NaN twice", nans), ("0 and -0", zeros):
        yield name, floats + b"\2\x0c" + b"".join(value.tobytes() + b"\1\3" for value in values)


def bad_lossless():
    yield "not zlib", PLAIN + b"\3\3abc"
    for name, values in {
        "too few values": zlib.compress(bytes(5)),
        "too many values": zlib.compress(bytes(7)),
        "truncated": PACKED[:-1],
        "bytes left over": PACKED + b"\0",
    }.items():
        yield name, PLAIN + bytes([3, len(values)]) + values


def integers_body(payload, dtype="u1", shape=(2, 3)):
    return write_header(header(dtype, shape)) + b"\x08" + write_varint(len(payload)) + payload


def predicted(flags=0, largest=1, weights=b"\0", words=b"\0", bits=b""):
    """Integers of which each is what is foretold, by default."""
    return bytes([1, flags, largest]) + bytes(16) + weights + words + bits


def framed(count, size=1):
    return b"\0" + bytes([size]) + zstd.compress(bytes(count * size))


def bad_integers():
    bits, everywhere = b"\0\0", b"\7" + write_mask(np.ones((2, 3), bool))
    whole = b"\0\0" + predicted()
    yield from ((f"{n} bytes", integers_body(whole[:n])) for n in range(len(whole)))
    table = b"\x80\0\2" + bytes(8)
    for name, payload in {
        "reserved levels": b"\3\0" + framed(6),
        "reserved flag": b"\x08\0" + framed(6),
        "all bits shifted away": b"\0\x08" + framed(6),
        "a ladder of integers": b"\2" + bytes(24) + framed(6),
        "a bound of 0": b"\x20" + bytes(8) + b"\0" + framed(6),
        "a bound that is cut": b"\x40" + bytes(7),
        "reserved method": bits + b"\2" + framed(6)[1:],
        "reserved size": bits + b"\0\3" + framed(6)[2:],
        "too few integers": bits + framed(5),
        "too many integers": bits + framed(7),
        "a frame that is cut": bits + framed(6)[:-1],
        "no frame": bits + b"\0\1abcdef",
        "a frame of an unknown size": bits + b"\0\1\x28\xb5\x2f\xfd\0\0",
        "a table of one": b"\x80\0\1" + bytes(8) + b"\0" + framed(6),
        "a table of more than there are": b"\x80\0\7" + bytes(8) + bytes([len(framed(6))]) + framed(6) * 2,
        "a table beyond the end": table + b"\x40" + framed(1),
        "a number beyond the table": table
        + bytes([len(framed(1))])
        + framed(1)
        + b"\0\1"
        + zstd.compress(b"\2" * 6),
        "blank without repeats": bits + predicted(2),
        "reserved flags": bits + predicted(4),
        "a class too large": bits + predicted(0, 126),
        "more weights than neighbours": bits + predicted(weights=b"\x07" + bytes(14)),
        "words beyond the end": bits + predicted(words=b"\2a"),
        "invalid words": bits + predicted(words=b"\x10" + b"\xff" * 16),
        "bits that are missing": bits + predicted(words=b"\4\0\0\0\xff"),
        "bits left over": bits + predicted(bits=b"\0"),
    }.items():
        yield name, integers_body(payload)
    numbers = {"NaN": np.nan, "infinite": np.inf}
    for (name, number), kind in itertools.product(numbers.items(), (1, 2)):
        levels = bytes([kind]) + np.array([1, number, 0]).tobytes()
        yield f"{name} levels {kind}", integers_body(levels + framed(6), "f4")
    yield "a divisor of 0", integers_body(b"\1" + np.array([1.0, 0, 0]).tobytes() + framed(6), "f4")
    far = b"\0\4" + zstd.compress(np.full(6, 2**18 + 1, "<i4").view("u1").reshape(6, 4).T.tobytes())
    yield "a ladder too long", integers_body(b"\2" + np.array([1.0, 1, 1]).tobytes() + far, "f4")
    yield "beside a network", integers_body(whole) + b"\x09\0"
    yield (
        "beside lossless values",
        PLAIN + bytes([3, len(PACKED)]) + PACKED + b"\x08" + bytes([len(whole)]) + whole,
    )
    yield (
        "no valid voxel",
        PLAIN + b"\2" + bytes([len(everywhere)]) + everywhere + b"\x08" + bytes([len(whole)]) + whole,
    )
    yield "no voxel", integers_body(whole, shape=(2, 0))


def bad_networks():
    transform = transform_body(coefficients_section())[len(PLAIN) :]
    yield "empty", PLAIN + b"\4\0"
    yield "no width", PLAIN + b"\4\x06\4\1\0\1\0\0"
    yield "no axis", write_header(header("f4", (1, 1))) + b"\4\x05\4\1\4\1\0"
    stencils = bytes([1, 0x20, 4, 1, 4, 1]) + bytes(9)  # the second has distance 0
    yield "stencil of distance 0", PLAIN + b"\4\x0f" + stencils + transform
    yield "too few stencils", PLAIN + b"\4\1\1" + transform
    yield "more weights than bytes allow", PLAIN + b"\4\x08\x80\x08\x80\x02\x80\x08\x10\0"
    for name, sizes in {
        "encoder of 1025": (1025, 1, 1, 1),
        "257 experts": (1, 257, 1, 1),
        "width of 1025": (1, 1, 1025, 1),
        "17 layers": (1, 1, 1, 17),
        "more than 131072 weights for a voxel": (128, 1, 1024, 1),
    }.items():
        payload = b"".join(map(write_varint, sizes)) + bytes(2**14)
        yield name, PLAIN + b"\4" + write_varint(len(payload)) + payload


def bad_bases():
    for name, bases in (
        ("reserved bits", b"\0\x40"),
        ("too many levels", b"\2\0"),
        ("one joint axis", b"\x11\0"),
        ("joint cosines", b"\x10\x10"),
        ("graph with levels", b"\x21\x80\x80"),
        ("axis too short for a graph", b"\x20\x08\0"),
        ("padding of a graph", b"\0\x20"),
    ):
        yield name, transform_body(coefficients_section(bases=bases))
    yield "too many edge weights", transform_body(coefficients_section(b"\x20\x88\x18\0"), (4, 2))
    yield "axis too long for a graph", transform_body(coefficients_section(b"\x20" + bytes(33)), (65, 2))


def bad_transforms():
    whole = coefficients_section()
    yield from ((f"{n} bytes", transform_body(whole[:n])) for n in range(len(whole)))
    for step in np.nan, np.inf, -np.inf, 0.0, -0.0, -0.5:
        yield f"step of {step}", transform_body(coefficients_section(step=step))
    yield "no axis", transform_body(coefficients_section(bases=b"", axes=0), (1, 1))
    yield "axis too long", transform_body(coefficients_section(mask=b"\3"), (2, 2049))
    nothing = encode_mask(np.zeros((1, 2), bool))
    for name, changes in {
        "no band": {"mask": nothing},
        "bands of reserved bits": {"mask": b"\x04" + ALL_BANDS[1:]},
        "bands packed without need": {"mask": b"\x83" + zlib.compress(b"\x80")},
        "no mask of bands": {"mask": b""},
        "largest of 0": {"coded": b"\0"},
        "largest of 64": {"coded": b"\x40"},
        "largest of 256": {"coded": b"\x80\2"},
        "largest in two bytes": {"coded": b"\x81\0"},
        "an excess too large": {"coded": b"\x3f" + large_words(2**23)},
        "an excess of too many bits": {"coded": b"\x3f" + large_words(2**24 + 63)},
        "invalid words of excesses": {"coded": b"\x3f" + large_words()[:3] + b"\xff" * 16},
        "invalid words": {"coded": b"\1" + b"\xff" * 16},
    }.items():
        yield name, transform_body(coefficients_section(**changes))
    bands = encode_mask(np.ones((5, 5), bool))
    likely = coefficients_section(b"\0\0", mask=bands, coded=b"\1\xff\xff\xff\xfe", likely=True)
    yield "more that are not zero than bytes allow", transform_body(likely, (31, 31))
    every = encode_mask(np.ones((10, 10), bool))
    few = coefficients_section(bases=b"\0\0", mask=every)
    assert 2**13 * len(few) < 513 * 513
    yield "more coefficients than bytes allow", transform_body(few, (513, 513))
    beyond = coefficients_section(mask=b"")[:-2] + b"\x7f" + ALL_BANDS
    yield "mask of bands beyond the end", transform_body(beyond)


def scale(flags=0, centre=1.0, half=2.0, others=b"", kept=True, dtype="u1"):
    """The body of a stream with corrections that are all 0, on a scale."""
    payload = bytes([flags]) + struct.pack("<ffHH", centre, half, 4000, 0) + others
    residual = b"\5\x0c" + struct.pack("<df", 0.1, 0.1) if kept else b""
    start = write_header(header(dtype, (2, 3), low=np.dtype(dtype).type(0), high=np.dtype(dtype).type(9)))
    return start + residual + b"\7" + write_varint(len(payload)) + payload


def bad_scales():
    for name, options in {
        "reserved bit": {"flags": 4},
        "signs beside a knee": {"flags": 3, "others": struct.pack("<d", 1.0) + b"\1\3"},
        "signs of unsigned integers": {"flags": 2, "others": b"\1\3"},
        "infinite centre": {"centre": np.inf},
        "no range": {"half": 0.0},
        "negative range": {"half": -1.0},
        "infinite range": {"half": np.inf},
        "range of NaN": {"half": np.nan},
        "no knee": {"flags": 1, "others": struct.pack("<d", 0.0)},
        "negative knee": {"flags": 1, "others": struct.pack("<d", -1.0)},
        "infinite knee": {"flags": 1, "others": struct.pack("<d", np.inf)},
        "end inside the knee": {"flags": 1, "others": bytes(7)},
        "no mask": {"flags": 2, "dtype": "i1"},
        "mask beyond the end": {"flags": 2, "dtype": "i1", "others": b"\3\3"},
        "corrupt mask": {"flags": 2, "dtype": "i1", "others": b"\1\7"},
        "bytes left over": {"others": b"\1"},
        "of nothing": {"kept": False},
    }.items():
        yield name, scale(**options)
    whole = scale()
    yield from (
        (f"{n} bytes", scale()[: len(PLAIN) + 14] + bytes([7, n]) + whole[-13:][:n]) for n in range(13)
    )


def bad_exact_values():
    yield "no value", PLAIN + b"\x09\0"
    yield "a value twice", PLAIN + b"\x09\6" + b"\7\1\3" * 2
    yield "five values", PLAIN + b"\x09\x0f" + b"".join(bytes([n, 1, 3]) for n in range(5))
    yield "beside lossless values", PLAIN + bytes([3, len(PACKED)]) + PACKED + b"\x09\3\7\1\3"
    floats = write_header(header("f4", (2, 3)))
    for value in np.nan, np.inf:
        yield f"{value}", floats + b"\x09\6" + np.float32(value).tobytes() + b"\1\3"
    yield "corrupt mask", PLAIN + b"\x09\4\7\2\4\0"


def bad_linear_experts():
    whole = experts_section()
    yield from ((f"{n} bytes", restored_body(whole[:n])) for n in range(len(whole) - 2))
    for name, payload in {
        "equal knots of steepness": experts_section(b"\2\xc0\xc0\xa8\x90\0"),
        "falling knots of steepness": experts_section(b"\2\xc0\xbf\xa8\x90\0"),
        "equal knots of the value": experts_section(b"\x10\x40\x40\xa8\x90\0"),
        "falling knots of the value": experts_section(b"\x10\x40\xbf\xa8\x90\0"),
        "a reserved shift": experts_section(b"\x11\xc0\0\x40\xa8\x90\x80"),
        # A unit of 8, and integers of 3.
        "a tap of 24": experts_section(b"\0\xd8\x90\0", b"\3\0\0", LARGEST),
        "a constant of 24": experts_section(b"\0\x90\xd8\0", b"\0\3\0", LARGEST),
        "a largest of 32768": experts_section(coded=b"\x80\x80\2\0\0"),
        "invalid words": experts_section(words=b"\xff" * 16),
    }.items():
        yield name, restored_body(payload)
    yield "of nothing", PLAIN + bytes([10, len(whole)]) + whole
    network = b"\4\x12" + bytes([3, 1, 2, 1]) + bytes([112] * 7) + bytes(7)
    yield "beside a network alone", PLAIN + network + bytes([10, len(whole)]) + whole
    yield "twice", restored_body(whole) + bytes([10, len(whole)]) + whole
    yield (
        "before a transform",
        PLAIN + bytes([10, len(whole)]) + whole + transform_body(coefficients_section())[len(PLAIN) :],
    )


CORRUPT = [
    pytest.param(body, id=f"{part}: {name}")
    for part, bodies in {
        "header": bad_headers(),
        "section": bad_sections(),
        "bounding box": bad_bounding_boxes(),
        "mask": bad_masks(),
        "lossless": bad_lossless(),
        "integers": bad_integers(),
        "network": bad_networks(),
        "basis": bad_bases(),
        "transform": bad_transforms(),
        "scale": bad_scales(),
        "exact values": bad_exact_values(),
        "linear experts": bad_linear_experts(),
    }.items()
    for name, body in bodies
]


# What later releases may give a meaning to.
RESERVED = {
    "dtype 11": b"\x0b" + PLAIN[1:],
    "dtype 15": b"\x0f" + PLAIN[1:],
    "rank 6": PLAIN[:1] + b"\6" + PLAIN[2:4] + b"\1" * 4 + PLAIN[4:],
    "section 12": transform_body(coefficients_section()) + b"\x0c\0",
    "section 255": PLAIN + b"\xff\1\0",
}


@pytest.mark.parametrize("name", RESERVED)
def test_reserved(name):
    with pytest.raises(UnsupportedVersionError, match=f"has {name}.*newer release"):
        decode(with_checksum(RESERVED[name]))
    with pytest.raises(reference_decoder.VersionError):
        reference_decoder.decode(with_checksum(RESERVED[name]))


@pytest.mark.parametrize("body", CORRUPT)
def test_corrupt(body):
    with pytest.raises(CorruptStreamError):
        decode(with_checksum(body))
    with pytest.raises(reference_decoder.CorruptError):
        reference_decoder.decode(with_checksum(body))


@pytest.mark.parametrize(
    "options",
    [{}, {"flags": 1, "others": struct.pack("<d", 3.0)}, {"flags": 2, "others": b"\1\3", "dtype": "i1"}],
    ids=["range", "knee", "masks"],
)
def test_sound_scales_decode(options):
    """Those that the corrupt ones differ from in one thing."""
    stream = with_checksum(scale(**options))
    assert_same_parts(stream)
    assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)


@pytest.mark.parametrize(
    "payload",
    [
        coefficients_section(),
        coefficients_section(coded=b"\1\x12\x34\x56"),
        coefficients_section(b"\0\x20\x58"),
        coefficients_section(b"\x11\x11"),
    ],
    ids=["zeros", "other words", "graph", "joint"],
)
def test_sound_transforms_decode(payload):
    """Those that the corrupt ones differ from in one thing."""
    stream = with_checksum(transform_body(payload, dtype="f4"))
    assert_same_parts(stream)
    assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)


@pytest.mark.parametrize(
    "payload",
    [
        experts_section(),
        experts_section(b"\1\xc0\xa8\x90\0"),
        experts_section(b"\x10\xc0\x40\xa8\x90\x7f"),
        experts_section(b"\0\xa8\x90\0"),
        experts_section(b"\0\xd8\x90\0", b"\2\0\0", LARGEST),
        experts_section(b"\xff" + bytes([*range(100, 115), *range(16), 168, 144, 0]), words=b"\x55"),
    ],
    ids=["both gates", "steepness", "value", "no gate", "a tap of 16", "the most ramps"],
)
def test_sound_linear_experts_decode(payload):
    """Those that the corrupt ones differ from in one thing."""
    transform = coefficients_section(coded=b"\1\x12\x34\x56")
    stream = with_checksum(restored_body(payload, transform, dtype="f4"))
    assert_same_parts(stream)
    assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)


@pytest.mark.parametrize("payload", [b"\0\0" + predicted(), b"\0\0" + predicted(1), b"\0\0" + framed(6)])
def test_sound_integers_decode(payload):
    """Those that the corrupt ones differ from in one thing."""
    stream = with_checksum(integers_body(payload))
    np.testing.assert_array_equal(decode(stream), reference_decoder.decode(stream).array)


@pytest.mark.parametrize("magnitude", [63, 64, 319, 2**23 - 1])
def test_sound_excesses_decode(magnitude):
    coded = b"\x3f" + large_words(magnitude)
    stream = with_checksum(transform_body(coefficients_section(coded=coded)))
    assert np.abs(open_stream(stream).coefficients.integers).max() == magnitude
    assert_same_parts(stream)
    assert_agrees(stream, decode(stream), reference_decoder.decode(stream).array)
