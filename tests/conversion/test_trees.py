"""Trees are converted as they are: each array keeps its path, its attributes and its group's."""

from __future__ import annotations

import json
from contextlib import suppress

import fsspec
import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec, MoECError, convert, encoding, verify
from moec_zarr.archive.inspection import compressed_arrays
from moec_zarr.conversion.plan.source import SourceError, open_source
from tests.conversion.conversions import FAST, plan, release_files
from tests.support.fields import smooth
from tests.support.trees import DIMS, SHAPE, write_arrays, write_groups, write_image, write_plate

xr = pytest.importorskip("xarray")
pytest.importorskip("netCDF4")
h5py = pytest.importorskip("h5py")

EXACT = MoECCodec(max_error=0.01, effort="fast")


@pytest.fixture
def grouped(tmp_path, client):
    yield write_groups(tmp_path / "tree.nc")
    release_files(client)


def arrays(path):
    root = zarr.open(path, mode="r")
    if isinstance(root, zarr.Array):
        return {"": root}
    return {name: node for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array)}


def attributes(path):
    """The attributes of all groups and arrays, as JSON text, without those that a conversion adds."""
    root = zarr.open(path, mode="r")
    nodes = {"": root} | ({} if isinstance(root, zarr.Array) else dict(root.members(max_depth=None)))
    return {
        name: json.dumps(
            {
                key: value
                for key, value in dict(node.attrs).items()
                if not key.startswith("moec_zarr") and not (name == "" and key == "history")
            }
        )
        for name, node in nodes.items()
    }


def check_same_tree(source, dst, lossy, bound=0.01):
    """Compare all arrays and attributes of two stores, and say which were compressed."""
    old, new = arrays(source), arrays(dst)
    assert old.keys() == new.keys()
    assert attributes(source) == attributes(dst)
    for name, array in old.items():
        other = new[name]
        assert (array.shape, array.dtype) == (other.shape, other.dtype), name
        assert getattr(array.metadata, "dimension_names", 0) == getattr(other.metadata, "dimension_names", 0)
        if name in lossy:
            assert np.abs(array[...].astype("f8") - other[...]).max() <= bound
        else:
            np.testing.assert_array_equal(array[...], other[...])
    assert sorted(compressed_arrays(dst)) == sorted(name or "array" for name in lossy)


def test_groups_of_a_file_keep_paths_and_attributes(grouped, tmp_path, client):
    dst = tmp_path / "d.zarr"
    codecs = {"*": EXACT, "/science/no2": MoECCodec(max_error=1, effort="fast")}
    convert(grouped, dst, codecs, client=client)
    assert sorted(compressed_arrays(dst)) == ["aod", "science/deep/o3", "science/no2"]
    for group, name in (("", "aod"), ("science", "no2"), ("science/deep", "o3")):
        old = xr.open_dataset(grouped, group=group or None)
        new = xr.open_zarr(dst, group=group or None)
        assert np.abs(old[name] - new[name]).max() <= (1 if name == "no2" else 0.01)
        assert new[name].dims == DIMS
        kept = {
            key: value for key, value in new.attrs.items() if not key.startswith(("moec_zarr", "history"))
        }
        assert kept == old.attrs
        assert new[name].attrs.items() >= old[name].attrs.items()
        for other in old.variables.keys() - {name}:
            xr.testing.assert_equal(old[other], new[other])
    assert (
        np.abs(xr.open_dataset(grouped, group="science").no2 - xr.open_zarr(dst, group="science").no2).max()
        > 0.01
    )
    assert verify(dst, grouped).ok


def test_a_tree_of_xarray_and_a_tree_that_comes_back(tmp_path, client):
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset({"a": (DIMS, smooth(SHAPE))}, {"time": np.arange(4.0)}, {"title": "t"}),
            "/ocean/fine": xr.Dataset({"b": (DIMS, smooth(SHAPE))}, {"lat": np.arange(12.0)}, {"n": 1}),
        }
    )
    back = convert(tree, tmp_path / "d.zarr", EXACT, client=client)
    assert isinstance(back, xr.DataTree)
    assert verify(tmp_path / "d.zarr", tree).ok
    again = xr.open_datatree(tmp_path / "d.zarr", engine="zarr")
    for found in (back, again):
        for name in ("a", "ocean/fine/b"):
            assert 0 < np.abs(found[name] - tree[name]).max() <= 0.01
        np.testing.assert_array_equal(found["ocean/fine/b"].time, tree.time)  # inherited
        assert found["ocean/fine"].attrs == {"n": 1}
    assert "time" not in zarr.open_group(tmp_path / "d.zarr/ocean/fine")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("consolidated", [False, True])
