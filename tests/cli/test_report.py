"""``moec-zarr report``."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")


def test_report(run, converted, source, tmp_path):
    code, out, err = run("report", converted, "--against", source, "-o", tmp_path / "r.html", "--var", "a")
    assert (code, err) == (0, "")
    assert str(tmp_path / "r.html") in out
    page = (tmp_path / "r.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count('<section class="variable"') == 1
    assert "A few slices were compared with" in page


def test_report_on_what_is_no_archive(run, source, tmp_path):
    code, _, err = run("report", source, "-o", tmp_path / "r.html")
    assert code == 2
    assert "holds no array that was compressed with moec_zarr" in err
    assert not (tmp_path / "r.html").exists()
