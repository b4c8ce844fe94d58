import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from tests.support.fields import psnr

torch = pytest.importorskip("torch")

from moec_zarr.bitstream.values import write_model  # noqa: E402
from moec_zarr.codec.encode import decode, encode, open_stream  # noqa: E402
from moec_zarr.fit.initialise import Field, axis_frequencies, gate, looks_along  # noqa: E402
from moec_zarr.fit.optimiser import Optimiser  # noqa: E402
from moec_zarr.fit.presets import RECIPES  # noqa: E402
from moec_zarr.fit.quantise import StepAllocator, freeze_gate  # noqa: E402
from moec_zarr.fit.train import fit_field  # noqa: E402
from moec_zarr.model import network  # noqa: E402
from moec_zarr.model.basis import Kind  # noqa: E402
from moec_zarr.model.coefficients import Context, Latents  # noqa: E402
from moec_zarr.model.features import Look, Synthesis  # noqa: E402
from moec_zarr.model.network import Architecture, Model  # noqa: E402
from moec_zarr.settings import Settings  # noqa: E402


def seeded():
    return torch.Generator().manual_seed(0)


def coordinates(shape):
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")


def test_frequencies_of_waves():
    """For ``sin(w . u)`` over many periods, the ratio of derivative and deviation is w along each axis."""
    u, v, w = coordinates((80, 70, 60))
    array = np.sin(9 * u + 17 * v + 4 * w + 1)
    found = axis_frequencies(Field(array, None, 0.0, 1.0), seeded())
    np.testing.assert_allclose(found, [9, 17, 4], rtol=0.05)


def test_frequencies_do_not_see_what_is_not_valid():
    u, v = coordinates((200, 300))
    array = np.sin(20 * u + 7 * v)
    valid = np.random.default_rng(0).random(array.shape) < 0.9
    found = axis_frequencies(Field(np.where(valid, array, 1e6), valid, 0.0, 1.0), seeded())
    np.testing.assert_allclose(found, [20, 7], rtol=0.05)


def test_a_network_looks_as_far_as_a_wave_bends():
    """Of a wave, the first difference is ``1 / (2 sin(w / 2))`` times the second."""
    angles = {60: 0.2, 50: 0.9, 9: 0.1}
    axes = np.meshgrid(*(angle * np.arange(n) for n, angle in angles.items()), indexing="ij")
    base = np.sin(axes[0] + axes[1] + axes[2]).astype("f4")
    norm = float(base.std())
    looks = looks_along(base, norm)
    # 5 voxels, 1 voxel; on the short axis no more than leaves room for three times as many
    assert [look.distance for look in looks] == [round(1 / (2 * math.sin(0.1))), 1, 2]
    for axis, look in enumerate(looks):
        ahead = np.take(base, range(look.distance, base.shape[axis]), axis)
        ahead = ahead - np.take(base, range(base.shape[axis] - look.distance), axis)
        assert 0.7 < 2.0**look.gain * np.sqrt(np.square(ahead).mean()) / norm < 1.5 or look.gain == 0
    assert looks_along(np.zeros((3, 2), "f4"), 1.0) == (Look(1, 0), Look(1, 0))


def test_a_fit_reads_what_a_decoder_does():
    rng = np.random.default_rng(0)
    shape, looks = (6, 9, 2), (Look(2, 1), Look(3, 0), Look(1, 4))
    integers = rng.integers(-3, 4, shape).astype(np.int32)
    context = Context((1,) * 9, 0, 0, 9, 0, 0)
    synthesis = Synthesis(Latents(shape, (Kind(), Kind(2), Kind()), 0.25, context, integers), looks)
    index = tuple(rng.integers(0, n, 300) for n in shape)
    field = Field(np.zeros(shape), None, 0.0, 1.0, base=synthesis.whole(), looks=looks, norm=synthesis.norm)
    _, expected = synthesis.at(index, True)
    np.testing.assert_allclose(field.read(index), expected, atol=1e-5)


def test_a_network_that_corrects_latents_pays_at_edges():
    """A field of two values, about whose edge what is left of a few coefficients rings."""
    u, v, w = coordinates((24, 48, 48))
    data = np.where(np.sin(7 * u + 3 * v) + np.sin(5 * v - 4 * w) > 0, 10.0, 0.0).astype("f4")

    def encoded(rounds):
        with patch.dict(RECIPES, fast=replace(RECIPES["balanced"], rounds=rounds, steps=100)):
            return encode(data, Settings(ratio=data.nbytes / 900, effort="fast"))

    corrected, plain = encoded(4), encoded(0)
    assert open_stream(plain).model is None
    assert open_stream(plain).latents is not None
    assert open_stream(corrected).model is not None
    assert open_stream(corrected).latents is not None
    assert psnr(data, decode(corrected)) > psnr(data, decode(plain)) + 1


def test_a_fit_goes_on_from_a_model():
    u, v = coordinates((40, 50))
    field = Field(np.sin(6 * u + 2 * v) * np.cos(5 * v), None, 0.0, 1.0)
    recipe = replace(RECIPES["fast"], steps=150, batch=256, starts=RECIPES["fast"].starts[:1])

    def fitted(initial):
        size = lambda model: len(write_model(model))  # noqa: E731
        return fit_field(field, Architecture(2, 12, 1, 12, 1), recipe, size, 400, initial=initial)

    first, error = fitted(None)
    second, less = fitted(first)
    assert less < 0.7 * error
    assert len(write_model(second)) <= 400