def test_an_image_stays_one(tmp_path, client, version, consolidated):
    source = write_image(tmp_path / "a.ome.zarr", version, consolidated=consolidated)
    dst = tmp_path / "b.ome.zarr"
    convert(source, dst, MoECCodec(max_error=2, effort="fast"), client=client)
    check_same_tree(source, dst, ["0", "1"], bound=2)
    kept = zarr.open_group(dst, use_consolidated=None).metadata.consolidated_metadata
    assert (kept is not None) == consolidated
    level = arrays(dst)["0"]
    assert level.chunks == (1, 4, 16, 20)
    keys = [path.relative_to(dst / "0").as_posix() for path in (dst / "0").rglob("*") if path.is_file()]
    chunk = "0/0/0/0" if version == "0.4" else "c/0/0/0/0"
    assert chunk in keys
    assert verify(dst, source).ok


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_stays_one(tmp_path, client, version):
    source, dst = write_plate(tmp_path / "a.zarr", version), tmp_path / "b.zarr"
    convert(source, dst, MoECCodec(max_error=2, effort="fast"), client=client)
    fields = [f"A/{column}/0/{level}" for column in (1, 2) for level in (0, 1)]
    check_same_tree(source, dst, fields, bound=2)
    assert verify(dst, source).ok


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_without_names_of_dimensions_stay_as_they_are(tmp_path, client, zarr_format):
    source, dst = write_arrays(tmp_path / "a.zarr", zarr_format), tmp_path / "b.zarr"
    convert(source, dst, EXACT, client=client)
    check_same_tree(source, dst, ["deep/down/q", "p"])
    assert verify(dst, source).ok
    other: int = 5 - zarr_format
    with pytest.raises(MoECError, match=f"keep their zarr format, which is {zarr_format}; leave"):
        convert(source, tmp_path / "c.zarr", EXACT, client=client, zarr_format=other)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_single_array_stays_one(tmp_path, client, zarr_format):
    source, dst = tmp_path / "a.zarr", tmp_path / "b.zarr"
    array = zarr.create_array(source, shape=SHAPE, dtype="f4", chunks=(2, 12, 16), zarr_format=zarr_format)
    array[:] = smooth(SHAPE)
    array.attrs["units"] = "K"
    for _ in range(2):  # the second finds all done
        back = convert(source, dst, EXACT, client=client, chunks={"dim_0": 2})
        assert isinstance(back, zarr.Array)
        check_same_tree(source, dst, [""])
        assert len([path for path in dst.rglob("*") if path.name.endswith("0.0.json")]) == 2
    assert verify(dst, source).ok
    (dst / ".moec_zarr/0.0.0.json").unlink()
    assert [problem.kind for problem in verify(dst).problems] == ["missing"]
    assert verify(dst, source, repair=True, client=client).ok
    # What was compressed is a source like any other.
    convert(dst, tmp_path / "c.zarr", EXACT, client=client)
    check_same_tree(source, tmp_path / "c.zarr", [""], bound=0.02)
    group = xr.Dataset({"a": (DIMS, smooth(SHAPE))})
    for resume in (True, False):
        with pytest.raises(MoECError, match=r"b\.zarr holds an array, not a group"):
            convert(group, dst, FAST, client=client, resume=resume)
    convert(group, tmp_path / "g.zarr", FAST, client=client)
    with pytest.raises(MoECError, match="choose another destination"):
        convert(source, tmp_path / "g.zarr", FAST, client=client)
    assert (tmp_path / "g.zarr/a/.moec_zarr").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
