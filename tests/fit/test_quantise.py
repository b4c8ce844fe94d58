"""Quantised networks: the gate of integers, the steps that share a byte budget, and rounding."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.bitstream.network import read_network  # noqa: E402
from moec_zarr.fit.network.quantise import (  # noqa: E402
    DECODER,
    StepAllocator,
    freeze_gate,
    quantise,
    round_through,
    unshifted,
)
from moec_zarr.fit.payloads import DoesNotFit, encode_network  # noqa: E402
from moec_zarr.model.network import (  # noqa: E402
    GATE_LARGEST,
    GATE_LARGEST_BIAS,
    Architecture,
)
from moec_zarr.model.steps import step_size  # noqa: E402

ARCHITECTURE = Architecture(3, 12, 2, 10, 2)
GATE = {"gate.weight": np.ones((3, 2), np.int32), "gate.bias": np.zeros(2, np.int32)}


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator)
        for name, shape in ARCHITECTURE.shapes().items()
        if not name.startswith("gate")
    }


def test_gate_of_integers_decides_as_the_trained_one():
    rng = np.random.default_rng(0)
    weights = {
        "gate.weight": torch.from_numpy(rng.normal(size=(3, 5)) * 30),
        "gate.bias": torch.from_numpy(rng.normal(size=5) * 8 + 1000),  # what all share changes nothing
    }
    frozen = freeze_gate(weights)
    assert np.abs(frozen["gate.weight"]).max() <= GATE_LARGEST
    assert np.abs(frozen["gate.bias"]).max() <= GATE_LARGEST_BIAS
    u = rng.uniform(-1, 1, (2000, 3))
    trained = (u @ weights["gate.weight"].numpy() + weights["gate.bias"].numpy()).argmax(axis=1)
    integer = (u @ frozen["gate.weight"] + frozen["gate.bias"]).argmax(axis=1)
    assert (trained == integer).mean() > 0.97
    assert freeze_gate({}) == {}


def test_steps_meet_the_budget_and_use_it(weights):
    budget = 400
    sensitivity = {name: 10.0 ** (i % 4) for i, name in enumerate(weights)}
    allocate = StepAllocator(ARCHITECTURE, GATE, budget, shift=0)
    codes = allocate(weights, sensitivity)
    network = quantise(ARCHITECTURE, weights, codes, GATE)
    assert 0.95 * budget <= len(encode_network(network)) <= budget
    assert allocate.fits(weights, codes)
    assert not allocate.fits(weights, {name: code - 8 for name, code in codes.items()})
    # h s^2 is alike in all tensors, as far as steps an eighth of an octave apart allow
    share = [math.log2(sensitivity[name] * step_size(code) ** 2) for name, code in codes.items()]
    assert max(share) - min(share) < 0.5


def test_budget_too_small_for_any_steps(weights):
    with pytest.raises(DoesNotFit, match="20 bytes"):
        StepAllocator(ARCHITECTURE, GATE, 20, shift=0)(weights, dict.fromkeys(weights, 1.0))


@pytest.mark.parametrize("shift", [0, 3, 10])
def test_shift_is_taken_off_the_decoder(weights, shift):
    """Of step codes that can still be written, so that values are smaller by so many octaves."""
    codes = StepAllocator(ARCHITECTURE, GATE, 2000, shift)(weights, dict.fromkeys(weights, 1.0))
    network = quantise(ARCHITECTURE, weights, codes, GATE)
    result = unshifted(network, shift)
    for name, weight in network.weights().items():
        octaves = shift if name in DECODER else 0
        np.testing.assert_array_equal(result.weights()[name] * 2.0**octaves, weight)
        assert result.codes.get(name, 0) >= 0
    read = read_network(encode_network(result), 3, False)
    assert read.codes == result.codes


def test_quantised_weights_are_rounded_to_their_steps(weights):
    codes = dict.fromkeys(weights, 8 * 20 + 3)
    network = quantise(ARCHITECTURE, weights, codes, GATE)
    steps = {name: torch.tensor(step_size(code)) for name, code in codes.items()}
    rounded = round_through({name: weight.requires_grad_() for name, weight in weights.items()}, steps)
    for name, weight in rounded.items():
        np.testing.assert_allclose(weight.detach(), network.weights()[name], atol=1e-6)
        original = weights[name].detach().numpy()
        assert np.abs(network.weights()[name] - original).max() <= 0.5001 * step_size(codes[name])
        weight.sum().backward()
        assert (weights[name].grad == 1).all()  # the gradient passes through
