"""What latents add up to, and what a network reads of them at a voxel and around it.

A network that corrects latents sees how they go on along each axis: the difference to the neighbours
at two distances on either side. So it acts as a nonlinear filter of a few hundred weights, which
rounds off the wavelets' ringing and sharpens edges; a voxel still depends on its neighbours' latents
alone, never on their networks, so that a part of a chunk is read without the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.model.coefficients import Latents
from moec_zarr.model.transform import layers, shares, synthesis

__all__ = ["LARGEST_LOOK", "Look", "Synthesis", "beside", "channels", "readings"]

LARGEST_LOOK = 15  # of a distance, and of a gain
_NEAR_AND_FAR = np.array([1, -1, 3, -3])  # distances of the neighbours
_FAR_LESS = np.array([1, 1, 0.5, 0.5], np.float32)  # about how much less far ones are amplified

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]


class Look(NamedTuple):
    """How a network looks along an axis.

    Attributes
    ----------
    distance : int
        1..``LARGEST_LOOK``, in voxels, of the near neighbours; the far ones are three times as far.
    gain : int
        0..``LARGEST_LOOK``, octaves by which the near differences are amplified, the far ones by one
        less.
    """

    distance: int
    gain: int


def channels(axes: int) -> int:
    """What a network reads of latents on so many axes."""
    return 1 + len(_NEAR_AND_FAR) * axes


def beside(index: _Ints, look: Look, length: int) -> _Ints:
    """Neighbours of voxels on an axis of `length`, shape (4, n); beyond its ends, the ends."""
    return np.asarray(np.clip(index + look.distance * _NEAR_AND_FAR[:, None], 0, length - 1))


def readings(here: _Floats, there: Sequence[_Floats], looks: Sequence[Look], norm: float) -> _Floats:
    """What a network reads, shape (n, channels).

    Parameters
    ----------
    here : float32 array, shape (n,)
        What latents add up to at the voxels.
    there : sequence of float32 arrays, shape (4, n)
        And at their neighbours, for each axis.
    looks : sequence of Look
        How the axes are looked along.
    norm : float
        Root mean square of what the latents add up to.
    """
    found = np.empty((len(here), channels(len(looks))), np.float32)
    found[:, 0] = here / np.float32(norm)
    for axis, (look, values) in enumerate(zip(looks, there, strict=True)):
        scale = np.float32(2.0**look.gain / norm) * _FAR_LESS[:, None]
        first = channels(axis)
        found[:, first : first + len(scale)] = ((values - here) * scale).T
    return found


class Synthesis:
    """Latents made ready to be evaluated at voxels.

    Parameters
    ----------
    latents : Latents
    looks : sequence of Look
        How a network looks along each axis; none where none reads them.

    Attributes
    ----------
    shape : tuple of int
        Of the grid.
    norm : float
        Root mean square of the values about their mean by Parseval, or 1 where that is zero.
    """

    def __init__(self, latents: Latents, looks: Sequence[Look] = ()) -> None:
        self.shape, self._looks = latents.shape, looks
        core = latents.integers.astype(np.float32) * np.float32(latents.step)
        self._shares = shares(core, layers(latents.bases, latents.kinds))
        squares = np.square(core, dtype=np.float64)
        self.norm = math.sqrt(squares.ravel()[1:].sum() / math.prod(latents.shape)) or 1.0

    def at(self, indices: Sequence[_Ints], pointwise: bool) -> tuple[_Floats, _Floats]:
        """What the latents add up to, and what a network reads of them.

        Parameters
        ----------
        indices : sequence of int64 arrays
            Voxels along each axis of a grid; or, `pointwise`, of each point.

        Returns
        -------
        values : array of the grid's shape, or (points,)
        readings : array, shape (voxels, channels)
        """
        values = self.values(indices, pointwise)
        there = [self._beside(indices, axis, pointwise) for axis in range(len(self._looks))]
        return values, readings(values.ravel(), there, self._looks, self.norm)

    def _beside(self, indices: Sequence[_Ints], axis: int, pointwise: bool) -> _Floats:
        """Values at the neighbours along an axis, shape (4, voxels)."""
        places = beside(indices[axis], self._looks[axis], self.shape[axis])
        before, after = indices[:axis], indices[axis + 1 :]
        if pointwise:
            return np.stack([self.values([*before, place, *after], True) for place in places])
        wanted, rows = np.unique(places, return_inverse=True)
        values = self.values([*before, wanted, *after], False)
        return np.stack([values.take(row, axis).ravel() for row in rows.reshape(places.shape)])

    def whole(self) -> _Floats:
        """The values on the whole grid."""
        return self.values([slice(None)] * len(self.shape), False)

    def values(self, indices: Sequence[_Ints | slice], pointwise: bool) -> _Floats:
        """The values alone."""
        return synthesis(self._shares, indices, pointwise)
