"""Networks of several sizes as one set of tensors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.network.forward import forward  # noqa: E402
from moec_zarr.fit.network.optimiser import Optimiser  # noqa: E402
from moec_zarr.fit.network.stack import common_architecture, stack_rows, take_member, take_rows  # noqa: E402
from moec_zarr.model.network import Architecture  # noqa: E402

CPU = torch.device("cpu")
SIZES = {
    "one expert": [Architecture(3, 12, 1, 8, 3), Architecture(3, 5, 1, 11, 3), Architecture(3, 9, 1, 9, 3)],
    "experts": [Architecture(2, 6, 2, 5, 2), Architecture(2, 8, 5, 4, 2), Architecture(2, 7, 3, 8, 2)],
    "features": [Architecture(2, 6, 1, 5, 2, 9), Architecture(2, 8, 1, 4, 2, 9)],
    "all": [Architecture(2, 6, 4, 5, 2, 9), Architecture(2, 8, 2, 4, 2, 9)],
}


def random_weights(architecture, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(s, generator=generator) / 2 for name, s in architecture.shapes().items()}


def random_batch(architecture, networks, points=64):
    generator = torch.Generator().manual_seed(99)
    u = 2 * torch.rand(1, points, architecture.axes, generator=generator) - 1
    features = None
    if architecture.feature_count:
        features = torch.randn(networks, points, architecture.feature_count, generator=generator)
    return u, features, torch.randn(networks, points, generator=generator)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_members_come_back_as_they_went_in(sizes):
    networks = [random_weights(size, seed) for seed, size in enumerate(sizes)]
    common = common_architecture(sizes)
    weights = stack_rows(networks, sizes, common, CPU)
    assert {name: tensor.shape[1:] for name, tensor in weights.items()} == common.shapes()
    for row, (own, network) in enumerate(zip(sizes, networks, strict=True)):
        back = take_member(weights, row, own, common)
        assert all(torch.equal(back[name], network[name]) for name in own.shapes())


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_networks_are_trained_as_each_would_be_alone(sizes):
    """Ten steps of all as one, against ten of each: values, balance and weights agree."""
    networks = [random_weights(size, seed) for seed, size in enumerate(sizes)]
    common = common_architecture(sizes)
    batch = random_batch(common, len(sizes))

    def trained(architecture, weights, rows):
        weights = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
        optimiser = Optimiser(weights, {"gate.weight": 0.1})
        u, features, target = batch
        features = None if features is None else features[rows]
        for _ in range(10):
            values, balance = forward(architecture, weights, u, features)
            loss = (values - target[rows]).square().mean(dim=1)
            if balance is not None:
                loss = loss + 0.01 * balance
            loss.sum().backward()
            optimiser.step(1e-3)
        return weights, values.detach(), balance

    weights, values, balance = trained(common, stack_rows(networks, sizes, common, CPU), slice(None))
    for row, (own, network) in enumerate(zip(sizes, networks, strict=True)):
        alone = {name: tensor[None] for name, tensor in network.items()}
        expected, expected_values, expected_balance = trained(own, alone, slice(row, row + 1))
        np.testing.assert_allclose(values[row], expected_values[0], atol=1e-4)
        if balance is not None:
            np.testing.assert_allclose(balance[row].detach(), expected_balance[0].detach(), rtol=1e-5)
        back = take_member({name: w.detach() for name, w in weights.items()}, row, own, common)
        for name, tensor in expected.items():
            np.testing.assert_allclose(back[name], tensor[0].detach(), atol=1e-4)
        # What is filled up has stayed as it was.
        padded = stack_rows([back], [own], common, CPU)
        assert all(torch.equal(weights[name][row].detach(), padded[name][0]) for name in weights)


def test_rows_are_leaves_of_their_own():
    weights = {"a": torch.arange(6.0).reshape(3, 2).requires_grad_(), "gate.bias": torch.zeros(3, 1)}
    some = take_rows(weights, [2, 0])
    assert some["a"].tolist() == [[4, 5], [0, 1]]
    assert some["a"].is_leaf
    assert some["a"].requires_grad
    assert not some["gate.bias"].requires_grad
