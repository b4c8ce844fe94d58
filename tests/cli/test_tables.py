"""Figures as the tables show them."""

import pytest

pytest.importorskip("typer")

from moec_zarr.cli.tables import bytes_text, counted, duration


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


def test_counts():
    assert [counted(n, "attempt") for n in (0, 1, 2)] == ["0 attempts", "1 attempt", "2 attempts"]
