"""The fit of networks: alone, and several as one."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.field import Field  # noqa: E402
from moec_zarr.fit.network.network_fit import prepare_fit  # noqa: E402
from moec_zarr.fit.network.train import fit_networks  # noqa: E402
from moec_zarr.fit.network.training import Training  # noqa: E402
from moec_zarr.fit.payloads import DoesNotFit, encode_network  # noqa: E402
from moec_zarr.fit.presets import PRESETS  # noqa: E402
from moec_zarr.model.evaluate import evaluate  # noqa: E402
from moec_zarr.model.network import Architecture  # noqa: E402
from moec_zarr.model.normalisation import Normalisation  # noqa: E402

SHAPE, BUDGET = (40, 50), 400
ARCHITECTURE = Architecture(2, 12, 1, 12, 1)
FAST = PRESETS["fast"][0]
PRESET = replace(FAST, steps=150, trial_steps=50, probe_steps=100, batch=256, starts=FAST.starts[:1])


def fit_network(*arguments, device="cpu", **options):
    """A fit alone."""
    (outcome,) = fit_networks([prepare_fit(*arguments, **options)], device)
    return outcome


def wave(k):
    u, v = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return Field(np.sin(k * u + 2 * v) * np.cos(5 * v), None, Normalisation(0.0, 1.0))


def error_of(network, array, valid=True):
    """Mean square error of what a decoder makes of a network."""
    values = np.empty(array.shape, "f4")
    for tile, part in evaluate(network, None, array.shape, [np.arange(n) for n in array.shape]):
        values[tile] = part
    return float(np.square(values - array).mean(where=valid))


@pytest.fixture(scope="module")
def waves():
    return wave(6)


@pytest.fixture(scope="module")
def first(waves):
    """A short fit, and its error."""
    result = fit_network(waves, ARCHITECTURE, PRESET, BUDGET)
    assert result is not None
    return result


def test_fit_keeps_its_budget_and_reports_its_error(waves, first):
    network, error, _ = first
    assert network.architecture == ARCHITECTURE
    assert len(encode_network(network)) <= BUDGET
    assert error_of(network, waves.array) == pytest.approx(error, rel=0.1)
    assert error < 0.7 * waves.array.var()


def test_balance_spreads_the_points_over_the_experts(waves):
    """A gate that sends nearly all points to one of two experts, trained for a moment."""
    sizes, points = Architecture(2, 4, 2, 4, 1), torch.rand(1, 4096, 2) * 2 - 1
    largest = []
    for weight in 0.0, 1.0:
        preset = replace(PRESET, balance=weight, gate_rate=1.0, warm_up=1)
        training = Training([prepare_fit(waves, sizes, preset, BUDGET)], torch.device("cpu"))
        networks = training.started([0], [0])
        with torch.no_grad():
            networks.weights["gate.weight"][:] = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
            networks.weights["gate.bias"][:] = torch.tensor([1.5, 0.0])
        training.run(networks, training.optimiser(networks.weights), range(100), 100)
        logits = points @ networks.weights["gate.weight"] + networks.weights["gate.bias"][:, None]
        counts = torch.bincount(logits.argmax(dim=2).ravel(), minlength=2)
        largest.append(counts.max().item() / counts.sum().item())
    assert largest[1] < 0.7 < largest[0]


def test_fit_goes_on_from_a_network(waves, first):
    network, error, _ = first
    result = fit_network(waves, ARCHITECTURE, PRESET, BUDGET, initial=network)
    assert result is not None
    assert result[1] < 0.7 * error
    assert len(encode_network(result[0])) <= BUDGET


def test_fit_of_a_seed_is_repeatable(waves, first):
    network, error, _ = fit_network(waves, ARCHITECTURE, PRESET, BUDGET)
    assert error == pytest.approx(first[1], rel=1e-3)
    assert encode_network(network) == encode_network(first[0])


def test_shift_scales_targets_but_not_values(waves):
    """Fitted at a sixteenth of the range, the error is that of the values in the stream."""
    small = replace(waves, array=waves.array / 16)
    shifted = replace(small, normalisation=Normalisation(0.0, 1.0, shift=4))
    network, error, _ = fit_network(shifted, ARCHITECTURE, PRESET, BUDGET)
    assert error_of(network, small.array) == pytest.approx(error, rel=0.1)
    assert error < 0.7 * small.array.var()


def test_fit_is_given_up_where_the_target_is_out_of_reach(waves):
    preset = replace(PRESET, starts=FAST.starts[:2])
    assert fit_network(waves, ARCHITECTURE, preset, BUDGET, target_error=1e-12) is None


def test_budget_too_small_does_not_fit(waves):
    outcome = fit_network(waves, ARCHITECTURE, replace(PRESET, steps=100), 10)
    assert isinstance(outcome, DoesNotFit)
    assert "bytes" in str(outcome)


def group(count, experts=1):
    """Fits of different chunks, sizes and budgets; every third has invalid voxels."""
    fits = []
    for seed in range(count):
        field = wave(4 + seed)
        if seed % 3 == 2:
            valid = np.random.default_rng(seed).random(SHAPE) < 0.7
            field = replace(field, array=np.where(valid, field.array, np.nan), valid=valid)
        architecture = Architecture(2, 12 + seed % 4, experts, 12 - seed % 3, 1)
        fits.append(prepare_fit(field, architecture, PRESET, BUDGET * experts - 20 * (seed % 2)))
    return fits


@pytest.mark.parametrize(("count", "experts"), [(1, 1), (3, 1), (8, 1), (3, 4)])
def test_fits_of_a_group_are_as_good_as_single_ones(count, experts, device):
    """Within 0.7 dB each and 0.25 dB on average: training amplifies rounding, either way."""
    fits = group(count, experts)
    gains = []
    for fit, outcome in zip(fits, fit_networks(fits, device), strict=True):
        alone = fit_networks([fit], device)[0]
        assert outcome.network.architecture == fit.architecture
        assert len(encode_network(outcome.network)) <= fit.budget
        valid = True if fit.field.valid is None else fit.field.valid
        array = np.nan_to_num(fit.field.array)
        assert error_of(outcome.network, array, valid) == pytest.approx(outcome.error, rel=0.1)
        gains.append(10 * math.log10(alone.error / outcome.error))
    assert np.abs(gains).max() < 0.7
    assert abs(np.mean(gains)) < 0.25


def test_a_group_is_repeatable(device):
    first, again = (fit_networks(group(3, experts=2), device) for _ in range(2))
    assert [encode_network(o.network) for o in first] == [encode_network(o.network) for o in again]
    assert [o.error for o in first] == [o.error for o in again]


def test_a_fit_that_fails_does_not_harm_the_others():
    """One without steps for its bytes, one of values that are not numbers, among three."""
    fits = group(5)
    fits[1] = replace(fits[1], budget=10)
    broken = replace(fits[3].field, array=np.full(SHAPE, np.nan))
    fits[3] = replace(fits[3], field=broken)
    outcomes = fit_networks(fits)
    assert isinstance(outcomes[1], DoesNotFit)
    assert isinstance(outcomes[3], DoesNotFit)
    for i in (0, 2, 4):
        alone = fit_networks([fits[i]])[0]
        assert abs(10 * math.log10(alone.error / outcomes[i].error)) < 0.7


def test_fits_out_of_reach_leave_the_group():
    """Each start of each fit is tried; what is kept reaches what it reaches alone."""
    preset = replace(PRESET, starts=FAST.starts[:2])
    fits = [
        prepare_fit(wave(4 + seed), ARCHITECTURE, preset, BUDGET, target_error=target)
        for seed, target in enumerate([1.0, 1e-12, 2.0])
    ]
    outcomes = fit_networks(fits)
    assert outcomes[1] is None
    for i in (0, 2):
        alone = fit_networks([fits[i]])[0]
        assert abs(10 * math.log10(alone.error / outcomes[i].error)) < 0.7


def test_fits_of_several_kinds_are_refused():
    fits = [group(1)[0], prepare_fit(wave(4), Architecture(2, 12, 1, 12, 2), PRESET, BUDGET)]
    with pytest.raises(ValueError, match="several kinds"):
        fit_networks(fits)
