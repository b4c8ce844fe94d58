"""The network evaluated by torch: :func:`moec_zarr.model.network.evaluate` on a device of choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from numpy.typing import NDArray

from moec_zarr.config import config
from moec_zarr.model.features import Synthesis
from moec_zarr.model.network import Architecture, Floats, Indices, tables, tiled

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(
    architecture: Architecture,
    weights: dict[str, Floats],
    lengths: Sequence[int],
    indices: Sequence[Indices],
    *,
    pointwise: bool,
    voxels: int,
    synthesis: Synthesis | None = None,
) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    """As :func:`moec_zarr.model.network.evaluate`, on ``config device``; values agree within 1e-4."""
    device = config.get("device")
    w = {name: torch.from_numpy(weight).to(device) for name, weight in weights.items()}
    for tile, rows in tiled(indices, pointwise=pointwise, voxels=voxels):
        part = tables(weights, lengths, rows)
        phases = [torch.from_numpy(table).to(device) for table in part.phases]
        hidden = torch.sin(_sum(phases, pointwise)).reshape(-1, architecture.encoder)
        if synthesis is not None:
            base, read = synthesis.at(rows, pointwise)
            hidden = torch.cat([hidden, torch.from_numpy(read).to(device)], dim=1)
        if architecture.experts == 1:
            values = _expert(architecture, w, hidden, 0)
        else:
            logits = [torch.from_numpy(table).to(device) for table in part.logits]
            chosen = _sum(logits, pointwise).reshape(-1, architecture.experts).argmax(dim=1)
            order = torch.argsort(chosen)
            counts = torch.bincount(chosen, minlength=architecture.experts).tolist()
            parts = hidden[order].split(counts)
            sorted_values = torch.cat([_expert(architecture, w, own, e) for e, own in enumerate(parts)])
            values = torch.empty_like(sorted_values).scatter_(0, order, sorted_values)
        whole = values.reshape([s.stop - s.start for s in tile]).cpu().numpy()
        yield tile, whole if synthesis is None else whole + base


def _sum(axes: list[torch.Tensor], pointwise: bool) -> torch.Tensor:
    total = axes[0]
    for table in axes[1:]:
        total = total + table if pointwise else total[..., None, :] + table
    return total


def _expert(
    architecture: Architecture, w: dict[str, torch.Tensor], hidden: torch.Tensor, expert: int
) -> torch.Tensor:
    for layer in range(architecture.layers):
        weight, bias = w[f"expert.weight.{layer}"][expert], w[f"expert.bias.{layer}"][expert]
        hidden = torch.sin(torch.addmm(bias, hidden, weight.T))
    return hidden @ w["decoder.weight"] + w["decoder.bias"]
