"""A trial tells what the conversion will give, and writes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import moec_zarr
from moec_zarr import MoECCodec, MoECError, trial
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import DIMS, FAST
from tests.support.fields import rough

xr = pytest.importorskip("xarray")


def test_it_foretells_the_conversion(tmp_path, client):
    """All chunks of a variable at its own target: bytes and errors are those of the store."""
    values = rough((6, 12, 16))
    values[4, 3:6, 5:9] = np.nan
    ds = xr.Dataset({"b": (DIMS, values)})
    ds["b"].encoding["_FillValue"] = np.float32(-99)
    with moec_zarr.config.set(threads=1):
        found = trial(ds, FAST, 2, chunks={"time": 3})
        convert(ds, tmp_path / "d.zarr", FAST, chunks={"time": 3}, client=client)
    assert [each.codec.ratio for each in found] == [2.5, 5, 10]
    here = found[1]
    assert here.chunks == here.whole == 2
    files = sorted((tmp_path / "d.zarr/b/c").rglob("0"))
    assert here.bytes_out == sum(path.stat().st_size for path in files if path.is_file())
    assert here.bytes_in == ds.b.nbytes
    assert here.ratio >= 5
    measured = moec_zarr.compare(ds.b, xr.open_zarr(tmp_path / "d.zarr").b)
    assert here.quality.max_error == pytest.approx(measured.max_error)
    assert here.quality.psnr == pytest.approx(measured.psnr)
    assert (here.whole_bytes, here.whole_seconds) == (here.bytes_out, here.seconds)
    assert found[0].quality.rmse < here.quality.rmse < found[2].quality.rmse


def test_chunks_are_whole_and_spread(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "moec_zarr.conversion.plan.trial.encode", lambda array, codec: seen.append(array) or zarr_stream
    )
    monkeypatch.setattr("moec_zarr.conversion.plan.trial.decode", lambda stream, dictionary: seen[-1])
    zarr_stream = b"123"
    values = np.arange(23 * 4 * 4, dtype="f4").reshape(23, 4, 4)
    found = trial(xr.Dataset({"a": (DIMS, values)}), MoECCodec(psnr=40), 3, chunks={"time": 3})
    assert [each.codec.psnr for each in found] == [46, 40, 34]
    # Seven whole chunks of three hours: of three equal parts the middle ones.
    np.testing.assert_array_equal(np.stack(seen[:3]), np.stack([values[t : t + 3] for t in (3, 9, 15)]))
    assert {array.shape for array in seen} == {(3, 4, 4)}
    assert all(each.whole == 8 for each in found)
    assert found[0].whole_bytes == 3 * 8
    seen.clear()
    (least, *_) = trial(xr.Dataset({"a": (DIMS, values)}), MoECCodec(psnr=40), 1, chunks={"time": 3})
    np.testing.assert_array_equal(seen[0], values[9:12])
    assert least.chunks == 1


def test_lazy_and_packed_sources(tmp_path):
    pytest.importorskip("dask")
    ds = xr.Dataset({"a": (DIMS, rough((4, 12, 16)))})
    ds.to_zarr(
        tmp_path / "s.zarr", encoding={"a": {"dtype": "i2", "scale_factor": 0.01, "_FillValue": -1}},
        consolidated=False,
    )  # fmt: skip
    for src in (tmp_path / "s.zarr", ds.chunk(time=1)):
        (_, result, _) = trial(src, FAST, 1)
        assert result.ratio >= 5
        assert result.quality.psnr > 20
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_a_target_that_cannot_be_met_is_told():
    rng = np.random.default_rng(0)
    # Half of the voxels are masked at random: their places alone take a bit each.
    values = np.where(rng.random((6, 12, 16)) < 0.5, np.nan, rng.standard_normal((6, 12, 16))).astype("f4")
    found = trial(xr.Dataset({"a": (DIMS, values)}), MoECCodec(ratio=12, effort="fast"), 1)
    assert [bool(each.error) for each in found] == [False, False, True]
    last = found[-1]
    assert (last.chunks, last.ratio, last.whole_seconds, last.whole_bytes) == (0, None, None, None)


@pytest.mark.torch
def test_what_is_refused():
    ds = xr.Dataset({"a": (DIMS, rough((4, 12, 16)))})
    with pytest.raises(MoECError, match="at least one chunk"):
        trial(ds, FAST, 0)
    assert [each.codec.ratio for each in trial(ds, MoECCodec(ratio=1), 1)] == [1, 2]
