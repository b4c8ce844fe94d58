"""Bases of one axis, against SciPy's DCT and the reference decoder's construction."""

import numpy as np
import pytest
from scipy.fft import idct

from moec_zarr.model.basis import (
    AXIS_NEIGHBOURS,
    LONGEST_GRAPH_AXIS,
    AxisBasis,
    analysis_matrix,
    basis_functions,
    laplacian,
    maximum_levels,
    split_matrices,
    synthesis_matrix,
)
from tests.conformance import reference_decoder
from tests.support.strategies import COSINES, graph_fourier, wavelets

LENGTHS = [*range(1, 41), 91, 271]


def reference(basis, length):
    if basis.levels:
        return reference_decoder.wavelets(length, basis.levels)
    return reference_decoder.graph_fourier(basis.edge_weights) if basis.edge_weights else (
        reference_decoder.cosines(length)
    )  # fmt: skip


@pytest.mark.parametrize("length", LENGTHS)
def test_cosines_are_the_dct(length):
    expected = idct(np.eye(length), axis=0, norm="ortho")
    np.testing.assert_allclose(synthesis_matrix(COSINES, length), expected, atol=1e-6)


@pytest.mark.parametrize("length", [3, 5, 16, 31, LONGEST_GRAPH_AXIS])
def test_graph_fourier_modes_match_the_reference(length):
    basis = graph_fourier(length)
    expected = reference(basis, length).functions
    np.testing.assert_allclose(synthesis_matrix(basis, length), expected, atol=1e-6)


@pytest.mark.parametrize("length", [3, 5, 16, 31, LONGEST_GRAPH_AXIS])
def test_graph_fourier_mode_k_changes_sign_k_times(length):
    for k, mode in enumerate(synthesis_matrix(graph_fourier(length), length).T):
        significant = mode[np.abs(mode) > 1e-6]
        assert (np.diff(np.sign(significant)) != 0).sum() == k or len(significant) < length


def test_graph_fourier_basis_of_equal_weights_is_cosines():
    modes = synthesis_matrix(AxisBasis(edge_weights=(6,) * 11), 12)
    np.testing.assert_allclose(np.abs(modes), np.abs(synthesis_matrix(COSINES, 12)), atol=1e-6)


def test_laplacian():
    expected = [[2, -2, 0, 0], [-2, 6, -4, 0], [0, -4, 5, -1], [0, 0, -1, 1]]
    np.testing.assert_allclose(laplacian((2, 4, 0)), expected)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("length", [length for length in LENGTHS if length > 16])
def test_wavelets_match_the_reference(length, levels):
    """Made there from inverse lifting steps at the voxels."""
    basis = AxisBasis(levels)
    expected = reference(basis, length).functions
    np.testing.assert_allclose(synthesis_matrix(basis, length), expected, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ["cosines", "wavelets", "graph"])
def test_analysis_inverts_synthesis_of_unit_norm(name, length):
    basis = bases_by_name(name, length)
    synthesis, analysis = synthesis_matrix(basis, length), analysis_matrix(basis, length)
    assert synthesis.dtype == analysis.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(synthesis.astype("f8"), axis=0), 1, atol=2e-6)
    np.testing.assert_allclose(analysis @ synthesis, np.eye(length), atol=1e-5)
    data = np.random.default_rng(length).normal(size=(length, 5)).astype("f4")
    np.testing.assert_allclose(synthesis @ (analysis @ data), data, atol=2e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ["cosines", "wavelets", "graph"])
def test_bands_and_neighbours_match_the_reference(name, length):
    basis = bases_by_name(name, length)
    functions, expected = basis_functions(basis, length), reference(basis, length)
    assert functions.basis == basis
    assert functions.bands[0] == 0
    assert set(np.diff(functions.bands)) <= {0, 1}
    assert functions.prefix(int(functions.bands[-1])) == length
    assert functions.bands.tolist() == expected.bands
    assert functions.neighbours.shape == (AXIS_NEIGHBOURS, length)
    assert (functions.neighbours >= -1).all()
    assert (functions.neighbours < np.arange(length)).all()
    neighbours = [[-1 if i is None else i for i in each] for each in expected.neighbours]
    assert functions.neighbours.T.tolist() == neighbours


def bases_by_name(name, length):
    if name == "graph":
        return graph_fourier(length) if 3 <= length <= LONGEST_GRAPH_AXIS else COSINES
    return COSINES if name == "cosines" else wavelets(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_details_of_a_constant_vanish(length):
    ones = np.ones(length, "f4")
    details = basis_functions(wavelets(length), length).bands > 0
    np.testing.assert_allclose((analysis_matrix(wavelets(length), length) @ ones)[details], 0, atol=1e-5)
    np.testing.assert_allclose((analysis_matrix(COSINES, length) @ ones)[1:], 0, atol=1e-5)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_inner_details_of_a_polynomial_vanish(degree):
    """CDF 9/7 analysis has four vanishing moments; at the ends the polynomial is mirrored."""
    bands = basis_functions(wavelets(91), 91).bands
    coefficients = analysis_matrix(wavelets(91), 91).astype("f8") @ np.linspace(-1, 1, 91) ** degree
    for band in range(bands[-1] - 1, bands[-1] + 1):
        inner = coefficients[bands == band][4:-4]
        assert inner.size
        np.testing.assert_allclose(inner, 0, atol=1e-5)


def test_wavelets_of_a_band_are_ordered_along_the_axis():
    """By their centre of gravity."""
    functions = basis_functions(wavelets(91), 91)
    centre = np.arange(91) @ np.square(synthesis_matrix(wavelets(91), 91))
    for band in range(functions.bands[-1] + 1):
        assert (np.diff(centre[functions.bands == band]) > 0).all()


@pytest.mark.parametrize("length", LENGTHS)
def test_maximum_levels_leave_one_average(length):
    averages, levels = length, 0
    while averages > 1:
        averages, levels = -(-averages // 2), levels + 1
    assert maximum_levels(length) == levels


@pytest.mark.parametrize("length", [2, 7, 16, 33, 91])
def test_split_matrices_make_the_analysis_level_by_level(length):
    levels = maximum_levels(length)
    product, averages = np.eye(length), length
    for matrix in split_matrices(AxisBasis(levels), length):
        assert matrix.shape == (averages, averages)
        product[:averages] = matrix @ product[:averages]
        averages = -(-averages // 2)
    np.testing.assert_allclose(product, analysis_matrix(AxisBasis(levels), length), atol=1e-5)
