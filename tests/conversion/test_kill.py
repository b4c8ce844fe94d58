"""A worker and a run that are killed leave nothing that the next run cannot go on from."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from moec_zarr import MoECCodec
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import records, release_files, stored

psutil = pytest.importorskip("psutil")
xr = pytest.importorskip("xarray")

# Five chunks, so small that each is fitted within a second or two.
CONVERSION = {"codec": MoECCodec(ratio=2.5, effort="fast"), "variables": ["b"], "chunks": {"time": 1}}

SCRIPT = """
import sys
from moec_zarr import MoECCodec, convert

if __name__ == "__main__":
    convert(sys.argv[1], sys.argv[2], MoECCodec(ratio=2.5, effort="fast"), variables=["b"],
            chunks={"time": 1}, workers=2)
"""


def test_killed_worker_killed_run_and_resume(file, tmp_path, client):
    script, dst = tmp_path / "script.py", tmp_path / "d.zarr"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(file), str(dst)]

    def wait_for(count):
        deadline = time.monotonic() + 120
        while len(records(dst)) < count:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    process = subprocess.Popen(command)
    wait_for(1)
    children = psutil.Process(process.pid).children(recursive=True)
    working = max(children, key=lambda child: child.memory_info().rss)
    working.send_signal(signal.SIGKILL)
    wait_for(2)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    before = records(dst)
    assert 2 <= len(before) < 5
    assert xr.open_zarr(dst, consolidated=False).attrs["moec_zarr_status"].startswith("incomplete: ")
    convert(file, dst, client=client, **CONVERSION)  # the process that has the lock has ended
    assert xr.open_zarr(dst).attrs["moec_zarr_status"] == "complete"
    assert not (tmp_path / "d.zarr.lock").exists()
    assert {path: records(dst)[path] for path in before} == before
    assert len(records(dst)) == 5
    release_files(client)
    convert(file, tmp_path / "e.zarr", client=client, **CONVERSION)
    assert stored(dst) == stored(tmp_path / "e.zarr")
