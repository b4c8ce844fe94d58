"""The verdict of a report: first on the page, by records alone or beside the source, by limits asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from moec_zarr import MoECCodec, MoECError, write_report
from moec_zarr.conversion.work.run import convert
from tests.support.fields import smooth
from tests.support.pages import Contents

pytest.importorskip("matplotlib")

LEVELS = np.array([100_000.0, 50_000, 10_000, 7_000, 5_000])
CODECS = {"q": MoECCodec(psnr=60, effort="fast"), "pr": MoECCodec(max_error=0.01, effort="fast")}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Humidity whose means span four decades, and rain that is mostly 0; days are times at midnight."""
    rng = np.random.default_rng(0)
    means = 10.0 ** np.array([-2, -3, -5, -5.7, -6])
    rough = rng.normal(size=(3, 5, 16, 24))
    humid = means[:, None, None] * np.exp(0.1 * rough + 0.002 * smooth((3, 5, 16, 24)))
    rain = np.maximum(rng.normal(size=(3, 16, 24)) - 0.5, 0)
    ds = xr.Dataset(
        {
            "q": (("time", "level", "lat", "lon"), humid.astype("f4"), {"units": "kg kg-1"}),
            "pr": (("time", "lat", "lon"), rain.astype("f4"), {"units": "mm/day"}),
        },
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D"),
            "level": ("level", LEVELS, {"units": "Pa"}),
            "lat": ("lat", np.linspace(-60, 60, 16), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(0, 345, 24), {"units": "degrees_east"}),
        },
    )
    path = tmp_path_factory.mktemp("verdicts") / "source.nc"
    ds.to_netcdf(path)
    return path


@pytest.fixture(scope="module")
def store(source, client):
    path = source.parent / "a.zarr"
    convert(str(source), path, CODECS, client=client, chunks={"level": 5, "time": 3})
    return path


