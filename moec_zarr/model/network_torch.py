"""The network evaluated by torch, on a device of choice."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from moec_zarr.arrays import Floats
from moec_zarr.config import config
from moec_zarr.model.network import Architecture, Tables

__all__ = ["evaluate_tile"]


@torch.no_grad()
def evaluate_tile(
    architecture: Architecture, weights: dict[str, Floats], tables: Tables, features: Floats | None
) -> Floats:
    """As :func:`moec_zarr.model.network.evaluate_tile`, on ``config device``; values agree within 1e-4."""
    device = config.get("device")

    def on_device(array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    w = {name: on_device(weight) for name, weight in weights.items()}
    hidden = torch.sin(_sum([on_device(table) for table in tables.phases], tables.pointwise))
    hidden = hidden.reshape(-1, architecture.encoder)
    if features is not None:
        hidden = torch.cat([hidden, on_device(features)], dim=1)
    if architecture.experts == 1:
        values = _expert(architecture, w, hidden, 0)
    else:
        logits = _sum([on_device(table) for table in tables.logits], tables.pointwise)
        chosen = logits.reshape(-1, architecture.experts).argmax(dim=1)
        order = torch.argsort(chosen)
        counts = torch.bincount(chosen, minlength=architecture.experts).tolist()
        parts = hidden[order].split(counts)
        by_expert = torch.cat([_expert(architecture, w, own, e) for e, own in enumerate(parts)])
        values = torch.empty_like(by_expert).scatter_(0, order, by_expert)
    result: Floats = values.cpu().numpy()
    return result


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
