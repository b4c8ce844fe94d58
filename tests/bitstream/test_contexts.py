"""The probability model of a coefficient, against the reference decoder and Laplace's law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moec_zarr.bitstream.contexts import (
    CLASSES,
    EXACT_LOGARITHMS,
    FLOOR_CLASSES,
    classes,
    exponential,
    log_index,
    logarithms,
    magnitude_frequencies,
    significance,
    zero_context_activity,
)
from moec_zarr.model.basis import AXIS_NEIGHBOURS
from tests.conformance import reference_decoder
from tests.support.strategies import FEW, random_context, seeds


def laplace_of_class(number):
    return stats.laplace(scale=(4 + number % 4) * 2.0 ** (number // 4 - 7))


@FEW
@given(st.integers(1, 5), seeds)
def test_classes_match_the_formula_of_the_page(axes, seed):
    rng = np.random.default_rng(seed)
    context = random_context(axes, rng)
    magnitudes = rng.integers(0, 2 ** rng.integers(1, 16), (50, axes * AXIS_NEIGHBOURS))
    magnitudes[rng.random(magnitudes.shape) < 0.5] = 0
    octaves = rng.integers(0, 30, 50)
    activity = zero_context_activity(context, 30)[octaves] + magnitudes @ np.array(context.neighbour_weights)
    result = classes(context, activity, octaves)
    for own, g, number in zip(magnitudes.tolist(), octaves.tolist(), result.tolist(), strict=True):
        v = reference_decoder.exponential(min(max(context.floor + context.rise * g, 0), 127))
        v += sum(weight * q for weight, q in zip(context.neighbour_weights, own, strict=True))
        fine = context.power * reference_decoder.logarithm(v) + context.offset + context.slope * g
        assert number == min(max(fine // 128, 0), 63)


def test_exponential_is_within_an_eighth_octave():
    code = np.arange(128)
    value = exponential(code)
    assert [reference_decoder.exponential(k) for k in code.tolist()] == value.tolist()
    assert (np.abs(np.log2(value[24:]) - code[24:] / 8) < 1 / 8).all()
    assert (np.diff(value) >= 0).all()


def test_logarithms_of_small_and_large_activities():
    rng = np.random.default_rng(0)
    small = np.arange(1, 3000)
    edges = np.array([EXACT_LOGARITHMS - 1, EXACT_LOGARITHMS, EXACT_LOGARITHMS + 255, 2**20 - 1, 2**20])
    for values in (small, edges, rng.integers(1, 126_000_000, 3000)):
        expected = [reference_decoder.logarithm(v) for v in values.tolist()]
        np.testing.assert_array_equal(logarithms()[log_index(values)], expected)


@pytest.mark.parametrize("largest", [1, 2, 7, 63])
def test_frequencies_match_the_reference(largest):
    magnitudes, chances = magnitude_frequencies(largest), significance()
    assert magnitudes.shape == (CLASSES, largest)
    assert (magnitudes > 0).all()
    assert (magnitudes.sum(axis=1) == 2**24).all()
    for number in range(CLASSES):
        cumulative = reference_decoder.cumulative_magnitude_frequencies(largest, number)
        np.testing.assert_array_equal(np.diff(cumulative), magnitudes[number])
        # constriction gives each of two symbols one of 2**24, and shares out the rest.
        zero = 1 + int((1 - chances[number]) * (2**24 - 2))
        assert reference_decoder.cumulative_flag_frequencies(number) == [0, zero, 2**24]


def test_frequencies_follow_laplace():
    """Above the classes whose ratios have a floor; below them the tail is heavier."""
    chances, magnitudes = significance(), magnitude_frequencies(63) / 2**24
    for number in range(CLASSES):
        law = laplace_of_class(number)
        assert chances[number] == pytest.approx(2 * law.sf(0.5), abs=2**-16)
        m = np.arange(1, 64)
        mass = law.sf(m - 0.5) - law.sf(m + 0.5)
        mass[-1] = law.sf(62.5)
        if number >= max(FLOOR_CLASSES):
            np.testing.assert_allclose(magnitudes[number], mass / law.sf(0.5), rtol=1e-4, atol=64 / 2**24)
        else:
            assert magnitudes[number, 1:].sum() >= mass[1:].sum() / law.sf(0.5) - 1e-5
