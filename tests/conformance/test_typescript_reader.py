"""The reader in ``js/`` refuses what the format calls corrupt, within bounds on those made to cost much.

What linear experts restore is compared with what the package decodes; frozen streams, by tests in ``js/``.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs import zstd
from numpy.typing import NDArray

from moec_zarr.bitstream.container import Section, read_stream, write_header, write_stream
from moec_zarr.bitstream.linear_experts import write_linear_experts
from moec_zarr.bitstream.masks import encode_mask, write_mask
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.dictionary import Dictionary, Entry
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.linear_experts import LinearExperts
from moec_zarr.settings import Settings
from tests.conformance.freeze_streams import DICTIONARIES, FEATURES, paths
from tests.conformance.test_corrupt_streams import CORRUPT, RESERVED
from tests.conformance.test_hostile_streams import CASES
from tests.support.streams import coefficients_section, header, transform_body, with_checksum

JUDGE = Path(__file__).parents[2] / "js" / "build" / "test" / "judge.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None or not JUDGE.exists(), reason="`make js` has not run")
SLOW = 4  # times that plain loops may take what NumPy and compiled ones may
SINGLE = 1e-5  # of half the range: of values that NumPy computes in single precision
DOUBLE = 2**-27  # of what corrections are added to


def judge(streams: list[bytes], dictionary: str = "") -> list[tuple[str, float, int]]:
    """What decoding each of the streams came to, its CPU seconds, and the CRC-32 of the values."""
    lines = "\n".join(f"{base64.b64encode(stream).decode()} {dictionary}" for stream in streams)
    done = subprocess.run([NODE, JUDGE], input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(streams)
    return [(answer["said"], answer["seconds"], answer["checksum"]) for answer in answers]


def read(streams: list[bytes]) -> list[NDArray[Any]]:
    """What the streams decode to, flat."""
    lines = "\n".join(base64.b64encode(stream).decode() for stream in streams)
    done = subprocess.run([NODE, JUDGE, "--values"], input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["said"] for answer in answers} == {"decoded"}
    arrays = []
    for stream, answer in zip(streams, answers, strict=True):
        own, data = read_stream(stream)[0], base64.b64decode(answer["values"])
        width = len(data) // math.prod(own.shape)  # that of halves is 4 where the engine has none
        native = own.dtype.newbyteorder("=")
        arrays.append(np.frombuffer(data, f"{native.kind}{width}").astype(native))
    return arrays


def test_corrupt_streams_are_refused():
    answers = judge([with_checksum(case.values[0]) for case in CORRUPT])
    said = {case.id: said for case, (said, *_) in zip(CORRUPT, answers, strict=True)}
    assert {name for name, each in said.items() if each != "CorruptStreamError"} == set()


def test_what_is_reserved_asks_for_a_newer_release():
    answers = judge([with_checksum(body) for body in RESERVED.values()])
    assert {said for said, *_ in answers} == {"UnsupportedVersionError"}


def test_hostile_streams_are_bounded():
    # Those whose limit is another shape than the stream's, and those that are inspected only, are left out.
    cases = {
        name: case
        for name, case in CASES.items()
        if case.read.__name__ == "decode" and math.prod(case.shape) > 4
    }
    answers = judge([with_checksum(case.body) for case in cases.values()])
    for (name, case), (said, seconds, _) in zip(cases.items(), answers, strict=True):
        assert said == ("decoded" if case.match is None else "CorruptStreamError"), name
        assert seconds < SLOW * case.seconds, name


@pytest.mark.parametrize("version", [0, 2, 255])
def test_other_versions_are_named(version):
    stream = with_checksum(write_header(header("u1", (2, 3))), version)
    assert judge([stream])[0][0] == "UnsupportedVersionError"


def test_zstd_frames_of_all_kinds_unpack():
    """Frames with raw, repeated and compressed blocks, of all levels; the same ones cut off are refused."""
    rng = np.random.default_rng(0)
    contents = [
        b"a", bytes(3000), rng.bytes(3000), rng.bytes(300_000), np.arange(200_000, dtype="<u4").tobytes(),
        rng.choice(list(b"the quick brown fox "), 200_000).astype("u1").tobytes(),
        b"".join(rng.bytes(50) * int(n) for n in rng.integers(1, 9, 3000)),
        (rng.normal(0, 3, 400_000)).astype("i1").tobytes(),
    ]  # fmt: skip
    sound, cut = [], []
    for content in contents:
        for level in -5, 1, 3, 9, 19:
            for whole in (True, False):
                frame = zstd.compress(content, level)
                payload = b"\0\0\0\1" + (frame if whole else frame[:-1])
                body = write_header(header("i1", (len(content),), low=np.int8(-128), high=np.int8(127)))
                (sound if whole else cut).append(body + b"\x08" + write_varint(len(payload)) + payload)
    answers = judge([with_checksum(body) for body in sound + cut])
    assert [said for said, *_ in answers] == ["decoded"] * len(sound) + ["CorruptStreamError"] * len(cut)
    for i, (_, _, checksum) in enumerate(answers[: len(sound)]):
        k = np.frombuffer(contents[i // 5], np.uint8)
        values = np.where(k < 128, k, ~(k & 127)).astype("u1")  # the highest bit: -1 less the rest
        assert checksum == zlib.crc32(values.tobytes())


def test_damaged_streams_decode_or_are_refused():
    rng = np.random.default_rng(1)
    streams: dict[str, list[bytes]] = {}  # by their dictionaries
    for feature in FEATURES:
        own = streams.setdefault(DICTIONARIES[feature].text if feature in DICTIONARIES else "", [])
        body = paths(feature)[0].read_bytes()[8:]
        for _ in range(20):
            damaged = bytearray(body)
            for at in rng.integers(0, len(body), 3):
                damaged[at] ^= int(rng.integers(1, 256))
            own.append(with_checksum(bytes(damaged)))
    said = {said for dictionary, own in streams.items() for said, *_ in judge(own, dictionary)}
    refused = {"CorruptStreamError", "DictionaryError", "MoECError", "UnsupportedVersionError"}
    assert said <= {"decoded", *refused}


# ------------------------------------------------------------------------- entries of a dictionary


def take(dictionary: Dictionary, *numbers: int) -> bytes:
    return section(11, struct.pack("<I", dictionary.checksum) + b"".join(map(write_varint, numbers)))


def section(number: int, payload: bytes) -> bytes:
    return bytes([number]) + write_varint(len(payload)) + payload


def test_entries_stand_before_the_rest_of_their_sections():
    """A transform, whole and parted anywhere, a mask and a box; the bytes are put together by hand."""
    whole = coefficients_section()
    moved = whole[:2] + whole[6:-1] + whole[2:6] + whole[-1:]  # `step` behind the bands
    mask = b"\7" + write_mask(np.ones((2, 3), bool))
    plain = write_header(header("u1", (2, 3), low=np.uint8(0), high=np.uint8(9)))
    [(_, _, expected)] = judge([with_checksum(plain + section(6, whole))])
    for at in range(1, len(moved) + 1):
        dictionary = Dictionary.make([Entry(2, mask), Entry(6, moved[:at]), Entry(1, b"\2\1\5")])
        bodies = [
            plain + section(6, moved[at:]) + take(dictionary, 1),
            plain + section(6, moved[at:]) + take(dictionary, 2, 0, 1),
            plain + section(6, moved[at:]) + take(dictionary, 1, 2),  # out of order
            plain + section(6, moved[at:]) + take(dictionary, 1, 1),
            plain + section(6, moved[at:]) + take(dictionary, 3),
            plain + section(6, moved[at:]) + take(dictionary),
            plain + take(dictionary, 1),  # no transform beside it
            plain + take(dictionary, 0),
        ]
        said = judge([with_checksum(body) for body in bodies], dictionary.text)
        assert [each for each, *_ in said[2:7]] == ["CorruptStreamError"] * 5
        # Where the entry is the whole, no byte of the stream allows for coefficients.
        assert said[0][::2] == ("decoded", expected) or at == len(moved)
        assert said[7][::2] == ("decoded", zlib.crc32(bytes([7] * 6)))
        assert judge([with_checksum(bodies[0])])[0][0] == "DictionaryError"


def test_large_entries_allow_for_no_coefficients():
    every = encode_mask(np.ones((10, 10), bool))
    likely = coefficients_section(b"\0\0", mask=every, coded=b"\1\xff\xff\xff\xfe", likely=True)
    entry = likely[:2] + likely[6:-5] + likely[2:6] + likely[-5:] + bytes(60_000)
    dictionary = Dictionary.make([Entry(6, entry)])
    body = write_header(header("u1", (513, 513), low=np.uint8(0)))
    body += section(6, bytes(20)) + take(dictionary, 0)
    assert judge([with_checksum(body)], dictionary.text)[0][0] == "CorruptStreamError"


# ------------------------------------------------------------------------- linear experts

EXPERTS = LinearExperts((152, 168, 184), (-64, -10, 40, 90), (144, 136), *[np.zeros(0, np.int32)] * 2, -100)


def with_experts(stream: bytes, experts: LinearExperts) -> bytes:
    """A stream whose transform is restored by experts of these knots, with weights at random."""
    header, sections = read_stream(stream)
    rng = np.random.default_rng(len(stream))
    axes = sum(n > 1 for n in open_stream(stream).shape)
    steep, level = len(experts.steepness), max(len(experts.value) - 1, 0)
    taps = rng.integers(-3, 4, (1 + steep + level, axes, 2)).astype(np.int32)
    constants = rng.integers(-3, 4, (1 + steep, 1 + level)).astype(np.int32)
    payload = write_linear_experts(replace(experts, taps=taps, constants=constants), (100, 100))
    return write_stream(header, sections | {Section.LINEAR_EXPERTS: payload})


def assert_reads_alike(streams: list[bytes]) -> None:
    """Both readers agree, on a scale in shares of what values differ by there."""
    for stream, own in zip(streams, read(streams), strict=True):
        expected, parts = decode(stream).reshape(-1).astype("f8"), open_stream(stream)
        half: Any = float(parts.header.high) / 2 - float(parts.header.low) / 2
        if parts.scaled is not None:
            scale = parts.scaled.scale
            half = scale.half * np.maximum(np.abs(expected), scale.knee)
        share = DOUBLE if parts.residual is not None and parts.network is None else SINGLE
        kept = np.finfo(own.dtype).eps * np.abs(expected) if own.dtype.kind == "f" else 1
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(own[~finite], expected[~finite])
        allowed = np.broadcast_to(share * half + 2 * kept, expected.shape)[finite]
        errors = np.abs(own[finite] - expected[finite])
        assert (errors <= allowed).all()


def blobs(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Balls with edges, and noise."""
    rng = np.random.default_rng(0)
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    out = rng.normal(0, 0.02, shape)
    for _ in range(12):
        centre, radius = rng.uniform(0, shape), rng.uniform(0.1, 0.35) * max(shape)
        away = np.sqrt(sum((own - at) ** 2 for own, at in zip(grid, centre, strict=True)))
        out += rng.uniform(-0.5, 0.5) * (1 - np.tanh(2 * (away - radius)))
    return out.astype("f4")


