"""The tables of the pages are those that the committed results give, and every line says what it is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables

MARKED = [page for page in tables.PAGES if tables.MARK.search(page.read_text())]
RESULTS = sorted(tables.RESULTS.glob("*.jsonl"))


@pytest.mark.parametrize("page", MARKED, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page: Path) -> None:
    text = page.read_text()
    assert tables.filled(text) == text, "python -m benchmarks.tables writes them anew"


def test_every_table_stands_on_a_page() -> None:
    names = [found[2] for page in MARKED for found in tables.MARK.finditer(page.read_text())]
    assert sorted(names) == sorted(tables.TABLES)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_every_line_says_version_commit_and_machine(path: Path) -> None:
    for line in map(json.loads, path.read_text().splitlines()):
        assert line["version"]
        assert line["commit"]
        assert {"processor", "cores"} <= set(line["machine"])


def line(codec: str, commit: str, **others: Any) -> dict[str, Any]:
    return {
        "benchmark": "rd", "field": "a", "shape": [10, 100], "dtype": "<f4", "share": 0.1, "bound": 2.0,
        "codec": codec, "settings": {"effort": "fast"} if codec == "moec_zarr" else {}, "version": "1.2",
        "commit": commit, "machine": {"processor": "P", "cores": 2}, "load": 0.5, "encode_cpu": 0.001,
        "decode_cpu": 0.001, "psnr": 40.0,
    } | others  # fmt: skip


def test_marks_are_filled_from_the_newest_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        line("moec_zarr", "old", bytes=30),
        line("SPERR", "old", bytes=90, beside="1.1"),
        line("moec_zarr", "new", bytes=50, load=1.5),
        line("SPERR", "new", bytes=100, beside="1.2"),
        line("SZ3", "new", bytes=200, beside="1.2"),
        line("ZFP", "new", reason="takes no such array"),
    ]
    (tmp_path / "rd.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = tables.filled("Before.\n\n<!-- table: bounds -->\nold table\n<!-- end -->\n\nAfter.\n")
    assert text.startswith("Before.\n\n<!-- table: bounds -->\n\n| bound")
    assert text.endswith("\n<!-- end -->\n\nAfter.\n")
    assert "| bound 0.1 | 0.500 | 0.500 | 0.500 |" in text
    assert 'Measured at commit new: "fast", SPERR 1.2, SZ3 1.2, ZFP 1.2; P, 2 cores; load 0.5 to 1.5.' in text
    assert "old" not in text
    assert tables.filled(text) == text
