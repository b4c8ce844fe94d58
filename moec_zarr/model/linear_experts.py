"""A mixture of linear experts that restores a transform.

Quantised coefficients blur edges and ring beside them, and how much depends on how steep the field is and
on how high. Each expert is a point-symmetric filter of a voxel's neighbours and a constant. A gate that is
linear in pieces in the steepness and in the value mixes them (mixtures of experts: Jordan and Jacobs, Neural
Computation 6(2), 1994). It is continuous, so decoders that differ in last bits restore alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Array, Doubles, Integers
from moec_zarr.compiled import is_compiled
from moec_zarr.model.backend import AnyArray, array_namespace, beside
from moec_zarr.model.coefficients import TILE, CoefficientField, SentField
from moec_zarr.model.neighbourhood import AnyField, SampledField, box_around, neighbours, read_around
from moec_zarr.model.steps import step_size
from moec_zarr.model.tiles import as_arrays, tiled
from moec_zarr.model.transform import Product

__all__ = [
    "OFFSETS",
    "VALUE_KNOTS",
    "AnyTransform",
    "LinearExperts",
    "RestoredField",
    "around",
    "ramps",
    "restore",
    "restore_read",
    "restore_whole",
]

OFFSETS = np.array([1, -1, 2, -2])  # of the neighbours along each axis
VALUE_KNOTS = 128  # to half the range
_BLOCK = 1 << 16  # voxels that NumPy restores together: what they take stays in the cache
_ROWS = 1 << 13  # that compiled code restores together: short ones would need more memory than their voxels


@dataclass(frozen=True)
class LinearExperts:
    """Quantised experts and their gate.

    A *ramp* rises from 0 at one knot to 1 at the next, and is constant beyond them. The weights of the filter
    at a voxel are those of the first row, and of each other row as much as its ramp is high.

    Attributes
    ----------
    steepness : tuple of int
        Step codes of the knots of steepness, rising; another one, the first, is 0.
    value : tuple of int
        Knots of the value, rising, in units of half the range over ``VALUE_KNOTS``: none, or two and more.
    units : pair of int
        Step codes of a tap and of a constant.
    taps : int32 array, shape (1 + ramps, axes, 2)
        Of the sum of both next voxels less twice the voxel, and of both next but one; the ramps of steepness
        come before those of the value.
    constants : int32 array, shape (1 + ramps of steepness, 1 + ramps of the value)
        What is added, as much as the product of two ramps is high.
    shift : int
        What is added everywhere: 0, or the step of a code, with its sign.
    """

    steepness: tuple[int, ...]
    value: tuple[int, ...]
    units: tuple[int, int]
    taps: NDArray[np.int32]
    constants: NDArray[np.int32]
    shift: int = 0

    def knots(self) -> tuple[Doubles, Doubles]:
        """Return the knots of steepness and of the value, in units of half the range."""
        steepness = [0.0, *map(step_size, self.steepness)] if self.steepness else []
        return np.array(steepness), np.array(self.value, np.float64) / VALUE_KNOTS

    def weights(self) -> tuple[Doubles, Doubles]:
        """Return taps, shape (1 + ramps, 2 * axes), and constants."""
        tap, constant = map(step_size, self.units)
        taps = self.taps.reshape(len(self.taps), -1).astype(np.float64)
        constants = constant * self.constants.astype(np.float64)
        if self.shift:
            constants[0, 0] += math.copysign(step_size(abs(self.shift)), self.shift)
        return tap * taps, constants


class _Gate(NamedTuple):
    """What is computed with, in the precision of the field."""

    starts: tuple[AnyArray, AnyArray]  # of the ramps of steepness and of the value
    slopes: tuple[AnyArray, AnyArray]
    taps: AnyArray
    constants: AnyArray


def _prepare(experts: LinearExperts, dtype: Any, put: Callable[[Array], AnyArray]) -> _Gate:
    knots = experts.knots()
    starts = [put(own[:-1].astype(dtype)) for own in knots]
    slopes = [put((1 / np.diff(own)).astype(dtype)) for own in knots]
    taps, constants = (put(own.astype(dtype)) for own in experts.weights())
    return _Gate((starts[0], starts[1]), (slopes[0], slopes[1]), taps, constants)


def around(values: AnyArray, near: Iterator[AnyArray]) -> tuple[AnyArray, AnyArray]:
    """Compute what experts read of the neighbours of voxels.

    Parameters
    ----------
    values : float array or tensor, shape (voxels,)
    near : iterator of float arrays or tensors, shape (4, voxels)
        For each axis, the values at ``OFFSETS``.

    Returns
    -------
    bends : shape (2 * axes, voxels)
        Along each axis the sum of both next voxels less twice the voxel, then of both next but one.
    steepness : shape (voxels,)
        Sum over the axes of the magnitude of the difference of both next voxels.
    """
    xp = array_namespace(values)
    bends, steepness = [], None
    for next_, before, far, far_before in near:
        bends += [next_ + before - 2 * values, far + far_before - 2 * values]
        own = xp.abs(next_ - before)
        steepness = own if steepness is None else steepness + own
    return xp.stack(bends), steepness


def ramps(values: AnyArray, starts: AnyArray, slopes: AnyArray) -> AnyArray:
    """Return a row of ones, and one of the heights of each ramp at some values."""
    xp = array_namespace(values)
    heights = xp.clip((values[None] - starts[:, None]) * slopes[:, None], 0.0, 1.0)
    return xp.concat([xp.ones_like(values)[None], heights])


def _restore(gate: _Gate, values: AnyArray, bends: AnyArray, steepness: AnyArray) -> AnyArray:
    """Return restored values, shape (voxels,)."""
    steep, level = map(ramps, (steepness, values), gate.starts, gate.slopes)
    filtered = gate.taps @ bends
    count = len(steep)
    return (
        values
        + (steep * (filtered[:count] + gate.constants @ level)).sum(0)
        + (level[1:] * filtered[count:]).sum(0)
    )


def restore_read(experts: LinearExperts, values: Doubles, bends: Doubles, steepness: Doubles) -> Doubles:
    """Return restored values of voxels, of what :func:`around` has read there."""
    return np.asarray(_restore(_prepare(experts, np.float64, lambda own: own), values, bends, steepness))


@dataclass(frozen=True)
class RestoredField:
    """The field of a transform, restored by experts; read as a `CoefficientField` is.

    Attributes
    ----------
    base : CoefficientField, SentField or SampledField
    experts : LinearExperts
    """

    base: CoefficientField | SentField | SampledField
    experts: LinearExperts

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid."""
        return self.base.shape

    @property
    def norm(self) -> float:
        """Root mean square of the transform about its mean."""
        return self.base.norm

    @property
    def product(self) -> Product:
        """The product of coefficients and functions that the transform is."""
        assert isinstance(self.base, CoefficientField)
        return self.base.product

    def sent(self, put: Callable[[Array], AnyArray]) -> RestoredField:
        """Send the transform to a device."""
        assert isinstance(self.base, CoefficientField)
        return RestoredField(self.base.sent(put), self.experts)

    def whole(self) -> Array:
        """Return the values on the whole grid."""
        return np.asarray(self.values([np.arange(n) for n in self.shape]))

    def values(self, indices: Sequence[Integers | slice], pointwise: bool = False) -> AnyArray:
        """Return the values at voxels, as :meth:`CoefficientField.values` does."""
        wanted = as_arrays(indices, self.shape)
        offsets = [OFFSETS] * len(self.shape)
        box = None if pointwise else box_around(self.shape, offsets, wanted)
        if box is None or isinstance(self.base, SentField):
            base = self.base if box is None else SampledField(self.base.values(box), box, self.shape, 1.0)
            return self._restored(base, wanted, pointwise)
        near = self._evaluated(box)
        in_rows = is_compiled(near.size) and all((np.diff(own[-1]) == 1).all() for own in (wanted, box))
        out = np.empty([len(index) for index in wanted], near.dtype)
        base = SampledField(near, box, self.shape, 1.0)
        voxels = max(1, _ROWS * len(wanted[-1])) if in_rows else _BLOCK
        for tile, rows in tiled(wanted, pointwise=False, voxels=voxels):
            if in_rows:
                self._restore_compiled(near, box, rows, out[tile])
            else:
                out[tile] = self._restored(base, rows, False)
        return out

    def nearest(self, indices: Sequence[Integers]) -> Integers:
        """Return which knots are nearest to each voxel of a grid: that of steepness, and of the value.

        They are numbered together, those of steepness first.
        """
        values, near = read_around(self.base, [OFFSETS] * len(self.shape), indices, False)
        flat = values.reshape(-1)
        _, steepness = around(flat, iter(near))
        (steep, level), count = self.experts.knots(), 1 + len(self.experts.steepness)
        numbers = np.searchsorted((steep[1:] + steep[:-1]) / 2, steepness)
        numbers += count * np.searchsorted((level[1:] + level[:-1]) / 2, flat)
        return np.asarray(numbers.reshape(values.shape))

    def _evaluated(self, box: Sequence[Integers]) -> Array:
        """Return the transform in a box, evaluated part by part."""
        if isinstance(self.base, SampledField):
            return np.asarray(self.base.values(box))
        assert isinstance(self.base, CoefficientField)
        near = np.empty([len(index) for index in box], self.base.precision)
        for tile, rows in tiled(box, pointwise=False, voxels=TILE):
            near[tile] = self.base.values(rows)
        return near

    def _restored(self, base: AnyField, indices: Sequence[Integers], pointwise: bool) -> AnyArray:
        values, near = read_around(base, [OFFSETS] * len(self.shape), indices, pointwise)
        flat = values.reshape(-1)
        dtype = flat.dtype if isinstance(flat, np.ndarray) else str(flat.dtype).removeprefix("torch.")
        gate = _prepare(self.experts, np.dtype(dtype), lambda own: beside(own, flat))
        return _restore(gate, flat, *around(flat, iter(near))).reshape(values.shape)

    def _restore_compiled(
        self, near: Array, box: Sequence[Integers], wanted: Sequence[Integers], out: Array
    ) -> None:
        """Write the same by compiled code, row by row, to a part of a grid that is whole on its last axes."""
        from moec_zarr.model.expert_kernels import restore_rows

        gate = _prepare(self.experts, near.dtype, lambda own: own)
        strides = [math.prod(near.shape[axis + 1 : -1]) for axis in range(near.ndim - 1)]
        own = [
            stride * np.searchsorted(inner, index)
            for stride, inner, index in zip(strides, box, wanted, strict=False)
        ]
        beside_ = [
            stride * np.searchsorted(inner, neighbours(index, OFFSETS, n))
            for stride, inner, index, n in zip(strides, box, wanted, self.shape, strict=False)
        ]
        rows = np.zeros((1, 1 + len(OFFSETS) * len(own)), np.int64)
        for axis, (here, there) in enumerate(zip(own, beside_, strict=True)):
            # Every row so far, once for each voxel of this axis.
            rows = np.repeat(rows[:, None], len(here), axis=1)
            moved = rows + here[:, None]
            first = 1 + len(OFFSETS) * axis
            moved[..., first : first + len(OFFSETS)] = rows[..., :1] + there.T
            rows = moved.reshape(-1, rows.shape[-1])
        last = np.arange(wanted[-1][0] - 2, wanted[-1][-1] + 3)
        columns = np.searchsorted(box[-1], np.clip(last, 0, self.shape[-1] - 1))
        restore_rows(
            near.reshape(-1, near.shape[-1]), rows, columns, out.reshape(len(rows), len(wanted[-1])),
            *gate.starts, *gate.slopes, gate.taps, gate.constants,
        )  # fmt: skip


AnyTransform = CoefficientField | RestoredField
"""A transform, as it is or restored."""


def restore(field: CoefficientField, experts: LinearExperts | None) -> AnyTransform:
    """Return a field restored by experts, itself where there are none."""
    return field if experts is None else RestoredField(field, experts)


def restore_whole(values: Array, experts: LinearExperts) -> Array:
    """Restore the values of a transform on its whole grid."""
    indices = [np.arange(n) for n in values.shape]
    return RestoredField(SampledField(values, indices, values.shape, 1.0), experts).whole()
