"""The benchmark of dictionaries, on a field of a few voxels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import dictionary
from tests.support.fields import rough

pytest.importorskip("imagecodecs")


def test_each_target_is_measured_once(tmp_path: Path) -> None:
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
