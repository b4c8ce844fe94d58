"""The mixture-of-experts network as pure functions of arrays, of NumPy or torch.

A point with coordinates u in [-1, 1]^d goes through the shared encoder ``e = sin(W u + b)``, beside
which stand the features of the transform at that point, where the chunk has one; through one expert of
SIREN layers (Sitzmann et al., arXiv 2006.09661), chosen by the gate; and through the shared linear
decoder. This is MoEC (arXiv 2312.01361) with a gate that is linear in the coordinates and decides by
its largest logit alone.

The phases ``W u`` and the gate's logits are tabulated along each axis of a grid; those of its voxels
are sums of the tables. The gate is evaluated in integers that float32 holds exactly, so every backend
gives a voxel to the same expert.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Doubles, Floats, Integers
from moec_zarr.model.backend import AnyArray, affine, array_namespace, beside, sine
from moec_zarr.model.features import Stencil
from moec_zarr.model.steps import step_size

__all__ = [
    "GATE_LARGEST",
    "GATE_LARGEST_BIAS",
    "GATE_UNITS",
    "LOAD_SAMPLES",
    "MOST_ACTIVE_WEIGHTS",
    "MOST_EXPERTS",
    "Architecture",
    "Network",
    "Tables",
    "coordinates",
    "evaluate_tile",
    "expert_load",
    "gate_coordinates",
    "tables",
]

GATE_UNITS = 4096  # integer coordinates of the gate lie in [-4096, 4096]
GATE_LARGEST = 127  # of a gate weight
GATE_LARGEST_BIAS = 511  # in units of GATE_UNITS; 5 * 127 * 4096 + 511 * 4096 < 2**24
LOAD_SAMPLES = 1 << 15  # voxels that the load of experts is estimated from
MOST_EXPERTS = 256
MOST_ACTIVE_WEIGHTS = 1 << 17  # that evaluate a voxel: they bound the work of a decoder


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
        Number of experts; a single one has no gate.
    width, layers : int
        Width and number of the sine layers of each expert.
    feature_count : int
        Features of the transform that the experts read beside the encoder; 0 where there is none.
    """

    axes: int
    encoder: int
    experts: int
    width: int
    layers: int
    feature_count: int = 0

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor, in the order of the stream."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.experts > 1:
            shapes |= {"gate.weight": (self.axes, self.experts), "gate.bias": (self.experts,)}
        shapes |= {f"encoder.weight.{axis}": (self.encoder,) for axis in range(self.axes)}
        shapes["encoder.bias"] = (self.encoder,)
        inputs = self.encoder + self.feature_count
        for layer in range(self.layers):
            shapes[f"expert.weight.{layer}"] = (self.experts, self.width, inputs)
            shapes[f"expert.bias.{layer}"] = (self.experts, self.width)
            inputs = self.width
        return shapes | {"decoder.weight": (self.width,), "decoder.bias": (1,)}

    @property
    def parameter_count(self) -> int:
        """Number of all weights and biases."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def active_count(self) -> int:
        """Number of the weights and biases that evaluate a voxel, without the gate's."""
        return replace(self, experts=1).parameter_count


@dataclass(frozen=True)
class Network:
    """A quantised network.

    Attributes
    ----------
    architecture : Architecture
    integers : dict of int32 arrays
        Of each tensor.
    codes : dict of int
        Step code of each tensor but the gate's.
    stencils : tuple of Stencil
        One for each axis where the network reads the transform; empty where there is none.
    """

    architecture: Architecture
    integers: dict[str, NDArray[np.int32]]
    codes: dict[str, int]
    stencils: tuple[Stencil, ...] = ()

    def weights(self) -> dict[str, Floats]:
        """Return the weights in float32: each integer times its step, exact in float32."""
        return {
            name: values.astype(np.float32)
            * np.float32(step_size(self.codes[name]) if name in self.codes else 1)
            for name, values in self.integers.items()
        }


@dataclass(frozen=True)
class Tables:
    """Phases and logits along each axis of a tile.

    Attributes
    ----------
    phases : list of float32 arrays or tensors, shape (n_axis, encoder)
    logits : list of the same kind, shape (n_axis, experts)
        Integers; those of the first axis include the bias. Empty where there is one expert.
    pointwise : bool
        Whether row i of each table belongs to point i; otherwise the tables span a grid.
    """

    phases: list[AnyArray]
    logits: list[AnyArray]
    pointwise: bool


def coordinates(index: Integers, length: int) -> Doubles:
    """Compute coordinates in [-1, 1] of voxels `index` on an axis of `length` > 1."""
    return 2.0 * index / (length - 1) - 1.0


def gate_coordinates(u: Doubles) -> Floats:
    """Round coordinates to the integers that the gate reads."""
    return np.rint(u * GATE_UNITS).astype(np.float32)


