"""How far decoded values are from their originals: the one place where errors are added up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles

__all__ = [
    "Quality",
    "absolute_error",
    "allowed_error",
    "keeps",
    "keeps_relative",
    "measure",
    "merge",
    "relative_error",
]

_EXACT = 2.0**-50  # by which a product in double precision is taken for smaller, so that it is not too large
_SUBNORMAL = 2.0**-1074  # between two doubles next to zero


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Errors over the valid values of an array or a part of one; parts can be merged.

    Attributes
    ----------
    n : int
        Number of voxels.
    n_valid : int
        Number of those that are valid: neither NaN, infinite nor a sentinel. Errors are taken over them.
    low, high : int, float or None
        Smallest and largest valid value of the original; None without one.
    rmse : float
        Root mean square error, in units of the data.
    max_error : float
        Largest absolute error, in units of the data.
    """

    n: int = 0
    n_valid: int = 0
    low: float | None = None
    high: float | None = None
    rmse: float = 0.0
    max_error: float = 0.0

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB, with the range as the peak; infinite where there is no error."""
        if self.rmse == 0 or self.low is None or self.high is None:
            return math.inf
        return decibel(self.high, self.low, self.rmse)

    @property
    def relative_max_error(self) -> float:
        """Largest absolute error over the range of the original."""
        if self.max_error == 0 or self.low is None or self.high is None:
            return 0.0
        if self.high == self.low:
            return math.inf
        span = self.high - self.low
        return (
            self.max_error / span if span < math.inf else self.max_error / half_range(self.high, self.low) / 2
        )


def half_range(high: float, low: float) -> float:
    """Return half of a range; integers are subtracted exactly, and no double overflows."""
    if isinstance(high, int) and isinstance(low, int):
        return (high - low) / 2
    return high / 2 - low / 2


def decibel(high: float, low: float, rmse: float) -> float:
    """Return the peak signal-to-noise ratio in dB of an error above zero."""
    if high == low or rmse == math.inf:
        return -math.inf
    span = high - low
    wide = math.log10(span) if span < math.inf else math.log10(half_range(high, low)) + math.log10(2)
    return 20 * (wide - math.log10(rmse))


def measure(original: Array, decoded: Array, valid: Bools | None = None) -> Quality:
    """Measure the quality of decoded values.

    Parameters
    ----------
    original, decoded : array
        Of one shape, integers or floats.
    valid : bool array, optional
        Which voxels count; all where None.
    """
    x, y = (original, decoded) if valid is None else (original[valid], decoded[valid])
    if x.size == 0:
        return Quality(n=original.size)
    error = absolute_error(x, y)
    largest = float(error.max())
    return Quality(
        n=original.size,
        n_valid=x.size,
        low=x.min().item(),
        high=x.max().item(),
        rmse=largest * math.sqrt(np.square(error / largest).mean()) if 0 < largest < math.inf else largest,
        max_error=largest,
    )


def absolute_error(x: Array, y: Array) -> Doubles:
    """Compute |x - y| in double precision; integers of one dtype, in any byte order, exactly."""
    if x.dtype.kind in "iu" and x.dtype.newbyteorder("=") == y.dtype.newbyteorder("="):
        # Wrapped to 64 bits without sign, the difference of larger and smaller is exact.
        larger, smaller = np.maximum(x, y).astype(np.uint64), np.minimum(x, y).astype(np.uint64)
        return (larger - smaller).astype(np.float64)
    with np.errstate(over="ignore"):  # of two values at either end of the doubles
        return np.asarray(np.abs(x.astype(np.float64) - y.astype(np.float64)))


def keeps(original: Array, decoded: Array, valid: Bools | None, bound: float) -> bool:
    """Say whether no valid value is further off than `bound`, in double precision and in the dtype's own.

    Parameters
    ----------
    original, decoded : array
        Of one shape and dtype, integers or floats.
    valid : bool array, optional
        Which voxels count; all where None.
    bound : float
    """
    x, y = (original, decoded) if valid is None else (original[valid], decoded[valid])
    if x.size == 0:
        return True
    if x.dtype.kind in "iu":
        larger, smaller = np.maximum(x, y).astype(np.uint64), np.minimum(x, y).astype(np.uint64)
        return int((larger - smaller).max()) <= bound
    with np.errstate(over="ignore"):
        return bool(np.abs(x - y).max() <= bound) and float(absolute_error(x, y).max()) <= bound


def allowed_error(array: Array, relative: float, absolute: float = 0.0) -> Doubles:
    """Return how far each value may be off: ``max(absolute, relative |x|)``, rounded down.

    So far down that an error within it is within the bound in exact arithmetic, and in the dtype's own.
    """
    magnitude = np.abs(array.astype(np.float64))
    if array.dtype.kind in "iu":
        whole = math.floor(absolute) * (1 if absolute < 2**50 else 1 - _EXACT)
        return np.asarray(np.maximum(whole, relative * magnitude * (1 - _EXACT)))
    eps = float(np.finfo(array.dtype).eps)
    allowed = np.maximum(absolute * (1 - eps), relative * magnitude * (1 - 4 * eps))
    return np.asarray(np.maximum(allowed - np.where(allowed < 2.0**-1000, 2 * _SUBNORMAL, 0), 0))


def keeps_relative(
    original: Array, decoded: Array, valid: Bools | None, relative: float, absolute: float = 0.0
) -> bool:
    """Say whether no valid value is further off than ``max(absolute, relative |x|)``, in exact arithmetic.

    Parameters
    ----------
    original, decoded : array
        Of one shape and dtype, integers or floats.
    valid : bool array, optional
        Which voxels count; all where None.
    relative, absolute : float
    """
    x, y = (original, decoded) if valid is None else (original[valid], decoded[valid])
    return bool((absolute_error(x, y) <= allowed_error(x, relative, absolute)).all())


def relative_error(original: Array, decoded: Array, valid: Bools | None = None, knee: float = 0.0) -> float:
    """Return the largest error of a valid value over the larger of its magnitude and a knee.

    Infinite where a zero is off and there is no knee.
    """
    x, y = (original, decoded) if valid is None else (original[valid], decoded[valid])
    error = absolute_error(x, y)
    if not error.any():
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        share = error / np.maximum(np.abs(x.astype(np.float64)), knee)
    return float(share[error > 0].max())


def merge(parts: Iterable[Quality]) -> Quality:
    """Merge the quality of several parts."""
    parts = [part for part in parts if part.n]
    n_valid = sum(part.n_valid for part in parts)
    return Quality(
        n=sum(part.n for part in parts),
        n_valid=n_valid,
        low=min((part.low for part in parts if part.low is not None), default=None),
        high=max((part.high for part in parts if part.high is not None), default=None),
        rmse=math.hypot(*(part.rmse * math.sqrt(part.n_valid / n_valid) for part in parts if part.n_valid)),
        max_error=max((part.max_error for part in parts), default=0.0),
    )
