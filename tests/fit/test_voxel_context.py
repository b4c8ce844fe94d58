"""The context of corrections: about the bytes that it promises, from a sample as from all of them."""

import numpy as np
import pytest

from moec_zarr.bitstream.residual import write_residual
from moec_zarr.fit.transform import voxel_context
from moec_zarr.fit.transform.voxel_context import fit_voxel_context
from moec_zarr.model.residual import Residual

SHAPE = (20, 24, 28)


def clustered(share):
    """Corrections that stand close together, most of them by one, on about this share of the voxels."""
    rng = np.random.default_rng(0)
    wide = sum(np.roll(rng.normal(size=SHAPE), i, axis) for axis in range(3) for i in range(3))
    scale = np.quantile(np.abs(wide), 1 - share)
    return np.rint(wide / scale / 2).astype(np.int32)


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5])
def test_the_bits_are_those_of_the_stream(share):
    corrections = clustered(share)
    context, bits = fit_voxel_context(corrections, 12)
    stream = write_residual(Residual(1.0, 2.0, corrections), context)
    assert 0 < len(stream) - bits / 8 < 40  # what stands before the words


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_sample_gives_as_good_a_context(monkeypatch, share):
    corrections = clustered(share)
    _, whole = fit_voxel_context(corrections, 40)
    monkeypatch.setattr(voxel_context, "SAMPLE_SIZE", 500)
    _, sampled = fit_voxel_context(corrections, 40)
    assert sampled < 1.05 * whole


def test_what_stands_behind_a_correction_is_foretold_by_it():
    """Where corrections are three voxels apart, the third neighbour says where the next one is."""
    corrections = np.zeros(SHAPE, np.int32)
    rng = np.random.default_rng(0)
    corrections[:, :, ::3] = (rng.random(SHAPE[:2]) < 0.1)[..., None]
    _, bits = fit_voxel_context(corrections, 40)
    share = np.count_nonzero(corrections) / corrections.size
    unrelated = -share * np.log2(share) - (1 - share) * np.log2(1 - share) + share  # the last are signs
    assert bits < 0.6 * unrelated * corrections.size
