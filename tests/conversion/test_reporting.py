"""The report on a store: its figures are those of the data, and nothing of a store gets into its markup."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import moec_zarr
from moec_zarr import MoECCodec, MoECError, write_report
from moec_zarr.conversion.work.run import convert
from moec_zarr.report.page.findings import Experts
from moec_zarr.report.page.gathering import gather_report
from moec_zarr.report.page.render import render_page
from tests.support.fields import smooth
from tests.support.pages import Contents, number

pytest.importorskip("matplotlib")

SHAPE, DIMS = (5, 12, 32), ("time", "lat", "lon")
CHUNKS = {"time": 2, "lat": 12, "lon": 16}
CODECS = {"b": MoECCodec(ratio=4, effort="fast"), "bounded": MoECCodec(max_error=0.5, effort="fast")}
HOSTILE = "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(2)> $\\frac{ & \u202e"


@pytest.fixture(scope="module")
def ds():
    """A field, one that keeps a bound, and what stays lossless."""
    noisy = smooth(SHAPE) + np.random.default_rng(0).normal(280, 3, SHAPE).astype("f4")
    noisy[2:4, 3:6, 5:9] = np.nan
    flags = (smooth(SHAPE) > 50).astype("i1")
    hours = np.datetime64("2026-01-01", "ns") + np.arange(SHAPE[0]) * np.timedelta64(1, "h")
    return xr.Dataset(
        {
            "b": (DIMS, noisy, {"units": "K", "long_name": "air temperature"}),
            "bounded": (DIMS, smooth(SHAPE), {"units": "m"}),
            "quality": (DIMS, flags, {"flag_values": np.array([0, 1], "i1"), "flag_meanings": "bad good"}),
            "station": ("lat", np.array([f"s{i}" for i in range(SHAPE[1])])),
        },
        coords={"time": hours, "lat": np.linspace(-60, 60, SHAPE[1]), "lon": np.linspace(0, 62, SHAPE[2])},
        attrs={"history": "made"},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory, client, ds):
    path = tmp_path_factory.mktemp("report") / "d.zarr"
    convert(ds, path, CODECS, client=client, chunks=CHUNKS)
    return path


@pytest.fixture(scope="module")
def page(store, ds, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "r.html"
    write_report(store, path, against=ds)
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def contents(page):
    return Contents(page)


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory):
    """Without the source."""
    path = tmp_path_factory.mktemp("alone") / "r.html"
    write_report(store, path)
    return Contents(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def both(store, ds):
    """Original and decoded."""
    return ds.b.values.astype("f8"), xr.open_zarr(store).b.values.astype("f8")


def decibels(x, y):
    valid = np.isfinite(x)
    rmse = np.sqrt(np.mean((x - y)[valid] ** 2))
    return 20 * np.log10(np.ptp(x[valid]) / rmse)


def test_the_summary_states_the_true_figures(contents, store, both):
    rows = {row[0]: row for row in contents.tables["Variables that were compressed with loss"]}
    assert set(rows) == {"b", "bounded"}
    _, asked, before, after, smaller, psnr, largest, bound = rows["b"]
    original, decoded = both
    stored = sum(path.stat().st_size for path in (store / "b/c").rglob("*") if path.is_file())
    assert "ratio=4" in asked
    assert number(before) == pytest.approx(original.size * 4, rel=5e-3)
    assert number(after) == pytest.approx(stored, rel=5e-3)
    assert number(smaller) == pytest.approx(original.size * 4 / stored, rel=5e-3)
    assert number(psnr) == pytest.approx(decibels(original, decoded), abs=0.051)
    assert number(largest) == pytest.approx(np.nanmax(abs(original - decoded)), rel=5e-3)
    assert largest.endswith(" K")
    assert bound == "–"
    assert number(rows["bounded"][-1]) <= 0.5
    assert re.search(r"bounded: kept: no value further off than 0\.5 m", contents.text)


def test_the_worst_chunk_stands_beside_the_whole(contents):
    lowest = min(number(row[1]) for row in contents.tables["All chunks, the worst first."])
    assert f"{lowest:.1f} dB in the worst chunk" in contents.text


def test_what_is_lossless_is_listed_with_its_reason(contents):
    rows = {row[0]: row[1] for row in contents.tables["Variables as they are stored"]}
    assert rows["quality"] == "flags"
    assert rows["lat"] == "coordinate"
    assert rows["station"] == "no number"
    assert "Stored exactly" in contents.text


def test_slices_state_their_own_error_beside_that_of_the_whole(contents, both, ds):
    views = [a for tag, a in contents.elements if "data-said" in a and a["data-said"].count("PSNR")]
    times = [str(time)[:16].replace("T", " ") for time in ds.time.values]
    original, decoded = both
    whole = f"{decibels(original, decoded):.1f} dB"
    checked = 0
    for view in views[: len(views) // 2]:  # those of b, which is the first
        time = re.search(r"time (\d{4}-\d\d-\d\d \d\d:\d\d)", view["data-said"])
        x, y = (each[times.index(time[1])] for each in both)
        found = re.search(r"this slice ([\d.]+) dB; that of the whole variable is (.*)\.$", view["data-said"])
        assert float(found[1]) == pytest.approx(decibels(x, y), abs=0.051)
        assert found[2] == whole
        checked += 1
    assert checked >= 3


def test_the_worst_slice_is_shown_first(contents, both, ds):
    worst = int(np.nanargmax(np.nanmax(abs(both[0] - both[1]), axis=(1, 2))))
    shown = next(a for tag, a in contents.elements if "data-said" in a and "hidden" not in a)
    assert (
        f"time {str(ds.time.values[worst])[:16].replace('T', ' ')} (has the largest error)"
        in shown["data-said"]
    )


def test_the_histogram_counts_every_valid_voxel_of_the_slices(contents, both):
    rows = contents.tables["Voxels by error"]
    counts = [int(count) for _, count in rows]
    error = (both[1] - both[0])[np.isfinite(both[0])]
    # All five times are embedded, as few as they are.
    assert sum(counts) == error.size
    middle, width = len(rows) // 2, 2 * abs(error).max() / len(rows)
    assert counts[middle] == pytest.approx(np.count_nonzero(abs(error) < width / 2), rel=0.05)
    assert counts[-1] >= 1 or counts[0] >= 1


def test_errors_by_time_and_by_chunk(contents, both, ds):
    original, decoded = both
    rows = contents.tables["Error by time"]
    assert len(rows) == len(ds.time)
    for i, (_, rmse, largest, of_size, of_deviation) in enumerate(rows):
        error = original[i] - decoded[i]
        share = np.sqrt(np.nanmean(error**2)) / np.sqrt(np.nanmean(original[i] ** 2))
        assert number(of_size) == pytest.approx(100 * share, rel=6e-2)
        assert number(of_deviation) > number(of_size)
        assert number(rmse) == pytest.approx(np.sqrt(np.nanmean(error**2)), rel=6e-3)
        assert number(largest) == pytest.approx(np.nanmax(abs(error)), rel=6e-3)
    cells = contents.tables["All chunks, the worst first."]
    assert len(cells) == 6  # three in time, two in longitude
    largest = sorted(
        (np.nanmax(abs(original - decoded)[t : t + 2, :, x : x + 16]) for t in (0, 2, 4) for x in (0, 16)),
        reverse=True,
    )
    assert [number(row[2]) for row in cells] == pytest.approx(largest, rel=6e-3)


def test_sections_add_up_to_what_is_stored(contents, store):
    stored = sum(path.stat().st_size for path in (store / "b/c").rglob("*") if path.is_file())
    rows = contents.tables["Bytes of the streams by section"]
    assert sum(number(row[1]) for row in rows) == pytest.approx(stored, rel=1e-2)
    assert sum(number(row[2]) for row in rows) == pytest.approx(100, abs=0.3)


def test_without_a_source_the_record_speaks(alone, both):
    rows = {row[0]: row for row in alone.tables["Variables that were compressed with loss"]}
    assert number(rows["b"][5]) == pytest.approx(decibels(*both), abs=0.051)
    assert "no original was given" in alone.text
    assert "Voxels by error" not in alone.tables
    assert [row[1].split()[0] for row in alone.tables["Variance by wavenumber, in cycles per voxel"]]
    assert "Slices as decoded" in alone.text
    shares = alone.tables["Share of the values, and what their error is at most, in every chunk"]
    assert [row[0] for row in shares] == ["50%", "90%", "99%", "99.9%", "all"]


def test_nothing_is_fetched(page, contents):
    for tag, attributes in contents.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form"), tag
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (tag, name, value[:50])
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    policy = next(a["content"] for tag, a in contents.elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_every_control_and_picture_has_a_name(contents):
    labels = {a["for"] for tag, a in contents.elements if tag == "label"}
    selects = [a["id"] for tag, a in contents.elements if tag == "select"]
    assert selects
    assert labels == set(selects)
    pictures = [a for tag, a in contents.elements if a.get("role") == "img"]
    assert all(a["aria-label"] for a in pictures)
    hidden = [a.get("aria-hidden") for tag, a in contents.elements if tag == "svg"]
    assert len(hidden) == len(pictures)
    assert set(hidden) == {"true"}
    ids = [
        a["id"]
        for tag, a in contents.elements
        if "id" in a and not re.fullmatch(r"[mp][0-9a-f]+|image.*", a["id"])
    ]
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A store whose every text is hostile, written by xarray."""
    path = tmp_path_factory.mktemp("hostile") / "<b>x.zarr"
    field = smooth((3, 16, 16)) + np.random.default_rng(0).normal(0, 5, (3, 16, 16)).astype("f4")
    dims = ("<i>t", "$y{", "x\"'")
    attributes = {"units": HOSTILE, "long_name": HOSTILE, "standard_name": HOSTILE}
    ds = xr.Dataset(
        {"<b>v": (dims, field, attributes), "<u>w": ("x\"'", np.arange(16), attributes)},
        coords={dims[0]: (dims[0], np.arange(3.0), attributes | {"units": HOSTILE + " since " + HOSTILE})}
        | {dims[1]: (dims[1], np.arange(16.0), attributes)},
        attrs={"history": HOSTILE, "title": HOSTILE},
    )
    codec = MoECCodec(ratio=2, effort="fast")
    entries = moec_zarr.encoding(ds, codec, variables=["<b>v"])
    entries["<b>v"]["chunks"] = (2, 16, 16)
    ds.to_zarr(path, encoding=entries, consolidated=False)
    return path, ds


