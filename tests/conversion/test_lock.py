"""Two runs never write to one destination at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from zarr.storage import FsspecStore, LocalStore, MemoryStore

from moec_zarr.archive import lock
from moec_zarr.archive.lock import LockedError, hold_lock
from moec_zarr.archive.process import has_ended
from tests.conversion.conversions import quick

pytest.importorskip("xarray")


def stores(tmp_path):
    yield LocalStore(tmp_path / "d.zarr")
    yield FsspecStore.from_url("memory://folder/d.zarr")
    yield MemoryStore()


def test_the_second_one_is_told_of_the_first(tmp_path):
    for store in stores(tmp_path):
        with (
            hold_lock(store),
            pytest.raises(LockedError, match=rf"process {os.getpid()}, begun \d seconds ago.*--break-lock"),
            hold_lock(store),
        ):
            pass
        with hold_lock(store):
            pass
    assert list(tmp_path.iterdir()) == []


def take_at_once(path, count=8):
    """Let so many threads take the lock of a store at the same time; those locks that are held."""
    start, held = threading.Barrier(count), []

    def take():
        each = lock.Lock(LocalStore(path))
        start.wait()
        try:
            each.take(break_lock=False)
        except LockedError:
            return
        held.append(each)

    threads = [threading.Thread(target=take) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return held


def test_of_many_at_once_one_gets_it(tmp_path):
    assert len(take_at_once(tmp_path / "d.zarr")) == 1


def test_a_lock_is_renewed_and_its_loss_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_RENEW", 0.02)
    store, path = LocalStore(tmp_path / "d.zarr"), tmp_path / "d.zarr.lock"
    with hold_lock(store) as mine:
        before = path.stat().st_mtime_ns
        deadline = time.monotonic() + 20
        while path.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        mine.check()
        # No renewal while the lock is broken: it would take it back, and the other run would end.
        monkeypatch.setattr(lock, "_RENEW", 0.5)
        time.sleep(0.2)
        with hold_lock(store, break_lock=True) as other:
            while not mine._lost and time.monotonic() < deadline:
                time.sleep(0.01)
            with pytest.raises(LockedError, match="was broken by"):
                mine.check()
            other.check()
            assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"pid": "x", "begun": 3}'])
def test_a_damaged_lock_is_a_lock(tmp_path, content):
    (tmp_path / "d.zarr.lock").write_text(content)
    with pytest.raises(LockedError, match="an unknown owner"), hold_lock(LocalStore(tmp_path / "d.zarr")):
        pass


DEAD = """
import os, sys
from zarr.storage import LocalStore
from moec_zarr.archive.lock import Lock
Lock(LocalStore(sys.argv[1])).take(break_lock=False)
os._exit(0)
"""


@pytest.fixture
def dead(tmp_path):
    """The lock of a process on this machine that has ended."""
    subprocess.run([sys.executable, "-c", DEAD, str(tmp_path / "d.zarr")], check=True)
    return tmp_path / "d.zarr.lock"


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is certain of a process elsewhere")
def test_a_run_whose_process_has_ended_here_is_taken_over(dead, source, converted, client, caplog):
    rewrite(dead, begun="2026-01-01T00:00:00+00:00")
    quick(source, converted, client)
    assert "a run that was killed is taken over: " in caplog.text
    assert "its process has ended" in caplog.text
    assert not dead.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is certain of a process elsewhere")
def test_a_number_that_another_process_has_by_now_does_not_count(dead):
    """That of this process, which runs; but it was started at another time."""
    rewrite(dead, pid=os.getpid())
    with hold_lock(LocalStore(dead.with_suffix(""))):
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "elsewhere"},
        {"boot": "00000000-0000-0000-0000-000000000000"},
        {"boot": None},
        {"namespace": "pid:[1]"},
        {"namespace": None},
        {"started": None},
        {"started": "1"},
        {"pid": None},
        {"pid": -1},
        {"pid": 0},
        {"pid": True},
        {"pid": "1"},
    ],
)
def test_a_run_that_cannot_be_seen_from_here_is_taken_over_only_if_asked(dead, changes, caplog):
    """On another machine, before a boot, or in another container, whose names and numbers may be the same."""
    rewrite(dead, **changes)
    store = LocalStore(dead.with_suffix(""))
    with pytest.raises(LockedError, match="--break-lock"), hold_lock(store):
        pass
    with hold_lock(store, break_lock=True):
        assert "the lock is broken" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is certain of a process elsewhere")
@pytest.mark.parametrize("ended", [False, True])
def test_a_process_of_which_only_its_end_is_kept_has_ended(tmp_path, ended):
    """Nobody has asked for it so far, so that it has its number still."""
    code = "import json, moec_zarr.archive.process as p; print(json.dumps(p.identify()), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    named = json.loads(process.stdout.readline())
    if ended:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(named) is ended
    process.kill()
    process.communicate()
    assert has_ended(named)


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is certain of a process elsewhere")
def test_of_many_that_take_over_at_once_one_gets_it(dead, monkeypatch):
    monkeypatch.setattr(lock, "_SETTLE", 0.5)
    assert len(take_at_once(dead.with_suffix(""))) == 1
