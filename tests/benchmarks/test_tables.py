"""The page of performance shows what the committed results say, and they say how they were made."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy")

from benchmarks import tables


def test_the_page_has_the_tables_of_the_results() -> None:
    page = tables.PAGE.read_text()
    assert tables.filled(page) == page, "run python -m benchmarks.tables"


@pytest.mark.parametrize("benchmark", ["speed", "bounded"])
def test_each_line_says_with_what_it_was_made(benchmark: str) -> None:
    lines = tables.results(benchmark)
    assert lines
    for line in lines:
        assert line["version"], line
        assert line["machine"]["processor"], line


def test_a_place_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="'medians'"):
        tables.filled("<!-- versions -->\n<!-- end of versions -->\n")


def test_no_stream_is_beyond_its_bound() -> None:
    for line in tables.results("bounded"):
        if line["codec"].startswith("moec_zarr"):
            assert line["largest"] <= line["bound"]
