"""The affine map between an array's values and the values that are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles, Floats
from moec_zarr.model.scale import Scale

__all__ = ["Limits", "Normalisation", "neighbours"]

_SMALLEST_SCALE = 2.0**-1000  # clear of subnormal numbers
_BLOCK = 1 << 14  # values restored at a time


class Limits(NamedTuple):
    """What decoded values are restored to.

    Attributes
    ----------
    low, high : scalar of the dtype
        Their range.
    missing : scalar of the dtype, or None
        A value between the two that none of these is.
    scale : Scale or None
        The logarithmic scale that was fitted; None where values themselves were.
    """

    low: Any
    high: Any
    missing: Any = None
    scale: Scale | None = None

    def restore(self, fitted: Floats | Doubles, dtype: np.dtype[Any]) -> Array:
        """Return fitted values as values of a dtype; on a scale, before signs and `missing` are seen to."""
        if self.scale is not None:
            return self.scale.restore(fitted, dtype, self.low, self.high)
        normalisation = Normalisation.of_range(self.low, self.high)
        return normalisation.restore(fitted, dtype, self.low, self.high, self.missing)

    def complete(self, restored: Array, signs: Bools | None) -> None:
        """Give values restored from a scale their signs, in place; none of them is `missing` then.

        Parameters
        ----------
        restored : array
            In any byte order.
        signs : bool array of the same shape, or None
            Where values are negative.
        """
        if signs is not None:
            np.negative(restored, out=restored, where=signs)
            np.clip(restored, self.low, self.high, out=restored)
        if self.missing is not None:
            restored[restored == self.missing] = neighbours(self.missing)[1]


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
        with np.errstate(over="ignore", invalid="ignore"):  # of what is masked
            if isinstance(self.centre, int):
                difference = (array.astype(np.uint64) - _wrap(self.centre)).view(np.int64).astype(np.float64)
            else:
                difference = array.astype(np.float64) - self.centre
            return np.asarray(difference / (self.scale * 2.0**-self.shift))

    def restore(
        self, values: Floats | Doubles, dtype: np.dtype[Any], low: Any, high: Any, missing: Any = None
    ) -> Array:
        """Fitted values as values of a dtype, clipped to the range; integers are rounded.

        Parameters
        ----------
        values : float array
            Of a stream, so that `shift` is 0.
        dtype : numpy.dtype
            In whatever byte order; what is returned has the native one.
        low, high : scalar of `dtype`
            The range.
        missing : scalar of `dtype`, optional
            A value between the two that none of these is: what would be takes a neighbour of it.
        """
        restored = np.empty(values.shape, dtype.newbyteorder("="))
        fitted, flat = values.reshape(-1), restored.reshape(-1)
        for start in range(0, fitted.size, _BLOCK):
            part = slice(start, start + _BLOCK)
            self._restore_block(fitted[part], flat[part], low, high, missing)
        return restored

    def _restore_block(self, values: Array, restored: Array, low: Any, high: Any, missing: Any) -> None:
        """Restore a few values, so that what is computed on the way stays in the cache."""
        with np.errstate(over="ignore"):  # beyond the largest double lies the end of the range
            wide = np.multiply(values, self.scale, dtype=np.float64)
            if isinstance(self.centre, int):
                restored[:] = self._restore_exactly(wide, restored.dtype, int(low), int(high))
            else:
                wide += self.centre
                np.clip(wide, float(low), float(high), out=wide)
                rounded = wide if restored.dtype.kind == "f" else np.rint(wide)
                np.copyto(restored, rounded, casting="unsafe")
        if missing is not None and (taken := restored == missing).any():
            place = int(missing) - self.centre if isinstance(self.centre, int) else missing
            below, above = neighbours(missing)
            np.copyto(restored, np.where(wide < float(place), below, above), where=taken)

    def _restore_exactly(self, wide: Doubles, dtype: np.dtype[Any], low: int, high: int) -> Array:
        """Return 64-bit integers by their differences to the centre, not yet rounded."""
        assert isinstance(self.centre, int)
        below, above = low - self.centre, high - self.centre
        wide = np.rint(wide)
        # Doubles next to the ends of the range may lie beyond it.
        inner = (wide > float(below)) & (wide < float(above))
        difference = np.where(wide >= float(above), above, below).astype(np.int64)
        difference[inner] = wide[inner].astype(np.int64)
        return (difference.view(np.uint64) + _wrap(self.centre)).astype(dtype)


def neighbours(value: Any) -> tuple[Any, Any]:
    """Return the next smaller and the next larger value of a scalar's dtype."""
    if isinstance(value, np.integer):
        return type(value)(int(value) - 1), type(value)(int(value) + 1)
    return np.nextafter(value, type(value)(-np.inf)), np.nextafter(value, type(value)(np.inf))


def _wrap(value: int) -> np.uint64:
    """Return an integer modulo 2^64, as which 64-bit integers are added and subtracted."""
    return np.uint64(value % 2**64)
