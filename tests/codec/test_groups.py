"""Chunks that are encoded at the same time, whose networks are trained together."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

pytest.importorskip("torch")

from moec_zarr import config
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.errors import BudgetError
from moec_zarr.fit.presets import PRESETS
from moec_zarr.settings import Settings
from tests.support.fields import psnr

SHAPE, BYTES = (6, 20, 24), 400
SECONDS = 60
FAST = PRESETS["fast"][0]
SHORT = replace(FAST, steps=300, starts=FAST.starts[:2], trial_steps=50, probe_steps=50, correction_steps=100,
                final_steps=150)  # fmt: skip


@pytest.fixture(autouse=True)
def _short_fits() -> Iterator[None]:
    with patch.dict(PRESETS, fast=(SHORT,), balanced=(SHORT,)):
        yield


def chunk(seed):
    """A wavy field with an edge."""
    u, v, w = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    wave = np.sin((3 + seed % 5) * u + 4 * v + seed) + np.cos(5 * w - seed * v)
    return (wave + 0.5 * (u + v * np.cos(seed) > w)).astype("f4")


@contextmanager
def grouped(size, device="cpu"):
    with config.set(group=size, device=device, decoder="numpy"):
        yield


def encoded_together(arrays, settings):
    """Streams, or what is raised instead, of arrays that are encoded at the same time."""
    with ThreadPoolExecutor(len(arrays)) as threads:
        futures = [threads.submit(encode, array, settings) for array in arrays]
        return [future.exception(SECONDS) or future.result() for future in futures]


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("model", ["network", "auto"])
def test_chunks_of_a_group_are_as_good_as_single_ones(count, model, device, trained):
    """Within 0.8 dB each and 0.3 dB on average, in as many bytes."""
    arrays = [chunk(seed) for seed in range(count)]
    settings = Settings(ratio=arrays[0].nbytes / BYTES, effort="balanced", model=model)
    with grouped(count, device):
        streams = encoded_together(arrays, settings)
    assert max(trained) == count
    with grouped(1, device):
        single = [encode(array, settings) for array in arrays]
    gains = []
    for array, stream, alone in zip(arrays, streams, single, strict=True):
        assert len(stream) <= BYTES
        gains.append(psnr(array, decode(stream)) - psnr(array, decode(alone)))
    assert np.abs(gains).max() < 0.8
    assert abs(np.mean(gains)) < 0.3


def test_unlike_chunks_do_not_harm_each_other(trained):
    """One with NaN, one constant, one that misses its budget, one cropped to its bounding box, among two."""
    arrays = [chunk(seed) for seed in range(6)]
    arrays[1][np.random.default_rng(0).random(SHAPE) < 0.02] = np.nan
    arrays[2][...] = 3
    arrays[3][np.random.default_rng(1).random(SHAPE) < 0.5] = np.nan  # which voxels takes all the bytes
    arrays[4][4:] = -7
    settings = Settings(ratio=arrays[0].nbytes / 480, effort="fast", model="network")
    with grouped(4):  # the constant one needs no fit, and the one without room is refused before
        results = encoded_together(arrays, settings)
    assert 3 in trained  # those of a whole chunk
    assert isinstance(results[3], BudgetError)
    for i in (0, 1, 2, 4, 5):
        alone = encode(arrays[i], settings)
        values = decode(results[i])
        assert len(results[i]) <= 480
        np.testing.assert_array_equal(np.isnan(values), np.isnan(arrays[i]))
        if i != 2:
            assert abs(psnr(arrays[i], values) - psnr(arrays[i], decode(alone))) < 0.8
    np.testing.assert_array_equal(decode(results[2]), arrays[2])
    np.testing.assert_array_equal(decode(results[4])[4:], -7)


def test_the_same_group_gives_the_same_bytes():
    arrays = [chunk(0)] * 4  # alike, so that it does not matter which thread comes first
    settings = Settings(ratio=arrays[0].nbytes / BYTES, effort="fast", model="network", experts=2)
    with grouped(4):
        first, again = (encoded_together(arrays, settings) for _ in range(2))
    assert len({*first, *again}) == 1


@pytest.mark.parametrize("target", [{"psnr": 34.0}, {"max_error": 0.3}])
def test_targets_are_met_in_groups(target, trained):
    arrays = [chunk(seed) for seed in range(3)]
    settings = Settings(**target, effort="balanced", model="network")
    with grouped(3):
        streams = encoded_together(arrays, settings)
    assert max(trained) == 3
    for array, stream in zip(arrays, streams, strict=True):
        values = decode(stream)
        if "psnr" in target:
            assert psnr(array, values) >= 34
        else:
            assert np.abs(values - array).max() <= 0.3


def test_chunks_without_networks_have_no_group(trained):
    arrays = [chunk(seed) for seed in range(3)]
    settings = Settings(ratio=arrays[0].nbytes / BYTES, effort="fast")
    with grouped(3):
        streams = encoded_together(arrays, settings)
    assert not trained
    assert streams == [encode(array, settings) for array in arrays]
    assert all(open_stream(stream).network is None for stream in streams)
