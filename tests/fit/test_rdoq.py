"""The quantisation of coefficients: what it minimises, and that its step is a pure function."""

from itertools import pairwise

import numpy as np
import pytest

from moec_zarr.bitstream.contexts import (
    LARGEST_SYMBOL,
    logarithms,
    magnitude_frequencies,
    significance,
    zero_context_activity,
)
from moec_zarr.fit.payloads import encode_coefficients
from moec_zarr.fit.transform import rdoq, rdoq_kernels
from moec_zarr.fit.transform.context_fit import first_parameters, round_parameters
from moec_zarr.fit.transform.rdoq import RATE, place_coefficients, prepare_search, quantise_at
from moec_zarr.model.basis import AxisBasis
from moec_zarr.model.transform import analyse
from tests.support.fields import normalised, rough
from tests.support.strategies import COSINES

BASES = (COSINES, AxisBasis(2, joint=True), AxisBasis(2, joint=True))
STEPS = 4, 4


def bits_of(magnitudes, tables, context):
    """Bits of all coefficients of a cosine grid, by the formulas of the page."""
    shape = tables.extent
    activity = np.empty(shape)
    octave = sum(np.ix_(*[np.frexp(np.arange(n) + 1.0)[1] - 1 for n in shape]))
    activity[...] = zero_context_activity(context, int(octave.max()) + 1)[octave]
    for axis in range(len(shape)):
        for number in range(3):
            moved = np.roll(magnitudes, number + 1, axis)
            moved[(slice(None),) * axis + (slice(number + 1),)] = 0
            activity += context.neighbour_weights[3 * axis + number] * moved
    fine = context.power * logarithms()[activity.astype(int)] + context.offset + context.slope * octave
    classes = np.clip(fine >> 7, 0, 63)
    chance = significance()[classes]
    frequency = magnitude_frequencies(LARGEST_SYMBOL)[classes, np.maximum(magnitudes, 1) - 1] / 2**24
    return np.where(magnitudes > 0, 1 - np.log2(chance) - np.log2(frequency), -np.log2(1 - chance))


def test_choice_counts_what_it_costs_others():
    """After a pass over all, no coefficient is far better at another choice, the rest unchanged."""
    rng = np.random.default_rng(0)
    shape = (6, 7)
    context = round_parameters(first_parameters((True, True)), 6)
    target = rng.exponential(0.8, shape).astype(np.float32) * rng.choice([-1, 1], shape)
    search = prepare_search(target.astype(np.float32), (COSINES, COSINES))
    rows = rdoq._rows(search, 1.0)
    tables = search.tables
    scaled = rows.sizes / np.float32(1.0)
    magnitudes = np.rint(scaled).astype(np.int32)
    table = rdoq.bit_table()
    for _ in range(20):  # to where nothing changes any more
        coded = rdoq._coded(rows, magnitudes, context)
        changed = rdoq_kernels.quantise(
            scaled, magnitudes, coded.activity, coded.base, rows.octaves, rows.first, rows.links,
            rows.weights, np.array(context.neighbour_weights, np.int32), context.power, logarithms(), table,
            RATE,
        )  # fmt: skip
        if not changed:
            break
    assert not changed

    def cost(choice):
        grid = np.zeros(shape, np.int64)
        grid.flat[rows.places] = choice
        error = np.square(np.abs(target) - grid)
        return error.sum() + RATE * bits_of(grid, tables, context)[coded_bands].sum()

    bands = search.bands[0, :6, None] * search.band_strides[0] + search.bands[1, None, :7]
    coded_bands = np.isin(bands, np.flatnonzero(rows.present))
    for place, chosen in enumerate(magnitudes.tolist()):
        nearest = int(scaled[place] + 0.5)
        costs = {}
        for choice in {0, max(nearest - 1, 0), nearest}:
            other = magnitudes.copy()
            other[place] = choice
            costs[choice] = cost(other)
        assert costs[chosen] == pytest.approx(min(costs.values()), abs=2e-2)
    assert (magnitudes != np.rint(scaled)).any()


# --------------------------------------------------------------------------- a step of the search


@pytest.fixture
def search(field):
    return prepare_search(analyse(field, BASES), BASES)


