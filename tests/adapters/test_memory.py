"""What a write of many chunks takes in memory beside the array."""

from __future__ import annotations

import pytest

from tests.support.processes import run_python

pytest.importorskip("psutil")

LIMIT = 80  # bytes for each voxel of the chunks that are encoded, one for each core
WRITE = """
import sys, threading, time
import numpy as np
import psutil
import moec_zarr
from tests.support.fields import rough

side, count, ratio = map(int, sys.argv[1:])
data = rough((count * side, side, side))
codec = moec_zarr.MoECCodec(ratio=ratio, effort="fast")

def write(data, chunks):
    moec_zarr.open({}, compressor=codec, shape=data.shape, chunks=chunks, dtype=data.dtype)[:] = data

write(data[:160, :40, :40], (20, 40, 40))  # threads begin, libraries load
process, most, done = psutil.Process(), 0, threading.Event()

def watch():
    global most
    while not done.wait(0.001):
        most = max(most, process.memory_info().rss)

before = process.memory_info().rss
thread = threading.Thread(target=watch)
thread.start()
write(data, (side,) * 3)
done.set()
thread.join()
print(most - before, moec_zarr.runtime.CORES)
"""


def test_chunks_wait_for_a_core_before_they_take_memory() -> None:
    side, count = 96, 6
    taken, cores = map(int, run_python(WRITE, side, count, 100))
    copies = 4 * count * side**3  # zarr's, of the chunks that wait
    assert taken - copies < LIMIT * cores * side**3
