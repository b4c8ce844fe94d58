"""Run by ``make downstream``: the tests of zarr, xarray and dask, with this package as zarr's default.

Their sources come from the package index, in the versions that are installed. With ``--plain`` zarr keeps
its own default: what fails then is listed in `known_failures.toml` under "without it too".
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

# These create no array, or need programs and servers that this environment lacks.
LEFT_OUT = ["benchmarks", "test_api/test_synchronous.py", "test_cli", "test_cli.py", "test_docs.py"]
LEFT_OUT += ["test_dtype", "test_examples.py", "test_store"]
SUITES = {
    "zarr": ["tests", *(f"--ignore=tests/{name}" for name in LEFT_OUT)],
    "xarray": [
        *(f"xarray/tests/test_{name}.py" for name in ("backends", "backends_datatree", "distributed")),
        *("-k", "zarr or fsspec"),
    ],
    "dask": ["dask/array/tests/test_array_core.py", "-k", "zarr"],
}
SOURCES = Path(sys.prefix) / "sources"


def fetch(package: str) -> Path:
    """The source of the installed version of a package, which has its tests."""
    release = f"{package}-{version(package)}"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--no-binary={package}"]
    if not (SOURCES / release).exists():
        subprocess.run([*download, f"--dest={SOURCES}", f"{package}=={version(package)}"], check=True)
        shutil.unpack_archive(SOURCES / f"{release}.tar.gz", SOURCES, filter="data")
    return SOURCES / release


def run(package: str, options: list[str]) -> dict[str, int]:
    """Run a package's tests and count their outcomes; ``failed`` is never 0 where something went wrong."""
    source = fetch(package)
    counts = source / "counts.json"
    counts.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "default_serializer", f"--counts={counts}", "-q", "-rfE"]
    # Options of plugins that are not installed here are left out.
    command += ["--tb=short", "-o", "addopts=", "-o", "asyncio_default_fixture_loop_scope=function"]
    # One thread for the linear algebra, as in the rest of the tests.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *SUITES[package], *options], cwd=source, env=environment, check=False)
    if not counts.exists():
        sys.exit(f"the tests of {package} did not end")
    outcomes: dict[str, int] = json.loads(counts.read_text(encoding="utf-8"))
    wrong = done.returncode or ("--plain" not in options and not outcomes["streams"])
    return outcomes | {"failed": max(outcomes["failed"], int(bool(wrong)))}


def main(options: list[str]) -> int:
    """Run all suites; print a line for each."""
    table = {f"{package} {version(package)}": run(package, options) for package in SUITES}
    print()
    for name, outcomes in table.items():
        print(f"{name}: " + ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()))
    return int(any(outcomes["failed"] for outcomes in table.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
