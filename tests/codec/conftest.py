from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moec_zarr.codec.encode import encode
from moec_zarr.fit.transform import bound
from moec_zarr.settings import Settings
from tests.support.fields import smooth
from tests.support.fits import as_integers_at_last, fast

SHAPE = (8, 9, 10)


@pytest.fixture(scope="package")
def stored() -> tuple[NDArray[np.float32], bytes]:
    """A field, and its stream of 230 bytes with two experts."""
    pytest.importorskip("torch")
    array = smooth(SHAPE)
    return array, encode(array, Settings(**fast(array, experts=2)))


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fitted is stored, even if values take fewer bytes as integers; else they are as they were."""
    monkeypatch.setattr("moec_zarr.codec.bounded.encode_rounded", as_integers_at_last)
    monkeypatch.setattr("moec_zarr.codec.encode.encode_lossless_within", lambda *args: None)


@pytest.fixture(params=[0, 1])
def wrong_corrections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrections are left out, or one of them is wrong."""
    find_corrections = bound.find_corrections

    def wrong(*args: Any) -> NDArray[np.int32]:
        result = request.param * find_corrections(*args)
        result.flat[0] += 3 * request.param
        return result

    monkeypatch.setattr(bound, "find_corrections", wrong)
