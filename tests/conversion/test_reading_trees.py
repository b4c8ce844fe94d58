"""What reads an archive takes trees: the report, comparisons, tables of quality, the other zarr format."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec, MoECError, compare, migrate, verify, write_report
from moec_zarr.archive.inspection import compressed_arrays
from moec_zarr.archive.quality_table import open_quality
from moec_zarr.conversion.work.run import convert
from moec_zarr.report.page import gathering
from moec_zarr.report.page.findings import Image
from moec_zarr.report.page.gathering import gather_report
from moec_zarr.report.page.render import render_page
from tests.support import small_trees as trees
from tests.support.browser import CHROMIUM, browser
from tests.support.pages import Contents, number

xr = pytest.importorskip("xarray")
pytest.importorskip("matplotlib")

CODEC = MoECCodec(ratio=8, effort="fast")
SOURCES = {
    "image2": lambda path: trees.image(path, 2),
    "image3": lambda path: trees.image(path, 3),
    "plate": lambda path: trees.plate(path, 2),
    "swath": trees.swath,
    "bare2": lambda path: trees.bare(path, 2),
    "bare3": lambda path: trees.bare(path, 3),
    "plain2": lambda path: trees.plain(path, 2),
    "plain3": lambda path: trees.plain(path, 3),
}
ARRAYS = {
    "image2": ["0", "1"],
    "image3": ["0", "1"],
    "plate": ["A/1/0/0", "A/1/0/1", "A/1/1/0", "A/1/1/1", "A/2/0/0", "A/2/0/1", "A/2/1/0", "A/2/1/1"],
    "swath": ["t2m", "science/no2", "science/coarse/no2"],
    "bare2": ["array"],
    "bare3": ["array"],
    "plain2": ["mesh", "run/a", "run/b"],
    "plain3": ["mesh", "run/a", "run/b"],
}
LOSSY = "Variables that were compressed with loss"
SCALE_OF_NOTHING = {"type": "scale", "scale": [0, 1, 1, 1]}
IMAGES = "Images, level by level"
OTHERS = "Variables as they are stored"


@pytest.fixture(scope="module")
def made(tmp_path_factory, client) -> dict[str, tuple[Path, Path]]:
    """Each source, and its archive."""
    folder = tmp_path_factory.mktemp("trees")
    found = {}
    for name, write in SOURCES.items():
        source = write(folder / (f"{name}.nc" if name == "swath" else f"{name}.zarr"))
        convert(source, folder / f"{name}.out.zarr", CODEC, client=client)
        found[name] = source, folder / f"{name}.out.zarr"
    return found


def values(place: Path, path: str) -> Any:
    """Read an array by what knows nothing of this package's trees."""
    if place.suffix == ".nc":
        import netCDF4

        with netCDF4.Dataset(place) as nc:
            return np.asarray(nc[path][...])
    return zarr.open_array(place, path="" if path == "array" else path, mode="r")[...]


def decibels(x: Any, y: Any) -> float:
    error = np.asarray(x, "f8") - np.asarray(y, "f8")
    return 20 * math.log10(np.ptp(x.astype("f8"))) - 10 * math.log10(np.square(error).mean())


