"""Encodings with which xarray writes datasets, and what is read again."""

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import BudgetError, MoECCodec, MoECError, MoECSerializer, UnsupportedArrayError
from tests.support.fields import psnr, rough, smooth
from tests.support.fits import fast
from tests.support.related import NAMES, related

xr = pytest.importorskip("xarray")

CODEC = MoECCodec(ratio=10, effort="fast")
SHAPE = (4, 12, 16)
PATCH = (slice(1, 3), slice(3, 6), slice(5, 9))  # where values are missing
DIMS = ("time", "lat", "lon")


def coordinates(times=SHAPE[0]):
    return {
        "time": np.datetime64("2026-01-01", "ns") + np.arange(times) * np.timedelta64(1, "h"),
        "lat": np.linspace(-60, 60, SHAPE[1]),
        "lon": np.linspace(0, 15, SHAPE[2]),
    }


@pytest.fixture
def ds():
    """A dataset with a field and all that is not to be compressed."""
    data = rough(SHAPE)
    data[PATCH] = np.nan
    flags = (smooth(SHAPE) > 50).astype("i4")
    return xr.Dataset(
        {
            "temperature": (DIMS, data, {"units": "K"}),
            "quality": (DIMS, flags, {"flag_values": [0, 1], "flag_meanings": "bad good"}),
            "land": (DIMS, flags.astype(bool)),
            "observed": (DIMS, smooth(SHAPE, "i8"), {"units": "seconds since 1970-01-01"}),
            "forecast": (DIMS, smooth(SHAPE, "i8").astype("m8[s]").astype("m8[ns]")),
            "station": ("lat", np.array([f"s{i}" for i in range(SHAPE[1])])),
            "area": ("lat", np.cos(np.linspace(-1, 1, SHAPE[1]))),
        },
        coords={**coordinates(), "height": (("lat", "lon"), smooth(SHAPE[1:]))},
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
def test_only_fields_are_compressed(ds, tmp_path, zarr_format):
    entries = moec_zarr.encoding(ds, CODEC, zarr_format=zarr_format)
    assert list(entries) == ["temperature"]
    decoding = {"decode_timedelta": True}
    stored = ds.drop_vars("station")
    stored.to_zarr(tmp_path, zarr_format=zarr_format, encoding=entries, consolidated=False)
    again = xr.open_zarr(tmp_path, zarr_format=zarr_format, consolidated=False, **decoding).load()
    xr.testing.assert_identical(again.drop_vars("temperature"), xr.decode_cf(stored).drop_vars("temperature"))
    field = ds.temperature.values
    assert again.temperature.dtype == field.dtype
    assert again.temperature.attrs == {"units": "K"}
    np.testing.assert_array_equal(np.isnan(again.temperature), np.isnan(field))
    assert psnr(field, again.temperature.values) > 25


def test_entries_of_each_format(ds):
    (entry,) = moec_zarr.encoding(ds, CODEC, zarr_format=2).values()
    assert entry == {"chunks": SHAPE, "compressors": [CODEC], "filters": None}
    (entry,) = moec_zarr.encoding(ds, CODEC).values()
    serializer = MoECSerializer(ratio=10, effort="fast")
    assert entry == {"chunks": SHAPE, "serializer": serializer, "compressors": None, "filters": None}


def test_variables_can_be_named(ds):
    assert list(moec_zarr.encoding(ds, CODEC, variables=["quality", "temperature"])) == [
        "quality",
        "temperature",
    ]
    assert list(moec_zarr.encoding(ds, CODEC, variables=[])) == []
    other = MoECCodec(psnr=40)
    entries = moec_zarr.encoding(ds, {"temperature": CODEC, "quality": other}, zarr_format=2)
    assert {name: entry["compressors"] for name, entry in entries.items()} == {
        "temperature": [CODEC],
        "quality": [other],
    }
    with pytest.raises(MoECError, match=r"'wind' is not a data variable.*'temperature'"):
        moec_zarr.encoding(ds, CODEC, variables=["wind"])
    with pytest.raises(UnsupportedArrayError, match="variable 'land'"):
        moec_zarr.encoding(ds, CODEC, variables=["land"])
    with pytest.raises(MoECError, match="must be a MoECCodec"):
        moec_zarr.encoding(ds, MoECSerializer(ratio=10))
    with pytest.raises(MoECError, match="zarr_format"):
        moec_zarr.encoding(ds, CODEC, zarr_format=4)


def test_data_array(ds, tmp_path):
    entries = moec_zarr.encoding(ds.temperature, CODEC)
    ds.temperature.to_zarr(tmp_path, encoding=entries)
    assert psnr(ds.temperature.values, xr.open_zarr(tmp_path).temperature.values) > 25
    with pytest.raises(MoECError, match=r"\.rename\(name\)"):
        moec_zarr.encoding(ds.temperature.rename(None), CODEC)


def test_dask_chunks_append_and_region(tmp_path):
    pytest.importorskip("dask")
    data = rough((12, *SHAPE[1:]))

    def part(start, stop):
        return xr.Dataset({"t": (DIMS, data[start:stop])}, coordinates(stop - start)).chunk(time=4)

    first = part(0, 8)
    first.to_zarr(tmp_path, encoding=moec_zarr.encoding(first, CODEC))
    part(8, 12).to_zarr(tmp_path, append_dim="time")
    again = xr.open_zarr(tmp_path)
    assert again.t.encoding["chunks"] == again.t.data.chunksize == SHAPE
    assert isinstance(again.t.encoding["serializer"], MoECSerializer)
    for start in (0, 4, 8):
        assert psnr(data[start : start + 4], again.t[start : start + 4].values) > 25
    flat = np.full(SHAPE, 7.0, "f4")
    xr.Dataset({"t": (DIMS, flat)}).to_zarr(tmp_path, region={"time": slice(4, 8)})
    np.testing.assert_allclose(xr.open_zarr(tmp_path).t[4:8], flat, rtol=1e-5)


def test_chunks_are_aligned_with_dask(ds):
    pytest.importorskip("dask")
    (entry,) = moec_zarr.encoding(ds[["temperature"]].chunk(time=2), MoECCodec(ratio=5)).values()
    assert entry["chunks"] == (2, 12, 16)
    with pytest.raises(BudgetError, match=r"'temperature'.*ds\.chunk\({'time': 4, 'lat': 12, 'lon': 16}\)"):
        moec_zarr.encoding(ds.chunk(time=1), CODEC)


def reopened(ds, path, **kwargs):
    ds.to_zarr(path, **kwargs)
    return xr.open_zarr(path, chunks=None)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (3, 3), (2, 2)])
