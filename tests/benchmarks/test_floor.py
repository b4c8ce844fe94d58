"""The benchmark of rounded values, on a field of a few voxels."""

from __future__ import annotations

import json

import numpy as np

from benchmarks import floor
from tests.support.fields import rough


def test_each_target_is_measured_once(tmp_path):
    field = rough((6, 7, 8), noise=3)
    field[2, 3] = np.nan
    np.savez(tmp_path / "small.npz", data=field)
    results = tmp_path / "floor.jsonl"
    for _ in range(2):
        floor.main([str(tmp_path), "--results", str(results)])
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    ours = [line for line in lines if line["codec"] == floor.OURS]
    assert len(ours) == len(floor.TARGETS)
    assert all(line["kept"] for line in ours)
    assert len({json.dumps([line["codec"], line["settings"], line["share"]]) for line in lines}) == len(lines)
    assert "relative bound of 0.01" in results.with_suffix(".md").read_text()
