"""Other codecs at a given number of bytes and within bounds; functions in processes of their own."""

from __future__ import annotations

import os
import re
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

from benchmarks.forms import UnreachableError, UnsuitableError, bisect, filled
from benchmarks.isolate import LimitError, isolated
from benchmarks.peers import PEERS, measure
from tests.support.fields import psnr, rough, smooth
from tests.support.processes import ROOT


def fake(x: float) -> bytes:
    """A codec whose stream has 10 bytes at its coarsest and ten times as many for every quarter finer."""
    return bytes(round(10 * 10 ** (4 * (1 - x))))


@pytest.mark.parametrize("budget", [10, 11, 57, 1000, 12_345])
def test_bisection_finds_the_largest_stream_that_fits(budget: int) -> None:
    x, stream = bisect(fake, budget, near=1.0, steps=40)
    assert len(stream) == budget
    assert fake(x) == stream


def test_bisection_stops_where_it_is_near_enough() -> None:
    asked = []
    _, stream = bisect(lambda x: (asked.append(x), fake(x))[1], 50_000, near=0.9)
    assert 45_000 <= len(stream) <= 50_000
    assert len(asked) < 10


def test_bisection_of_a_codec_with_few_sizes_stays_below_the_budget() -> None:
    _, stream = bisect(lambda x: bytes(100 * 2 ** round(8 * (1 - x))), 1000)
    assert len(stream) == 800


def test_bisection_says_what_the_smallest_stream_takes() -> None:
    with pytest.raises(UnreachableError, match="10 bytes"):
        bisect(fake, 9)


def installed(peer: str) -> bool:
    try:
        return bool(version(PEERS[peer].package))
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("case", ["float", "nan", "integers", "four axes"])
def test_a_peer_keeps_within_the_bytes_and_gives_back_the_array(peer: str, case: str) -> None:
    if not installed(peer):
        pytest.skip(f"{PEERS[peer].package} is not installed")
    shape = (3, 8, 32, 32) if case == "four axes" else (24, 32, 31)
    array = smooth(shape, "u2" if case == "integers" else "f4", scale=1000)
    if case == "nan":
        array[:, 3:9, :7] = np.nan
    budget = array.size // 2
    if PEERS[peer].integers and case != "integers":
        with pytest.raises(UnsuitableError, match="integers"):
            measure(peer, array, budget=budget)
        return
    line, decoded = measure(peer, array, budget=budget)
    assert line["bytes"] <= budget
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)
    assert np.array_equal(np.isnan(decoded), np.isnan(array)) if case == "nan" else np.isfinite(decoded).all()
    assert psnr(array, decoded) > 30
    again, _ = measure(peer, array, budget=0, found=line["found"])  # nothing is searched
    assert (again["found"], again["bytes"]) == (line["found"], line["bytes"])


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_keeps_a_bound_or_says_that_it_has_none(peer: str) -> None:
    if not installed(peer):
        pytest.skip(f"{PEERS[peer].package} is not installed")
    if not PEERS[peer].bounded:
        with pytest.raises(UnsuitableError, match="bound"):
            measure(peer, rough((9, 12, 14), "i2"), bound=5.0)
        return
    for array in rough((9, 12, 14)), rough((4, 5, 9, 12), "i2"):
        bound = 0.05 * float(array.max() - array.min())
        line, decoded = measure(peer, array, bound=bound)
        assert 0 < line["bytes"] < array.nbytes
        assert np.abs(decoded.astype("f8") - array).max() <= bound * 1.001


def test_what_is_missing_takes_the_nearest_value() -> None:
    array = np.array([[1.0, np.nan, np.nan, 4.0]])
    np.testing.assert_array_equal(filled(array, np.isfinite(array)), [[1, 1, 4, 4]])


def test_isolated_functions(capfd: pytest.CaptureFixture[str]) -> None:
    limits = {"seconds": 60.0, "gigabytes": 4.0}
    assert isolated(abs, -4, **limits) == 4
    isolated(print, "into the void", **limits)
    assert capfd.readouterr().out == ""
    with pytest.raises(UnreachableError, match="at least 3 bytes"):
        isolated(bisect, repr, 1, **limits)
    with pytest.raises(RuntimeError, match="ValueError: could not convert"):
        isolated(float, "x", **limits)
    with pytest.raises(LimitError, match="exit code 3"):
        isolated(os._exit, 3, **limits)
    with pytest.raises(LimitError, match=r"0\.5 s"):
        isolated(time.sleep, 60, seconds=0.5, gigabytes=4.0)
    with pytest.raises(LimitError, match="GB"):
        isolated(time.sleep, 60, seconds=60.0, gigabytes=1e-6)


def test_peers_are_pinned() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {re.split(r"[\[>=]", requirement)[0] for requirement in extras["bench"]}
    assert {peer.package for peer in PEERS.values()} < asked
    pins = (ROOT / "constraints.txt").read_text()
    assert all(f"\n{name}==" in pins for name in asked - {"moec-zarr"})
