"""In which bases an array is sparse, judged by the error that its largest coefficients leave."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, zip_longest
from typing import TypeAlias

import numpy as np
from scipy.ndimage import distance_transform_edt

from moec_zarr.arrays import Bools, Doubles, Floats
from moec_zarr.model.basis import (
    LARGEST_EDGE_WEIGHT,
    LONGEST_GRAPH_AXIS,
    AxisBasis,
    analysis_matrix,
    functions_of,
    laplacian,
    maximum_levels,
)
from moec_zarr.model.transform import along, analyse, joint_axes, layer_parts, layers, synthesise

__all__ = [
    "Bases",
    "axis_options",
    "candidate_bases",
    "edge_weights_for",
    "extended_coefficients",
    "inpaint",
    "magnitude_exceeded",
    "neighbouring_bases",
]

Bases: TypeAlias = tuple[AxisBasis, ...]
_Options: TypeAlias = list[list[AxisBasis]]

# Positions on an axis at which the decomposition may end; the search begins with the last.
_COARSEST = (4, 16, 32, 8)
_INPAINTING_STEPS = 12


def candidate_bases(array: Floats, count: int, options: _Options) -> list[Bases]:
    """Bases of the axes in which `count` coefficients leave little, the best first.

    One with no joint axes; one with joint axes, where there can be any; cosines alone and wavelets
    alone, which may take fewer bits a coefficient.
    """
    separate = _best_separate(array, count, options)
    ranked = [separate]
    if groups := _joint_groups(array.shape):
        joint = [_best_joint(array, count, separate[1], axes) for axes in groups]
        ranked.append(min(joint, key=lambda each: each[0]))
    ranked.sort(key=lambda each: each[0])
    cosines = [[basis for basis in bases if not basis.levels] for bases in options]
    uniform = _best_separate(array, count, cosines)[1], _all_wavelets(array.shape)
    return list(dict.fromkeys([*(bases for _, bases in ranked), *uniform]))


def neighbouring_bases(bases: Bases, shape: tuple[int, ...], options: _Options) -> list[Bases]:
    """Bases that differ on one axis, or by one level on all joint axes."""
    result = [
        tuple(
            _with_levels(basis, n, more) if basis.joint else basis
            for basis, n in zip(bases, shape, strict=True)
        )
        for more in (1, -1)
    ]
    others = [
        [*options[axis], _with_levels(basis, n, 1), _with_levels(basis, n, -1)]
        for axis, (basis, n) in enumerate(zip(bases, shape, strict=True))
    ]
    for choice in zip_longest(*others):  # what comes first on each axis, then what comes next
        for axis, basis in enumerate(choice):
            if basis is not None:
                result.append((*bases[:axis], basis, *bases[axis + 1 :]))
    return [each for each in dict.fromkeys(result) if each != bases and len(joint_axes(each)) != 1]


def _with_levels(basis: AxisBasis, length: int, more: int) -> AxisBasis:
    """Wavelets of so many more levels; the same where that cannot be."""
    fits = basis.levels and 1 <= basis.levels + more <= maximum_levels(length)
    return replace(basis, levels=basis.levels + more) if fits else basis


def axis_options(array: Floats) -> _Options:
    """The bases that each axis may have, cosines first."""
    return [_axis_options(array, axis) for axis in range(array.ndim)]


def _axis_options(array: Floats, axis: int) -> list[AxisBasis]:
    length = array.shape[axis]
    result = [AxisBasis()]
    if 2 < length <= LONGEST_GRAPH_AXIS:
        moved = np.moveaxis(array, axis, 0)
        differences = [np.square(b - a).mean(dtype=np.float64) for a, b in pairwise(moved)]
        if weights := edge_weights_for(np.array(differences)):
            result.append(AxisBasis(edge_weights=weights))
    return list(dict.fromkeys([*result, *(_wavelet_basis(length, coarsest) for coarsest in _COARSEST)]))


def edge_weights_for(differences: Doubles) -> tuple[int, ...]:
    """Edge weights of a graph Fourier basis, for an axis whose neighbours differ so much.

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


