"""Orthonormal bases of an axis, as matrices: waves that span it, or wavelets that stand along it.

Smooth or periodic axes are sparse in cosines (Ahmed, Natarajan and Rao, IEEE Trans. Comput. C-23,
1974), axes with edges in the CDF 9/7 wavelets of JPEG 2000 (ISO/IEC 15444-1, annex F; lifting steps:
Daubechies and Sweldens, J. Fourier Anal. Appl. 4, 1998), which are nearly orthogonal. Where
neighbours on a short axis are not all alike, levels of an atmosphere or members of an ensemble, the
cosines bend: they are the eigenvectors of a path graph's Laplacian, whose edges then have weights
(Shuman et al., IEEE Signal Process. Mag. 30(3), 2013).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LARGEST_WEIGHT",
    "LONGEST",
    "LONGEST_BENT",
    "TAPS",
    "Basis",
    "Kind",
    "analysis",
    "bases_of",
    "basis",
    "edge_weights",
    "most_halvings",
    "splits",
]

LONGEST = 2048  # axis that has a basis: its matrix has the square of its length
LONGEST_BENT = 64  # axis whose cosines bend
LARGEST_WEIGHT = 15
TAPS = 3  # earlier functions on the axis that tell how large a coefficient is
_LIFTING = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)

_Ints = NDArray[np.int64]
_Doubles = NDArray[np.float64]
_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Kind:
    """Which functions an axis is expanded in.

    Attributes
    ----------
    halvings : int
        How often wavelets halve the axis; 0 for cosines.
    nested : bool
        Whether wavelets halve the axis together with the other nested ones, the averages alone
        again: the wavelets of images, where those of an axis on its own give boxes of all shapes.
    weights : tuple of int
        0..``LARGEST_WEIGHT``, of the edges between neighbours, where cosines bend.
    """

    halvings: int = 0
    nested: bool = False
    weights: tuple[int, ...] = ()


@dataclass(frozen=True)
class Basis:
    """The functions of an axis, from coarse to fine.

    Attributes
    ----------
    synthesis : float32 array, shape (length, length)
        Function ``i`` at voxel ``x`` in ``[x, i]``; of unit norm.
    bands : int64 array, shape (length,)
        Octave of each function, without gaps, rising.
    taps : int64 array, shape (TAPS, length)
        Earlier functions: the one and the two before and, of a wavelet, the one above it, half as
        fine, at the same place; -1 where there is none.
    averages : tuple of float32 arrays
        Of a nested axis: for each band but the last the functions, of unit norm, that span all up
        to this band, shape (length, ``prefix(band)``).
    """

    synthesis: _Floats
    bands: _Ints
    taps: _Ints
    averages: tuple[_Floats, ...] = ()

    def prefix(self, band: int) -> int:
        """Number of functions up to and with `band`."""
        return int(np.searchsorted(self.bands, band, side="right"))


def most_halvings(length: int) -> int:
    """Until one average is left."""
    return (length - 1).bit_length()


@lru_cache(maxsize=16)
def basis(kind: Kind, length: int) -> Basis:
    """The basis of an axis of `length` voxels, at most ``LONGEST``."""
    return _wavelets(kind, length) if kind.halvings else _cosines(kind, length)


def bases_of(kinds: Iterable[Kind], shape: tuple[int, ...]) -> list[Basis]:
    """The basis of each axis of a grid."""
    return [basis(kind, n) for kind, n in zip(kinds, shape, strict=True)]


@lru_cache(maxsize=16)
def analysis(kind: Kind, length: int) -> _Floats:
    """The inverse of a basis' synthesis, shape (functions, voxels): coefficients from voxels."""
    if not kind.halvings:
        return basis(kind, length).synthesis.T
    rows, details = np.eye(length), []
    for _ in range(kind.halvings):
        rows, detail = _split(rows)
        details.append(detail)
    norm = np.linalg.norm(_functions(_parts(kind.halvings, length)), axis=0)
    inverse = np.concatenate([rows, *reversed(details)]) * norm[:, None]
    return np.asarray(inverse, np.float32)


