"""From one zarr format to the other, as zarr and xarray read both."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr
from numcodecs import LZ4, Blosc, Delta, GZip, Zstd
from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

import moec_zarr
from moec_zarr import MoECCodec, MoECError, migrate
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import DIMS, FAST, dataset, records, stored
from tests.support.fields import rough

xr = pytest.importorskip("xarray")
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")

SHAPE = (4, 12, 16)


def streams(path):
    """All chunks, whatever they are called."""
    return sorted(
        file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.name not in (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
    )


def formats(path):
    """Names of the metadata of each node."""
    return {file.name for file in path.rglob("*") if file.name.startswith(".z") or file.name == "zarr.json"}


@pytest.fixture
def kinds():
    """Of each kind of variable that xarray writes."""
    ds = dataset()
    ds["packed"] = (DIMS, np.round(rough(ds.a.shape), 1))
    ds["packed"].encoding = {"dtype": "i2", "scale_factor": 0.1, "_FillValue": np.int16(-999)}
    ds["packed"][0, 0] = np.nan
    ds["land"] = (DIMS[1:], ds.height.values > 50)
    ds["zeros"] = (DIMS, np.zeros(ds.a.shape, "i4"))  # no chunk of it is stored
    ds["word"] = ("lat", np.array(["", "one", "zwei"] * 4, object))
    ds["crs"] = ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"})
    ds["scale"] = ((), 2.5)
    ds["complex"] = (DIMS[1:], ds.height.values + 1j)
    return ds


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_xarray_reads_the_same_and_streams_stay(kinds, tmp_path, zarr_format, consolidated):
    path = tmp_path / "s.zarr"
    codec = MoECCodec(ratio=5, effort="fast")
    kinds.to_zarr(
        path, zarr_format=zarr_format, consolidated=consolidated,
        encoding=moec_zarr.encoding(kinds, codec, zarr_format, ["a", "b"]),
    )  # fmt: skip
    before = xr.open_zarr(path, consolidated=consolidated).load()
    bytes_before, names = streams(path), stored(path)
    other = 5 - zarr_format
    changed = migrate(path, other)
    assert ("zarr.json" in formats(path), ".zgroup" in formats(path)) == (other == 3, other == 2)
    assert set(changed) == {"", *kinds.variables}
    after = xr.open_zarr(path, consolidated=consolidated).load()
    xr.testing.assert_identical(after, before)
    assert streams(path) == bytes_before
    for name in kinds.variables:
        array = zarr.open_array(path, path=name, mode="r")
        assert array.metadata.zarr_format == other
    assert moec_zarr.adapters.find.codec_of(zarr.open_array(path, path="a", mode="r")).ratio == 5
    # And back: all is as it was, names of chunks included where format 3 could keep them.
    migrate(path, zarr_format)
    xr.testing.assert_identical(xr.open_zarr(path, consolidated=consolidated).load(), before)
    assert streams(path) == bytes_before
    if zarr_format == 2:
        assert stored(path) == names
    assert migrate(path, zarr_format) == ()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_values_are_those_of_a_dataset_that_was_written_in_the_format(kinds, tmp_path, zarr_format):
    """What is missing is missing, and encodings are the same."""
    ds = kinds.drop_vars(["a", "b"])
    ds.to_zarr(tmp_path / "a", zarr_format=5 - zarr_format, consolidated=False)
    ds.to_zarr(tmp_path / "b", zarr_format=zarr_format, consolidated=False)
    migrate(tmp_path / "a", zarr_format)
    found, wanted = (xr.open_zarr(tmp_path / name, consolidated=False, chunks=None).load() for name in "ab")
    xr.testing.assert_identical(found, wanted)
    for name in wanted.variables:
        a, b = found[name].encoding, wanted[name].encoding
        for key in {"scale_factor", "dtype", "units", "_FillValue"} & (a.keys() | b.keys()):
            np.testing.assert_equal(a.get(key), b.get(key), err_msg=f"{name} {key}")


V2 = [None, Zstd(level=3), GZip(level=2), *(Blosc(cname="lz4", shuffle=shuffle) for shuffle in (-1, 0, 1, 2))]


@pytest.mark.parametrize("compressor", V2, ids=str)
@pytest.mark.parametrize("dtype", ["<i4", ">f8", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_codecs_of_format_2(tmp_path, compressor, dtype, order):
    values = rough((5, 7, 9), dtype)
    array = zarr.create_array(
        tmp_path, shape=values.shape, chunks=(3, 4, 9), dtype=dtype, zarr_format=2, order=order,
        compressors=compressor, filters=None, attributes={"x": 1},
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )  # fmt: skip
    array[:] = values
    before = stored(tmp_path)
    assert migrate(tmp_path, 3) == ("",)
    again = zarr.open_array(tmp_path, mode="r")
    assert (again.metadata.zarr_format, dict(again.attrs)) == (3, {"x": 1})
    np.testing.assert_array_equal(again[:], values)
    assert stored(tmp_path) == before
    migrate(tmp_path, 2)
    again = zarr.open_array(tmp_path, mode="r")
    np.testing.assert_array_equal(again[:], values)
    assert (again.dtype, again.order) == (np.dtype(dtype), order)
    assert stored(tmp_path) == before


@pytest.mark.parametrize(
    "compressors",
    [
        None,
        ZstdCodec(level=3),
        GzipCodec(level=2),
        BloscCodec(shuffle="shuffle", typesize=4),
        BloscCodec(shuffle="bitshuffle", cname="zlib", typesize=4),
    ],
    ids=lambda c: type(c).__name__,
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("separator", [".", "/"])
def test_codecs_of_format_3(tmp_path, compressors, transposed, separator):
    values = rough((5, 7, 9))
    array = zarr.create_array(
        tmp_path, shape=values.shape, chunks=(3, 4, 9), dtype="f4", compressors=compressors, fill_value=-1,
        filters=[TransposeCodec(order=(2, 1, 0))] if transposed else None,
        chunk_key_encoding={"name": "default", "separator": separator},
    )  # fmt: skip
    array[:3] = values[:3]
    before = streams(tmp_path)
    migrate(tmp_path, 2)
    again = zarr.open_array(tmp_path, mode="r")
    assert again.metadata.zarr_format == 2
    assert again.order == ("F" if transposed else "C")
    np.testing.assert_array_equal(again[:3], values[:3])
    np.testing.assert_array_equal(again[3:], -1)
    assert streams(tmp_path) == before
    assert not (tmp_path / "zarr.json").exists()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_a_field_of_any_order(tmp_path, order, dtype):
    values = rough(SHAPE).astype(dtype)
    array = zarr.create_array(
        tmp_path, shape=SHAPE, chunks=SHAPE, dtype=dtype, zarr_format=2, order=order,
        compressors=FAST, filters=None,
    )  # fmt: skip
    array[:] = values
    decoded, before = array[:], streams(tmp_path)
    migrate(tmp_path, 3)
    np.testing.assert_array_equal(zarr.open_array(tmp_path, mode="r")[:], decoded)
    migrate(tmp_path, 2)
    np.testing.assert_array_equal(zarr.open_array(tmp_path, mode="r")[:], decoded)
    assert streams(tmp_path) == before


def test_streams_of_two_memory_orders(tmp_path):
    """Format 2 would read one of them transposed."""
    serializer = FAST.serializer()
    array = zarr.create_array(
        tmp_path, shape=(8, 8, 8), chunks=(4, 8, 8), dtype="f4", serializer=serializer, compressors=None
    )
    values = rough((8, 8, 8))
    array[:4] = values[:4]
    (tmp_path / "c/1/0").mkdir(parents=True)
    (tmp_path / "c/1/0/0").write_bytes(FAST.encode(np.asfortranarray(values[4:])))
    with pytest.raises(MoECError, match="several memory orders"):
        migrate(tmp_path, 2)


def test_a_tree_is_migrated_whole(tmp_path):
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset({"a": (DIMS, rough(SHAPE))}), "/x/y": xr.Dataset({"b": ("t", np.arange(5))})}
    )
    tree.to_zarr(tmp_path, zarr_format=2)
    assert set(migrate(tmp_path, 3)) == {"", "a", "x", "x/y", "x/y/b"}
    xr.testing.assert_identical(xr.open_datatree(tmp_path, engine="zarr").load(), tree)
    assert formats(tmp_path) == {"zarr.json"}


def refused(tmp_path, zarr_format, message, **options):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=zarr_format)
    group.create_array("first", shape=(4,), dtype="f4")[:] = 1
    group.create_array("v", shape=(4, 4), chunks=(2, 2), dtype="f4", **options)[:] = 1
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(MoECError, match=rf"array 'v' {message}.*nothing was changed"):
        migrate(tmp_path, 5 - zarr_format)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_only_one_format_has_is_refused(tmp_path):
    refused(tmp_path, 3, "has shards", shards=(4, 4))
    refused(tmp_path, 3, r"has its axes transposed to", filters=[TransposeCodec(order=(0, 1))])
    refused(tmp_path, 3, "has the codecs .*crc32c", compressors=[zarr.codecs.Crc32cCodec()])
    refused(tmp_path, 2, "is compressed with 'lz4'", compressors=LZ4())
    refused(tmp_path, 2, "has the filter 'delta'", filters=[Delta("f4")])


def test_chunks_that_are_not_stored_keep_their_values(tmp_path):
    """xarray reads the fill value of format 2 as missing, so that it cannot stand for 7."""
    ds = xr.Dataset({"v": ("x", np.full(6, 7))})
    ds.to_zarr(tmp_path, encoding={"v": {"fill_value": 7, "chunks": (3,)}}, consolidated=False)
    assert not (tmp_path / "v/c").exists()
    with pytest.raises(MoECError, match="chunks that are not stored and hold 7"):
        migrate(tmp_path, 2)
    zarr.open_array(tmp_path, path="v", mode="r+").with_config({"write_empty_chunks": True})[:] = 7
    migrate(tmp_path, 2)
    xr.testing.assert_identical(xr.open_zarr(tmp_path, consolidated=False).load(), ds)


def test_nothing_there(tmp_path):
    with pytest.raises(MoECError, match="no zarr store"):
        migrate(tmp_path / "absent.zarr", 2)
    assert not (tmp_path / "absent.zarr").exists()
    with pytest.raises(MoECError, match="2 or 3"):
        migrate(tmp_path, 4)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("what", ["set", "delete"])
def test_an_interrupted_migration_is_done_by_the_same_call(tmp_path, zarr_format, what, monkeypatch):
    """Wherever it stops, nothing is lost, and the next call leaves what an undisturbed one would."""
    ds = xr.Dataset(
        {"a": (DIMS, rough(SHAPE), {"units": "K"}), "b": (DIMS, rough(SHAPE, "i4"))}, attrs={"x": 1}
    )
    entry = moec_zarr.encoding(ds, FAST, zarr_format, ["a"])
    source = tmp_path / "s.zarr"
    tree = xr.DataTree.from_dict({"/": ds, "/inner": ds})
    for array in ("a", "inner/a"):
        tree[array].encoding = entry["a"]
    tree.to_zarr(source, zarr_format=zarr_format, consolidated=False)
    values = xr.open_datatree(source, engine="zarr", consolidated=False).load()
    whole = tmp_path / "whole.zarr"
    shutil.copytree(source, whole)
    migrate(whole, 5 - zarr_format)
    real = getattr(zarr.storage.LocalStore, what)
    for last in range(100):
        path = tmp_path / f"{last}.zarr"
        shutil.copytree(source, path)
        count = 0

        async def interrupt(self, key, *args, last=last, **kwargs):
            nonlocal count
            if count == last:
                raise OSError("pulled out")
            count += 1
            await real(self, key, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(zarr.storage.LocalStore, what, interrupt)
            try:
                migrate(path, 5 - zarr_format)
                break
            except OSError:
                pass
        migrate(path, 5 - zarr_format)
        assert files(path) == files(whole)
    assert last > 5
    xr.testing.assert_identical(xr.open_datatree(whole, engine="zarr", consolidated=False).load(), values)


def files(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_conversion_goes_on_in_the_other_format(source, tmp_path, client, zarr_format):
    dst = tmp_path / "d.zarr"
    part = {"variables": ["b"], "chunks": {"time": 2}, "client": client}
    convert(source, dst, FAST, zarr_format=zarr_format, **part)
    values, before = xr.open_zarr(dst).load(), streams_of(dst)
    other = 5 - zarr_format
    migrate(dst, other)
    assert streams_of(dst) == before
    xr.testing.assert_identical(xr.open_zarr(dst).load(), values)
    assert moec_zarr.archive.quality_table.open_quality(dst)["b"].sizes["task"] == 3
    found = moec_zarr.verify(dst, source)
    assert (found.ok, found.status) == (True, "complete"), found.problems
    done = records(dst)
    again = convert(source, dst, FAST, zarr_format=other, **part)
    assert records(dst) == done
    assert again.b.shape == values.b.shape
    (dst / "b/.moec_zarr/1.0.0.json").unlink()
    shutil.rmtree(dst / "b/.moec_zarr/quality")
    convert(source, dst, FAST, zarr_format=other, **part)
    assert streams_of(dst) == before


def streams_of(path):
    return sorted(stored(path).values())
