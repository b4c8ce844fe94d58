"""This codec beside peers: runs that resume, tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import beside, pictures, rd
from benchmarks.fields import cropped, find_fields
from benchmarks.forms import UnreachableError
from benchmarks.peers import PEERS
from moec_zarr.settings import Settings
from tests.benchmarks.lines import BOUNDED, LINES, SHAPE
from tests.support.fields import smooth


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rd, "warm", lambda effort: None)


def test_a_run_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    results = folder / "rd.jsonl"
    words = f"{folder} --ratios 20 40 --bounds --peers --label one --results {results}".split()
    calls = []

    def half(array: Any, settings: Settings) -> tuple[dict[str, Any], Any]:
        calls.append(settings.ratio)
        if len(calls) == 2:
            raise KeyboardInterrupt
        size = int(array.nbytes / settings.ratio)
        return {"bytes": size, "encode_cpu": 1.0, "decode_cpu": 0.1}, array + np.float32(settings.ratio)

    monkeypatch.setattr(rd, "measure_ours", half)
    with pytest.raises(KeyboardInterrupt):
        rd.main(words)
    rd.main(words)
    rd.main(words)
    assert calls == [20, 40, 40]
    found = [json.loads(text) for text in results.read_text().splitlines()]
    assert [each["ratio"] for each in found] == [20, 40]
    assert [each["largest"] for each in found] == pytest.approx([20, 40], rel=1e-5)
    rd.main(["two" if word == "one" else word for word in words])
    assert calls[3:] == [20, 40]


def test_a_peer_is_measured_beside_each_version_but_searched_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    given = []

    def peer(name: str, array: Any, budget: int | None, bound: float | None, found: Any) -> Any:
        given.append(found)
        return {"found": {"x": 0.5}, "bytes": 9, "encode_cpu": 1.0, "decode_cpu": 1.0}, array + 1

    def ours(array: Any, settings: Settings) -> Any:
        return {"bytes": 9, "encode_cpu": 1.0, "decode_cpu": 1.0}, array + 1

    monkeypatch.setattr(rd, "measure", peer)
    monkeypatch.setattr(rd, "measure_ours", ours)
    for label in "one", "one", "two":
        words = f"{folder} --ratios 20 --bounds --peers SPERR --label {label} --results {folder}/rd.jsonl"
        rd.main(words.split())
    assert given == [None, {"x": 0.5}]


def test_this_codec_is_measured_by_its_whole_stream() -> None:
    array = smooth(SHAPE)
    found, decoded = rd.measure_ours(array, Settings(ratio=60.0, effort="fast"))
    assert found["bytes"] <= array.nbytes / 60
    assert decoded.shape == array.shape
    with pytest.raises(UnreachableError, match="at least"):
        rd.measure_ours(array, Settings(ratio=6000.0, effort="fast"))


def test_errors_are_those_of_their_definitions() -> None:
    found = rd.errors(np.array([0, 4, np.nan], "f4"), np.array([1, 4, np.nan], "f4"))
    assert found == {"psnr": pytest.approx(20 * np.log10(4 / np.sqrt(0.5))), "largest": 1.0, "values": 2}


def test_a_peer_that_is_not_installed_leaves_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    line = {"codec": "ZFP", "ratio": 2.0, "settings": {}}
    assert rd.attempt(smooth(SHAPE), line, None) == {"reason": "imagecodecs is not installed"}


def test_large_fields_keep_their_middle_slices() -> None:
    array = np.arange(8 * 10 * 7).reshape(8, 10, 7)
    np.testing.assert_array_equal(cropped(array, 290), array[2:6])
    assert cropped(array, 560).shape == array.shape


def test_times_and_gains_are_beside_those_of_sperr() -> None:
    text = beside.medians(LINES)
    # 4.5 s/M of 0.25 million million voxels are 312.5 hours.
    ours = '| 100x | moec_zarr, "fast" | 2 | 4.500 | 3 | 0.500 | 2 | +0.00 dB | -1.00 dB | 312 |'
    assert ours in text
    assert "| 100x | SPERR | 2 | 1.500 | 1 | 0.250 | 1 |  |  | 104 |" in text
    assert "writes 3 to 3 times slower than SPERR" in text
    assert "| 1000x |" not in text  # SPERR does not reach it
    assert "| 100x | +0.00 dB | -1.00 dB | 4.500 | 3 | 2 | 312 |" in beside.in_short(LINES, {})


def test_bytes_count_at_bounds() -> None:
    assert "| bound 0.01 | 0.800 | 0.800 | 0.800 |" in beside.bytes_at_bounds(BOUNDED)
    assert "| A | 100.0x (SZ3 80.0x) |" in beside.by_field(BOUNDED, {"a": "A"})
    assert '| bound 0.01 | moec_zarr, "fast" | 1 | 1.500 | 1 | 0.250 | 1 | 50 % of bytes | 50 % |' in (
        beside.medians(BOUNDED)
    )


def test_what_is_lost_is_said() -> None:
    text = beside.lost(LINES, {"a": "A"})
    assert "| A | 100x | 31.00 | x265 36.00 | 6.00 | 0.75 |" in text
    assert "| b | 100x | 39.00 | SPERR 40.00 | 3.00 | 1.50 |" in text
    assert "Another codec is better on A: x265 at 100x; b: SPERR at 100x." in beside.in_short(
        LINES, {"a": "A"}
    )
    assert "| a | 100x | 31.00 (6.00) | 30.00 (1.50) | **36.00** (0.75) | - | - |" in beside.of_integers(
        LINES
    )


def test_every_codec_has_its_own_colour(tmp_path: Path) -> None:
    assert set(pictures.COLOURS) == {beside.FAST, *PEERS}
    assert len(set(pictures.COLOURS.values())) == len(pictures.COLOURS)
    pictures.plot_times(LINES, tmp_path / "times.png")
    pictures.plot_quality(LINES, {"a": "A", "b": "B"}, tmp_path / "quality.png")
    for name in "times", "quality":
        image = imread(tmp_path / f"{name}.png")
        assert image.shape[0] > 300
        assert image[..., :3].std() > 0.01


def test_fields_by_name(folder: Path) -> None:
    np.testing.assert_array_equal(find_fields(folder)["waves"](), smooth(SHAPE))
    assert list(find_fields(None, ["simulated_tracer"])) == ["simulated_tracer"]
    with pytest.raises(SystemExit, match="there are waves"):
        find_fields(folder, ["wave"])
