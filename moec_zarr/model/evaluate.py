"""A chunk's transform and network, evaluated together at the voxels wanted, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from moec_zarr.arrays import Array, Integers
from moec_zarr.model.backend import AnyArray
from moec_zarr.model.coefficients import TILE
from moec_zarr.model.features import offsets_of, values_and_features
from moec_zarr.model.linear_experts import AnyTransform, RestoredField
from moec_zarr.model.neighbourhood import AnyField, sample_around
from moec_zarr.model.network import Architecture, Network, evaluate_tile, tables
from moec_zarr.model.residual import Residual
from moec_zarr.model.tiles import tiled

if TYPE_CHECKING:
    from moec_zarr.model.device_torch import Device

__all__ = ["HOST", "Host", "evaluate"]

_ACTIVATIONS = 1 << 21  # of a layer


class Host:
    """Where NumPy evaluates; a :class:`moec_zarr.model.device_torch.Device` is where torch does."""

    transform_tile = TILE  # voxels, where there is no network
    slab = 1 << 21  # the same, where a network reads it around each of them
    restored_tile = 1 << 24  # the same, where experts do: what they read beyond a tile is evaluated twice

    def put(self, array: Array) -> Array:
        """Return an array as it is."""
        return array

    def tile(self, architecture: Architecture) -> int:
        """Return the number of voxels to evaluate at a time: some megabytes of activations."""
        return _ACTIVATIONS // max(64, architecture.encoder, architecture.experts, architecture.width)


HOST = Host()


def evaluate(
    network: Network | None,
    field: AnyTransform | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    *,
    residual: Residual | None = None,
    pointwise: bool = False,
    tile: int | None = None,
    device: Host | Device = HOST,
) -> Iterator[tuple[tuple[slice, ...], AnyArray]]:
    """Add up what there is of network, transform and residual.

    Parameters
    ----------
    network : Network or None
    field : CoefficientField, RestoredField or None
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
    device : Host or Device
        Where to evaluate. It holds the model with its corrections and what one tile takes.

    Yields
    ------
    tile : tuple of slice
        Where the values belong in the grid, or among the points. The tiles are in C order: none leaves a
        gap behind the one before.
    values : float array, or tensor on the device
        Of the tile's shape, in units of the chunk's normalisation.
    """
    sent = field.sent(device.put) if field is not None and not isinstance(device, Host) else field
    residual = None if residual is None else residual.sent(device.put)
    parts: Iterator[tuple[tuple[slice, ...], list[Integers], AnyArray]]
    if network is not None:
        parts = _with_network(network, sent, lengths, indices, pointwise, tile, device)
    else:
        voxels = device.restored_tile if isinstance(field, RestoredField) else device.transform_tile
        parts = (
            (
                where,
                rows,
                device.put(np.zeros(_sides(where))) if sent is None else sent.values(rows, pointwise),
            )
            for where, rows in tiled(indices, pointwise=pointwise, voxels=tile or voxels)
        )
    for where, rows, values in parts:
        yield where, values if residual is None else residual.added_to(values, rows, pointwise)


def _with_network(
    network: Network,
    field: AnyField | None,
    lengths: Sequence[int],
    indices: Sequence[range | Integers],
    pointwise: bool,
    tile: int | None,
    device: Host | Device,
) -> Iterator[tuple[tuple[slice, ...], list[Integers], AnyArray]]:
    """Iterate over tiles of the network's values and the transform's, with their indices."""
    architecture = network.architecture
    weights = {name: device.put(weight) for name, weight in network.weights().items()}
    for slab, near_rows in tiled(indices, pointwise=pointwise, voxels=device.slab):
        near = field
        if field is not None and not pointwise:
            near = sample_around(field, offsets_of(network.stencils), near_rows)
        voxels = tile or device.tile(architecture)
        for inner, rows in tiled(near_rows, pointwise=pointwise, voxels=voxels):
            base, features = None, None
            if near is not None:
                base, features = values_and_features(near, network.stencils, rows, pointwise)
            grid = tables(weights, lengths, rows, pointwise)
            values = evaluate_tile(architecture, weights, grid, features).reshape(_sides(inner))
            yield _within(slab, inner), rows, values if base is None else values + base


def _sides(tile: Sequence[slice]) -> list[int]:
    return [each.stop - each.start for each in tile]


def _within(outer: tuple[slice, ...], inner: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return a tile of a tile, in the grid that the outer one is cut from."""
    return tuple(slice(o.start + i.start, o.start + i.stop) for o, i in zip(outer, inner, strict=True))
