"""More bytes never give a larger error, a high PSNR takes few bytes, and figures are those of any decoder."""

import math
import pickle

import numpy as np
import pytest

from moec_zarr import BudgetError, inspect
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.runtime import is_installed
from moec_zarr.settings import Settings
from tests.conformance import reference_decoder


def encode_reachable(array, settings):
    """Encode at the ratio asked for, or else at one that is reached."""
    with config.set(budget="keep"):
        return encode(array, settings)


RATIOS = (1000, 300, 100, 40, 20, 10, 5, 3, 2)


def field(kind, side=24):
    """Fields that far fewer coefficients than voxels describe."""
    grid = np.indices((side,) * 3).astype("f8")
    centred = grid - (side - 1) / 2
    radius = np.linalg.norm(centred, axis=0)
    return {
        "peak": np.exp(-radius / 3),
        "hill": np.exp(-((4 * radius / side) ** 2)),
        "waves": np.cos(grid[0] / 7) + np.sin(grid[1] / 5 + grid[2] / 9),
        "saddle": centred.prod(axis=0),
        "corner": np.exp(-np.linalg.norm(grid, axis=0) / 3),
    }[kind]


def as_dtype(values, dtype):
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    share = (values - values.min()) / np.ptp(values)
    return np.rint(share * min(float(np.iinfo(dtype).max), 2.0**50)).astype(dtype)


def mean_square(array, decoded):
    return float(np.mean((array.astype("f8") - decoded.astype("f8")) ** 2))


@pytest.mark.parametrize("kind", ["peak", "waves", "corner"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i2", "u1"])
def test_error_never_rises_with_the_bytes(kind, dtype):
    """A decibel is left to what rounding to integers hits by chance."""
    array = as_dtype(field(kind), dtype)
    smallest = math.inf
    for ratio in RATIOS:
        try:
            stream = encode(array, Settings(ratio=ratio, effort="fast"))
        except BudgetError:
            assert smallest == math.inf
            continue
        assert len(stream) <= array.nbytes / ratio
        error = mean_square(array, decode(stream))
        assert error <= 10 ** (0.03 if dtype[0] == "f" else 0.12) * smallest
        smallest = min(smallest, error)


@pytest.mark.usefixtures("fitted")
def test_a_budget_that_a_transform_cannot_use_goes_to_corrections():
    array = as_dtype(field("peak", 32), "f8")
    stream = encode(array, Settings(ratio=10, effort="fast"))
    assert 0.85 * array.nbytes / 10 < len(stream) <= array.nbytes / 10
    assert inspect(stream).psnr > 140
    assert "residual" in inspect(stream).sections


def test_a_high_psnr_takes_little_more_than_a_lower_one():
    array = as_dtype(field("peak", 32), "f4")
    sizes = [len(encode(array, Settings(psnr=psnr, effort="fast"))) for psnr in (110, 120, 125)]
    assert sizes == sorted(sizes)
    assert sizes[2] < 2.5 * sizes[0]


@pytest.mark.parametrize("psnr", [100, 118, 125, 140])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_high_psnr_is_reached(psnr, dtype):
    array = as_dtype(field("corner"), dtype)
    decoded = decode(encode(array, Settings(psnr=psnr, effort="fast")))
    assert mean_square(array, decoded) <= np.ptp(array.astype("f8")) ** 2 * 10 ** (-psnr / 10)


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize("kind", ["peak", "waves", "hill"])
@pytest.mark.parametrize("target", [{"ratio": 20}, {"psnr": 125}, {"psnr": 105}])
def test_high_figures_are_those_of_every_decoder(kind, target):
    array = as_dtype(field(kind), "f8")
    stream = encode(array, Settings(effort="fast", **target))
    info = inspect(stream)
    decoders = [decode(stream), reference_decoder.decode(stream).array]
    decoders.append(np.stack([decode(stream, (..., i)) for i in range(array.shape[-1])], axis=-1))
    if is_installed("torch"):
        with config.set(decoder="torch"):
            decoders.append(decode(stream))
    for decoded in decoders:
        measured = 10 * math.log10(np.ptp(array) ** 2 / mean_square(array, decoded))
        assert measured == pytest.approx(info.psnr, abs=0.012)
        largest = np.abs(array - decoded).max()
        assert info.max_error / 1.01 < largest <= info.max_error * (1 + 1e-9)


def test_what_fast_never_makes_takes_no_room():
    """Of the bytes that the smallest stream needs, none are set aside for a network."""
    array = as_dtype(field("hill", 20), "f4")
    needed = len(encode_reachable(array, Settings(ratio=1e6, effort="fast")))
    assert needed < 70
    assert len(encode(array, Settings(ratio=array.nbytes / needed, effort="fast"))) <= needed
    with pytest.raises(BudgetError) as caught:
        encode(array, Settings(ratio=array.nbytes / (needed - 1), effort="fast"))
    assert caught.value.needed_bytes == needed
    assert caught.value.reachable_ratio == array.nbytes / needed


def scattered(side=40):
    array = as_dtype(field("hill", side), "f4")
    array[np.random.default_rng(0).random(array.shape) < 0.1] = np.nan
    return array


def test_a_mask_beyond_the_budget_is_named_with_the_ratio_that_is_reached():
    array = scattered()
    asked = Settings(ratio=100, effort="fast")
    with pytest.raises(BudgetError, match="no larger one would do") as caught:
        encode(array, asked)
    refused = pickle.loads(pickle.dumps(caught.value))  # as a worker sends it
    assert "for example" not in str(refused)
    assert refused.needed_bytes > array.nbytes / 100
    stream = encode(array, Settings(ratio=refused.reachable_ratio, effort="fast"))
    assert len(stream) <= refused.needed_bytes
    with pytest.raises(BudgetError):
        encode(array, Settings(ratio=1.01 * refused.reachable_ratio, effort="fast"))


def test_a_chunk_is_encoded_at_a_ratio_that_it_reaches():
    """The values are as close as a ratio makes those of a chunk without a mask."""
    array = scattered()
    asked = Settings(ratio=100, effort="fast")
    stream = encode_reachable(array, asked)
    decoded = decode(stream)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(array))
    mask = inspect(stream).sections["mask"]
    assert mask < len(stream) <= array.nbytes / 100 + mask + 50
    whole = as_dtype(field("hill", 40), "f4")
    unmasked = inspect(encode(whole, asked)).psnr
    assert inspect(stream).psnr > min(unmasked, 80) - 6


def test_a_ratio_that_is_reached_is_kept():
    array = as_dtype(field("waves"), "f4")
    asked = Settings(ratio=50, effort="fast")
    assert encode_reachable(array, asked) == encode(array, asked)
    constant = np.where(np.random.default_rng(0).random((40, 40, 40)) < 0.2, np.nan, 3).astype("f4")
    np.testing.assert_array_equal(
        decode(encode_reachable(constant, Settings(ratio=900, effort="fast"))), constant
    )
