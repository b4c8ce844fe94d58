"""Dictionaries that are trained for whoever writes: from which chunks, and where they end up."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import MoECCodec, MoECError, inspect
from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.training import HELD_OUT, LEAST, MOST, choose_regions, parts_to_train, train_on

CODEC = MoECCodec(ratio=30, effort="fast")
CHUNK = (8, 16, 20)


def field(chunks: int) -> np.ndarray:
    """Waves with land that never moves, of so many chunks along the first axis."""
    t, y, x = np.meshgrid(
        np.arange(8 * chunks) / 8, np.linspace(0, 1, CHUNK[1]), np.linspace(0, 1, CHUNK[2]), indexing="ij"
    )
    values = sum(np.sin(2 * (2 + i) * x + (3 + i) * y + 0.7 * t * (i + 1) + i) for i in range(4))
    values = (10 * values + np.random.default_rng(0).normal(0, 0.1, t.shape)).astype("f4")
    values[:, (y[0] - 0.3) ** 2 + (x[0] - 0.4) ** 2 < 0.1] = np.nan
    return values


@pytest.mark.parametrize("shape", [(64, 8, 8), (640, 1, 16), (7, 90, 13), (100,), (3, 4, 40, 50, 60)])
def test_the_first_regions_lie_in_all_parts_of_an_array(shape):
    chunks = tuple(min(n, 2) for n in shape)
    regions = list(choose_regions(shape, chunks, MOST))
    assert len(set(map(str, regions))) == len(regions) <= 2 * (MOST + HELD_OUT)
    for region in regions:
        assert all(part.stop - part.start == side for part, side in zip(region, chunks, strict=True))
        assert all(part.start % side == 0 for part, side in zip(region, chunks, strict=True))
    for axis, (n, side) in enumerate(zip(shape, chunks, strict=True)):
        count = n // side
        thirds = {region[axis].start // side * 3 // count for region in regions[:MOST]}
        assert count < 3 or thirds == {0, 1, 2}
    # Fewer are a part of them, in the same order.
    assert list(islice(choose_regions(shape, chunks, LEAST), 5)) == regions[:5]


def test_small_arrays_have_few_regions_or_one():
    assert len(list(choose_regions((9, 5), (4, 5)))) == 2
    assert list(choose_regions((3, 5), (4, 5))) == [(slice(0, 3), slice(0, 5))]


def test_no_more_is_read_than_is_taken():
    xr, da = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    values, read = field(16), []

    def load(block_info):
        read.append(block_info[None]["chunk-location"][0])
        part = values[8 * read[-1] : 8 * read[-1] + 8]
        return np.full_like(part, 3) if read[-1] in (8, 4) else part  # the first and the second of them

    lazy = da.map_blocks(load, dtype="f4", chunks=((8,) * 16, CHUNK[1:2], CHUNK[2:3]), meta=values[:0])
    var = xr.Variable(("t", "y", "x"), lazy)
    parts = parts_to_train(var, CHUNK, {}, LEAST)
    assert read == []
    trained = train_on(CODEC, parts, "a", LEAST)
    assert trained.chunks == LEAST + HELD_OUT
    assert read[:2] == [8, 4]
    assert len(read) == len(set(read)) == trained.chunks + 2
    # The same as of the values themselves, whatever is around them.
    others = np.concatenate([values[8 * n : 8 * n + 8] for n in read[2:]])
    again = train_on(CODEC, [xr.Variable(var.dims, others[8 * n : 8 * n + 8]) for n in range(6)], "a", LEAST)
    assert trained.codec == again.codec != CODEC


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_encoding_trains_for_each_variable(tmp_path, zarr_format):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("dask")
    dims = ("time", "y", "x")
    ds = xr.Dataset({"a": (dims, field(6)), "b": (("day", *dims[1:]), field(2))}).chunk(time=8, day=8)
    ds.a.encoding["_FillValue"] = np.float32(-99)
    plain = moec_zarr.encoding(ds, CODEC, zarr_format, ["a", "b"])
    trained = moec_zarr.encoding(ds, CODEC, zarr_format, ["a", "b"], train=True)
    assert trained["b"] == plain["b"]
    assert trained["a"] != plain["a"]
    ds.to_zarr(tmp_path / "d.zarr", zarr_format=zarr_format, encoding=trained, consolidated=False)
    codec = codec_of(zarr.open_group(tmp_path / "d.zarr", mode="r")["a"])
    assert codec.missing == -99
    key = "c/0/0/0" if zarr_format == 3 else "0.0.0"
    assert "shared" in inspect((tmp_path / "d.zarr/a" / key).read_bytes(), codec=codec).sections
    again = xr.open_zarr(tmp_path / "d.zarr", consolidated=False)
    np.testing.assert_array_equal(np.isnan(again.a), np.isnan(ds.a))
    assert float(np.abs(again.a - ds.a).max()) < 3
    given = moec_zarr.encoding(ds, codec, zarr_format, ["a", "b"])
    assert moec_zarr.encoding(ds, codec, zarr_format, ["a", "b"], train=True) == given


def test_an_encoding_of_a_tree_trains_in_each_group():
    xr = pytest.importorskip("xarray")
    pytest.importorskip("dask")
    ds = xr.Dataset({"a": (("time", "y", "x"), field(6))}).chunk(time=8)
    tree = xr.DataTree.from_dict({"/": None, "/one": ds})
    entries = moec_zarr.encoding(tree, CODEC, train=True)
    assert entries["/one"]["a"] == moec_zarr.encoding(ds, CODEC, train=True)["a"]
    assert entries["/one"]["a"]["serializer"].dictionary is not None


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_open_trains_on_values_like_those_to_come(tmp_path, zarr_format):
    values = field(7)
    new = {"shape": (80, *CHUNK[1:]), "chunks": CHUNK, "dtype": "f4", "compressor": CODEC}
    array = moec_zarr.open(tmp_path / "a.zarr", train=values[8:], zarr_format=zarr_format, **new)
    codec = codec_of(array)
    assert codec.dictionary
    array[:8] = values[:8]
    key = "c/0/0/0" if zarr_format == 3 else "0.0.0"
    assert "shared" in inspect((tmp_path / "a.zarr" / key).read_bytes(), codec=codec).sections
    # It belongs to the array: whoever names the codec that it was made with finds it there.
    again = moec_zarr.open(tmp_path / "a.zarr", **new)
    assert codec_of(again) == codec
    np.testing.assert_array_equal(np.isnan(again[:8]), np.isnan(values[:8]))
    with pytest.raises(MoECError, match="exists with compressor"):
        moec_zarr.open(tmp_path / "a.zarr", compressor=MoECCodec(ratio=31, effort="fast"))


def test_open_refuses_values_that_are_too_few_or_others(tmp_path):
    new = {"shape": (80, *CHUNK[1:]), "chunks": CHUNK, "dtype": "f4", "compressor": CODEC}
    for values, message in (
        (field(5), "holds 5 chunks of shape .* and 6 are needed"),
        (np.zeros((80, *CHUNK[1:]), "f4"), "holds 0 chunks"),
        (field(7)[:, :9], "holds 0 chunks"),
        (field(7)[..., 0], "train has 2 axes, the array 3"),
        (field(7).astype("c8"), "holds complex64, the array float32; convert"),
        (field(7).astype("M8[s]"), "holds datetime64"),
    ):
        with pytest.raises(MoECError, match=message):
            moec_zarr.open(tmp_path / "a.zarr", train=values, **new)
    assert not (tmp_path / "a.zarr").exists()
