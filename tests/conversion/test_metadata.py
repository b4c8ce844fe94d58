"""Names, types and attributes of a source are those of its archive, or are refused before any work."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

from moec_zarr import MoECError, UnsupportedArrayError, convert, encoding, migrate, verify
from moec_zarr.archive.records import Record, read_records, write_record
from moec_zarr.archive.stored import hide_expected_warnings
from moec_zarr.conversion.plan.source import open_source
from moec_zarr.quality import Quality
from moec_zarr.statistics import Statistics
from tests.conversion.conversions import FAST
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")
netcdf = pytest.importorskip("netCDF4")

SHAPE = (4, 12, 16)
DIMS = ("time", "lat", "lon")


def dataset(**variables):
    ds = xr.Dataset({"t": (DIMS, smooth(SHAPE)), **variables})
    return ds.assign_coords(time=np.arange(4), lat=np.linspace(-60, 60, 12))


def converted(source, dst, client, **options):
    convert(source, dst, FAST, client=client, **{"chunks": {"time": 2}} | options)
    return xr.open_zarr(dst, consolidated=False)


def test_a_dataset_that_cannot_be_stored_leaves_nothing_behind(tmp_path, client):
    ds = dataset(o=("lat", np.array([1, "a", 2.5] * 4, dtype=object)))
    with pytest.raises(UnsupportedArrayError, match="float, int, str"):
        converted(ds, tmp_path / "d.zarr", client)
    assert not (tmp_path / "d.zarr").exists()


def test_arrays_of_any_length_in_a_file_leave_nothing_behind(tmp_path, client):
    dataset().to_netcdf(tmp_path / "s.nc", engine="netcdf4")
    with netcdf.Dataset(tmp_path / "s.nc", "a") as file:
        made = file.createVariable("ragged", file.createVLType(np.int32, "list"), ("time",))
        for i in range(4):
            made[i] = np.arange(i + 1, dtype="i4")
    with pytest.raises(UnsupportedArrayError, match="'ragged' holds Python objects of type ndarray, of any"):
        converted(tmp_path / "s.nc", tmp_path / "d.zarr", client)
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
@hide_expected_warnings()
def test_text_of_any_length_is_verified_and_appended_to(tmp_path, client, zarr_format):
    text = np.array(["", "é", "a long one", "b"], dtype=np.dtypes.StringDType())
    ds = dataset(name=("time", text))
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=False)
    dst = tmp_path / "d.zarr"
    converted(tmp_path / "s.zarr", dst, client, zarr_format=zarr_format)
    assert verify(dst, tmp_path / "s.zarr").ok
    convert(ds.assign_coords(time=np.arange(4, 8)), dst, client=client, append="time")
    np.testing.assert_array_equal(xr.open_zarr(dst, consolidated=False)["name"].values, [*text, *text])


# ------------------------------------------------------------------------------- attributes


def strict(text):
    """Parse JSON as its specification has it; Python also takes NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def attributes(store):
    """What a store holds, by variable, and the group's as "": read without zarr and xarray."""
    found = {}
    for path in [store, *(each for each in sorted(store.iterdir()) if each.is_dir())]:
        name = "" if path == store else path.name
        if (path / "zarr.json").exists():
            found[name] = strict((path / "zarr.json").read_text())["attributes"]
        elif (path / ".zattrs").exists():
            found[name] = strict((path / ".zattrs").read_text())
            found[name].pop("_ARRAY_DIMENSIONS", None)
    return found


# Of a source, and as JSON has it.
ATTRIBUTES = {
    "text": ("°C, ü, 温度", "°C, ü, 温度"),
    "empty": ("", ""),
    "integer": (np.int16(-3), -3),
    "large": (np.int64(2**62), 2**62),
    "unsigned": (np.array([0, 255], "u1"), [0, 255]),
    "single": (np.float32(0.1), float(np.float32(0.1))),
    "double": (0.1, 0.1),
    "vector": (np.array([1.5, 2.5], "f4"), [1.5, 2.5]),
    "words": (["a", "é"], ["a", "é"]),
    "compression_level": (4, 4),
    "compression_note": ("bit-groomed", "bit-groomed"),
    "compression_ratio": (3.5, 3.5),
    "quantization_nsd": (3, 3),
    "not_a_number": (np.float64("nan"), "NaN"),
    "range": (np.array([-np.inf, np.inf], "f4"), ["-Infinity", "Infinity"]),
    "history": ("made", None),  # of the group, it is added to
}


