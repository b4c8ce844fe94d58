"""The benchmarks' own logic, on codecs and lines whose results are known."""

from __future__ import annotations

import json
import os
import re
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from benchmarks import ablation, rd
from benchmarks.fields import find_fields
from benchmarks.isolate import LimitError, isolated
from benchmarks.peers import PEERS, UnreachableError, UnsuitableError, bisect, filled, measure
from benchmarks.records import Records, codec_version, latest, quality
from benchmarks.variants import VARIANTS, Network, forward, sized
from moec_zarr.fit.train import forward as package_forward
from moec_zarr.model.network import Architecture
from tests.support.fields import psnr, smooth

ROOT = Path(__file__).parent.parent
SHAPE = (12, 24, 20)


def fake(x: float) -> bytes:
    """A codec whose stream has 10 bytes at its coarsest and ten times as many for every quarter finer."""
    return bytes(round(10 * 10 ** (4 * (1 - x))))


def line(**others: Any) -> dict[str, Any]:
    """A finished measurement."""
    return {
        "benchmark": "rd", "field": "a", "shape": [4, 5], "dtype": "<u2", "codec": "SPERR", "settings": {},
        "ratio": 100.0, "version": "1", "status": "ok", "bytes": 50, "achieved_ratio": 100.0, "psnr": 30.0,
        "psnr_dtype": 40.0, "nrmse": 0.03, "ssim": 0.9, "max_error": 2.0,
        "encode_seconds": 1.5, "decode_seconds": 0.25,
    } | others  # fmt: skip


def ours(effort: str, **others: Any) -> dict[str, Any]:
    return line(codec="moec_zarr", settings={"effort": effort, "device": "cpu"}, **others)


LINES = [
    line(psnr=20.0, version="0"),  # an older version of the next
    line(),
    line(codec="ZFP", psnr=25.0),
    ours("fast", psnr=31.0),
    ours("best", psnr=33.5),
    line(field="b", psnr=40.0),
    ours("fast", field="b", psnr=39.0),
    line(ratio=1000.0, status="unreachable", reason="takes at least 9 bytes", psnr=None, psnr_dtype=None),
    ours("fast", ratio=1000.0, achieved_ratio=1001.0, psnr=22.0),
]


# -------------------------------------------------------------------------------- bisection


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


# ------------------------------------------------------------------------------------ peers


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
    shape = (3, 8, 32, 32) if case == "four axes" else (24, 32, 32)
    array = smooth(shape, "u2" if case == "integers" else "f4", scale=1000)
    if case == "nan":
        array[:, 3:9, :7] = np.nan
    budget = array.size // 2  # what TTHRESH needs for so small an array
    if peer == "HEVC" and case != "integers":
        with pytest.raises(UnsuitableError, match="integers"):
            measure(peer, array, budget)
        return
    found, decoded = measure(peer, array, budget)
    assert found["bytes"] <= budget
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)
    assert np.array_equal(np.isnan(decoded), np.isnan(array)) if case == "nan" else np.isfinite(decoded).all()
    assert psnr(array, decoded) > 30


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


# ---------------------------------------------------------------------------------- records


def test_records_know_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "results" / "rd.jsonl"
    Records(path).add(line(shape=(4, 5), psnr=np.float64("inf")))
    with path.open("a") as file:
        file.write('{"benchmark": "r')  # ended while it wrote
    again = Records(path)
    assert [each["psnr"] for each in again.lines] == [None]
    assert line(bytes=1) in again
    for other in ({"field": "b"}, {"ratio": 300.0}, {"version": "2"}, {"settings": {"effort": "fast"}}):
        assert line(**other) not in again
    again.add(line(field="b"))
    assert [json.loads(text)["field"] for text in path.read_text().splitlines()] == ["a", "b"]


def test_the_latest_version_counts() -> None:
    assert [each["psnr"] for each in latest(LINES) if each["codec"] == "SPERR"] == [30.0, 40.0, None]


def test_the_version_follows_the_sources(tmp_path: Path) -> None:
    more = tmp_path / "more.py"
    more.write_text("1")
    assert codec_version() == codec_version() != codec_version(more)


