"""In which bases an array is sparse, judged by the error that its largest coefficients leave."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from moec_zarr.model.basis import LONGEST_BENT, Kind, analysis, bases_of, edge_weights, most_halvings
from moec_zarr.model.transform import along, coefficients, layers, nested_axes, shares, synthesis

__all__ = ["extended", "filled", "largest", "near", "options", "promising"]

_COARSEST = (4, 16, 32, 8)  # positions on an axis at which wavelets may end; the search begins with the last
_FILLS = 12  # iterations that extend the valid voxels to the others

_Floats = NDArray[np.float32]
_Kinds = tuple[Kind, ...]
_Options = list[list[Kind]]


def promising(array: _Floats, count: int, options: _Options) -> list[_Kinds]:
    """Bases of the axes in which `count` coefficients leave little, the best first.

    One with no axes nested, one with some nested where that may be better; cosines alone and
    wavelets alone, which may take fewer bits a coefficient.
    """
    alone = _each_axis(array, count, options)
    found = [alone]
    if groups := _groups(array.shape):
        nested = [_nested(array, count, alone[1], axes) for axes in groups]
        found.append(min(nested, key=lambda each: each[0]))
    found.sort(key=lambda each: each[0])
    cosines = [[kind for kind in kinds if not kind.halvings] for kinds in options]
    alike = _each_axis(array, count, cosines)[1], _all_wavelets(array.shape)
    return list(dict.fromkeys([*(kinds for _, kinds in found), *alike]))


def near(kinds: _Kinds, shape: tuple[int, ...], options: _Options) -> list[_Kinds]:
    """Bases that differ on one axis, or by one halving on all axes that are halved together."""
    found = [
        tuple(_deeper(kind, n, more) if kind.nested else kind for kind, n in zip(kinds, shape, strict=True))
        for more in (1, -1)
    ]
    others = [
        [*options[axis], _deeper(kind, n, 1), _deeper(kind, n, -1)]
        for axis, (kind, n) in enumerate(zip(kinds, shape, strict=True))
    ]
    for choice in zip_longest(*others):  # what comes first on each axis, then what comes next
        for axis, kind in enumerate(choice):
            if kind is not None:
                found.append((*kinds[:axis], kind, *kinds[axis + 1 :]))
    return [each for each in dict.fromkeys(found) if each != kinds and len(nested_axes(each)) != 1]


def _deeper(kind: Kind, length: int, more: int) -> Kind:
    """Wavelets that halve an axis more often; the same where that cannot be."""
    fits = kind.halvings and 1 <= kind.halvings + more <= most_halvings(length)
    return replace(kind, halvings=kind.halvings + more) if fits else kind


def options(array: _Floats) -> _Options:
    """The kinds that each axis may have, cosines first."""
    return [_options(array, axis) for axis in range(array.ndim)]


def _wavelets(length: int, coarsest: int) -> Kind:
    """Wavelets that halve an axis until no more than so many positions are left."""
    return Kind(max(0, (-(-length // coarsest) - 1).bit_length()))


def _all_wavelets(shape: tuple[int, ...]) -> _Kinds:
    return tuple(_wavelets(n, 8) for n in shape)


def _options(array: _Floats, axis: int) -> list[Kind]:
    """The kinds that an axis may have, cosines first."""
    length = array.shape[axis]
    found = [Kind()]
    if 2 < length <= LONGEST_BENT:
        moved = np.moveaxis(array, axis, 0)
        differences = [np.square(b - a).mean(dtype=np.float64) for a, b in pairwise(moved)]
        if weights := edge_weights(np.array(differences)):
            found.append(Kind(weights=weights))
    return list(dict.fromkeys([*found, *(_wavelets(length, coarsest) for coarsest in _COARSEST)]))


def _each_axis(array: _Floats, count: int, options: _Options) -> tuple[float, _Kinds]:
    """The best kind of each axis, one after the other: what is left, and the kinds."""
    kinds = [each[-1] for each in options]
    least = np.inf
    for axis, each in enumerate(options):
        rest = array
        for other, kind in enumerate(kinds):
            if other != axis:
                rest = along(rest, analysis(kind, array.shape[other]), other)
        tried = [
            (_left(along(rest, analysis(kind, array.shape[axis]), axis), count), place)
            for place, kind in enumerate(each)
        ]
        least, best = min(tried)
        kinds[axis] = each[best]
    return float(least), tuple(kinds)


def _groups(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Axes that may be halved together: of the three longest, those of more than 16 voxels."""
    longest = sorted(range(len(shape)), key=lambda axis: -shape[axis])[:3]
    long = sorted(axis for axis in longest if shape[axis] > 16)
    return [group for size in range(2, len(long) + 1) for group in combinations(long, size)]


def _nested(array: _Floats, count: int, alone: _Kinds, axes: tuple[int, ...]) -> tuple[float, _Kinds]:
    """Of some axes halved together, the others as they are best alone: what is left, and the kinds."""
    tried: list[tuple[float, int, _Kinds]] = []
    for coarsest in (8, 4, 16):
        kinds = tuple(
            replace(_wavelets(n, coarsest), nested=True) if axis in axes else kind
            for axis, (n, kind) in enumerate(zip(array.shape, alone, strict=True))
        )
        if all(kinds[axis].halvings for axis in axes):
            tried.append((_left(coefficients(array, kinds), count), len(tried), kinds))
    least, _, kinds = min(tried)
    return least, kinds


def _left(found: _Floats, count: int) -> float:
    """The squared error that `count` coefficients leave."""
    squares = np.square(found).ravel()
    kept = squares.size - count
    return float(np.partition(squares, kept)[:kept].sum(dtype=np.float64))


def largest(magnitudes: _Floats, count: int) -> float:
    """The magnitude that `count` coefficients exceed."""
    flat = magnitudes.ravel()
    return float(np.partition(flat, flat.size - count)[flat.size - count])


def filled(array: _Floats, valid: NDArray[np.bool_], count: int) -> _Floats:
    """The array with something sparse in wavelets at its invalid voxels."""
    index = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    array = array[tuple(index)]
    return _restored(array, valid, _all_wavelets(array.shape), count)


def extended(array: _Floats, valid: NDArray[np.bool_], kinds: _Kinds, count: int) -> _Floats:
    """Coefficients of the array that is sparsest where its voxels do not count."""
    return coefficients(_restored(array, valid, kinds, count), kinds)


def _restored(array: _Floats, valid: NDArray[np.bool_], kinds: _Kinds, count: int) -> _Floats:
    """The array that is sparsest where its voxels do not count.

    In turn the small coefficients are dropped and the valid voxels restored, as in Guleryuz, IEEE
    Trans. Image Process. 15(3), 2006.
    """
    spanned, everywhere = layers(bases_of(kinds, array.shape), kinds), [slice(None)] * array.ndim
    for turn in range(_FILLS):
        found = coefficients(array, kinds)
        share = (turn + 1) / _FILLS
        threshold = largest(np.abs(found), max(1, int(count * share)))
        sparse = np.where(np.abs(found) > threshold, found, np.float32(0))
        array = np.where(valid, array, synthesis(shares(sparse, spanned), everywhere, False))
    return array