def test_text_of_a_store_is_text_and_no_markup(hostile, tmp_path):
    path, ds = hostile
    write_report(path, tmp_path / "r.html", against=ds)
    contents = Contents((tmp_path / "r.html").read_text("utf-8"))
    tags = [tag for tag, _ in contents.elements]
    assert tags.count("script") == 1
    assert not {"img", "b>v", "i"}.intersection(tags)
    assert not [a for _, a in contents.elements if any(name.startswith("on") for name in a)]
    assert "<script>alert(1)</script>" in contents.text  # as text
    assert "\u202e" not in contents.text


def with_text(found, text):
    """Findings whose every text is another."""
    if dataclasses.is_dataclass(found):
        names = [each.name for each in dataclasses.fields(found)]
        return dataclasses.replace(found, **{name: with_text(getattr(found, name), text) for name in names})
    if isinstance(found, tuple):
        return tuple(with_text(each, text) for each in found)
    if isinstance(found, Mapping):
        return {f"{text} {i}": value for i, value in enumerate(found.values())}
    if isinstance(found, np.ndarray) and found.dtype.kind in "MO":
        return np.array([text] * len(found), dtype=object)
    return text if isinstance(found, str) else found


def test_each_text_of_the_findings_is_escaped_wherever_it_is_written(store, ds):
    found = gather_report(store, against=ds)
    variables = [
        dataclasses.replace(each, sample=dataclasses.replace(each.sample, views=each.sample.views[:1]))
        for each in found.variables
    ]
    experts = Experts(chunk="", map=np.zeros((4, 4), np.int64), load=(0.5, 0.5))
    variables[0] = dataclasses.replace(variables[0], experts=experts, notes=("", ""))
    found = dataclasses.replace(found, variables=tuple(variables))
    text = "\"'><script>alert(1)</script> &lt; {{ 7 * 7 }} {% raw %} {# <!--"
    hostile, harmless = (render_page(with_text(found, each)) for each in (text, "harmless"))
    # Charts are as large as their text takes.
    chart = re.compile("<svg.*?</svg>", re.DOTALL)
    for svg in chart.findall(hostile):
        tags = {tag for tag, _ in Contents(svg).elements}
        assert tags <= {"svg", "g", "defs", "path", "use", "text", "tspan", "image", "clippath", "rect"}
    hostile, harmless = (Contents(chart.sub("", page)) for page in (hostile, harmless))
    assert hostile.text.count(text) > 100
    assert hostile.text.replace(text, "harmless") == harmless.text
    assert [
        (tag, {name: value.replace(text, "harmless") for name, value in attributes.items()})
        for tag, attributes in hostile.elements
    ] == harmless.elements


