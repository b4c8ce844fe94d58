"""In which bases an array is sparse: a cheap measure picks a few, quantisation decides among them.

The measure is ``sum of min(c^2, t^2)`` over the coefficients c: what is lost where each that is kept costs
as much as an error of t. A line of less energy than t^2 loses all of it in every orthonormal basis, and so
is left out; the few lines that are left stand for the whole array.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import TypeAlias

import numpy as np

from moec_zarr.arrays import Doubles, Floats
from moec_zarr.compiled import compiled
from moec_zarr.model.basis import (
    LARGEST_EDGE_WEIGHT,
    LONGEST_GRAPH_AXIS,
    AxisBasis,
    analysis_matrix,
    laplacian,
    maximum_levels,
    synthesis_matrix,
)
from moec_zarr.model.transform import along, analyse, decompose, joint_axes

__all__ = [
    "Analyses",
    "Bases",
    "axis_options",
    "choose_edge_weights",
    "energy_of",
    "estimate_fine_bits",
    "estimate_kept",
    "find_exceeded",
    "join",
    "list_bases",
    "list_groups",
    "measure",
    "sample_lines",
    "wavelets_of",
]

Bases: TypeAlias = tuple[AxisBasis, ...]

_COARSEST = (8, 4, 16, 32)  # positions on an axis at which wavelets may end; the first one is tried first
_KEPT_ERROR = 0.2  # of the threshold's square, left by each coefficient that is kept
_PRECISE = 2.0**-20  # of the largest coefficient: what is as small may be lost by rounding
_SAMPLE = 1 << 17  # coefficients at most that two bases of an axis are compared on
_LOOKED_AT = 1 << 18  # of which the large ones are counted, at most


class Analyses:
    """Coefficients of an array in several bases: of each axis that differs alone, once some are known.

    Not so if they are to be `precise`: each change rounds.
    """

    def __init__(self, array: Floats) -> None:
        self.array, self.precise = array, False
        self._known: dict[Bases, Floats] = {}

    def find(self, bases: Bases) -> Floats:
        """Return the coefficients in some bases, and keep them."""
        if bases not in self._known:
            self._known[bases] = self._analyse(bases)
        return self._known[bases]

    def keep(self, bases: Collection[Bases]) -> None:
        """Forget all coefficients but those in some bases."""
        self._known = {each: found for each, found in self._known.items() if each in bases}

    def _analyse(self, bases: Bases) -> Floats:
        def differing(other: Bases) -> list[int]:
            return [axis for axis, pair in enumerate(zip(bases, other, strict=True)) if pair[0] != pair[1]]

        known = (
            []
            if joint_axes(bases) or self.precise
            else [each for each in self._known if not joint_axes(each)]
        )
        nearest = min(known, key=lambda other: len(differing(other)), default=None)
        if nearest is None or len(differing(nearest)) == len(bases):
            return analyse(self.array, bases)
        result = self._known[nearest]
        for axis in differing(nearest):
            result = along(result, _change_matrix(nearest[axis], bases[axis], result.shape[axis]), axis)
        return result


@lru_cache(maxsize=32)
def _change_matrix(old: AxisBasis, new: AxisBasis, length: int) -> Floats:
    """Compute coefficients in a basis from those in another one, shape (functions, functions)."""
    return np.asarray(analysis_matrix(new, length) @ synthesis_matrix(old, length), np.float32)


def list_bases(known: Analyses, count: int) -> tuple[list[Bases], float]:
    """List bases of the axes that may be the best ones, the most promising first; and the threshold t.

    One with the best basis of each axis, one with some axes joint where that may be better, cosines
    alone and wavelets alone, which may take fewer bits a coefficient.

    Parameters
    ----------
    known : Analyses
        Of the array.
    count : int
        Coefficients that are kept.
    """
    array = known.array
    options = [axis_options(array, axis) for axis in range(array.ndim)]
    wavelets = tuple(wavelets_of(n) for n in array.shape)
    threshold = find_exceeded(known.find(wavelets), count)
    known.precise = threshold < _PRECISE * float(np.abs(known.find(wavelets)).max())
    separate = _best_separate(known, options, wavelets, threshold)
    joint = [(_joint_gain(known, separate, axes, threshold), axes) for axes in list_groups(array.shape)]
    candidates = [separate]
    if joint:
        gain, axes = max(joint)
        candidates.insert(0 if gain > 0 else 1, join(array.shape, separate, axes))
    cosines = tuple(next(basis for basis in reversed(each) if not basis.levels) for each in options)
    return list(dict.fromkeys([*candidates, wavelets, cosines])), threshold


def find_exceeded(coefficients: Floats, count: int) -> float:
    """Find the magnitude that about so many coefficients exceed; of large arrays by a sample."""
    flat = np.abs(coefficients.reshape(-1)[:: 1 + coefficients.size // _LOOKED_AT])
    kept = min(max(1, round(count * flat.size / coefficients.size)), flat.size - 1)
    return float(np.partition(flat, flat.size - kept)[flat.size - kept])


def estimate_kept(coefficients: Floats, error: float) -> int:
    """Estimate how many coefficients a squared error keeps: that of all others, a little of each."""
    every = 1 + coefficients.size // _LOOKED_AT
    squares = np.sort(np.square(coefficients.reshape(-1)[::every]))
    dropped = np.cumsum(squares, dtype=np.float64)
    left = np.arange(squares.size - 1, -1, -1)
    lost = every * (dropped + _KEPT_ERROR * left * squares)
    return min(max(1, every * (squares.size - int(np.searchsorted(lost, error)))), coefficients.size - 1)


def wavelets_of(length: int, coarsest: int = _COARSEST[0]) -> AxisBasis:
    """Return wavelets that halve an axis until no more than so many positions are left."""
    return AxisBasis(max(0, (-(-length // coarsest) - 1).bit_length()))


def axis_options(array: Floats, axis: int) -> list[AxisBasis]:
    """Return the bases that an axis may have, cosines first."""
    length = array.shape[axis]
    result = [AxisBasis()]
    if 2 < length <= LONGEST_GRAPH_AXIS:
        moved = np.moveaxis(array, axis, 0)
        differences = [np.square(b - a).mean(dtype=np.float64) for a, b in pairwise(moved)]
        if weights := choose_edge_weights(np.array(differences)):
            result.append(AxisBasis(edge_weights=weights))
    return list(dict.fromkeys([*result, *(wavelets_of(length, coarsest) for coarsest in _COARSEST)]))


def choose_edge_weights(differences: Doubles) -> tuple[int, ...]:
    """Choose edge weights of a graph Fourier basis, for an axis whose neighbours differ so much.

    The inverse of the differences, as of a Gauss-Markov process. Empty where all are alike, or where
    two machines might find different eigenvectors: eigenvalues that nearly meet, or a mode without a
    clear sign, hang on rounding.

    Parameters
    ----------
    differences : float64 array, shape (length - 1,)
        Mean square difference between neighbours.
    """
    octaves = -np.log2(np.maximum(differences, np.finfo(np.float64).tiny))
    halves = np.rint(2 * (octaves - np.median(octaves))) + (LARGEST_EDGE_WEIGHT + 1) // 2
    weights = tuple(np.clip(halves, 0, LARGEST_EDGE_WEIGHT).astype(int).tolist())
    values, modes = np.linalg.eigh(laplacian(weights))
    magnitudes = np.abs(modes) / np.abs(modes).max(axis=0)
    clear = np.diff(values).min() > 1e-6 * values[-1] and np.abs(magnitudes - 0.5).min() > 1e-6
    return weights if clear and len(set(weights)) > 1 else ()


def _best_separate(
    known: Analyses, options: Sequence[Sequence[AxisBasis]], start: Bases, threshold: float
) -> Bases:
    """Return the best basis of each axis, one axis after the other."""
    bases = start
    for axis, each in enumerate(options):
        length = known.array.shape[axis]
        if known.precise:
            rest = known.array
            for other, basis in enumerate(bases):
                if other != axis:
                    rest = along(rest, analysis_matrix(basis, rest.shape[other]), other)
            voxels, _ = sample_lines(rest, axis, threshold)
        else:
            lines, _ = sample_lines(known.find(bases), axis, threshold)
            voxels = synthesis_matrix(bases[axis], length) @ lines
        tried = [
            (measure(analysis_matrix(basis, length) @ voxels, threshold), place)
            for place, basis in enumerate(each)
        ]
        bases = (*bases[:axis], each[min(tried)[1]], *bases[axis + 1 :])
        known.find(bases)
        known.keep([start, bases])
    return bases


def sample_lines(array: Floats, axis: int, threshold: float) -> tuple[Floats, int]:
    """Return some of the lines along an axis that a basis matters for, in columns; one of how many."""
    n = array.shape[axis]
    flat = array.reshape(math.prod(array.shape[:axis]), n, -1)
    place = np.flatnonzero(np.einsum("ijk,ijk->ik", flat, flat) > threshold**2)
    every = 1 + place.size * n // _SAMPLE
    row, column = np.divmod(place[::every], flat.shape[2])
    return np.ascontiguousarray(flat[row, :, column].T), every


def measure(coefficients: Floats, threshold: float) -> float:
    """Measure what is lost of an array with such coefficients if each that is kept costs the threshold."""
    squares = np.square(coefficients)
    return float(np.minimum(squares, np.float32(threshold**2), out=squares).sum(dtype=np.float64))


@compiled(fastmath=True)
def estimate_fine_bits(coefficients: Floats, step: float) -> float:
    """Estimate the bits of coefficients, most larger than a step: ``sum of log2(1 + c^2) / 2``.

    Parameters
    ----------
    coefficients : float32 array, shape (n,)
        Of at most 2^31 steps.
    """
    total, product = 0.0, 1.0
    for i in range(coefficients.size):
        c = coefficients[i] / step
        product *= 1 + c * c
        if i % 16 == 15:  # logarithms take time
            total += math.log2(product)
            product = 1.0
    return 0.5 * (total + math.log2(product))


@compiled(fastmath=True)
def energy_of(coefficients: Floats) -> float:
    """Add up squares in double precision: a fit may take nearly all of it away."""
    total = 0.0
    for i in range(coefficients.size):
        c = np.float64(coefficients[i])
        total += c * c
    return total


def list_groups(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Axes that may be halved together: of the three longest, those of more than 16 voxels."""
    longest = sorted(range(len(shape)), key=lambda axis: -shape[axis])[:3]
    long = sorted(axis for axis in longest if shape[axis] > 16)
    return [group for size in range(2, len(long) + 1) for group in combinations(long, size)]


