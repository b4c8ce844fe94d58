"""Quantised coefficients of a chunk in a tensor product of bases, and the order of their coding.

Most coefficients are zero. Those that are not lie near one another, and below one that is not zero
on the scale above: a coefficient's distribution follows from the magnitudes of those before it on
each axis. All of that is arithmetic in integers, so that it decodes alike everywhere. Coefficients
on a front, whose indices have the same sum, depend on earlier fronts alone: each is one array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.range_coder import CLASSES
from moec_zarr.model.basis import TAPS, Basis, Kind, bases_of
from moec_zarr.model.transform import depths, nested_axes

__all__ = [
    "STEPS",
    "Context",
    "Fronts",
    "Latents",
    "band_counts",
    "bands_at",
    "fronts",
    "present_bands",
    "reach",
]

STEPS = 2.0**-64, 2.0**64  # between which a step lies
_Ints = NDArray[np.int64]


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
        return self.classes_at(self.activity(magnitudes, levels), levels)

    def activity(self, magnitudes: _Ints, levels: _Ints) -> _Ints:
        """Activity from the magnitudes at the taps."""
        floor = exponential(np.clip(self.floor + self.rise * levels, 0, 127))
        return np.asarray(floor + magnitudes @ np.array(self.weights, np.int64))

    def classes_at(self, activity: _Ints, levels: _Ints) -> _Ints:
        """Classes from the activity."""
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
        return bases_of(self.kinds, self.shape)


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
    where : integer array, shape (n,)
        Flat position of each in an array of `extent`.
    taps : integer array, shape (n, axes * TAPS)
        Flat positions of those before it; ``prod(extent)`` where there is none.
    bands : integer array, shape (n,)
        Number of its band, in C order of all bands.
    scales : int64 array
        Level of each band.
    starts : int64 array
        First of each front, and n.
    """

    extent: tuple[int, ...]
    where: NDArray[Any]
    taps: NDArray[Any]
    bands: NDArray[Any]
    scales: _Ints
    starts: _Ints

    def levels(self, some: slice | _Ints = slice(None)) -> _Ints:
        """Of some of the coefficients."""
        return np.asarray(self.scales[self.bands[some]])


def reach(bases: Sequence[Basis], present: NDArray[np.bool_]) -> tuple[int, ...]:
    """Functions on each axis up to the highest band that is present."""
    axes = range(present.ndim)
    highest = [np.flatnonzero(present.any(axis=tuple(a for a in axes if a != axis)))[-1] for axis in axes]
    return tuple(each.prefix(int(band)) for each, band in zip(bases, highest, strict=True))


def fronts(bases: Sequence[Basis], kinds: Sequence[Kind], present: NDArray[np.bool_]) -> Fronts:
    """The coefficients of the bands that are present, front by front, in C order on a front."""
    extent = reach(bases, present)
    size = math.prod(extent)
    whole = np.int32 if size < 2**31 else np.int64
    held = present[np.ix_(*[each.bands[:n] for each, n in zip(bases, extent, strict=True)])]
    front = np.asarray(sum(np.ix_(*[np.arange(n, dtype=np.uint16) for n in extent])))[held]
    order = np.argsort(front, kind="stable")  # a radix sort
    where = np.flatnonzero(held)[order].astype(whole)
    starts = np.concatenate([[0], np.cumsum(np.bincount(front))])
    rank = np.empty(size, whole)
    rank[where] = np.arange(len(where), dtype=whole)
    taps = np.empty((len(where), present.ndim * TAPS), whole)
    bands = np.empty(len(where), np.int32)
    scales = np.zeros(present.size, np.int64)
    for number in np.flatnonzero(present):
        block = _block(bases, kinds, [int(b) for b in np.unravel_index(number, present.shape)], extent, whole)
        at = rank[block.where]
        taps[at], bands[at], scales[number] = block.taps, number, block.level
    return Fronts(extent, where, taps, bands, scales, starts)


class _Block(NamedTuple):
    """The coefficients of one band."""

    where: NDArray[Any]
    taps: NDArray[Any]
    level: int


def _block(
    bases: Sequence[Basis], kinds: Sequence[Kind], bands: Sequence[int], extent: tuple[int, ...], whole: Any
) -> _Block:
    """Of these bands; positions have the integer type `whole`."""
    axes, nowhere = range(len(extent)), math.prod(extent)
    strides = [math.prod(extent[axis + 1 :]) for axis in axes]
    spans = [
        np.arange(each.prefix(band - 1) if band else 0, each.prefix(band))
        for each, band in zip(bases, bands, strict=True)
    ]

    def positions(places: Sequence[_Ints]) -> NDArray[Any]:
        """Flat ones of the functions at these places on each axis."""
        parts = [part * stride for part, stride in zip(places, strides, strict=True)]
        return np.asarray(sum(np.ix_(*[part.astype(whole) for part in parts])))

    own = positions(spans)
    taps = np.full((*own.shape, len(axes) * TAPS), nowhere, whole)
    scales, nested = list(bands), nested_axes(kinds)
    joint = dict(zip(nested, _joint(bases, kinds, bands, spans), strict=True))
    for axis, (each, span) in enumerate(zip(bases, spans, strict=True)):
        before = list(each.taps[:, span])
        if axis in joint:
            first, scales[axis], _ = joint[axis]
            before = [np.where(span - back >= first, span - back, -1) for back in (1, 2)]
        for tap, places in enumerate(before):
            there = (*[slice(None)] * axis, places >= 0)
            own_taps = taps[..., axis * TAPS + tap]
            own_taps[there] = positions([*spans[:axis], places, *spans[axis + 1 :]])[there]
    if any(bands[axis] for axis in nested):
        above = [joint[axis][2] if axis in joint else spans[axis] for axis in axes]
        taps[..., nested[0] * TAPS + TAPS - 1] = positions(above)
    return _Block(own.ravel(), taps.reshape(-1, taps.shape[-1]), sum(scales))


def _joint(
    bases: Sequence[Basis], kinds: Sequence[Kind], bands: Sequence[int], spans: Sequence[_Ints]
) -> list[tuple[int, int, _Ints]]:
    """For each nested axis the first function of a block, its scale, and those above the block's.

    A block's depth is that of its finest axis. On this axis it has details, on those that would be
    coarser the averages that all of those span.
    """
    nested, most = nested_axes(kinds), depths(kinds)
    halvings = {axis: kinds[axis].halvings for axis in nested}
    deep = {axis: halvings[axis] - bands[axis] if bands[axis] else most for axis in nested}
    depth = min(deep.values(), default=most)
    found = []
    for axis in nested:
        span = spans[axis]
        if bands[axis] and deep[axis] == depth:
            found.append((int(span[0]), bands[axis], bases[axis].taps[TAPS - 1, span]))
        else:
            above = span // 2 if depth + 1 < halvings[axis] else span
            found.append((0, max(halvings[axis] - depth - 1, 0), above))
    return found
