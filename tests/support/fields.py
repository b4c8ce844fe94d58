"""Small fields that tests compress, and how close they come back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


def smooth(shape: tuple[int, ...], dtype: DTypeLike = "f4", *, scale: float = 100.0) -> NDArray[Any]:
    """A few long waves between 0 and `scale`, of a given shape and dtype."""
    axes = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    wave = sum(np.sin((2 + i) * axis + i) * np.cos(3 * axes[-1]) for i, axis in enumerate(axes))
    wave = np.asarray(wave) - np.min(wave)
    return (wave * (scale / wave.max())).astype(dtype)


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
