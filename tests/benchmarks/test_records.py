"""Measurements on record, and the version they belong to."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

import moec_zarr
from benchmarks import records
from benchmarks.records import Records, codec_sources, codec_version, latest, origin, quality
from tests.benchmarks.lines import LINES, line


def test_records_know_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "results" / "rd.jsonl"
    Records(path).add(line(shape=(100, 10_000), psnr=np.float64("inf")))
    with path.open("a") as file:
        file.write('{"benchmark": "r')  # ended while it wrote
    again = Records(path)
    assert [each["psnr"] for each in again.lines] == [None]
    assert line(bytes=1) in again
    for other in ({"field": "b"}, {"ratio": 300.0}, {"version": "2"}, {"settings": {"effort": "fast"}}):
        assert line(**other) not in again
    again.add(line(field="b"))
    assert [json.loads(text)["field"] for text in path.read_text().splitlines()] == ["a", "b"]


def test_the_latest_version_counts() -> None:
    assert [each.get("psnr") for each in latest(LINES) if each["codec"] == "SPERR"] == [30.0, 40.0, None]


def test_the_sources_are_those_that_a_stream_depends_on() -> None:
    folder = Path(moec_zarr.__file__).parent
    names = {str(path.relative_to(folder)) for path in codec_sources()}
    # What the encoder imports, directly, late or through others.
    assert {
        "codec/encode.py",
        "fit/network/train.py",
        "model/network.py",
        "bitstream/range_coder.py",
    } <= names
    assert {"settings.py", "quality.py", "model/dispatch_torch.py"} <= names
    assert not {name.split("/")[0] for name in names} & {"adapters", "report", "conversion", "demo", "cli"}


def test_the_version_follows_the_sources(tmp_path: Path) -> None:
    more = tmp_path / "more.py"
    more.write_text("1")
    assert codec_version() == codec_version() != codec_version(more)


def test_quality_has_both_peaks() -> None:
    found = quality(np.array([0, 100], "u1"), np.array([10, 100], "u1"))
    rmse = np.sqrt(50)
    assert found["psnr"] == pytest.approx(20 * np.log10(100 / rmse))
    assert found["psnr_dtype"] == pytest.approx(20 * np.log10(255 / rmse))


def test_the_origin_is_the_commit_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert origin()["commit"] is None
    (tmp_path / "moec_zarr").mkdir()
    module, page = tmp_path / "moec_zarr" / "a.py", tmp_path / "page.md"
    commits = []
    for path in module, page:
        path.write_text("1")
        for words in ("init -q", "add -A", "-c user.name=a -c user.email=a commit -q -m a"):
            subprocess.run(["git", *words.split()], cwd=tmp_path, check=True)
        commits.append(origin()["commit"])
    assert re.fullmatch("[0-9a-f]{7,}", commits[0])
    assert commits[1] == commits[0]
    module.write_text("2")
    assert origin()["commit"] == f"{commits[0]}+"