def test_groups_of_a_store_are_converted(tmp_path, client, zarr_format, consolidated):
    tree = xr.DataTree.from_dict({f"/{name}": xr.Dataset({"v": (DIMS, smooth(SHAPE))}) for name in "ab"})
    tree.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=consolidated)
    convert(tmp_path / "a.zarr", tmp_path / "b.zarr", EXACT, client=client, zarr_format=zarr_format)
    assert sorted(compressed_arrays(tmp_path / "b.zarr")) == ["a/v", "b/v"]
    assert verify(tmp_path / "b.zarr", tmp_path / "a.zarr").ok
    # A group of it is a source of its own.
    with open_source(tmp_path / "b.zarr/a") as ds:
        assert list(ds.data_vars) == ["v"]


def test_groups_of_hdf5_without_dimensions(tmp_path, client):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("root", data=np.zeros(3))
        file.create_dataset("a/b/c/values", data=smooth(SHAPE))
        file.create_group("about").attrs.update(by="me")
    convert(tmp_path / "a.h5", tmp_path / "d.zarr", EXACT, client=client)
    assert compressed_arrays(tmp_path / "d.zarr").keys() == {"a/b/c/values"}
    assert zarr.open_group(tmp_path / "d.zarr/about").attrs["by"] == "me"
    release_files(client)


def test_groups_of_a_file_on_remote_storage(grouped):
    fsspec.filesystem("memory").pipe("/there/tree.nc", grouped.read_bytes())
    with open_source("memory://there/tree.nc") as ds:
        assert set(ds.data_vars) >= {"aod", "science/no2", "science/deep/o3"}
        np.testing.assert_array_equal(ds["science/deep/o3"], smooth((4, 6, 8)))


def test_empty_groups_of_files_stay(tmp_path, client):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a/values", data=smooth(SHAPE))
        file.create_group("b/c")
    convert(tmp_path / "a.h5", tmp_path / "d.zarr", EXACT, client=client)
    assert set(dict(zarr.open_group(tmp_path / "d.zarr").members(max_depth=None))) == {
        "a", "a/values", "b", "b/c",
    }  # fmt: skip
    assert verify(tmp_path / "d.zarr", tmp_path / "a.h5").ok
    release_files(client)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_left_out_of_a_store_is_said(tmp_path, caplog, zarr_format):
    """Files of others, groups without metadata, arrays younger than consolidated metadata."""
    path = tmp_path / "a.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    root.create_array("v", data=smooth(SHAPE))
    root.create_group("OME")
    with open_source(path):
        assert not caplog.messages
    zarr.consolidate_metadata(path, zarr_format=zarr_format)
    zarr.open_group(path, mode="r+", use_consolidated=False).create_array("late", data=np.zeros(3))
    (path / "OME/METADATA.ome.xml").write_text("<OME/>")
    (path / "bare/deep").mkdir(parents=True)
    (path / "bare/deep/file").write_text("x")
    with open_source(path):
        assert "left out: bare, late; copy" in caplog.text