def assert_same(one, other):
    assert (one.step, one.context, one.bits, one.error) == (
        other.step,
        other.context,
        other.bits,
        other.error,
    )
    np.testing.assert_array_equal(one.places, other.places)
    np.testing.assert_array_equal(one.magnitudes, other.magnitudes)


def test_step_is_a_function_of_its_start(search):
    """Called again, after others, it returns the same; neither start nor search is changed."""
    coefficients = search.flat.copy()
    starts, results, steps = [None], [], (0.2, 0.15, 0.15)
    for step in steps:
        parameters, result = quantise_at(search, starts[-1], step, STEPS)
        starts.append(parameters)
        results.append(result)
    snapshots = [None if each is None else each.copy() for each in starts]
    for number in (2, 0, 1):
        after, result = quantise_at(search, starts[number], steps[number], STEPS)
        assert_same(result, results[number])
        np.testing.assert_array_equal(after, starts[number + 1])
    for each, snapshot in zip(starts[1:], snapshots[1:], strict=True):
        np.testing.assert_array_equal(each, snapshot)
    np.testing.assert_array_equal(search.flat, coefficients)


def test_estimates_match_the_bytes_and_the_error(search, field):
    """The size is that of the coded integers; the error is less what dropping all of them leaves."""
    known = None
    for step in (0.3, 0.1):
        for _ in range(2):
            known, result = quantise_at(search, known, step, STEPS)
        coefficients = place_coefficients(search, result)
        payload = encode_coefficients(coefficients, result.context)
        assert 0 < len(payload) - result.bits / 8 < 50  # what stands before the coefficients, and rounding
        wanted = analyse(field, BASES).astype("f8")
        kept = np.zeros(wanted.shape)
        kept[tuple(slice(n) for n in coefficients.integers.shape)] = coefficients.integers * coefficients.step
        error = np.square(wanted - kept).sum() - np.square(wanted).sum()
        assert result.error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("noise", [1, 10])
@pytest.mark.parametrize("step", [0.3, 0.1, 0.03])
def test_bits_are_those_of_the_words(noise, step):
    """Of a joint basis, in which the neighbours of a coefficient depend on how fine it is."""
    array = normalised(rough((8, 32, 32), noise=noise))
    known, search = None, prepare_search(analyse(array, BASES), BASES)
    for _ in range(2):
        known, result = quantise_at(search, known, step, STEPS)
    payload = encode_coefficients(place_coefficients(search, result), result.context)
    head = 3 + 4 + 9 + 7  # bases, step, weights of neighbours, the rest of the context
    words = len(payload) - head - 1 - payload[head]  # without the mask of bands
    assert 0 < words - result.bits / 8 < 8  # rounding, and the excesses of large integers


def test_bands_that_are_not_coded_have_no_rows():
    array = normalised(rough((8, 32, 32)))
    rows = rdoq._rows(prepare_search(analyse(array, BASES), BASES), 0.1)
    assert not rows.present.all()
    assert rows.present[rows.bands].all()


def test_finer_steps_lower_the_error_and_take_more_bits(search):
    results = [quantise_at(search, None, step, STEPS)[1] for step in (0.4, 0.2, 0.1, 0.05)]
    for coarse, fine in pairwise(results):
        assert fine.error < coarse.error
        assert fine.bits > coarse.bits


def test_step_beyond_all_coefficients_has_no_result(search):
    assert quantise_at(search, None, 1e6, STEPS) == (None, None)


def test_integers_of_a_step_nearby_are_as_good_a_start():
    target = normalised(rough((24, 40, 48)))
    search = prepare_search(analyse(target, BASES), BASES)
    parameters, first = quantise_at(search, None, 0.5, STEPS)
    _, again = quantise_at(search, parameters, 0.45, STEPS, last=first)
    _, anew = quantise_at(search, parameters, 0.45, STEPS)
    cost = [each.error + RATE * 0.45**2 * each.bits for each in (again, anew)]
    energy = float(np.square(search.flat, dtype=np.float64).sum())
    assert energy + cost[0] == pytest.approx(energy + cost[1], rel=0.01)
