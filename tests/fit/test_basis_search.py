"""The choice of bases, on arrays made of a few functions of known ones."""

import numpy as np
import pytest
from scipy.fft import idctn

from moec_zarr.fit.basis_search import (
    axis_options,
    candidate_bases,
    edge_weights_for,
    extended_coefficients,
    inpaint,
    magnitude_exceeded,
    neighbouring_bases,
)
from moec_zarr.fit.rate_control import fit_transform
from moec_zarr.model.basis import (
    LARGEST_EDGE_WEIGHT,
    AxisBasis,
    basis_functions,
    maximum_levels,
)
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.transform import joint_axes
from tests.support.strategies import COSINES, random_bases


def sparse_array(shape, bases, corner=0):
    """A few functions of these bases at random, and the coarsest ones of a corner."""
    integers = np.zeros(shape, np.int32)
    integers.flat[np.random.default_rng(0).integers(integers.size // 3, size=200)] = 9
    integers[(slice(corner),) * len(shape)] = 9
    return CoefficientField(Coefficients(shape, bases, 0.1, integers)).whole()


@pytest.mark.parametrize(
    "bases",
    [
        (COSINES, AxisBasis(3), AxisBasis(3)),
        (COSINES, AxisBasis(3, joint=True), AxisBasis(3, joint=True)),
        (AxisBasis(2, joint=True), AxisBasis(3, joint=True), AxisBasis(3, joint=True)),
    ],
    ids=["separate", "two joint", "three joint"],
)
def test_best_candidate_is_what_the_array_is_made_of(bases):
    array = sparse_array((24, 40, 48), bases)
    assert candidate_bases(array, 200, axis_options(array))[0] == bases


@pytest.mark.parametrize(
    "bases",
    [
        (AxisBasis(3), AxisBasis(5, joint=True), AxisBasis(5, joint=True)),
        (AxisBasis(3), AxisBasis(4), AxisBasis(4)),
    ],
    ids=["joint", "separate"],
)
def test_search_reaches_bases_beyond_the_candidates(bases):
    """Of more levels than those of any candidate."""
    array = sparse_array((10, 24, 24), bases, corner=3)  # fewer levels would spread the corner
    assert bases not in candidate_bases(array, 227, axis_options(array))
    transform = fit_transform(array, None, 500, basis_trials=40)
    assert transform is not None
    assert transform.coefficients.bases == bases


def test_candidates_include_cosines_alone_and_wavelets_alone():
    array = np.random.default_rng(0).normal(size=(9, 20, 33)).astype("f4")
    candidates = candidate_bases(array, 100, axis_options(array))
    assert len(set(candidates)) == len(candidates)
    assert any(all(basis.levels == 0 for basis in bases) for bases in candidates)
    assert any(all(basis.levels and not basis.joint for basis in bases) for bases in candidates)
    assert all(len(joint_axes(bases)) != 1 for bases in candidates)


def test_neighbouring_bases_differ_in_one_thing():
    rng = np.random.default_rng(0)
    shape = (9, 20, 33)
    options = axis_options(rng.normal(size=shape).astype("f4"))
    for _ in range(30):
        bases = random_bases(shape, rng)
        for other in neighbouring_bases(bases, shape, options):
            assert other != bases
            assert len(joint_axes(other)) != 1
            assert all(0 <= b.levels <= maximum_levels(n) for b, n in zip(other, shape, strict=True))
            changed = [(a, b) for a, b in zip(bases, other, strict=True) if a != b]
            together = all(a.joint and b.joint and abs(a.levels - b.levels) == 1 for a, b in changed)
            assert len(changed) == 1 or together


# -------------------------------------------------------------------------------- edge weights


def test_edge_weights_follow_differences():
    """Where levels 0..7 and 8..15 of an axis have little in common, its slow modes are steps."""
    assert edge_weights_for(np.ones(15)) == ()
    differences = np.ones(15)
    differences[7] = 1000.0
    weights = edge_weights_for(differences)
    assert max(weights) <= LARGEST_EDGE_WEIGHT
    assert min(weights) == weights[7]
    step = basis_functions(AxisBasis(edge_weights=weights), 16).synthesis[:, 1]
    np.testing.assert_allclose(np.abs(step), 0.25, atol=0.07)
    assert len(set(np.sign(step[:8]))) == len(set(np.sign(step[8:]))) == 1


def test_edge_weights_keep_eigenvalues_apart():
    """Two equal halves that are hardly connected: their modes come in pairs of any mixture."""
    differences = np.ones(63)
    differences[31] = 1e30
    weights = edge_weights_for(differences)
    assert weights
    laplacian = np.zeros((64, 64))
    for i, weight in enumerate(weights):
        laplacian[i : i + 2, i : i + 2] += 2 ** (weight / 2) * np.array([[1, -1], [-1, 1]])
    values = np.linalg.eigvalsh(laplacian)
    assert np.diff(values).min() > 1e-7 * values[-1]


# --------------------------------------------------------------------------- invalid voxels


def test_magnitude_exceeded_by_a_count():
    magnitudes = np.random.default_rng(0).permutation(60).reshape(3, 4, 5).astype("f4")
    for count in (1, 7, 60):
        threshold = magnitude_exceeded(magnitudes, count)
        assert threshold == 60 - count
        assert (magnitudes >= threshold).sum() == count


def test_extension_keeps_valid_voxels_and_is_sparse():
    """Nine cosines come back, though a fifth of the voxels is unknown."""
    shape, bases = (24, 30), (COSINES, COSINES)
    integers = np.zeros(shape, np.int32)
    integers[:3, :3] = 9
    array = CoefficientField(Coefficients(shape, bases, 0.1, integers)).whole()
    valid = np.random.default_rng(0).random(shape) > 0.2
    coefficients = extended_coefficients(np.where(valid, array, np.float32(0)), valid, bases, 12)
    np.testing.assert_allclose(coefficients, 0.1 * integers, atol=0.01)
    values = idctn(coefficients.astype("f8"), norm="ortho")
    np.testing.assert_allclose(values[valid], array[valid], atol=1e-5)


def test_inpaint_keeps_valid_voxels():
    array = np.random.default_rng(0).normal(size=(20, 24)).astype("f4")
    valid = np.ones(array.shape, bool)
    valid[5:9, 7:15] = False
    array[~valid] = 1e30
    filled = inpaint(array, valid, 100)
    np.testing.assert_array_equal(filled[valid], array[valid])
    assert np.abs(filled).max() < 10
