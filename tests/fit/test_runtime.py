import io
import sys
import time

import pytest

from moec_zarr import config
from moec_zarr.fit.runtime import progress

pytest.importorskip("rich")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def seconds(monkeypatch):
    """A clock that tests wind on."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def shown(monkeypatch, seconds, stream, lasting, **wanted):
    """What a job of some seconds writes to stderr."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with config.set(**wanted), progress("A fit") as report:
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            report(share)
            seconds[0] += lasting / 4
    return stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "lasting", "wanted", "expected"),
    [
        (io.StringIO, 60, "auto", False),
        (Terminal, 60, "auto", True),
        (Terminal, 1, "auto", False),
        (Terminal, 60, False, False),
        (io.StringIO, 60, True, True),
        (io.StringIO, 1, True, False),
    ],
)
def test_who_sees_it(monkeypatch, seconds, stream, lasting, wanted, expected):
    text = shown(monkeypatch, seconds, stream(), lasting, progress=wanted)
    assert ("A fit" in text) == expected
    assert bool(text) == expected


def test_a_job_that_fails_takes_it_down(monkeypatch, seconds):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    def job():
        with config.set(progress=True), progress("A fit") as report:
            seconds[0] += 10
            report(0.1)
            raise KeyError

    with pytest.raises(KeyError):
        job()
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h")  # cursor is back
