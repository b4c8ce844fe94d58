"""Sources that hold no step, or no value of a variable."""

from __future__ import annotations

import numpy as np
import pytest

import moec_zarr
from moec_zarr import MoECCodec, MoECError
from moec_zarr.conversion.verify import verify
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import DIMS, QUICK, dataset, records, release_files, stored

xr = pytest.importorskip("xarray")


@pytest.mark.parametrize("incomplete", [None, "hold", "refit"])
@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_nothing_is_appended_of_no_steps(converted, tmp_path, client, incomplete, kind):
    """As a job has it that runs before the first step of a month is there."""
    source = dataset().isel(time=slice(0))
    if kind == "file":
        source.to_netcdf(tmp_path / "none.nc", unlimited_dims=["time"])
        source = tmp_path / "none.nc"
    before = records(converted), stored(converted)
    again = convert(source, converted, append="time", incomplete=incomplete, client=client)
    assert again.sizes["time"] == 5
    assert (records(converted), stored(converted)) == before
    with pytest.raises(MoECError, match="'time' is not a part of the store's: it has no step"):
        verify(converted, source)
    release_files(client)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_variable_without_values_is_stored_as_it_is(tmp_path, client, zarr_format):
    ds = dataset()[["a"]].assign(
        none=(("time", "level"), np.zeros((5, 0), "f4"), {"units": "K"}), level=np.zeros(0)
    )
    ds.to_netcdf(tmp_path / "s.nc")
    dst = tmp_path / "d.zarr"
    options = {"variables": ["a", "none"], "chunks": {"time": 2}, "client": client}
    convert(tmp_path / "s.nc", dst, QUICK, zarr_format=zarr_format, **options)
    release_files(client)
    assert verify(dst, tmp_path / "s.nc").ok
    with xr.open_zarr(dst) as again:
        assert again.attrs["moec_zarr_status"] == "complete"
        xr.testing.assert_identical(again.none.load(), ds.none)
        assert moec_zarr.compare(ds, again)["none"].n == 0
    moec_zarr.write_report(dst, tmp_path / "r.html", against=tmp_path / "s.nc")


def test_a_source_without_any_value_is_refused_before_anything_is_written(tmp_path, client):
    source = dataset().isel(time=slice(0))
    with pytest.raises(MoECError, match=r"nothing to compress.*'a': holds no value"):
        convert(source, tmp_path / "d.zarr", QUICK, variables=["a"], client=client)
    assert not (tmp_path / "d.zarr").exists()


def test_an_array_without_values_is_reported(tmp_path):
    """xarray writes it with the codec, of which no stream is stored."""
    ds = xr.Dataset({"a": (DIMS, np.zeros((0, 12, 16), "f4"))})
    entry = moec_zarr.encoding(ds, MoECCodec(max_error=0.1, effort="fast"), 3, ["a"])
    ds.to_zarr(tmp_path / "d.zarr", encoding=entry)
    assert verify(tmp_path / "d.zarr").ok
    for against in (None, ds):
        moec_zarr.write_report(tmp_path / "d.zarr", tmp_path / "r.html", against=against)
        assert "<html" in (tmp_path / "r.html").read_text()
