"""Orthonormal bases of one axis, as matrices: cosines, graph Fourier modes or wavelets.

Smooth or periodic axes are sparse in cosines (Ahmed, Natarajan and Rao, IEEE Trans. Comput. C-23,
1974), axes with edges in the CDF 9/7 wavelets of JPEG 2000 (ISO/IEC 15444-1, annex F; lifting steps:
Daubechies and Sweldens, J. Fourier Anal. Appl. 4, 1998), which are nearly orthogonal. On a short axis
whose neighbours are not all alike, such as levels of an atmosphere or members of an ensemble, the
cosines give way to a graph Fourier basis: the eigenvectors of the Laplacian of a path graph with
weighted edges (Shuman et al., IEEE Signal Process. Mag. 30(3), 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from moec_zarr.arrays import Array, Doubles, Floats, Integers

__all__ = [
    "AXIS_NEIGHBOURS",
    "DOUBLE",
    "LARGEST_EDGE_WEIGHT",
    "LONGEST_AXIS",
    "LONGEST_GRAPH_AXIS",
    "SINGLE",
    "AxisBasis",
    "BasisFunctions",
    "analysis_matrix",
    "average_matrices",
    "basis_functions",
    "functions_of",
    "laplacian",
    "maximum_levels",
    "merge_matrices",
    "split_matrices",
    "synthesis_matrix",
    "voxel_functions",
]

LONGEST_AXIS = 2048  # voxels; the matrix of an axis has the square of its length
LONGEST_GRAPH_AXIS = 64  # voxels of an axis with a graph Fourier basis
LARGEST_EDGE_WEIGHT = 15
AXIS_NEIGHBOURS = 3  # context neighbours of a coefficient along each axis
_KEPT, _LONG_KEPT, _LONG = 64, 8, 384  # matrices kept of axes up to, and above, so many voxels
SINGLE: np.dtype[Any] = np.dtype(np.float32)
DOUBLE: np.dtype[Any] = np.dtype(np.float64)

_LIFTING = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)


@dataclass(frozen=True)
class AxisBasis:
    """Which functions an axis is expanded in.

    Attributes
    ----------
    levels : int
        Decomposition levels of the wavelets; 0 for cosines.
    joint : bool
        Whether the wavelets are decomposed together with those of the other joint axes: at each
        level the averages alone are split again, as for images (Mallat's decomposition). Axes that
        are not joint are decomposed one by one.
    edge_weights : tuple of int
        0..``LARGEST_EDGE_WEIGHT``, one for each edge between neighbours, in a graph Fourier basis;
        empty in all others.
    """

    levels: int = 0
    joint: bool = False
    edge_weights: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class BasisFunctions:
    """The order of the functions of one axis, from coarse to fine, and what lies near each.

    Their values take the square of the axis' length: :func:`synthesis_matrix` makes them when they are
    needed, long after a hostile stream has been refused.

    Attributes
    ----------
    basis : AxisBasis
        Which functions these are.
    bands : int64 array, shape (length,)
        Octave of each function; rises from 0 without gaps.
    neighbours : int64 array, shape (AXIS_NEIGHBOURS, length)
        Earlier functions whose coefficients are the context of this one's: the one and the two
        before it and, of a wavelet, its parent, half as fine at the same place; -1 where there is
        none.
    """

    basis: AxisBasis
    bands: Integers
    neighbours: Integers

    def prefix(self, band: int) -> int:
        """Return the number of functions in all bands up to and including `band`."""
        return int(np.searchsorted(self.bands, band, side="right"))


def maximum_levels(length: int) -> int:
    """Count the decomposition levels after which a single average is left."""
    return (length - 1).bit_length()


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _keep_results(
    function: Callable[Concatenate[AxisBasis, int, _P], _T],
) -> Callable[Concatenate[AxisBasis, int, _P], _T]:
    """Return a function whose last results are kept; fewer of long axes, where each takes up to 32 MiB."""
    of_short: Any = lru_cache(maxsize=_KEPT)(function)
    of_long: Any = lru_cache(maxsize=_LONG_KEPT)(function)

    @wraps(function)
    def cached(basis: AxisBasis, length: int, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        result: _T = (of_long if length > _LONG else of_short)(basis, length, *args, **kwargs)
        return result

    return cached


@_keep_results
def basis_functions(basis: AxisBasis, length: int) -> BasisFunctions:
    """Return the order of the functions of an axis of `length` voxels, at most ``LONGEST_AXIS``."""
    return _wavelet_order(basis, length) if basis.levels else _wave_order(basis, length)


def functions_of(bases: Iterable[AxisBasis], shape: tuple[int, ...]) -> list[BasisFunctions]:
    """Return the functions of each axis of a grid."""
    return [basis_functions(basis, n) for basis, n in zip(bases, shape, strict=True)]


@lru_cache(maxsize=64)
def voxel_functions(length: int) -> BasisFunctions:
    """Return the voxels of an axis themselves, in one band: the order of what has no other basis."""
    return BasisFunctions(AxisBasis(), np.zeros(length, np.int64), _functions_before(length))


@_keep_results
def synthesis_matrix(basis: AxisBasis, length: int, precision: np.dtype[Any] = SINGLE) -> Array:
    """Tabulate function ``i`` at voxel ``x`` in ``[x, i]``, of unit norm, shape (voxels, functions)."""
    if basis.levels:
        return _unit_norm(_unscale(_band_sizes(basis.levels, length))).astype(precision)
    return _waves(basis, length).astype(precision)


@_keep_results
def average_matrices(basis: AxisBasis, length: int, precision: np.dtype[Any] = SINGLE) -> tuple[Array, ...]:
    """Compute, of each band of wavelets but the last, averages that span all functions up to it.

    They are of unit norm, shape (voxels, functions up to the band).
    """
    matrices = []
    for levels in range(basis.levels, 0, -1):
        sizes = _band_sizes(levels, length)
        matrices.append(_unit_norm(_unscale(sizes)[:, : sizes[0]]).astype(precision))
    return tuple(matrices)


@_keep_results
def analysis_matrix(basis: AxisBasis, length: int) -> Floats:
    """Invert the synthesis matrix, shape (functions, voxels): coefficients from voxels."""
    if not basis.levels:
        return np.asarray(synthesis_matrix(basis, length).T)
    rows, details = np.eye(length), []
    for _ in range(basis.levels):
        rows, detail = _split(rows)
        details.append(detail)
    norm = np.linalg.norm(_unscale(_band_sizes(basis.levels, length)), axis=0)
    inverse = np.concatenate([rows, *reversed(details)]) * norm[:, None]
    return np.asarray(inverse, np.float32)


@_keep_results
def split_matrices(basis: AxisBasis, length: int) -> tuple[Floats, ...]:
    """Compute a matrix for each decomposition level, the finest first.

    Each takes the coefficients of averages to those of half as many averages and of details; all
    functions are of unit norm.
    """
    matrices, fine = [], np.ones(length)
    for level in range(basis.levels):
        norm = np.linalg.norm(_unscale(_band_sizes(level + 1, length))[:, : len(fine)], axis=0)
        inverse = np.concatenate(_split(np.eye(len(fine))))
        matrices.append(np.asarray(norm[:, None] * inverse / fine, np.float32))
        fine = norm[: -(-len(fine) // 2)]
    return tuple(matrices)


@_keep_results
def merge_matrices(basis: AxisBasis, length: int, precision: np.dtype[Any] = SINGLE) -> tuple[Array, ...]:
    """Return the inverses of :func:`split_matrices`."""
    matrices, fine = [], np.ones(length)
    for level in range(basis.levels):
        n = len(fine)
        norm = np.linalg.norm(_unscale(_band_sizes(level + 1, length))[:, :n], axis=0)
        unit = np.eye(n)
        merge = _merge(unit[: -(-n // 2)], unit[-(-n // 2) :])
        matrices.append(np.asarray(fine[:, None] * merge / norm, precision))
        fine = norm[: -(-n // 2)]
    return tuple(matrices)


# --------------------------------------------------------------- cosines and graph Fourier modes


def _waves(basis: AxisBasis, length: int) -> Doubles:
    """Compute function k: ``cos(pi k (x + 1/2) / length)``, or mode k of the graph."""
    if basis.edge_weights:
        return _graph_modes(basis.edge_weights)
    k = np.arange(length)
    waves: Doubles = np.asarray(np.pi / length * (k[:, None] + 0.5) * k, np.float64)
    np.cos(waves, out=waves)
    waves *= np.sqrt(2 / length)
    waves[:, 0] /= np.sqrt(2)
    return waves


def _wave_order(basis: AxisBasis, length: int) -> BasisFunctions:
    """Band b of cosines and modes starts at function 2**b - 1."""
    k = np.arange(length)
    bands = np.frexp((k + 1).astype(np.float64))[1].astype(np.int64) - 1
    return BasisFunctions(basis, bands, _functions_before(length))


def _functions_before(length: int) -> Integers:
    """Return the three functions before each, as its neighbours."""
    k = np.arange(length)
    return np.stack([np.maximum(k - back, -1) for back in range(1, AXIS_NEIGHBOURS + 1)])


def laplacian(edge_weights: tuple[int, ...]) -> Doubles:
    """Compute the Laplacian of a path graph; an edge of weight w counts ``2**(w / 2)``."""
    edges = 2.0 ** (np.array(edge_weights) / 2)
    ends = np.diff(np.eye(len(edge_weights) + 1), axis=0)
    return np.asarray(ends.T * edges @ ends)


def _graph_modes(edge_weights: tuple[int, ...]) -> Doubles:
    modes = np.linalg.eigh(laplacian(edge_weights))[1]
    # The first value that reaches half the largest magnitude is positive.
    first = (np.abs(modes) >= 0.5 * np.abs(modes).max(axis=0)).argmax(axis=0)
    return np.asarray(modes * np.sign(modes[first, np.arange(len(modes))]))


# -------------------------------------------------------------------------------- wavelets


def _band_sizes(levels: int, length: int) -> list[int]:
    """Return the number of functions in each band, the coarsest first."""
    sizes = [length]
    for _ in range(levels):
        sizes[:1] = [-(-sizes[0] // 2), sizes[0] // 2]
    return sizes


def _wavelet_order(basis: AxisBasis, length: int) -> BasisFunctions:
    sizes = _band_sizes(basis.levels, length)
    start = np.cumsum([0, *sizes])
    bands = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(length) - start[bands]
    parents = np.full(length, -1)
    for band in range(1, len(sizes)):
        own = bands == band
        # The coarsest details are as many as the averages; all finer ones have parents half as dense.
        parent = place[own] if band == 1 else place[own] // 2
        parents[own] = start[band - 1] + np.minimum(parent, sizes[band - 1] - 1)
    before = [np.where(place >= back, np.arange(length) - back, -1) for back in (1, 2)]
    return BasisFunctions(basis, bands, np.stack([*before, parents]))


def _unit_norm(functions: Doubles) -> Doubles:
    return np.asarray(functions / np.linalg.norm(functions, axis=0))


def _unscale(sizes: list[int]) -> Doubles:
    """Return the wavelets at the voxels, shape (voxels, functions), of any norm."""
    rows: Doubles = np.eye(sizes[0], sum(sizes))
    for band in range(1, len(sizes)):
        rows = _merge(rows, np.eye(sizes[band], sum(sizes), k=sum(sizes[:band])))
    return rows


def _split(x: Doubles) -> tuple[Doubles, Doubles]:
    """Averages and details along the first axis: four lifting steps, mirrored at the ends."""
    even, odd = x[0::2].copy(), x[1::2].copy()
    for step, factor in enumerate(_LIFTING):
        _lift(even, odd, step, factor)
    return even, odd


def _merge(even: Doubles, odd: Doubles) -> Doubles:
    """Return the inverse of :func:`_split`."""
    even, odd = even.copy(), odd.copy()
    for step, factor in reversed(list(enumerate(_LIFTING))):
        _lift(even, odd, step, -factor)
    x = np.empty((len(even) + len(odd), *even.shape[1:]))
    x[0::2], x[1::2] = even, odd
    return x


def _lift(even: Doubles, odd: Doubles, step: int, factor: float) -> None:
    if step % 2 == 0:
        after = np.concatenate([even[1:], even[-1:]])[: len(odd)]
        odd += factor * (even[: len(odd)] + after)
    else:
        before = np.concatenate([odd[:1], odd])[: len(even)]
        behind = odd if len(odd) == len(even) else np.concatenate([odd, odd[-1:]])
        even += factor * (before + behind)
