"""Stores that releases have written are read now, to the values that they were read to then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

import moec_zarr
from tests.compatibility.fields import FIELDS, SHAPE
from tests.compatibility.write_stores import find_arrays
from tests.support.fields import psnr

RELEASES = sorted(path for path in Path(__file__).parent.iterdir() if (path / "values.npz").exists())
ARRAYS = [(release, name) for release in RELEASES for name in find_arrays(release)]
SHARE = 1e-5  # of the range: where single precision may round otherwise; the format allows ten times as much


def open_named(release: Path, name: str) -> zarr.Array:
    store, _, path = name.partition("/")
    return zarr.open_array(release / store, path=path, mode="r")


def test_there_are_stores_of_a_release():
    assert [release.name for release in RELEASES] >= ["0.1.0"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_stores_hold_what_their_release_knew(release):
    kinds = {name.partition("/")[0] for name in find_arrays(release)}
    expected = "dictionary_2 dictionary_3 format_2 format_3 shards tree"
    assert kinds >= {f"{kind}.zarr" for kind in expected.split()}
    for zarr_format in 2, 3:
        arrays = {name for name in find_arrays(release) if name.startswith(f"format_{zarr_format}.zarr/")}
        assert arrays == {f"format_{zarr_format}.zarr/{name}" for name in FIELDS}


@pytest.mark.parametrize(("release", "name"), ARRAYS, ids=lambda each: getattr(each, "name", each))
def test_values_are_those_of_the_field(release, name):
    array, field = open_named(release, name), FIELDS[name.rpartition("/")[2]]
    original, values = field.make(), array[:]
    assert (values.dtype.kind, values.dtype.itemsize) == (original.dtype.kind, original.dtype.itemsize)
    sentinel = field.settings.get("missing", np.nan)
    kept = np.isnan(original) if np.isnan(sentinel) else original == sentinel
    np.testing.assert_array_equal(values[kept], original[kept])
    x, y = original[~kept].astype("f8"), values[~kept].astype("f8")
    assert (np.abs(y - x) <= field.absolute + field.relative * np.abs(x)).all()
    assert psnr(np.where(kept, np.nan, original), values) >= field.psnr
    if field.relative:
        np.testing.assert_array_equal(np.sign(y), np.sign(x))


@pytest.mark.parametrize(("release", "name"), ARRAYS, ids=lambda each: getattr(each, "name", each))
def test_values_are_those_that_were_read_then(release, name):
    array, frozen = open_named(release, name), np.load(release / "values.npz")[name]
    values = array[:]
    if frozen.dtype.kind == "f":
        share = SHARE * (np.nanmax(frozen) - np.nanmin(frozen))
        atol = 0 if "relative" in name else share
        np.testing.assert_allclose(values, frozen, rtol=SHARE, atol=atol, equal_nan=True)
    else:
        np.testing.assert_allclose(values.astype("f8"), frozen.astype("f8"), atol=1, rtol=0)
    part = array[2:7, 5, 3:]  # of several chunks
    np.testing.assert_allclose(part, values[2:7, 5, 3:], rtol=SHARE, atol=200 * SHARE, equal_nan=True)


@pytest.mark.parametrize(("release", "name"), ARRAYS, ids=lambda each: getattr(each, "name", each))
def test_metadata_are_those_of_the_codec(release, name):
    array = open_named(release, name)
    assert array.shape == SHAPE
    store, _, path = name.partition("/")
    folder = release / store / path
    if array.metadata.zarr_format == 2:
        stored = json.loads((folder / ".zarray").read_text())["compressor"]
        assert stored.pop("id") == "moec"
        (codec,) = array.compressors
    else:
        stored = json.loads((folder / "zarr.json").read_text())["codecs"][0]
        stored = stored["configuration"].get("codecs", [stored])[0]  # of a shard
        assert stored["name"] == "moec_zarr.moec"
        stored, codec = stored["configuration"], array.serializer
    assert {key: getattr(codec, key) for key in stored} == stored
    assert ("dictionary" in stored) == store.startswith("dictionary")
    assert stored.items() >= FIELDS[path.rpartition("/")[2]].settings.items()


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_xarray_opens_the_tree(release):
    xr = pytest.importorskip("xarray")
    with xr.open_datatree(release / "tree.zarr", engine="zarr", consolidated=False) as tree:
        assert tree.attrs == {"title": "waves"}
        land, field = tree["/level/land"].values, FIELDS["land"]
        assert np.nanmax(np.abs(land - field.make())) <= field.absolute
        assert np.isnan(land).sum() == np.isnan(field.make()).sum()


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_streams_can_be_inspected(release):
    for chunk in (release / "format_3.zarr" / "ratio" / "c").rglob("0"):
        if chunk.is_file():
            assert moec_zarr.inspect(chunk.read_bytes()).shape == (4, 12, 16)