def test_quality_has_both_peaks() -> None:
    found = quality(np.array([0, 100], "u1"), np.array([10, 100], "u1"))
    rmse = np.sqrt(50)
    assert found["psnr"] == pytest.approx(20 * np.log10(100 / rmse))
    assert found["psnr_dtype"] == pytest.approx(20 * np.log10(255 / rmse))


# --------------------------------------------------------------------------- rate-distortion


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "waves.npz", data=smooth(SHAPE))
    return tmp_path


def test_a_run_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    results = folder / "rd.jsonl"
    words = (
        f"{folder} --ratios 20 40 --codecs moec_zarr --efforts fast --label one --results {results}".split()
    )
    calls = []

    def half(array: Any, ratio: float, effort: str) -> tuple[dict[str, Any], Any]:
        calls.append(ratio)
        if len(calls) == 2:
            raise KeyboardInterrupt
        size = int(array.nbytes / ratio)
        return {"bytes": size, "encode_seconds": 1.0, "decode_seconds": 0.1}, array + np.float32(ratio)

    monkeypatch.setattr(rd, "measure_ours", half)
    with pytest.raises(KeyboardInterrupt):
        rd.main(words)
    rd.main(words)
    rd.main(words)
    assert calls == [20, 40, 40]
    found = [json.loads(text) for text in results.read_text().splitlines()]
    assert [each["ratio"] for each in found] == [20, 40]
    assert [each["max_error"] for each in found] == pytest.approx([20, 40], rel=1e-5)
    rd.main([*words[:-3], "two", *words[-2:]])
    assert calls[3:] == [20, 40]


def test_this_codec_is_measured_by_its_whole_stream() -> None:
    array = smooth(SHAPE)
    found, decoded = rd.measure_ours(array, 60.0, "fast")
    assert found["bytes"] <= array.nbytes / 60
    assert decoded.shape == array.shape
    with pytest.raises(UnreachableError, match="at least"):
        rd.measure_ours(array, 6000.0, "fast")


def test_a_peer_that_is_not_installed_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rd, "versions", lambda *packages: dict.fromkeys(packages))
    found = rd.outcome(np.zeros(3), lambda: rd.measure_peer("ZFP", np.zeros(3), 1.0, 1.0, 1.0))
    assert found == {"status": "skipped", "reason": "numcodecs-wasm-zfp is not installed"}


def test_gains_are_over_the_best_peer() -> None:
    assert rd.gains(LINES) == {
        (100.0, "moec_zarr best"): {"a": 3.5},
        (100.0, "moec_zarr fast"): {"a": 1.0, "b": -1.0},
    }


def test_tables() -> None:
    text = rd.tables(LINES)
    assert "| moec_zarr fast | 100x | +0.00 | -1.00 (b) | 1 of 2 |" in text
    assert "| field | ratio | moec_zarr fast | moec_zarr best | SPERR | ZFP |" in text
    assert "| a | 100x | 31.00 | 33.50 | 30.00 | 25.00 |" in text
    assert "| a | 1000x | 22.00 |  | - |  |" in text


def test_plots(tmp_path: Path, capsys: Any) -> None:
    rd.report(LINES, tmp_path / "rd.jsonl")
    assert (tmp_path / "rd.md").read_text() == rd.tables(LINES)
    for field in "ab":
        image = imread(tmp_path / f"rd_{field}.png")
        assert image.shape[0] > 300
        assert image[..., :3].std() > 0.01


def test_fields_by_name(folder: Path) -> None:
    np.testing.assert_array_equal(find_fields(folder)["waves"](), smooth(SHAPE))
    assert list(find_fields(None, ["simulated_tracer"])) == ["simulated_tracer"]
    with pytest.raises(SystemExit, match="there are waves"):
        find_fields(folder, ["wave"])


# --------------------------------------------------------------------------------- ablation


