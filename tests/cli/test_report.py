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


def test_report_by_criteria_from_a_file(run, converted, tmp_path):
    file = tmp_path / "limits.toml"
    file.write_text('largest = 0\n[variables."a"]\nbias = 0.5\n')
    code, _, err = run("report", converted, "-o", tmp_path / "r.html", "--criteria", file)
    assert (code, err) == (0, "")
    assert "as asked for" in (tmp_path / "r.html").read_text("utf-8")
    file.write_text("larger = 0\n")
    code, _, err = run("report", converted, "-o", tmp_path / "s.html", "--criteria", file)
    assert code == 2
    assert "there is no criterion 'larger'; there are levels (relative error), signal" in err
    assert not (tmp_path / "s.html").exists()
