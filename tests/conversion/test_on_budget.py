"""Chunks that cannot be as small as the ratio asks, since what they keep exactly takes more."""

import logging

import numpy as np
import pytest

from moec_zarr import ConversionError, MoECCodec, config
from moec_zarr.conversion.verify import verify
from moec_zarr.conversion.work.run import convert
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")
pytest.importorskip("distributed")

DIMS = ("time", "y", "x")
CODEC = MoECCodec(ratio=40, effort="fast")


@pytest.fixture
def ds():
    """Three chunks, the middle one with NaN scattered over it: a mask beyond what 40x allows."""
    values = smooth((3, 128, 128))
    values[1][np.random.default_rng(0).random((128, 128)) < 0.5] = np.nan
    return xr.Dataset({"a": (DIMS, values)}, coords={"time": np.arange(3)})


@pytest.mark.parametrize(
    "options", [{}, {"zarr_format": 2}, {"shards": {"time": 3}}], ids=["v3", "v2", "shard"]
)
def test_it_is_kept_at_the_ratio_it_reaches_and_said(tmp_path, client, caplog, ds, options):
    with caplog.at_level(logging.WARNING, "moec_zarr"):
        stored = convert(ds, tmp_path / "z", CODEC, chunks={"time": 1}, client=client, **options)
    np.testing.assert_array_equal(np.isnan(stored.a.values), np.isnan(ds.a.values))
    assert np.nanmax(np.abs(stored.a.values - ds.a.values)) < 5
    assert "variable 'a': 1 chunks take more bytes than 40x allows" in caplog.text
    assert "40x allows" in stored.a.attrs["moec_zarr_warning"]
    assert stored.attrs["moec_zarr_status"] == "complete"
    assert verify(tmp_path / "z", ds, client=client).ok


def test_it_fails_where_that_is_asked_for_and_is_kept_by_the_next_run(tmp_path, client, ds):
    call = {"chunks": {"time": 1}, "client": client}
    with pytest.raises(ConversionError, match=r"1 of 3 chunks failed.*which this chunk reaches"):
        convert(ds, tmp_path / "z", CODEC, on_budget="fail", **call)
    stored = convert(ds, tmp_path / "z", CODEC, **call)
    np.testing.assert_array_equal(np.isnan(stored.a.values), np.isnan(ds.a.values))


def test_the_codec_keeps_it_where_the_configuration_says_so(ds):
    chunk = ds.a.values[1]
    with config.set(budget="keep"):
        stream = CODEC.encode(chunk)
    assert len(stream) > chunk.nbytes / 40
    np.testing.assert_array_equal(np.isnan(np.asarray(CODEC.decode(stream))), np.isnan(chunk))
    with pytest.raises(ValueError, match=r"at least .* are needed"):
        CODEC.encode(chunk)