@pytest.mark.filterwarnings("ignore:Object at")  # as zarr says of any file in a group
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_small_files_in_groups_are_copied(tmp_path, client, version):
    source, dst = write_image(tmp_path / "a.zarr", version), tmp_path / "b.zarr"
    zarr.open_group(source, mode="r+").create_group("OME")
    (source / "OME/METADATA.ome.xml").write_text("<OME/>")
    convert(source, dst, MoECCodec(max_error=2, effort="fast"), client=client)
    assert (dst / "OME/METADATA.ome.xml").read_text() == "<OME/>"
    check_same_tree(source, dst, ["0", "1"], bound=2)
    assert verify(dst, source).ok


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_coordinates_that_a_group_names_stay_in_its_attributes(tmp_path, client, zarr_format):
    """xarray takes them out of the attributes."""
    import netCDF4

    path = write_groups(tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file.coordinates = "lat lon"
        file["science"].coordinates = "/lat /lon"
    convert(path, tmp_path / "d.zarr", EXACT, client=client, zarr_format=zarr_format)
    assert zarr.open_group(tmp_path / "d.zarr").attrs["coordinates"] == "lat lon"
    assert zarr.open_group(tmp_path / "d.zarr/science").attrs["coordinates"] == "/lat /lon"
    assert verify(tmp_path / "d.zarr", path).ok
    release_files(client)


# ------------------------------------------------------------------------------- choices


def test_patterns_choose_codecs_by_path():
    groups = {
        path: xr.Dataset({"t2m": (DIMS, smooth(SHAPE)), "u": (DIMS, smooth(SHAPE))})
        for path in ("/a", "/b/c")
    }
    with open_source(xr.DataTree.from_dict(groups)) as ds:
        one, two, three = (MoECCodec(ratio=ratio, effort="fast") for ratio in (2, 3, 4))

        def chosen(codecs, **options):
            return {each.name: each.codec for each in plan(ds, codecs, **options).variables}

        assert chosen({"*/t2m": one, "b/*": two, "*": three}) == {
            "a/t2m": one, "a/u": three, "b/c/t2m": one, "b/c/u": two,
        }  # fmt: skip
        assert chosen({"/a/u": two, "*/u": None, "*": three})["a/u"] == two
        assert chosen({"*/u": None, "*": three})["b/c/u"] is None
        assert chosen(one, variables=["b/*"]) == {"a/t2m": None, "a/u": None, "b/c/t2m": one, "b/c/u": one}
        for wrong in ({"*/v": one}, {"a/v": one}):
            with pytest.raises(MoECError, match="'a/t2m', 'a/u', 'b/c/t2m', 'b/c/u'"):
                chosen(wrong)


def test_what_stays_lossless_in_an_image_is_said(tmp_path):
    source = write_image(tmp_path / "a.zarr", shape=(2, 4, 64, 64), levels=4)
    with open_source(source) as ds:
        planned = {each.name: each for each in plan(ds, MoECCodec(ratio=50, effort="fast")).variables}
    assert [planned[name].reason for name in "0123"] == ["", "", "small", "small"]
    assert planned["3"].nbytes == 2 * 2 * 4 * 8 * 8
    assert {planned[f"labels/cells/{level}"].reason for level in range(4)} == {"labels"}


def test_labels_and_tables_stay_exact_whatever_their_arrays_are_called(tmp_path):
    """Labels without "image-label", and in groups below; matrices of AnnData, sparse ones too."""
    root = zarr.open_group(write_image(tmp_path / "a.zarr", "0.4"), mode="r+")
    attrs = dict(root["labels/cells"].attrs)
    del attrs["image-label"]
    root["labels/cells"].attrs.put(attrs)
    for name, kind in (
        ("tables/t/X", "anndata"),
        ("tables/t/layers/sparse/data", "csr_matrix"),
        ("labels/cells/scale2/image", None),
        ("labels/nuclei/0", None),
        ("beside/labels/field", None),
    ):
        root.create_array(name, data=smooth(SHAPE) + 0.5)
        if kind:
            root[name.rpartition("/")[0]].attrs["encoding-type"] = kind
    with open_source(tmp_path / "a.zarr") as ds:
        planned = {each.name: each.reason for each in plan(ds, EXACT).variables}
    assert sorted(name for name, reason in planned.items() if not reason) == ["0", "1", "beside/labels/field"]
    assert {reason for name, reason in planned.items() if name.startswith("labels/")} == {"labels"}
    assert {reason for name, reason in planned.items() if name.startswith("tables/")} == {"table"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("well", "A-12"), ("plate", {"x": 1}), ("labels", ["a", "b"]), ("multiscales", [{"a": 1}]), ("ome", 3)],
)
def test_groups_that_use_words_of_images_stay_datasets(tmp_path, client, key, value):
    groups = {
        path: xr.Dataset({"v": (DIMS, smooth(SHAPE))}, {"time": np.arange(4.0)}, {key: value})
        for path in ("/", "/g")
    }
    tree = xr.DataTree.from_dict(groups)
    back = convert(tree, tmp_path / "d.zarr", EXACT, client=client)
    assert isinstance(back, xr.DataTree)
    assert back["g"].attrs[key] == value
    np.testing.assert_array_equal(back["g/time"], np.arange(4.0))
    assert verify(tmp_path / "d.zarr", tree).ok


