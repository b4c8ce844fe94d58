"""A module imports only from lower floors, and heavy packages only where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import moec_zarr
from tests.support.processes import run_python

PACKAGE = Path(moec_zarr.__file__).parent

# From the lowest floor up: rooms, which are folders or stand alone at the root, and parts of rooms that have
# a row of their own. Each imports its own modules and those of the floors below it.
FLOORS = [
    {"errors", "arrays", "chunk_grid"},
    {"config", "dictionary", "quality"},
    {"settings"},
    {"statistics", "compiled"},
    {"fills"},
    {"model"},
    {"bitstream", "runtime"},
    {"fit.advice", "fit.field", "fit.payloads", "fit.presets"},
    {"fit.network", "fit.transform"},
    {"fit"},
    {"codec"},
    {"adapters"},
    {"archive"},
    {"conversion.plan"},
    {"conversion.work"},
    {"conversion"},
    {"report.comparison"},
    {"report.verdict"},
    {"report.page"},
    {"report"},
    {"demo"},
    {"cli"},
    {"__init__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Rooms and modules where a package may be imported; what is not listed may be imported anywhere.
HOMES = {
    "torch": {
        "fit",
        "runtime",
        *(f"model.{name}_torch" for name in ("decode", "device", "dispatch")),
        "conversion.work.cluster",  # asks for a GPU
    },
    "numba": {"compiled"},
    "scipy": {"fit", "report"},
    "donfig": {"config"},
    **{package: {"report.page"} for package in ("jinja2", "markupsafe")},
    "zarr": {"adapters", "archive", "report", "conversion", "demo"},
    "numcodecs": {"bitstream.exact", "adapters", "archive", "report", "conversion", "demo"},
    **{package: {"cli", "runtime"} for package in ("typer", "rich")},
}

MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


def parts(module: str) -> list[str]:
    """A module, the folders that it stands in, and its room."""
    names = module.split(".")
    return [".".join(names[:n]) for n in range(len(names), 0, -1)]


def room(module: str) -> str:
    """The smallest part of the house with a row of its own that a module belongs to."""
    return next((part for part in parts(module) if part in FLOOR), module.split(".")[0])


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported, anywhere within `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module.split(".")[0] == "moec_zarr":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())


def own(names: Iterator[str]) -> set[str]:
    """The modules of this package among imported names; the root counts as ``__init__``."""
    found = set()
    for name in names:
        top, *rest = name.split(".")
        if top != "moec_zarr":
            continue
        known = [".".join(rest[:n]) for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in MODULES]
        found.add(known[0] if known else "__init__")
    return found


def test_every_room_has_a_floor() -> None:
    unlisted = {room(module) for module in MODULES} - set(FLOOR)
    assert not unlisted, f"give {sorted(unlisted)} a place in FLOORS"


@pytest.mark.parametrize("module", MODULES)
def test_no_import_leads_upwards(module: str) -> None:
    floor = FLOOR[room(module)]
    for other in own(imports(parse(module))):
        lower = FLOOR[room(other)] < floor or room(other) == room(module)
        assert lower, f"{module} (floor {floor}) imports {other} (floor {FLOOR[room(other)]})"


def test_no_import_comes_back_to_itself() -> None:
    graph = {}
    for module in MODULES:
        # What a function or a TYPE_CHECKING block imports does not run when the module is loaded.
        loaded = [node for node in parse(module).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        graph[module] = own(name for node in loaded for name in imports(node))
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("module", MODULES)
def test_packages_are_imported_where_they_belong(module: str) -> None:
    for name in imports(parse(module)):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or homes & set(parts(module)), f"{module} imports {name}"


def test_private_modules_of_zarr_are_imported_in_one_place() -> None:
    private = {
        module for module in MODULES for name in imports(parse(module)) if name.startswith("zarr.core")
    }
    assert private == {"adapters.zarr_core"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import moec_zarr.codec.encode", {"codec.encode"}),
        ("from moec_zarr.codec.encode import encode", {"codec.encode"}),
        ("from moec_zarr.codec import encode", {"codec.encode"}),
        ("from moec_zarr import MoECCodec", {"__init__"}),
        ("import moec_zarr", {"__init__"}),
        ("def f():\n    from moec_zarr.fit.network.train import fit", {"fit.network.train"}),
        ("import zarr, numpy as np", set()),
    ],
)
def test_the_parser_sees_every_kind_of_import(source: str, expected: set[str]) -> None:
    assert own(imports(ast.parse(source))) == expected


def test_importing_the_package_is_light() -> None:
    code = "import sys, moec_zarr; print(*set(sys.argv[1:]) & set(sys.modules))"
    assert run_python(code, "torch", "xarray", "dask", "matplotlib", "scipy", "jinja2") == []
