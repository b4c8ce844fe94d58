"""Trees of several files, trees that grow, and trees whose making is killed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec, MoECError, convert, verify
from moec_zarr.conversion.plan.source import open_source
from tests.conversion.conversions import QUICK, stored
from tests.conversion.test_killed_anywhere import STEPS, changes, days, killed
from tests.conversion.test_trees import attributes
from tests.support.fields import smooth, steps
from tests.support.trees import write_image, write_plate

xr = pytest.importorskip("xarray")

DIMS = ("time", "y", "x")
EXACT = MoECCodec(max_error=0.01, effort="fast")


def tree(n, start=0):
    """Steps of a tree: one group has the times of the root, one has times of its own, one has none."""
    root = days(STEPS).isel(time=slice(start, n))
    values = steps((STEPS, 10, 12))[start:n]
    own = xr.Dataset({"c": (DIMS, values)}, {"time": ("time", np.arange(start, n) * 6.0, {"units": "h"})})
    return xr.DataTree.from_dict(
        {
            "/": root,
            "/inherits": xr.Dataset({"b": (DIMS, values)}, attrs={"n": 1}),
            "/static": xr.Dataset({"area": (("y", "x"), smooth((10, 12)))}),
            "/inherits/deep": xr.Dataset({"d": (DIMS, values + 1)}),
        }
    ), own


def write_parts(path, engine="netcdf4"):
    """Write two files: the first three steps, and the others."""
    for name, (start, n) in {"a": (0, 3), "b": (3, STEPS)}.items():
        found, _ = tree(n, start)
        found.to_netcdf(path / f"{name}.nc", engine=engine)


def begin(dst, client, n, **options):
    codecs = {"a": QUICK, "inherits/*": QUICK}
    return convert(tree(n)[0], dst, codecs, chunks={"time": 2}, client=client, **options)


def append(dst, client, source=None):
    source = tree(STEPS)[0] if source is None else source
    return convert(source, dst, append="time", incomplete="refit", client=client, break_lock=True)


def test_groups_of_several_files_are_joined(tmp_path, client):
    write_parts(tmp_path)
    expected, _ = tree(STEPS)
    back = convert(f"{tmp_path}/*.nc", tmp_path / "d.zarr", {"*": EXACT, "static/*": None}, client=client)
    for name in ("a", "inherits/b", "inherits/deep/d"):
        assert np.abs(back[name] - expected[name]).max() <= 0.01
    xr.testing.assert_equal(
        back["static"].to_dataset(inherit=False), expected["static"].to_dataset(inherit=False)
    )
    np.testing.assert_array_equal(back.time, expected.time)
    assert verify(tmp_path / "d.zarr", f"{tmp_path}/*.nc").ok


def test_files_of_other_groups_are_refused(tmp_path):
    write_parts(tmp_path)
    xr.DataTree.from_dict({"/": days(STEPS).isel(time=slice(3, None))}).to_netcdf(tmp_path / "b.nc", mode="w")
    with pytest.raises(MoECError, match="has the group 'inherits'"), open_source(f"{tmp_path}/*.nc"):
        pass
    found, _ = tree(STEPS, 3)
    found["static"]["area"][0, 0] += 1
    found.to_netcdf(tmp_path / "b.nc", mode="w")
    with pytest.raises(MoECError, match="cannot be joined"), open_source(f"{tmp_path}/*.nc"):
        pass


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_tree_grows_in_all_its_groups(tmp_path, client, zarr_format):
    dst, whole = tmp_path / "d.zarr", tmp_path / "w.zarr"
    begin(dst, client, 3, zarr_format=zarr_format)
    append(dst, client)
    begin(whole, client, STEPS, zarr_format=zarr_format)
    xr.testing.assert_equal(xr.open_datatree(dst, engine="zarr"), xr.open_datatree(whole, engine="zarr"))
    assert verify(dst, tree(STEPS)[0]).ok
    # A source of the last steps alone goes on as well; there is nothing new in it.
    assert append(dst, client, tree(STEPS, 4)[0]).sizes["time"] == STEPS


def test_groups_grow_together_or_not_at_all(tmp_path, client):
    def both(n, m):
        return xr.DataTree.from_dict({"/p": tree(n)[1], "/q": tree(m)[1]})

    dst = tmp_path / "d.zarr"
    options = {"chunks": {"time": 2}, "client": client}
    convert(both(2, 2), dst, QUICK, **options)
    before = stored(dst)
    for source, message in (
        (both(4, 3), "the source has 'time' of several lengths: 4 in 'p', 3 in 'q'"),
        (xr.DataTree.from_dict({"/p": tree(4)[1]}), "lacks 'q/c', 'q/time'"),
        (xr.DataTree.from_dict({"/p": tree(4, 1)[1], "/q": tree(5, 2)[1]}), "begins at several steps"),
    ):
        with pytest.raises(MoECError, match=message):
            append(dst, client, source)
    assert stored(dst) == before
    append(dst, client, both(4, 4))
    assert verify(dst, both(4, 4)).ok
    assert xr.open_datatree(dst, engine="zarr")["q/c"].sizes["time"] == 4


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_without_names_grow(tmp_path, client, zarr_format):
    """Nothing tells their steps apart, so that whatever comes is new."""

    def write(path, start, n):
        root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
        for name in ("p", "g/q"):
            root.create_array(name, data=steps((STEPS, 10, 12))[start:n], chunks=(1, 10, 12))
        return path

    dst = tmp_path / "d.zarr"
    convert(write(tmp_path / "a", 0, 2), dst, QUICK, chunks={"dim_0": 2}, client=client)
    convert(write(tmp_path / "b", 2, 4), dst, append="dim_0", client=client)
    group = zarr.open_group(dst)
    for name in ("p", "g/q"):
        np.testing.assert_allclose(group[name][:], steps((STEPS, 10, 12))[:4], atol=0.01)
        assert getattr(group[name].metadata, "dimension_names", None) is None
        assert "_ARRAY_DIMENSIONS" not in group[name].attrs
    assert verify(dst, write(tmp_path / "c", 0, 4)).ok


# ------------------------------------------------------------------------------- kills


def sources(path):
    """Trees to be converted, by name, each with the codec."""
    lossy = MoECCodec(max_error=2, effort="fast")
    single = path / "single"
    array = zarr.create_array(single, shape=(4, 8, 8), dtype="f4", chunks=(2, 8, 8), zarr_format=2)
    array[:] = steps((4, 8, 8))
    return {
        "groups": (tree(3)[0], {"a": QUICK, "inherits/*": QUICK}),
        "image 0.4": (write_image(path / "i4", "0.4", consolidated=True), lossy),
        "image 0.5": (write_image(path / "i5", "0.5"), lossy),
        "plate": (write_plate(path / "p", "0.5"), lossy),
        "array": (single, QUICK),
    }


@pytest.mark.parametrize(
    ("kind", "every"), [("groups", 4), ("image 0.4", 4), ("image 0.5", 4), ("plate", 7), ("array", 2)]
)
@pytest.mark.parametrize("resume", [True, False], ids=["new", "overwrite"])
@pytest.mark.filterwarnings("ignore:Object at")
def test_a_tree_that_dies_twice_goes_on(tmp_path, client, monkeypatch, kind, every, resume):
    """The second time as it removes what the first left, or makes that again."""
    source, codec = sources(tmp_path)[kind]
    old, whole, dst = tmp_path / "old.zarr", tmp_path / "whole.zarr", tmp_path / "d.zarr"

    def run(path):
        convert(source, path, codec, client=client, resume=resume, break_lock=True)

    def start(path):
        shutil.rmtree(path, ignore_errors=True)
        if not resume:
            shutil.copytree(old, path)

    if not resume:
        convert(source, old, MoECCodec(max_error=1, effort="fast"), client=client)
    start(whole)
    done = changes(monkeypatch, run, whole)
    chunks, kept = stored(whole), attributes(whole)
    for last in range(0, len(done), every if resume else 3 * every):
        start(dst)
        killed(monkeypatch, last, run, dst)
        if 0 < last < len(done) - 15:
            killed(monkeypatch, min(last, 3 + last % 5), run, dst)
        run(dst)
        assert stored(dst) == chunks, done[last]
        assert attributes(dst) == kept, done[last]
        assert verify(dst).status == "complete"
    assert verify(dst, source).ok


def test_an_append_to_a_tree_that_is_killed_goes_on(tmp_path, client, monkeypatch):
    base, whole, dst = tmp_path / "base.zarr", tmp_path / "whole.zarr", tmp_path / "d.zarr"
    begin(base, client, 3)
    shutil.copytree(base, whole)
    done = changes(monkeypatch, append, whole, client)
    expected, chunks = xr.open_datatree(whole, engine="zarr").load(), stored(whole)
    for last in range(0, len(done), 3):
        shutil.rmtree(dst, ignore_errors=True)
        shutil.copytree(base, dst)
        killed(monkeypatch, last, append, dst, client)
        with xr.open_datatree(dst, engine="zarr") as found:  # at every moment it can be read
            assert found.attrs["moec_zarr_status"] == "complete", done[last]
        append(dst, client)
        assert stored(dst) == chunks, done[last]
        xr.testing.assert_equal(xr.open_datatree(dst, engine="zarr"), expected)
        assert verify(dst).status == "complete"
    assert verify(dst, tree(STEPS)[0]).ok


@pytest.mark.parametrize("kind", ["groups", "image 0.4", "image 0.5", "plate"])
def test_a_tree_is_repaired(tmp_path, client, kind):
    source, codec = sources(tmp_path)[kind]
    dst = tmp_path / "d.zarr"
    convert(source, dst, codec, client=client)
    whole = stored(dst)
    damaged = [key for key in sorted(whole) if not key.endswith((".json", ".zarray", ".zattrs", ".zgroup"))]
    for key in damaged:
        (dst / key).write_bytes(b"damaged")
    found = verify(dst)
    assert len(found.problems) == len(damaged)
    assert verify(dst, source, repair=True, client=client).ok
    assert stored(dst) == whole


@pytest.mark.parametrize("damage", [None, "["])
@pytest.mark.parametrize("kind", ["groups", "image 0.4", "image 0.5"])
def test_lost_metadata_of_groups_is_noticed_and_restored(tmp_path, client, kind, damage):
    source, codec = sources(tmp_path)[kind]
    dst = tmp_path / "d.zarr"
    convert(source, dst, codec, client=client)
    root = zarr.open_group(dst, mode="r", use_consolidated=False)
    groups = [name for name, node in root.members(max_depth=None) if isinstance(node, zarr.Group)]
    assert groups
    for name in groups:
        for file in (".zgroup", ".zattrs") if kind == "image 0.4" else ("zarr.json",):
            path = dst / name / file
            before = json.loads(path.read_text())
            path.unlink() if damage is None else path.write_text(damage)
            (found,) = verify(dst).problems
            assert (found.variable, found.chunk) == (name, "metadata")
            with pytest.raises(MoECError, match=f"the metadata of '{name}' in the store is damaged"):
                convert(source, dst, codec, client=client)
            assert verify(dst, source, repair=True, client=client).ok
            kept = json.loads(path.read_text())
            assert (
                kept.items() >= {key: before[key] for key in before if key != "consolidated_metadata"}.items()
            )


def test_lost_attributes_of_arrays_are_noticed(tmp_path, client):
    source, codec = sources(tmp_path)["image 0.4"]
    dst = tmp_path / "d.zarr"
    convert(source, dst, codec, client=client)
    for name in ("0", "labels/cells/1"):
        whole = (dst / name / ".zattrs").read_text()
        (dst / name / ".zattrs").unlink()
        assert [(each.variable, each.chunk) for each in verify(dst).problems] == [(name, "metadata")]
        assert verify(dst, source, repair=True, client=client).ok
        assert json.loads((dst / name / ".zattrs").read_text()) == json.loads(whole)
