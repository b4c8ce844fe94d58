from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fields import steps

SHAPE = (6, 16, 24)
# The fields meet this ratio without a fit.
QUICK = ["--ratio", "2", "--effort", "fast", "--chunks", "time=2"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="package")
def scheduler() -> Iterator[str]:
    pytest.importorskip("distributed")
    from tests.support.clusters import cluster_here

    with cluster_here(1) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="package")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    xr = pytest.importorskip("xarray")
    path = tmp_path_factory.mktemp("source") / "s.zarr"
    field = steps(SHAPE)
    dims = ("time", "lat", "lon")
    ds = xr.Dataset(
        {
            "a": (dims, field),
            "b": (dims, field[::-1]),
            "quality": (dims, field.astype("i1"), {"flag_values": [0]}),
        }
    )
    ds.to_zarr(path, consolidated=False)
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line; its exit code, and what was written to stdout and stderr."""
    pytest.importorskip("typer")
    from moec_zarr.cli import commands

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            commands.main([str(argument) for argument in arguments])
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="package")
def _converted(source: str, tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    from moec_zarr.cli import commands

    path = tmp_path_factory.mktemp("converted") / "d.zarr"
    with pytest.raises(SystemExit, match="0"):
        commands.main(["convert", source, str(path), *QUICK, "--scheduler", scheduler, "-q"])
    return path


@pytest.fixture
def converted(_converted: Path, tmp_path: Path) -> Path:
    """A copy of what the source is converted to."""
    shutil.copytree(_converted, tmp_path / "d.zarr")
    return tmp_path / "d.zarr"
