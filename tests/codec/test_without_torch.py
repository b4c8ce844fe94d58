"""What can be written where torch is not installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from moec_zarr import MoECCodec
from moec_zarr.config import config

SERIES = np.sin(np.arange(5000) / 30).astype("f4")


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("moec_zarr.fit.network")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("target", [{"ratio": 20}, {"psnr": 60}, {"max_error": 0.01}])
def test_a_long_axis_needs_no_network(target: dict[str, float]) -> None:
    codec = MoECCodec(effort="fast", **target)
    stream = codec.encode(SERIES)
    assert len(stream) <= SERIES.nbytes / 20
    assert np.abs(codec.decode(stream) - SERIES).max() <= 0.1


@pytest.mark.parametrize("settings", [{"device": "cuda"}, {"decoder": "torch"}])
def test_a_setting_that_takes_torch_is_named(settings: dict[str, str]) -> None:
    stream = MoECCodec(ratio=20, effort="fast").encode(SERIES[:2000])
    with config.set(settings), pytest.raises(ImportError, match="set device to 'cpu'"):
        MoECCodec(ratio=20).decode(stream)


def test_a_fit_that_needs_a_network_says_what_to_do() -> None:
    with pytest.raises(ImportError, match=r'\[networks\].*ask for effort="fast"'):
        MoECCodec(ratio=20).encode(SERIES[:2000])
