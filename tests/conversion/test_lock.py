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
from tests.conversion.conversions import quick

pytest.importorskip("xarray")
pytest.importorskip("psutil")


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


def test_of_many_at_once_one_gets_it(tmp_path):
    start, held = threading.Barrier(8), []

    def take():
        each = lock.Lock(LocalStore(tmp_path / "d.zarr"))
        start.wait()
        try:
            each.take(break_lock=False)
        except LockedError:
            return
        held.append(each)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1


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


def test_a_run_whose_process_has_gone_is_reported_and_taken_over_only_if_asked(
    source, converted, client, caplog
):
    script = """
import os, sys
from zarr.storage import LocalStore
from moec_zarr.archive.lock import Lock
Lock(LocalStore(sys.argv[1])).take(break_lock=False)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", script, str(converted)], check=True)
    path = converted.with_name("d.zarr.lock")
    content = json.loads(path.read_text())
    content["begun"] = "2026-01-01T00:00:00+00:00"
    path.write_text(json.dumps(content))
    with pytest.raises(LockedError, match=r"begun \d+ days ago.*no such process on this machine"):
        quick(source, converted, client)
    assert path.exists()
    quick(source, converted, client, break_lock=True)
    assert "the lock is broken" in caplog.text
    assert not path.exists()
