"""Corrections that keep every value within an absolute error of the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Integers
from moec_zarr.model.backend import AnyArray, array_namespace, take

__all__ = ["NETWORK_TOLERANCE", "TOLERANCE", "Residual"]

TOLERANCE = 2.0**-27  # between decoders of a transform in double precision, in units of half the range
NETWORK_TOLERANCE = 1e-4  # the same where a network takes part, in single precision


@dataclass(frozen=True)
class Residual:
    """What is added to the fitted values so that a bound is kept.

    Attributes
    ----------
    bound : float
        Largest absolute error of a valid value, in units of the data.
    spacing : float
        Distance of two corrections in units of half the range; a float32.
    corrections : integer array or tensor of the grid's shape, or None
        What is added to each voxel, in units of `spacing`; nothing where None.
    """

    bound: float
    spacing: float
    corrections: NDArray[np.signedinteger[Any]] | None

    def sent(self, put: Callable[[Array], AnyArray]) -> Residual:
        """Send the corrections to a device."""
        return self if self.corrections is None else replace(self, corrections=put(self.corrections))

    def added_to(self, values: AnyArray, indices: Sequence[Integers], pointwise: bool) -> AnyArray:
        """Add corrections to fitted values, in double precision.

        Parameters
        ----------
        values : float array
            Of a tile.
        indices : sequence of int64 arrays
            Voxels along each axis of the tile; if `pointwise`, the coordinates of each point.
        """
        if self.corrections is None:
            return values
        chosen = take(self.corrections, indices, pointwise)
        xp = array_namespace(chosen)
        return values + self.spacing * xp.astype(chosen, xp.float64)
