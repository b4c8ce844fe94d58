"""The other commands, and errors of all of them."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from tests.support.related import related

xr = pytest.importorskip("xarray")
pytest.importorskip("typer")

from moec_zarr.cli import commands  # noqa: E402


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "SRC"], "Missing"),
        (["convert", "SRC", "DST", "--nope"], "--nope"),
        (
            ["convert", "SRC", "DST"],
            "target is needed, got no --ratio, no --psnr, no --max-error",
        ),
        (["convert", "SRC", "DST", "--ratio", "2", "--psnr", "3"], "exactly one target"),
        (["convert", "SRC", "DST", "--ratio", "2", "--chunks", "time"], "time=24,lat=-1"),
        (["convert", "SRC", "DST", "--ratio", "2", "--chunks", "tim=3"], "'tim'"),
        (["convert", "SRC", "DST", "--ratio", "1e6"], "nothing to compress"),
        (["convert", "SRC", "DST", "--ratio", "2", "--effort", "none"], "none"),
        (
            ["convert", "SRC", "DST", "--ratio", "2", "--workers", "2", "--scheduler", "tcp://x:1"],
            "--workers",
        ),
        (["convert", "absent.nc", "DST", "--ratio", "2"], "nothing at absent.nc"),
        (["convert", "SRC", "SRC", "--ratio", "2"], "overlap"),
        (["inspect", "absent.zarr"], "no zarr store at absent.zarr"),
        (["inspect", "SRC"], "no array that was compressed"),
        (["compare", "SRC", "absent.zarr"], "nothing at absent.zarr"),
        (["compare", "SRC", "SRC", "--var", "nope"], "'nope'"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(run, source, tmp_path, arguments, message):
    words = {"SRC": source, "DST": tmp_path / "d.zarr"}
    code, out, err = run(*(words.get(argument, argument) for argument in arguments))
    *progress, last = err.splitlines()
    assert (code, out) == (2, "")
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in progress)
    assert last.startswith("error: ")
    assert message in last
    assert not (tmp_path / "d.zarr").exists()


def test_tracebacks_only_when_asked_for(run):
    assert "Traceback" not in run("inspect", "absent.zarr")[2]
    assert "Traceback" in run("inspect", "absent.zarr", "-v")[2]


def test_an_interrupt_is_one_line(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "compressed_arrays", interrupt)
    code, _, err = run("inspect", "x.zarr")
    assert code == 130
    assert err.startswith("error: interrupted")
    assert err.count("\n") == 1


def test_inspect(run, converted):
    code, out, _ = run("inspect", converted, "--chunks")
    assert code == 0
    assert "lossless" in out
    assert "(2, 0, 0)" in out
    code, out, _ = run("inspect", converted, "--var", "b", "--json")
    streams = json.loads(out)["b"]["streams"]
    assert [stream["index"] for stream in streams] == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    assert all(stream["stream_bytes"] == sum(stream["sections"].values()) for stream in streams)


def test_inspect_quality(run, converted, source):
    code, out, _ = run("inspect", converted, "--quality")
    assert code == 0
    for text in ("99.9%", "worst at", "2-4", "checking"):
        assert text in out
    code, out, _ = run("inspect", converted, "--quality", "--var", "b", "--json")
    table = json.loads(out)["b"]
    assert table["time_start"] == [0, 2, 4]
    assert (
        table["high"]
        == xr.open_zarr(source, consolidated=False)
        .b.coarsen(time=2)
        .max()
        .max(("lat", "lon"))
        .values.tolist()
    )
    assert table["psnr"] == [None] * 3  # exact
    assert table["percentile"] == [50, 90, 99, 99.9]
    for folder in converted.glob("*/.moec_zarr/quality"):
        shutil.rmtree(folder)
    code, _, err = run("inspect", converted, "--quality")
    assert (code, err.count("\n")) == (2, 1)
    assert "has no table of its quality" in err


def test_compare(run, converted, source, tmp_path):
    code, out, _ = run("compare", source, converted, "--plot", tmp_path / "out.png")
    assert code == 0
    lines = out.splitlines()
    assert sorted(line.split()[0] for line in lines[1:4]) == ["a", "b", "quality"]
    assert sorted(line.partition(": ")[0] for line in lines[4:]) == ["a", "b", "quality"]
    assert all(": keeps " in line or ": does not keep " in line for line in lines[4:])
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["out-a.png", "out-b.png", "out-quality.png"]
    code, out, _ = run("compare", source, converted, "--var", "a", "--json", "--plot", tmp_path / "a.png")
    assert json.loads(out)["a"]["max_error"] == 0
    assert json.loads(out)["a"]["psnr"] is None
    judged = {each["criterion"]: each for each in json.loads(out)["a"]["verdict"]}
    assert judged["largest"]["kept"] is True
    assert judged["largest"]["value"] == 0
    assert (tmp_path / "a.png").exists()


def test_compare_a_part_with_the_whole(run, converted, source, tmp_path):
    """A file of some times, from north to south, with a variable of its own."""
    part = (
        xr.open_zarr(source, consolidated=False)
        .assign_coords(lat=np.arange(16), time=np.arange(6))
        .isel(time=slice(1, 3), lat=slice(None, None, -1))
    )
    part["extra"] = part.a * 2
    part.drop_encoding().to_netcdf(tmp_path / "part.nc")
    whole = xr.open_zarr(converted).load().assign_coords(lat=np.arange(16), time=np.arange(6))
    whole.drop_encoding().to_zarr(tmp_path / "whole.zarr")
    code, out, err = run(
        "compare", tmp_path / "part.nc", tmp_path / "whole.zarr", "--json", "--plot", tmp_path / "out.png"
    )
    assert code == 0
    assert {name: each["max_error"] for name, each in json.loads(out).items()} == {
        "a": 0,
        "b": 0,
        "quality": 0,
    }
    assert json.loads(out)["a"]["left_out"] == ["time: 0, 3 .. 5 only in the decoded (4 of 6)"]
    assert err.splitlines() == [
        f"only in {tmp_path}/part.nc, not compared: extra",
        "not compared: time: 0, 3 .. 5 only in the decoded (4 of 6)",
    ]
    assert (tmp_path / "out-a.png").exists()


def test_compare_a_cf_file(run, tmp_path):
    """Bounds and a scalar grid mapping are no fields; a scalar is none to draw."""
    ds = related()
    ds.tas.attrs["coordinates"] = "lat2d"
    ds.to_netcdf(tmp_path / "month.nc")
    stored = xr.open_dataset(tmp_path / "month.nc")
    stored.to_zarr(tmp_path / "archive.zarr", consolidated=False)
    stored.close()
    places = (tmp_path / "month.nc", tmp_path / "archive.zarr")
    code, out, err = run("compare", *places, "--plot", tmp_path / "out.png")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[1:5]} == {"tas", "quality", "areacella", "height"}
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "out-areacella.png",
        "out-quality.png",
        "out-tas.png",
    ]
    first, second = err.splitlines()
    head, _, skipped = first.partition(": ")
    assert head == "no fields, not compared unless --var names them"
    assert set(skipped.split(", ")) == {
        "crs (grid mapping)",
        *(f"{name}_bnds (bounds)" for name in ("time", "lat", "lon")),
    }
    assert second == "fewer than two axes longer than 1, not drawn: height"


def test_compare_what_is_named_and_cannot_be_drawn(run, tmp_path):
    related().to_netcdf(tmp_path / "month.nc")
    places = (tmp_path / "month.nc", tmp_path / "month.nc")
    code, out, err = run("compare", *places, "--var", "crs", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["crs"]["max_error"] == 0
    code, _, err = run("compare", *places, "--var", "crs", "--plot", tmp_path / "out.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "nothing to draw: 'crs'" in err
    code, _, err = run("compare", *places, "--var", "lat_bnds", "--plot", tmp_path / "out.png")
    assert (code, err) == (0, "")
    assert (tmp_path / "out.png").exists()


def test_demo_as_json(run, tmp_path, monkeypatch):
    from moec_zarr.demo.simulate import simulate

    small = simulate((2, 2, 16, 16))

    def store(out):
        print("a table")
        small.to_zarr(out / "simulation.zarr", consolidated=False)

    monkeypatch.setattr("moec_zarr.demo.run.demo", store)
    monkeypatch.setattr("moec_zarr.demo.simulate.simulate", lambda: small)
    code, out, err = run("demo", "--out", tmp_path, "--json")
    assert (code, err) == (0, "a table\n")
    assert json.loads(out)["temperature"]["max_error"] == 0


def test_migrate(run, converted):
    before = xr.open_zarr(converted).load()
    code, out, _ = run("migrate", converted, "--zarr-format", 2)
    assert (code, out) == (0, "4 groups and arrays have zarr format 2 now\n")
    assert (converted / ".zgroup").exists()
    xr.testing.assert_identical(xr.open_zarr(converted).load(), before)
    assert run("migrate", converted, "--zarr-format", 2)[1] == "nothing to do: it has zarr format 2\n"
    code, out, _ = run("migrate", converted, "--zarr-format", 3, "--json")
    assert sorted(json.loads(out)["rewritten"]) == ["", "a", "b", "quality"]
    assert not (converted / ".zgroup").exists()
    for arguments, message in (
        ((converted,), "Missing parameter: zarr_format"),
        ((converted / "absent", "--zarr-format", 2), "no zarr store"),
    ):
        code, _, err = run("migrate", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