def test_codecs_of_the_source_are_replaced(ds, tmp_path, before, after):
    source = reopened(ds[["temperature", "area"]], tmp_path / "a", zarr_format=before)
    again = reopened(
        source, tmp_path / "b", zarr_format=after, encoding=moec_zarr.encoding(source, CODEC, after)
    )
    assert psnr(ds.temperature.values, again.temperature.values) > 25
    xr.testing.assert_identical(again.drop_vars("temperature").load(), source.drop_vars("temperature").load())


def test_a_variable_is_not_compressed_again_unless_asked(tmp_path):
    ds = xr.Dataset({name: (DIMS, rough(SHAPE)) for name in "ab"})
    lossy = reopened(ds, tmp_path / "a", encoding=moec_zarr.encoding(ds, CODEC))
    entries = moec_zarr.encoding(lossy, CODEC, variables=["a"])
    with pytest.warns(UserWarning, match="lose accuracy again"):
        again = reopened(lossy, tmp_path / "b", encoding=entries)
    xr.testing.assert_identical(again.b.load(), lossy.b.load())
    assert not isinstance(again.b.encoding["serializer"], MoECSerializer)
    assert isinstance(again.a.encoding["serializer"], MoECSerializer)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_packed_values_are_stored_as_they_were_unpacked(ds, tmp_path, zarr_format):
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 20.0, "_FillValue": -32768}
    source = reopened(ds[["temperature"]], tmp_path / "a", encoding={"temperature": packing})
    assert source.temperature.encoding["dtype"] == np.dtype("i2")
    entries = moec_zarr.encoding(source, CODEC, zarr_format)
    again = reopened(source, tmp_path / "b", zarr_format=zarr_format, encoding=entries)
    # xarray unpacks to float64, and float32 tells all steps of 0.01 apart.
    assert source.temperature.dtype == np.float64
    assert again.temperature.dtype == again.temperature.encoding["dtype"] == np.float32
    assert psnr(source.temperature.values, again.temperature.values) > 25
    np.testing.assert_array_equal(np.isnan(again.temperature), np.isnan(source.temperature))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("where", ["attrs", "encoding"])
