"""Chunks that zarr writes at the same time: their networks are trained together, unasked."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import zarr

pytest.importorskip("torch")

import moec_zarr
from moec_zarr import MoECCodec, config
from moec_zarr.fit import train
from moec_zarr.fit.presets import PRESETS
from tests.support.fields import psnr, rough

SHAPE, CHUNKS = (16, 32, 32), (8, 16, 16)
LAYOUTS = {
    "format 2": {"zarr_format": 2},
    "format 3": {"zarr_format": 3},
    "shards": {"zarr_format": 3, "shards": SHAPE},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_chunks_written_together_are_a_group(tmp_path, monkeypatch, name):
    """All eight where zarr hands them over at once; its threads for format 2 may be fewer."""
    sizes, original = [], train.fit_networks

    def counted(fits, device):
        sizes.append(len(fits))
        return original(fits, device)

    monkeypatch.setattr(train, "fit_networks", counted)
    layout = LAYOUTS[name]
    data = rough(SHAPE, noise=3.0)
    fast = PRESETS["fast"][0]
    short = replace(fast, steps=200, starts=fast.starts[:1], trial_steps=50, probe_steps=50)
    codec = MoECCodec(ratio=data.nbytes / 8 / 300, effort="fast", model="network", seed=len(name))
    with config.set(group=8), patch.dict(PRESETS, fast=(short,)):
        array = moec_zarr.open(
            tmp_path / "a.zarr", mode="w", shape=SHAPE, chunks=CHUNKS, dtype="f4", compressor=codec, **layout
        )
        array[:] = data
    assert sum(sizes) == 8
    assert max(sizes) == 8 if layout["zarr_format"] == 3 else max(sizes) > 1
    back = zarr.open_array(tmp_path / "a.zarr", mode="r")[:]
    assert psnr(data, back) > 25
