"""The section of corrections that keep an absolute error: each voxel's multiple of a spacing.

They are coded as transform coefficients are, with the voxels in the place of functions: most are zero, and
those that are not lie near one another.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.coding_order import ABSENT, RowOctaves
from moec_zarr.bitstream.coefficients import read_context, read_integers, write_context, write_integers
from moec_zarr.bitstream.contexts import Context
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.basis import BasisFunctions, voxel_functions
from moec_zarr.model.folding import fold, folded_shape
from moec_zarr.model.residual import Residual

__all__ = ["read_residual", "voxel_order", "write_residual"]

_HEAD = struct.Struct("<df")


def voxel_order(shape: Sequence[int]) -> tuple[list[BasisFunctions], RowOctaves]:
    """Return functions and octaves, in its folded shape, that order the corrections of a grid."""
    extent = folded_shape(shape)
    patterns, rows = np.zeros((1, extent[-1]), np.uint8), np.zeros(math.prod(extent[:-1]), np.int64)
    if math.prod(extent) > math.prod(shape):
        octaves = fold(np.zeros(tuple(shape), np.uint8), ABSENT).reshape(-1, extent[-1])
        patterns, rows = np.unique(octaves, axis=0, return_inverse=True)
    return [voxel_functions(n) for n in extent], RowOctaves(extent, patterns, rows.reshape(-1))


def write_residual(residual: Residual, context: Context | None) -> bytes:
    """Write the section's bytes.

    Parameters
    ----------
    residual : Residual
    context : Context, optional
        The probability model of the corrections, with weights for the axes of the folded shape; None where
        there are none.
    """
    head = _HEAD.pack(residual.bound, residual.spacing)
    if residual.corrections is None or context is None:
        return head
    functions, octaves = voxel_order(residual.corrections.shape)
    integers = fold(residual.corrections).astype(np.int32)
    return head + write_context(context) + write_integers(integers, functions, octaves, context)


def read_residual(data: bytes, shape: tuple[int, ...], *, taken: int = 0) -> Residual:
    """Read the corrections of a grid of `shape`, its axes longer than one.

    The first bytes, `taken` of a dictionary, allow for no corrections.

    Raises
    ------
    CorruptStreamError
        If no encoder writes such a section.
    """
    if len(data) < _HEAD.size:
        raise CorruptStreamError("the stream ends inside a residual; it is truncated, fetch it again")
    bound, spacing = _HEAD.unpack_from(data)
    if not (0 <= bound < math.inf and 0 < spacing < math.inf):
        raise CorruptStreamError(f"a bound of {bound}, corrections {spacing} apart; the stream is damaged")
    if len(data) == _HEAD.size:
        return Residual(bound, spacing, None)
    if not shape:
        raise CorruptStreamError("corrections of a single voxel; the stream is damaged")
    context, offset = read_context(data, _HEAD.size, len(folded_shape(shape)))
    functions, octaves = voxel_order(shape)
    integers = read_integers(data, offset, functions, octaves, context, taken=taken)
    inner = integers.reshape([math.prod(folded_shape([n])) for n in shape])
    return Residual(bound, spacing, _narrow(inner[tuple(slice(n) for n in shape)]))


def _narrow(integers: NDArray[np.int32]) -> NDArray[np.signedinteger]:
    """Return the same in the smallest dtype that holds them: they are kept for as long as the stream is."""
    largest = int(np.abs(integers).max())
    return integers.astype(np.min_scalar_type(-largest - 1))