def page_of(made, name, path, **options) -> Contents:
    source, archive = made[name]
    write_report(archive, path, against=source, **options)
    return Contents(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def page(made, tmp_path_factory) -> Any:
    """The page of each archive, drawn once, with few slices and parts."""
    folder, drawn = tmp_path_factory.mktemp("pages"), {}

    def take(name: str) -> tuple[Path, Contents]:
        if name not in drawn:
            with pytest.MonkeyPatch.context() as few:
                few.setattr(gathering, "_SLICES", 1)
                few.setattr(gathering, "_IN_FULL", 3)
                drawn[name] = folder / f"{name}.html", page_of(made, name, folder / f"{name}.html")
        return drawn[name]

    return take


def rows_by_path(contents: Contents) -> dict[str, tuple[str, str]]:
    """PSNR and largest error of each compressed variable, as the tables have them."""
    found = {}
    for title, columns in ((LOSSY, slice(5, 7)), (IMAGES, slice(6, 8))):
        head = ""
        for row in contents.tables.get(title, []):
            if len(row) == 1:
                head = row[0].strip("/")
            elif "exact" not in row:
                found[f"{head}/{row[0]}".strip("/")] = tuple(row[columns])
    return found


# ------------------------------------------------------------------------------- report


@pytest.mark.parametrize("name", ["image2", "plate", "swath", "bare2", "plain3"])
def test_the_page_has_each_array_by_path_with_its_true_figures(made, page, name):
    contents = page(name)[1]
    source, archive = made[name]
    rows = rows_by_path(contents)
    assert list(rows) == ARRAYS[name]
    for path, (psnr, largest) in rows.items():
        x, y = values(source, path), values(archive, path)
        assert number(psnr) == pytest.approx(decibels(x, y), abs=0.051), path
        assert number(largest) == pytest.approx(np.abs(x.astype("f8") - y).max(), rel=6e-3), path
    assert "Not compared" not in contents.text
    assert "The source" not in contents.text


@pytest.mark.parametrize("name", ["image3", "bare3", "plain2"])
def test_findings_are_true_in_the_other_formats_too(made, name):
    source, archive = made[name]
    found = {each.name: each for each in gather_report(archive, against=source).variables}
    assert list(found) == ARRAYS[name]
    for path, each in found.items():
        x, y = values(source, path), values(archive, path)
        assert each.psnr == pytest.approx(decibels(x, y))
        assert each.notes == ()
        assert each.sample.measured.max_error <= np.abs(x.astype("f8") - y).max()


def test_levels_stand_side_by_side_with_labels_and_what_is_too_small(page):
    rows = page("image2")[1].tables[IMAGES]
    assert [row[0] for row in rows] == ["0", "1", "2", *(f"labels/nuclei/{level}" for level in range(3))]
    assert [row[2] for row in rows[:3]] == ["2 × 4 × 32 × 40", "2 × 4 × 16 × 20", "2 × 4 × 8 × 10"]
    assert "ratio=8" in rows[0][1]
    assert "ratio=8" in rows[1][1]
    assert rows[2][1] == "exactly: too small to gain by it"
    assert rows[2][6:] == ["exact", "0"]
    assert {row[1] for row in rows[3:]} == {"exactly: labels of an image"}
    assert number(rows[0][3]) == pytest.approx(2 * 4 * 32 * 40 * 2, rel=5e-3)
    assert number(rows[0][5]) >= 8


def test_images_of_a_plate_are_told_apart(page):
    rows = page("plate")[1].tables[IMAGES]
    heads = [row[0] for row in rows if len(row) == 1]
    assert heads == ["A/1/0", "A/1/1", "A/2/0", "A/2/1"]
    assert [row[0] for row in rows if len(row) > 1] == ["0", "1"] * 4


def test_groups_have_heads(page):
    contents = page("swath")[1]
    names = [row[0] for row in contents.tables[LOSSY]]
    assert names == ["/", "t2m", "science", "no2", "science/coarse", "no2"]
    exact = [row[0] for row in contents.tables[OTHERS]]
    assert exact == ["/", "time", "x", "y", "science/coarse", "y"]


def test_axes_have_local_names_and_coordinates_of_groups_above(made, tmp_path):
    found = {each.name: each for each in gather_report(made["swath"][1]).variables}
    above, below = found["science/no2"], found["science/coarse/no2"]
    assert above.dims == below.dims == ("time", "y", "x")
    shown = above.sample.views[0].decoded
    assert (shown.y.title, shown.y.units) == ("distance in y", "km")
    np.testing.assert_allclose(shown.y.values, np.linspace(0, 10, 24), rtol=1e-6)
    assert above.sample.choices[0].places[0].startswith("2020-01-01 00:00")
    # A group that has its own dimensions has none of those above.
    shown = below.sample.views[0].decoded
    assert (shown.y.title, shown.y.length, shown.x.values) == ("coarse distance", 12, None)


@pytest.mark.parametrize("name", ["image2", "image3"])
def test_axes_of_images_have_the_scale_of_their_level(made, name):
    found = {each.name: each for each in gather_report(made[name][1]).variables}
    for level, step in (("0", 0.25), ("1", 0.5)):
        shown = found[level].sample.views[0].decoded
        assert [axis.name for axis in (shown.y, shown.x)] == ["y (micrometer)", "x (micrometer)"]
        np.testing.assert_allclose(shown.x.values, step * np.arange(shown.x.length))
        assert shown.first_row_on_top  # as viewers of images show it
        assert [choice.title for choice in found[level].sample.choices] == ["c", "z"]
        assert found[level].sample.choices[1].places[-1] == "1.5 micrometer"


def test_arrays_without_names_are_shown_by_index(made):
    found = {each.name: each for each in gather_report(made["plain3"][1]).variables}
    assert found["run/b"].dims == ("dim_0", "dim_1", "dim_2")
    assert found["run/b"].sample.views[0].decoded.y.name == "dim_1 (index)"


def test_the_names_of_an_original_are_those_of_an_array_without(made):
    named = xr.DataArray(values(made["bare3"][0], "array"), dims=("t", "y", "x"), name="field")
    found = gather_report(made["bare3"][1], against=named).variables[0]
    assert found.sample.views[0].quality is not None
    assert found.dims == ("t", "y", "x")


@pytest.mark.parametrize(
    ("name", "part", "found"),
    [
        ("swath", "science", ["no2", "coarse/no2"]),
        ("swath", "science/no2", ["array"]),
        ("image2", "0", ["array"]),  # whose axes its image names
        ("plate", "A/2", ["0/0", "0/1", "1/0", "1/1"]),
    ],
)
def test_a_part_of_an_archive_has_a_page_of_its_own(made, name, part, found):
    whole = {each.name: each for each in gather_report(made[name][1]).variables}
    parts = gather_report(made[name][1] / part).variables
    assert [each.name for each in parts] == found
    for each in parts:
        same = whole[part if each.name == "array" else f"{part}/{each.name}"]
        assert (each.psnr, each.max_error, len(each.cells)) == (same.psnr, same.max_error, len(same.cells))


def test_patterns_choose_what_is_reported(made):
    found = gather_report(made["swath"][1], variables=["science/*"])
    assert [each.name for each in found.variables] == ["science/no2", "science/coarse/no2"]
    with pytest.raises(MoECError, match=r"no compressed variable 'ocean/\*'; there are 't2m', 'science/no2'"):
        gather_report(made["swath"][1], variables=["ocean/*"])


@pytest.mark.parametrize("names", [False, True])
def test_levels_may_lie_in_groups_of_their_own(tmp_path, client, names):
    """As ngff-zarr writes them, in ``scale0/image``: what holds for an image holds for these."""
    flat = zarr.open_group(trees.image(tmp_path / "flat.zarr", 2, labels=False), mode="r")
    root = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=2)
    image = dict(flat.attrs["multiscales"][0])
    image["datasets"] = [
        each | {"path": f"scale{i}/image"} for i, each in enumerate(image["datasets"])
    ]  # fmt: skip
    root.attrs["multiscales"] = [image]
    for level in range(3):
        array = root.create_array(
            f"scale{level}/image", shape=flat[str(level)].shape, dtype="u2", chunks=(1, 4, 16, 20),
            attributes={"_ARRAY_DIMENSIONS": ["c", "z", "y", "x"]} if names else {},
        )  # fmt: skip
        array[...] = flat[str(level)][...]
    convert(tmp_path / "s.zarr", tmp_path / "d.zarr", MoECCodec(ratio=4, effort="fast"), client=client)
    made = zarr.open_group(tmp_path / "d.zarr", mode="r")
    assert made["scale0/image"].metadata.zarr_format == 2
    assert made["scale0/image"].chunks[0] == 1  # one channel
    found = gather_report(tmp_path / "d.zarr", against=tmp_path / "s.zarr")
    assert [each.name for each in found.images[0].levels] == [f"scale{level}/image" for level in range(3)]
    shown = found.variables[1].sample.views[0].decoded
    np.testing.assert_allclose(shown.x.values, 0.5 * np.arange(20))
    assert shown.x.units == "micrometer"


