"""Quantised coefficients of a chunk in a tensor product of bases, and what a network reads of them.

Most coefficients are zero. Those that are not lie near one another, and below one that is not zero
on the scale above: a coefficient's distribution follows from the magnitudes of those before it on
each axis. All of that is arithmetic in integers, so that it decodes alike everywhere. Coefficients
on a front, whose indices have the same sum, depend on earlier fronts alone: each is one array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec_zarr.basis import TAPS, Basis, Kind, basis
from moec_zarr.entropy import CLASSES

__all__ = [
    "CHANNELS",
    "STEPS",
    "Context",
    "Fronts",
    "Latents",
    "Synthesis",
    "band_counts",
    "bands_at",
    "corner",
    "fronts",
    "present_bands",
    "reach",
]

CHANNELS = 5  # what a network reads: the whole, and what one to four bands less would lack

STEPS = 2.0**-64, 2.0**64  # between which a step lies
_POINTS = 1 << 22  # numbers held at a time for single points
_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Context:
    """How a coefficient's class follows from the magnitudes before it.

    The activity of a coefficient on level g, the sum of its bands, is ``exponential(floor + rise *
    g)`` plus the magnitudes at its taps, weighted. Its class is ``power`` times the activity's
    logarithm, plus ``offset + slope * g``; in units of 1/128.

    Attributes
    ----------
    weights : tuple of int
        0..255 each, one for each axis and tap.
    floor, rise : int
        -128..127.
    power : int
        0..255.
    offset, slope : int
        -32768..32767.
    """

    weights: tuple[int, ...]
    floor: int
    rise: int
    power: int
    offset: int
    slope: int

    def classes(self, magnitudes: _Ints, levels: _Ints) -> _Ints:
        """Classes of coefficients from the magnitudes at their taps, shape (n, axes * TAPS)."""
        activity = exponential(np.clip(self.floor + self.rise * levels, 0, 127))
        activity = activity + magnitudes @ np.array(self.weights, np.int64)
        fine = self.power * _logarithm(activity) + self.offset + self.slope * levels
        return np.asarray(np.clip(fine >> 7, 0, CLASSES - 1), np.int64)


def exponential(code: _Ints) -> _Ints:
    """About ``2**(code / 8)``, eight steps to the octave, in whole numbers."""
    return ((8 + code % 8) << (code // 8)) >> 3


def _logarithm(value: _Ints) -> _Ints:
    """About ``8 log2(value)`` of whole numbers above zero: the inverse of :func:`exponential`."""
    octave = np.frexp(value.astype(np.float64))[1].astype(np.int64) - 1
    return 8 * octave + ((value << 3) >> octave) - 8


@dataclass(frozen=True)
class Latents:
    """Coefficients as integers.

    Attributes
    ----------
    shape : tuple of int
        Of the grid that they span; no axis of one voxel.
    kinds : tuple of Kind
        Basis of each axis.
    step : float
        A coefficient is its integer times this; a float32.
    context : Context
        With what they are coded.
    integers : int32 array
        The coefficients up to some function on each axis; all others are zero.
    """

    shape: tuple[int, ...]
    kinds: tuple[Kind, ...]
    step: float
    context: Context
    integers: NDArray[np.int32]

    @property
    def bases(self) -> list[Basis]:
        """The basis of each axis."""
        return [basis(kind, n) for kind, n in zip(self.kinds, self.shape, strict=True)]


def band_counts(bases: Sequence[Basis]) -> tuple[int, ...]:
    """Number of bands along each axis."""
    return tuple(int(each.bands[-1]) + 1 for each in bases)


def bands_at(bases: Sequence[Basis], index: Sequence[_Ints]) -> tuple[_Ints, ...]:
    """The band on each axis of coefficients with these indices."""
    return tuple(each.bands[i] for each, i in zip(bases, index, strict=True))


def present_bands(bases: Sequence[Basis], integers: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which tensor products of bands hold a coefficient that is not zero."""
    present = np.zeros(band_counts(bases), bool)
    present[bands_at(bases, np.nonzero(integers))] = True
    return present


@dataclass(frozen=True)
class Fronts:
    """The coefficients of some bands in the order of coding.

    Attributes
    ----------
    extent : tuple of int
        Functions on each axis that they reach.
    where : int64 array, shape (n,)
        Flat position of each in an array of `extent`.
    taps : int64 array, shape (n, axes * TAPS)
        Flat positions of those before it; ``prod(extent)`` where there is none.
    levels : int64 array, shape (n,)
        Sum of its bands.
    starts : int64 array
        First of each front, and n.
    """

    extent: tuple[int, ...]
    where: _Ints
    taps: _Ints
    levels: _Ints
    starts: _Ints


