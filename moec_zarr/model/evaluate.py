"""A chunk's transform and network, evaluated together at the voxels wanted, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moec_zarr.arrays import Array, Integers
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.features import SampledField, features_at, sampled_around
from moec_zarr.model.network import Network, evaluate_tile, tables
from moec_zarr.model.residual import Residual

__all__ = ["evaluate", "tiled"]

_TRANSFORM_TILE = 1 << 18  # voxels that a transform without a network is evaluated at together
_SLAB = 1 << 21  # the same, where a network reads it around each of them


def evaluate(
    network: Network | None,
    field: CoefficientField | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    *,
    residual: Residual | None = None,
    pointwise: bool = False,
    tile: int | None = None,
) -> Iterator[tuple[tuple[slice, ...], Array]]:
    """The sum of what there is of network, transform and residual.

    Parameters
    ----------
    network : Network or None
    field : CoefficientField or None
        The transform.
    lengths : sequence of int
        Voxels along each axis of the chunk; all longer than one.
    indices : sequence of range or int64 array
        The voxels wanted along each axis; if `pointwise`, the coordinates of each point.
    residual : Residual, optional
        Corrections.
    pointwise : bool
        Whether the indices are of single points rather than of the axes of a grid.
    tile : int, optional
        Voxels that a network is evaluated at together, or a transform alone.

    Yields
    ------
    tile : tuple of slice
        Where the values belong in the grid, or among the points.
    values : float array
        Of the tile's shape, in units of the chunk's normalisation.
    """
    parts: Iterator[tuple[tuple[slice, ...], list[Integers], Array]]
    if network is not None:
        parts = _with_network(network, field, lengths, indices, pointwise, tile)
    else:
        parts = (
            (where, rows, np.zeros(_sides(where)) if field is None else field.values(rows, pointwise))
            for where, rows in tiled(indices, pointwise=pointwise, voxels=tile or _TRANSFORM_TILE)
        )
    for where, rows, values in parts:
        yield where, values if residual is None else residual.added_to(values, rows, pointwise)


def _with_network(
    network: Network,
    field: CoefficientField | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    pointwise: bool,
    tile: int | None,
) -> Iterator[tuple[tuple[slice, ...], list[Integers], Array]]:
    """Tiles of the network's values and the transform's, with their indices."""
    architecture, weights = network.architecture, network.weights()
    for slab, near_rows in tiled(indices, pointwise=pointwise, voxels=_SLAB):
        near: CoefficientField | SampledField | None = field
        if field is not None and not pointwise:
            near = sampled_around(field, network.stencils, near_rows)
        for inner, rows in tiled(near_rows, pointwise=pointwise, voxels=tile or architecture.tile):
            base, features = None, None
            if near is not None:
                base = near.values(rows, pointwise)
                features = features_at(near, network.stencils, rows, base, pointwise)
            grid = tables(weights, lengths, rows, pointwise)
            values = evaluate_tile(architecture, weights, grid, features).reshape(_sides(inner))
            yield _within(slab, inner), rows, values if base is None else values + base


def _sides(tile: Sequence[slice]) -> list[int]:
    return [each.stop - each.start for each in tile]


def _within(outer: tuple[slice, ...], inner: tuple[slice, ...]) -> tuple[slice, ...]:
    """A tile of a tile, in the grid that the outer one is cut from."""
    return tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))


def tiled(
    indices: Sequence[range | Integers], *, pointwise: bool, voxels: int
) -> Iterator[tuple[tuple[slice, ...], list[Integers]]]:
    """Tiles of at most `voxels` of the voxels wanted, each with its own indices."""
    sizes = [len(index) for index in indices]
    for tile in _tiles(sizes[:1] if pointwise else sizes, voxels):
        rows = tile * len(sizes) if pointwise else tile
        yield tile, [_as_array(index[s]) for index, s in zip(indices, rows, strict=True)]


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
