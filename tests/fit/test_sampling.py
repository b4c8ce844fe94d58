"""Samples of a chunk as a fit sees it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.field import Field, activity_points  # noqa: E402
from moec_zarr.model.normalisation import Normalisation  # noqa: E402

UNCHANGED = Normalisation(0.0, 1.0)


def seeded():
    return torch.Generator().manual_seed(0)


def test_targets_are_what_the_transform_leaves():
    rng = np.random.default_rng(0)
    array, base = rng.integers(-100, 900, (5, 6)).astype("i2"), rng.normal(size=(5, 6)).astype("f4")
    normalisation = Normalisation(centre=400.0, scale=500.0, shift=3)
    expected = ((array - 400.0) / 500.0 - base) * 2**3
    field = Field(array, None, normalisation, base=base)
    np.testing.assert_allclose(field.targets(...), expected, rtol=1e-5, atol=1e-6)


def test_a_transform_sees_zero_at_invalid_voxels():
    array = np.array([[1.0, np.nan, 3.0], [np.inf, 1e300, -1.0]])
    normalisation = Normalisation(centre=1.0, scale=2.0)
    field = Field(array, np.array([[True, False, True], [False, False, True]]), normalisation)
    np.testing.assert_array_equal(field.normalised(), [[0, 0, 1], [0, 0, -1]])
    assert np.isnan(array[0, 1])  # it is never written to


def test_only_valid_voxels_are_drawn():
    valid = np.zeros((7, 8), bool)
    valid[2:4, 3] = True
    index = Field(np.zeros((7, 8)), valid, UNCHANGED).draw(1000, seeded())
    assert [len(i) for i in index] == [1000, 1000]
    assert valid[index].all()
    counts = np.bincount(index[0])[2:4]
    assert 400 < counts.min() <= counts.max() < 600


def test_differences_are_nan_next_to_invalid_voxels():
    array = np.arange(20.0).reshape(4, 5) ** 2
    valid = np.ones((4, 5), bool)
    valid[1, 2] = False
    index = tuple(i.ravel() for i in np.indices((4, 5)))
    down, right = (d.reshape(4, 5) for d in Field(array, valid, UNCHANGED).differences(index))
    expected = np.diff(array, axis=0)
    expected = np.concatenate([expected, expected[-1:]])  # at the end, to the voxel before
    expected[0, 2] = np.nan
    np.testing.assert_allclose(down, expected)
    expected = np.diff(array, axis=1)
    expected = np.concatenate([expected, expected[:, -1:]], axis=1)
    expected[1, 1] = np.nan
    np.testing.assert_allclose(right, expected)


def test_activity_points_are_denser_where_the_field_changes():
    array = np.zeros((40, 40))
    array[:, 20:] = np.random.default_rng(0).normal(size=(40, 20))
    points = activity_points(Field(array, None, UNCHANGED), 2000, seeded())
    assert points.shape == (2000, 2)
    assert np.abs(points).max() <= 1
    assert (points[:, 1] > 0).mean() > 0.7
