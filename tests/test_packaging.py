from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def git(*arguments: str) -> list[str]:
    """The paths that a git command prints; the test is skipped where this is no checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_git_ignores_no_source() -> None:
    """What git ignores is in no clone and in no wheel, though it works on the disk of its author."""
    folders = ["moec_zarr", "tests", "docs", "examples", "benchmarks"]
    ignored = git("ls-files", "--others", "--ignored", "--exclude-standard", "--", *folders)
    made = re.compile(r"(^|/)__pycache__/|^benchmarks/results/")
    assert [path for path in ignored if not made.search(path)] == []


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed")
def test_the_wheel_holds_what_git_holds(tmp_path: Path) -> None:
    tracked = git("ls-files", "--", "moec_zarr")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(packed) == sorted(tracked)


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


def test_nothing_that_readers_need_lacks_wheels_for_arm() -> None:
    """constriction has neither wheels for Linux on ARM nor a source distribution."""
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["encode"]]
    assert {name_of(requirement) for requirement in asked}.isdisjoint({"constriction"})


def test_torch_is_installed_at_its_pin() -> None:
    assert f"install torch=={pins()['torch']}\n" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("group", ["numcodecs.codecs", "zarr.codecs"])
def test_entry_points_lead_to_the_codecs(group: str) -> None:
    declared = PROJECT["entry-points"][group]
    installed = {point.name: point for point in entry_points(group=group)}
    for name, value in declared.items():
        assert installed[name].value == value
        assert isinstance(installed[name].load(), type)


@pytest.mark.parametrize("page", ["CITATION.cff", "docs/citation.bib", "docs/releases.md"])
def test_the_version_is_one(page: str) -> None:
    assert PROJECT["version"] in (ROOT / page).read_text()
