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
    field = np.concatenate([rough((16, 24, 24), noise=2) + n for n in range(4)], axis=0)
    np.savez(tmp_path / "small.npz", data=np.tile(field, (4, 1, 1)))
    results = tmp_path / "dictionary.jsonl"
    for _ in range(2):
        dictionary.main([str(tmp_path), "--ratios", "20", "--bounds", "0.01", "--results", str(results)])
    ratio, bound = (json.loads(line) for line in results.read_text().splitlines())
    assert ratio["trained"] == ratio["tested"] == bound["tested"] == 2
    assert ratio["dictionary_stream_bytes"] <= 2 * 64 * 24 * 24 * 4 / 20
    assert 0.5 < bound["bytes_at_equal_quality"] < 1.2
    assert bound["sperr"] > 0


def test_cut_leaves_out_what_holds_nothing() -> None:
    field = np.zeros((4, 4, 4), "f4")
    field[:2, :2], field[2:, 2:, :2] = np.nan, rough((2, 2, 2))
    assert [each.shape for each in dictionary.cut(field, (2, 2, 2))] == [(2, 2, 2)]


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
        }
        for field, target, sperr, seconds in (
            ("a", {"ratio": 100.0}, 29.0, 0.1), ("b", {"ratio": 100.0}, 28.0, 0.2),
            ("c", {"ratio": 100.0}, 0.0, 0.0), ("a", {"bound": 0.01}, 160.0, 0.5),
        )
    ]  # fmt: skip
    text = dictionary.medians(lines)
    assert "| 100x | 2 | +1.75 dB | 3.00 | 2.00 | 0.15 | 15 |" in text
    assert "| bound 0.01 of the range | 1 | 50 % of bytes | 3.00 | 2.00 | 0.50 | 4 |" in text
    assert "| c | 100x | -10.0 | +0.20, +0.10 | 3.00 | 2.00 | none fits |  |" in dictionary.table(lines)
