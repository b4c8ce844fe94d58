"""The benchmark of dictionaries, on a field of a few voxels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import dictionary
from tests.support.fields import rough


def test_each_target_is_measured_once(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    np.savez(tmp_path / "small.npz", data=rough((32, 24, 24), noise=2))
    results = tmp_path / "dictionary.jsonl"
    for _ in range(2):
        dictionary.main([
            str(tmp_path), "--cuts", "eighths", "--ratios", "20", "--bounds", "0.01",
            "--results", str(results),
        ])  # fmt: skip
    ratio, bound = (json.loads(line) for line in results.read_text().splitlines())
    assert ratio["trained"] == ratio["tested"] == bound["tested"] == 4
    assert ratio["dictionary_stream_bytes"] <= 4 * 16 * 12 * 12 * 4 / 20
    assert 0.5 < bound["bytes_at_equal_quality"] < 1.2
    assert bound["sperr"] > 0


def test_cut_leaves_out_what_holds_nothing() -> None:
    field = np.zeros((4, 4, 4), "f4")
    field[:2, :2], field[2:, 2:, :2] = np.nan, rough((2, 2, 2))
    assert [each.shape for each in dictionary.cut(field, (2, 2, 2))] == [(2, 2, 2)]


def test_eighths_halve_the_three_longest_axes() -> None:
    assert dictionary.chunk_shape("a", (7, 50, 60, 70), dictionary.EIGHTHS) == (7, 25, 30, 35)


def test_medians_are_beside_sperr() -> None:
    common = {
        "benchmark": "dictionary", "shape": [4], "dtype": "float32", "codec": "moec_zarr", "version": "1",
        "bytes_at_equal_quality": 0.9, "dictionary_stream_bytes": 80.0, "median_gain_db": 0.2,
        "least_gain_db": 0.1, "cpu_per_million": 3.0,
    }  # fmt: skip
    lines = [
        common | {
            "field": field, "settings": target, "db": 30.0, "gain_db": 0.25, "sperr": sperr,
            "dictionary_cpu_per_million": 2.0, "sperr_cpu_per_million": seconds,
            "decode_cpu_per_million": 0.2, "dictionary_decode_cpu_per_million": 0.3,
            "sperr_decode_cpu_per_million": 0.1,
        }
        for field, target, sperr, seconds in (
            ("a", {"ratio": 100.0}, 29.0, 0.1), ("b", {"ratio": 100.0}, 28.0, 0.2),
            ("c", {"ratio": 100.0}, 0.0, 0.0), ("a", {"bound": 0.01, "cut": "eighths"}, 160.0, 0.5),
        )
    ]  # fmt: skip
    text = dictionary.medians(lines)
    assert "| small | 100x | 2 | +1.75 dB | 0.150 | 22.5 | 15.0 | 2.0 | 3.0 |" in text
    assert "| eighths | bound 0.01 of the range | 1 | 50 % of bytes | 0.500 | 6.0 | 4.0 | 2.0 | 3.0 |" in text
    assert "| small | c | 100x | -10.0 | +0.20, +0.10 | 3.00 | 2.00 | none fits |  |" in dictionary.table(
        lines
    )


def test_a_measurement_made_again_counts_once() -> None:
    line = {
        "benchmark": "dictionary", "field": "a", "shape": [4], "dtype": "float32", "codec": "moec_zarr",
        "settings": {"ratio": 100.0}, "db": 30.0, "gain_db": 0.0, "sperr": 29.0,
        "dictionary_cpu_per_million": 1.0, "cpu_per_million": 1.0, "sperr_cpu_per_million": 0.1,
    }  # fmt: skip
    text = dictionary.medians([line | {"version": "1"}, line | {"version": "2", "sperr": 27.0}])
    assert "| small | 100x | 1 | +3.00 dB | 0.100 | 10.0 | 10.0 |  |  |" in text
