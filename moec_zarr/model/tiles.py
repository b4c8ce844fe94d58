"""Voxels wanted, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moec_zarr.arrays import Integers

__all__ = ["as_arrays", "tiled"]


def tiled(
    indices: Sequence[range | Integers], *, pointwise: bool, voxels: int
) -> Iterator[tuple[tuple[slice, ...], list[Integers]]]:
    """Iterate over tiles of at most `voxels` of the voxels wanted, each with its own indices."""
    sizes = [len(index) for index in indices]
    for tile in _tiles(sizes[:1] if pointwise else sizes, voxels):
        rows = tile * len(sizes) if pointwise else tile
        yield tile, [_as_array(index[s]) for index, s in zip(indices, rows, strict=True)]


def as_arrays(indices: Sequence[range | Integers | slice], shape: Sequence[int]) -> list[Integers]:
    """Return indices along each axis as arrays."""
    return [
        np.arange(n)[index] if isinstance(index, slice) else _as_array(index)
        for index, n in zip(indices, shape, strict=True)
    ]


def _as_array(index: range | Integers) -> Integers:
    return np.arange(index.start, index.stop, index.step) if isinstance(index, range) else index


def _tiles(lengths: Sequence[int], voxels: int) -> Iterator[tuple[slice, ...]]:
    """Boxes of at most `voxels` that cover a grid, whole along its last axes."""
    room, edges = voxels, []
    for length in reversed(lengths):
        edge = max(1, min(length, room))
        edges.append(edge)
        room //= edge
    counts = [-(-length // edge) for length, edge in zip(lengths, reversed(edges), strict=True)]
    for corner in np.ndindex(*counts):
        yield tuple(
            slice(i * edge, min((i + 1) * edge, length))
            for i, edge, length in zip(corner, reversed(edges), lengths, strict=True)
        )
