"""Some values of a variable, read from places spread over it, and what they look like."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from moec_zarr.arrays import Array, Doubles
from moec_zarr.chunk_grid import ChunkGrid

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["describe_identifiers", "describe_values", "is_integral", "sample"]

_PLACES, _VOXELS = 16, 2**14  # places that are looked at, and the voxels of each
_FEW = 64  # different values that a mask or a variable of classes has at most
_UNLIKE = 0.05  # rank correlation of neighbours below which they do not resemble one another
_LEAST = 256  # pairs that say something about a correlation
_PIECEWISE = 0.7  # share of equal neighbours above which values are constant in pieces


def sample(var: xr.Variable) -> Iterator[Array]:
    """Read blocks of at most 16,384 voxels at up to 16 places, spread evenly from first voxel to last."""
    for region in _regions(var.shape):
        part = var[region]
        # Not on a cluster: the sample is small, and decided on here.
        yield np.asarray((part if var.chunks is None else part.compute(scheduler="synchronous")).values)


def _regions(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    sides = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        sides[axis] = min(shape[axis], max(1, _VOXELS // math.prod(sides)))
    grid = ChunkGrid(shape, tuple(sides))
    yield from map(grid.region, grid.spread(_PLACES))


def is_integral(blocks: Iterable[Array]) -> bool:
    """Say whether all finite values are whole numbers."""
    return all(bool((np.trunc(values) == values).all()) for values in map(_finite, blocks))


def describe_values(blocks: Iterable[Array]) -> str:
    """List the different values, in words; empty if they are more than a mask or classes have."""
    found: Array = np.zeros(0)
    for values in blocks:
        found = np.union1d(found, _finite(values))
        if found.size > _FEW:
            return ""
    if found.size <= 4:
        return f"few values: {', '.join(f'{value:g}' for value in found)}" if found.size else "no values"
    return f"few values: {found.size} from {found[0]:g} to {found[-1]:g}"


def describe_identifiers(blocks: Iterable[Array]) -> str:
    """Say why whole numbers seem to be names of things rather than amounts; empty if they do not.

    Neighbours in a field resemble one another. Names are unlike their neighbours, run on along one axis as
    an index does, or are constant in pieces that differ by any amount, as the labels of a segmentation are.
    A field is known by its first block, so that little is read.
    """
    left = {"each greater than the one before", "unlike their neighbours", "constant in pieces"}
    seen = 0
    for block in blocks:
        values = block.squeeze()
        if values.ndim != 1 or not _runs_on(values):
            left.discard("each greater than the one before")
        for axis, n in enumerate(values.shape):
            a, b = values.take(range(n - 1), axis).ravel(), values.take(range(1, n), axis).ravel()
            if a.size < _LEAST:
                continue
            seen += 1
            if _rank_correlation(a, b) >= _UNLIKE:
                left.discard("unlike their neighbours")
            if not _is_piecewise(a, b):
                left.discard("constant in pieces")
        if not left:
            break
    return f"identifiers: {min(left)}" if left and seen else ""


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]


def _runs_on(values: Array) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _rank_correlation(a: Array, b: Array) -> float:
    """Compute Spearman's correlation; 1 where one side is constant."""
    finite = np.isfinite(a) & np.isfinite(b)
    x, y = (_ranks(values[finite]) for values in (a, b))
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else 1.0


def _ranks(values: Array) -> Doubles:
    """Return ranks less their mean; equal values have one."""
    order = np.unique(values, return_inverse=True)[1].ravel()
    ranks = np.cumsum(np.bincount(order))[order].astype(np.float64)
    return ranks - ranks.mean() if ranks.size else ranks


def _is_piecewise(a: Array, b: Array) -> bool:
    """Say whether neighbours are equal or far from each other, wherever both are not the background."""
    values, counts = np.unique(np.append(a, b), return_counts=True)
    background = values[counts.argmax()]
    objects = (a != background) & (b != background)
    a, b = (side[objects].astype(np.float64) for side in (a, b))
    if a.size < _LEAST:
        return False
    steps = np.abs(b - a)
    steps = steps[steps != 0]
    return steps.size < (1 - _PIECEWISE) * a.size and bool(not steps.size or np.median(steps) > 1)
