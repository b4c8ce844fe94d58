"""Rate and distortion: runs that resume, tables and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import rd
from benchmarks.fields import find_fields
from benchmarks.peers import UnreachableError
from tests.benchmarks.lines import LINES, SHAPE
from tests.support.fields import smooth


def test_a_run_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    results = folder / "rd.jsonl"
    words = (
        f"{folder} --ratios 20 40 --codecs moec_zarr --efforts fast --label one --results {results}".split()
    )
    calls = []

    def half(array: Any, ratio: float, effort: str) -> tuple[dict[str, Any], Any]:
        calls.append(ratio)
        if len(calls) == 2:
            raise KeyboardInterrupt
        size = int(array.nbytes / ratio)
        return {"bytes": size, "encode_seconds": 1.0, "decode_seconds": 0.1}, array + np.float32(ratio)

    monkeypatch.setattr(rd, "measure_ours", half)
    with pytest.raises(KeyboardInterrupt):
        rd.main(words)
    rd.main(words)
    rd.main(words)
    assert calls == [20, 40, 40]
    found = [json.loads(text) for text in results.read_text().splitlines()]
    assert [each["ratio"] for each in found] == [20, 40]
    assert [each["max_error"] for each in found] == pytest.approx([20, 40], rel=1e-5)
    rd.main([*words[:-3], "two", *words[-2:]])
    assert calls[3:] == [20, 40]


def test_this_codec_is_measured_by_its_whole_stream() -> None:
    array = smooth(SHAPE)
    found, decoded = rd.measure_ours(array, 60.0, "fast")
    assert found["bytes"] <= array.nbytes / 60
    assert decoded.shape == array.shape
    with pytest.raises(UnreachableError, match="at least"):
        rd.measure_ours(array, 6000.0, "fast")


def test_a_peer_that_is_not_installed_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rd, "versions", lambda *packages: dict.fromkeys(packages))
    found = rd.outcome(np.zeros(3), lambda: rd.measure_peer("ZFP", np.zeros(3), 1.0, 1.0, 1.0))
    assert found == {"status": "skipped", "reason": "numcodecs-wasm-zfp is not installed"}


def test_gains_are_over_the_best_peer() -> None:
    assert rd.gains(LINES) == {
        (100.0, "moec_zarr best"): {"a": 3.5},
        (100.0, "moec_zarr fast"): {"a": 1.0, "b": -1.0},
    }


def test_tables() -> None:
    text = rd.tables(LINES)
    assert "| moec_zarr fast | 100x | +0.00 | -1.00 (b) | 1 of 2 |" in text
    assert "| field | ratio | moec_zarr fast | moec_zarr best | SPERR | ZFP |" in text
    assert "| a | 100x | 31.00 | 33.50 | 30.00 | 25.00 |" in text
    assert "| a | 1000x | 22.00 |  | - |  |" in text


def test_plots(tmp_path: Path, capsys: Any) -> None:
    rd.report(LINES, tmp_path / "rd.jsonl")
    assert (tmp_path / "rd.md").read_text() == rd.tables(LINES)
    for field in "ab":
        image = imread(tmp_path / f"rd_{field}.png")
        assert image.shape[0] > 300
        assert image[..., :3].std() > 0.01


def test_fields_by_name(folder: Path) -> None:
    np.testing.assert_array_equal(find_fields(folder)["waves"](), smooth(SHAPE))
    assert list(find_fields(None, ["simulated_tracer"])) == ["simulated_tracer"]
    with pytest.raises(SystemExit, match="there are waves"):
        find_fields(folder, ["wave"])
