"""Values of several networks as a fit computes them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.network.forward import forward  # noqa: E402
from moec_zarr.fit.network.optimiser import Optimiser  # noqa: E402
from moec_zarr.model.network import Architecture, coordinates, evaluate_tile, tables  # noqa: E402
from tests.support.strategies import random_network  # noqa: E402


@pytest.mark.parametrize("experts", [1, 4])
@pytest.mark.parametrize("feature_count", [0, 9])
def test_values_are_those_of_a_decoder(experts, feature_count, device):
    """Of quantised weights, of two networks at once; the frozen gate decides as a decoder does."""
    networks = [random_network(2, experts, feature_count=feature_count, seed=seed) for seed in (0, 1)]
    indices = [i.ravel() for i in np.indices((9, 14))]
    u = np.stack([coordinates(i, n) for i, n in zip(indices, (9, 14), strict=True)], axis=1)
    features = np.random.default_rng(0).normal(size=(2, len(u), feature_count)).astype("f4")
    weights = {
        name: torch.from_numpy(np.stack([network.weights()[name] for network in networks])).to(device)
        for name in networks[0].integers
    }
    read = torch.from_numpy(features).to(device) if feature_count else None
    points = torch.from_numpy(u.astype("f4"))[None].to(device)
    values, balance = forward(networks[0].architecture, weights, points, read)
    assert balance is None
    for row, network in enumerate(networks):
        grid = tables(network.weights(), (9, 14), [np.arange(9), np.arange(14)], False)
        own = features[row] if feature_count else None
        expected = evaluate_tile(network.architecture, network.weights(), grid, own)
        np.testing.assert_allclose(values[row].cpu(), expected, atol=1e-4)


def test_experts_of_uneven_load_are_all_evaluated():
    """One expert may have all points or none; each value is that of its point's own expert."""
    architecture, points = Architecture(1, 4, 6, 4, 1), 200
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(3, *shape, generator=generator) for name, shape in architecture.shapes().items()
    }
    weights["gate.weight"][0], weights["gate.bias"][0] = 0, torch.tensor([0.0, 0, 0, 9, 0, 0])
    u = 2 * torch.rand(1, points, 1, generator=generator) - 1
    values, _ = forward(architecture, weights, u)
    for row in range(3):
        own = {name: tensor[row] for name, tensor in weights.items()}
        logits = torch.round(u[0] * 4096) @ own["gate.weight"] + 4096 * own["gate.bias"]
        hidden = torch.sin(u[0] * own["encoder.weight.0"] + own["encoder.bias"])
        for point, expert in enumerate(logits.argmax(dim=1).tolist()):
            unit = torch.sin(own["expert.weight.0"][expert] @ hidden[point] + own["expert.bias.0"][expert])
            expected = unit @ own["decoder.weight"] + own["decoder.bias"]
            assert values[row, point] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("architecture", [Architecture(3, 12, 1, 10, 3), Architecture(3, 12, 4, 10, 2, 13)])
def test_a_step_needs_no_value_on_the_host(architecture, learning):
    """On torch's "meta" device, which has shapes but no values: whatever asks for a value raises."""
    meta = torch.device("meta")
    weights = {
        name: torch.empty(3, *shape, device=meta).requires_grad_(learning or not name.startswith("gate"))
        for name, shape in architecture.shapes().items()
    }
    u, features = torch.empty(1, 256, 3, device=meta), torch.empty(3, 256, 13, device=meta)
    values, _ = forward(architecture, weights, u, features if architecture.feature_count else None)
    assert values.shape == (3, 256)
    values.square().sum().backward()
    Optimiser({name: w for name, w in weights.items() if w.requires_grad}, {}).step(0.1)
    with pytest.raises(RuntimeError):
        values.sum().item()


def gated(weight, bias):
    """Weights of two experts, with a gate over one axis."""
    architecture = Architecture(1, 4, 2, 4, 1)
    weights = {name: torch.ones(1, *shape) for name, shape in architecture.shapes().items()}
    weights["gate.weight"] = torch.tensor([[weight]]).requires_grad_()
    weights["gate.bias"] = torch.tensor([bias]).requires_grad_()
    return architecture, weights


def test_the_balance_loss_is_the_one_that_was_published():
    """Experts times the sum of share and mean probability of each (Fedus et al., 2021, equation 4)."""
    u = torch.linspace(-1, 1, 200)[None, :, None]
    _, balance = forward(*gated([2.0, -2.0], [0.0, 0.0]), u)
    assert balance.item() == pytest.approx(1)  # half of the points each
    architecture, weights = gated([0.0, 0.0], [1.0, 0.0])  # all points to the first
    _, balance = forward(architecture, weights, u)
    assert balance.item() == pytest.approx(2 / (1 + np.exp(-1)))
    balance.sum().backward()
    assert weights["gate.bias"].grad[0, 0] > 0  # less of it is less unbalanced
