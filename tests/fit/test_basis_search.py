"""The choice of bases, on arrays made of a few functions of known ones."""

import numpy as np
import pytest
from scipy.fft import dctn

from moec_zarr.fit.transform.basis_search import (
    RATE,
    Analyses,
    choose_edge_weights,
    energy_of,
    estimate_kept,
    find_exceeded,
    find_joint,
    find_separate,
    measure,
    side_bits,
    wavelets_of,
)
from moec_zarr.fit.transform.inpainting import fill_smoothly, inpaint
from moec_zarr.fit.transform.rate_control import fit_transform
from moec_zarr.model.basis import (
    LARGEST_EDGE_WEIGHT,
    AxisBasis,
    synthesis_matrix,
)
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.transform import analyse, joint_axes
from tests.support.strategies import COSINES


def wavelets(array):
    return tuple(map(wavelets_of, array.shape))


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
        (COSINES, AxisBasis(4, joint=True), AxisBasis(4, joint=True)),
        (AxisBasis(3, joint=True), AxisBasis(4, joint=True), AxisBasis(4, joint=True)),
    ],
    ids=["separate", "two joint", "three joint"],
)
def test_best_candidate_is_what_the_array_is_made_of(bases):
    array = sparse_array((24, 40, 48), bases)
    known = Analyses(array, wavelets(array), 200)
    assert find_joint(known, find_separate(known)) == bases
    transform = fit_transform(array, None, 600)
    assert transform is not None
    assert transform.coefficients.bases == bases


def test_what_is_found_is_no_worse_than_what_a_search_starts_from():
    array = np.random.default_rng(0).normal(size=(9, 20, 33)).astype("f4").cumsum(axis=1)
    known = Analyses(array, wavelets(array), 100)
    separate = find_separate(known)
    joint = find_joint(known, separate)
    assert not joint_axes(separate)
    assert len(joint_axes(joint)) != 1
    for bases in separate, joint:
        lost = measure(analyse(array, bases), known.step)
        assert known.lose(bases) == pytest.approx(lost + RATE * side_bits(bases), rel=1e-3)
    assert known.lose(joint) <= known.lose(separate) <= known.lose(known.start)


@pytest.mark.parametrize(
    "bases",
    [
        (AxisBasis(2), COSINES, AxisBasis(3)),
        (COSINES, COSINES, AxisBasis(3)),
        (AxisBasis(2), AxisBasis(4, joint=True), AxisBasis(4, joint=True)),
    ],
    ids=["a line", "a plane", "joint"],
)
def test_estimate_of_what_is_lost_comes_near(bases):
    """Energy of a few planes and lines makes up most of it, as it does in real fields."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=(40, 48, 56)) * np.exp(3 * rng.normal(size=(40, 1, 1)))
    array = array.cumsum(axis=1).cumsum(axis=2).astype("f4")
    known = Analyses(array, (AxisBasis(2), AxisBasis(3), AxisBasis(3)), 2000)
    assert known.lose(bases) == pytest.approx(measure(analyse(array, bases), known.step), rel=0.1)


def test_coefficients_follow_from_those_in_other_bases():
    array = np.random.default_rng(0).normal(size=(9, 20, 33)).astype("f4")
    known = Analyses(array, (AxisBasis(2), AxisBasis(1), AxisBasis(2)), 100)
    for bases in [
        (AxisBasis(2), AxisBasis(1), AxisBasis(3)),
        (COSINES, AxisBasis(1), AxisBasis(3)),
        (COSINES, COSINES, COSINES),
        (COSINES, AxisBasis(2, joint=True), AxisBasis(2, joint=True)),
    ]:
        assert known.find(bases) == pytest.approx(analyse(array, bases), abs=1e-5)


@pytest.mark.parametrize("size", [1, 16, 1000])
def test_measure_and_energy_follow_their_formulas(size):
    coefficients = (2 * np.random.default_rng(size).standard_normal(size) ** 5).astype("f4")
    x = np.abs(coefficients.astype("f8")) / 0.3
    lost = np.minimum(x**2, 1 / 12 + RATE * (2 + np.log2(np.maximum(x, 1)))).sum()
    assert measure(coefficients, 0.3) == pytest.approx(lost)
    assert energy_of(coefficients) == pytest.approx(np.square(coefficients.astype("f8")).sum(), rel=1e-12)


def test_coefficients_kept_within_an_error():
    """All others, and about a fifth of a threshold's square for each that is kept."""
    coefficients = np.concatenate([np.full(30, 10.0), np.full(970, 0.1)]).astype("f4")
    assert 30 <= estimate_kept(coefficients, 970 * 0.01) < 45


