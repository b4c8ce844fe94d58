"""Networks before their fit: frequencies, waves, stencils and the gate of known fields."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.fit.field import Field  # noqa: E402
from moec_zarr.fit.network.initialise import (  # noqa: E402
    architecture_for,
    axis_frequencies,
    draw_waves,
    gate,
    power_spectrum,
    stencils_for,
)
from moec_zarr.model.features import Stencil  # noqa: E402
from moec_zarr.model.normalisation import Normalisation  # noqa: E402

UNCHANGED = Normalisation(0.0, 1.0)


def seeded():
    return torch.Generator().manual_seed(0)


def coordinates(shape):
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")


def test_frequencies_of_waves():
    """For ``sin(w . u)`` over many periods, the ratio of derivative and deviation is w along each axis."""
    u, v, w = coordinates((80, 70, 60))
    array = np.sin(9 * u + 17 * v + 4 * w + 1)
    frequencies = axis_frequencies(Field(array, None, UNCHANGED), seeded())
    np.testing.assert_allclose(frequencies, [9, 17, 4], rtol=0.05)


def test_frequencies_ignore_invalid_voxels():
    u, v = coordinates((200, 300))
    array = np.sin(20 * u + 7 * v)
    valid = np.random.default_rng(0).random(array.shape) < 0.9
    frequencies = axis_frequencies(Field(np.where(valid, array, 1e6), valid, UNCHANGED), seeded())
    np.testing.assert_allclose(frequencies, [20, 7], rtol=0.05)


def test_waves_are_drawn_from_the_spectrum():
    """Of cosine modes 6 and 11 of two axes, waves of ``pi k / 2`` radians per unit of u."""
    x, y = (np.pi * (np.arange(n) + 0.5) / n for n in (40, 50))
    array = np.cos(6 * x)[:, None] * np.cos(11 * y)
    field = Field(array, None, UNCHANGED)
    waves = draw_waves(power_spectrum(field, np.ones(2)), 300, seeded())
    assert waves.shape == (300, 2)
    distance = np.abs(np.abs(waves) - np.array([6, 11]) * np.pi / 2)
    assert distance.max() < 5 * 0.5  # of the jitter's deviation
    assert 0.3 < (waves > 0).mean() < 0.7


def test_stencils_reach_as_far_as_a_wave_bends():
    """Of a wave, the first difference is ``1 / (2 sin(w / 2))`` times the second."""
    angles = {60: 0.2, 50: 0.9, 9: 0.1}
    axes = np.meshgrid(*(angle * np.arange(n) for n, angle in angles.items()), indexing="ij")
    base = np.sin(axes[0] + axes[1] + axes[2]).astype("f4")
    norm = float(base.std())
    stencils = stencils_for(base, norm)
    # 5 voxels, 1 voxel; on the short axis no more than leaves room for three times as many
    assert [stencil.distance for stencil in stencils] == [round(1 / (2 * math.sin(0.1))), 1, 2]
    for axis, stencil in enumerate(stencils):
        ahead = np.take(base, range(stencil.distance, base.shape[axis]), axis)
        ahead = ahead - np.take(base, range(base.shape[axis] - stencil.distance), axis)
        assert 0.7 < 2.0**stencil.gain * np.sqrt(np.square(ahead).mean()) / norm < 1.5 or stencil.gain == 0
    assert stencils_for(np.zeros((3, 2), "f4"), 1.0) == (Stencil(1, 0), Stencil(1, 0))


@pytest.mark.parametrize("experts", [2, 5])
def test_gate_starts_as_the_nearest_centre(experts):
    rng = np.random.default_rng(0)
    frequencies = np.array([3.0, 8.0])
    field = Field(rng.normal(size=(40, 50)), None, UNCHANGED)
    weight, bias = gate(field, frequencies, experts, seeded())
    scale = frequencies / frequencies.max()
    # 2 s c' u - s |c'|^2 with c' = c / scale: the centres are in the weights but for the factor s.
    sharpness = ((weight / (2 * scale[:, None])) ** 2).sum(axis=0) / -bias
    np.testing.assert_allclose(sharpness, sharpness[0])
    centres = (weight / (2 * sharpness * scale[:, None])).T
    u = rng.uniform(-1, 1, (500, 2))
    nearest = ((u[:, None] * scale - centres) ** 2).sum(axis=-1).argmin(axis=1)
    np.testing.assert_array_equal((u @ weight + bias).argmax(axis=1), nearest)
    assert np.bincount(nearest, minlength=experts).min() > 0.3 * 500 / experts


@pytest.mark.parametrize("experts", [None, 1, 4])
@pytest.mark.parametrize("budget", [300, 1000, 30_000])
def test_architecture_grows_with_the_budget(budget, experts):
    architecture = architecture_for(3, budget, experts)
    larger = architecture_for(3, 2 * budget, experts)
    assert experts is None or architecture.experts == experts
    assert larger.parameter_count > architecture.parameter_count
    if budget >= 1000:
        assert 0.4 < architecture.parameter_count / budget < 1.25  # some 6.8 bits a weight