def join(shape: tuple[int, ...], separate: Bases, axes: tuple[int, ...]) -> Bases:
    """Return the same with some axes halved together, once more than they would be alone."""
    return tuple(
        AxisBasis(min(wavelets_of(n).levels + 1, maximum_levels(n)), joint=True) if axis in axes else basis
        for axis, (n, basis) in enumerate(zip(shape, separate, strict=True))
    )


def _joint_gain(known: Analyses, separate: Bases, axes: tuple[int, ...], threshold: float) -> float:
    """Measure what some axes halved together save, on some of their planes that it matters for."""
    coefficients = known.find(separate)
    others = [axis for axis in range(coefficients.ndim) if axis not in axes]
    joined = join(coefficients.shape, separate, axes)
    if not others:
        return measure(coefficients, threshold) - measure(known.find(joined), threshold)
    planes = coefficients.transpose(*others, *axes)
    energy = np.einsum("...i,...i->...", planes, planes)
    matter = np.argwhere(energy.sum(axis=tuple(range(len(others), energy.ndim))) > threshold**2)
    size = math.prod(planes.shape[len(others) :])
    every = max(1, min(len(matter) // 4, len(matter) * size // _SAMPLE))
    some = planes[tuple(matter[::every].T)]
    now = measure(some.reshape(-1), threshold)
    for place, axis in enumerate(axes):
        some = along(some, synthesis_matrix(separate[axis], some.shape[1 + place]), 1 + place)
    bases = AxisBasis(), *(joined[axis] for axis in axes)  # the first axis is that of the planes
    return every * (now - measure(decompose(some, bases), threshold))
