"""The benchmark of bounds: one field measured, tables of known lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bounded
from benchmarks.records import Records
from tests.support.fields import rough


def line(codec: str, size: int, largest: float, effort: str | None = None) -> dict[str, Any]:
    return {
        "benchmark": "bounded", "field": "a", "shape": [500, 1000], "dtype": "<f4", "share": 0.1,
        "bound": 2.0, "codec": codec, "settings": {"effort": effort} if effort else {}, "version": "1",
        "bytes": size, "largest": largest, "values": 7, "psnr": 40.0, "encode_cpu": 1.0, "decode_cpu": 1.0,
    }  # fmt: skip


def test_run_measures_the_errors_of_the_decoded_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "isolated", lambda function, *args, **limits: function(*args))
    monkeypatch.setattr(bounded, "warm", lambda effort: None)
    array = rough((9, 12, 14))
    array[:2, :3] = np.nan
    np.savez(tmp_path / "a.npz", data=array)
    words = [str(tmp_path), "--bounds", "0.1", "0.01", "--peers"]
    words += ["--results", str(tmp_path / "b.jsonl")]
    bounded.main(words)
    lines = [json.loads(each) for each in (tmp_path / "b.jsonl").read_text().splitlines()]
    bounded.main(words)
    assert Records(tmp_path / "b.jsonl").lines == lines
    assert [each["share"] for each in lines] == [0.1, 0.01]
    for each in lines:
        assert each["bound"] == pytest.approx(each["share"] * (np.nanmax(array) - np.nanmin(array)))
        assert 0 < each["largest"] <= each["bound"]
        assert each["values"] == array.size - 6 * 14
    assert lines[0]["bytes"] < lines[1]["bytes"]
    assert "### 0.01 of the range" in (tmp_path / "b.md").read_text()


def test_tables_of_known_lines() -> None:
    text = bounded.tables(
        [line("moec_zarr", 100, 1.5, "fast"), line("SPERR", 200, 2.5), line("SZ3", 400, 2.0)]
    )
    (row,) = [each for each in text.splitlines() if each.startswith("| a |")]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "a",
        "100",
        "200",
        "400",
        "20000.0",
        "0.500",
        "2.00",
    ]
    errors = text[text.index("### Largest errors") :].splitlines()
    assert "| SPERR | 1 | 7 | 1.2500000 | 1 |" in errors
    assert "| SZ3 | 1 | 7 | 1.0000000 | 0 |" in errors


@pytest.mark.parametrize(("peer", "share"), [("SPERR", 0.05), ("SZ3", 0.05), ("ZFP", 0.05)])
def test_peers_in_their_bounded_modes(peer: str, share: float) -> None:
    pytest.importorskip(f"numcodecs_wasm_{peer.lower()}")
    for array in rough((9, 12, 14)), rough((4, 5, 9, 12), "i2"):
        bound = share * float(array.max() - array.min())
        found = bounded.measure_peer(array, bound, peer)
        assert 0 < found["bytes"] < array.nbytes
        assert found["largest"] <= bound * 1.001
        assert not math.isnan(found["psnr"])
