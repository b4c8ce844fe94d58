from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {name_of(line): line.split("==")[1] for line in lines}


def test_every_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = [
        *PROJECT["dependencies"],
        *(r for extra in ("encode", "all", "dev", "docs") for r in extras[extra]),
    ]
    assert {name_of(requirement) for requirement in asked} - {"moec-zarr"} <= set(pins())


def test_torch_is_installed_at_its_pin() -> None:
    assert f"install torch=={pins()['torch']}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("group", ["numcodecs.codecs", "zarr.codecs"])
def test_entry_points_lead_to_the_codecs(group: str) -> None:
    declared = PROJECT["entry-points"][group]
    installed = {point.name: point for point in entry_points(group=group)}
    for name, value in declared.items():
        assert installed[name].value == value
        assert isinstance(installed[name].load(), type)
