"""The benchmark of targets: its arithmetic by hand, and that it measures what it says, once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import targets
from benchmarks.targets import Kind


def kind(**others):
    return Kind(
        **{"variable": "a", "units": "m", "field": "a", "target": {"ratio": 4}, "why": "", "threshold": 5.0}
        | others
    )


def test_what_is_kept_of_known_values():
    x = np.array([[[0, 1, 2, 5], [4, 10, np.nan, 0]]], "f4")
    y = np.array([[[0, 1, 3, 4], [4, 12, np.nan, 1]]], "f4")
    found = targets.measure(x, y, kind())
    assert (found["zeros"], found["zeros_kept"]) == (2, 1)
    assert (found["beyond"], found["beyond_after"], found["crossed"]) == (2, 1, 1)
    assert found["bias"] == pytest.approx((1 - 1 + 2 + 1) / 22)
    assert found["sums"] == pytest.approx(3 / 22)
    assert found["relative_largest"] == 0.5
    assert found["relative_99"] == pytest.approx(0.5 - 0.04 * (0.5 - 0.2))  # of 0, 0, .2, .2, .5: by hand
    assert found["levels"] == pytest.approx([np.sqrt((1 + 1 + 4 + 1) / 7) / (22 / 7)])
    assert found["changed"] == 4 / 7
    assert (found["least"], found["least_after"]) == (0, 0)


def test_levels_and_slices_are_measured_one_by_one():
    x = np.stack([np.full((2, 3, 3), value) for value in (100.0, 1e-4, 0.0)], axis=1)  # of two times
    y = x.copy()
    y[:, 0] += 1
    y[0, 1] *= 1.5
    found = targets.measure(x, y, kind(levels=1))
    assert found["levels"] == pytest.approx([0.01, np.sqrt(0.25 / 2)])
    assert found["sums"] == pytest.approx(0.5)


def test_what_an_absolute_error_makes_nothing_does_not_count():
    x = np.stack([np.full((4, 4), value) for value in (1e-3, 0.5, 20.0)])
    y = np.stack([np.full((4, 4), value) for value in (5e-3, 0.4, 20.1)])
    target = {"max_relative_error": 0.1, "max_error": 0.01}
    found = targets.measure(x, y, kind(levels=0, target=target))
    assert found["levels"] == pytest.approx([0.2, 0.005])
    assert found["sums"] == pytest.approx(0.2)
    assert found["relative_largest"] == pytest.approx(0.2)  # of 0.5, above 0.01 / 0.1


def test_each_kind_is_measured_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rain = np.maximum(rng.normal(size=(4, 12, 14)).cumsum(2), 0).astype("f4")
    for name in ("rain", "same"):
        np.savez(tmp_path / f"{name}.npz", data=rain)
    wanted = kind(field="rain", target={"max_relative_error": 0.05, "exact": [0]}, threshold=1.0)
    labels = kind(field="same", target={"max_error": 0}, beside={"max_error": 1.0})
    absent = kind(field="elsewhere")
    monkeypatch.setattr(targets, "KINDS", (wanted, labels, absent))
    results = tmp_path / "targets.jsonl"
    for _ in range(2):
        targets.main([str(tmp_path), "--results", str(results)])
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["settings"] for line in lines] == [targets.settings_of(wanted), targets.settings_of(labels)]

    bound, exact = (line["at"] for line in lines)
    assert list(bound) == ["recommended", "beside", "70 dB"]
    assert 0 < bound["recommended"]["relative_largest"] <= 0.05
    assert bound["recommended"]["zeros_kept"] == (rain == 0).sum()
    assert bound["beside"]["ratio"] >= bound["recommended"]["ratio"] == bound["beside"]["target"]["ratio"]
    assert exact["recommended"]["changed"] == 0
    assert exact["recommended"]["not_kept"] == []
    assert "correlation" in bound["beside"]["not_kept"]
    assert "zeros" not in bound["recommended"]["not_kept"]
    assert exact["beside"]["target"] == {"max_error": 1.0}

    guide = targets.tabulate_guide(lines)
    assert "| a (m) | `max_relative_error=0.05`, `exact=0` |" in guide
    assert "| a (m) | `max_error=0` |  | nothing | 2" in guide
    rows = [row for row in targets.tabulate_kept(lines).splitlines() if row.startswith("| a")]
    assert rows[0].startswith("| a | ")
    assert rows[1].startswith("| a / `max_error=1` | 0 / ")


def test_each_level_can_be_a_chunk_of_its_own():
    field = np.random.default_rng(0).normal(size=(8, 2, 10, 12)).cumsum(3).astype("f4")
    field[:, 1] *= 1e-3
    whole, apart = (
        targets.encode_and_measure(field, kind(levels=1), {"psnr": 30}, axis) for axis in (None, 1)
    )
    assert whole["levels"][1] > 10 * apart["levels"][1]
    assert whole["ratio"] > apart["ratio"]