@pytest.fixture
def source(tmp_path):
    """A file with attributes of all kinds on everything, and what is commonly beside a field."""
    path = tmp_path / "s.nc"
    with netcdf.Dataset(path, "w") as file:
        for name, length in zip(DIMS, SHAPE, strict=True):
            file.createDimension(name, length)
        file.createDimension("nv", 2)
        bare = {"lat": ("lat",), "lon": ("lon",), "lat_bnds": ("lat", "nv"), "ps": ("lat", "lon")}
        for name, dims in {"time": ("time",), **bare, "t": DIMS, "area": ("lat", "lon"), "crs": ()}.items():
            made = file.createVariable(name, "i4" if name == "crs" else "f4", dims)
            made[...] = smooth(SHAPE) if name == "t" else np.arange(made.size).reshape(made.shape)
            for key, (value, _) in ATTRIBUTES.items():
                made.setncattr(key, value)
        for key, (value, _) in ATTRIBUTES.items():
            file.setncattr(key, value)
        file["lat"].bounds = "lat_bnds"
        file["t"].coordinates = "area"
        file["t"].grid_mapping = "crs"
    return path


def expected(name):
    kept = {key: plain for key, (_, plain) in ATTRIBUTES.items()} | {"history": "made"}
    return kept | {"lat": {"bounds": "lat_bnds"}, "t": {"coordinates": "area", "grid_mapping": "crs"}}.get(
        name, {}
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_attributes_are_those_of_the_source_one_for_one(source, tmp_path, client, zarr_format, caplog):
    dst = tmp_path / "d.zarr"
    with converted(source, dst, client, zarr_format=zarr_format) as back:
        found = attributes(dst)
        filled = {name for name, var in back.variables.items() if "_FillValue" in var.encoding}
    history = found[""].pop("history")
    assert history.endswith("\nmade")
    assert found.pop("") == {key: value for key, value in expected("").items() if key != "history"} | {
        "moec_zarr_status": "complete",
        "moec_zarr_file_bytes": source.stat().st_size,
    }
    ours = {key for key in found["t"] if key.startswith("moec_zarr_")}
    assert ours == {
        f"moec_zarr_{key}"
        for key in ("algorithm", "implementation", "reading", "codec", "ratio", "psnr", "max_error")
    }
    for name, attrs in found.items():
        kept = {key: value for key, value in attrs.items() if key not in ours}
        if name == "t" and zarr_format == 3:
            assert kept.pop("_FillValue") == "AAAAAAAA+H8="  # NaN
        assert kept == expected(name), name
    assert filled == {"t"}
    assert "in attributes become words: not_a_number of '" in caplog.text
    assert "and 12 more" in caplog.text  # two of eight variables and of the dataset, less six
    assert verify(dst, source).ok


def test_all_that_is_written_is_json_to_every_parser(source, tmp_path, client):
    for zarr_format in (2, 3):
        dst = tmp_path / f"{zarr_format}.zarr"
        converted(source, dst, client, zarr_format=zarr_format).close()
        names = [each for each in dst.rglob("*") if each.suffix == ".json" or each.name.startswith(".z")]
        assert len(names) > 10
        for path in names:
            strict(path.read_text())


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_missing_value_of_nan_is_a_fill_value_of_nan(tmp_path, client, zarr_format):
    values = np.where(np.arange(12) % 3, np.arange(12.0), np.nan)
    ds = dataset(small=("lat", values), several=("lat", values))
    ds.small.encoding = {"missing_value": np.nan}
    ds.several.encoding = {"missing_value": np.array([np.nan, -9.0])}
    ds.t.encoding = {"missing_value": np.float32("nan"), "_FillValue": np.float32("nan")}
    dst = tmp_path / "d.zarr"
    with converted(ds, dst, client, zarr_format=zarr_format) as back:
        attributes(dst)
        np.testing.assert_array_equal(back.small, values)
        assert np.isnan(back.small.encoding["_FillValue"])
        back.load().drop_encoding().to_netcdf(tmp_path / "again.nc")
    assert verify(dst, ds).ok


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_append_leaves_attributes_as_they_are(source, tmp_path, client, zarr_format):
    dst, more = tmp_path / "d.zarr", tmp_path / "more.nc"
    converted(source, dst, client, zarr_format=zarr_format).close()
    before = attributes(dst)
    shutil.copy(source, more)
    with netcdf.Dataset(more, "a") as file:
        file["time"][:] = np.arange(4, 8)
    convert(more, dst, client=client, append="time")
    after = attributes(dst)
    for found in (before, after):
        found[""].pop("history")
        found[""].pop("moec_zarr_file_bytes")
        found["t"] = {key: each for key, each in found["t"].items() if not key.startswith("moec_zarr_")}
    assert before == after
    assert verify(dst, more).ok


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_attributes_of_joined_files_are_those_of_the_first(source, tmp_path, client, zarr_format):
    shutil.copy(source, tmp_path / "t.nc")
    with netcdf.Dataset(tmp_path / "t.nc", "a") as file:
        file["time"][:] = np.arange(4, 8)
    dst = tmp_path / "d.zarr"
    with converted(f"{tmp_path}/[st].nc", dst, client, zarr_format=zarr_format) as back:
        assert back.sizes["time"] == 8
    for name, attrs in attributes(dst).items():
        kept = {key: value for key, value in attrs.items() if not key.startswith("moec_zarr_")}
        if name != "t":
            assert kept.keys() == expected(name).keys(), name


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_migration_writes_json_to_every_parser(tmp_path, zarr_format):
    ds = dataset(small=("lat", np.arange(12.0), {"bad": np.nan, "range": [-np.inf, 1.0]}))
    ds = ds.assign_attrs(odd=np.inf)
    ds.small.encoding = {"missing_value": np.nan, "_FillValue": np.nan}
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format)
    migrate(tmp_path / "s.zarr", 5 - zarr_format)
    found = attributes(tmp_path / "s.zarr")
    assert found[""] == {"odd": "Infinity"}
    kept = {key: value for key, value in found["small"].items() if key != "_FillValue"}
    assert kept == {"bad": "NaN", "range": ["-Infinity", 1.0]}
    with xr.open_zarr(tmp_path / "s.zarr") as back:
        np.testing.assert_array_equal(back.small, np.arange(12.0))