def reach(bases: Sequence[Basis], present: NDArray[np.bool_]) -> tuple[int, ...]:
    """Functions on each axis up to the highest band that is present."""
    axes = range(present.ndim)
    highest = [np.flatnonzero(present.any(axis=tuple(a for a in axes if a != axis)))[-1] for axis in axes]
    return tuple(each.prefix(int(band)) for each, band in zip(bases, highest, strict=True))


def fronts(bases: Sequence[Basis], present: NDArray[np.bool_]) -> Fronts:
    """The coefficients of the bands that are present, front by front, in C order on a front."""
    axes, extent = range(present.ndim), reach(bases, present)
    held = present[np.ix_(*[each.bands[:n] for each, n in zip(bases, extent, strict=True)])]
    where = np.flatnonzero(held)
    index = np.unravel_index(where, extent)
    order = np.argsort(sum(index), kind="stable")
    where, index = where[order], tuple(i[order] for i in index)
    strides = [math.prod(extent[axis + 1 :]) for axis in axes]
    taps = np.empty((len(where), present.ndim * TAPS), np.int64)
    for axis, (each, i, stride) in enumerate(zip(bases, index, strides, strict=True)):
        for tap in range(TAPS):
            before = each.taps[tap][i]
            taps[:, axis * TAPS + tap] = np.where(
                before < 0, math.prod(extent), where + (before - i) * stride
            )
    levels = np.sum(bands_at(bases, index), axis=0)
    starts = np.concatenate([[0], np.cumsum(np.bincount(sum(index)))])
    return Fronts(extent, where, taps, levels, starts)


class Synthesis:
    """Latents made ready to be evaluated at voxels."""

    def __init__(self, latents: Latents) -> None:
        self._core = latents.integers.astype(np.float32) * np.float32(latents.step)
        bases, extent = latents.bases, latents.integers.shape
        self._matrices = [each.synthesis[:, :n] for each, n in zip(bases, extent, strict=True)]
        highest = [int(each.bands[n - 1]) for each, n in zip(bases, extent, strict=True)]
        self._boxes = [
            tuple(each.prefix(max(band - less, 0)) for each, band in zip(bases, highest, strict=True))
            for less in range(CHANNELS)
        ]
        squares = np.square(self._core, dtype=np.float64)
        total = float(squares.sum())
        kept = [float(squares.flat[0]), *(float(squares[corner(box)].sum()) for box in self._boxes[1:])]
        voxels = math.prod(latents.shape)
        # The root mean square of each channel, by Parseval, no less than a tenth of the first's: a
        # few coefficients alone on a fine scale would be spikes.
        norms = [math.sqrt(max(total - part, 0.0) / voxels) for part in kept]
        self._norms = [max(norm, norms[0] / 10) or 1.0 for norm in norms]

    def at(self, indices: Sequence[_Ints], pointwise: bool) -> tuple[_Floats, _Floats]:
        """What the latents add up to, and the channels that a network reads.

        Parameters
        ----------
        indices : sequence of int64 arrays
            Voxels along each axis of a grid; or, `pointwise`, of each point.

        Returns
        -------
        values : array of the grid's shape, or (points,)
        channels : array, shape (voxels, CHANNELS)
            The values, and what the highest one, two and so on bands of each axis add, each over
            its root mean square.
        """
        rows = [matrix[index] for matrix, index in zip(self._matrices, indices, strict=True)]
        parts = [self._sum(rows, box, pointwise) for box in self._boxes]
        channels = [parts[0], *(parts[0] - part for part in parts[1:])]
        scaled = [part.ravel() / np.float32(norm) for part, norm in zip(channels, self._norms, strict=True)]
        return parts[0], np.stack(scaled, axis=1)

    def whole(self) -> _Floats:
        """The values on the whole grid."""
        return self._sum(self._matrices, self._boxes[0], False)

    def values(self, indices: Sequence[_Ints], pointwise: bool) -> _Floats:
        """The values alone."""
        rows = [matrix[index] for matrix, index in zip(self._matrices, indices, strict=True)]
        return self._sum(rows, self._boxes[0], pointwise)

    def _sum(self, rows: list[_Floats], box: tuple[int, ...], pointwise: bool) -> _Floats:
        part = self._core[corner(box)]
        if pointwise:
            total = np.empty(len(rows[0]), np.float32)
            room = max(1, _POINTS // math.prod(box[1:]))  # each point first needs the other axes whole
            for first in range(0, len(total), room):
                points = slice(first, first + room)
                sums = np.tensordot(rows[0][points, : box[0]], part, axes=1)
                for row, n in zip(rows[1:], box[1:], strict=True):
                    sums = np.einsum("pi...,pi->p...", sums, row[points, :n])
                total[points] = sums
            return total
        for row, n in zip(rows, box, strict=True):
            part = np.tensordot(part, row[:, :n], axes=(0, 1))
        return part


def corner(box: tuple[int, ...]) -> tuple[slice, ...]:
    """The index of the first `box` elements on each axis."""
    return tuple(slice(n) for n in box)
