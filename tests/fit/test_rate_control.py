"""Transforms within a byte budget, measured against plain uniform quantisation of a DCT."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from moec_zarr.bitstream.coefficients import read_coefficients
from moec_zarr.fit.transform.error_control import fit_transform_to_error
from moec_zarr.fit.transform.rate_control import fit_transform
from moec_zarr.fit.transform.start import squared_error
from moec_zarr.model.basis import AxisBasis
from tests.support.fields import normalised, smooth
from tests.support.strategies import COSINES


def values_of(transform):
    return transform.field().whole()


def mean_square(rest):
    return float(np.square(rest, dtype=np.float64).mean())


def error_of_uniform_quantisation(array, budget):
    """Mean square error of a DCT's coefficients in equal steps, deflated to so many bytes."""
    coefficients = dctn(array, norm="ortho")
    low, high = -16.0, 4.0
    for _ in range(30):
        middle = (low + high) / 2
        integers = np.rint(coefficients / 2**middle).astype("<i2")
        planes = integers.view(np.uint8).reshape(-1, 2).T.tobytes()
        low, high = (low, middle) if len(zlib.compress(planes, 9)) <= budget else (middle, high)
    return mean_square(idctn(np.rint(coefficients / 2**high) * 2**high, norm="ortho") - array)


@pytest.mark.parametrize("budget", [100, 200, 400, 800, 1600])
def test_budget_is_kept_and_used_well(field, budget):
    transform = fit_transform(field.copy(), None, budget)
    assert transform is not None
    assert 0.9 * budget - 10 < len(transform.payload) <= budget
    error = mean_square(values_of(transform) - field)
    assert error < 0.7 * error_of_uniform_quantisation(field, budget)
    result = read_coefficients(transform.payload, field.shape)
    assert result.bases == transform.coefficients.bases
    assert result.step == transform.coefficients.step
    own = tuple(slice(n) for n in transform.coefficients.integers.shape)  # a reader extends it to whole bands
    np.testing.assert_array_equal(result.integers[own], transform.coefficients.integers)
    assert np.count_nonzero(result.integers) == np.count_nonzero(transform.coefficients.integers)


@pytest.mark.parametrize("shape", [(700,), (8, 9, 10), (48, 52, 44)])
def test_field_far_smoother_than_its_budget(shape):
    target = normalised(smooth(shape))
    transform = fit_transform(target.copy(), None, 300)
    assert transform is not None
    assert len(transform.payload) <= 300
    assert mean_square(values_of(transform) - target) < 1e-5


def test_budget_that_pays_for_nothing(field):
    assert fit_transform(field.copy(), None, 12) is None
    assert fit_transform(np.zeros((9, 12), np.float32), None, 300) is None


def holes(shape, kind):
    valid = np.ones(shape, bool)
    if kind == "block":
        valid[:, 8:20, 10:24] = False
    elif kind == "edge":
        valid[..., : shape[-1] // 3] = False
    else:
        valid[np.random.default_rng(0).random(shape) < 0.3] = False
    return valid


@pytest.mark.parametrize("kind", ["block", "edge", "scattered"])
def test_invalid_voxels_cost_nothing(field, fitted, kind):
    valid = holes(field.shape, kind)
    transform = fit_transform(np.where(valid, field, np.float32(0)), valid, 500)
    assert transform is not None
    assert len(transform.payload) <= 500
    error = mean_square((values_of(transform) - field)[valid])
    assert error < 10**0.12 * mean_square((values_of(fitted) - field)[valid])  # of values that are all known


def test_values_at_invalid_voxels_do_not_matter(field):
    valid = holes(field.shape, "block")
    one, other = (fit_transform(np.where(valid, field, np.float32(v)), valid, 300) for v in (0, 1e20))
    assert one is not None
    assert other is not None
    assert one.payload == other.payload


def test_warm_start_keeps_bases_and_budget(field, fitted):
    """Though there are better bases for this field, and the budget is another one."""
    warm_start = replace(fitted.coefficients, bases=(COSINES, AxisBasis(2), AxisBasis(1)))
    transform = fit_transform(field[:, ::-1].copy(), None, 400, warm_start)
    assert transform is not None
    assert transform.coefficients.bases == warm_start.bases
    assert len(transform.payload) <= 400
    error = mean_square(values_of(transform) - field[:, ::-1])
    assert error < 0.7 * error_of_uniform_quantisation(field, 400)


def test_target_is_not_changed(field, fitted):
    """`field` is read-only."""
    transform = fit_transform(field, None, 500)
    assert transform is not None
    assert transform.payload == fitted.payload


def test_squared_error():
    values, target = np.array([1.0, 2.0, 7.0], "f4"), np.array([0.0, 4.0, 1e30], "f4")
    assert squared_error(values[:2], target[:2], None) == 5.0
    with np.errstate(over="ignore"):
        assert squared_error(values, target, np.array([True, True, False])) == 5.0


@pytest.mark.parametrize("error", [1e-3, 1e-4, 1e-6])
def test_smallest_transform_within_an_error(field, error):
    """Kept, used well, and about the bytes that the same error takes by budget."""
    result = fit_transform_to_error(field.copy(), None, error)
    assert result is not None
    transform, reached = result
    measured = mean_square(np.clip(values_of(transform), -1, 1) - field)
    assert reached == pytest.approx(measured, rel=1e-3)
    assert 0.9 * error < reached <= error
    smaller = fit_transform(field.copy(), None, int(0.9 * len(transform.payload)))
    assert smaller is not None
    assert mean_square(values_of(smaller) - field) > error


def test_no_error_is_exceeded(field):
    """Not by a hair either, wherever the search ends."""
    for error in np.geomspace(1e-2, 1e-5, 25):
        result = fit_transform_to_error(field.copy(), None, error)
        assert result is not None
        assert mean_square(np.clip(values_of(result[0]), -1, 1) - field) <= error


def test_error_counts_valid_voxels_alone(field):
    valid = holes(field.shape, "block")
    result = fit_transform_to_error(np.where(valid, field, np.float32(1e20)), valid, 1e-4)
    assert result is not None
    assert mean_square((np.clip(values_of(result[0]), -1, 1) - field)[valid]) <= 1e-4


@pytest.mark.parametrize("ratio", [18, 20, 22])
def test_bases_that_lose_much_do_not_rule_out_the_others(ratio):
    """Those in which a fine quantiser takes the fewest bits may lose too much to be tried."""
    array = np.linalg.norm(np.indices((16, 48, 48)), axis=0).astype("f4")[:8, :16, 24:]
    target = (array - array.mean()) / np.ptp(array)
    found = fit_transform(np.ascontiguousarray(target), None, int(array.nbytes / ratio))
    assert found is not None
    assert len(found.payload) > 0.9 * array.nbytes / ratio


@pytest.mark.parametrize("photons", [3, 10, 30])
def test_noise_uses_its_budget_and_more_bytes_lower_its_error(photons):
    """Noise takes many times the bytes of a slightly coarser step, all of it or next to none."""
    rng, shape = np.random.default_rng(0), (16, 64, 64)
    light = photons * np.exp(2 * normalised(smooth(shape)) - 2)
    target = normalised(rng.poisson(light) + 1.6 * rng.standard_normal(shape))
    errors = []
    for budget in (660, 1310, 6550, 13100):
        transform = fit_transform(target.copy(), None, budget)
        assert transform is not None
        # A finer step in fewer bytes may have the smaller error.
        assert 0.8 * budget < len(transform.payload) <= budget
        errors.append(mean_square(values_of(transform) - target))
    assert errors == sorted(errors, reverse=True)