# -------------------------------------------------------------------------------- edge weights


def test_edge_weights_follow_differences():
    """Where levels 0..7 and 8..15 of an axis have little in common, its slow modes are steps."""
    assert choose_edge_weights(np.ones(15)) == ()
    differences = np.ones(15)
    differences[7] = 1000.0
    weights = choose_edge_weights(differences)
    assert max(weights) <= LARGEST_EDGE_WEIGHT
    assert min(weights) == weights[7]
    step = synthesis_matrix(AxisBasis(edge_weights=weights), 16)[:, 1]
    np.testing.assert_allclose(np.abs(step), 0.25, atol=0.07)
    assert len(set(np.sign(step[:8]))) == len(set(np.sign(step[8:]))) == 1


def test_edge_weights_keep_eigenvalues_apart():
    """Two equal halves that are hardly connected: their modes come in pairs of any mixture."""
    differences = np.ones(63)
    differences[31] = 1e30
    weights = choose_edge_weights(differences)
    assert weights
    laplacian = np.zeros((64, 64))
    for i, weight in enumerate(weights):
        laplacian[i : i + 2, i : i + 2] += 2 ** (weight / 2) * np.array([[1, -1], [-1, 1]])
    values = np.linalg.eigvalsh(laplacian)
    assert np.diff(values).min() > 1e-7 * values[-1]


# --------------------------------------------------------------------------- invalid voxels


def test_magnitude_exceeded_by_a_count():
    magnitudes = np.random.default_rng(0).permutation(60).reshape(3, 4, 5).astype("f4")
    for count in (1, 7, 59):
        threshold = find_exceeded(-magnitudes, count)
        assert threshold == 60 - count
        assert (magnitudes >= threshold).sum() == count


def test_inpainting_finds_what_is_sparse_and_keeps_valid_voxels():
    """Nine cosines come back, though a fifth of the voxels is unknown."""
    shape, bases = (24, 30), (COSINES, COSINES)
    integers = np.zeros(shape, np.int32)
    integers[:3, :3] = 9
    array = CoefficientField(Coefficients(shape, bases, 0.1, integers)).whole()
    valid = np.random.default_rng(0).random(shape) > 0.2
    start = fill_smoothly(np.where(valid, array, np.float32(0)), valid)
    values = inpaint(start, valid, bases, 12, 12)
    np.testing.assert_array_equal(values[valid], array[valid])
    coefficients = dctn(values.astype("f8"), norm="ortho")
    np.testing.assert_allclose(coefficients, 0.1 * integers, atol=0.03)


def test_smooth_filling_lies_between_valid_values():
    array = np.random.default_rng(0).normal(size=(20, 24)).astype("f4")
    valid = np.ones(array.shape, bool)
    valid[5:9, 7:15] = False
    spoilt = np.where(valid, array, np.float32(1e30))
    values = fill_smoothly(spoilt, valid)
    np.testing.assert_array_equal(values[valid], array[valid])
    assert values.min() >= array[valid].min()
    assert values.max() <= array[valid].max()
    assert not fill_smoothly(spoilt, np.zeros(array.shape, bool)).any()


def test_few_fold_ratios_take_the_basis_that_an_array_is_made_of():
    """Noise of a fixed power in each coefficient: only its own basis has the fewest bits."""
    bases = (COSINES, AxisBasis(3), AxisBasis(3))
    shape = (24, 40, 48)
    power = np.exp(-np.add.outer(np.add.outer(np.arange(24) / 4, np.arange(40) / 9), np.arange(48) / 9))
    integers = np.rint(1e5 * power * np.random.default_rng(0).standard_normal(shape)).astype(np.int32)
    array = CoefficientField(Coefficients(shape, bases, 1e-6, integers)).whole()
    transform = fit_transform(array, None, array.nbytes // 10)
    assert transform.coefficients.bases == bases