def test_without_jinja2_a_report_says_what_it_needs(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MoECError, match="a report needs jinja2, which the extra"):
        write_report(store, tmp_path / "r.html", variables=["bounded"])


def test_of_a_dictionary_the_page_shows_the_bytes(tmp_path):
    path = Path(__file__).parents[2] / "docs" / "zarr-extension" / "sample_data" / "dictionary.zarr"
    write_report(path, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    codec = json.loads((path / "zarr.json").read_text())["codecs"][0]["configuration"]
    nbytes = len(base64.b64decode(codec["dictionary"]))
    assert f"dictionary={nbytes} B" in page
    assert codec["dictionary"] not in page


def test_a_store_without_records_states_what_its_streams_do(hostile, tmp_path):
    path, ds = hostile
    write_report(path, tmp_path / "r.html")
    contents = Contents((tmp_path / "r.html").read_text("utf-8"))
    (row,) = contents.tables["Variables that were compressed with loss"]
    decoded = xr.open_zarr(path, consolidated=False, decode_times=False)["<b>v"].values.astype("f8")
    original = ds["<b>v"].values.astype("f8")
    assert number(row[5]) == pytest.approx(decibels(original[:2], decoded[:2]), abs=0.06)
    np.testing.assert_array_equal(original[2:], decoded[2:])  # its chunk has fewer voxels for as many bytes
    assert number(row[6]) == pytest.approx(abs(original - decoded).max(), rel=6e-3)
    assert "a PSNR of the whole variable is not known" in contents.text


def test_another_source_is_noticed(store, ds, tmp_path):
    other = ds.copy()
    other["b"] = ds.b + 5
    write_report(store, tmp_path / "r.html", against=other, variables=["b"])
    assert "The source differs from what was compressed" in (tmp_path / "r.html").read_text("utf-8")


def test_a_source_may_have_its_dimensions_in_another_order(store, ds):
    found = (gather_report(store, against=each, variables=["b"]) for each in (ds, ds.transpose(*DIMS[::-1])))
    straight, transposed = map(render_page, found)
    assert straight == transposed


def test_an_unfinished_conversion_is_noticed(store, tmp_path, client, ds):
    shutil.copytree(store, tmp_path / "d.zarr")
    from moec_zarr.archive.manifest import read_manifest
    from moec_zarr.archive.quality_table import write_quality
    from moec_zarr.archive.records import read_records
    from tests.conversion.conversions import plan

    (tmp_path / "d.zarr/b/.moec_zarr/1.0.0.json").unlink()
    group = zarr.open_group(tmp_path / "d.zarr")
    manifest = read_manifest(group)
    planned = plan(ds, CODECS, chunks=CHUNKS)
    found = [read_records(group[name], name, manifest.digests(name).at) for name in ("b", "bounded")]
    records = [record for each, _ in found for record in each.values()]
    write_quality(group, planned, records)
    write_report(tmp_path / "d.zarr", tmp_path / "r.html", variables=["b"])
    assert "5 of 6 tasks are done" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.torch
def test_one_array_with_a_network(tmp_path):
    field = smooth((16, 24))
    codec = MoECCodec(ratio=3, model="network", experts=3, effort="fast")
    array = moec_zarr.open(
        tmp_path / "a.zarr", mode="w", shape=field.shape, chunks=field.shape, dtype="f4", compressor=codec
    )
    array[:] = field
    write_report(
        tmp_path / "a.zarr", tmp_path / "r.html", against=xr.DataArray(field, dims=("y", "x"), name="f")
    )
    contents = Contents((tmp_path / "r.html").read_text("utf-8"))
    load = contents.tables["Share of the voxels that each expert evaluates"]
    assert [row[0] for row in load] == ["0", "1", "2"]
    assert sum(number(row[1]) for row in load) == pytest.approx(100, abs=0.2)
    assert "Which of 3 experts evaluates a voxel" in str(contents.elements)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_a_codec_that_may_lose_is_not_called_lossless(tmp_path, hostile):
    path, _ = hostile
    shutil.copytree(path, tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr")
    from zarr.codecs.numcodecs import BitRound

    group.create_array("rounded", shape=(16,), dtype="f4", filters=[BitRound(keepbits=3)])[:] = 1
    write_report(tmp_path / "a.zarr", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "perhaps not lossless: numcodecs.bitround" in text
    assert "Other variables" in text


def test_a_name_that_is_not_there(store, tmp_path):
    with pytest.raises(MoECError, match="no compressed variable 'lat'; there are 'b', 'bounded'"):
        write_report(store, tmp_path / "r.html", variables=["lat"])


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (smooth((300,)), {}),  # no slice
        pytest.param(
            np.where(np.indices((3, 9, 12))[1] == 4, np.inf, smooth((3, 9, 12))),
            {"shards": (4, 9, 12)},
            marks=pytest.mark.torch,
        ),
        (np.full((3, 9, 12), np.nan, "f4"), {}),
        (np.full((3, 9, 12), 7.0), {}),
        (np.zeros((3, 9, 12), "u2"), {"fill_value": 0}),  # nothing is stored
        (smooth((3, 9, 12), "u2") ** 2, {"zarr_format": 2}),
    ],
    ids=["line", "infinite", "nan", "constant", "fill", "v2"],
)
def test_any_values_have_a_page(tmp_path, values, options):
    chunks = values.shape if values.ndim == 1 else (2, 9, 12)
    array = moec_zarr.open(
        tmp_path / "a.zarr", mode="w", shape=values.shape, chunks=chunks, dtype=values.dtype,
        compressor=MoECCodec(ratio=1.5, effort="fast"), **options,
    )  # fmt: skip
    array[:] = values
    original = xr.DataArray(values, dims=("t", "y", "x")[-values.ndim :], name="f")
    write_report(tmp_path / "a.zarr", tmp_path / "r.html", against=original)
    contents = Contents((tmp_path / "r.html").read_text("utf-8"))
    (row,) = contents.tables["Variables that were compressed with loss"]
    valid = np.isfinite(values)
    error = np.abs(array[:].astype("f8")[valid] - values[valid])
    assert number(row[6]) == pytest.approx(error.max(initial=0), rel=6e-3, abs=1e-6)


def test_what_cannot_be_aligned_is_said(store, ds, tmp_path):
    other = ds.isel(lat=slice(3)).drop_vars("lat")
    write_report(store, tmp_path / "r.html", against=other, variables=["b"])
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "Not compared with the source: the original has 3 voxels along" in text
    assert "Slices as decoded" in text


def test_dimensions_without_names(tmp_path):
    field = smooth((3, 16, 16))
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("plain", shape=(3,), dtype="f4")
    array = moec_zarr.open(
        tmp_path / "a.zarr", path="v", mode="a", shape=field.shape, chunks=(3, 16, 16), dtype="f4",
        compressor=MoECCodec(ratio=4, effort="fast"),
    )  # fmt: skip
    array[:] = field
    against = xr.Dataset({"v": (("t", "y", "x"), field)})
    write_report(tmp_path / "a.zarr", tmp_path / "r.html", against=against)
    contents = Contents((tmp_path / "r.html").read_text("utf-8"))
    assert "Voxels by error" in contents.tables
    assert [row[0] for row in contents.tables["Variables as they are stored"]] == ["plain"]


def test_the_page_compares_with_what_the_files_took(tmp_path, client):
    """Packed integers are small in their file: the array's ratio flatters."""
    values = smooth((8, 40, 60), scale=30) + 270
    packing = {"dtype": "i2", "scale_factor": 0.001, "add_offset": 285.0, "_FillValue": -32768}
    for part in range(2):
        ds = xr.Dataset({"a": (DIMS, values)}, coords={"time": np.arange(8) + 8 * part})
        ds.to_netcdf(tmp_path / f"{part}.nc", encoding={"a": packing})
    sizes = [(tmp_path / f"{part}.nc").stat().st_size for part in range(2)]
    codec = MoECCodec(ratio=20, effort="fast")
    first = convert(str(tmp_path / "0.nc"), tmp_path / "z", codec, client=client)
    assert first.a.dtype == np.float32
    assert first.attrs["moec_zarr_file_bytes"] == sizes[0]
    grown = convert(str(tmp_path / "1.nc"), tmp_path / "z", append="time", client=client)
    assert grown.attrs["moec_zarr_file_bytes"] == sum(sizes)
    write_report(tmp_path / "z", tmp_path / "page.html")
    page = " ".join((tmp_path / "page.html").read_text().split())
    stored = sum(path.stat().st_size for path in (tmp_path / "z").rglob("*") if path.is_file())
    assert f"{sum(sizes) / stored:.3g}× smaller than the files that it was made from" in page
