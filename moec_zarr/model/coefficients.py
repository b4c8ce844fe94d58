"""Quantised transform coefficients of a chunk, and the field that they add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Integers
from moec_zarr.model.backend import AnyArray
from moec_zarr.model.basis import SINGLE, AxisBasis, BasisFunctions, functions_of
from moec_zarr.model.folding import folded_shape, read_folded
from moec_zarr.model.tiles import tiled
from moec_zarr.model.transform import Product, product, synthesise

__all__ = ["TILE", "CoefficientField", "Coefficients", "SentField"]

TILE = 1 << 18
"""Voxels that a transform is evaluated at together."""


@dataclass(frozen=True)
class Coefficients:
    """Transform coefficients as integers.

    Attributes
    ----------
    shape : tuple of int
        Of the grid that they span; no axis of one voxel. Axes that are too long are folded.
    bases : tuple of AxisBasis
        Basis of each axis, once folded.
    step : float
        A coefficient is its integer times this; a float32.
    integers : int32 array
        The first coefficients on each folded axis; all others are zero.
    """

    shape: tuple[int, ...]
    bases: tuple[AxisBasis, ...]
    step: float
    integers: NDArray[np.int32]

    @property
    def functions(self) -> list[BasisFunctions]:
        """The functions of each folded axis."""
        return functions_of(self.bases, folded_shape(self.shape))


class SentField(NamedTuple):
    """A field whose coefficients and functions were sent to a device; read as a `CoefficientField` is."""

    product: Product
    shape: tuple[int, ...]
    norm: float

    def values(self, indices: Sequence[Integers | slice], pointwise: bool = False) -> AnyArray:
        """Return the values at voxels, on the device."""
        return _read(self.product, self.shape, indices, pointwise)


@dataclass(frozen=True)
class CoefficientField:
    """The field that coefficients add up to, made ready to be evaluated at voxels.

    Attributes
    ----------
    coefficients : Coefficients
    precision : numpy.dtype
        float32 or float64, in which it is evaluated.
    """

    coefficients: Coefficients
    precision: np.dtype[Any] = SINGLE

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid."""
        return self.coefficients.shape

    @cached_property
    def _core(self) -> Array:
        step = self.precision.type(self.coefficients.step)
        integers = self.coefficients.integers
        return np.asarray(np.multiply(integers, step, dtype=self.precision, casting="same_kind"))

    @cached_property
    def product(self) -> Product:
        """The product of coefficients and functions that the values are."""
        return product(self._core, self.coefficients.functions)

    @cached_property
    def norm(self) -> float:
        """Root mean square of the values about their mean, by Parseval's theorem; 1 where that is zero."""
        squares = np.square(self._core, dtype=np.float64)
        return math.sqrt(squares.ravel()[1:].sum() / math.prod(self.shape)) or 1.0

    def sent(self, put: Callable[[Array], AnyArray]) -> SentField:
        """Send the coefficients and the functions to a device."""
        coefficients, matrices = self.product
        return SentField(Product(put(coefficients), tuple(map(put, matrices))), self.shape, self.norm)

    def values(self, indices: Sequence[Integers | slice], pointwise: bool = False) -> Array:
        """Return the values at voxels, of the grid's shape or (points,).

        Parameters
        ----------
        indices : sequence of int64 arrays or slices
            Voxels along each axis of a grid; if `pointwise`, arrays of the coordinates of each point.
        """
        return np.asarray(_read(self.product, self.shape, indices, pointwise))

    def whole(self) -> Array:
        """Return the values on the whole grid, evaluated tile by tile as a decoder does."""
        grid = [range(n) for n in self.shape]
        tiles = ((tile, self.values(rows)) for tile, rows in tiled(grid, pointwise=False, voxels=TILE))
        if math.prod(self.shape) <= TILE:
            return next(tiles)[1]
        values = np.empty(self.shape, self.precision)
        for tile, own in tiles:
            values[tile] = own
        return values


def _read(
    own: Product, shape: tuple[int, ...], indices: Sequence[Integers | slice], pointwise: bool
) -> AnyArray:
    """Return the values of a product at voxels of a grid, whose long axes it has folded."""
    if len(own.matrices) == len(shape):
        return synthesise(own, indices, pointwise)
    return read_folded(lambda places, points: synthesise(own, places, points), shape, indices, pointwise)
