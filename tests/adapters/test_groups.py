"""Chunks that zarr writes at the same time: their networks are trained together, unasked."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import zarr

pytest.importorskip("torch")

import moec_zarr
from moec_zarr import MoECCodec, config
from moec_zarr.fit.presets import PRESETS
from tests.support.fields import assert_near, psnr, rough

SHAPE, CHUNKS = (16, 32, 32), (8, 16, 16)
LAYOUTS = {
    "format 2": {"zarr_format": 2},
    "format 3": {"zarr_format": 3},
    "shards": {"zarr_format": 3, "shards": SHAPE},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_chunks_written_together_are_a_group(tmp_path, name, trained):
    """All eight where zarr hands them over at once; its threads for format 2 may be fewer."""
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
    assert sum(trained) == 8
    assert max(trained) == 8 if layout["zarr_format"] == 3 else max(trained) > 1
    back = zarr.open_array(tmp_path / "a.zarr", mode="r")[:]
    assert psnr(data, back) > 25


@pytest.mark.parametrize("decoder", ["numpy", "torch"])
@pytest.mark.parametrize("shards", [None, SHAPE])
def test_chunks_read_together_are_those_read_alone(tmp_path, decoder, shards):
    """With missing chunks among them, in whole and in parts of every kind."""
    data = rough(SHAPE, noise=3.0)
    codec = MoECCodec(ratio=data.nbytes / 8 / 300, effort="fast", seed=9)
    path = tmp_path / "a.zarr"
    array = moec_zarr.open(
        path,
        mode="w",
        shape=SHAPE,
        chunks=CHUNKS,
        dtype="f4",
        compressor=codec,
        fill_value=-1.0,
        shards=shards,
    )
    array[:8], array[8:, :16] = data[:8], data[8:, :16]
    alone = zarr.open_array(path, mode="r")
    whole = alone[:]
    np.testing.assert_array_equal(whole[8:, 16:], -1)
    with zarr.config.set({"codec_pipeline.batch_size": 8}), config.set(decoder=decoder):
        together = zarr.open_array(path, mode="r")
        points = ([3, 9, 15], [30, 2, 17], [1, 20, 31])
        assert_near(together[:], whole)
        assert_near(together[3:14:2, 5, 8:], whole[3:14:2, 5, 8:])
        assert_near(together.oindex[[1, 9], :, [4, 30]], whole[np.ix_([1, 9], range(32), [4, 30])])
        assert_near(together.vindex[points], whole[points])
