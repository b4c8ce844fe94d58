"""The choice between transform, network and both."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moec_zarr.bitstream.stream import open_stream  # noqa: E402
from moec_zarr.codec.decode import decode  # noqa: E402
from moec_zarr.codec.encode import encode  # noqa: E402
from moec_zarr.errors import UnsupportedArrayError  # noqa: E402
from moec_zarr.fit.presets import PRESETS  # noqa: E402
from moec_zarr.fit.rate_control import fit_transform  # noqa: E402
from moec_zarr.model.coefficients import CoefficientField  # noqa: E402
from moec_zarr.model.network import expert_load  # noqa: E402
from moec_zarr.settings import Settings  # noqa: E402
from tests.support.fields import normalised, psnr  # noqa: E402


def coordinates(shape):
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")


def preset(**changes):
    """Both efforts with a single start, and other changes."""
    short = replace(PRESETS["fast"], starts=PRESETS["fast"].starts[:1], **changes)
    return patch.dict(PRESETS, fast=short, balanced=short)


def test_correcting_network_pays_at_edges():
    """A field of two values, at whose edges a few coefficients ring."""
    u, v, w = coordinates((16, 32, 32))
    data = np.where(np.sin(7 * u + 3 * v) + np.sin(5 * v - 4 * w) > 0, 10.0, 0.0).astype("f4")
    with preset(steps=100, correction_steps=1000, final_steps=1000):
        stream = encode(data, Settings(ratio=data.nbytes / 900, effort="balanced"))
    parts = open_stream(stream)
    assert parts.network is not None
    assert parts.network.stencils
    assert parts.coefficients is not None
    plain = fit_transform(normalised(data), None, len(stream))
    assert plain is not None
    ringing = np.clip(CoefficientField(plain.coefficients).whole(), -1, 1)
    assert psnr(data, decode(stream)) > psnr(normalised(data), ringing) + 1


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


def test_transform_of_an_axis_too_long_is_refused():
    with pytest.raises(UnsupportedArrayError, match="2048"):
        encode(np.arange(6000.0) ** 2, Settings(ratio=40, model="transform"))
