"""Fitted contexts on coefficients drawn from known distributions."""

import numpy as np
import pytest
from scipy import stats

from moec_zarr.fit.context_fit import _mean_bits, fit_context, initial_parameters

NEIGHBOUR_WEIGHTS = np.array([0.5, 0.2, 0.02, 0.3, 0.1, 0.02])


def relative_size(rng, scale, neighbours, octaves, fits):
    """Bits of Laplace integers with a fitted context, over those with the scales they are drawn with."""
    law = stats.laplace(scale=scale)
    magnitudes = np.abs(np.rint(law.rvs(random_state=rng))).astype(np.int64)
    significant = (magnitudes > 0) | neighbours.any(axis=1)
    zero_context_counts = np.bincount(octaves[~significant], minlength=octaves.max() + 1)
    source = magnitudes[significant], neighbours[significant], octaves[significant], zero_context_counts
    parameters = initial_parameters(2)
    for _ in range(fits):  # each from the parameters of the one before
        parameters, context = fit_context(parameters, *source)
    number = context.classes(neighbours, octaves)
    classes = stats.laplace(scale=(4 + number % 4) * 2.0 ** (number // 4 - 7))

    def bits(of):
        return -np.log2(of.cdf(magnitudes + 0.5) - of.cdf(magnitudes - 0.5)).sum()

    assert bits(classes) < 0.9 * bits(stats.laplace(scale=magnitudes.mean()))
    return bits(classes) / bits(law)


@pytest.mark.parametrize("scale", [0.02, 0.3])
def test_context_codes_a_known_source_almost_as_well_as_its_law(scale):
    rng = np.random.default_rng(0)
    neighbours = rng.poisson(0.3, (40_000, 6)) * rng.integers(1, 4, (40_000, 6))
    octaves = rng.integers(0, 4, len(neighbours))
    scales = scale + (neighbours @ NEIGHBOUR_WEIGHTS) ** 0.9
    assert relative_size(rng, scales, neighbours, octaves, fits=5) < 1.03


@pytest.mark.parametrize("rise", [1.5, 2.5])
def test_rounding_of_the_rise_costs_little(rise):
    """Over fourteen octaves, in eighths of an octave each: half a unit more is an octave at the last one."""
    rng = np.random.default_rng(0)
    neighbours = (rng.geometric(0.5, (40_000, 6)) - 1) * (rng.random((40_000, 6)) < 0.4)
    octaves = rng.integers(0, 14, len(neighbours))
    scales = 0.6 * (2 ** (-rise / 8 * octaves) + neighbours @ NEIGHBOUR_WEIGHTS) ** 0.9
    assert relative_size(rng, scales, neighbours, octaves, fits=2) < 1.01


def test_gradient_is_that_of_the_bits():
    rng = np.random.default_rng(0)
    q = rng.integers(0, 9, 200).astype("f4")
    t = rng.integers(0, 5, (200, 6)).astype("f4")
    g = rng.integers(0, 5, 200).astype("f4")
    share = np.full(200, 1 / 200, "f4")
    parameters = initial_parameters(2) + rng.normal(0, 0.2, 11)
    _, gradient = _mean_bits(parameters, q, t, g, share)
    for place, step in enumerate(0.01 * np.eye(11)):
        above, below = (_mean_bits(parameters + sign * step, q, t, g, share)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((above - below) / 0.02, abs=1e-3)


def test_fit_does_not_change_its_arguments():
    rng = np.random.default_rng(0)
    arguments = (
        initial_parameters(2),
        rng.integers(0, 4, 500),
        rng.integers(0, 4, (500, 6)),
        rng.integers(0, 3, 500),
        np.array([7, 0, 90]),
    )
    before = [argument.copy() for argument in arguments]
    first, context = fit_context(*arguments)
    for argument, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(argument, copy)
    second, again = fit_context(*arguments)
    np.testing.assert_array_equal(first, second)
    assert context == again


@pytest.mark.parametrize("largest", [0, 1, 30_000])
def test_context_of_extreme_magnitudes_can_be_written(largest):
    """All zero, and as large as can be coded."""
    rng = np.random.default_rng(0)
    magnitudes = np.full(300, largest)
    neighbours = np.full((300, 6), largest)
    octaves = rng.integers(0, 20, 300)
    _, context = fit_context(initial_parameters(2), magnitudes, neighbours, octaves, np.zeros(20, int))
    assert len(context.neighbour_weights) == 6
    assert all(0 <= weight <= 255 for weight in context.neighbour_weights)
    assert -128 <= context.floor <= 127
    assert -128 <= context.rise <= 127
    assert 0 <= context.power <= 255
    assert -(2**15) <= min(context.offset, context.slope) <= max(context.offset, context.slope) < 2**15