def test_a_level_that_was_made_again_is_not_called_exact(made, tmp_path, client):
    source = made["image2"][0]
    convert(source, tmp_path / "d.zarr", CODEC, client=client, rebuild_levels=True)
    found = gather_report(tmp_path / "d.zarr", against=source)
    level = found.images[0].levels
    assert [each.name for each in level[:3]] == ["0", "1", "2"]
    assert level[0].notes == ()
    assert [each[:24] for each in level[1].notes] == ["Computed from another le"]
    assert "0, nearest" in level[1].notes[0]
    assert not level[2].exact
    assert level[2].reason == "made again of another level as that is decoded: 0, nearest"


def test_of_very_many_arrays_the_finest_levels_are_shown(page):
    contents = page("plate")[1]
    titles = [a["id"] for tag, a in contents.elements if tag == "h2" and a["id"].startswith("v")]
    assert titles == ["v0-title", "v2-title", "v4-title"]  # A/1/0/0, A/1/1/0 and A/2/0/0
    assert "Of 8 variables, 5 are in these tables alone" in contents.text
    links = [a["href"] for tag, a in contents.elements if tag == "a" and a.get("href", "").startswith("#v")]
    # Of the table of verdicts, which has all of them, and of the table of variables.
    assert links[-3:] == ["#v0", "#v2", "#v4"]
    assert set(links) == {"#variables", "#v0", "#v2", "#v4"}


