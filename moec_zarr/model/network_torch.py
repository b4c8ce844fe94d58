"""The mixture-of-experts network on a device of torch: the twin of `network`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from moec_zarr.arrays import Integers
from moec_zarr.model.device_torch import Device
from moec_zarr.model.dispatch_torch import blocks_of
from moec_zarr.model.network import GATE_UNITS, Architecture, Network, coordinates

__all__ = ["Experts"]

_NUMBERS = 1 << 27  # that a tile takes at most: half a gigabyte
_BLOCK = 128  # voxels at least that share a copy of their expert's weights


class Experts(NamedTuple):
    """A network whose weights are on a device.

    Attributes
    ----------
    device : Device
    architecture : Architecture
    weights : dict of float32 tensors
        Those of :meth:`moec_zarr.model.network.Network.weights`.
    """

    device: Device
    architecture: Architecture
    weights: dict[str, torch.Tensor]

    @classmethod
    def of(cls, network: Network, device: Device) -> Experts:
        """A network, sent to a device."""
        sent = {name: device.put(weight) for name, weight in network.weights().items()}
        return cls(device, network.architecture, sent)

    @property
    def tile(self) -> int:
        """Voxels to evaluate at a time, so that all that they take stays below half a gigabyte."""
        own = self.architecture
        # Phases in double precision and their sum, inputs twice, activations, logits.
        inputs = own.encoder + own.feature_count
        return max(1, _NUMBERS // (6 * own.encoder + 4 * inputs + 3 * own.width + 3 * own.experts))

    def values(
        self,
        lengths: Sequence[int],
        indices: Sequence[Integers],
        pointwise: bool,
        features: torch.Tensor | None,
    ) -> torch.Tensor:
        """Values at the voxels of a tile, float32, shape (voxels,).

        Parameters
        ----------
        lengths : sequence of int
            Voxels along each axis of the chunk.
        indices : sequence of int64 arrays
            Voxels along each axis of the tile; if `pointwise`, the coordinates of each point.
        pointwise : bool
            Whether the indices are of single points.
        features : float32 tensor, shape (feature_count, voxels), or None
            What the network reads of the transform, where there is one.
        """
        # The host's own coordinates: they decide about experts, and torch may divide by a reciprocal.
        u = [self.device.put(coordinates(index, n)) for index, n in zip(indices, lengths, strict=True)]
        hidden = _sum(self._phases(u), pointwise).sin_().reshape(-1, self.architecture.encoder)
        if features is not None:
            hidden = torch.cat([hidden, features.T], dim=1)
        if self.architecture.experts == 1:
            first = torch.zeros(1, dtype=torch.int64, device=self.device.device)
            return self._evaluated(hidden[None], first)
        logits = _sum(self._logits(u), pointwise).reshape(-1, self.architecture.experts)
        return self._shared_out(hidden, logits.argmax(dim=1))

    def _phases(self, u: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Phases along each axis, float32, shape (n_axis, encoder)."""
        for axis, own in enumerate(u):
            phase = own[:, None] * self.weights[f"encoder.weight.{axis}"].double()
            if axis == 0:
                phase += self.weights["encoder.bias"]
            # Whole turns are taken off in double precision: single then keeps the phase to 1e-6.
            yield phase.sub_((phase / (2 * math.pi)).round_(), alpha=2 * math.pi).float()

    def _logits(self, u: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Logits along each axis, integers in float32, shape (n_axis, experts)."""
        for axis, own in enumerate(u):
            logits = (own * GATE_UNITS).round_().float()[:, None] * self.weights["gate.weight"][axis]
            yield logits + GATE_UNITS * self.weights["gate.bias"] if axis == 0 else logits

    def _shared_out(self, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Each voxel evaluated by the expert that is chosen for it, shape (voxels,)."""
        size = min(max(_BLOCK, self.architecture.width), len(chosen))
        blocks = blocks_of(chosen[None], self.architecture.experts, size)
        own = hidden[blocks.source[0]].reshape(-1, size, hidden.shape[1])
        return self._evaluated(own, blocks.expert[0])[blocks.place[0]]

    def _evaluated(self, hidden: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        """Values of blocks of voxels, shape (blocks, voxels, inputs), each by its expert; as one vector."""
        for layer in range(self.architecture.layers):
            weight, bias = self.weights[f"expert.weight.{layer}"], self.weights[f"expert.bias.{layer}"]
            hidden = torch.baddbmm(bias[owner][:, None], hidden, weight[owner].transpose(1, 2)).sin_()
        return (hidden @ self.weights["decoder.weight"] + self.weights["decoder.bias"]).reshape(-1)


def _sum(axes: Iterator[torch.Tensor], pointwise: bool) -> torch.Tensor:
    """Sum of the axes' tables: along the points, or over the outer grid."""
    total = next(axes)
    for table in axes:
        total = total + table if pointwise else total[..., None, :] + table
    return total