def test_transforms_that_are_written_with_experts_are_restored():
    # Single axes win nothing by experts that the encoder finds: those below have others.
    written = [
        encode(blobs(shape), Settings(effort="fast", **target))
        for shape, target in (
            ((256, 300), {"ratio": 100}),
            ((40, 48, 44), {"ratio": 100}),
            ((24, 20, 22, 26), {"ratio": 100}),
            ((64, 64, 60), {"max_error": 0.1}),
        )
    ]
    assert all(open_stream(stream).linear_experts is not None for stream in written)
    assert open_stream(written[-1]).residual is not None
    assert_reads_alike(written)


@pytest.mark.parametrize(
    "experts",
    [
        EXPERTS,
        replace(EXPERTS, value=(), shift=0),
        replace(EXPERTS, steepness=(), shift=127),
        replace(EXPERTS, steepness=(), value=()),
    ],
    ids=["all", "steepness", "value", "one"],
)
def test_experts_restore_every_transform(experts):
    """One to five axes, folded ones, masks, scales, and corrections and networks that are added to it."""
    frozen = [paths(feature)[0].read_bytes() for feature in FEATURES if feature not in DICTIONARIES]
    streams = [with_experts(each, experts) for each in frozen if open_stream(each).coefficients is not None]
    found = [open_stream(each) for each in streams]
    assert {sum(n > 1 for n in each.shape) for each in found} >= {1, 2, 3, 4}
    assert any(each.network for each in found)
    assert any(each.residual for each in found)
    assert any(each.scaled for each in found)
    assert_reads_alike(streams)


