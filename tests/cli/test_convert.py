"""``moec-zarr convert``: progress, results, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moec_zarr import MoECError
from moec_zarr.conversion.work import worker
from tests.cli.conftest import QUICK

xr = pytest.importorskip("xarray")
pytest.importorskip("typer")

from moec_zarr.cli import console  # noqa: E402
from moec_zarr.cli.options import storage_options  # noqa: E402


def test_convert_shows_progress_in_a_log_and_a_table(run, source, tmp_path, scheduler):
    code, out, err = run("convert", source, tmp_path / "d.zarr", *QUICK, "--scheduler", scheduler)
    assert code == 0
    assert "0/6 chunks" in err
    assert "6/6 chunks, 18.4 kB in" in err.splitlines()[-1]
    assert out.split("\n")[0].split() == [
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
    *rows, files = out.splitlines()[1:]
    assert sorted(line.split()[:2] for line in rows) == [["a", "3/3"], ["b", "3/3"]]
    assert files.startswith("the source's files take ")


def test_progress_on_a_terminal(source, tmp_path, scheduler, monkeypatch, run):
    from rich.console import Console

    with (tmp_path / "screen").open("w") as screen:
        monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=120))
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


def test_trial_writes_nothing(run, source, tmp_path):
    arguments = ("convert", source, tmp_path / "d.zarr", *QUICK, "--trial", "1")
    code, out, err = run(*arguments)
    assert code == 0
    lines = [line.split() for line in out.splitlines()[1:]]
    assert sorted(line[:4] for line in lines) == [
        [name, "ratio", ratio, "1"] for name in "ab" for ratio in ("1", "2", "4")
    ]
    assert err.count("fitted in") == 6
    code, out, err = run(*arguments, "--json", "-q", "--var", "a")
    assert (code, err) == (0, "")
    assert [each["codec"]["ratio"] for each in json.loads(out)] == [1, 2, 4]
    assert all(each["whole_bytes"] == 3 * each["bytes_out"] for each in json.loads(out))
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_subtracts_what_is_done(run, converted, source):
    (converted / "a/c/1/0/0").unlink()
    code, out, _ = run("convert", source, converted, *QUICK, "--dry-run")
    assert code == 0
    assert "5 of the tasks are done" in out
    planned = json.loads(run("convert", source, converted, *QUICK, "--dry-run", "--json")[1])
    whole = sum(each["core_seconds"] for each in planned["estimates"].values())
    assert planned["estimates"]["a"]["done"] == 2
    assert planned["core_seconds_left"] == pytest.approx(whole / 6)
    code, out, _ = run("convert", source, converted, *QUICK, "--dry-run", "--overwrite")
    assert "are done" not in out


def test_the_index_of_shards_is_said(run, source, tmp_path):
    code, out, _ = run("convert", source, tmp_path / "d.zarr", *QUICK, "--shards", "time=4", "--dry-run")
    assert code == 0
    assert "144 B of what is stored are the shards' indexes" in out


def test_progress_says_what_is_done_and_how_long_it_takes(run, source, tmp_path, scheduler):
    code, _, err = run("convert", source, tmp_path / "d.zarr", *QUICK, "--scheduler", scheduler)
    phases = [line.split(" ", 1)[1] for line in err.splitlines()]
    assert code == 0
    assert phases[:3] == ["opening the source", "looking at the destination", "starting workers"]
    # Before any chunk is done, the time that is left is that of the plan.
    assert re.fullmatch(r"0/6 chunks.*, \ds left by the plan", phases[5])
    assert "by the plan" not in phases[-1]


def test_what_an_append_keeps_back_is_said(run, source, tmp_path, scheduler):
    """Six steps in chunks of four: two are kept back, by the first run and by each that follows."""
    dst = tmp_path / "d.zarr"
    with xr.open_zarr(source, consolidated=False) as ds:
        ds.isel(time=slice(4)).to_zarr(tmp_path / "0.zarr", consolidated=False)
    quick = ("--ratio", "2", "--effort", "fast", "--chunks", "time=4")
    hold = ("--append", "time", "--incomplete", "hold", "--dry-run")
    assert run("convert", tmp_path / "0.zarr", dst, *quick, "--scheduler", scheduler, "-q")[0] == 0
    for first, target, own in ((source, tmp_path / "new.zarr", quick), (source, dst, ())):
        code, out, _ = run("convert", first, target, *own, *hold)
        assert (code, "2 steps at the end fill no chunk, and are kept back" in out) == (0, True)
        assert json.loads(run("convert", first, target, *own, *hold, "--json")[1])["held"] == 2
    code, out, _ = run("convert", source, dst, *hold[:-1], "--scheduler", scheduler)
    assert (code, "2 steps at the end fill no chunk, and are kept back" in out) == (0, True)
    code, out, _ = run("convert", tmp_path / "0.zarr", dst, *hold)
    assert (code, "kept back" in out) == (0, False)


def test_append_and_verify(run, source, tmp_path, scheduler):
    dst = tmp_path / "d.zarr"
    with xr.open_zarr(source, consolidated=False) as ds:
        for name, times in (("0", slice(4)), ("1", slice(4, 6)), ("2", slice(4, 5))):
            ds.isel(time=times).to_zarr(tmp_path / f"{name}.zarr", consolidated=False)
    common = ("--scheduler", scheduler, "-q")
    assert run("convert", tmp_path / "0.zarr", dst, *QUICK, *common)[0] == 0
    code, out, _ = run("convert", tmp_path / "1.zarr", dst, "--append", "time", "--dry-run")
    assert (code, "time grows by 2 to 6" in out, "4 of the tasks are done" in out) == (0, True, True)
    code, _, err = run("convert", tmp_path / "2.zarr", dst, "--append", "time", *common)
    assert (code, "--incomplete hold" in err) == (2, True)
    for settings in (("--ratio", "2"), ("--ratio", "2", "--effort", "fast"), ("--chunks", "time=2")):
        code, _, err = run("convert", tmp_path / "1.zarr", dst, "--append", "time", *settings, *common)
        assert (code, "leave them out" in err) == (2, True)
    assert run("convert", tmp_path / "1.zarr", dst, "--append", "time", "--effort", "best", *common)[0] == 2
    assert run("convert", tmp_path / "1.zarr", dst, "--append", "time", *common)[0] == 0
    code, out, _ = run("verify", dst, "--against", source)
    assert code == 0
    assert ["a", "3", "0", "0", "0", "3"] in [line.split()[:6] for line in out.splitlines()]
    (dst / "b/c/0/0/0").write_bytes(b"")
    code, out, err = run("verify", dst, "-q")
    assert (code, out, err) == (1, "", "error: the archive is not whole: 1 damaged\n")
    found = json.loads(run("verify", dst, "--json", "-q")[1])
    assert [(each["variable"], each["chunk"]) for each in found["problems"]] == [("b", [0, 0, 0])]
    code, out, _ = run("verify", dst, "--against", source, "--repair", "--scheduler", scheduler)
    assert (code, "1 chunk repaired" in out) == (0, True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a=b", "n=4", "anon=true", 'client_kwargs={"x": 1}'],
         {"a": "b", "n": 4, "anon": True, "client_kwargs": {"x": 1}}),
        (['{"key": "123"}', "secret=a=b"], {"key": "123", "secret": "a=b"}),
        (None, None),
    ],
)  # fmt: skip
def test_storage_options(given, expected):
    assert storage_options(given) == expected


@pytest.mark.parametrize("given", ["endpoint", "=x", "{", "[]"])
def test_storage_options_that_are_none(given):
    with pytest.raises(MoECError, match="--storage-option"):
        storage_options([given])


def test_resume_and_overwrite(run, converted, source, scheduler):
    other = ("convert", source, converted, *QUICK[:-1], "time=3", "--scheduler", scheduler, "-q")
    code, _, err = run(*other)
    assert (code, err.count("\n")) == (2, 1)
    assert "a chunks was (2, 16, 24), got (3, 16, 24)" in err
    assert run(*other, "--overwrite")[0] == 0
    assert xr.open_zarr(converted).a.chunks[0] == (3, 3)


def test_failed_chunks_set_the_exit_code(run, source, tmp_path, scheduler, monkeypatch):
    read = worker._stored_values

    def fails(task):
        if task.index[0] == 1:
            raise RuntimeError("a bad sector")
        return read(task)

    arguments = ("convert", source, tmp_path / "d.zarr", *QUICK, "--scheduler", scheduler)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_stored_values", fails)
        code, _, err = run(*arguments, "-q")
    assert code == 1
    assert "error: chunk (1, 0, 0) of 'a', 3 attempts: a bad sector" in err
    assert "error: 2 of 6 chunks failed" in err
    assert run(*arguments, "-q") == (0, "", "")


def test_the_installed_command_with_a_cluster_of_its_own(source, tmp_path):
    command = Path(sys.executable).parent / "moec-zarr"
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    arguments = [command, "convert", source, tmp_path / "d.zarr", *QUICK, "--var", "a", "--workers", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "3/3 chunks" in done.stderr
    assert "a " in done.stdout
    assert "Warning" not in done.stderr
