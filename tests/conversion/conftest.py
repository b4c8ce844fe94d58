from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conversion.conversions import dataset, quick, release_files


@pytest.fixture(scope="package")
def client() -> Iterator[Any]:
    """Two workers in this process."""
    pytest.importorskip("xarray")
    distributed = pytest.importorskip("distributed")
    from tests.support.clusters import cluster_here

    with cluster_here(2) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="package")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset as a store."""
    path = tmp_path_factory.mktemp("source") / "s.zarr"
    dataset().to_zarr(path, zarr_format=2)
    return path


@pytest.fixture
def file(tmp_path: Path, client: Any) -> Iterator[Path]:
    """The dataset as a file, of which no task holds a handle after the test."""
    dataset().to_netcdf(tmp_path / "s.nc")
    yield tmp_path / "s.nc"
    release_files(client)


@pytest.fixture(scope="package")
def _converted(source: Path, client: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("converted") / "d.zarr"
    quick(source, path, client)
    return path


@pytest.fixture
def converted(_converted: Path, tmp_path: Path) -> Path:
    """A copy of what `quick` makes of the source."""
    shutil.copytree(_converted, tmp_path / "d.zarr")
    return tmp_path / "d.zarr"