def test_the_tree_of_xarray_is_an_original(tmp_path, client):
    tree = trees.datatree()
    convert(tree, tmp_path / "d.zarr", CODEC, client=client)
    found = {each.name: each for each in gather_report(tmp_path / "d.zarr", against=tree).variables}
    assert found["ocean/sst"].sample.views[0].decoded.y.units == "degrees_north"  # a coordinate of the root
    decoded = xr.open_datatree(tmp_path / "d.zarr")
    measured = compare(tree, decoded)
    assert set(measured) == {"t2m", "ocean/sst"}  # not those of the root alone
    for path, each in measured.items():
        assert each.psnr == pytest.approx(decibels(tree[path].values, decoded[path].values))
        assert found[path].psnr == pytest.approx(each.psnr, abs=1e-3)
    assert set(found) == {"t2m", "ocean/sst"}


def test_names_of_images_and_levels_are_escaped(made):
    found = gather_report(made["image2"][1], variables=["1"])
    evil = "<script>alert(1)</script>\"'>"
    levels = tuple(dataclasses.replace(each, name=evil) for each in found.variables)
    images = (Image(name=evil, levels=levels), Image(name="other", levels=found.lossless))
    text = render_page(dataclasses.replace(found, variables=levels, images=images))
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "\"'>" not in text


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_browser_shows_levels_and_follows_their_links(page, tmp_path):
    pytest.importorskip("tornado")

    async def visit():
        async with browser(tmp_path / "profile") as shown:
            await shown.look(400, "light")
            await shown.open(page("image2")[0])
            overflow = await shown.value("document.documentElement.scrollWidth - innerWidth")
            await shown.value("document.querySelector('th a[href=\"#v1\"]').click()")
            there = await shown.value("location.hash")
            title = await shown.value("document.getElementById('v1-title').textContent")
            heads = await shown.value("[...document.querySelectorAll('tbody')].map((e) => e.rows.length)")
            return overflow, there, title, heads, shown.complaints

    overflow, there, title, heads, complaints = asyncio.run(visit())
    assert overflow <= 0
    assert there == "#v1"
    assert title == "1 \N{EN DASH} level of an image"
    assert 6 in heads
    assert complaints == []


