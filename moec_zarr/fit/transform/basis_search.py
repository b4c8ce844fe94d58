"""In which bases an array is sparse, by a cheap measure of their coefficients.

The measure is ``sum of min(x^2, 1/12 + RATE (2 + log2 max(x, 1)))`` over the coefficients x in steps: the
error of what is left out, and of what is kept its error and its bits, as quantisation weighs them. Other
bases of a few axes are compared on some lines or planes along them: they are drawn the more often, the more
is lost of them, and the share that others lose of the same is the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple, TypeAlias

import numpy as np

from moec_zarr.arrays import Doubles, Floats
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT
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
    "RATE",
    "Analyses",
    "Bases",
    "choose_edge_weights",
    "energy_of",
    "estimate_kept",
    "estimate_separate",
    "find_exceeded",
    "find_joint",
    "find_separate",
    "finest_of",
    "measure",
    "side_bits",
    "wavelets_of",
]

Bases: TypeAlias = tuple[AxisBasis, ...]

RATE = math.log(2) / 6  # squared steps that a bit is worth
_COARSEST = (8, 4, 16, 32)  # positions on an axis at which wavelets may end; the first one is tried first
_STEP = 1.3  # of the magnitude that as many coefficients exceed as are kept
_LEAST_KEPT = 1 / 12 + 2 * RATE  # squared steps that a coefficient costs which is kept, at least
_KEPT_ERROR = 0.2  # of the threshold's square, left by each coefficient that is kept
_PRECISE = 2.0**-20  # of the largest coefficient: what is as small may be lost by rounding
_SAMPLE = 1 << 14  # coefficients that two bases are compared on, about
_FEWEST = 128, 16  # lines, or planes, that they stand in
_LOOKED_AT = 1 << 16  # of which the large ones are counted, about
_FEWEST_LARGE = 64  # of the same


class _Planes(NamedTuple):
    """Some lines or planes along some axes, of which they are the last ones, drawn by what each loses.

    Attributes
    ----------
    voxels : float32 array
    weights : float64 array, shape (planes,)
        How often each was drawn, over what it loses, in sum over draws.
    """

    voxels: Floats
    weights: Doubles


class Analyses:
    """Coefficients of an array in several bases, and estimates of what it loses in others.

    Attributes
    ----------
    array : float32 array
    start : Bases
        The first ones.
    step : float
        At which losses count.
    precise : bool
        Whether a change from one basis to another would round more than is lost.
    """

    def __init__(self, array: Floats, start: Bases, count: int) -> None:
        """Take the step with which about so many coefficients are kept in the first bases."""
        self.array, self.start, self.precise, self.step = array, start, False, 0.0
        self._known: dict[Bases, Floats] = {}
        self._planes: dict[tuple[Bases, tuple[int, ...]], _Planes] = {}
        self._losses: dict[Bases, float] = {}
        self._each: tuple[Bases, Floats] | None = None
        self._options: dict[int, list[AxisBasis]] = {}
        coefficients = self.find(start)
        threshold, finest = find_exceeded(coefficients, count), finest_of(coefficients)
        self.precise = threshold < _PRECISE * 0.5 * MAX_COEFFICIENT * finest
        self.step = max(_STEP * threshold, finest)

    def options(self, axis: int) -> list[AxisBasis]:
        """Return the bases that an axis may have, cosines first."""
        if axis not in self._options:
            self._options[axis] = _axis_options(self.array, axis)
        return self._options[axis]

    def find(self, bases: Bases) -> Floats:
        """Return the coefficients in some bases, and keep them."""
        if bases not in self._known:
            self._known[bases] = self._analyse(bases)
            self._losses.pop(bases, None)  # an estimate
        return self._known[bases]

    def keep(self, bases: Collection[Bases]) -> None:
        """Forget all coefficients but those in some bases, and in the first ones."""
        self._known = {each: found for each, found in self._known.items() if each in (self.start, *bases)}

    def lose(self, bases: Bases) -> float:
        """Return what is lost in some bases, in squared steps; of those that are not known an estimate."""
        if bases not in self._losses:
            near = None if bases in self._known else self._nearest(bases)
            if near is None:
                lost = float(self._lose_each(bases).sum(dtype=np.float64))
            else:
                axes = _differing(near, bases)
                planes = self._draw(near, axes)
                others = _lose_each(_analyse_planes(planes.voxels, bases, axes).reshape(-1), self.step)
                share = float(planes.weights @ others.reshape(len(planes.weights), -1).sum(axis=1))
                lost = share * (self.lose(near) - RATE * side_bits(near))
            self._losses[bases] = lost + RATE * side_bits(bases)
        return self._losses[bases]

    def _lose_each(self, bases: Bases) -> Floats:
        """Return what is lost of each coefficient in known bases, and keep it for the last ones."""
        if self._each is None or self._each[0] != bases:
            found = self.find(bases)
            self._each = bases, _lose_each(found.reshape(-1), self.step).reshape(found.shape)
        return self._each[1]

    def _nearest(self, bases: Bases) -> Bases | None:
        """Return the known bases that differ on the fewest axes, of which planes can be had."""

        def suits(other: Bases) -> bool:
            axes, joint = _differing(other, bases), joint_axes(other)
            alike = not joint or (not self.precise and joint == joint_axes(bases))
            return alike and len(axes) < len(bases) and not set(axes) & set(joint)

        return min(filter(suits, self._known), key=lambda other: len(_differing(other, bases)), default=None)

    def _draw(self, bases: Bases, axes: tuple[int, ...]) -> _Planes:
        """Draw planes of known bases, and keep them: the more often, the more they lose."""
        if (bases, axes) in self._planes:
            return self._planes[bases, axes]
        others = [axis for axis in range(len(bases)) if axis not in axes]
        found = self.find(bases)
        lost = self._lose_each(bases).sum(axis=axes)
        summed = np.cumsum(lost, dtype=np.float64)
        draws = max(_FEWEST[len(axes) > 1], _SAMPLE * lost.size // found.size)
        places = np.searchsorted(summed, summed[-1] * (np.arange(draws) + 0.5) / draws)
        places, often = np.unique(np.minimum(places, lost.size - 1), return_counts=True)
        if self.precise:
            found = self.array
            for axis in others:
                found = along(found, analysis_matrix(bases[axis], found.shape[axis]), axis)
        voxels = found.transpose(*others, *axes)[np.unravel_index(places, lost.shape)]
        if not self.precise:
            for place, axis in enumerate(axes, start=1):
                voxels = along(voxels, synthesis_matrix(bases[axis], voxels.shape[place]), place)
        weights = often / np.maximum(draws * lost.reshape(-1)[places], np.finfo(np.float64).tiny)
        self._planes[bases, axes] = _Planes(voxels, weights)
        return self._planes[bases, axes]

    def _analyse(self, bases: Bases) -> Floats:
        known = [each for each in self._known if not joint_axes(each)]
        if joint_axes(bases) or self.precise or not known:
            return analyse(self.array, bases)
        nearest = min(known, key=lambda other: len(_differing(other, bases)))
        axes = _differing(nearest, bases)
        if len(axes) == len(bases):
            return analyse(self.array, bases)
        result = self._known[nearest]
        for axis in axes:
            result = along(result, _change_matrix(nearest[axis], bases[axis], result.shape[axis]), axis)
        return result


def _differing(some: Bases, others: Bases) -> tuple[int, ...]:
    return tuple(axis for axis, pair in enumerate(zip(some, others, strict=True)) if pair[0] != pair[1])


def _analyse_planes(planes: Floats, bases: Bases, axes: tuple[int, ...]) -> Floats:
    """Return the coefficients of planes along some axes."""
    result = planes
    own = AxisBasis(), *(bases[axis] for axis in axes)  # the first axis is that of the planes
    for place, basis in enumerate(own[1:], start=1):
        if not basis.joint:
            result = along(result, analysis_matrix(basis, result.shape[place]), place)
    return decompose(result, own) if joint_axes(own) else result


@lru_cache(maxsize=32)
def _change_matrix(old: AxisBasis, new: AxisBasis, length: int) -> Floats:
    """Compute coefficients in a basis from those in another one, shape (functions, functions)."""
    return np.asarray(analysis_matrix(new, length) @ synthesis_matrix(old, length), np.float32)


def estimate_separate(known: Analyses) -> float:
    """Estimate what is lost in the best basis of each axis, from the first ones alone."""
    start = _first_separate(known)
    lost = known.lose(start)
    return lost * math.prod(
        min(1.0, *(known.lose(each) / lost for each in _list_options(known, start, axis)))
        for axis in range(len(start))
    )


def find_separate(known: Analyses) -> Bases:
    """Find the best basis of each axis, one axis after the other."""
    shape, found = known.array.shape, _first_separate(known)
    for axis in range(len(shape)):
        found = _surest(known, [found, *_list_options(known, found, axis)])
    cosines = tuple(AxisBasis() for _ in shape)  # together they may be better than each
    return _surest(known, [found, cosines]) if len(_differing(found, cosines)) < len(shape) else found


def _first_separate(known: Analyses) -> Bases:
    """Return the first bases, or wavelets where some of those are joint."""
    return tuple(map(wavelets_of, known.array.shape)) if joint_axes(known.start) else known.start


def _list_options(known: Analyses, bases: Bases, axis: int) -> list[Bases]:
    """List what bases are with others on an axis."""
    return [(*bases[:axis], each, *bases[axis + 1 :]) for each in known.options(axis)]


def find_joint(known: Analyses, separate: Bases) -> Bases:
    """Find which axes are best joint; the same bases where none are."""
    found = separate
    if not any(basis.levels for basis in separate):  # where cosines are best, nothing is sharp on any axis
        return found
    for size in (2, 3):  # more of them only where fewer are of use
        joint = [_join(known.array.shape, separate, axes) for axes in _list_groups(known.array.shape, size)]
        if not joint or (size > 2 and found == separate):
            break
        found = _surest(known, [found, *joint])
    return found


def _surest(known: Analyses, bases: Sequence[Bases]) -> Bases:
    """Return those in which the least is lost: the first ones, or others that are found to be better."""
    best = min(bases, key=known.lose)
    known.find(best)
    best = min(bases[0], best, key=known.lose)
    known.keep([bases[0], best])
    return best


def find_exceeded(coefficients: Floats, count: int) -> float:
    """Find the magnitude that about so many coefficients exceed; of large arrays by a sample."""
    every = _spread(coefficients.shape[-1], min(coefficients.size // _LOOKED_AT, count // _FEWEST_LARGE))
    flat = np.abs(coefficients.reshape(-1)[::every])
    kept = min(max(1, round(count * flat.size / coefficients.size)), flat.size - 1)
    return float(np.partition(flat, flat.size - kept)[flat.size - kept])


def _spread(length: int, every: int) -> int:
    """Return about so large a stride that comes by all places of an axis."""
    every = max(1, every)
    while math.gcd(every, length) > 1:
        every += 1
    return every


def estimate_kept(coefficients: Floats, error: float) -> int:
    """Estimate how many coefficients a squared error keeps: that of all others, a little of each."""
    every = _spread(coefficients.shape[-1], coefficients.size // _LOOKED_AT)
    squares = np.sort(np.square(coefficients.reshape(-1)[::every]))
    dropped = np.cumsum(squares, dtype=np.float64)
    left = np.arange(squares.size - 1, -1, -1)
    lost = every * (dropped + _KEPT_ERROR * left * squares)
    return min(max(1, every * (squares.size - int(np.searchsorted(lost, error)))), coefficients.size - 1)


def wavelets_of(length: int, coarsest: int = _COARSEST[0]) -> AxisBasis:
    """Return wavelets that halve an axis until no more than so many positions are left."""
    return AxisBasis(max(0, (-(-length // coarsest) - 1).bit_length()))


def _axis_options(array: Floats, axis: int) -> list[AxisBasis]:
    length = array.shape[axis]
    result = [AxisBasis()]
    if 2 < length <= LONGEST_GRAPH_AXIS:
        lines = np.ascontiguousarray(array).reshape(math.prod(array.shape[:axis]), length, -1)
        if weights := choose_edge_weights(_differences(lines)):
            result.append(AxisBasis(edge_weights=weights))
    return list(dict.fromkeys([*result, *(wavelets_of(length, coarsest) for coarsest in _COARSEST)]))


@compiled(fastmath=True)
def _differences(lines: Floats) -> Doubles:
    """Return the mean square difference between neighbours along the second one of three axes."""
    result = np.zeros(lines.shape[1] - 1)
    for i in range(lines.shape[0]):
        for j in range(result.size):
            total = 0.0
            for k in range(lines.shape[2]):
                total += np.float64((lines[i, j + 1, k] - lines[i, j, k]) ** 2)
            result[j] += total
    return np.asarray(result / (lines.shape[0] * lines.shape[2]))


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


def side_bits(bases: Bases) -> int:
    """Return the bits of what bases are told by, beside those that all have."""
    return sum(4 * len(basis.edge_weights) for basis in bases)


def finest_of(coefficients: Floats) -> float:
    """Return the finest step with which coefficients can be coded, with room for a few finer ones."""
    return max(float(coefficients.max()), -float(coefficients.min())) / (0.5 * MAX_COEFFICIENT)


def measure(coefficients: Floats, step: float) -> float:
    """Measure what is lost of an array with such coefficients at a step, in squared steps."""
    return float(_lose_each(coefficients.reshape(-1), step).sum(dtype=np.float64))


@compiled(fastmath=True)
def _lose_each(coefficients: Floats, step: float) -> Floats:
    result = np.empty(coefficients.size, np.float32)
    for i in range(coefficients.size):
        x = coefficients[i] / step
        square = x * x
        if square >= _LEAST_KEPT:
            square = _LEAST_KEPT + (0.5 * RATE * math.log2(square) if square > 1 else 0.0)
        result[i] = square
    return result


@compiled(fastmath=True)
def energy_of(coefficients: Floats) -> float:
    """Add up squares in double precision: a fit may take nearly all of it away."""
    total = 0.0
    for i in range(coefficients.size):
        c = np.float64(coefficients[i])
        total += c * c
    return total


def _list_groups(shape: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    """Axes, so many, that may be halved together: of the three longest, those of more than 16 voxels."""
    longest = sorted(range(len(shape)), key=lambda axis: -shape[axis])[:3]
    return list(combinations(sorted(axis for axis in longest if shape[axis] > 16), size))


def _join(shape: tuple[int, ...], separate: Bases, axes: tuple[int, ...]) -> Bases:
    """Return the same with some axes halved together, once more than they would be alone."""
    return tuple(
        AxisBasis(min(wavelets_of(n).levels + 1, maximum_levels(n)), joint=True) if axis in axes else basis
        for axis, (n, basis) in enumerate(zip(shape, separate, strict=True))
    )
