"""Arrays from and to coefficients in products of one basis an axis.

Most axes have their whole basis in each product. Nested ones are halved together (Mallat, IEEE
Trans. Pattern Anal. Mach. Intell. 11(7), 1989): details of one depth meet details or averages of
the same depth on the others. The coefficients stand where those of the same axes not nested would:
averages, spanned by all that is coarser, in the place of the bands that they span.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.model.basis import Basis, Kind, analysis, splits

__all__ = [
    "Layer",
    "Share",
    "along",
    "coefficients",
    "corner",
    "depths",
    "layers",
    "nested_axes",
    "shares",
    "synthesis",
]

_Floats = NDArray[np.float32]
_Ints = NDArray[np.int64]
_POINTS = 1 << 22  # numbers held at a time for single points


def corner(box: Sequence[int]) -> tuple[slice, ...]:
    """The index of the first `box` elements on each axis."""
    return tuple(slice(n) for n in box)


def nested_axes(kinds: Sequence[Kind]) -> list[int]:
    """Which axes are halved together."""
    return [axis for axis, kind in enumerate(kinds) if kind.nested]


def depths(kinds: Sequence[Kind]) -> int:
    """How often nested axes are halved; some of them perhaps less."""
    return max((kind.halvings for kind in kinds if kind.nested), default=0)


@dataclass(frozen=True)
class Layer:
    """Coefficients that stand for one product of functions.

    Attributes
    ----------
    matrices : tuple of float32 arrays
        For each axis the functions, shape (voxels, functions).
    inner : tuple of int, or None
        The corner whose coefficients belong to coarser layers.
    """

    matrices: tuple[_Floats, ...]
    inner: tuple[int, ...] | None

    @property
    def box(self) -> tuple[int, ...]:
        """The corner that the layer and all coarser ones fill."""
        return tuple(matrix.shape[1] for matrix in self.matrices)


def layers(bases: Sequence[Basis], kinds: Sequence[Kind]) -> list[Layer]:
    """From coarse to fine; one where no axes are nested."""
    most = depths(kinds)
    found: list[Layer] = []
    for depth in reversed(range(max(most, 1))):
        matrices = []
        for each, kind in zip(bases, kinds, strict=True):
            band = kind.halvings - depth
            if not kind.nested:
                matrices.append(each.synthesis)
            elif band < 1:
                matrices.append(each.averages[0])
            else:
                span = slice(each.prefix(band - 1), each.prefix(band))
                matrices.append(np.concatenate([each.averages[band - 1], each.synthesis[:, span]], axis=1))
        found.append(Layer(tuple(matrices), found[-1].box if found else None))
    return found


def coefficients(array: _Floats, kinds: Sequence[Kind]) -> _Floats:
    """The coefficients of an array, in its shape."""
    for axis, (kind, n) in enumerate(zip(kinds, array.shape, strict=True)):
        if not kind.nested:
            array = along(array, analysis(kind, n), axis)
    return _halved(array, kinds) if nested_axes(kinds) else array


def _halved(array: _Floats, kinds: Sequence[Kind]) -> _Floats:
    array, box = array.copy(), list(array.shape)
    for depth in range(depths(kinds)):
        axes = [axis for axis in nested_axes(kinds) if depth < kinds[axis].halvings]
        for axis in axes:
            split = splits(kinds[axis], array.shape[axis])[depth]
            array[corner(box)] = along(array[corner(box)], split, axis)
        for axis in axes:
            box[axis] = -(-box[axis] // 2)
    return array


def along(array: _Floats, matrix: _Floats, axis: int) -> _Floats:
    """A matrix, shape (new, old), applied along an axis."""
    before, (old, *after) = array.shape[:axis], array.shape[axis:]
    if not after:
        return np.asarray(array @ matrix.T)
    flat = array.reshape(math.prod(before), old, math.prod(after))
    return np.asarray(np.matmul(matrix, flat).reshape(*before, len(matrix), *after))


class Share(NamedTuple):
    """What a layer holds of some coefficients.

    Attributes
    ----------
    part : float32 array
        They, zero where they belong to coarser layers.
    matrices : tuple of float32 arrays
        For each axis the functions of the part, shape (voxels, functions).
    """

    part: _Floats
    matrices: tuple[_Floats, ...]


def shares(core: _Floats, spanned: Sequence[Layer]) -> list[Share]:
    """What each layer holds, of those that hold any: the coarsest one always.

    Parameters
    ----------
    core : float32 array
        The first coefficients on each axis; all others are zero.
    spanned : sequence of Layer
        What they stand for.
    """
    found = []
    for layer in spanned:
        part = core[corner(layer.box)]
        if layer.inner is not None:
            part = part.copy()
            part[corner(layer.inner)] = 0
            if not part.any():
                continue
        cut = zip(layer.matrices, part.shape, strict=True)
        found.append(Share(part, tuple(matrix[:, :n] for matrix, n in cut)))
    return found


def synthesis(held: Sequence[Share], indices: Sequence[_Ints | slice], pointwise: bool) -> _Floats:
    """What coefficients add up to.

    Parameters
    ----------
    held : sequence of Share
        By each layer.
    indices : sequence of int64 arrays or slices
        Voxels along each axis of a grid; or, `pointwise`, arrays of each point.
    """
    total: _Floats | None = None
    for part, matrices in held:
        rows = [matrix[index] for matrix, index in zip(matrices, indices, strict=True)]
        own = _at_points(part, rows) if pointwise else _on_grid(part, rows)
        total = own if total is None else total + own
    assert total is not None  # the coarsest layer is there
    return total


def _on_grid(part: _Floats, rows: list[_Floats]) -> _Floats:
    for axis, row in enumerate(rows):
        part = along(part, row, axis)
    return part


def _at_points(part: _Floats, rows: list[_Floats]) -> _Floats:
    total = np.empty(len(rows[0]), np.float32)
    room = max(1, _POINTS // math.prod(part.shape[1:]))  # each point first needs the other axes whole
    for first in range(0, len(total), room):
        points = slice(first, first + room)
        sums = np.tensordot(rows[0][points], part, axes=1)
        for row in rows[1:]:
            sums = np.einsum("pi...,pi->p...", sums, row[points])
        total[points] = sums
    return total
