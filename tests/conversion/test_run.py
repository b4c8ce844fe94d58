"""Conversions of every kind of source, into every kind of store."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.archive.inspection import inspect_streams
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import FAST, QUICK, SHAPE, dataset, quick, release_files, stored
from tests.support.fields import smooth
from tests.support.related import NAMES, related

xr = pytest.importorskip("xarray")


@pytest.mark.parametrize(
    "layout",
    [
        {"zarr_format": 3, "chunks": {"time": 3}},
        {"zarr_format": 2, "chunks": {"time": 3}},
        {"zarr_format": 3, "chunks": {"time": 2}, "shards": {"time": 4}},
    ],
    ids=["v3", "v2", "shards"],
)
def test_all_but_the_fields_is_exact(file, tmp_path, client, layout):
    dst = tmp_path / "d.zarr"
    seen = []
    ds = convert(file, dst, FAST, client=client, progress=lambda p: seen.append(len(p.records)), **layout)
    release_files(client)
    with xr.open_dataset(file) as original, xr.open_zarr(dst) as again:
        fields = ["a", "b"]
        lossless = original.drop_vars(fields)
        lossless.attrs = again.attrs
        xr.testing.assert_identical(again.drop_vars(fields).load(), lossless.load())
        assert again.time.encoding["units"] == original.time.encoding["units"]
        for name in fields:
            measured = moec_zarr.compare(original[name], again[name])
            assert measured.n_special_mismatch == 0
            assert measured.psnr > 20
            attrs = dict(again[name].attrs)
            # Rounding alone separates the attribute from the figure here.
            if measured.max_error:
                assert attrs["moec_zarr_psnr"] == pytest.approx(measured.psnr, abs=0.01)
            assert attrs["moec_zarr_max_error"] == pytest.approx(measured.max_error)
            # A shard's index comes on top of its streams: 16 bytes a chunk, and a checksum of 4.
            shards = -(-original.sizes["time"] // 4) if "shards" in layout else 0
            stored = original[name].nbytes / attrs["moec_zarr_ratio"] - shards * (2 * 16 + 4)
            assert original[name].nbytes / stored > 4
            # What the streams hold, and no more: effort "fast" is the transform alone.
            assert "mixture" not in attrs["moec_zarr_algorithm"]
            assert "package moec_zarr is installed" in attrs["moec_zarr_reading"]
            assert attrs["moec_zarr_algorithm"].startswith("MoEC: a transform (" if name == "b" else "MoEC: ")
            assert "ratio=5" in attrs["moec_zarr_codec"]
            assert original[name].attrs.items() <= attrs.items()
        assert again.attrs["history"].endswith(f"converted from {file}\nmade")
        xr.testing.assert_identical(ds.load(), again.load())
    assert seen == sorted(seen)
    assert seen[0] == 0
    for name in fields:
        array = zarr.open_array(dst, path=name, mode="r")
        assert seen[-1] >= 2 * -(-SHAPE[0] // (array.shards or array.chunks)[0])


@pytest.mark.parametrize("opened", [False, True], ids=["file", "all decoded"])
def test_names_of_related_variables_are_kept(tmp_path, client, opened):
    related().to_netcdf(tmp_path / "s.nc")
    with xr.open_dataset(tmp_path / "s.nc", decode_coords="all") as ds:
        source = ds if opened else tmp_path / "s.nc"
        convert(source, tmp_path / "d.zarr", MoECCodec(ratio=2, effort="fast"), client=client)
    release_files(client)
    group = zarr.open_group(tmp_path / "d.zarr", mode="r")
    assert group["tas"].attrs["moec_zarr_ratio"] > 1
    attrs = {key: value for key, value in group["tas"].attrs.items() if key in NAMES}
    assert attrs == NAMES
    assert [group[name].attrs["bounds"] for name in ("time", "lat", "lon")] == [
        "time_bnds",
        "lat_bnds",
        "lon_bnds",
    ]
    again = xr.open_zarr(tmp_path / "d.zarr", decode_coords="all")
    assert {"crs", "areacella", "height", "lat2d", "lat_bnds"} <= set(again.coords)
    assert again.crs.attrs == related().crs.attrs


@pytest.mark.parametrize("filled", [False, True])
def test_masks_and_classes_are_exact(tmp_path, client, filled):
    """At a ratio that a mask cannot meet as a field; xarray makes floats of what has a fill value."""
    shape = (5, 40, 48)
    dims = ("time", "y", "x")
    land = (smooth(shape) + np.random.default_rng(0).normal(0, 60, shape) > 50).astype("i2")
    ds = xr.Dataset(
        {"b": (dims, smooth(shape)), "land": (dims, land), "soil": (dims, (smooth(shape) // 6).astype("i4"))}
    )
    if filled:
        for name in ("land", "soil"):
            ds[name] = ds[name].where(smooth(shape) > 3)
            ds[name].encoding = {"dtype": "i2", "_FillValue": np.int16(-1)}
    ds.to_netcdf(tmp_path / "s.nc")
    convert(tmp_path / "s.nc", tmp_path / "d.zarr", MoECCodec(ratio=20, effort="fast"), client=client)
    release_files(client)
    with xr.open_dataset(tmp_path / "s.nc") as original, xr.open_zarr(tmp_path / "d.zarr") as again:
        for name in ("land", "soil"):
            xr.testing.assert_identical(again[name].load(), original[name].load())
        assert "moec_zarr_codec" in again.b.attrs


def test_the_result_is_not_compressed_again(source, tmp_path, client):
    ds = quick(source, tmp_path / "d.zarr", client)
    ds[["a"]].to_zarr(tmp_path / "copy.zarr", consolidated=False)
    array = zarr.open_array(tmp_path / "copy.zarr", path="a", mode="r")
    assert not isinstance(array.serializer, moec_zarr.MoECSerializer)
    xr.testing.assert_equal(ds.a, xr.open_zarr(tmp_path / "copy.zarr", consolidated=False).a)


def test_chunks_are_those_that_zarr_would_store(tmp_path, client):
    ds = dataset()[["b"]].drop_vars(["height"])
    one, other = tmp_path / "one.zarr", tmp_path / "other.zarr"
    with moec_zarr.config.set(threads=1):
        convert(ds, one, FAST, chunks={"time": 3}, client=client)
        entry = moec_zarr.encoding(ds, FAST)
        entry["b"]["chunks"] = (3, *SHAPE[1:])
        ds.to_zarr(other, encoding=entry, consolidated=False)
    assert stored(one) == stored(other)


def test_relative_errors_of_each_variable(tmp_path, client):
    """Humidity over decades of levels, and rain with zeros, under targets of their own."""
    levels = 10.0 ** -np.arange(6, dtype="f4")[:, None, None]
    humidity = (smooth((6, 12, 16)) + 5) * levels.astype("f4")
    rain = np.where(smooth((6, 12, 16)) > 60, smooth((6, 12, 16)) ** 3, 0).astype("f4")
    ds = xr.Dataset({"q": (("level", "lat", "lon"), humidity), "rain": (("level", "lat", "lon"), rain)})
    codecs = {
        "q": MoECCodec(max_relative_error=0.01, effort="fast"),
        "rain": MoECCodec(max_relative_error=0.05, max_error=10, effort="fast"),
    }
    convert(ds, tmp_path / "d.zarr", codecs, client=client, chunks={"level": 3})
    with xr.open_zarr(tmp_path / "d.zarr") as again:
        q, back = again.q.values.astype("f8"), again.rain.values.astype("f8")
    assert (np.abs(q - humidity) <= 0.01 * humidity).all()
    assert (np.abs(back - rain) <= np.maximum(10, 0.05 * rain)).all()
    infos = dict(inspect_streams(zarr.open_group(tmp_path / "d.zarr", mode="r")["q"]))
    assert [info.relative_bound for info in infos.values()] == [0.01, 0.01]


@pytest.mark.parametrize("kind", ["list of files", "dask", "array", "store"])
def test_every_kind_of_source(tmp_path, client, kind):
    ds = dataset()[["a"]].drop_encoding()
    if kind == "list of files":
        src = [tmp_path / f"{i}.nc" for i in range(2)]
        for path, times in zip(src, (slice(3), slice(3, None)), strict=True):
            ds.isel(time=times).to_netcdf(path)
    elif kind == "store":
        src = tmp_path / "s.zarr"
        ds.to_zarr(src, consolidated=False)
    else:
        src = ds.chunk(time=2) if kind == "dask" else ds.a
    out = convert(src, tmp_path / "d.zarr", QUICK, client=client, chunks={"time": 2})
    xr.testing.assert_allclose(xr.decode_cf(out).a, ds.a, atol=1e-4)
    assert set(out.coords) == set(ds.coords)
    if kind == "list of files":
        release_files(client)


def test_stores_other_than_local_paths(source, tmp_path, client):
    path = quick(source, tmp_path / "d.zarr", client)
    for store in (
        "memory://d.zarr",
        f"file://{tmp_path}/e.zarr",
        zarr.storage.LocalStore(tmp_path / "f.zarr"),
    ):
        xr.testing.assert_equal(quick(source, store, client).a, path.a)


def test_large_lossless_variables_are_copied_by_tasks(tmp_path, client, monkeypatch):
    monkeypatch.setattr("moec_zarr.conversion.plan.planning._WHOLE_BYTES", 500)
    ds = dataset()
    ds.height.encoding = {"dtype": "i2", "scale_factor": 0.01, "_FillValue": np.int16(-1)}
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=2)
    convert(tmp_path / "s.zarr", tmp_path / "d.zarr", QUICK, variables=["a"], client=client)
    assert (tmp_path / "d.zarr/quality/.moec_zarr/0.0.0.json").exists()
    with xr.open_zarr(tmp_path / "s.zarr") as original, xr.open_zarr(tmp_path / "d.zarr") as again:
        for name in ("b", "quality", "height"):
            xr.testing.assert_identical(again[name].variable.load(), original[name].variable.load())
        assert again.height.encoding["scale_factor"] == 0.01