def test_coordinates_of_a_dataset_in_memory_stay_coordinates(tmp_path, client):
    ds = dataset(lat_bnds=(("lat", "nv"), np.zeros((12, 2))), other=("lat", np.zeros(12)))
    ds = ds.assign_coords(height=("lat", np.arange(12.0)), run=((), 3.0))
    ds.lat.attrs["bounds"] = "lat_bnds"
    with converted(ds, tmp_path / "d.zarr", client) as back:
        assert set(back.coords) == set(ds.coords)
        found = attributes(tmp_path / "d.zarr")
    assert found["t"]["coordinates"] == found["other"]["coordinates"] == "height run"
    assert "coordinates" not in found["lat_bnds"]


def test_what_no_store_can_hold_is_named_before_any_work(tmp_path, client):
    for value, kind in (
        (np.datetime64("2000-01-01"), "datetime64"),
        (1j, "complex"),
        (np.array([1j]), "ndarray"),
        (np.dtype("f4"), "Float32DType"),
        ({1: 2}, "dict"),
        ([object()], "object"),
    ):
        for ds in (dataset().assign_attrs(odd=value), dataset(n=("lat", np.zeros(12), {"odd": value}))):
            with pytest.raises(
                MoECError, match=rf"attribute 'odd' of ('n'|the dataset) is .* of type {kind}"
            ):
                converted(ds, tmp_path / "d.zarr", client)
    ds = dataset()
    ds.lat.attrs[5] = "x"
    with pytest.raises(MoECError, match="names of attributes are text, got 5 of type int in 'lat'"):
        converted(ds, tmp_path / "d.zarr", client)
    assert not (tmp_path / "d.zarr").exists()


def test_bytes_and_text_of_other_codings_become_text(tmp_path, client):
    ds = dataset().assign_attrs(
        utf=b"\xc2\xb0C", latin=b"\xb0C", escaped="\udcb0C", nested={"a": [np.float32(1), b"x"]},
        numpy=np.array([b"a", b"bb"]), none=None, flag=np.True_, vector=np.zeros(0), matrix=np.eye(2),
    )  # fmt: skip
    with converted(ds, tmp_path / "d.zarr", client):
        found = attributes(tmp_path / "d.zarr")[""]
    assert {key: found[key] for key in ds.attrs} == {
        "utf": "°C", "latin": "°C", "escaped": "°C", "nested": {"a": [1.0, "x"]}, "numpy": ["a", "bb"],
        "none": None, "flag": True, "vector": [], "matrix": [[1.0, 0.0], [0.0, 1.0]],
    }  # fmt: skip


def test_figures_of_a_compressed_source_do_not_stay(tmp_path, client):
    """Those of this package, and of its older versions, speak of another stream."""
    old = {
        "compression_implementation": "moec_zarr 0.0.1",
        "compression_psnr": 80.0,
        "compression_note": "mine",
    }
    ds = dataset(small=("lat", np.arange(12.0), old | {"moec_zarr_ratio": 9}))
    ds.t.attrs = old | {"moec_zarr_bound": 3}
    with converted(ds, tmp_path / "d.zarr", client):
        found = attributes(tmp_path / "d.zarr")
    assert found["small"] == {"compression_note": "mine"}
    assert not {"moec_zarr_bound", "compression_psnr"} & found["t"].keys()
    assert found["t"]["compression_note"] == "mine"


