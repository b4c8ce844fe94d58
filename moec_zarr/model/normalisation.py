"""The affine map between an array's values and the values that are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from moec_zarr.arrays import Array, Doubles, Floats

__all__ = ["Normalisation"]

_SMALLEST_SCALE = 2.0**-1000  # clear of subnormal numbers


@dataclass(frozen=True)
class Normalisation:
    """Fitted values are ``(array - centre) / scale * 2**shift``.

    Attributes
    ----------
    centre, scale : float
        Centre and half the width of the range of the valid values, in their units.
    shift : int
        Octaves by which a network's targets are larger than the values in a stream, so that data
        that fill little of their range suit its learning rate. 0 in all that is decoded.
    """

    centre: float
    scale: float
    shift: int = 0

    @classmethod
    def of_range(cls, low: Any, high: Any) -> Self:
        """That of values between `low` and `high`."""
        # The range itself may exceed the largest double, half of it does not.
        half = float(high) / 2 - float(low) / 2
        return cls(float(high) / 2 + float(low) / 2, max(half, _SMALLEST_SCALE))

    def normalise(self, array: Array) -> Doubles:
        """Values of the array as fitted values."""
        return np.asarray((array.astype(np.float64) - self.centre) / (self.scale * 2.0**-self.shift))

    def restore(self, values: Floats, dtype: np.dtype[Any], low: Any, high: Any) -> Array:
        """Fitted values as values of a dtype, clipped to the range; integers are rounded.

        Parameters
        ----------
        values : float32 array
            Of a stream, so that `shift` is 0.
        dtype : numpy.dtype
            In whatever byte order; what is returned has the native one.
        low, high : scalar of `dtype`
            The range.
        """
        bottom, top = float(low), float(high)
        with np.errstate(over="ignore"):  # beyond the largest double lies the end of the range
            wide = np.clip(self.centre + self.scale * values.astype(np.float64), bottom, top)
        dtype = dtype.newbyteorder("=")
        if dtype.kind == "f":
            return wide.astype(dtype)
        wide = np.rint(wide)
        if dtype.itemsize < 8:
            return wide.astype(dtype)
        # Doubles next to the ends of a 64-bit range may lie beyond it.
        ends = np.where(wide >= top, high, low).astype(dtype)
        inner = (wide > bottom) & (wide < top)
        return np.where(inner, np.where(inner, wide, 0).astype(dtype), ends)