# ------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("name", SOURCES)
def test_tables_and_streams_are_found_by_path(made, name):
    source, archive = made[name]
    tables = open_quality(archive)
    assert list(tables) == list(compressed_arrays(archive)) == ARRAYS[name]
    for path, table in tables.items():
        x, y = values(source, path), values(archive, path)
        assert float(table.max_error.max()) == pytest.approx(np.abs(x.astype("f8") - y).max())
        # Columns have the names of dimensions in their group.
        assert not any("/" in str(column) for column in table.variables)


def test_paths_are_in_order_of_groups_and_numbers(tmp_path):
    root = zarr.open_group(tmp_path, mode="w")
    for path in ("b", "A/10/0", "A/2/0", "a", "A/2/x/0"):
        root.create_array(
            path, shape=(4,), dtype="f4", chunks=(4,), serializer=CODEC.serializer(), compressors=None
        )
    assert list(compressed_arrays(tmp_path)) == ["a", "b", "A/2/0", "A/2/x/0", "A/10/0"]


def test_groups_of_zarr_are_compared(made):
    source, archive = made["image2"]
    found = compare(zarr.open_group(source, mode="r"), zarr.open_group(archive, mode="r"))
    assert list(found) == ["0", "1", "2", *(f"labels/nuclei/{level}" for level in range(3))]
    assert found["0"].psnr == pytest.approx(decibels(values(source, "0"), values(archive, "0")))
    assert found["labels/nuclei/0"].psnr == math.inf


def test_dimensions_of_the_root_are_those_of_a_group_by_itself(made):
    """What is inherited in one is the group's own in the other."""
    source, archive = made["swath"]
    with xr.open_dataset(source, group="science") as alone:
        tree = xr.DataTree.from_dict({"/science": alone})
        found = compare(tree, zarr.open_group(archive, mode="r"))
    assert found["science/no2"].psnr == pytest.approx(
        decibels(values(source, "science/no2"), values(archive, "science/no2"))
    )


# ------------------------------------------------------------------------------- the other format


@pytest.fixture
def copy(made, tmp_path) -> Iterator[Any]:
    def take(name: str) -> Path:
        return Path(shutil.copytree(made[name][1], tmp_path / f"{name}.zarr"))

    return take


@pytest.mark.parametrize("name", ["swath", "bare2", "bare3", "plain2", "plain3"])
def test_a_tree_changes_its_format_and_back(made, copy, name):
    source, archive = made[name]
    store = copy(name)
    old = zarr.open(store, mode="r").metadata.zarr_format
    for zarr_format in (5 - old, old):
        assert migrate(store, zarr_format)
        files = {file.name for file in store.rglob("*") if "quality" not in file.parts}
        assert not files & ({"zarr.json"} if zarr_format == 2 else {".zarray", ".zgroup", ".zattrs"})
        for path in ARRAYS[name]:
            np.testing.assert_array_equal(values(store, path), values(archive, path))
        assert verify(store, source).ok
        assert list(open_quality(store)) == ARRAYS[name]
        assert len(gather_report(store).variables) == len(ARRAYS[name])


@pytest.mark.parametrize("name", ["plain2", "plain3"])
def test_arrays_without_names_get_none(copy, name):
    store = copy(name)
    migrate(store, 3 if name == "plain2" else 2)
    for _, array in zarr.open_group(store, mode="r").members(max_depth=None):
        if isinstance(array, zarr.Array):
            assert getattr(array.metadata, "dimension_names", None) is None
            assert "_ARRAY_DIMENSIONS" not in array.attrs


