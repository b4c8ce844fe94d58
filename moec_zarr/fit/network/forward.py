"""Values of several networks at points of a chunk each, as autograd needs them."""

from __future__ import annotations

import torch
from torch.nn import functional

from moec_zarr.fit.network.stack import Weights
from moec_zarr.model.backend import affine, sine
from moec_zarr.model.dispatch_torch import Blocks, blocks_of
from moec_zarr.model.network import GATE_UNITS, Architecture

__all__ = ["forward"]

_BLOCKS = 8  # that the points of an expert are divided into, about
_SMALLEST_BLOCK = 16  # points


def forward(
    architecture: Architecture, weights: Weights, u: torch.Tensor, features: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Evaluate networks at points, and the balance loss while the gate learns.

    The chosen expert's output is multiplied by ``1 + p - stop(p)``, p its softmax probability:
    the value stays and the gate has a gradient. Balance loss: Fedus et al., arXiv 2101.03961,
    equation 4. A frozen gate holds integers and is evaluated as :mod:`moec_zarr.model.network` does.
    No shape depends on values: the host never waits for the device.

    Parameters
    ----------
    architecture : Architecture
        That of all networks.
    weights : dict of tensors, shape (networks, ...)
    u : float32 tensor, shape (networks or 1, points, axes)
        Coordinates in [-1, 1].
    features : float32 tensor, shape (networks, points, features), optional
        What the experts read of the transform.

    Returns
    -------
    values : float32 tensor, shape (networks, points)
    balance : tensor, shape (networks,), or None
        1 where all experts of a network take part alike.
    """
    networks = len(weights["encoder.bias"])
    u = u.expand(networks, -1, -1)
    waves = torch.stack([weights[f"encoder.weight.{axis}"] for axis in range(architecture.axes)], dim=1)
    hidden = torch.sin(torch.baddbmm(weights["encoder.bias"][:, None], u, waves))
    if features is not None:
        hidden = torch.cat([hidden, features], dim=2)
    if architecture.experts == 1:
        return _expert(architecture, weights, hidden) + weights["decoder.bias"], None
    learning = weights["gate.weight"].requires_grad
    bias = weights["gate.bias"][:, None]
    if learning:
        logits = torch.baddbmm(bias, u, weights["gate.weight"])
    else:
        logits = torch.baddbmm(GATE_UNITS * bias, torch.round(u * GATE_UNITS), weights["gate.weight"])
    chosen = logits.argmax(dim=2)
    size = _SMALLEST_BLOCK
    while 2 * size * _BLOCKS * architecture.experts <= u.shape[1]:
        size *= 2
    blocks = blocks_of(chosen, architecture.experts, size)
    values = _dispatch(architecture, weights, hidden, blocks)
    balance = None
    if learning:
        probabilities = functional.softmax(logits, dim=2)
        there = torch.isfinite(weights["gate.bias"]).sum(dim=1)
        balance = there * (probabilities.mean(dim=1) * blocks.load / u.shape[1]).sum(dim=1)
        p = probabilities.gather(2, chosen[..., None])[..., 0]
        values = values * (1 + p - p.detach())
    return values + weights["decoder.bias"], balance


def _expert(architecture: Architecture, weights: Weights, hidden: torch.Tensor) -> torch.Tensor:
    """Values of networks with one expert each, without the decoder's bias."""
    for layer in range(architecture.layers):
        weight, bias = weights[f"expert.weight.{layer}"], weights[f"expert.bias.{layer}"]
        hidden = sine(affine(hidden, weight[:, 0], bias[:, 0]))
    return torch.bmm(hidden, weights["decoder.weight"][..., None])[..., 0]


def _dispatch(
    architecture: Architecture, weights: Weights, hidden: torch.Tensor, blocks: Blocks
) -> torch.Tensor:
    """Values of the experts chosen, shape (networks, points), without the decoder's bias.

    All blocks of all networks are one batch of matrix products.
    """
    networks, _, inputs = hidden.shape
    count = blocks.expert.shape[1]
    filled = hidden.gather(1, blocks.source[..., None].expand(-1, -1, inputs))
    # A product with a one-hot matrix chooses weights: its gradient is a product too, hence repeatable.
    choice = functional.one_hot(blocks.expert, architecture.experts).to(hidden)

    def of_blocks(weight: torch.Tensor) -> torch.Tensor:
        return torch.bmm(choice, weight.flatten(2)).reshape(networks * count, *weight.shape[2:])

    filled = filled.reshape(networks * count, -1, inputs)
    for layer in range(architecture.layers):
        weight, bias = weights[f"expert.weight.{layer}"], weights[f"expert.bias.{layer}"]
        filled = sine(affine(filled, of_blocks(weight), of_blocks(bias)))
    filled = filled.reshape(*blocks.source.shape, -1)
    values = torch.bmm(filled, weights["decoder.weight"][..., None])[..., 0]
    return values.gather(1, blocks.place)
