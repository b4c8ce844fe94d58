"""Conversions whose workers train the networks of several chunks together."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from moec_zarr import BudgetError, ConversionError, MoECCodec, config
from moec_zarr.conversion.work.dispatch import _together
from moec_zarr.conversion.work.run import convert
from moec_zarr.conversion.work.worker import Task
from tests.conversion.conversions import dataset, fail_to_read, records
from tests.support.fields import psnr

xr = pytest.importorskip("xarray")
pytest.importorskip("torch")

from moec_zarr.fit.presets import PRESETS  # noqa: E402

FAST = PRESETS["fast"][0]
SHORT = replace(FAST, steps=150, starts=FAST.starts[:1], trial_steps=50, probe_steps=50)
CODEC = MoECCodec(ratio=2.2, effort="fast", model="network")


@pytest.fixture(autouse=True)
def _short_fits() -> Iterator[None]:
    with patch.dict(PRESETS, fast=(SHORT,)):
        yield


def grouped(source: Any, dst: Any, client: Any, group: int = 2, **options: Any) -> Any:
    """Convert variable b, in five chunks."""
    options = {"variables": ["b"], "chunks": {"time": 1}} | options
    with config.set(group=group):
        return convert(source, dst, CODEC, client=client, **options)


def test_workers_do_groups_of_chunks(source, tmp_path, client, trained):
    """Jobs of two chunks, and of one."""
    start = time.perf_counter()
    result = grouped(source, tmp_path / "d.zarr", client)
    wall = time.perf_counter() - start
    assert sorted(trained) == [1, 2, 2]
    expected = dataset()["b"].values
    np.testing.assert_array_equal(np.isnan(result["b"].values), np.isnan(expected))
    assert psnr(expected, result["b"].values) > 20
    made = [json.loads(path.read_text()) for path in records(tmp_path / "d.zarr")]
    assert len(made) == 5
    assert all(record["steps"]["fitting"] > 0 for record in made)
    # One job at a time: what its tasks say that they took adds up to no more than there was.
    assert 0 < sum(record["seconds"] for record in made) < wall


def test_a_shard_is_fitted_as_a_group(source, tmp_path, client, trained):
    grouped(source, tmp_path / "d.zarr", client, group=4, shards={"time": 5})
    assert sorted(trained) == [1, 4]
    assert len(records(tmp_path / "d.zarr")) == 1


def test_single_chunks_are_not_held_up_without_groups(source, tmp_path, client, trained):
    grouped(source, tmp_path / "d.zarr", client, group=1)
    assert trained == [1] * 5


def test_a_chunk_that_fails_does_not_harm_its_group(source, tmp_path, client, monkeypatch, trained):
    """It is tried again alone, where that may help."""
    dst = tmp_path / "d.zarr"
    fail_to_read(monkeypatch, [OSError("lost")])
    result = grouped(source, dst, client, group=3)
    assert sorted(trained) == [1, 2, 2]
    attempts = {path.name: json.loads(path.read_text())["attempt"] for path in records(dst)}
    assert attempts == {f"{i}.0.0.json": 2 if i == 1 else 1 for i in range(5)}
    assert psnr(dataset()["b"].values, result["b"].values) > 20


def test_a_chunk_that_fails_for_good_is_reported(source, tmp_path, client, monkeypatch):
    dst = tmp_path / "d.zarr"
    with monkeypatch.context() as broken:
        fail_to_read(broken, [BudgetError("too small")])
        with pytest.raises(ConversionError, match=r"1 of 5 chunks failed.*\(1, 0, 0\) of 'b': too small"):
            grouped(source, dst, client)
    assert len(records(dst)) == 4
    grouped(source, dst, client)
    assert len(records(dst)) == 5


def test_progress_counts_the_tasks_of_a_job(source, tmp_path, client):
    seen = []
    grouped(source, tmp_path / "d.zarr", client, progress=lambda p: seen.append((p.together, p.done)))
    assert seen[-1] == (2, 5)
    assert all(0 <= done <= 5 for _, done in seen)


def test_a_gpu_has_two_groups_at_a_time(source):
    """One trains while the other is on the cores; shards count their chunks."""
    array = xr.open_zarr(source)["b"]
    task = Task(
        variable="b", index=(0, 0, 0), region=(slice(0, 4), slice(0, 12), slice(0, 16)),
        source=array.variable, bytes_before=0, files=[], array=SimpleNamespace(chunks=(1, 12, 16)),
        codec=CODEC, plan="", device="cuda", threads=1, group=10,
    )  # fmt: skip
    assert _together(task) == 5
    assert _together(replace(task, device="cpu")) == 3
    assert _together(replace(task, group=1)) == 1
    assert _together(replace(task, codec=MoECCodec(ratio=4, effort="fast"))) == 1
    assert _together(replace(task, codec=None)) == 1
