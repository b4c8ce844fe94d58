"""The mixture-of-experts network as pure functions of arrays, in NumPy.

A point with coordinates u in [-1, 1]^d goes through the shared encoder ``e = sin(W u + b)``, beside
which stand the channels that the chunk's latents, where it has any, yield at that point; one
expert of SIREN layers (Sitzmann et al., arXiv 2006.09661), chosen by the gate, and the shared
linear decoder: MoEC (arXiv 2312.01361), with a gate that is linear in the coordinates and decides
by its largest logit alone.

Along each axis of a grid the phases ``W u`` and the gate's logits are tables, and a grid's are
their sums. The gate's arithmetic is in integers that float32 holds exactly, hence every backend
gives a point to the same expert.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.model.features import Look, Synthesis

__all__ = [
    "Architecture",
    "Model",
    "Tables",
    "coordinates",
    "evaluate",
    "expert_load",
    "gate_coordinates",
    "step_size",
    "tables",
    "tiled",
    "tiles",
]

GATE_UNITS = 4096  # integer coordinates of the gate lie in [-4096, 4096]
GATE_LARGEST = 127  # of a gate weight
GATE_LARGEST_BIAS = 511  # in units of GATE_UNITS; 5 * 127 * 4096 + 511 * 4096 < 2**24
TILE = 1 << 21  # activations of a layer evaluated at a time: some megabytes

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Architecture:
    """Sizes of a network.

    Attributes
    ----------
    axes : int
        Coordinates of a point: the axes longer than one.
    encoder : int
        Width of the shared encoder.
    experts : int
        Number of experts; without a gate where there is one.
    width, layers : int
        Width and number of the sine layers of each expert.
    channels : int
        What the experts read of latents, beside the encoder.
    """

    axes: int
    encoder: int
    experts: int
    width: int
    layers: int
    channels: int = 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, in the order of the stream."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.experts > 1:
            shapes |= {"gate.weight": (self.axes, self.experts), "gate.bias": (self.experts,)}
        shapes |= {f"encoder.weight.{axis}": (self.encoder,) for axis in range(self.axes)}
        shapes["encoder.bias"] = (self.encoder,)
        inputs = self.encoder + self.channels
        for layer in range(self.layers):
            shapes[f"expert.weight.{layer}"] = (self.experts, self.width, inputs)
            shapes[f"expert.bias.{layer}"] = (self.experts, self.width)
            inputs = self.width
        return shapes | {"decoder.weight": (self.width,), "decoder.bias": (1,)}

    @property
    def weights(self) -> int:
        """Number of all weights."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def tile(self) -> int:
        """Number of voxels to evaluate at a time."""
        return TILE // max(64, self.encoder, self.experts, self.width)