@pytest.mark.parametrize(("dtype", "sentinel"), [("f4", 9.969209968386869e36), ("i2", -999)])
def test_a_sentinel_is_kept_exactly(tmp_path, zarr_format, where, dtype, sentinel):
    values = rough(SHAPE, dtype)
    values[PATCH] = sentinel
    raw = xr.Dataset({"v": (DIMS, values, {"_FillValue": values.dtype.type(sentinel)})})
    source = raw if where == "attrs" else xr.decode_cf(raw)
    if where == "encoding" and dtype == "i2":
        source = raw.copy()
        source["v"].encoding["_FillValue"] = source["v"].attrs.pop("_FillValue")
    entries = moec_zarr.encoding(source, MoECCodec(**fast(values, 300)), zarr_format)
    codec = entries["v"]["compressors"][0] if zarr_format == 2 else entries["v"]["serializer"]
    assert codec.missing == values.dtype.type(sentinel)
    source.to_zarr(tmp_path, zarr_format=zarr_format, encoding=entries)
    stored = xr.open_zarr(tmp_path, mask_and_scale=False, chunks=None).v
    assert stored.dtype == values.dtype
    assert stored.attrs["_FillValue"] == values.dtype.type(sentinel)
    missing = values == values.dtype.type(sentinel)
    np.testing.assert_array_equal(stored.values == values.dtype.type(sentinel), missing)
    np.testing.assert_array_equal(np.isnan(xr.open_zarr(tmp_path, chunks=None).v), missing)
    assert psnr(np.where(missing, np.nan, values), stored.values) > 25


def test_missing_of_the_codec_wins(ds):
    ds.temperature.encoding["_FillValue"] = -1.0
    (entry,) = moec_zarr.encoding(ds, MoECCodec(ratio=10, missing=-2), zarr_format=2).values()
    assert entry["compressors"][0].missing == -2


def test_a_codec_for_all_others_and_variables_that_stay_lossless(ds):
    ds["humidity"], ds["rain"] = ds.temperature * 2, ds.temperature * 3
    other = MoECCodec(psnr=40)
    entries = moec_zarr.encoding(ds, {"*": CODEC, "rain": other, "humidity": None}, zarr_format=2)
    assert {name: entry["compressors"] for name, entry in entries.items()} == {
        "temperature": [CODEC],
        "rain": [other],
    }
    named = moec_zarr.encoding(ds, {"*": CODEC, "rain": other}, 2, variables=["humidity", "rain"])
    assert {name: entry["compressors"] for name, entry in named.items()} == {
        "humidity": [CODEC],
        "rain": [other],
    }
    with pytest.raises(MoECError, match="'wind' is not a data variable"):
        moec_zarr.encoding(ds, {"*": CODEC, "wind": None})
    with pytest.raises(MoECError, match="'rain' is not a data variable with a codec"):
        moec_zarr.encoding(ds, {"rain": None}, variables=["rain"])


