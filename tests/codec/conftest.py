import numpy as np
import pytest
from numpy.typing import NDArray

from moec_zarr.codec.encode import encode
from moec_zarr.codec.lossless import encode_lossless
from moec_zarr.settings import Settings
from tests.support.fields import smooth
from tests.support.fits import fast

SHAPE = (8, 9, 10)


@pytest.fixture(scope="package")
def stored() -> tuple[NDArray[np.float32], bytes]:
    """A field, and its stream of 230 bytes with two experts."""
    pytest.importorskip("torch")
    array = smooth(SHAPE)
    return array, encode(array, Settings(**fast(array, experts=2)))


class _Longest(bytes):
    """A stream that any other is shorter than."""

    def __len__(self) -> int:
        return 1 << 40


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fitted is stored, even if values take fewer bytes as integers; else they are as they were."""
    monkeypatch.setattr(
        "moec_zarr.codec.bounded.encode_rounded", lambda chunk, *bounds: _Longest(encode_lossless(chunk))
    )
    monkeypatch.setattr("moec_zarr.codec.encode.encode_lossless_within", lambda *args: None)