def step_size(code: int) -> float:
    """Quantisation step of a step code in 0..255: eight to the octave, from 2**-24."""
    return math.ldexp(8 + code % 8, code // 8 - 27)


@dataclass(frozen=True)
class Model:
    """A quantised network.

    Attributes
    ----------
    architecture : Architecture
    integers : dict of int32 arrays
        Of each tensor.
    codes : dict of int
        Step code of each tensor but the gate's.
    looks : tuple of Look
        How it looks along each axis of the latents that it reads, where it does.
    """

    architecture: Architecture
    integers: dict[str, NDArray[np.int32]]
    codes: dict[str, int]
    looks: tuple[Look, ...] = ()

    def weights(self) -> dict[str, Floats]:
        """The weights in float32: each integer times its step, exact in float32."""
        return {
            name: values.astype(np.float32)
            * np.float32(step_size(self.codes[name]) if name in self.codes else 1)
            for name, values in self.integers.items()
        }


@dataclass(frozen=True)
class Tables:
    """Phases and logits along each axis, at the coordinates asked for.

    Attributes
    ----------
    phases : list of float32 arrays, shape (n_axis, encoder)
    logits : list of float32 arrays, shape (n_axis, experts)
        Integers; those of the first axis include the bias. Empty where there is one expert.
    """

    phases: list[Floats]
    logits: list[Floats]


def coordinates(index: Indices, length: int) -> NDArray[np.float64]:
    """Coordinates in [-1, 1] of voxels `index` on an axis of `length` > 1."""
    return 2.0 * index / (length - 1) - 1.0


def gate_coordinates(u: NDArray[np.float64]) -> Floats:
    """Coordinates as the integers that the gate reads."""
    return np.rint(u * GATE_UNITS).astype(np.float32)


def tables(weights: dict[str, Floats], lengths: Sequence[int], indices: Sequence[Indices]) -> Tables:
    """Tables at voxels `indices[axis]` of a grid with `lengths[axis]` voxels along each axis."""
    phases, logits = [], []
    for axis, (length, index) in enumerate(zip(lengths, indices, strict=True)):
        u = coordinates(index, length)
        phase = u[:, None] * weights[f"encoder.weight.{axis}"].astype(np.float64)
        if axis == 0:
            phase = phase + weights["encoder.bias"]
        # Whole turns are taken off in double precision: single then keeps the phase to 1e-6.
        phases.append((phase - 2 * np.pi * np.rint(phase / (2 * np.pi))).astype(np.float32))
        if "gate.weight" in weights:
            logit = gate_coordinates(u)[:, None] * weights["gate.weight"][axis]
            logits.append(logit + GATE_UNITS * weights["gate.bias"] if axis == 0 else logit)
    return Tables(phases, logits)


def tiles(lengths: Sequence[int], voxels: int) -> Iterator[tuple[slice, ...]]:
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


def tiled(
    indices: Sequence[Indices], *, pointwise: bool, voxels: int
) -> Iterator[tuple[tuple[slice, ...], list[Indices]]]:
    """Tiles of the voxels wanted, as :func:`evaluate` yields them, each with its own indices."""
    sizes = [len(index) for index in indices]
    for tile in tiles(sizes[:1] if pointwise else sizes, voxels):
        rows = tile * len(sizes) if pointwise else tile
        yield tile, [index[s] for index, s in zip(indices, rows, strict=True)]


def evaluate(
    architecture: Architecture,
    weights: dict[str, Floats],
    lengths: Sequence[int],
    indices: Sequence[Indices],
    *,
    pointwise: bool,
    voxels: int,
    synthesis: Synthesis | None = None,
) -> Iterator[tuple[tuple[slice, ...], Floats]]:
    """Values of the network and of the latents that it reads, tile by tile.

    Parameters
    ----------
    lengths : sequence of int
        Voxels along each axis of the chunk.
    indices : sequence of int64 arrays
        The voxels wanted along each axis; or, `pointwise`, of each point.
    pointwise : bool
        Whether the indices are of single points rather than of the axes of a grid.
    voxels : int
        At most as many are evaluated at a time; nothing larger than them is held.
    synthesis : Synthesis, optional
        The latents, where there are any: the network's values are added to theirs.

    Yields
    ------
    tile : tuple of slice
        Where the values belong in the grid, or among the points.
    values : float32 array
        Of the tile's shape.
    """
    for tile, rows in tiled(indices, pointwise=pointwise, voxels=voxels):
        part = tables(weights, lengths, rows)
        shape = tuple(s.stop - s.start for s in tile)
        phase = _sum(part.phases, pointwise)
        hidden = np.sin(phase, out=phase).reshape(-1, architecture.encoder)
        if synthesis is not None:
            base, read = synthesis.at(rows, pointwise)
            hidden = np.concatenate([hidden, read], axis=1)
        if architecture.experts == 1:
            values = _expert(architecture, weights, hidden, 0)
        else:
            chosen = _sum(part.logits, pointwise).reshape(-1, architecture.experts).argmax(axis=1)
            values = np.empty(len(hidden), np.float32)
            for expert in np.unique(chosen):
                member = chosen == expert
                if member.all():
                    values = _expert(architecture, weights, hidden, expert)
                else:
                    values[member] = _expert(architecture, weights, hidden[member], expert)
        values = values.reshape(shape)
        yield tile, values if synthesis is None else values + base


def _sum(axes: list[Floats], pointwise: bool) -> Floats:
    """Sum of the axes' tables: along the points, or over the outer grid."""
    total = axes[0]
    for table in axes[1:]:
        total = total + table if pointwise else total[..., None, :] + table
    return total


def _expert(architecture: Architecture, weights: dict[str, Floats], hidden: Floats, expert: Any) -> Floats:
    for layer in range(architecture.layers):
        hidden = hidden @ weights[f"expert.weight.{layer}"][expert].T
        hidden += weights[f"expert.bias.{layer}"][expert]
        np.sin(hidden, out=hidden)
    return hidden @ weights["decoder.weight"] + weights["decoder.bias"]


def expert_load(model: Model, lengths: Sequence[int], most: int = 32) -> NDArray[np.float64]:
    """Share of a grid's voxels that each expert evaluates, from at most `most` along each axis."""
    experts = model.architecture.experts
    if experts == 1:
        return np.ones(1)
    indices = [np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) for n in lengths]
    logits = tables(model.weights(), lengths, indices).logits
    chosen = _sum(logits, False).argmax(axis=-1)
    return np.asarray(np.bincount(chosen.ravel(), minlength=experts) / chosen.size)
