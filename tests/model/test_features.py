"""What a network reads of the transform, against the reference decoder."""

import numpy as np
import pytest

from moec_zarr.bitstream.coefficients import write_coefficients
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.features import (
    Stencil,
    feature_count,
    offsets_of,
    values_and_features,
)
from moec_zarr.model.neighbourhood import SampledField, neighbours, sample_around
from tests.conformance import reference_decoder
from tests.support.strategies import (
    COSINES,
    GRIDS,
    random_bases,
    random_coefficients,
    random_context,
    random_stencils,
)


def read_features(field, stencils, indices, pointwise=False):
    return values_and_features(field, stencils, indices, pointwise)[1]


def random_field(shape, seed):
    rng = np.random.default_rng(seed)
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng)
    return CoefficientField(coefficients), random_stencils(len(shape), rng), rng


@pytest.mark.parametrize("shape", GRIDS)
def test_features_match_the_reference(shape):
    field, stencils, rng = random_field(shape, 2)
    result = read_features(field, stencils, [np.arange(n) for n in shape])
    assert result.dtype == np.float32
    assert result.shape == (np.prod(shape), feature_count(len(shape)))
    data = write_coefficients(field.coefficients, random_context(len(shape), rng))
    reference = reference_decoder.read_coefficients(data, shape)
    expected = reference.features([stencil.distance + 16 * stencil.gain for stencil in stencils])
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("shape", GRIDS)
def test_features_at_points_and_strides_match_the_grid(shape):
    field, stencils, rng = random_field(shape, 3)
    grid = read_features(field, stencils, [np.arange(n) for n in shape]).reshape(*shape, -1)
    points = [rng.integers(0, n, 50) for n in shape]
    at_points = read_features(field, stencils, points, pointwise=True)
    np.testing.assert_allclose(at_points, grid[tuple(points)], atol=1e-4)
    strided = [np.arange(n)[:: -2 if n > 2 else 1] for n in shape]
    part = grid[np.ix_(*strided)]
    np.testing.assert_allclose(read_features(field, stencils, strided).reshape(part.shape), part, atol=1e-4)


@pytest.mark.parametrize("shape", GRIDS)
def test_a_field_sampled_around_a_grid_reads_like_the_field(shape):
    field, stencils, _ = random_field(shape, 4)
    whole = [np.arange(n) for n in shape]
    near = sample_around(field, offsets_of(stencils), whole)
    assert isinstance(near, SampledField)  # a dense grid shares its neighbours
    for indices in (whole, [np.arange(n)[:: -2 if n > 2 else 1] for n in shape]):
        result, expected = read_features(near, stencils, indices), read_features(field, stencils, indices)
        np.testing.assert_allclose(result, expected, atol=1e-4)


def test_scattered_voxels_are_not_sampled_with_all_between():
    field = random_field((64, 64, 64), 5)[0]
    scattered = [np.arange(0, 64, 31)] * 3
    assert sample_around(field, offsets_of([Stencil(1, 0)] * 3), scattered) is field


def test_features_of_a_constant_field_are_finite():
    mean = Coefficients((5, 9), (COSINES,) * 2, 2.0, np.ones((1, 1), np.int32))
    field, indices = CoefficientField(mean), [np.arange(5), np.arange(9)]
    np.testing.assert_allclose(field.values(indices), 2 / np.sqrt(45), rtol=1e-5)
    features = read_features(field, [Stencil(1, 15)] * 2, indices)
    np.testing.assert_allclose(features[:, 0], 2 / np.sqrt(45), rtol=1e-5)
    assert (features[:, 1:] == 0).all()


def test_neighbours_are_clipped_to_the_axis():
    places = neighbours(np.array([0, 4, 9]), offsets_of([Stencil(2, 0)])[0], 10)
    assert places.tolist() == [[2, 6, 9], [0, 2, 7], [6, 9, 9], [0, 0, 3]]