def _wavelet_basis(length: int, coarsest: int) -> AxisBasis:
    """Wavelets of as many levels as leave no more than so many averages."""
    return AxisBasis(max(0, (-(-length // coarsest) - 1).bit_length()))


def _all_wavelets(shape: tuple[int, ...]) -> Bases:
    return tuple(_wavelet_basis(n, 8) for n in shape)


def _best_separate(array: Floats, count: int, options: _Options) -> tuple[float, Bases]:
    """The best basis of each axis, one after the other: the error left, and the bases."""
    bases = [each[-1] for each in options]
    smallest = np.inf
    for axis, each in enumerate(options):
        rest = array
        for other, basis in enumerate(bases):
            if other != axis:
                rest = along(rest, analysis_matrix(basis, array.shape[other]), other)
        trials = [
            (_error_left(along(rest, analysis_matrix(basis, array.shape[axis]), axis), count), place)
            for place, basis in enumerate(each)
        ]
        smallest, best = min(trials)
        bases[axis] = each[best]
    return float(smallest), tuple(bases)


def _joint_groups(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Axes that may be joint: of the three longest, those of more than 16 voxels."""
    longest = sorted(range(len(shape)), key=lambda axis: -shape[axis])[:3]
    axes = sorted(axis for axis in longest if shape[axis] > 16)
    return [group for size in range(2, len(axes) + 1) for group in combinations(axes, size)]


def _best_joint(array: Floats, count: int, separate: Bases, axes: tuple[int, ...]) -> tuple[float, Bases]:
    """Of some joint axes, the others as they are best separately: the error left, and the bases."""
    trials: list[tuple[float, int, Bases]] = []
    for coarsest in (8, 4, 16):
        bases = tuple(
            replace(_wavelet_basis(n, coarsest), joint=True) if axis in axes else basis
            for axis, (n, basis) in enumerate(zip(array.shape, separate, strict=True))
        )
        if all(bases[axis].levels for axis in axes):
            trials.append((_error_left(analyse(array, bases), count), len(trials), bases))
    smallest, _, bases = min(trials)
    return smallest, bases


def _error_left(coefficients: Floats, count: int) -> float:
    """The squared error that the `count` largest coefficients leave."""
    squares = np.square(coefficients).ravel()
    dropped = squares.size - count
    return float(np.partition(squares, dropped)[:dropped].sum(dtype=np.float64))


def magnitude_exceeded(magnitudes: Floats, count: int) -> float:
    """The magnitude that `count` coefficients exceed."""
    flat = magnitudes.ravel()
    return float(np.partition(flat, flat.size - count)[flat.size - count])


def inpaint(array: Floats, valid: Bools, count: int) -> Floats:
    """The array with values that are sparse in wavelets at its invalid voxels."""
    index = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    array = array[tuple(index)]
    return _inpainted(array, valid, _all_wavelets(array.shape), count)


def extended_coefficients(array: Floats, valid: Bools, bases: Bases, count: int) -> Floats:
    """Coefficients of the array with values that are sparse in these bases at its invalid voxels."""
    return analyse(_inpainted(array, valid, bases, count), bases)


def _inpainted(array: Floats, valid: Bools, bases: Bases, count: int) -> Floats:
    """In turn the small coefficients are dropped and the valid voxels restored.

    Guleryuz, IEEE Trans. Image Process. 15(3), 2006.
    """
    spanned, everywhere = layers(functions_of(bases, array.shape)), [slice(None)] * array.ndim
    for step in range(_INPAINTING_STEPS):
        coefficients = analyse(array, bases)
        share = (step + 1) / _INPAINTING_STEPS
        threshold = magnitude_exceeded(np.abs(coefficients), max(1, int(count * share)))
        sparse = np.where(np.abs(coefficients) > threshold, coefficients, np.float32(0))
        array = np.where(valid, array, synthesise(layer_parts(sparse, spanned), everywhere))
    return array