def test_moec_is_the_packages_network() -> None:
    theirs = Architecture(axes=3, encoder=7, experts=4, width=5, layers=2)
    mine = Network(VARIANTS["moec"], axes=3, encoder=7, width=5, layers=2, leaves=4)
    assert mine.weights == theirs.weights
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in theirs.shapes().items()}
    u = 2 * torch.rand((50, 3), generator=generator) - 1
    weights["gate.weight"].requires_grad_()
    shaped = {name: weights[name].view(shape) for name, shape in mine.shapes().items()}
    expected, found = package_forward(theirs, weights, u), forward(mine, shaped, u)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


def test_blocks_are_networks_of_their_own() -> None:
    sizes = Network(VARIANTS["blocks"], axes=2, encoder=4, width=3, layers=2, leaves=4, halvings=(1, 0))
    alone = Network(VARIANTS["one"], axes=2, encoder=4, width=3, layers=2, leaves=1)
    weights = {name: torch.randn(shape) for name, shape in sizes.shapes().items()}
    u = 2 * torch.rand((40, 2)) - 1
    values, _ = forward(sizes, weights, u)
    upper = u > 0
    block = 2 * upper[:, 1] + upper[:, 0]
    local = 2 * u - torch.where(upper, 1.0, -1.0)
    for i in range(4):
        own = {name: weight[i : i + 1] for name, weight in weights.items()}
        torch.testing.assert_close(values[block == i], forward(alone, own, local[block == i])[0])


def test_octants_share_their_ancestors() -> None:
    sizes = Network(VARIANTS["octree"], 3, 4, 5, 2, leaves=64, halvings=(0, 1, 2) * 2)
    assert [sizes.sets(stage) for stage in range(4)] == [1, 8, 64, 64]
    weights = {name: torch.randn(shape) for name, shape in sizes.shapes().items()}
    u = 2 * torch.rand((200, 3)) - 1
    before, _ = forward(sizes, weights, u)
    weights["expert.weight.0"][5] += 1  # the octant with u_0 > 0, u_1 <= 0, u_2 > 0
    changed = forward(sizes, weights, u)[0] != before
    assert torch.equal(changed, (u[:, 0] > 0) & (u[:, 1] <= 0) & (u[:, 2] > 0))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("budget", [1500, 40_000])
def test_every_variant_spends_the_same_bytes(name: str, budget: int) -> None:
    sizes = sized(VARIANTS[name], (16, 8, 128, 128), budget)
    assert 0.6 * budget < sizes.weights * 6.8 / 8 < budget


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_fits_a_field(name: str) -> None:
    array = smooth(SHAPE, "i2", scale=1000) if name == "blocks" else smooth(SHAPE)
    if array.dtype.kind == "f":
        array[:3, :4, :5] = np.nan
    plan = ablation.Plan(steps=60, batch=256, allocations=1)
    found, decoded = ablation.measure(VARIANTS[name], array, 30.0, plan)
    assert found["bytes"] <= array.nbytes / 30
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(array))
    assert psnr(array, decoded) > 10


def test_ablation_resumes_and_is_tabled(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    results = folder / "ablation.jsonl"
    given = {"moec": 0.01, "siren": 0.1}
    calls = []

    def shifted(variant: Any, array: Any, ratio: float, plan: Any) -> tuple[dict[str, Any], Any]:
        name = next(name for name in given if VARIANTS[name] is variant)
        calls.append(name)
        return {"bytes": 100}, array + np.float32(given[name] * np.ptp(array))

    monkeypatch.setattr(ablation, "measure", shifted)
    words = f"{folder} --ratios 100 --variants moec siren --label one --results {results}".split()
    ablation.main(words)
    ablation.main(words)
    assert calls == ["moec", "siren"]
    text = results.with_suffix(".md").read_text()
    assert "| MoEC | 40.00 |  |  |  |" in text
    assert "| SIREN | 20.00 | -20.00 | -20.00 | -20.00 |" in text


# -------------------------------------------------------------------------------- packaging


def test_peers_are_pinned() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {re.split(r"[\[>=]", requirement)[0] for requirement in extras["bench"]}
    assert {peer.package for peer in PEERS.values()} < asked
    pins = (ROOT / "constraints.txt").read_text()
    assert all(f"\n{name}==" in pins for name in asked - {"moec-zarr"})
