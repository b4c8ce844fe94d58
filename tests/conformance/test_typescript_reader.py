"""The reader in ``js/`` refuses what the format calls corrupt, within bounds on those made to cost much."""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from numcodecs import zstd

from moec_zarr.bitstream.container import write_header
from moec_zarr.bitstream.primitives import write_varint
from tests.conformance.freeze_streams import FEATURES, paths
from tests.conformance.test_corrupt_streams import CORRUPT
from tests.conformance.test_hostile_streams import CASES
from tests.support.streams import header, with_checksum

JUDGE = Path(__file__).parents[2] / "js" / "build" / "test" / "judge.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None or not JUDGE.exists(), reason="`make js` has not run")
SLOW = 4  # times that plain loops may take what NumPy and compiled ones may


def judge(streams: list[bytes]) -> list[tuple[str, float, int]]:
    """What decoding each of the streams came to, its CPU seconds, and the CRC-32 of the values."""
    lines = "\n".join(base64.b64encode(stream).decode() for stream in streams)
    done = subprocess.run([NODE, JUDGE], input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(streams)
    return [(answer["said"], answer["seconds"], answer["checksum"]) for answer in answers]


def test_corrupt_streams_are_refused():
    answers = judge([with_checksum(case.values[0]) for case in CORRUPT])
    said = {case.id: said for case, (said, *_) in zip(CORRUPT, answers, strict=True)}
    assert {name for name, each in said.items() if each != "CorruptStreamError"} == set()


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


@pytest.mark.parametrize("version", [1, 255])
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
    streams = []
    for feature in FEATURES:
        body = paths(feature)[0].read_bytes()[8:]
        for _ in range(20):
            damaged = bytearray(body)
            for at in rng.integers(0, len(body), 3):
                damaged[at] ^= int(rng.integers(1, 256))
            streams.append(with_checksum(bytes(damaged)))
    said = {said for said, *_ in judge(streams)}
    assert said <= {"decoded", "CorruptStreamError", "UnsupportedVersionError", "MoECError"}