@pytest.fixture(scope="module")
def pages(store, source):
    """With the source, and without."""
    found = {}
    for name, against in (("beside", str(source)), ("alone", None)):
        write_report(store, store.parent / f"{name}.html", against=against)
        found[name] = Contents((store.parent / f"{name}.html").read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def both(store, source):
    return xr.open_dataset(source).load(), xr.open_zarr(store).load()


def shares(both):
    """Root mean square error of humidity over its root mean square, by level."""
    x, y = (each.q.astype("f8") for each in both)
    dims = ("time", "lat", "lon")
    return np.sqrt(((y - x) ** 2).mean(dims)).values / np.sqrt((x**2).mean(dims)).values


@pytest.mark.parametrize("name", ["beside", "alone"])
def test_the_verdict_comes_first_and_names_the_ruined_levels(pages, both, name):
    contents, found = pages[name], shares(both)
    assert next(iter(contents.tables)) == "What each variable keeps, by the criteria listed with it"
    assert contents.text.index("Verdict") < contents.text.index("Summary")
    rows = {row[0]: row[1:] for row in next(iter(contents.tables.values()))}
    failing = [f"{level:.0f}" for level, share in zip(LEVELS, found, strict=True) if share > 0.05]
    assert "5000" in failing
    assert "100000" not in failing
    assert rows["q"][0].startswith(f"levels {', '.join(failing)} Pa (error ")
    assert "zeros" in rows["pr"][1]
    assert ("correlation" in rows["q"][2]) == (name == "alone")  # not measured


def test_levels_where_the_error_exceeds_the_signal_are_flagged_where_they_stand(pages, both):
    x, y = (each.q.astype("f8") for each in both)
    rmse, deviation = (
        np.sqrt((each**2).mean(("lat", "lon"))) for each in (y - x, x - x.mean(("lat", "lon")))
    )
    ratio = np.sqrt((rmse**2).mean("time")) / np.sqrt((deviation**2).mean("time"))
    rows = pages["beside"].tables["Error by level (Pa)"]
    flagged = [row[0].split()[0] for row in rows if "the error exceeds the signal" in row[0]]
    assert flagged == [f"{level:.0f}" for level in LEVELS[ratio.values > 1]]
    assert 0 < len(flagged) < len(LEVELS)
    for row, share, part in zip(rows, shares(both), ratio.values, strict=True):
        assert float(row[3].split()[0]) == pytest.approx(100 * share, rel=6e-2)
        assert float(row[4].split()[0]) == pytest.approx(100 * part, rel=6e-2)
    options = [a for tag, a in pages["beside"].elements if tag == "option"]
    assert options
    assert "(the error exceeds the signal)" in pages["beside"].text


def test_days_are_dates(pages):
    assert [row[0] for row in pages["beside"].tables["Error by time"]] == [
        f"2020-01-0{day}" for day in (1, 2, 3)
    ]
    assert "00:00" not in pages["beside"].text


def test_file_bytes_stand_beside_array_bytes(pages, source, store):
    stored = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    text = " ".join(pages["beside"].text.split())
    share = source.stat().st_size / stored
    said = f"{share:.3g}× smaller" if share >= 1 else f"{1 / share:.3g}× larger"
    assert f"{said} than the files that it was made from" in text


def test_files_that_are_not_known_are_said_to_be(store, tmp_path):
    write_report(store, tmp_path / "r.html", variables=["q"])
    text = Contents((tmp_path / "r.html").read_text("utf-8")).text
    assert "unknown → " in text
    assert "the size of the files that it was made from is not known" in text


def test_each_criterion_stands_with_its_limit_and_source(pages):
    rows = {row[0]: row for row in pages["beside"].tables["Criteria of the verdict"]}
    assert rows["correlation"][3] == "at least 0.99999"
    assert "Baker et al. 2017" in rows["correlation"][4]
    assert rows["bias"][4] == "own choice"
    assert rows["levels"][5] == "every value, on record"
    assert rows["shares"][5] == "every value, compared with the source"


def test_limits_are_those_asked_for(store, tmp_path):
    criteria = {"levels": 50, "signal": False, "variables": {"pr": {"zeros": False}}}
    write_report(store, tmp_path / "r.html", criteria=criteria)
    contents = Contents((tmp_path / "r.html").read_text("utf-8"))
    rows = {row[0]: row[1:] for row in next(iter(contents.tables.values()))}
    assert "relative error" in rows["q"][1]
    assert "signal" not in "".join(rows["q"])
    assert "zeros" not in "".join(rows["pr"])


@pytest.mark.parametrize("criteria", [{"no": 1}, {"variables": {"t": {}}}])
def test_what_cannot_be_asked_is_refused_before_anything_is_written(store, tmp_path, criteria):
    with pytest.raises(MoECError, match=r"no criterion 'no'|no variable 't'"):
        write_report(store, tmp_path / "r.html", criteria=criteria)
    assert not (tmp_path / "r.html").exists()


def test_records_of_an_older_version_are_not_measured_and_not_kept(store, tmp_path):
    from moec_zarr.archive.quality_table import open_quality
    from moec_zarr.report.comparison.labels import axis_of
    from moec_zarr.report.verdict.criteria import limits_of
    from moec_zarr.report.verdict.recorded import read_recorded
    from moec_zarr.report.verdict.verdict import reach_verdict

    table = open_quality(store)["pr"]
    array = xr.open_zarr(store).pr
    axes = [axis_of(array, i) for i in range(3)]
    older = table.drop_vars([name for name in table if "_by_" in str(name) or "zeros" in str(name)])
    grown = table.copy()  # an older store that was appended to
    first = np.arange(grown.low_by_index.size) == 0
    grown["low_by_index"] = grown.low_by_index.copy(data=np.where(first, np.nan, grown.low_by_index))
    statuses = {}
    for name, each in (("now", table), ("older", older), ("grown", grown)):
        verdict = reach_verdict("pr", read_recorded(each, axes, None, 1), None, limits_of("pr"))
        statuses[name] = {judgement.criterion: judgement.status for judgement in verdict.judgements}
    assert statuses["now"]["zeros"] == "kept"
    for name in ("older", "grown"):
        assert {statuses[name][each] for each in ("zeros", "levels", "signal")} == {"not measured"}
    assert statuses["older"]["largest"] == statuses["now"]["largest"] == "kept"


def test_a_store_without_records_is_judged_by_its_source(source, tmp_path):
    """And a bound on the relative error is said to be kept, where the streams say so."""
    import moec_zarr

    ds = xr.open_dataset(source)[["q"]].load()
    codec = MoECCodec(max_relative_error=0.01, effort="fast")
    ds.to_zarr(tmp_path / "q.zarr", encoding=moec_zarr.encoding(ds, codec), consolidated=False)
    for against in (str(source), None):
        write_report(tmp_path / "q.zarr", tmp_path / "r.html", against=against)
        contents = Contents((tmp_path / "r.html").read_text("utf-8"))
        (row,) = next(iter(contents.tables.values()))
        assert "kept: no value further off than 1 % of its magnitude" in " ".join(contents.text.split())
        criteria = {each[0]: each for each in contents.tables["Criteria of the verdict"]}
        if against:
            assert "relative error, signal" in row[2]
            assert criteria["levels"][5] == "every value, compared with the source"
            assert "Error by level (Pa)" in contents.tables
        else:
            assert row[1:3] == ["–", "–"]  # nothing is kept by hearsay
            assert {each[1] for each in criteria.values()} == {"not measured"}


def test_a_source_of_a_part_is_said_to_be_one(store, source, tmp_path):
    with xr.open_dataset(source) as ds:
        write_report(store, tmp_path / "part.html", against=ds.isel(time=[1]), variables=["pr"])
    contents = Contents((tmp_path / "part.html").read_text("utf-8"))
    rows = {row[0]: row[-1] for row in contents.tables["Criteria of the verdict"]}
    assert rows["missing"] == "every value, compared with the source, which has 33 % of the values"
    assert rows["bias"] == "every value, on record"


def test_criteria_may_name_what_is_stored_exactly(source, client, tmp_path):
    """As those for `compare` do, which judges all variables."""
    convert(str(source), tmp_path / "a.zarr", {"pr": CODECS["pr"]}, client=client)
    write_report(tmp_path / "a.zarr", tmp_path / "a.html", criteria={"variables": {"q": {"bias": 0.1}}})
    with pytest.raises(MoECError, match="no variable 'p'; there are 'pr', 'q'"):
        write_report(tmp_path / "a.zarr", tmp_path / "b.html", criteria={"variables": {"p": {"bias": 0.1}}})


def test_an_archive_that_is_larger_than_its_files_is_said_to_be_and_no_units_leave_no_gap(tmp_path, client):
    ds = xr.Dataset({"v": (("time", "y", "x"), smooth((4, 12, 12), "f4"))})
    ds.to_netcdf(tmp_path / "a.nc")
    codecs = {"v": MoECCodec(psnr=30, effort="fast")}
    convert(str(tmp_path / "a.nc"), tmp_path / "a.zarr", codecs, client=client, chunks={"time": 1})
    write_report(tmp_path / "a.zarr", tmp_path / "a.html")
    text = " ".join(Contents((tmp_path / "a.html").read_text("utf-8")).text.split())
    (before,) = re.findall(r"([0-9.]+)× larger than the files that it was made from", text)
    assert float(before) > 1
    assert re.search(r"The largest error, [0-9.]+, is at index", text)
