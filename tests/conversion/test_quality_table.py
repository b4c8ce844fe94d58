"""The quality of a conversion, as a table in its store."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec
from moec_zarr.archive.quality_table import open_quality
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import DIMS, FAST, SHAPE, dataset, quick
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")


@pytest.fixture(scope="module")
def ds():
    ds = dataset()
    ds["b"] = (DIMS, ds.b.values + 280, {"units": "K"})
    return ds


@pytest.fixture(
    scope="module", params=[{}, {"zarr_format": 2}, {"shards": {"time": 4}}], ids=["v3", "v2", "shards"]
)
def store(request, tmp_path_factory, client, ds):
    path = tmp_path_factory.mktemp("quality") / "d.zarr"
    convert(ds, path, FAST, client=client, variables=["b"], chunks={"time": 2}, **request.param)
    return path


def test_xarray_reads_the_table_and_it_tells_what_was_stored(store, ds):
    table = xr.open_zarr(store / "b/.moec_zarr/quality").load()
    original, decoded = ds.b.values.astype("f8"), xr.open_zarr(store).b.values.astype("f8")
    array = zarr.open_array(store, path="b", mode="r")
    assert table.time_start.values.tolist() == list(range(0, SHAPE[0], (array.shards or array.chunks)[0]))
    for row in range(table.sizes["task"]):
        one = table.isel(task=row)
        times = slice(int(one.time_start), int(one.time_stop))
        x, y = original[times], decoded[times]
        assert (int(one.lat_stop), int(one.lon_stop)) == SHAPE[1:]
        error = (y - x)[np.isfinite(x)]
        assert one.n == x.size
        assert one.n_valid == error.size
        assert one.bias == pytest.approx(error.mean(), rel=1e-4, abs=1e-7)
        assert one.max_error == pytest.approx(abs(error).max())
        assert one.rmse == pytest.approx(np.sqrt(np.mean(error**2)))
        assert (float(one.low), float(one.high)) == (np.nanmin(x), np.nanmax(x))
        np.testing.assert_allclose(
            one.error_percentile, np.percentile(abs(error), [50, 90, 99, 99.9]), rtol=1e-5
        )
        steps = sum(float(one[f"seconds_{step}"]) for step in ("reading", "fitting", "writing", "checking"))
        assert steps == pytest.approx(float(one.seconds), abs=0.01)
    np.testing.assert_allclose(
        table.rmse_by_index, np.sqrt(np.nanmean((decoded - original) ** 2, axis=(1, 2))), rtol=1e-5
    )
    np.testing.assert_allclose(
        table.max_error_by_index, np.nanmax(abs(decoded - original), (1, 2)), rtol=1e-5
    )
    np.testing.assert_array_equal(table.n_valid_by_index, np.isfinite(original).sum((1, 2)))
    assert table.rmse_by_index.dims == ("time",)
    assert table.bias.attrs["units"] == "K"
    assert table.wavelength.values.tolist() == [2, 4, 8, 16]
    assert np.nansum(table.power_ratio) > 0


def test_pandas_has_a_row_for_each_task(store):
    table = xr.open_zarr(store / "b/.moec_zarr/quality")
    frame = table.drop_dims(["percentile", "wavelength", "time"]).to_dataframe()
    assert len(frame) == table.sizes["task"]
    assert frame.bytes_in.sum() == np.prod(SHAPE) * 4


def test_tables_of_any_store(store):
    for place in (store, zarr.storage.LocalStore(store)):
        assert list(open_quality(place)) == ["b"]
        xr.testing.assert_identical(
            open_quality(place)["b"], xr.open_zarr(store / "b/.moec_zarr/quality").load()
        )


def test_nothing_that_opens_the_data_sees_the_table(store, ds):
    assert set(xr.open_zarr(store).variables) == set(ds.variables)
    assert {name for name, _ in zarr.open_group(store, mode="r").members(max_depth=None)} == set(ds.variables)
    assert xr.open_datatree(store, engine="zarr").groups == ("/",)


def test_a_resumed_run_writes_the_whole_table(source, converted, client, caplog):
    (converted / "a/.moec_zarr/1.0.0.json").unlink()
    (converted / "a/.moec_zarr/quality/bias/zarr.json").unlink()
    quick(source, converted, client)
    table = xr.open_zarr(converted / "a/.moec_zarr/quality")
    assert table.time_start.values.tolist() == [0, 2, 4]
    assert table.bias.values.tolist() == [0, 0, 0]
    assert "does not count" not in caplog.text  # the table is no record


@pytest.mark.parametrize(
    "damage", [{"statistics": 3}, {"statistics": {"bias": 0}}, {"steps": [1]}, {"steps": {"reading": "x"}}]
)
def test_a_record_with_other_types_does_not_count(source, converted, client, damage, caplog):
    path = converted / "a/.moec_zarr/1.0.0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    quick(source, converted, client)
    assert "does not count" in caplog.text
    assert json.loads(path.read_text())["statistics"]["bias"] == 0


def test_figures_of_levels_are_put_together_from_all_tasks(tmp_path, client):
    """Along time and level, which tasks cut, and over parts of a slice."""
    values = smooth((4, 3, 16, 20)) * np.array([1, 10, 100], "f4")[:, None, None]
    ds = xr.Dataset({"q": (("time", "member", "lat", "lon"), values, {"units": "g"})})
    codec = MoECCodec(max_error=0.2, effort="fast")
    back = convert(ds, tmp_path / "d.zarr", codec, chunks={"time": 2, "lat": 8}, client=client)
    table = open_quality(tmp_path / "d.zarr")["q"]
    error = back.q.values.astype("f8") - values
    assert table.rmse_by_slice.dims == ("time", "member")
    for name, expected in {
        "rmse_by_slice": np.sqrt((error**2).mean((2, 3))),
        "max_error_by_slice": abs(error).max((2, 3)),
        "low_by_slice": values.min((2, 3)),
        "high_by_slice": values.max((2, 3)),
        "magnitude_by_slice": abs(values).mean((2, 3)),
        "rmse_by_index": np.sqrt((error**2).mean((1, 2, 3))),
        "max_error_by_index": abs(error).max((1, 2, 3)),
        "bias_by_index": error.mean((1, 2, 3)),
        "high_by_index": values.max((1, 2, 3)),
    }.items():
        np.testing.assert_allclose(table[name].values, expected, rtol=1e-4, atol=1e-6, err_msg=name)
    assert table.rmse_by_slice.attrs["units"] == "g"
