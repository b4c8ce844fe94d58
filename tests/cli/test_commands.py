"""The other commands, and errors of all of them."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("xarray")
pytest.importorskip("typer")

from moec_zarr.cli import commands


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "SRC"], "Missing"),
        (["convert", "SRC", "DST", "--nope"], "--nope"),
        (["convert", "SRC", "DST"], "exactly one target"),
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


def test_compare(run, converted, source, tmp_path):
    code, out, _ = run("compare", source, converted, "--plot", tmp_path / "out.png")
    assert code == 0
    assert sorted(line.split()[0] for line in out.splitlines()[1:]) == ["a", "b", "quality"]
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["out-a.png", "out-b.png", "out-quality.png"]
    code, out, _ = run("compare", source, converted, "--var", "a", "--json", "--plot", tmp_path / "a.png")
    assert json.loads(out)["a"]["max_error"] == 0
    assert json.loads(out)["a"]["psnr"] is None
    assert (tmp_path / "a.png").exists()


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