@pytest.mark.parametrize("experts", [2, 5])
def test_the_gate_begins_as_the_nearest_centre(experts):
    rng = np.random.default_rng(0)
    frequencies = np.array([3.0, 8.0])
    field = Field(rng.normal(size=(40, 50)), None, 0.0, 1.0)
    weight, bias = gate(field, frequencies, experts, seeded())
    scale = frequencies / frequencies.max()
    # 2 s c' u - s |c'|^2 with c' = c / scale: the centres are in the weights but for the factor s.
    sharpness = (weight**2).sum(axis=0)
    sharpness = ((weight / (2 * scale[:, None])) ** 2).sum(axis=0) / -bias
    np.testing.assert_allclose(sharpness, sharpness[0])
    centres = (weight / (2 * sharpness * scale[:, None])).T
    u = rng.uniform(-1, 1, (500, 2))
    nearest = ((u[:, None] * scale - centres) ** 2).sum(axis=-1).argmin(axis=1)
    np.testing.assert_array_equal((u @ weight + bias).argmax(axis=1), nearest)
    assert np.bincount(nearest, minlength=experts).min() > 0.3 * 500 / experts


def test_no_expert_starves_where_activity_is_local():
    u, v, w = coordinates((20, 24, 28))
    array = (np.exp(-40 * ((u - 0.4) ** 2 + v**2 + w**2)) * np.sin(25 * v)).astype("f4")
    stream = encode(array, Settings(ratio=array.nbytes / 900, effort="fast", experts=6))
    model = open_stream(stream).model
    load = network.expert_load(model, array.shape)
    assert load.min() > 0.005
    assert load.max() < 0.7
    assert psnr(array, decode(stream)) > 20


def test_the_gate_of_integers_decides_as_the_trained_one():
    rng = np.random.default_rng(0)
    weights = {
        "gate.weight": torch.from_numpy(rng.normal(size=(3, 5)) * 30),
        "gate.bias": torch.from_numpy(rng.normal(size=5) * 8 + 1000),  # what all share changes nothing
    }
    frozen = freeze_gate(weights)
    assert np.abs(frozen["gate.weight"]).max() <= network.GATE_LARGEST
    assert np.abs(frozen["gate.bias"]).max() <= network.GATE_LARGEST_BIAS
    u = rng.uniform(-1, 1, (2000, 3))
    trained = (u @ weights["gate.weight"].numpy() + weights["gate.bias"].numpy()).argmax(axis=1)
    integer = (u @ frozen["gate.weight"] + frozen["gate.bias"]).argmax(axis=1)
    assert (trained == integer).mean() > 0.97
    assert freeze_gate({}) == {}


# ------------------------------------------------------------------------------- optimiser


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 20, 8), (1, 8, 40)])
def test_matrices_move_by_orthogonal_steps(shape):
    """Of any shape, the step is 1.5 times the rate times a matrix whose singular values are near one."""
    weight = torch.zeros(shape, requires_grad=True)
    weight.grad = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype("f4"))
    before = weight.grad.numpy().copy()
    Optimiser({"w": weight}, {}).step(0.5)
    step = -weight.detach().numpy() / (0.5 * 1.5)
    values = np.linalg.svd(step, compute_uv=False)
    assert values.min() > 0.5
    assert values.max() < 1.3
    left, _, right = np.linalg.svd(before, full_matrices=False)
    assert (step * (left @ right)).sum() / values.sum() > 0.98  # the same singular vectors


def test_vectors_move_as_adam_has_it():
    """The first step of Adam is the rate times the sign of the gradient."""
    weight = torch.zeros(5, requires_grad=True)
    weight.grad = torch.tensor([3.0, -0.001, 20.0, -7.0, 0.1])
    Optimiser({"w": weight}, {"w": 0.1}).step(0.5)
    np.testing.assert_allclose(weight.detach(), [-0.05, 0.05, -0.05, 0.05, -0.05], rtol=1e-3)


# ---------------------------------------------------------------------------- quantisation


def test_steps_meet_the_budget_and_use_it():
    architecture = Architecture(3, 12, 2, 10, 2)
    generator = seeded()
    weights = {
        name: torch.randn(shape, generator=generator)
        for name, shape in architecture.shapes().items()
        if not name.startswith("gate")
    }
    gates = {"gate.weight": np.ones((3, 2), np.int32), "gate.bias": np.zeros(2, np.int32)}
    sensitivity = {name: 10.0 ** (i % 4) for i, name in enumerate(weights)}

    def size(model: Model) -> int:
        """Bytes of a code that spends as many bits on each integer as it has."""
        if max(np.abs(i).max() for i in model.integers.values()) > 2**15:
            raise OverflowError
        bits = sum(np.log2(2 * np.abs(i) + 1).sum() for i in model.integers.values())
        return math.ceil(bits / 8)

    budget = 400
    allocate = StepAllocator(architecture, gates, size, budget, {})
    codes = allocate(weights, sensitivity)
    integers = {
        name: np.rint(w.numpy() / network.step_size(codes[name])).astype(int) for name, w in weights.items()
    }
    assert 0.95 * budget <= size(Model(architecture, gates | integers, codes)) <= budget
    # h s^2 is alike in all tensors, as far as steps an eighth of an octave apart allow
    share = [math.log2(sensitivity[name] * network.step_size(code) ** 2) for name, code in codes.items()]
    assert max(share) - min(share) < 0.5
    with pytest.raises(OverflowError, match="400 bytes"):
        StepAllocator(architecture, gates, lambda model: 401, budget, {})(weights, sensitivity)
