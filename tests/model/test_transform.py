"""Synthesis and analysis in products of bases, against SciPy's DCT and the reference decoder."""

import math

import numpy as np
import pytest
from scipy.fft import idctn

from moec_zarr.bitstream.coefficients import write_coefficients
from moec_zarr.config import config
from moec_zarr.model.basis import DOUBLE, AxisBasis, functions_of
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.transform import (
    along,
    analyse,
    joint_axes,
    joint_levels,
    product,
    synthesise,
)
from tests.conformance import reference_decoder
from tests.support.strategies import (
    COSINES,
    GRIDS,
    random_bases,
    random_coefficients,
    random_context,
    wavelets,
)


@pytest.mark.parametrize("shape", GRIDS)
def test_cosines_add_up_to_the_inverse_dct(shape):
    coefficients = random_coefficients(shape, (COSINES,) * len(shape), np.random.default_rng(1))
    whole = np.zeros(shape)
    whole[tuple(slice(n) for n in coefficients.integers.shape)] = coefficients.integers * coefficients.step
    values = CoefficientField(coefficients).values([np.arange(n) for n in shape])
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, idctn(whole, norm="ortho"), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("axis", range(3))
def test_sparse_and_whole_matrices_agree(axis, dtype):
    """A matrix of which few numbers are not zero is applied by compiled code, where enough is there to do."""
    rng = np.random.default_rng(3)
    array = rng.standard_normal((30, 64, 40)).astype(dtype)
    matrix = np.where(rng.random((50, array.shape[axis])) < 0.1, 1, 0).astype(dtype)
    matrix[0], matrix[1, :9] = 0, 1
    expected = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
    for compiled in True, False:
        with config.set(compiled=compiled):
            result = along(array, matrix, axis)
        assert result.dtype == dtype
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("shape", GRIDS)
def test_values_match_the_reference(shape):
    rng = np.random.default_rng(2)
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng)
    data = write_coefficients(coefficients, random_context(len(shape), rng))
    expected = reference_decoder.read_coefficients(data, shape).values()
    np.testing.assert_allclose(CoefficientField(coefficients).whole().ravel(), expected, atol=1e-5)


@pytest.mark.parametrize("shape", GRIDS)
def test_double_precision_matches_the_reference(shape):
    rng = np.random.default_rng(2)
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng)
    data = write_coefficients(coefficients, random_context(len(shape), rng))
    expected = reference_decoder.read_coefficients(data, shape).values()
    field = CoefficientField(coefficients, DOUBLE)
    atol = 1e-11 * np.abs(coefficients.integers).sum() * coefficients.step
    np.testing.assert_allclose(field.whole().ravel(), expected, rtol=0, atol=atol)
    points = [rng.integers(0, n, 50) for n in shape]
    np.testing.assert_allclose(field.values(points, True), field.whole()[tuple(points)], rtol=0, atol=atol)


@pytest.mark.parametrize("shape", GRIDS)
def test_values_at_points_and_strides_match_the_grid(shape):
    rng = np.random.default_rng(3)
    field = CoefficientField(random_coefficients(shape, random_bases(shape, rng), rng))
    assert field.shape == shape
    values = field.values([np.arange(n) for n in shape])
    np.testing.assert_array_equal(field.whole(), values)
    points = [rng.integers(0, n, 50) for n in shape]
    np.testing.assert_allclose(field.values(points, pointwise=True), values[tuple(points)], atol=1e-5)
    strided = [np.arange(n)[:: -2 if n > 2 else 1] for n in shape]
    np.testing.assert_allclose(field.values(strided), values[np.ix_(*strided)], atol=1e-5)


@pytest.mark.parametrize("shape", GRIDS)
def test_analysis_inverts_synthesis(shape):
    rng = np.random.default_rng(4)
    data = rng.normal(size=shape).astype(np.float32)
    for _ in range(5):
        bases = random_bases(shape, rng)
        coefficients = analyse(data, bases)
        assert coefficients.shape == shape
        field = product(coefficients, functions_of(bases, shape))
        np.testing.assert_allclose(synthesise(field, [slice(None)] * len(shape)), data, atol=1e-4)


@pytest.mark.parametrize("shape", GRIDS)
def test_norm_is_the_deviation_of_orthonormal_coefficients(shape):
    """Parseval; cosines are orthonormal, so the mean square about the mean is exact."""
    field = CoefficientField(random_coefficients(shape, (COSINES,) * len(shape), np.random.default_rng(5)))
    expected = field.whole().astype("f8").std()
    assert field.norm == pytest.approx(expected if expected > 1e-7 else 1.0, rel=1e-5)


@pytest.mark.parametrize("axis", range(3))
def test_along_applies_a_matrix_to_one_axis(axis):
    rng = np.random.default_rng(0)
    array, matrix = rng.normal(size=(3, 4, 5)), rng.normal(size=(6, 3 + axis))
    expected = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
    np.testing.assert_allclose(along(array, matrix, axis), expected)


def test_joint_axes_and_levels():
    bases = (AxisBasis(2, joint=True), AxisBasis(5), AxisBasis(3, joint=True), COSINES)
    assert joint_axes(bases) == [0, 2]
    assert joint_levels(bases) == 3
    assert joint_levels((COSINES, AxisBasis(4))) == 0


@pytest.mark.parametrize("corner", [1, 2, 5, 9])
def test_product_of_coarse_coefficients_is_small(corner):
    """Of joint wavelets of unequal levels; what is merged stands for the same field."""
    shape = (9, 20, 33)
    bases = (wavelets(9), AxisBasis(2, joint=True), AxisBasis(4, joint=True))
    functions = functions_of(bases, shape)
    core = np.zeros(shape, np.float32)
    core[:corner, :corner, :corner] = np.random.default_rng(corner).normal(size=(corner,) * 3)
    field = product(core, functions)
    values = synthesise(field, [slice(None)] * 3)
    np.testing.assert_allclose(analyse(values, bases), core, atol=1e-5)
    cut = product(core[:corner, :corner, :corner], functions)
    np.testing.assert_allclose(synthesise(cut, [slice(None)] * 3), values, atol=1e-5)
    assert cut.coefficients.size <= math.prod(shape) / (4 if corner <= 5 else 1)


def test_many_points_match_the_grid():
    """More than are worth evaluating one by one, at few distinct indices and at many."""
    shape = (9, 20, 33)
    rng = np.random.default_rng(0)
    field = CoefficientField(random_coefficients(shape, random_bases(shape, rng), rng))
    values = field.whole()
    for count in (1, 3, 5000):
        points = [rng.integers(0, n, count) for n in shape]
        np.testing.assert_allclose(field.values(points, pointwise=True), values[tuple(points)], atol=1e-5)
