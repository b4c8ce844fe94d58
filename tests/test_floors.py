"""A module imports only from lower floors, and heavy packages only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import moec_zarr

PACKAGE = Path(moec_zarr.__file__).parent

FLOORS = [
    {"errors", "settings", "config", "simulate", "basis", "recipe"},
    {"entropy", "selection", "progress", "transform"},
    {"latents", "masks", "sparsity"},
    {"format", "chunks", "reading", "network", "network_torch"},
    {"sections", "optim", "init", "quantise", "fit", "context", "rdo", "candidates", "decoding"},
    {"codec"},
    {"adapter_numcodecs", "adapter_zarr", "adapter_xarray"},
    {"report", "inspection"},
    {"archive", "plan", "source", "manifest"},
    {"outcome", "tasks", "cluster"},
    {"destination"},
    {"conversion"},
    {"demo", "display"},
    {"cli"},
    {"__init__"},
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
# On these a module may import its neighbours, as long as loading none comes back to itself.
NEIGHBOURS = {0, 3, 4, 6}

# Where a package may be imported; what is not listed here may be imported anywhere.
HOMES = {
    "torch": {
        "fit",
        "init",
        "optim",
        "quantise",
        "candidates",
        "network_torch",
        "cluster",
    },  # the last asks for a GPU
    "constriction": {"entropy", "masks"},
    "donfig": {"config"},
    **{package: {module for module in FLOOR if FLOOR[module] >= 6} for package in ("zarr", "numcodecs")},
}

MODULES = sorted(path.stem for path in PACKAGE.rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported, anywhere within `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module == "moec_zarr":
                yield from (f"moec_zarr.{alias.name}" for alias in node.names)
            else:
                yield node.module


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def own(names: Iterator[str]) -> set[str]:
    """The modules of this package among imported names; the root counts as ``__init__``."""
    parts = [name.split(".") for name in names]
    known = {*MODULES, *FLOOR}
    return {
        rest[0] if rest and rest[0] in known else "__init__" for top, *rest in parts if top == "moec_zarr"
    }


def test_every_module_has_a_floor() -> None:
    unlisted = set(MODULES) - set(FLOOR)
    assert not unlisted, f"give {sorted(unlisted)} a place in FLOORS"


@pytest.mark.parametrize("module", MODULES)
def test_no_import_leads_upwards(module: str) -> None:
    floor = FLOOR[module]
    for other in own(imports(parse(module))):
        lower = FLOOR[other] < floor or (FLOOR[other] == floor and floor in NEIGHBOURS)
        assert lower, f"{module} (floor {floor}) imports {other} (floor {FLOOR[other]})"


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
        package = name.split(".")[0]
        assert module in HOMES.get(package, MODULES), f"{module} imports {package}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import moec_zarr.codec", {"codec"}),
        ("from moec_zarr.codec import encode", {"codec"}),
        ("from moec_zarr import codec", {"codec"}),
        ("from moec_zarr import MoECCodec", {"__init__"}),
        ("import moec_zarr", {"__init__"}),
        ("def f():\n    from moec_zarr.fit import fit", {"fit"}),
        ("import zarr, numpy as np", set()),
    ],
)
def test_the_parser_sees_every_kind_of_import(source: str, expected: set[str]) -> None:
    assert own(imports(ast.parse(source))) == expected


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, moec_zarr; print(*{'torch', 'xarray', 'dask', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
