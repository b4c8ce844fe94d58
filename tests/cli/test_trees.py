"""The command line on trees: paths, patterns, and names of dimensions as their groups have them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import zarr

from tests.support import small_trees as trees
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")

ASKED = ["--ratio", "8", "--effort", "fast"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trees")
    return {
        "image": trees.image(folder / "image.zarr", 2),
        "swath": trees.swath(folder / "swath.nc"),
        "bare": trees.bare(folder / "bare.zarr", 3),
    }


@pytest.fixture(scope="module")
def archives(sources, tmp_path_factory, scheduler) -> dict[str, Path]:
    from moec_zarr.cli import commands

    folder = tmp_path_factory.mktemp("archives")
    for name, source in sources.items():
        with pytest.raises(SystemExit, match="0"):
            commands.main(
                ["convert", str(source), str(folder / name), *ASKED, "--scheduler", scheduler, "-q"]
            )
    return {name: folder / name for name in sources}


def rows(out: str) -> dict[str, list[str]]:
    """Words of each line by the first; a table comes before sentences."""
    return {line.split()[0]: line.split()[1:] for line in reversed(out.splitlines()) if line.strip()}


def test_the_plan_has_a_reason_and_the_bytes_of_what_stays(run, sources, tmp_path):
    code, out, _ = run("convert", sources["image"], tmp_path / "d", *ASKED, "--dry-run")
    assert code == 0
    lines = rows(out)
    assert lines["0"][0] == "ratio=8.0,"
    # 2 x 4 x 8 x 10 voxels of two bytes are 1280, of which a ratio of 8 leaves too few.
    assert lines["2"] == ["lossless:", "small", "2x4x8x10", "-", "-", "1.28", "kB"]
    assert lines["labels/nuclei/0"] == ["lossless:", "labels", "2x4x32x40", "-", "-", "41", "kB"]
    kept = 1280 + 4 * 2 * 4 * (32 * 40 + 16 * 20 + 8 * 10)
    assert f"4 variables of {kept / 1000:.3g} kB stay as they are, without loss" in out
    planned = json.loads(run("convert", sources["image"], tmp_path / "d", *ASKED, "--dry-run", "--json")[1])
    assert planned["estimates"]["2"]["reason"] == "small"
    assert planned["estimates"]["2"]["bytes_in"] == 1280


def test_patterns_choose_what_is_converted_and_tried(run, sources, tmp_path):
    arguments = ("convert", sources["swath"], tmp_path / "d", "--var", "*/no2:ratio=8,effort=fast")
    lines = rows(run(*arguments, "--dry-run")[1])
    assert lines["t2m"][:3] == ["lossless:", "not", "named"]
    assert lines["science/coarse/no2"][0] == "ratio=8,"
    code, out, _ = run(*arguments, "--trial", "1", "--json", "-q")
    assert code == 0
    assert {each["variable"] for each in json.loads(out)} == {"science/no2", "science/coarse/no2"}


@pytest.mark.parametrize(
    ("name", "var", "found"),
    [
        ("image", [], ["0", "1"]),
        ("image", ["[1-9]"], ["1"]),
        ("swath", ["science/*"], ["science/no2", "science/coarse/no2"]),
        ("swath", ["/t2m"], ["t2m"]),
        ("bare", [], ["array"]),
    ],
)
def test_inspect(run, archives, name, var, found):
    options = [part for each in var for part in ("--var", each)]
    code, out, _ = run("inspect", archives[name], *options, "--json")
    assert code == 0
    assert list(json.loads(out)) == found
    assert [*reversed(rows(run("inspect", archives[name], *options)[1]))] == ["variable", *found]
    code, out, _ = run("inspect", archives[name], *options, "--quality", "--json")
    assert list(json.loads(out)) == found
    shown = run("inspect", archives[name], *options, "--quality")[1]
    assert "/dim" not in shown
    first = {"image": "c", "swath": "time", "bare": "dim_0"}[name]
    line = next(line for line in shown.splitlines() if line.startswith(found[0]))
    assert line.split()[-2] == first  # worst at


def test_a_pattern_that_nothing_matches(run, archives):
    code, _, err = run("inspect", archives["swath"], "--var", "ocean/*")
    assert code == 2
    assert "no variable 'ocean/*'; there are 't2m', 'science/no2', 'science/coarse/no2'" in err


@pytest.mark.parametrize("name", ["image", "swath", "bare"])
def test_verify_and_compare_speak_of_paths(run, sources, archives, name):
    code, out, _ = run("verify", archives[name], "--against", sources[name])
    assert code == 0
    verified = rows(out)
    code, out, err = run("compare", sources[name], archives[name], "--json")
    assert (code, err) == (0, "")
    for path, each in json.loads(out).items():
        assert path in verified
        if each["psnr"] is not None:
            assert float(verified[path][5]) == pytest.approx(each["psnr"], rel=1e-3)


def test_compare_measures_each_level(run, sources, archives):
    code, out, _ = run("compare", sources["image"], archives["image"])
    assert code == 0
    lines = rows(out)
    for level in ("0", "1"):
        x, y = (np.asarray(zarr.open_group(each[k], mode="r")[level]).astype("f8")
                for each, k in ((sources, "image"), (archives, "image")))  # fmt: skip
        psnr = 20 * math.log10(np.ptp(x)) - 10 * math.log10(np.square(x - y).mean())
        assert float(lines[level][0]) == pytest.approx(psnr, rel=1e-3)
    assert lines["2"][0] == lines["labels/nuclei/0"][0] == "inf"


def test_compare_says_what_is_in_one_tree_alone(run, tmp_path):
    """And measures the bounds of a group as little as those of the root."""
    field = (("time", "lat"), smooth((4, 12)))
    whole = {
        "/": xr.Dataset({"a": field}),
        "/deep": xr.Dataset(
            {"b": field, "edges_of_lat": (("lat", "nv"), np.zeros((12, 2)))},
            coords={"lat": ("lat", np.arange(12.0), {"bounds": "edges_of_lat"})},
        ),
        "/deep/down": xr.Dataset({"c": field}),
    }
    xr.DataTree.from_dict(whole).to_netcdf(tmp_path / "whole.nc")
    part = {path: ds for path, ds in whole.items() if path != "/deep/down"} | {"/other": whole["/"]}
    xr.DataTree.from_dict(part).to_zarr(tmp_path / "part.zarr", consolidated=False)
    code, out, err = run("compare", tmp_path / "whole.nc", tmp_path / "part.zarr", "--json")
    assert code == 0
    assert set(json.loads(out)) == {"a", "deep/b"}
    assert err.splitlines() == [
        f"only in {tmp_path}/whole.nc, not compared: deep/down/c",
        f"only in {tmp_path}/part.zarr, not compared: other/a",
        "no fields, not compared unless --var names them: deep/edges_of_lat (bounds)",
    ]


def test_what_a_group_lacks_is_said_by_its_own_names(run, tmp_path):
    whole = xr.Dataset({"a": (("time", "x"), smooth((6, 8)))}, coords={"time": np.arange(6)})
    xr.DataTree.from_dict({"/deep": whole}).to_netcdf(tmp_path / "whole.nc")
    xr.DataTree.from_dict({"/deep": whole.isel(time=slice(2, 4))}).to_netcdf(tmp_path / "part.nc")
    code, _, err = run("compare", tmp_path / "part.nc", tmp_path / "whole.nc", "--json")
    assert code == 0
    assert err == "not compared: time: 0 .. 1, 4 .. 5 only in the decoded (4 of 6)\n"


def test_pictures_of_variables_in_groups(run, sources, archives, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, _ = run("compare", sources["swath"], archives["swath"], "--plot", tmp_path / "p.png")
    assert code == 0
    names = {"p-t2m.png", "p-science-no2.png", "p-science-coarse-no2.png"}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_two_pictures_are_not_drawn_into_one_file(run, tmp_path):
    pytest.importorskip("matplotlib")
    with netCDF4.Dataset(tmp_path / "s.nc", "w") as file:
        for name, n in zip("yx", (12, 16), strict=True):
            file.createDimension(name, n)
        for group, name in ((file, "a-b"), (file.createGroup("a"), "b")):
            group.createVariable(name, "f4", ("y", "x"))[:] = smooth((12, 16))
    code, _, err = run("compare", *[tmp_path / "s.nc"] * 2, "--plot", tmp_path / "p.png")
    assert code == 2
    assert "one after the other by --var" in err
    assert not list(tmp_path.glob("*.png"))


def test_report(run, sources, archives, tmp_path):
    pytest.importorskip("matplotlib")
    code, _, _ = run("report", archives["swath"], "--var", "*/coarse/*", "-o", tmp_path / "r.html")
    assert code == 0
    assert (tmp_path / "r.html").read_text("utf-8").count('<section class="variable"') == 1


def test_migrate(run, archives):
    code, _, err = run("migrate", archives["image"], "--zarr-format", "3")
    assert code == 2
    assert "OME-Zarr 0.4 belongs to zarr format 2, 0.5 to format 3" in err
    assert "nothing was changed" in err
