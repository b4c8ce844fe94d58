"""What fits share with the machine: progress on a terminal, torch's threads, how many run at a time."""

import io
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from moec_zarr import config
from moec_zarr.errors import MoECError
from moec_zarr.runtime import CORES, choose_device, fit_slot, progress, torch_threads


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests advance, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("stream", "duration", "setting", "expected"),
    [
        (io.StringIO, 60, "auto", False),
        (Terminal, 60, "auto", True),
        (Terminal, 1, "auto", False),
        (Terminal, 60, False, False),
        (io.StringIO, 60, True, True),
        (io.StringIO, 1, True, False),
    ],
)
def test_progress_is_shown_of_long_jobs_where_wanted(monkeypatch, clock, stream, duration, setting, expected):
    pytest.importorskip("rich")
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("TERM", "xterm")
    with config.set(progress=setting), progress("A fit") as report:
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            report(share)
            clock[0] += duration / 4
    text = written.getvalue()
    assert ("A fit" in text) == expected
    assert bool(text) == expected


def test_progress_of_a_failed_job_is_taken_down(monkeypatch, clock):
    pytest.importorskip("rich")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    def job():
        with config.set(progress=True), progress("A fit") as report:
            clock[0] += 10
            report(0.1)
            raise KeyError

    with pytest.raises(KeyError):
        job()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h")  # cursor is back


def test_torch_threads_are_restored_after_the_last_fit():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with config.set(threads=before + 1), torch_threads():
        assert torch.get_num_threads() == before + 1
        with torch_threads():
            pass
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_as_many_fits_as_cores_run_at_a_time():
    running, peak, lock = [0], [0], threading.Lock()

    def fit():
        with fit_slot():
            with lock:
                running[0] += 1
                peak[0] = max(peak[0], running[0])
            time.sleep(0.02)
            with lock:
                running[0] -= 1

    cores = CORES
    threads = [threading.Thread(target=fit) for _ in range(3 * cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running == [0]
    assert peak[0] <= cores


def test_unknown_device_is_refused():
    pytest.importorskip("torch")
    with config.set(device="tpu"), pytest.raises(MoECError, match="device is 'tpu', expected 'cpu'"):
        choose_device()
    with config.set(device="cpu"):
        assert choose_device() == "cpu"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_slots_of_its_own():
    """Those of its parent are held by threads that it does not have."""
    with ExitStack() as held:
        for _ in range(CORES):
            held.enter_context(fit_slot())
        child = os.fork()
        if not child:
            with fit_slot():
                os._exit(7)
        deadline = time.monotonic() + 20
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < deadline:
            time.sleep(0.02)
        if not ended[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
