"""The network evaluated at a tile, against its formulas written out for single points."""

import math

import numpy as np
import pytest

from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.network import evaluate_tile, expert_load, tables
from moec_zarr.model.steps import step_size
from tests.conformance import reference_decoder
from tests.support.strategies import random_network

LENGTHS = {1: (50,), 2: (9, 14), 3: (6, 7, 8), 4: (3, 5, 4, 6), 5: (3, 2, 4, 3, 5)}
TOLERANCE = 1e-5


def evaluate_point(network, u):
    """Expert and value of one point, loop by loop, in double precision; the formulas of the format page."""
    a, n = network.architecture, network.integers

    def weight(name):
        step = (8 + network.codes[name] % 8) * 2.0 ** (network.codes[name] // 8 - 27)
        return n[name].astype("f8") * step

    expert = 0
    if a.experts > 1:
        logits = []
        for k in range(a.experts):
            units = [round(4096 * float(x)) for x in u]  # halves to even, as rint
            logits.append(
                4096 * int(n["gate.bias"][k])
                + sum(int(n["gate.weight"][axis, k]) * units[axis] for axis in range(a.axes))
            )
        expert = logits.index(max(logits))
    h = []
    for i in range(a.encoder):
        phase = weight("encoder.bias")[i]
        for axis in range(a.axes):
            phase += u[axis] * weight(f"encoder.weight.{axis}")[i]
        h.append(math.sin(phase))
    for layer in range(a.layers):
        w, b = weight(f"expert.weight.{layer}")[expert], weight(f"expert.bias.{layer}")[expert]
        h = [math.sin(sum(w[i, j] * h[j] for j in range(len(h))) + b[i]) for i in range(a.width)]
    y = sum(x * w for x, w in zip(h, weight("decoder.weight"), strict=True)) + weight("decoder.bias")[0]
    return expert, y


def coordinates(index, lengths):
    return [2 * i / (n - 1) - 1 for i, n in zip(index, lengths, strict=True)]


def values_on_grid(network, lengths):
    out = np.full(lengths, np.nan, "f4")
    for where, values in evaluate(network, None, lengths, [np.arange(n) for n in lengths]):
        out[where] = values
    return out


@pytest.mark.parametrize("experts", [1, 5])
@pytest.mark.parametrize("axes", LENGTHS)
def test_grid_matches_the_formulas(axes, experts):
    network, lengths = random_network(axes, experts), LENGTHS[axes]
    values = values_on_grid(network, lengths)
    for index in list(np.ndindex(lengths))[::5]:
        assert abs(values[index] - evaluate_point(network, coordinates(index, lengths))[1]) < TOLERANCE


@pytest.mark.parametrize("experts", [1, 5])
@pytest.mark.parametrize("axes", LENGTHS)
def test_grid_matches_the_reference(axes, experts):
    network, lengths = random_network(axes, experts), LENGTHS[axes]
    reference = reference_decoder.Network(axes, 0, 9, experts, 6, 2)
    reference.integers = dict(zip(reference.shapes(), network.integers.values(), strict=True))
    reference.steps = dict.fromkeys(reference.integers, 2.0**-10)
    points = reference_decoder.points(lengths)
    expected = reference.values(points, np.empty((len(points), 0)))
    values = values_on_grid(network, lengths)
    np.testing.assert_allclose(values.ravel(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("experts", [1, 3])
def test_features_enter_behind_the_encoder(experts):
    axes, lengths = 2, LENGTHS[2]
    network = random_network(axes, experts, feature_count=9)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(math.prod(lengths), 9)).astype("f4")
    reference = reference_decoder.Network(axes, 9, 9, experts, 6, 2)
    reference.integers = dict(zip(reference.shapes(), network.integers.values(), strict=True))
    reference.steps = dict.fromkeys(reference.integers, 2.0**-10)
    expected = reference.values(reference_decoder.points(lengths), features.astype("f8"))
    weights = network.weights()
    grid = tables(weights, lengths, [np.arange(n) for n in lengths], False)
    values = evaluate_tile(network.architecture, weights, grid, features)
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("axes", [1, 3, 5])
def test_gate_decides_exactly(axes):
    """Experts that are constants of their own show which of them a point was given to."""
    network, lengths = random_network(axes, experts=7), LENGTHS[axes]
    for name, values in network.integers.items():
        if not name.startswith("gate"):
            network.integers[name] = np.zeros_like(values)
    for k in range(7):
        network.integers["expert.bias.1"][k, 0] = 100 * k
    network.integers["decoder.weight"][0] = 1024
    values = values_on_grid(network, lengths)
    chosen = np.rint(np.arcsin(values.astype("f8")) / (100 / 1024)).astype(int)
    for index in np.ndindex(lengths):
        assert chosen[index] == evaluate_point(network, coordinates(index, lengths))[0]
    assert len(np.unique(chosen)) > 1


def test_ties_go_to_the_lowest_expert():
    network = random_network(2, experts=3)
    network.integers["gate.weight"][:] = 5
    network.integers["gate.bias"][:] = -2, 7, 7
    np.testing.assert_array_equal(expert_load(network, (9, 9)), [0, 1, 0])


def test_expert_load_is_the_share_of_voxels():
    network, lengths = random_network(3), LENGTHS[3]
    expected = np.zeros(4)
    for index in np.ndindex(lengths):
        expected[evaluate_point(network, coordinates(index, lengths))[0]] += 1
    np.testing.assert_allclose(expert_load(network, lengths), expected / math.prod(lengths))


def test_largest_gate_is_exact_in_single_precision():
    network = random_network(5, experts=2)
    network.integers["gate.weight"][:] = 127
    network.integers["gate.bias"][:] = 511, 510
    part = tables(network.weights(), (2,) * 5, [np.array([1])] * 5, False)
    total = sum(part.logits[1:], part.logits[0])
    assert total.dtype == np.float32
    assert total.astype(int).tolist() == [[(5 * 127 + 511) * 4096, (5 * 127 + 510) * 4096]]


@pytest.mark.parametrize("code", [0, 7, 8, 100, 216, 255])
def test_step_size(code):
    step = step_size(code)
    assert step == (8 + code % 8) * 2.0 ** (code // 8 - 27)
    assert np.float32(step) * np.float32(32767) == step * 32767  # exact in single precision
    if code:
        assert 1.06 < step / step_size(code - 1) < 1.13
