"""A logarithmic scale of values: what is fitted is how large they are, not what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from moec_zarr.arrays import Array, Doubles, Floats
from moec_zarr.model.backend import AnyArray, array_namespace

__all__ = ["EXPONENTIAL", "Scale", "to_scale"]

EXPONENTIAL = 2.0**-42  # relative error of a decoder's exponentials, as what they are taken of is rounded


def to_scale(array: Array, knee: float) -> Doubles:
    """Return values on a logarithmic scale.

    Without a knee it is ``log |x|``. With one it is ``x / knee`` up to there and, with the sign of x,
    ``1 + log(|x| / knee)`` beyond: both meet with the same slope, and zero is zero.
    """
    magnitude = np.abs(array.astype(np.float64))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # of what is beyond the knee, or zero
        logs = np.log(magnitude)
        if not knee:
            return np.asarray(logs)
        bent = np.where(magnitude <= knee, magnitude / knee, 1 + logs - math.log(knee))
        return np.asarray(np.where(array < 0, -bent, bent))


@dataclass(frozen=True)
class Scale:
    """The part of a logarithmic scale that a chunk's values lie on.

    Attributes
    ----------
    knee : float
        Magnitude up to which the scale is linear; 0 for logarithms of the magnitude alone.
    centre, half : float
        Of the range on the scale. Fitted values -1 and 1 are its ends.
    """

    knee: float
    centre: float
    half: float

    @classmethod
    def of_range(cls, knee: float, low: float, high: float) -> Self:
        """Make the scale of values between two, which its numbers in single precision hold."""
        centre = float(np.float32((low + high) / 2))
        wide = max(high - centre, centre - low)
        half = np.float32(wide)
        if not half or half < wide:
            half = np.nextafter(half, np.float32(np.inf))
        return cls(knee, centre, float(half))

    def values(self, fitted: AnyArray) -> AnyArray:
        """Return the values of fitted ones, in double precision; magnitudes where there is no knee."""
        xp = array_namespace(fitted)
        place = self.centre + self.half * xp.clip(fitted, -1.0, 1.0)
        if not self.knee:
            return xp.exp(place)
        far = xp.abs(place)
        magnitude = self.knee * xp.where(far <= 1, far, xp.exp(far - 1))
        return xp.where(place < 0, -magnitude, magnitude)

    def ends(self, low: Any, high: Any) -> tuple[Any, Any]:
        """Return the range of :meth:`values` as numbers of Python, by that of the valid values."""
        low, high = low.item(), high.item()
        if self.knee:
            return low, high
        return type(low)(0), max(abs(low), abs(high))

    def restore(self, fitted: Floats | Doubles, dtype: np.dtype[Any], low: Any, high: Any) -> Array:
        """Return fitted values as values of a dtype in native byte order; without a knee magnitudes."""
        dtype = dtype.newbyteorder("=")
        bottom, top = self.ends(low, high)
        if dtype.kind != "f":
            top = min(top, int(np.iinfo(dtype).max))
        with np.errstate(over="ignore"):  # beyond the largest double lies the end of the range
            wide = np.asarray(self.values(fitted.astype(np.float64)))
        if dtype.kind == "f":
            return np.asarray(np.clip(wide, bottom, top).astype(dtype))
        wide = np.rint(wide)
        # Doubles next to the ends of the range may lie beyond it.
        inner = (wide > float(bottom)) & (wide < float(top))
        result = np.asarray(np.where(wide >= float(top), dtype.type(top), dtype.type(bottom)))
        result[inner] = wide[inner].astype(dtype)
        return result
