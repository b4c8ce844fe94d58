from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moec_zarr.conversion import worker as tasks
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")
distributed = pytest.importorskip("distributed")
pytest.importorskip("typer")
pytest.importorskip("torch")

from moec_zarr.cli import commands as cli  # noqa: E402
from moec_zarr.cli.tables import bytes_text, duration  # noqa: E402

SHAPE = (6, 16, 24)
# A field of few values fits this ratio without loss, at once.
QUICK = ["--ratio", "2", "--effort", "fast", "--chunks", "time=2"]


@pytest.fixture(scope="module")
def scheduler():
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "s.zarr"
    field = np.round(smooth(SHAPE) / 20).astype("f4")
    dims = ("time", "lat", "lon")
    ds = xr.Dataset(
        {
            "a": (dims, field),
            "b": (dims, field[::-1]),
            "quality": (dims, field.astype("i1"), {"flag_values": [0]}),
        }
    )
    ds.to_zarr(path, consolidated=False)
    return str(path)


@pytest.fixture
def run(capsys):
    def run(*arguments):
        """Exit code, and what was written to stdout and stderr."""
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def converted(run, source, tmp_path, scheduler):
    dst = tmp_path / "d.zarr"
    assert run("convert", source, dst, *QUICK, "--scheduler", scheduler, "-q")[0] == 0
    return dst


def test_convert_shows_progress_in_a_log_and_a_table(run, source, tmp_path, scheduler):
    code, out, err = run("convert", source, tmp_path / "d.zarr", *QUICK, "--scheduler", scheduler)
    assert code == 0
    assert "0/6 chunks" in err
    assert "6/6 chunks, 18.4 kB in" in err.splitlines()[-1]
    assert out.splitlines()[0].split() == [
        "variable",
        "done",
        "read",
        "stored",
        "ratio",
        "PSNR",
        "dB",
        "max",
        "error",
    ]
    assert sorted(line.split()[:2] for line in out.splitlines()[1:]) == [["a", "3/3"], ["b", "3/3"]]


def test_progress_on_a_terminal(source, tmp_path, scheduler, monkeypatch, run):
    from rich.console import Console

    with (tmp_path / "screen").open("w") as screen:
        monkeypatch.setattr(cli, "_err", Console(file=screen, force_terminal=True, width=120))
        assert run("convert", source, tmp_path / "d.zarr", *QUICK, "--scheduler", scheduler)[0] == 0
    assert "6/6" in (tmp_path / "screen").read_text()


def test_quiet_and_json(run, source, tmp_path, scheduler):
    arguments = ("convert", source, tmp_path / "d.zarr", *QUICK, "--scheduler", scheduler, "--var", "a")
    assert run(*arguments, "-q") == (0, "", "")
    code, out, _ = run(*arguments, "--json")
    result = json.loads(out)
    assert code == 0
    assert result["resumed"] == 3
    assert result["failures"] == []
    assert result["variables"]["a"]["ratio"] > 2
    assert result["variables"]["a"]["psnr"] is None  # exact


def test_dry_run_does_nothing(run, source, tmp_path):
    code, out, _ = run("convert", source, tmp_path / "d.zarr", *QUICK, "--dry-run")
    assert code == 0
    assert "6 tasks" in out
    assert "lossless: flags" in out
    code, out, _ = run("convert", source, tmp_path / "d.zarr", *QUICK, "--dry-run", "--json")
    planned = json.loads(out)
    assert planned["variables"]["a"]["chunks"] == [2, 16, 24]
    assert planned["estimates"]["quality"]["reason"] == "flags"
    assert not (tmp_path / "d.zarr").exists()


def test_resume_and_overwrite(run, converted, source, scheduler):
    other = ("convert", source, converted, *QUICK[:-1], "time=3", "--scheduler", scheduler, "-q")
    code, _, err = run(*other)
    assert (code, err.count("\n")) == (2, 1)
    assert "a chunks was (2, 16, 24), got (3, 16, 24)" in err
    assert run(*other, "--overwrite")[0] == 0
    assert xr.open_zarr(converted).a.chunks[0] == (3, 3)


def test_failed_chunks_are_told_by_the_exit_code(run, source, tmp_path, scheduler, monkeypatch):
    read = tasks._read

    def fails(task):
        if task.index[0] == 1:
            raise RuntimeError("a bad sector")
        return read(task)

    arguments = ("convert", source, tmp_path / "d.zarr", *QUICK, "--scheduler", scheduler)
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "_read", fails)
        code, _, err = run(*arguments, "-q")
    assert code == 1
    assert "error: chunk (1, 0, 0) of 'a', 3 attempts: a bad sector" in err
    assert "error: 2 of 6 chunks failed" in err
    assert run(*arguments, "-q") == (0, "", "")


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
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "d.zarr").exists()


def test_tracebacks_only_when_asked_for(run):
    assert "Traceback" not in run("inspect", "absent.zarr")[2]
    assert "Traceback" in run("inspect", "absent.zarr", "-v")[2]


def test_an_interrupt_is_one_line(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "compressed_arrays", interrupt)
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
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "out-a.png",
        "out-b.png",
        "out-quality.png",
    ]
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


def test_the_installed_command_with_a_cluster_of_its_own(source, tmp_path):
    command = Path(sys.executable).parent / "moec-zarr"
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    arguments = [command, "convert", source, tmp_path / "d.zarr", *QUICK, "--var", "a", "--workers", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "3/3 chunks" in done.stderr
    assert "a " in done.stdout
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "?"), (0.2, "0s"), (59, "59s"), (61, "1m 1s"), (3661, "1h 1m"), (90000, "1d 1h"), (-1, "0s")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (999.9, "1 kB"), (1.5e9, "1.5 GB"), (3e15, "3 PB")],
)
def test_bytes(count, text):
    assert bytes_text(count) == text
