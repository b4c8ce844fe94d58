"""The order in which coefficients are coded, and the probability model of each.

Most coefficients are zero. Those that are not lie near one another, and below a coefficient that is
not zero on the scale above: the distribution of a coefficient follows from the magnitudes of those
before it on each axis, its context neighbours. All of that is integer arithmetic, so it decodes alike
on every machine. Coefficients on a wavefront, whose indices have the same sum, depend on earlier
wavefronts alone: each wavefront is one array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Integers
from moec_zarr.bitstream.range_coder import CLASSES
from moec_zarr.model.basis import AXIS_NEIGHBOURS, BasisFunctions
from moec_zarr.model.transform import joint_axes, joint_levels

__all__ = [
    "Context",
    "Wavefronts",
    "band_counts",
    "bands_at",
    "extent_of",
    "present_bands",
    "wavefronts",
]


@dataclass(frozen=True)
class Context:
    """The probability model: how the class of a coefficient follows from its context neighbours.

    The class is the number of a Laplace distribution, see
    :func:`moec_zarr.bitstream.range_coder.class_frequencies`. The activity of a coefficient of octave
    g, the sum of its bands, is ``exponential(floor + rise * g)`` plus the weighted magnitudes of its
    context neighbours. Its class is ``power`` times the logarithm of the activity, plus ``offset +
    slope * g``, in units of 1/128.

    Attributes
    ----------
    neighbour_weights : tuple of int
        0..255 each, ``AXIS_NEIGHBOURS`` for each axis.
    floor, rise : int
        -128..127.
    power : int
        0..255.
    offset, slope : int
        -32768..32767.
    """

    neighbour_weights: tuple[int, ...]
    floor: int
    rise: int
    power: int
    offset: int
    slope: int

    def classes(self, magnitudes: Integers, octaves: Integers) -> Integers:
        """Classes of coefficients.

        Parameters
        ----------
        magnitudes : int64 array, shape (n, axes * AXIS_NEIGHBOURS)
            Of the context neighbours of each.
        octaves : int64 array, shape (n,)
        """
        return self.classes_at(self.activity(magnitudes, octaves), octaves)

    def activity(self, magnitudes: Integers, octaves: Integers) -> Integers:
        """Activity from the magnitudes of the context neighbours."""
        floor = exponential(np.clip(self.floor + self.rise * octaves, 0, 127))
        return np.asarray(floor + magnitudes @ np.array(self.neighbour_weights, np.int64))

    def classes_at(self, activity: Integers, octaves: Integers) -> Integers:
        """Classes from the activity."""
        fine = self.power * _logarithm(activity) + self.offset + self.slope * octaves
        return np.asarray(np.clip(fine >> 7, 0, CLASSES - 1), np.int64)


def exponential(code: Integers) -> Integers:
    """About ``2**(code / 8)``, eight steps to the octave, in whole numbers."""
    return ((8 + code % 8) << (code // 8)) >> 3


def _logarithm(value: Integers) -> Integers:
    """About ``8 log2(value)`` of whole numbers above zero: the inverse of :func:`exponential`."""
    octave = np.frexp(value.astype(np.float64))[1].astype(np.int64) - 1
    return 8 * octave + ((value << 3) >> octave) - 8


def band_counts(functions: Sequence[BasisFunctions]) -> tuple[int, ...]:
    """Number of bands along each axis."""
    return tuple(int(each.bands[-1]) + 1 for each in functions)


def bands_at(functions: Sequence[BasisFunctions], index: Sequence[Integers]) -> tuple[Integers, ...]:
    """The band on each axis of coefficients with these indices."""
    return tuple(each.bands[i] for each, i in zip(functions, index, strict=True))


def present_bands(functions: Sequence[BasisFunctions], integers: NDArray[np.int32]) -> Bools:
    """Which tensor products of bands hold a coefficient that is not zero."""
    present = np.zeros(band_counts(functions), bool)
    present[bands_at(functions, np.nonzero(integers))] = True
    return present


def extent_of(functions: Sequence[BasisFunctions], present: Bools) -> tuple[int, ...]:
    """Functions on each axis up to the highest band that is present."""
    axes = range(present.ndim)
    highest = [np.flatnonzero(present.any(axis=tuple(a for a in axes if a != axis)))[-1] for axis in axes]
    return tuple(each.prefix(int(band)) for each, band in zip(functions, highest, strict=True))


@dataclass(frozen=True)
class Wavefronts:
    """The coefficients of some bands in the order of coding.

    Attributes
    ----------
    extent : tuple of int
        Functions on each axis that they reach.
    where : integer array, shape (n,)
        Flat position of each in an array of `extent`.
    neighbours : integer array, shape (n, axes * AXIS_NEIGHBOURS)
        Flat positions of their context neighbours; ``prod(extent)`` where there is none.
    bands : integer array, shape (n,)
        Number of the band of each, in C order of all bands.
    band_octaves : int64 array
        Octave of each band.
    starts : int64 array
        First of each wavefront, and n.
    """

    extent: tuple[int, ...]
    where: NDArray[Any]
    neighbours: NDArray[Any]
    bands: NDArray[Any]
    band_octaves: Integers
    starts: Integers

    def octaves(self, some: slice | Integers = slice(None)) -> Integers:
        """Octaves of some of the coefficients."""
        return np.asarray(self.band_octaves[self.bands[some]])


def wavefronts(functions: Sequence[BasisFunctions], present: Bools) -> Wavefronts:
    """The coefficients of the bands that are present, by wavefront, in C order on each."""
    extent = extent_of(functions, present)
    size = math.prod(extent)
    whole = np.int32 if size < 2**31 else np.int64
    held = present[np.ix_(*[each.bands[:n] for each, n in zip(functions, extent, strict=True)])]
    wavefront = np.asarray(sum(np.ix_(*[np.arange(n, dtype=np.uint16) for n in extent])))[held]
    order = np.argsort(wavefront, kind="stable")  # a radix sort
    where = np.flatnonzero(held)[order].astype(whole)
    starts = np.concatenate([[0], np.cumsum(np.bincount(wavefront))])
    rank = np.empty(size, whole)
    rank[where] = np.arange(len(where), dtype=whole)
    neighbours = np.empty((len(where), present.ndim * AXIS_NEIGHBOURS), whole)
    bands = np.empty(len(where), np.int32)
    band_octaves = np.zeros(present.size, np.int64)
    for number in np.flatnonzero(present):
        block = _block(functions, [int(b) for b in np.unravel_index(number, present.shape)], extent, whole)
        at = rank[block.where]
        neighbours[at], bands[at], band_octaves[number] = block.neighbours, number, block.octave
    return Wavefronts(extent, where, neighbours, bands, band_octaves, starts)


class _Block(NamedTuple):
    """The coefficients of one band on each axis."""

    where: NDArray[Any]
    neighbours: NDArray[Any]
    octave: int


def _block(
    functions: Sequence[BasisFunctions], bands: Sequence[int], extent: tuple[int, ...], whole: Any
) -> _Block:
    """Those of these bands; positions have the integer type `whole`."""
    axes, nowhere = range(len(extent)), math.prod(extent)
    strides = [math.prod(extent[axis + 1 :]) for axis in axes]
    spans = [
        np.arange(each.prefix(band - 1) if band else 0, each.prefix(band))
        for each, band in zip(functions, bands, strict=True)
    ]

    def positions(places: Sequence[Integers]) -> NDArray[Any]:
        """Flat positions of the functions at these places on each axis."""
        parts = [part * stride for part, stride in zip(places, strides, strict=True)]
        return np.asarray(sum(np.ix_(*[part.astype(whole) for part in parts])))

    own = positions(spans)
    neighbours = np.full((*own.shape, len(axes) * AXIS_NEIGHBOURS), nowhere, whole)
    octaves = list(bands)
    joint = _joint_spans(functions, bands, spans)
    for axis, (each, span) in enumerate(zip(functions, spans, strict=True)):
        before = list(each.neighbours[:, span])
        if axis in joint:
            octaves[axis] = joint[axis].octave
            before = [np.where(span - back >= joint[axis].first, span - back, -1) for back in (1, 2)]
        for number, places in enumerate(before):
            there = (*[slice(None)] * axis, places >= 0)
            own_neighbours = neighbours[..., axis * AXIS_NEIGHBOURS + number]
            own_neighbours[there] = positions([*spans[:axis], places, *spans[axis + 1 :]])[there]
    if any(bands[axis] for axis in joint):
        parents = [joint[axis].parents if axis in joint else spans[axis] for axis in axes]
        neighbours[..., min(joint) * AXIS_NEIGHBOURS + AXIS_NEIGHBOURS - 1] = positions(parents)
    return _Block(own.ravel(), neighbours.reshape(-1, neighbours.shape[-1]), sum(octaves))


class _JointSpan(NamedTuple):
    """Of a block on a joint axis: the first function of its kind, its octave, the parents' places."""

    first: int
    octave: int
    parents: Integers


def _joint_spans(
    functions: Sequence[BasisFunctions], bands: Sequence[int], spans: Sequence[Integers]
) -> dict[int, _JointSpan]:
    """By joint axis, what a block holds there.

    A block belongs to the decomposition level of its finest axis. On this axis it has details; on those
    that would be coarser, the averages that all coarser functions span.
    """
    bases = [each.basis for each in functions]
    axes, count = joint_axes(bases), joint_levels(bases)
    depths = {axis: bases[axis].levels - bands[axis] if bands[axis] else count for axis in axes}
    depth = min(depths.values(), default=count)
    result = {}
    for axis in axes:
        span, levels = spans[axis], bases[axis].levels
        if bands[axis] and depths[axis] == depth:
            parents = functions[axis].neighbours[AXIS_NEIGHBOURS - 1, span]
            result[axis] = _JointSpan(int(span[0]), bands[axis], parents)
        else:
            parents = span // 2 if depth + 1 < levels else span
            result[axis] = _JointSpan(0, max(levels - depth - 1, 0), parents)
    return result