def experts_body(payload: bytes) -> bytes:
    return transform_body(coefficients_section()) + b"\x0a" + write_varint(len(payload)) + payload


def test_corrupt_experts_are_refused():
    two = np.zeros((1, 2, 2), np.int32), np.zeros((1, 1), np.int32)
    sound = replace(EXPERTS, steepness=(), value=(), taps=two[0], constants=two[1], shift=0)
    one = write_linear_experts(replace(sound, constants=np.full((1, 1), 3, np.int32)), (0, 0))
    knots = bytes([0x12, 9, 10, 0xFE, 1, 144, 136, 0, 0, 0])  # two of the steepness, a ramp of the value
    largest = bytes([0, 216, 136, 0, 1, 0, 0])  # a tap of 8
    corrupt = {f"{n} bytes": one[:n] for n in range(6)} | {
        "steepness that stays": knots[:2] + b"\x09" + knots[3:],
        "steepness that falls": knots[:2] + b"\x08" + knots[3:],
        "value that stays": knots[:4] + b"\xfe" + knots[5:],
        "value that falls": knots[:4] + b"\x80" + knots[5:],
        "reserved shift": bytes([0, 144, 136, 0x80, 0, 0]),
        "large integer": bytes([0, 0, 136, 0, 0x80, 0x80, 2, 0, 0]),
        "large tap": largest[:1] + b"\xe8" + largest[2:],
        "large constant": bytes([0, 136, 0xE8, 0, 0, 1, 0]),
    }
    nothing = write_header(header("u1", (2, 3), low=np.uint8(0))) + b"\x0a" + write_varint(len(one)) + one
    bodies = [*map(experts_body, corrupt.values()), nothing]
    streams = [with_checksum(each) for each in bodies]
    sane = [with_checksum(experts_body(each)) for each in (one, knots, largest)]
    said = [said for said, *_ in judge(streams + sane)]
    assert dict(zip([*corrupt, "no transform"], said, strict=False)) == dict.fromkeys(
        [*corrupt, "no transform"], "CorruptStreamError"
    )
    assert said[len(streams) :] == ["decoded"] * len(sane)
    for stream in streams:
        with pytest.raises(CorruptStreamError):
            open_stream(stream)
