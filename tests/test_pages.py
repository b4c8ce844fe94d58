"""The pages are true: their code runs, calls are taken or refused as they say, commands and links exist."""

from __future__ import annotations

import copy
import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.settings import TARGETS, Settings
from tests.support.fields import smooth
from tests.support.fits import fitted_once

xr = pytest.importorskip("xarray")

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder but for two months of a model, with the settings put back afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    days = xr.date_range("2026-01-01", periods=16)
    field = smooth((16, 16, 24))
    ds = xr.Dataset({"t2m": (("time", "lat", "lon"), field), "sst": (("time", "lat", "lon"), field[::-1])})
    ds["land"] = (("lat", "lon"), (field[0] > 50).astype("i1"), {"flag_values": np.array([0, 1], "i1")})
    ds = ds.assign_coords(time=days, lat=np.linspace(-75.0, 75.0, 16), lon=np.arange(0.0, 360.0, 15.0))
    for month in range(2):
        ds.isel(time=slice(8 * month, 8 * month + 8)).to_netcdf(tmp_path / f"model/2026-0{month + 1}.nc")
    before = copy.deepcopy(moec_zarr.config.config)
    yield tmp_path
    moec_zarr.config.config.clear()
    moec_zarr.config.config.update(before)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_code_runs(page: Path, folder: Path) -> None:
    for package in ("ome_zarr", "torch"):
        if any(package in block for block in blocks(page, "python")):
            pytest.importorskip(package)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with fitted_once():
        for block in blocks(page, "python"):
            exec(compile(block, name_of(page), "exec"), namespace)


def rows(heading: str) -> list[list[str]]:
    """Cells of the table of libraries.md that begins with `heading`; code without its quotes."""
    table = (ROOT / "docs" / "libraries.md").read_text().partition(f"| {heading} |")[2].partition("\n\n")[0]
    lines = [line for line in table.splitlines()[2:] if line.startswith("|")]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines]


CALLS = [(api, call) for api, *calls in rows("API") for call in calls if "(" in call]
REFUSED = rows("call")
DATA = smooth((8, 16, 24))


@pytest.fixture
def names(folder: Path) -> dict[str, Any]:
    """What the calls of the tables speak of."""
    da = pytest.importorskip("dask.array")
    ds = xr.Dataset({"distance": (("z", "y", "x"), DATA)})
    return {
        "MoECCodec": MoECCodec, "codec": MoECCodec(ratio=10, effort="fast"), "da": da, "data": DATA, "ds": ds,
        "group": zarr.open_group("group.zarr", mode="w"),
        "group_v2": zarr.open_group("group_v2.zarr", mode="w", zarr_format=2),
        "layout": {"shape": DATA.shape, "chunks": DATA.shape, "dtype": DATA.dtype},
        "moec_zarr": moec_zarr, "store": "store.zarr",
        "tree": xr.DataTree.from_dict({"/ocean": ds}), "x": da.from_array(DATA, chunks=DATA.shape),
        "zarr": zarr,
    }  # fmt: skip


def test_there_are_tables() -> None:
    assert len(CALLS) >= 15
    assert len(REFUSED) >= 10


@pytest.mark.parametrize(("api", "call"), CALLS, ids=lambda text: text[:60])
def test_calls_of_the_page_compress(api: str, call: str, names: dict[str, Any]) -> None:
    if api == "icechunk":
        icechunk = pytest.importorskip("icechunk")
        repository = icechunk.Repository.create(icechunk.in_memory_storage())
        names["session"] = repository.writable_session("main")
    with fitted_once():
        made = eval(call, names)
        if isinstance(made, zarr.Array):
            made[:] = DATA
    if not isinstance(made, zarr.Array):
        made = zarr.open("store.zarr", mode="r")
    if isinstance(made, zarr.Group):
        made = made["ocean/distance" if "tree" in call else "distance"]
    assert made.metadata.zarr_format == (2 if "format=2" in call or "_v2" in call else 3)
    assert made.nbytes_stored() < DATA.nbytes / 2  # metadata included
    assert 0 < np.abs(made[:] - DATA).max() < 10
    np.testing.assert_allclose(made[3, 4:9], made[:][3, 4:9], atol=1e-3)


@pytest.mark.parametrize(("call", "message", "remedy"), REFUSED, ids=lambda text: text[:60])
def test_calls_are_refused_as_it_says(call: str, message: str, remedy: str, names: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(call, names)
    assert message in str(caught.value)
    assert remedy in {call for _, call in CALLS}


def commands(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"\$ (\S*/)?moec-zarr ", line)]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_commands_exist_with_their_options(page: Path) -> None:
    typer = pytest.importorskip("typer")
    from moec_zarr.cli.commands import app

    known = typer.main.get_command(app).commands
    for line in commands(page):
        _, _, name, *arguments = shlex.split(line, comments=True)
        known[name].make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_installs_from_an_index_that_lacks_the_package(page: Path) -> None:
    assert not re.search(r"install +['\"]?moec[-_]zarr", page.read_text())


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    listed = re.findall(r"^::: moec_zarr\.(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(moec_zarr.__all__) - {"__version__", "config"})


def test_the_pages_have_every_setting() -> None:
    def keys(page: str, heading: str) -> list[str]:
        section = (ROOT / "docs" / page).read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
        return sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))

    assert keys("libraries.md", "Run-time settings") == sorted(moec_zarr.config.config)
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert keys("targets.md", "Other settings") == sorted(fields - set(TARGETS))
