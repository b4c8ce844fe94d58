"""The choice between transform, network and both."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from benchmarks.fields import shells

torch = pytest.importorskip("torch")

from moec_zarr.bitstream.stream import open_stream  # noqa: E402
from moec_zarr.codec.decode import decode  # noqa: E402
from moec_zarr.codec.encode import encode  # noqa: E402
from moec_zarr.codec.prepare import prepare  # noqa: E402
from moec_zarr.fit.candidates import Candidate  # noqa: E402
from moec_zarr.fit.presets import PRESETS  # noqa: E402
from moec_zarr.fit.select import may_gain  # noqa: E402
from moec_zarr.fit.transform.rate_control import fit_transform  # noqa: E402
from moec_zarr.model.coefficients import CoefficientField  # noqa: E402
from moec_zarr.model.network import expert_load  # noqa: E402
from moec_zarr.settings import Settings  # noqa: E402
from tests.support.fields import normalised, psnr  # noqa: E402


def coordinates(shape):
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")


def preset(**changes):
    """Two efforts with a single start and short trials, and other changes."""
    fast = PRESETS["fast"][0]
    short = replace(fast, **{"starts": fast.starts[:1], "trial_steps": 50, "probe_steps": 100} | changes)
    return patch.dict(PRESETS, fast=(short,), balanced=(short,))


def test_correcting_network_pays_at_edges(monkeypatch):
    """Inner and outer bodies, at whose edges a few coefficients ring; none of them ends the range."""
    monkeypatch.setattr(
        "moec_zarr.fit.select.choose_experts", lambda *_, **__: None
    )  # they do so in fewer bytes
    u, v, w = coordinates((16, 32, 32))
    inner, outer = np.sin(7 * u + 3 * v) + np.sin(5 * v - 4 * w) > 0, np.hypot(v, w) < 0.9
    data = (5.0 + 4 * inner + 2 * outer * u).astype("f4")
    data[0, 0, :2] = 0.0, 20.0
    with preset(steps=100, correction_steps=1000, final_steps=1000):
        stream = encode(data, Settings(ratio=data.nbytes / 900, effort="balanced"))
    parts = open_stream(stream)
    assert parts.network is not None
    assert parts.network.stencils
    assert parts.coefficients is not None
    plain = fit_transform(normalised(data), None, len(stream))
    assert plain is not None
    ringing = np.clip(CoefficientField(plain.coefficients).whole(), -1, 1)
    assert psnr(data, decode(stream)) > psnr(normalised(data), ringing) + 0.5


def test_transform_alone_suits_a_smooth_field(field):
    with preset(steps=100, alternations=0):
        stream = encode(field, Settings(ratio=field.nbytes / 500, effort="balanced"))
    parts = open_stream(stream)
    assert parts.network is None
    assert parts.coefficients is not None


def test_no_expert_starves_where_activity_is_local():
    u, v, w = coordinates((20, 24, 28))
    array = (np.exp(-40 * ((u - 0.4) ** 2 + v**2 + w**2)) * np.sin(25 * v)).astype("f4")
    with preset(steps=2000, alternations=0):
        stream = encode(array, Settings(ratio=array.nbytes / 900, effort="fast", experts=6))
    network = open_stream(stream).network
    assert network is not None
    load = expert_load(network, array.shape)
    assert load.min() > 0.005
    assert load.max() < 0.7
    assert psnr(array, decode(stream)) > 20


def test_race_finds_the_field_that_a_network_suits():
    """A ball with a sharp surface: many coefficients, few weights. Not every seed finds so small a one."""
    u, v, w = coordinates((32, 36, 40))
    array = np.tanh(12 * (u**2 + 1.5 * v**2 + w**2 - 0.4)).astype("f4")
    stream = encode(array, Settings(ratio=array.nbytes / 400, effort="balanced", seed=1))
    transform = encode(array, Settings(ratio=array.nbytes / 400, effort="fast"))
    parts = open_stream(stream)
    assert parts.network is not None
    assert parts.coefficients is None
    assert psnr(array, decode(stream)) > psnr(array, decode(transform)) + 3


def test_race_gives_up_networks_where_the_transform_is_out_of_reach(field, caplog):
    with preset(steps=400, alternations=0), caplog.at_level("INFO", "moec_zarr"):
        stream = encode(field, Settings(ratio=field.nbytes / 500, effort="balanced"))
    assert "not expected to reach" in caplog.text
    assert open_stream(stream).network is None


def test_balanced_leaves_networks_where_none_promises_a_gain(field, caplog):
    settings = Settings(ratio=field.nbytes / 700, effort="balanced")
    with caplog.at_level("INFO", "moec_zarr"):
        stream = encode(field, settings)
    assert "a short network leaves" in caplog.text
    assert "not expected to reach" not in caplog.text  # none was begun
    assert stream == encode(field, replace(settings, effort="fast"))


def test_balanced_reaches_a_psnr_by_a_network_where_one_is_smaller():
    """Thin shells, for whose surfaces few weights do."""
    array = shells((32, 56, 56))
    stream = encode(array, Settings(psnr=27, effort="balanced", seed=1))
    assert open_stream(stream).network is not None
    assert psnr(array, decode(stream)) >= 27
    assert len(stream) < len(encode(array, Settings(psnr=27, effort="fast")))


def test_a_further_preset_never_makes_it_worse(field):
    """What "best" relies on: its first preset fits all that "balanced" may fit."""
    assert PRESETS["best"][0] == replace(PRESETS["balanced"][0], screening_steps=0)
    settings = Settings(ratio=field.nbytes / 300, model="network")
    with preset(steps=300, alternations=0):
        one = psnr(field, decode(encode(field, settings)))
        first = PRESETS["balanced"][0]
        with patch.dict(PRESETS, balanced=(first, replace(first, rate=1e-6))):
            two = psnr(field, decode(encode(field, settings)))
    assert two >= one


def test_fast_is_the_transform_alone(field):
    with patch.dict("sys.modules", {"torch": None, "moec_zarr.fit.networks": None}):
        stream = encode(field, Settings(ratio=field.nbytes / 500, effort="fast"))
    parts = open_stream(stream)
    assert parts.network is None
    assert parts.coefficients is not None


def test_model_says_what_stands_for_a_chunk(field):
    with preset(steps=100, alternations=1, correction_steps=20, final_steps=20):
        network = open_stream(encode(field, Settings(ratio=field.nbytes / 500, model="network")))
        transform = open_stream(encode(field, Settings(ratio=field.nbytes / 500, model="transform")))
    assert network.network is not None
    assert network.coefficients is None
    assert transform.network is None
    assert transform.coefficients is not None


def test_networks_gain_nothing_where_a_transform_leaves_no_error(field):
    transform = fit_transform(normalised(field), None, 500)
    exact, near = Candidate(None, transform, 0.0), Candidate(None, transform, 1e-4)
    chunk, settings = prepare(field, None, None), Settings(ratio=100, effort="balanced")
    with patch("moec_zarr.fit.networks.probe_correction", return_value=0.5):
        assert may_gain(chunk.field, settings, 500, near)
        assert not may_gain(chunk.field, settings, 500, exact)
