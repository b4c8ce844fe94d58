"""Axes too long for a matrix of their basis: folded, and read whole and in parts by every decoder."""

import numpy as np
import pytest

from moec_zarr import inspect
from moec_zarr.bitstream.stream import open_stream
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.model.folding import folded_shape
from moec_zarr.runtime import is_installed
from moec_zarr.settings import Settings
from tests.conformance import reference_decoder
from tests.support.fields import psnr


def series(*shape, axis=0):
    """A yearly cycle with weather on it along one axis, waves along the others; noise everywhere."""
    grid = np.indices(shape).astype("f8")
    weather = np.random.default_rng(0).normal(size=shape[axis] + 8)
    weather = np.convolve(weather, np.ones(9), "valid")[: shape[axis]]
    others = sum(np.sin(grid[other] / 4 + other) for other in range(len(shape)) if other != axis)
    days = np.arange(shape[axis])
    along = 10 * np.cos(2 * np.pi * days / 365.25) + 0.3 * weather
    noise = np.random.default_rng(1).normal(0, 0.05, shape)
    return (along.reshape([-1 if a == axis else 1 for a in range(len(shape))]) + others + noise).astype("f4")


CASES = {
    "first": series(2500, 3, 4),
    "last": series(3, 4, 4099, axis=2),
    "middle": series(4, 2049, 1, 3, axis=1),
    "alone": series(5000),
    "one of one voxel": series(1, 3001, 1, axis=1),
    "masked": np.where(np.arange(2300)[:, None] % 37 < 30, series(2300, 5), np.nan).astype("f4"),
}
PARTS = [slice(100, 2060, 3), slice(None, None, -7), slice(2047, 2049), 2048, slice(5, 5)]


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", [{"ratio": 20}, {"psnr": 45}, {"max_error": 0.3}])
def test_every_decoder_reads_the_same(name, target):
    array = CASES[name]
    stream = encode(array, Settings(effort="fast", **target))
    assert open_stream(stream).coefficients is not None
    whole = decode(stream)
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(array))
    if "psnr" in target:
        assert psnr(array, whole) >= 45
    if "max_error" in target:
        assert np.nanmax(np.abs(whole - array)) <= 0.3
    decoders = [reference_decoder.decode(stream).array]
    with config.set(compiled=False, cache=0):
        decoders.append(decode(stream))
    if is_installed("torch"):
        with config.set(decoder="torch"):
            decoders.append(decode(stream))
    for decoded in decoders:
        np.testing.assert_allclose(decoded, whole, rtol=0, atol=2e-4)
    long = int(np.argmax(array.shape))
    for part in PARTS:
        selection = tuple(part if axis == long else slice(None) for axis in range(array.ndim))
        for decoder in ["numpy", "torch"] if is_installed("torch") else ["numpy"]:
            with config.set(decoder=decoder):
                got = decode(stream, selection)
            np.testing.assert_allclose(got, whole[selection], rtol=0, atol=2e-4)
    rng = np.random.default_rng(2)
    points = tuple(rng.integers(0, n, 50) for n in array.shape)
    np.testing.assert_allclose(decode(stream, points), whole[points], rtol=0, atol=2e-4)
    scattered = np.ix_(*(rng.permutation(n)[: max(1, n // 3)] for n in array.shape))
    np.testing.assert_allclose(decode(stream, scattered), whole[scattered], rtol=0, atol=2e-4)


def test_a_long_axis_is_no_cliff():
    """Five times as many days, at the same ratio and by the transform alone."""
    array = series(4 * 1825, 6, 6)
    short, long = (encode(each, Settings(ratio=50, effort="fast")) for each in (array[:1825], array))
    assert inspect(long).kind == inspect(short).kind == "transform"
    assert inspect(long).psnr > inspect(short).psnr - 0.3


def test_an_axis_of_many_blocks(monkeypatch):
    """Two axes do not hold it: it becomes three."""
    monkeypatch.setattr("moec_zarr.model.folding.LONGEST_AXIS", 16)
    assert len(folded_shape([2048])) == 3
    array = np.cumsum(np.random.default_rng(0).normal(size=(2, 2048)), axis=1).astype("f4")
    stream = encode(array, Settings(ratio=20, effort="fast"))
    with config.set(cache=0):
        whole = decode(stream)
        assert psnr(array, whole) > 25
        for part in slice(0, 3), slice(2046, None), slice(5, 2000, 100), slice(None, None, -1):
            got = decode(stream, (slice(None), part))
            np.testing.assert_allclose(got, whole[:, part], rtol=0, atol=1e-4 * np.ptp(array))


@pytest.mark.torch
def test_a_network_reads_a_folded_transform_as_it_stands():
    """Its neighbours lie along the axis, across the blocks."""
    array = series(2100, 4)
    stream = encode(array, Settings(ratio=20, effort="balanced"))
    decoded = decode(stream)
    np.testing.assert_allclose(reference_decoder.decode(stream).array, decoded, rtol=0, atol=2e-3)
    np.testing.assert_allclose(decode(stream, slice(1040, 1060)), decoded[1040:1060], rtol=0, atol=2e-3)
