"""The structural similarity of two fields of floats, as the literature on climate data has it."""

from __future__ import annotations

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles
from moec_zarr.errors import MoECError

__all__ = ["LEAST_SIDE", "dssim"]

_REACH, _SIGMA = 5, 1.5  # of the Gaussian window of 11 x 11 voxels
LEAST_SIDE = 2 * _REACH + 1
"""Voxels of a slice that a window fits into."""

_LEVELS = 255  # steps that both fields are rounded to
_SMALL = 1e-8  # both constants


def dssim(original: Array, decoded: Array, valid: Bools) -> float | None:
    """Compute the DSSIM of two slices; 1 for equal ones.

    As Baker, Pinard and Hammerling define it (IEEE TVCG 30(9), 2024, arXiv 2202.02616) and ldcpy computes it:
    both are scaled by their common range to 0 .. 1 and rounded to 256 values; SSIM is taken with a Gaussian
    window of 11 x 11 voxels (sigma 1.5) and constants of 1e-8, and its mean over all windows that lie within
    the slice. Weights of a window are those of its valid voxels; where the middle is none, it does not count.

    Parameters
    ----------
    original, decoded : array, shape (y, x)
    valid : bool array
        Voxels that are valid in both.

    Returns
    -------
    float or None
        None where no window fits, or none has a valid middle.
    """
    try:
        from scipy.ndimage import correlate1d
    except ModuleNotFoundError as error:
        raise MoECError("DSSIM needs scipy, which the extra moec-zarr[all] brings; install it") from error
    inner = (slice(_REACH, -_REACH),) * 2
    if min(original.shape) < LEAST_SIDE or not valid[inner].any():
        return None
    low = min(original[valid].min(), decoded[valid].min())
    high = max(original[valid].max(), decoded[valid].max())
    x, y = (_scale(field, valid, float(low), float(high)) for field in (original, decoded))
    window = np.exp(-0.5 * np.square(np.arange(-_REACH, _REACH + 1) / _SIGMA))
    window /= window.sum()

    def smooth(field: Doubles) -> Doubles:
        return np.asarray(correlate1d(correlate1d(field, window, 0), window, 1))[inner]

    weights = np.where(valid[inner], smooth(valid.astype(np.float64)), 1.0)
    mean_x, mean_y = smooth(x) / weights, smooth(y) / weights
    var_x, var_y = smooth(x * x) / weights - mean_x**2, smooth(y * y) / weights - mean_y**2
    both = smooth(x * y) / weights - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _SMALL) / (mean_x**2 + mean_y**2 + _SMALL)
    similarity *= (2 * both + _SMALL) / (var_x + var_y + _SMALL)
    return float(similarity[valid[inner]].mean())


def _scale(field: Array, valid: Bools, low: float, high: float) -> Doubles:
    """Bring a field to 256 values from 0 to 1; 0 where it is not valid."""
    values = np.where(valid, field, low).astype(np.float64)
    scaled = (values - low) / (high - low) if high > low else values / high if high else values
    return np.where(valid, np.round(scaled * _LEVELS) / _LEVELS, 0.0)
