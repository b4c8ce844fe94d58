"""The speed benchmark: one field measured, tables of known lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import speed
from benchmarks.fields import shells
from benchmarks.records import Records
from tests.support.fields import smooth


def measured(
    codec: str, psnr: float | None, cpu: float, effort: str | None = None, **others: Any
) -> dict[str, Any]:
    settings = {"effort": effort} if effort else {}
    return {
        "benchmark": "speed", "field": "a", "shape": [100, 100, 200], "dtype": "<f4", "codec": codec,
        "settings": settings, "ratio": 100.0, "version": "1", "psnr": psnr, "bytes": 80_000,
        "encode_cpu": cpu, "encode_wall": 2 * cpu, "decode_cpu": 0.5, "decode_wall": 0.6,
    } | others  # fmt: skip


def test_run_measures_writes_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "isolated", lambda function, *args, **limits: function(*args))
    monkeypatch.setattr(speed, "warm", lambda effort: None)
    np.savez(tmp_path / "a.npz", data=smooth((24, 24, 20)))
    words = [str(tmp_path), "--fields", "a", "--ratios", "100", "10", "--efforts", "fast"]
    words += ["--results", str(tmp_path / "speed.jsonl")]
    speed.main([*words, "--minutes", "0"])
    assert not Records(tmp_path / "speed.jsonl").lines
    speed.main(words)
    lines = Records(tmp_path / "speed.jsonl").lines
    assert [(line["benchmark"], line["ratio"]) for line in lines] == [
        ("speed", 100), ("speed", 10), ("speed-stores", 100),
    ]  # fmt: skip
    assert all(line["encode_cpu"] > 0 and line["decode_cpu"] > 0 for line in lines[:2])
    assert lines[0]["bytes"] <= 24 * 24 * 20 * 4 / 100
    assert {len(reads) for reads in lines[2]["stores"].values()} == {6}
    speed.main(words)
    assert Records(tmp_path / "speed.jsonl").lines == lines
    assert "### Reads" in (tmp_path / "speed.md").read_text()


def test_tables_of_known_lines() -> None:
    reads = [
        {"read": "whole", "voxels": 2_000_000, "cold": 100.0, "warm": 40.0},
        {"read": "one voxel", "voxels": 1, "cold": 30.0, "warm": 4.0},
    ]
    text = speed.tables([
        measured("moec_zarr", 41.5, 3.0, "fast", reads=reads, decode_cpu_numpy=1.0, encode_megabytes=64.2),
        measured("moec_zarr", None, 0.25, "best", reason="took more than 9 s"),
    ])  # fmt: skip
    assert '| a | moec_zarr, "fast" | 41.50 | 80000 | 1.500 | 3.000 | 4.0 | 2.0 | 64 |  |' in text
    assert '| a | 100 | moec_zarr, "best" | took more than 9 s |' in text
    # 5 ms and 3% of 100 ms are allowed.
    assert '| 100 | moec_zarr, "fast" | chunk | one voxel | 1 | 5e-05 | 30.0 | 4.0 | 0.50 |' in text


def test_phantom_has_thin_walls() -> None:
    field = shells((48, 64, 64))
    assert field.dtype == np.float32
    assert 0 <= field.min() < 0.01
    assert 0.7 < field.max() <= 1
    assert (field > 0.55).mean() < 0.15  # the walls are thin