_PATHS = [{"path": each} for each in ("0", "1", "../0", None, "no")]


@pytest.mark.parametrize(
    ("images", "levels"),
    [
        *((each, 0) for each in (None, "x", 1, [1], [{}], [{"axes": 1}], [{"axes": "zyx", "datasets": 5}])),
        ([{"axes": {"a": 1}, "datasets": {"path": "0"}}], 0),
        ([{"axes": [1, None, {"name": {}}], "datasets": _PATHS}], 1),
        ([{"axes": [{"name": "z"}] * 3, "datasets": _PATHS}], 1),
        ([{"datasets": _PATHS}], 1),
    ],
)
def test_malformed_metadata_of_images_do_no_harm(tmp_path, images, levels):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    root.attrs["ome"] = {"multiscales": images}
    root.create_array("0", data=smooth(SHAPE))
    root.create_array("1", data=smooth(SHAPE)[:, ::2, ::2])
    with open_source(tmp_path / "a.zarr") as ds:
        assert len(plan(ds, EXACT).compressed) == 2
        if levels:
            rebuilt = plan(ds, EXACT, rebuild_levels=True).variables
            assert [each.rebuilt is not None for each in rebuilt] == [False, True]
        else:
            with pytest.raises(MoECError, match="no image of several levels"):
                plan(ds, EXACT, rebuild_levels=True)


def test_an_attribute_does_not_name_dimensions_in_format_3(tmp_path, client):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    root.create_array("v", data=smooth(SHAPE)).attrs["_ARRAY_DIMENSIONS"] = list(DIMS)
    root.create_array("g/w", data=smooth(SHAPE), dimension_names=["time", None, "x"])
    convert(tmp_path / "a.zarr", tmp_path / "b.zarr", EXACT, client=client)
    check_same_tree(tmp_path / "a.zarr", tmp_path / "b.zarr", ["g/w", "v"])
    assert verify(tmp_path / "b.zarr", tmp_path / "a.zarr").ok


