"""The quantisation of coefficients: what it minimises, and that its step is a pure function."""

from itertools import pairwise

import numpy as np
import pytest

from moec_zarr.bitstream.coding_order import wavefronts
from moec_zarr.bitstream.range_coder import class_frequencies
from moec_zarr.fit import rdoq
from moec_zarr.fit.payloads import coefficients_payload
from moec_zarr.fit.rdoq import RATE, Search
from moec_zarr.model.basis import AxisBasis, functions_of
from moec_zarr.model.transform import analyse
from tests.support.strategies import COSINES, random_context

BASES = (COSINES, AxisBasis(2, joint=True), AxisBasis(2, joint=True))


def test_choice_counts_what_it_costs_others():
    """No coefficient is better at another choice, counted over all coefficients, the rest unchanged."""
    rng = np.random.default_rng(0)
    context = random_context(2, rng)
    order = wavefronts(functions_of((COSINES, COSINES), (6, 7)), np.ones((3, 3), bool))
    scaled = rng.exponential(0.8, order.where.size).astype(np.float32)
    before = np.floor(scaled + 0.3).astype(np.int64)
    rows = rdoq._rows(order, np.ones(order.where.size, bool))
    neighbours = rdoq._at_neighbours(before, order, rows)
    result = rdoq._cheapest(scaled, before, neighbours, context, order, rows)
    frequencies = class_frequencies(60).astype(np.float64)

    def cost(magnitudes):
        whole = np.append(np.zeros(order.where.size, np.int64), 0)
        whole[order.where] = magnitudes
        classes = context.classes(whole[order.neighbours], order.octaves())
        bits = 24 - np.log2(frequencies[classes, magnitudes])
        return np.square(scaled - magnitudes).sum() + RATE * bits.sum()

    for place, chosen in enumerate(result):
        costs = {}
        for choice in {0, max(round(float(scaled[place])) - 1, 0), round(float(scaled[place]))}:
            other = before.copy()
            other[place] = choice
            costs[choice] = cost(other)
        assert costs[int(chosen)] == pytest.approx(min(costs.values()), abs=1e-4)
    assert (result != before).any()


# --------------------------------------------------------------------------- a step of the search


@pytest.fixture
def search(field):
    return Search.of(field, None, 500, BASES)


def copy_of(value):
    """A deep copy of a state's parts as plain arrays."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, tuple):
        return tuple(copy_of(part) for part in value)
    return copy_of(tuple(vars(value).values())) if hasattr(value, "__dict__") else value


def assert_equal(one, other):
    if isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        np.testing.assert_array_equal(one, other)


def test_step_is_a_function_of_its_state(search):
    """Called again, after others, it returns the same; neither state nor search is changed."""
    coefficients = search.coefficients.copy()
    state, results = search.start(), []
    states = [state]
    for step in (0.2, 0.15, 0.15):
        state, result = search.step(state, step)
        states.append(state)
        results.append(result)
    snapshots = [copy_of(state) for state in states]
    for number in (2, 0, 1):
        step = (0.2, 0.15, 0.15)[number]
        after, result = search.step(states[number], step)
        assert_equal(copy_of(tuple(after)), copy_of(tuple(states[number + 1])))
        assert result.coefficients.step == results[number].coefficients.step
        np.testing.assert_array_equal(result.coefficients.integers, results[number].coefficients.integers)
        assert result.context == results[number].context
        assert (result.size, result.error) == (results[number].size, results[number].error)
    for state, snapshot in zip(states, snapshots, strict=True):
        assert_equal(copy_of(state), snapshot)
    np.testing.assert_array_equal(search.coefficients, coefficients)


def test_step_does_not_need_the_order_of_the_state(search):
    state, _ = search.step(search.start(), 0.2)
    with_order = search.step(state, 0.2)[1]
    without = search.step(state._replace(order=None), 0.2)[1]
    np.testing.assert_array_equal(with_order.coefficients.integers, without.coefficients.integers)
    assert (with_order.size, with_order.error) == (without.size, without.error)


def test_estimates_match_the_bytes_and_the_error(search, field):
    """The size is that of the coded integers; the error is less what dropping all of them leaves."""
    state = search.start()
    for step in (0.3, 0.1):
        for _ in range(2):
            state, result = search.step(state, step)
        payload = coefficients_payload(result.coefficients, result.context)
        assert 0 < len(payload) - result.size < 40  # what stands before the coefficients, and rounding
        wanted = analyse(field, BASES).astype("f8")
        kept = np.zeros(wanted.shape)
        integers = result.coefficients.integers
        kept[tuple(slice(n) for n in integers.shape)] = integers * result.coefficients.step
        error = np.square(wanted - kept).sum() - np.square(wanted).sum()
        assert result.error == pytest.approx(error, rel=1e-4)


def test_finer_steps_lower_the_error_and_take_more_bytes(search):
    results = [search.step(search.start(), step)[1] for step in (0.4, 0.2, 0.1, 0.05)]
    for coarse, fine in pairwise(results):
        assert fine.error < coarse.error
        assert fine.size > coarse.size


def test_step_beyond_all_coefficients_has_no_result(search):
    start = search.start()
    state, result = search.step(start, 1e6)
    assert result.coefficients is None
    assert result.context is None
    assert state is start
