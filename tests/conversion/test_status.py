"""How far a conversion is, before, within and after its chunks."""

from __future__ import annotations

import numpy as np
import pytest

from moec_zarr import MoECCodec
from moec_zarr.archive.records import Record
from moec_zarr.archive.status import Progress
from moec_zarr.quality import Quality
from tests.conversion.conversions import plan

xr = pytest.importorskip("xarray")


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still; its time in seconds can be set."""
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def progress(now):
    ds = xr.Dataset({"a": (("time", "y", "x"), np.broadcast_to(np.float32(0), (80, 100, 100)))})
    planned = plan(ds, MoECCodec(ratio=100, effort="fast"), chunks={"time": 10})
    return Progress(plan=planned, resumed=0, records=[], failures=[], started=now[0], workers=2)


def record(index, seconds):
    return Record(
        variable="a", index=(index, 0, 0), bytes_in=10, bytes_out=1, quality=Quality(), seconds=seconds,
        attempt=1, checksum="",
    )  # fmt: skip


def test_the_time_left_is_that_of_the_plan_until_a_chunk_is_done(progress, now):
    planned = progress.plan.seconds
    assert progress.seconds_left == pytest.approx(planned / 2)
    # Chunks turn out to take three times as long: seven of eight are left, for two workers.
    progress.records.append(record(0, 3 * planned / 8))
    assert progress.seconds_left == pytest.approx(7 * 3 * planned / 8 / 2)


def test_what_an_earlier_run_did_says_nothing_of_the_speed_of_this_one(progress):
    progress.records += [record(0, 1e6), record(1, 1e6)]
    progress.resumed = 2
    assert progress.seconds_left == pytest.approx(progress.plan.seconds * 6 / 8 / 2)


def test_it_moves_within_a_chunk_and_never_finishes_one(progress, now):
    each = progress.plan.seconds / 8
    progress.running = [("a", now[0]), ("a", now[0])]
    before = progress.seconds_left
    now[0] += each / 2
    assert progress.done == pytest.approx(2 * 0.5)
    assert progress.seconds_left == pytest.approx(before - each / 2)
    now[0] += 100 * each
    assert progress.done < 2
    assert progress.seconds_left >= 6 * each / 2