def tables(
    weights: Mapping[str, AnyArray], lengths: Sequence[int], indices: Sequence[Integers], pointwise: bool
) -> Tables:
    """Tabulate at voxels `indices[axis]` of a grid with `lengths[axis]` voxels along each axis."""
    phases, logits, bias = [], [], weights["encoder.bias"]
    xp = array_namespace(bias)
    for axis, (length, index) in enumerate(zip(lengths, indices, strict=True)):
        # Coordinates are the host's: they decide about experts, and torch may divide by a reciprocal.
        u = coordinates(index, length)
        phase = beside(u, bias)[:, None] * xp.astype(weights[f"encoder.weight.{axis}"], xp.float64)
        if axis == 0:
            phase = phase + bias
        # Whole turns are taken off in double precision: single then keeps the phase to 1e-6.
        phases.append(xp.astype(phase - 2 * math.pi * xp.round(phase / (2 * math.pi)), xp.float32))
        if "gate.weight" in weights:
            logits.append(_logits(weights, axis, u))
    return Tables(phases, logits, pointwise)


def _logits(weights: Mapping[str, AnyArray], axis: int, u: Doubles) -> AnyArray:
    """Return the part of an axis in the gate's logits, shape (n, experts); the bias is the first axis'."""
    weight = weights["gate.weight"][axis]
    logits = beside(gate_coordinates(u), weight)[:, None] * weight
    return logits + GATE_UNITS * weights["gate.bias"] if axis == 0 else logits


def evaluate_tile(
    architecture: Architecture, weights: Mapping[str, AnyArray], tables: Tables, features: AnyArray | None
) -> AnyArray:
    """Evaluate the network at the voxels of a tile.

    Parameters
    ----------
    architecture : Architecture
    weights : dict of float32 arrays or tensors
        Those of :meth:`Network.weights`.
    tables : Tables
        Of the tile.
    features : float32 array or tensor, shape (voxels, feature_count), or None
        What the network reads of the transform, where there is one.

    Returns
    -------
    float32 array or tensor, shape (voxels,)
    """
    hidden = sine(_sum(tables.phases, tables.pointwise)).reshape(-1, architecture.encoder)
    if features is not None:
        hidden = array_namespace(hidden).concat([hidden, features], axis=1)
    chosen = None
    if architecture.experts > 1:
        chosen = _sum(tables.logits, tables.pointwise).reshape(-1, architecture.experts).argmax(-1)
    if not isinstance(hidden, np.ndarray):
        from moec_zarr.model.dispatch_torch import in_blocks

        blocks, expert, place = in_blocks(hidden, chosen, architecture.experts, architecture.width)
        return _by_expert(architecture, weights, blocks, expert).reshape(-1)[place]
    if chosen is None:
        return _by_expert(architecture, weights, hidden, 0)
    values = np.empty(len(hidden), np.float32)
    for expert in np.unique(chosen).tolist():
        member = chosen == expert
        if member.all():
            return _by_expert(architecture, weights, hidden, expert)
        values[member] = _by_expert(architecture, weights, hidden[member], expert)
    return values


def _sum(axes: list[AnyArray], pointwise: bool) -> AnyArray:
    """Add up the axes' tables: along the points, or over the outer grid."""
    total = axes[0]
    for table in axes[1:]:
        total = total + table if pointwise else total[..., None, :] + table
    return total


@np.errstate(invalid="ignore")  # weights are finite: only lanes that a BLAS kernel does not use raise it
def _by_expert(
    architecture: Architecture, weights: Mapping[str, AnyArray], points: AnyArray, expert: Any
) -> AnyArray:
    """Evaluate points by an expert, or blocks of points by one each."""
    for layer in range(architecture.layers):
        weight, bias = weights[f"expert.weight.{layer}"], weights[f"expert.bias.{layer}"]
        points = sine(affine(points, weight[expert], bias[expert]))
    return points @ weights["decoder.weight"] + weights["decoder.bias"]


def expert_load(network: Network, lengths: Sequence[int]) -> Doubles:
    """Estimate the share of a grid's voxels that each expert evaluates.

    Estimated from at most ``LOAD_SAMPLES`` voxels, on a grid with about even steps along each axis.
    """
    experts = network.architecture.experts
    if experts == 1:
        return np.ones(1)
    indices = [
        np.linspace(0, n - 1, samples).astype(np.int64)
        for n, samples in zip(lengths, _sides(lengths), strict=True)
    ]
    chosen = chosen_experts(network, lengths, indices)
    return np.asarray(np.bincount(chosen.ravel(), minlength=experts) / chosen.size)


def chosen_experts(network: Network, lengths: Sequence[int], indices: Sequence[Integers]) -> Integers:
    """Return the expert that evaluates each voxel of a part of a grid.

    Parameters
    ----------
    network : Network
    lengths : sequence of int
        Voxels along each axis of the grid.
    indices : sequence of int64 array
        Which voxels along each axis; their outer product is the part.

    Returns
    -------
    int64 array, of the shape of the part
    """
    if network.architecture.experts == 1:
        return np.zeros([len(index) for index in indices], np.int64)
    weights = network.weights()
    parts = [
        _logits(weights, axis, coordinates(index, n))
        for axis, (n, index) in enumerate(zip(lengths, indices, strict=True))
    ]
    return np.asarray(_sum(parts, False).argmax(axis=-1), np.int64)


def _sides(lengths: Sequence[int]) -> list[int]:
    """Choose samples along each axis: all of short ones, and alike many of the others."""
    sides, room = list(lengths), float(LOAD_SAMPLES)
    for left, axis in zip(
        range(len(sides), 0, -1), sorted(range(len(sides)), key=lengths.__getitem__), strict=True
    ):
        sides[axis] = min(sides[axis], int(room ** (1 / left) + 1e-9))
        room /= sides[axis]
    return sides
