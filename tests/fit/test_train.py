"""The fit of a network."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.payloads import DoesNotFit, network_payload  # noqa: E402
from moec_zarr.fit.presets import PRESETS  # noqa: E402
from moec_zarr.fit.sampling import Field  # noqa: E402
from moec_zarr.fit.train import fit_network, forward  # noqa: E402
from moec_zarr.model.evaluate import evaluate  # noqa: E402
from moec_zarr.model.network import Architecture, coordinates, evaluate_tile, tables  # noqa: E402
from moec_zarr.model.normalisation import Normalisation  # noqa: E402
from tests.support.strategies import random_network  # noqa: E402

SHAPE, BUDGET = (40, 50), 400
ARCHITECTURE = Architecture(2, 12, 1, 12, 1)
FAST = PRESETS["fast"][0]
PRESET = replace(FAST, steps=150, trial_steps=50, probe_steps=100, batch=256, starts=FAST.starts[:1])


@pytest.fixture(scope="module")
def waves():
    u, v = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return Field(np.sin(6 * u + 2 * v) * np.cos(5 * v), None, Normalisation(0.0, 1.0))


@pytest.fixture(scope="module")
def first(waves):
    """A short fit, and its error."""
    result = fit_network(waves, ARCHITECTURE, PRESET, BUDGET)
    assert result is not None
    return result


def test_fit_keeps_its_budget_and_reports_its_error(waves, first):
    network, error = first
    assert network.architecture == ARCHITECTURE
    assert len(network_payload(network)) <= BUDGET
    values = np.empty(SHAPE, "f4")
    for tile, part in evaluate(network, None, SHAPE, [np.arange(n) for n in SHAPE]):
        values[tile] = part
    assert np.square(values - waves.array).mean() == pytest.approx(error, rel=0.1)
    assert error < 0.7 * waves.array.var()


def test_fit_goes_on_from_a_network(waves, first):
    network, error = first
    result = fit_network(waves, ARCHITECTURE, PRESET, BUDGET, initial=network)
    assert result is not None
    assert result[1] < 0.7 * error
    assert len(network_payload(result[0])) <= BUDGET


def test_fit_of_a_seed_is_repeatable(waves, first):
    network, error = fit_network(waves, ARCHITECTURE, PRESET, BUDGET)
    assert error == pytest.approx(first[1], rel=1e-3)
    assert network_payload(network) == network_payload(first[0])


def test_shift_scales_targets_but_not_values(waves):
    """Fitted at a sixteenth of the range, the error is that of the values in the stream."""
    small = replace(waves, array=waves.array / 16)
    shifted = replace(small, normalisation=Normalisation(0.0, 1.0, shift=4))
    network, error = fit_network(shifted, ARCHITECTURE, PRESET, BUDGET)
    values = np.empty(SHAPE, "f4")
    for tile, part in evaluate(network, None, SHAPE, [np.arange(n) for n in SHAPE]):
        values[tile] = part
    assert np.square(values - small.array).mean() == pytest.approx(error, rel=0.1)
    assert error < 0.7 * small.array.var()


def test_fit_is_given_up_where_the_target_is_out_of_reach(waves):
    preset = replace(PRESET, starts=FAST.starts[:2])
    assert fit_network(waves, ARCHITECTURE, preset, BUDGET, target_error=1e-12) is None


def test_budget_too_small_does_not_fit(waves):
    with pytest.raises(DoesNotFit, match="bytes"):
        fit_network(waves, ARCHITECTURE, replace(PRESET, steps=100), 10)


@pytest.mark.parametrize("experts", [1, 4])
@pytest.mark.parametrize("feature_count", [0, 9])
def test_forward_matches_evaluation(experts, feature_count):
    """Of quantised weights; the frozen gate decides as a decoder does."""
    network = random_network(2, experts, feature_count=feature_count)
    indices = [i.ravel() for i in np.indices((9, 14))]
    u = np.stack([coordinates(i, n) for i, n in zip(indices, (9, 14), strict=True)], axis=1)
    features = np.random.default_rng(0).normal(size=(len(u), feature_count)).astype("f4")
    weights = {name: torch.from_numpy(weight) for name, weight in network.weights().items()}
    read = torch.from_numpy(features) if feature_count else None
    values, balance = forward(network.architecture, weights, torch.from_numpy(u.astype("f4")), read)
    assert balance is None
    grid = tables(network.weights(), (9, 14), [np.arange(9), np.arange(14)], False)
    expected = evaluate_tile(
        network.architecture, network.weights(), grid, features if feature_count else None
    )
    np.testing.assert_allclose(values, expected, atol=1e-4)
