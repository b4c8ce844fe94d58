"""Whatever was the last change before a run was killed: the store opens, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from moec_zarr import MoECError
from moec_zarr.archive.migration import migrate
from moec_zarr.conversion.verify import verify
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import DIMS, QUICK, stored
from tests.support.faults import dying
from tests.support.fields import steps

xr = pytest.importorskip("xarray")

STEPS = 5


def days(n):
    """The first days of a field, and of what lies beside it."""
    times = np.datetime64("2026-01-01", "ns") + np.arange(STEPS) * np.timedelta64(1, "D")
    field = steps((STEPS, 10, 12))
    ds = xr.Dataset(
        {
            "a": (DIMS, field, {"units": "K"}),
            "flags": (DIMS, (field > 3).astype("i1"), {"flag_values": np.array([0, 1], "i1")}),
        },
        {"time": times, "lat": np.arange(10.0), "lon": np.arange(12.0)},
    )
    ds.time.encoding = {"units": "days since 2000-01-01", "dtype": "i8"}
    return ds.isel(time=slice(n))


def begin(dst, client, n, zarr_format=3, **options):
    options = {"variables": ["a"], "chunks": {"time": 2}, "zarr_format": zarr_format} | options
    return convert(days(n), dst, QUICK, client=client, **options)


def append(dst, client):
    """Break the lock, too: its owner is this process, which did not die."""
    return convert(days(STEPS), dst, append="time", incomplete="refit", client=client, break_lock=True)


def killed(patch, last, call, *args, **kwargs):
    """Call something in a process that dies after so many changes."""
    with dying(patch, last, counted) as death, pytest.raises((MoECError, OSError), match="killed"):
        call(*args, **kwargs)
    assert death.died


def counted(key):
    """All but most of what a table of quality is written as: no command goes on from it."""
    return "/quality/" not in key or key.endswith("quality/psnr/zarr.json")


def changes(patch, call, *args, **kwargs):
    """All that is changed by a call."""
    with dying(patch, counts=counted) as death:
        call(*args, **kwargs)
    return death.done


def holds(ds, before):
    """Whether a dataset begins with the values of another one, whatever it calls its dimensions."""
    for name, var in before.variables.items():
        part = ds.variables[name].values[tuple(slice(n) for n in var.shape)]
        exact = var.dtype.kind != "f"
        assert np.array_equal(part, var.values) if exact else np.allclose(part, var.values, atol=0.01), name


@pytest.mark.parametrize(
    ("zarr_format", "length", "options", "every"),
    [
        pytest.param(2, 3, {}, 1, id="format 2"),
        pytest.param(3, 3, {}, 1, id="format 3"),
        pytest.param(3, 4, {"shards": {"time": 4}}, 5, id="shards"),
    ],
)
def test_an_append_that_is_killed_leaves_a_store_that_opens_and_goes_on(
    tmp_path, client, monkeypatch, zarr_format, length, options, every
):
    """Of three steps in chunks of two, the last chunk is made again, and that of the coordinate grows."""
    base, whole, dst = tmp_path / "base.zarr", tmp_path / "whole.zarr", tmp_path / "d.zarr"
    begin(base, client, length, zarr_format, **options)
    before = xr.open_zarr(base).load()
    shutil.copytree(base, whole)
    done = changes(monkeypatch, append, whole, client)
    assert len(done) > 20
    expected, chunks = xr.open_zarr(whole).load(), stored(whole)
    for last in range(0, len(done), every):
        shutil.rmtree(dst, ignore_errors=True)
        shutil.copytree(base, dst)
        killed(monkeypatch, last, append, dst, client)
        with xr.open_zarr(dst) as ds:
            grown = ds.sizes["time"] != length
            assert ds.attrs["moec_zarr_status"] == "complete", done[last]
            if grown:
                xr.testing.assert_equal(ds, expected)
            else:
                assert ds.sizes == before.sizes, done[last]
                holds(ds, before)
        with xr.open_zarr(dst, consolidated=False) as ds:
            holds(ds, before)
        append(dst, client)
        for consolidated in (None, False):
            xr.testing.assert_equal(xr.open_zarr(dst, consolidated=consolidated), expected)
        assert stored(dst) == chunks, done[last]
        found = verify(dst)
        assert (found.ok, found.status) == (True, "complete"), (done[last], found.problems)
    assert verify(dst, days(STEPS)).ok
    assert len(xr.open_zarr(dst).attrs["history"].splitlines()) == 2


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("resume", [True, False], ids=["new", "overwrite"])
def test_a_conversion_that_is_killed_twice_goes_on(tmp_path, client, monkeypatch, zarr_format, resume):
    """The second time as it removes what the first left, or makes that again."""
    old, whole, dst = tmp_path / "old.zarr", tmp_path / "whole.zarr", tmp_path / "d.zarr"

    def run(path):
        begin(path, client, 3, zarr_format, break_lock=True, resume=resume)

    def start(path):
        shutil.rmtree(path, ignore_errors=True)
        if not resume:
            shutil.copytree(old, path)

    if not resume:
        begin(old, client, 4, 5 - zarr_format)
    start(whole)
    done = changes(monkeypatch, run, whole)
    expected, chunks = xr.open_zarr(whole).load(), stored(whole)
    for last in range(0, len(done), 1 if resume else 2):
        start(dst)
        killed(monkeypatch, last, run, dst)
        if 0 < last < len(done) - 1:
            killed(monkeypatch, min(last, 3 + last % 5), run, dst)
        run(dst)
        assert stored(dst) == chunks, done[last]
        xr.testing.assert_equal(xr.open_zarr(dst), expected)
        assert verify(dst).status == "complete"
    assert verify(dst, days(3)).ok


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated metadata")
@pytest.mark.filterwarnings("ignore:Object at")
def test_a_store_that_is_killed_as_it_is_replaced_does_not_say_that_it_is_complete(
    tmp_path, client, monkeypatch, zarr_format
):
    """Chunks that are gone read as missing values."""
    old, dst = tmp_path / "old.zarr", tmp_path / "d.zarr"
    begin(old, client, 4, zarr_format)
    before = xr.open_zarr(old).load()
    shutil.copytree(old, dst)

    def replace(path):
        begin(path, client, 3, zarr_format, resume=False, break_lock=True)

    done = changes(monkeypatch, replace, dst)
    seen = set()
    for last in range(1, done.index("set a/.moec_zarr/plan.json"), 2):
        shutil.rmtree(dst)
        shutil.copytree(old, dst)
        killed(monkeypatch, last, replace, dst)
        try:
            ds = xr.open_zarr(dst).load()
        except (FileNotFoundError, KeyError):
            continue
        status = ds.attrs.get("moec_zarr_status", "")
        assert status != "complete" or ds.equals(before), done[last]
        seen.add(status[:20])
    assert "incomplete: it is be" in seen


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_repair_that_is_killed_goes_on(tmp_path, client, monkeypatch, zarr_format):
    base, dst = tmp_path / "base.zarr", tmp_path / "d.zarr"
    begin(base, client, 4, zarr_format)
    whole = stored(base)
    for key in ("a/1.0.0", "time/0") if zarr_format == 2 else ("a/c/1/0/0", "time/c/0"):
        (base / key).write_bytes(b"damaged")

    def repair(path):
        return verify(path, days(4), repair=True, client=client, break_lock=True)

    shutil.copytree(base, dst)
    done = changes(monkeypatch, repair, dst)
    for last in range(len(done)):
        shutil.rmtree(dst)
        shutil.copytree(base, dst)
        killed(monkeypatch, last, repair, dst)
        found = repair(dst)
        assert (found.ok, found.status) == (True, "complete"), (done[last], found)
        assert stored(dst) == whole


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_migration_that_is_killed_shows_nothing_but_the_values(tmp_path, client, monkeypatch, zarr_format):
    """Chunks that have lost their old names are missing to whoever opens the old format."""
    base, dst = tmp_path / "base.zarr", tmp_path / "d.zarr"
    begin(base, client, 4, zarr_format)
    expected = xr.open_zarr(base).load()
    shutil.copytree(base, dst)
    done = changes(monkeypatch, migrate, dst, 5 - zarr_format)
    for last in range(len(done)):
        shutil.rmtree(dst)
        shutil.copytree(base, dst)
        with dying(monkeypatch, last, counted), pytest.raises(OSError, match="killed"):
            migrate(dst, 5 - zarr_format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr warns of a place that has both formats
            for consolidated in (None, False):
                xr.testing.assert_equal(xr.open_zarr(dst, consolidated=consolidated).load(), expected)
        migrate(dst, 5 - zarr_format)
        assert verify(dst, days(4)).ok, done[last]


SCRIPT = """
import sys
from moec_zarr import convert
from tests.conversion.test_killed_anywhere import STEPS, days

if __name__ == "__main__":
    convert(days(STEPS), sys.argv[1], append="time", incomplete="refit", workers=1)
"""


def test_an_append_that_is_really_killed_goes_on_by_the_same_command(tmp_path, client):
    """With its lock, which needs not be broken: its process has ended."""
    base, whole, dst = tmp_path / "base.zarr", tmp_path / "whole.zarr", tmp_path / "d.zarr"
    begin(base, client, 3)
    shutil.copytree(base, whole)
    append(whole, client)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    }
    for sign in ("a/.moec_zarr/append.json", "a/.moec_zarr/2.0.0.json"):
        shutil.rmtree(dst, ignore_errors=True)
        shutil.copytree(base, dst)
        process = subprocess.Popen([sys.executable, str(script), str(dst)], env=environment)
        deadline = time.monotonic() + 120
        while not (dst / sign).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "d.zarr.lock").exists()
        with xr.open_zarr(dst) as ds:
            assert ds.a.notnull().all()
        convert(days(STEPS), dst, append="time", incomplete="refit", client=client)
        xr.testing.assert_equal(xr.open_zarr(dst), xr.open_zarr(whole))
        assert verify(dst, days(STEPS)).ok
