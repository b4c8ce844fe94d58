"""Orthonormal bases of an axis, as matrices: waves that span it, or wavelets that stand along it.

The latents of a chunk are its coefficients in the tensor product of one such basis an axis. Smooth
or periodic axes are sparse in cosines (Ahmed, Natarajan and Rao, IEEE Trans. Comput. C-23, 1974),
axes with edges in the CDF 9/7 wavelets of JPEG 2000 (ISO/IEC 15444-1, annex F; lifting steps:
Daubechies and Sweldens, J. Fourier Anal. Appl. 4, 1998), which are nearly orthogonal.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONGEST", "TAPS", "Basis", "Kind", "analysis", "basis"]

LONGEST = 2048  # axis that has a basis: its matrix has the square of its length
TAPS = 3  # earlier functions on the axis that tell how large a coefficient is
_COARSEST = 8  # wavelets halve an axis until so many positions are left
_LIFTING = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)

_Ints = NDArray[np.int64]
_Doubles = NDArray[np.float64]


class Kind(enum.IntEnum):
    """Which functions an axis is expanded in."""

    COSINES = 0
    WAVELETS = 1


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
    """

    synthesis: NDArray[np.float32]
    bands: _Ints
    taps: _Ints

    def prefix(self, band: int) -> int:
        """Number of functions up to and with `band`."""
        return int(np.searchsorted(self.bands, band, side="right"))


@lru_cache(maxsize=32)
def basis(kind: Kind, length: int) -> Basis:
    """The basis of an axis of `length` voxels, at most ``LONGEST``."""
    return _cosines(length) if kind == Kind.COSINES else _wavelets(length)


def _cosines(length: int) -> Basis:
    """Function k: ``cos(pi k (x + 1/2) / length)``; band b holds the k from 2**b - 1 on."""
    k = np.arange(length)
    waves = np.cos(np.pi / length * (k[:, None] + 0.5) * k) * np.sqrt(2 / length)
    waves[:, 0] /= np.sqrt(2)
    bands = np.frexp((k + 1).astype(np.float64))[1].astype(np.int64) - 1
    taps = np.stack([np.maximum(k - back, -1) for back in range(1, TAPS + 1)])
    return Basis(waves.astype(np.float32), bands, taps)


def _wavelets(length: int) -> Basis:
    synthesis, parts = _wavelet_functions(length)
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
    synthesis /= np.linalg.norm(synthesis, axis=0)
    return Basis(synthesis.astype(np.float32), bands, np.stack([*before, above]))


def _wavelet_functions(length: int) -> tuple[_Doubles, list[int]]:
    """The wavelets at the voxels, shape (voxels, functions), of any norm; and how many each band has."""
    parts = [length]
    while parts[0] > _COARSEST:
        parts[:1] = [-(-parts[0] // 2), parts[0] // 2]
    rows: _Doubles = np.eye(parts[0], length)
    for band in range(1, len(parts)):
        rows = _merge(rows, np.eye(parts[band], length, k=sum(parts[:band])))
    return rows, parts


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


@lru_cache(maxsize=32)
def analysis(kind: Kind, length: int) -> NDArray[np.float32]:
    """The inverse of a basis' synthesis, shape (functions, voxels): coefficients from voxels."""
    if kind == Kind.COSINES:
        return basis(kind, length).synthesis.T
    rows, details = np.eye(length), []
    while len(rows) > _COARSEST:
        rows, detail = _split(rows)
        details.append(detail)
    norm = np.linalg.norm(_wavelet_functions(length)[0], axis=0)
    inverse = np.concatenate([rows, *reversed(details)]) * norm[:, None]
    return np.asarray(inverse, np.float32)
