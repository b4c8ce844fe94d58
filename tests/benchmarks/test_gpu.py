"""The benchmark of groups: chunks of a field, a small run on the CPU, a table of known lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import gpu
from benchmarks.records import Records
from tests.support.fields import rough


def test_chunks_are_parts_of_the_field() -> None:
    field = np.arange(2 * 30 * 40 * 8).reshape(2, 30, 40, 8)
    first, second = gpu.chunks_of(field, (10, 12, 20), 2)
    for chunk in (first, second):
        assert chunk.shape == (10, 12, 20)
        z, y, x = np.unravel_index(chunk[0, 0, 0], field.shape[1:])
        np.testing.assert_array_equal(chunk[..., : 8 - x], field[0, z : z + 10, y : y + 12, x:])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(gpu.chunks_of(field, (10, 12, 20), 2)[1], second)


def test_run_measures_writes_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "isolated", lambda function, *args, **limits: function(*args))
    monkeypatch.setattr(gpu, "TRIAL_SHARE", 1e-4)
    monkeypatch.setattr(gpu, "CHUNKS", 3)
    np.savez(tmp_path / "a.npz", data=rough((16, 20, 20), noise=3.0))
    words = [
        str(tmp_path),
        "--chunk",
        "8",
        "8",
        "8",
        "--ratio",
        "3",
        "--devices",
        "cpu",
        "--groups",
        "1",
        "2",
    ]
    words += ["--efforts", "fast", "balanced", "--ceiling", "0.001", "--results", str(tmp_path / "g.jsonl")]
    gpu.main(words)
    lines = Records(tmp_path / "g.jsonl").lines
    kinds = [(line["settings"]["effort"], line["settings"].get("group")) for line in lines]
    assert kinds == [("fast", 1), ("balanced", 1), ("balanced", 2), ("best", None)]
    for line in lines[:3]:
        assert line["chunks"] == max(3, 2 * line["settings"]["group"])
        assert line["bytes"] <= 8**3 * 4 / 3
        assert line["psnr"] > 20
        assert line["chunks_per_minute"] > 0
        assert line["decode_gigabytes_per_second"] > 0
    assert lines[3]["psnr"] > 10
    gpu.main(words)
    assert Records(tmp_path / "g.jsonl").lines == lines
    assert "| a | 8x8x8 | cpu | balanced | 2 |" in capsys.readouterr().out


def test_table_of_known_lines() -> None:
    shared = {"field": "a", "shape": [64, 64, 64], "psnr": 40.123}
    text = gpu.table([
        shared | {
            "settings": {"device": "cuda", "effort": "best", "group": 8}, "chunks_per_minute": 61.25,
            "cpu_seconds_per_chunk": 0.5, "decode_gigabytes_per_second": 1.25, "device_megabytes": 812.4,
            "utilisation": 0.875,
        },
        shared | {"settings": {"device": "cpu", "effort": "best", "minutes": 10.0}, "seconds": 606.0},
    ])  # fmt: skip
    assert "| a | 64x64x64 | cuda | best | 8 | 61.25 | 0.50 | 40.12 | 1.250 | 812 | 0.88 |" in text
    assert "| a | 64x64x64 | cpu | best | 10.1 minutes |  |  | 40.12 |  |  |  |" in text