@pytest.mark.parametrize("name", ["bare2", "bare3"])
@pytest.mark.parametrize("what", ["set", "delete"])
def test_an_interrupted_migration_of_an_archive_is_done_by_the_same_call(copy, monkeypatch, name, what):
    def files(store):
        return {file.relative_to(store): file.read_bytes() for file in store.rglob("*") if file.is_file()}

    other = 3 if name == "bare2" else 2
    whole = copy(name)
    migrate(whole, other)
    wanted = files(whole)
    real = getattr(zarr.storage.LocalStore, what)
    for last in range(100):
        shutil.rmtree(whole)
        store, count = copy(name), 0

        async def interrupt(self, key, *args, last=last, **options):
            nonlocal count
            if count == last:
                raise OSError("pulled out")
            count += 1
            await real(self, key, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(zarr.storage.LocalStore, what, interrupt)
            try:
                migrate(store, other)
                break
            except OSError:
                pass
        migrate(store, other)
        assert files(store) == wanted
    assert last > 2


def test_a_tree_is_gone_on_with_in_the_other_format(made, copy, client):
    store = copy("swath")
    migrate(store, 2)
    before = {file: file.stat().st_mtime_ns for file in store.rglob("[0-9]*.json")}
    assert before
    convert(made["swath"][0], store, CODEC, client=client, zarr_format=2)
    assert {file: file.stat().st_mtime_ns for file in store.rglob("[0-9]*.json")} == before


@pytest.mark.parametrize(("name", "part"), [("image2", "/"), ("image3", "/"), ("plate", "A/1/0")])
def test_an_image_keeps_its_format(copy, name, part):
    store = copy(name)
    before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
    other = 2 if name == "image3" else 3
    with pytest.raises(
        MoECError, match=rf"'{part}' in .* part of an OME-Zarr image.*0\.4 .* format 2, 0\.5 .* 3"
    ):
        migrate(store, other)
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before
    assert migrate(store, 5 - other) == ()


def test_an_image_within_a_tree_is_refused_before_anything_is_changed(tmp_path):
    root = zarr.open_group(tmp_path / "d.zarr", mode="w", zarr_format=2)
    root.create_array("a", shape=(4,), dtype="f4")
    root.create_group("deep")
    trees.image(tmp_path / "d.zarr" / "deep" / "image", 2)
    with pytest.raises(MoECError, match=r"'deep/image' in .* part of an OME-Zarr image"):
        migrate(tmp_path / "d.zarr", 3)
    assert not list(tmp_path.rglob("zarr.json"))


# ------------------------------------------------------------------------------- odd metadata


@pytest.mark.parametrize(
    "multiscales",
    [
        7,
        [7],
        [{"axes": 7, "datasets": 7}],
        [{"axes": ["c", "z", "y", "x"], "datasets": [{"path": "0"}]}],
        [{"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1]}]}]}],
        [{"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": "many"}]}]}],
        [{"datasets": [{"path": "0", "coordinateTransformations": [{"type": "affine", "affine": [[1]]}]}]}],
        [{"datasets": [{"path": "0", "coordinateTransformations": {"type": "scale"}}]}],
        [{"datasets": [{"path": "0", "coordinateTransformations": [SCALE_OF_NOTHING]}]}],
    ],
)  # fmt: skip
def test_scales_that_are_not_plain_are_left_out(made, copy, multiscales):
    store = copy("image2")
    attributes = json.loads((store / ".zattrs").read_text())
    axes = attributes["multiscales"][0]["axes"]
    if isinstance(multiscales, list) and isinstance(multiscales[0], dict):
        multiscales = [{"axes": axes} | multiscales[0]]
    (store / ".zattrs").write_text(json.dumps(attributes | {"multiscales": multiscales}))
    found = gather_report(store, variables=["0"]).variables[0]
    assert found.sample.views[0].decoded.x.values is None
