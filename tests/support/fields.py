"""Small fields that tests compress, and how close they come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

REAL_FIELDS = Path(__file__).parents[3] / "shared" / "data"  # not a part of the project; tests skip without


def smooth(shape: tuple[int, ...], dtype: DTypeLike = "f4", *, scale: float = 100.0) -> NDArray[Any]:
    """A few long waves between 0 and `scale`, of a given shape and dtype."""
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    wave = sum(np.sin((2 + i) * axis + i) * np.cos(3 * axes[-1]) for i, axis in enumerate(axes))
    wave = np.asarray(wave) - np.min(wave)
    return (wave * (scale / wave.max())).astype(dtype)


def rough(shape: tuple[int, ...], dtype: DTypeLike = "f4", *, noise: float = 1.0) -> NDArray[Any]:
    """The same with noise of a given standard deviation, always the same."""
    return (smooth(shape) + np.random.default_rng(0).normal(0, noise, shape)).astype(dtype)


def steps(shape: tuple[int, ...]) -> NDArray[Any]:
    """A field of six values, which is half as large without loss: its chunks need no fit."""
    return np.round(smooth(shape) / 20).astype("f4")


def normalised(array: NDArray[Any]) -> NDArray[np.float32]:
    """The array mapped to -1..1."""
    return ((array - array.min()) / np.ptp(array) * 2 - 1).astype(np.float32)


def psnr(reference: NDArray[Any], decoded: NDArray[Any]) -> float:
    """Decibels over all valid values, with their range as the peak."""
    valid = np.isfinite(reference)
    wanted = reference[valid].astype("f8")
    error = np.mean((wanted - decoded[valid].astype("f8")) ** 2)
    with np.errstate(divide="ignore"):
        return float(20 * np.log10(np.ptp(wanted) / np.sqrt(error)))


def assert_near(actual: NDArray[Any], expected: NDArray[Any], scale: float = 100.0) -> None:
    """Two ways of decoding the same voxels agree within 1e-5 of the range, in shape and dtype."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)
