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

    64-bit integers are further apart from zero than double precision resolves: their centre is an integer,
    and is subtracted and added in integers.

    Attributes
    ----------
    centre : float or int
        Centre of the range of the valid values, in their units.
    scale : float
        Half the width of that range.
    shift : int
        Octaves by which a network's targets are larger than the values in a stream, so that data
        that fill little of their range suit its learning rate. 0 in all that is decoded.
    """

    centre: float | int
    scale: float
    shift: int = 0

    @classmethod
    def of_range(cls, low: Any, high: Any) -> Self:
        """Make the normalisation of values between `low` and `high`."""
        if isinstance(low, np.integer) and low.itemsize == 8:
            bottom, top = int(low), int(high)
            # Rounded up: all differences to it are signed 64-bit integers.
            return cls(-((-bottom - top) // 2), max((top - bottom) / 2, _SMALLEST_SCALE))
        # The range itself may exceed the largest double, half of it does not.
        half = float(high) / 2 - float(low) / 2
        return cls(float(high) / 2 + float(low) / 2, max(half, _SMALLEST_SCALE))

    def normalise(self, array: Array) -> Doubles:
        """Return values of the array as fitted values."""
        if isinstance(self.centre, int):
            difference = (array.astype(np.uint64) - _wrap(self.centre)).view(np.int64).astype(np.float64)
        else:
            with np.errstate(invalid="ignore"):  # of NaN, which is masked
                difference = array.astype(np.float64) - self.centre
        return np.asarray(difference / (self.scale * 2.0**-self.shift))

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
        dtype = dtype.newbyteorder("=")
        if isinstance(self.centre, int):
            return self._restore_exactly(values, dtype, int(low), int(high))
        with np.errstate(over="ignore"):  # beyond the largest double lies the end of the range
            wide = np.clip(self.centre + self.scale * values.astype(np.float64), float(low), float(high))
        return (wide if dtype.kind == "f" else np.rint(wide)).astype(dtype)

    def _restore_exactly(self, values: Floats, dtype: np.dtype[Any], low: int, high: int) -> Array:
        """Return the same for 64-bit integers."""
        assert isinstance(self.centre, int)
        below, above = low - self.centre, high - self.centre
        wide = np.rint(self.scale * values.astype(np.float64))
        # Doubles next to the ends of the range may lie beyond it.
        inner = (wide > float(below)) & (wide < float(above))
        difference = np.where(wide >= float(above), above, below).astype(np.int64)
        difference[inner] = wide[inner].astype(np.int64)
        return (difference.view(np.uint64) + _wrap(self.centre)).astype(dtype)


def _wrap(value: int) -> np.uint64:
    """Return an integer modulo 2^64, as which 64-bit integers are added and subtracted."""
    return np.uint64(value % 2**64)
