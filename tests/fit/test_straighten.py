"""Transforms that are right in the mean though decoders clip their values."""

import numpy as np
import pytest

from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.codec.repeated import Raced
from moec_zarr.fit.transform.context_fit import first_parameters, round_parameters
from moec_zarr.fit.transform.start import encode_transform
from moec_zarr.fit.transform.straighten import straighten, straighten_within
from moec_zarr.model.basis import AxisBasis
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.transform import analyse
from moec_zarr.settings import Settings
from tests.support.fields import psnr, rough


@pytest.fixture
def transforms_alone(monkeypatch):
    monkeypatch.setattr("moec_zarr.codec.encode.race_repeated", lambda chunk, *_, **__: Raced(chunk))
    monkeypatch.setattr("moec_zarr.fit.select.choose_experts", lambda *_, **__: None)
    monkeypatch.setattr("moec_zarr.fit.transform.error_control.restore_within", lambda *_, **__: None)


def rain(dtype="f4", shape=(24, 40, 48)):
    """Zeros in most places, about which a transform rings, and no sharp edges."""
    field = rough(shape, "f8", noise=2)
    return (np.maximum(field - np.quantile(field, 0.8), 0) * 10).astype(dtype)


def bias(original, decoded):
    x, y = (values[np.isfinite(original)].astype("f8") for values in (original, decoded))
    return (y.mean() - x.mean()) / np.abs(x).mean()


@pytest.mark.parametrize("target", [{"ratio": 100}, {"ratio": 200}, {"psnr": 30}], ids=str)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u2"])
def test_means_stay_where_clipping_would_move_them(target, dtype, transforms_alone, monkeypatch):
    array = rain(dtype)
    stream = encode(array, Settings(effort="fast", **target))
    assert open_stream(stream).coefficients is not None
    assert abs(bias(array, decode(stream))) < 1e-3
    for place in "straighten", "error_control":
        monkeypatch.setattr(f"moec_zarr.fit.transform.{place}.straighten", lambda *_, **__: iter(()))
    without = encode(array, Settings(effort="fast", **target))
    assert bias(array, decode(without)) > 3e-3
    if "ratio" in target:
        assert len(stream) <= array.nbytes / target["ratio"]
        assert psnr(array, decode(stream)) > psnr(array, decode(without)) + 0.01
    else:
        assert psnr(array, decode(stream)) >= target["psnr"]
        assert len(stream) <= len(without)


def test_masked_values_and_logarithms_are_no_obstacle():
    array = rain()
    array[:, 5:9, 3:11] = np.nan
    for settings in Settings(ratio=60, effort="fast"), Settings(ratio=60, effort="fast", scale="log"):
        decoded = decode(encode(array, settings))
        np.testing.assert_array_equal(np.isnan(decoded), np.isnan(array))
        if settings.scale == "linear":
            assert abs(bias(array, decoded)) < 1e-3


BASES = [
    (AxisBasis(), AxisBasis(), AxisBasis()),
    (AxisBasis(2), AxisBasis(1), AxisBasis()),
    (AxisBasis(), AxisBasis(2, joint=True), AxisBasis(1, joint=True)),
    (AxisBasis(edge_weights=(3,) * 8 + (9, 4, 7)), AxisBasis(), AxisBasis(4)),
]


@pytest.mark.parametrize("bases", BASES, ids=str)
def test_every_basis_is_shifted_and_stretched(bases):
    """What was shrunk and shifted by a known amount comes back."""
    target = np.clip(rain(shape=(12, 18, 20)) / 60 - 1, -1, 1).astype("f4")
    ringing = target + np.where(np.random.default_rng(0).random(target.shape) < 0.5, -0.06, 0.06).astype("f4")
    step = 0.01
    integers = np.rint(analyse(0.9 * ringing + np.float32(0.03), bases) / step).astype("i4")
    given = Coefficients(target.shape, bases, step, integers)
    values = CoefficientField(given).whole()
    better = next(straighten(given, values, target, None, -1.0))
    straight = np.clip(CoefficientField(better).whole(), -1, 1)
    size = np.abs(target + 1).mean()
    assert abs((np.clip(values, -1, 1) - target).mean()) > 0.1 * size
    assert abs((straight - target).mean()) < 1e-3 * size
    assert np.square(straight - target).mean() < 0.7 * np.square(np.clip(values, -1, 1) - target).mean()
    assert better.step > step


def test_what_is_right_stays_as_it_is():
    target = np.sin(np.indices((12, 18, 20)).sum(0) / 5).astype("f4") * np.float32(0.9)
    step = 1e-3
    given = Coefficients(target.shape, BASES[0], step, np.rint(analyse(target, BASES[0]) / step).astype("i4"))
    assert next(straighten(given, CoefficientField(given).whole(), target, None, 0.0), None) is None


def test_another_step_is_written_as_it_would_be_coded():
    """Stretched, so that nothing but the step is to change."""
    target = np.clip(rain(shape=(12, 18, 20)) / 60 - 1, -1, 1).astype("f4")
    step, bases = 0.02, BASES[0]
    given = Coefficients(target.shape, bases, step, np.rint(analyse(0.7 * target, bases) / step).astype("i4"))
    transform = encode_transform(given, round_parameters(first_parameters((True,) * 3), 1), target.shape)
    values = CoefficientField(given).whole()
    found = straighten_within(transform, values, target, None, -1.0, transform.nbytes)
    better = found.transform
    assert better.coefficients.step > step
    again = encode_transform(better.coefficients, transform.context, target.shape)
    assert better.payload == again.payload
    np.testing.assert_array_equal(found.values, CoefficientField(better.coefficients).whole())
    assert found.error == pytest.approx(np.square(np.clip(found.values, -1, 1) - target).mean(), rel=1e-5)
    assert found.error < np.square(np.clip(values, -1, 1) - target).mean()