@pytest.fixture
def tree(ds):
    fine = xr.Dataset({"current": (DIMS, rough(SHAPE)), "wet": (DIMS, np.ones(SHAPE, "i1"))})
    root = xr.Dataset({"temperature": ds.temperature, "quality": ds.quality}, ds.coords)
    return xr.DataTree.from_dict({"/": root, "/ocean/fine": fine, "/empty": xr.Dataset()})


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_tree_is_written_with_its_encoding(tree, tmp_path, zarr_format):
    entries = moec_zarr.encoding(tree, CODEC, zarr_format)
    assert {path: list(each) for path, each in entries.items()} == {
        "/": ["temperature"],
        "/ocean/fine": ["current"],
    }
    tree.to_zarr(tmp_path, zarr_format=zarr_format, encoding=entries)
    again = xr.open_datatree(tmp_path, engine="zarr")
    np.testing.assert_array_equal(again["ocean/fine/wet"], tree["ocean/fine/wet"])
    for name in ("temperature", "ocean/fine/current"):
        assert psnr(tree[name].values, again[name].values) > 25
        assert again[name].values[0, 0, 0] != tree[name].values[0, 0, 0]
    # What was read from it is not compressed again unless it is asked for.
    assert "serializer" not in str(moec_zarr.encoding(again, CODEC, zarr_format, variables=[]))
    kept = moec_zarr.encoding(again, {"/temperature": None}, zarr_format)
    assert {path: list(each) for path, each in kept.items()} == {
        "/": ["temperature"],
        "/ocean/fine": ["current"],
    }
    again.to_zarr(tmp_path / "copy", zarr_format=zarr_format, encoding=kept)
    xr.testing.assert_identical(xr.open_datatree(tmp_path / "copy", engine="zarr").load(), again.load())


def test_variables_of_a_tree_are_named_by_their_paths(tree):
    other = MoECCodec(psnr=40)
    entries = moec_zarr.encoding(tree, {"*": CODEC, "/ocean/fine/current": other}, zarr_format=2)
    assert entries["/"]["temperature"]["compressors"] == [CODEC]
    assert entries["/ocean/fine"]["current"]["compressors"] == [other]
    assert list(moec_zarr.encoding(tree, CODEC, variables=["/ocean/fine/wet"])) == ["/ocean/fine"]
    for wrong in ({"variables": ["current"]}, {"codec": {"/ocean/current": CODEC}}):
        with pytest.raises(MoECError, match="'temperature', 'quality', 'ocean/fine/current'"):
            moec_zarr.encoding(tree, **{"codec": CODEC} | wrong)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("decode_coords", [True, "all"])
def test_names_of_related_variables_are_kept(tmp_path, zarr_format, decode_coords):
    raw = related()
    source = xr.decode_cf(raw, decode_coords=decode_coords)
    assert ("grid_mapping" in source.tas.encoding) == (decode_coords == "all")
    path, copy = tmp_path / "a.zarr", tmp_path / "b.zarr"
    source.to_zarr(path, zarr_format=zarr_format, encoding=moec_zarr.encoding(source, CODEC, zarr_format))
    lossy = xr.open_zarr(path, decode_coords=decode_coords, chunks=None)
    # Without a codec now: what is reset keeps the names as well.
    kept = moec_zarr.encoding(lossy, {"tas": None}, zarr_format)
    assert list(kept) == ["tas"]
    lossy.to_zarr(copy, zarr_format=zarr_format, encoding=kept)
    for written in (path, copy):
        group = zarr.open_group(written, mode="r")
        attrs = {key: value for key, value in group["tas"].attrs.items() if key in NAMES}
        assert attrs == NAMES
        assert {name: group[name].attrs["bounds"] for name in ("time", "lat", "lon")} == {
            "time": "time_bnds",
            "lat": "lat_bnds",
            "lon": "lon_bnds",
        }
        again = xr.open_zarr(written, decode_coords="all")
        coords = {"crs", "areacella", "height", "lat2d", "time_bnds", "lat_bnds", "lon_bnds"}
        assert coords <= set(again.coords)
        assert again.tas.encoding["grid_mapping"] == "crs"
        assert again.crs.attrs == raw.crs.attrs


def test_a_grid_mapping_in_the_attributes_too_is_written_once(tmp_path):
    source = xr.decode_cf(related(), decode_coords="all")
    source.tas.attrs["grid_mapping"] = "crs"
    source.to_zarr(tmp_path, encoding=moec_zarr.encoding(source, CODEC))
    assert zarr.open_group(tmp_path, mode="r")["tas"].attrs["grid_mapping"] == "crs"