def test_an_image_is_cut_as_viewers_read_it(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    axes = [{"name": n, "type": t} for n, t in zip("tczyx", ["time", "channel"] + ["space"] * 3, strict=True)]
    root.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    shape = (3, 2, 100, 1000, 1200)
    root.create_array(
        "0", shape=shape, dtype="u2", chunks=(1, 1, 10, 1000, 1200), dimension_names=list("tczyx")
    )
    with open_source(tmp_path / "a.zarr") as ds:
        for codec in (FAST, MoECCodec(ratio=1000), MoECCodec(max_error=2)):
            (each,) = plan(ds, {"0": codec}).variables
            assert each.chunks[:2] == (1, 1)
            assert 2**20 <= np.prod(each.chunks) <= 2**22
        (each,) = plan(ds, {"0": FAST}, chunks={"z": 50, "y": -1}, shards={"x": -1}).variables
        assert each.chunks[2:4] == (50, 1000)
        assert each.shards[4] >= 1200


# ------------------------------------------------------------------------------- refusals


def test_names_that_would_be_paths_are_refused():
    for ds, message in (
        (xr.Dataset({"a/b": ("x", np.zeros(3))}), "takes a name with / .* for a path, got 'a/b'"),
        (xr.Dataset({"a": ("x/y", np.zeros(3))}), "for a path, got the dimension 'x/y'"),
    ):
        with pytest.raises(MoECError, match=message), open_source(ds):
            pass


def test_what_is_no_source_is_refused():
    for source in (smooth(SHAPE), [smooth(SHAPE)], 5, [xr.Dataset()]):
        with pytest.raises(MoECError, match=r"a source is a Dataset, .* got "), open_source(source):
            pass


def test_a_store_that_is_damaged_is_called_so(tmp_path):
    xr.Dataset({"v": ("x", np.arange(3.0))}).to_zarr(tmp_path / "d.zarr", consolidated=False)
    (tmp_path / "d.zarr/v/zarr.json").write_text('{"zarr_format": 3, "node_')
    with pytest.raises(SourceError, match="may be truncated, damaged"), open_source(tmp_path / "d.zarr"):
        pass


@pytest.mark.filterwarnings("ignore:Found an empty list of filters")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_hostile_metadata_are_refused_in_words(tmp_path, zarr_format):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    root.create_array("g/v", data=smooth(SHAPE))
    for file in ("g/v/.zarray", "g/.zgroup", "g/.zattrs") if zarr_format == 2 else ("g/v/zarr.json",):
        path = tmp_path / "a.zarr" / file
        before = path.read_text()
        whole = json.loads(before)
        texts = ["[1]", "null", '"x"', "1", "{", '{"a": 1}']
        for key in whole:
            texts.append(json.dumps({k: v for k, v in whole.items() if k != key}))
            texts += [
                json.dumps(whole | {key: each}) for each in (None, "x", [], [-1], [2**62] * 3, {"a": 1})
            ]
        for text in texts:
            path.write_text(text)
            # Whatever it means, or a refusal.
            with suppress(MoECError, SourceError), open_source(tmp_path / "a.zarr") as ds:
                plan(ds, EXACT)
        path.write_text(before)


def test_a_path_that_leads_out_of_a_store_is_refused(tmp_path, client):
    tree = xr.DataTree.from_dict({"/a": xr.Dataset({"v": (DIMS, smooth(SHAPE))})})
    convert(tree, tmp_path / "d.zarr", FAST, client=client)
    zarr.open_group(tmp_path / "d.zarr", mode="r+").attrs["moec_zarr_plan"] = "../other/v"
    with pytest.raises(MoECError, match="no path within it"):
        verify(tmp_path / "d.zarr")


def test_streams_in_groups_are_inspected_and_verified(tmp_path):
    tree = xr.DataTree.from_dict(
        {"/": xr.Dataset({"a": (DIMS, smooth(SHAPE))}), "/g/h": xr.Dataset({"b": (DIMS, smooth(SHAPE))})}
    )
    store = tmp_path / "tree.zarr"
    tree.to_zarr(store, encoding=encoding(tree, FAST))
    assert list(compressed_arrays(store)) == ["a", "g/h/b"]
    assert verify(store).ok
    chunk = store / "g/h/b/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    assert [problem.variable for problem in verify(store).problems] == ["g/h/b"]


def test_a_destination_that_is_the_source_by_another_name_is_refused(tmp_path, client):
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("g/v", data=smooth(SHAPE))
    (tmp_path / "link").symlink_to(tmp_path / "a.zarr")
    (tmp_path / "x").mkdir()
    for src, dst in (
        ("a.zarr/g", "x/../a.zarr"),
        ("a.zarr", "link"),
        ("link", "a.zarr"),
        ("link/g", "a.zarr"),
        ("a.zarr", "link/g/new"),
    ):
        with pytest.raises(MoECError, match="overlap; give the destination a place of its own"):
            convert(tmp_path / src, tmp_path / dst, EXACT, client=client, resume=False)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr/g/v")[:], smooth(SHAPE))


def test_sizes_of_chunks_are_for_levels_that_are_large_enough(tmp_path):
    source = write_image(tmp_path / "a.zarr", shape=(2, 4, 64, 64), levels=3)
    with open_source(source) as ds:
        planned = {
            each.name: each
            for each in plan(
                ds, MoECCodec(ratio=5, effort="fast"), chunks={"y": 32, "x": 32}, shards={"y": -1}
            ).variables
        }
    assert planned["0"].chunks == (1, 4, 32, 32)
    assert planned["0"].shards == (1, 4, 64, 32)
    assert planned["1"].chunks == (2, 4, 32, 32)
    assert planned["2"].chunks == (2, 4, 16, 16)


def test_small_levels_do_not_stop_sizes_of_chunks(tmp_path):
    source = write_image(tmp_path / "a.zarr", shape=(2, 4, 64, 64), levels=3)
    with open_source(source) as ds:
        planned = {
            each.name: each
            for each in plan(ds, MoECCodec(ratio=10, effort="fast"), chunks={"z": 2}).variables
        }
    assert planned["0"].chunks == (1, 2, 64, 64)
    assert planned["2"].chunks == (2, 4, 16, 16)  # of two planes 204 bytes would be left
