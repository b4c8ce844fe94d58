"""Chunks that fail: tried again where that may help, reported, and done by the next run."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from moec_zarr import BudgetError, ConversionError, MoECCodec
from moec_zarr.conversion.work import worker
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import dataset, fail_to_read, quick, records, release_files
from tests.support.fields import psnr

xr = pytest.importorskip("xarray")


def test_a_failed_chunk_is_tried_again(source, tmp_path, client, monkeypatch):
    fail_to_read(monkeypatch, [OSError("lost"), RuntimeError("odd")])
    quick(source, tmp_path / "d.zarr", client)
    record = json.loads((tmp_path / "d.zarr/a/.moec_zarr/1.0.0.json").read_text())
    assert record["attempt"] == 3


def test_a_chunk_that_cannot_be_read_names_its_file(tmp_path, client, monkeypatch):
    files = [tmp_path / f"{i}.nc" for i in range(2)]
    for path, times in zip(files, (slice(3), slice(3, None)), strict=True):
        dataset()[["a"]].isel(time=times).to_netcdf(path)
    compute = xr.Variable.compute

    def fails(self, **options):
        if self.shape == (2, 12, 16) and options:
            raise RuntimeError("NetCDF: HDF error")
        return compute(self, **options)

    monkeypatch.setattr(xr.Variable, "compute", fails)
    with pytest.raises(ConversionError, match=r"(/[^ ]*0\.nc|1\.nc).* cannot be read \(NetCDF: HDF error\)"):
        quick(files, tmp_path / "d.zarr", client)
    release_files(client)


def test_after_three_attempts_it_is_reported_and_the_others_go_on(source, tmp_path, client, monkeypatch):
    dst = tmp_path / "d.zarr"
    with monkeypatch.context() as patch:
        left = fail_to_read(patch, [OSError("lost")] * 5)
        with pytest.raises(
            ConversionError, match=r"1 of 3 chunks failed.*\(1, 0, 0\) of 'a': lost"
        ) as caught:
            quick(source, dst, client)
        assert len(left) == 2
    (failure,) = caught.value.progress.failures
    assert (failure.index, failure.attempts) == ((1, 0, 0), 3)
    assert len(records(dst)) == 2
    assert "history" in xr.open_zarr(dst).attrs
    quick(source, dst, client)
    assert len(records(dst)) == 3


def test_what_another_attempt_cannot_change_is_not_tried_again(source, tmp_path, client, monkeypatch):
    left = fail_to_read(monkeypatch, [BudgetError("too small")] * 3)
    with pytest.raises(ConversionError, match="too small") as caught:
        quick(source, tmp_path / "d.zarr", client)
    assert caught.value.progress.failures[0].attempts == 1
    assert len(left) == 2


def test_a_chunk_that_reads_back_wrong_is_detected(source, tmp_path, client, monkeypatch):
    check = worker._check
    monkeypatch.setattr(
        worker, "_check", lambda task, values: check(task, np.where(values > 0, values, np.nan))
    )
    with pytest.raises(ConversionError, match="reads back with NaN"):
        quick(source, tmp_path / "d.zarr", client)


def test_a_chunk_beyond_its_bound_is_detected(source, tmp_path, client, monkeypatch):
    codec = MoECCodec(max_error=0.25, effort="fast")
    options = {"variables": ["a"], "chunks": {"time": 2}, "client": client}
    convert(source, tmp_path / "kept.zarr", codec, **options)
    kept = [json.loads(path.read_text()) for path in records(tmp_path / "kept.zarr")]
    assert len(kept) == 3
    assert max(record["quality"]["max_error"] for record in kept) <= 0.25
    check = worker._check
    monkeypatch.setattr(worker, "_check", lambda task, values: check(task, values + np.float32(0.3)))
    with pytest.raises(ConversionError, match=r"an error of 0\.\d+, the bound is 0\.25"):
        convert(source, tmp_path / "d.zarr", codec, **options)


@pytest.mark.parametrize(("missed", "detected"), [(0.04, False), (0.1, True)])
def test_a_chunk_below_its_psnr_is_detected(source, tmp_path, client, monkeypatch, missed, detected):
    """What 40 dB give is checked against more than that, which is to be missed by hardly anything."""
    options = {"variables": ["b"], "chunks": {"time": 2}, "client": client}
    convert(source, tmp_path / "kept.zarr", MoECCodec(psnr=40, effort="fast"), **options)
    original, again = xr.open_zarr(source).b.values, xr.open_zarr(tmp_path / "kept.zarr").b.values
    reached = min(psnr(original[i : i + 2], again[i : i + 2]) for i in (0, 2, 4))
    assert 40 <= reached < 41
    asked = MoECCodec(psnr=reached + missed, effort="fast")
    check = worker._check
    monkeypatch.setattr(worker, "_check", lambda task, values: check(replace(task, codec=asked), values))
    expected = pytest.raises(ConversionError, match=r"reads back with 40\.\d+ dB, and 40\.\d+ dB were")
    with expected if detected else nullcontext():
        convert(source, tmp_path / "d.zarr", MoECCodec(psnr=40, effort="fast"), **options)
