"""Arrays that the tests of the adapters share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import moec_zarr
from tests.adapters.layouts import CODEC, DATA, LAYOUTS, SHAPE
from tests.support.fits import fitted_once


@pytest.fixture(scope="package", autouse=True)
def _each_chunk_is_fitted_once() -> Iterator[None]:
    with fitted_once():
        yield


@pytest.fixture(scope="package", params=LAYOUTS)
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, NDArray[Any]]:
    """An array in each layout, and what all of it decodes to."""
    path = tmp_path_factory.mktemp("stored") / "a.zarr"
    array = moec_zarr.open(
        path, mode="w", shape=SHAPE, dtype="f4", compressor=CODEC, fill_value=-1, **LAYOUTS[request.param]
    )
    before = DATA.copy()
    array[:] = DATA
    np.testing.assert_array_equal(DATA, before)
    return path, array[:]