@lru_cache(maxsize=16)
def splits(kind: Kind, length: int) -> tuple[_Floats, ...]:
    """One halving after the other, from the voxels on.

    Each from the coefficients of averages to those of half as many and of details; all functions of
    unit norm.
    """
    found, fine = [], np.ones(length)
    for halving in range(kind.halvings):
        norm = np.linalg.norm(_functions(_parts(halving + 1, length))[:, : len(fine)], axis=0)
        inverse = np.concatenate(_split(np.eye(len(fine))))
        found.append(np.asarray(norm[:, None] * inverse / fine, np.float32))
        fine = norm[: -(-len(fine) // 2)]
    return tuple(found)


# --------------------------------------------------------------------------------- cosines


def _cosines(kind: Kind, length: int) -> Basis:
    """Function k: ``cos(pi k (x + 1/2) / length)``; band b holds the k from 2**b - 1 on."""
    k = np.arange(length)
    if kind.weights:
        waves = _bent(kind.weights)
    else:
        waves = np.cos(np.pi / length * (k[:, None] + 0.5) * k) * np.sqrt(2 / length)
        waves[:, 0] /= np.sqrt(2)
    bands = np.frexp((k + 1).astype(np.float64))[1].astype(np.int64) - 1
    taps = np.stack([np.maximum(k - back, -1) for back in range(1, TAPS + 1)])
    return Basis(waves.astype(np.float32), bands, taps)


def _laplacian(weights: tuple[int, ...]) -> _Doubles:
    """Of a path whose edge weights are half octaves apart."""
    edges = 2.0 ** (np.array(weights) / 2)
    ends = np.diff(np.eye(len(weights) + 1), axis=0)
    return np.asarray(ends.T * edges @ ends)


def _bent(weights: tuple[int, ...]) -> _Doubles:
    waves = np.linalg.eigh(_laplacian(weights))[1]
    # The first value that reaches half the largest magnitude is positive.
    first = (np.abs(waves) >= 0.5 * np.abs(waves).max(axis=0)).argmax(axis=0)
    return np.asarray(waves * np.sign(waves[first, np.arange(len(waves))]))


def edge_weights(differences: _Doubles) -> tuple[int, ...]:
    """Weights of edges with these mean square differences; none where no two machines need agree.

    The inverse of the differences, as of a Gauss-Markov process. Where eigenvalues nearly meet, or
    a wave has no clear sign, the eigenvectors hang on rounding.
    """
    octaves = -np.log2(np.maximum(differences, np.finfo(np.float64).tiny))
    halves = np.rint(2 * (octaves - np.median(octaves))) + (LARGEST_WEIGHT + 1) // 2
    weights = tuple(np.clip(halves, 0, LARGEST_WEIGHT).astype(int).tolist())
    values, waves = np.linalg.eigh(_laplacian(weights))
    magnitudes = np.abs(waves) / np.abs(waves).max(axis=0)
    clear = np.diff(values).min() > 1e-6 * values[-1] and np.abs(magnitudes - 0.5).min() > 1e-6
    return weights if clear and len(set(weights)) > 1 else ()


# -------------------------------------------------------------------------------- wavelets


def _parts(halvings: int, length: int) -> list[int]:
    """Functions of each band."""
    parts = [length]
    for _ in range(halvings):
        parts[:1] = [-(-parts[0] // 2), parts[0] // 2]
    return parts


def _wavelets(kind: Kind, length: int) -> Basis:
    parts = _parts(kind.halvings, length)
    start = np.cumsum([0, *parts])
    bands = np.repeat(np.arange(len(parts)), parts)
    place = np.arange(length) - start[bands]
    above = np.full(length, -1)
    for band in range(1, len(parts)):
        own = bands == band
        # The first details are as many as the coarsest averages, all others have half their places.
        parent = place[own] if band == 1 else place[own] // 2
        above[own] = start[band - 1] + np.minimum(parent, parts[band - 1] - 1)
    before = [np.where(place >= back, np.arange(length) - back, -1) for back in (1, 2)]
    averages = []
    for band in range(kind.halvings if kind.nested else 0):
        functions = _functions(_parts(kind.halvings - band, length))[:, : start[band + 1]]
        averages.append(_unit(functions))
    return Basis(_unit(_functions(parts)), bands, np.stack([*before, above]), tuple(averages))


def _unit(functions: _Doubles) -> _Floats:
    return np.asarray(functions / np.linalg.norm(functions, axis=0), np.float32)


def _functions(parts: list[int]) -> _Doubles:
    """The wavelets at the voxels, shape (voxels, functions), of any norm."""
    rows: _Doubles = np.eye(parts[0], sum(parts))
    for band in range(1, len(parts)):
        rows = _merge(rows, np.eye(parts[band], sum(parts), k=sum(parts[:band])))
    return rows


def _split(x: _Doubles) -> tuple[_Doubles, _Doubles]:
    """Averages and details along the first axis: four lifting steps, mirrored at the ends."""
    even, odd = x[0::2].copy(), x[1::2].copy()
    for step, factor in enumerate(_LIFTING):
        _lift(even, odd, step, factor)
    return even, odd


def _merge(even: _Doubles, odd: _Doubles) -> _Doubles:
    """The inverse of :func:`_split`."""
    even, odd = even.copy(), odd.copy()
    for step, factor in reversed(list(enumerate(_LIFTING))):
        _lift(even, odd, step, -factor)
    x = np.empty((len(even) + len(odd), *even.shape[1:]))
    x[0::2], x[1::2] = even, odd
    return x


def _lift(even: _Doubles, odd: _Doubles, step: int, factor: float) -> None:
    if step % 2 == 0:
        after = np.concatenate([even[1:], even[-1:]])[: len(odd)]
        odd += factor * (even[: len(odd)] + after)
    else:
        before = np.concatenate([odd[:1], odd])[: len(even)]
        behind = odd if len(odd) == len(even) else np.concatenate([odd, odd[-1:]])
        even += factor * (before + behind)
