"""Weights of several networks as one set of tensors, a network a row.

Networks of different sizes are filled up with zeros to one size. A unit whose weights are zero has the
value sin(0) = 0 and receives no gradient through the zeros after it, and the optimiser's steps are zero
where gradients are: what is filled up stays zero, and every network is trained as it would be alone.
Experts that a network lacks have a logit of minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from moec_zarr.model.network import Architecture

__all__ = ["Weights", "common_architecture", "stack_rows", "take_member", "take_rows"]

Weights = dict[str, torch.Tensor]


def common_architecture(architectures: Sequence[Architecture]) -> Architecture:
    """Return the smallest architecture that all of these, of alike many layers, are parts of."""
    first = architectures[0]
    return replace(
        first,
        encoder=max(each.encoder for each in architectures),
        experts=max(each.experts for each in architectures),
        width=max(each.width for each in architectures),
    )


def stack_rows(
    networks: Sequence[Mapping[str, torch.Tensor]],
    architectures: Sequence[Architecture],
    common: Architecture,
    device: torch.device,
) -> Weights:
    """Stack networks with tensors of their own architecture's shapes as rows of the common one's.

    Tensors that the networks lack are left out.
    """
    result = {}
    for name, shape in common.shapes().items():
        if name not in networks[0]:
            continue
        empty = -math.inf if name == "gate.bias" else 0.0
        tensor = torch.full((len(networks), *shape), empty, device=device)
        for row, network, own in zip(tensor, networks, architectures, strict=True):
            for there, here in _places(name, own, common):
                row[there] = network[name][here].to(device)
        result[name] = tensor
    return result


def take_member(weights: Weights, row: int, own: Architecture, common: Architecture) -> Weights:
    """Return the tensors of one network, in the shapes of its own architecture."""
    result = {}
    for name, tensor in weights.items():
        result[name] = tensor.new_empty(own.shapes()[name])
        for there, here in _places(name, own, common):
            result[name][here] = tensor[row][there]
    return result


_Place = tuple[slice, ...]


def _places(name: str, own: Architecture, common: Architecture) -> list[tuple[_Place, _Place]]:
    """Where a network's tensor stands in the common one, and from where in its own that is."""
    whole = tuple(slice(n) for n in own.shapes()[name])
    if name != "expert.weight.0" or not own.feature_count:
        return [(whole, whole)]
    # The features stand behind all units of the encoder.
    units = (*whole[:2], slice(own.encoder))
    features = (*whole[:2], slice(common.encoder, None)), (*whole[:2], slice(own.encoder, None))
    return [(units, units), features]


def take_rows(weights: Weights, rows: Sequence[int]) -> Weights:
    """Take some of the networks, as leaves that require a gradient where the weights did."""
    return {
        name: tensor.detach()[list(rows)].requires_grad_(tensor.requires_grad)
        for name, tensor in weights.items()
    }
