"""Fitted contexts on coefficients drawn from known distributions."""

import math

import numpy as np
import pytest
from scipy import stats

from moec_zarr.bitstream.contexts import classes, zero_context_activity
from moec_zarr.fit.transform.context_fit import (
    Sample,
    _laplace_table,
    _sample_bits,
    first_parameters,
    fit_context,
    round_parameters,
    round_rise,
)

NEIGHBOUR_WEIGHTS = np.array([0.5, 0.2, 0.02, 0.3, 0.1, 0.02])


def sample_of(magnitudes, neighbours, octaves):
    share = np.full(len(magnitudes), 1 / len(magnitudes))
    return Sample(*(each.astype(np.float32) for each in (magnitudes, octaves, neighbours, share)))


def relative_size(rng, scale, neighbours, octaves, steps):
    """Bits of Laplace integers with a fitted context, over those with the scales they are drawn with."""
    law = stats.laplace(scale=scale)
    magnitudes = np.abs(np.rint(law.rvs(random_state=rng))).astype(np.int64)
    sample = sample_of(magnitudes, neighbours, octaves)
    count = int(octaves.max()) + 1
    parameters = first_parameters((False, False))
    for _ in range(steps):
        parameters = round_rise(fit_context(parameters, sample, count, 6), float(octaves.mean()))
    context = round_parameters(parameters, count)
    activity = zero_context_activity(context, count)[octaves]
    number = classes(context, activity + neighbours @ np.array(context.neighbour_weights), octaves)
    fitted = stats.laplace(scale=(4 + number % 4) * 2.0 ** (number // 4 - 7))

    def bits(of):
        return -np.log2(of.cdf(magnitudes + 0.5) - of.cdf(magnitudes - 0.5)).sum()

    assert bits(fitted) < 0.9 * bits(stats.laplace(scale=magnitudes.mean()))
    return bits(fitted) / bits(law)


@pytest.mark.parametrize("scale", [0.02, 0.3])
def test_context_codes_a_known_source_almost_as_well_as_its_law(scale):
    rng = np.random.default_rng(0)
    neighbours = rng.poisson(0.3, (40_000, 6)) * rng.integers(1, 4, (40_000, 6))
    octaves = rng.integers(0, 4, len(neighbours))
    scales = scale + (neighbours @ NEIGHBOUR_WEIGHTS) ** 0.9
    assert relative_size(rng, scales, neighbours, octaves, steps=3) < 1.03


@pytest.mark.parametrize("rise", [1.5, 2.5])
def test_rounding_of_the_rise_costs_little(rise):
    """Over fourteen octaves, in eighths of an octave each: half a unit more is an octave at the last one."""
    rng = np.random.default_rng(0)
    neighbours = (rng.geometric(0.5, (40_000, 6)) - 1) * (rng.random((40_000, 6)) < 0.4)
    octaves = rng.integers(0, 14, len(neighbours))
    scales = 0.6 * (2 ** (-rise / 8 * octaves) + neighbours @ NEIGHBOUR_WEIGHTS) ** 0.9
    assert relative_size(rng, scales, neighbours, octaves, steps=3) < 1.015


def test_gradient_is_that_of_the_bits():
    rng = np.random.default_rng(0)
    sample = sample_of(rng.integers(0, 9, 200), rng.integers(0, 5, (200, 6)), rng.integers(0, 5, 200))
    parameters = first_parameters((True, False)) + rng.normal(0, 0.2, 11)
    _, gradient, information = _sample_bits(parameters, *sample, _laplace_table(), True)
    for place, step in enumerate(1e-3 * np.eye(11)):
        above, below = (
            _sample_bits(parameters + sign * step, *sample, _laplace_table(), False)[0] for sign in (1, -1)
        )
        assert gradient[place] == pytest.approx((above - below) / 2e-3, abs=1e-2)
    np.testing.assert_allclose(information, information.T)
    assert np.linalg.eigvalsh(information).min() > -1e-9


def test_fit_takes_bits_away_and_does_not_change_its_arguments():
    rng = np.random.default_rng(0)
    sample = sample_of(rng.integers(0, 4, 500), rng.integers(0, 4, (500, 6)), rng.integers(0, 3, 500))
    start = first_parameters((True, True))
    before = [each.copy() for each in (start, *sample)]
    first = fit_context(start, sample, 3, 4)
    for argument, copy in zip((start, *sample), before, strict=True):
        np.testing.assert_array_equal(argument, copy)
    np.testing.assert_array_equal(first, fit_context(start, sample, 3, 4))
    assert (
        _sample_bits(first, *sample, _laplace_table(), False)[0]
        < _sample_bits(start, *sample, _laplace_table(), False)[0]
    )


@pytest.mark.parametrize("rise", [-0.7, 0.0, 0.7, 0.9])
def test_a_context_as_written_has_the_classes_of_its_parameters(rise):
    """Grounds that rise with the octave have room, too."""
    octaves = np.arange(12)
    parameters = np.array([0.5, -1.0, -2.0, 1.2, rise, 0.9, -4.0, -0.3])
    parameters = round_rise(parameters, 6.0)
    context = round_parameters(parameters, 12)
    floor, rise = parameters[3:5]
    for magnitude in 0, 3:
        weights = np.exp(parameters[:3]).sum() * magnitude
        scale = -4.0 - 0.3 * octaves + 0.9 * np.log(np.exp(floor + rise * octaves) + weights)
        activity = zero_context_activity(context, 12) + sum(context.neighbour_weights) * magnitude
        expected = np.clip(4 * scale / math.log(2) + 20.5, 0, 63)
        assert np.abs(classes(context, activity, octaves) - np.floor(expected)).max() <= 1


@pytest.mark.parametrize("largest", [0, 1, 30_000, 2**23 - 1])
def test_context_of_extreme_magnitudes_can_be_written(largest):
    """All zero, and as large as can be coded."""
    rng = np.random.default_rng(0)
    sample = sample_of(np.full(300, largest), np.full((300, 6), largest), rng.integers(0, 20, 300))
    context = round_parameters(
        round_rise(fit_context(first_parameters((True, False)), sample, 20, 6), 9.5), 20
    )
    assert len(context.neighbour_weights) == 6
    assert all(0 <= weight <= 255 for weight in context.neighbour_weights)
    assert -128 <= context.floor <= 127
    assert -128 <= context.rise <= 127
    assert 0 <= context.power <= 255
    assert -(2**15) <= min(context.offset, context.slope) <= max(context.offset, context.slope) < 2**15


def test_a_power_stays_within_what_is_written():
    """Where neighbours say far more than a context can: then the others are fitted to the largest power."""
    rng = np.random.default_rng(0)
    beside = np.zeros((4000, 3), np.float32)
    beside[:, 0] = rng.integers(0, 4, 4000)
    scale = 0.05 * (1 + beside[:, 0]) ** 8
    magnitudes = np.floor(rng.exponential(scale)).astype(np.float32)
    sample = Sample(magnitudes, np.zeros(4000, np.float32), beside, np.full(4000, 1 / 4000, np.float32))
    found = fit_context(first_parameters((True,)), sample, 1, 20)
    assert found[-3] == 255 / 64
    assert round_parameters(found, 1).power == 255