def test_figures_that_are_infinite_are_recorded_in_json(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(2,), dtype="f8")
    quality = Quality(n=2, n_valid=2, low=-1e308, high=1e308, rmse=np.inf, max_error=np.inf)
    statistics = Statistics(bias=np.nan, percentiles=(1.0, np.inf), power=(-np.inf,), decoded_power=(0.0,))
    record = Record(
        variable="a", index=(0,), bytes_in=16, bytes_out=0, quality=quality, seconds=1.0, attempt=1,
        checksum="", statistics=statistics,
    )  # fmt: skip
    write_record(array, record, "plan")
    strict((tmp_path / "a/.moec_zarr/0.json").read_text())
    ((_, found),) = read_records(array, "a", lambda index: "plan")[0].items()
    assert found.quality == quality
    assert np.isnan(found.statistics.bias)
    assert found.statistics.percentiles == (1.0, np.inf)
    assert found.statistics.power == (-np.inf,)


# ------------------------------------------------------------------------------- enumerations


def cloud(path, names, values=None, **attrs):
    """A file with an enumeration, and a field beside it."""
    with netcdf.Dataset(path, "w") as file:
        for name, length in zip(DIMS, SHAPE, strict=True):
            file.createDimension(name, length)
        file.createVariable("t", "f4", DIMS)[:] = smooth(SHAPE)
        kind = file.createEnumType(np.uint8, "cloud_t", names)
        made = file.createVariable("cloud", kind, DIMS, fill_value=255)
        made[:] = np.resize(list(names.values()) if values is None else values, SHAPE)
        made.setncatts(attrs)
    return path


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_names_of_an_enumeration_become_flags(tmp_path, client, engine):
    names = {f"class {i}": 2 * i for i in range(100)} | {"missing": 255}
    path = cloud(tmp_path / "s.nc", names)
    source = path if engine == "netcdf4" else xr.open_dataset(path, engine=engine)
    with converted(source, tmp_path / "d.zarr", client) as back:
        assert back.cloud.attrs["flag_meanings"].split() == [f"class_{i}" for i in range(100)] + ["missing"]
        assert back.cloud.attrs["flag_values"] == [*range(0, 200, 2), 255]
        with netcdf.Dataset(path) as file:
            file.set_auto_mask(False)
            np.testing.assert_array_equal(back.cloud.fillna(255), file["cloud"][:])
    assert "moec_zarr_codec" not in attributes(tmp_path / "d.zarr")["cloud"]


def test_an_enumeration_is_never_approximated(tmp_path):
    with xr.open_dataset(
        cloud(tmp_path / "s.nc", {f"c{i}": 2 * i for i in range(100)} | {"missing": 255})
    ) as ds:
        assert set(encoding(ds, FAST)) == {"t"}


def test_flags_that_a_source_has_itself_are_kept(tmp_path):
    path = cloud(tmp_path / "s.nc", {"a": 0, "b": 1, "missing": 255}, flag_meanings="x y", flag_values=[0, 1])
    with open_source(path) as ds:
        assert ds.cloud.attrs["flag_meanings"] == "x y"


def test_files_must_agree_in_what_their_values_mean(tmp_path):
    one = dataset(cloud=("time", np.arange(4, dtype="i1")))
    one.t.attrs["units"] = "K"
    one.cloud.attrs |= {"flag_values": np.arange(4, dtype="i1"), "flag_meanings": "a b c d"}
    other = one.assign_coords(time=np.arange(4, 8)).copy()
    for name, change in (
        ("t", {"units": "degC"}),
        ("cloud", {"flag_meanings": "d c b a"}),
        ("cloud", {"flag_values": np.arange(1, 5, dtype="i1")}),
    ):
        second = other.copy(deep=True)
        second[name].attrs |= change
        one.to_netcdf(tmp_path / "a.nc")
        second.to_netcdf(tmp_path / "b.nc")
        (key,) = change
        words = rf"{name!r} has {key} .* in .*a\.nc and .* in .*b\.nc"
        with pytest.raises(MoECError, match=words), open_source(f"{tmp_path}/[ab].nc"):
            pass
    other.to_netcdf(tmp_path / "b.nc")
    with open_source(f"{tmp_path}/[ab].nc") as ds:
        assert ds.sizes["time"] == 8
