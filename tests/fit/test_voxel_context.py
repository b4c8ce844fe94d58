"""Corrections: which there are, about how many bytes they take, and the context that they are coded with."""

import numpy as np
import pytest

from moec_zarr.bitstream.residual import write_residual
from moec_zarr.fit.transform import voxel_context
from moec_zarr.fit.transform.voxel_context import estimate_voxel_bits, find_corrections, fit_voxel_context
from moec_zarr.model.residual import Residual

SHAPE = (20, 24, 28)


def clustered(share, size=1):
    """Corrections that stand close together, most of them by about `size`, on a share of the voxels."""
    rng = np.random.default_rng(0)
    wide = sum(np.roll(rng.normal(size=SHAPE), i, axis) for axis in range(3) for i in range(3))
    scale = np.quantile(np.abs(wide), 1 - share)
    return np.rint(size * wide / scale / 2).astype(np.int32)


def coded(corrections, steps):
    """Bytes of the stream."""
    return len(write_residual(Residual(1.0, 2.0, corrections), fit_voxel_context(corrections, steps)))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_is_beyond_the_bound_is_corrected(dtype):
    rng = np.random.default_rng(0)
    target = np.clip(rng.normal(0, 0.5, SHAPE), -1, 1).astype(dtype)
    values = (target + rng.normal(0, 0.05, SHAPE)).astype(dtype)
    valid = rng.random(SHAPE) < 0.9
    found = find_corrections(target, values, valid, 0.03)
    error = np.abs(target - np.clip(values, -1, 1))
    np.testing.assert_array_equal(found[~valid | (error <= 0.03)], 0)
    wrong = valid & (error > 0.03)
    np.testing.assert_array_equal(found[wrong], np.rint((target - values)[wrong] / 0.06))
    assert np.abs(target - values - 0.06 * found)[wrong].max() < 0.0301


def test_a_single_value_stands_for_all():
    target = np.linspace(-1, 1, 60, dtype="f4").reshape(3, 4, 5)
    zeros = np.zeros_like(target)
    np.testing.assert_array_equal(
        find_corrections(target, zeros[:1, :1, :1], None, 0.1), find_corrections(target, zeros, None, 0.1)
    )


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5])
@pytest.mark.parametrize("size", [1, 40])
def test_an_estimate_is_about_the_bytes_of_the_stream(share, size):
    corrections = clustered(share, size)
    assert estimate_voxel_bits(corrections) / 8 == pytest.approx(coded(corrections, 12), rel=0.1, abs=40)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_sample_gives_as_good_a_context(monkeypatch, share):
    corrections = clustered(share)
    whole = coded(corrections, 40)
    monkeypatch.setattr(voxel_context, "SAMPLE_SIZE", 500)
    assert coded(corrections, 40) < 1.05 * whole


def test_what_stands_behind_a_correction_is_foretold_by_it():
    """Where corrections are three voxels apart, the third neighbour says where the next one is."""
    corrections = np.zeros(SHAPE, np.int32)
    rng = np.random.default_rng(0)
    corrections[:, :, ::3] = (rng.random(SHAPE[:2]) < 0.1)[..., None]
    share = np.count_nonzero(corrections) / corrections.size
    unrelated = -share * np.log2(share) - (1 - share) * np.log2(1 - share) + share  # the last are signs
    assert 8 * coded(corrections, 40) < 0.65 * unrelated * corrections.size
