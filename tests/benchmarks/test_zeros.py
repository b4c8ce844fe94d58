"""The benchmark of repeated values, on a field of a few voxels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks import zeros
from tests.support.fields import rough


def test_psnr_and_bias_are_measured_once(tmp_path: Path) -> None:
    field = np.maximum(rough((8, 12, 14), noise=3) - 40, 0)
    field[2, 3] = np.nan
    np.savez(tmp_path / "small.npz", data=field)
    results = tmp_path / "zeros.jsonl"
    for _ in range(2):
        zeros.main([str(tmp_path), "--ratios", "8", "--results", str(results)])
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["codec"] for line in lines] == ["moec_zarr", "SZ3"]
    assert lines[0]["bytes"] <= field.nbytes / 8
    assert lines[0]["psnr"] > 20
    assert abs(lines[0]["bias"]) < 1
    assert "small" in zeros.tables(lines)


def test_figures_are_those_of_their_definitions() -> None:
    x = np.array([0, 0, 4, np.nan, 4], "f4")
    y = np.array([0, 1, 4, np.nan, 5], "f4")
    found = zeros.figures(x, y)
    assert found["bias"] == 100 * (2 / 8)
    assert np.isclose(found["psnr"], 20 * np.log10(4 / np.sqrt(0.5)))
    assert found["zeros_kept"] == 0.5
