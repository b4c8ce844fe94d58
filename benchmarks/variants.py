"""One network in many configurations: MoEC, what it is compared with, and MoEC without each of its parts.

A network is an encoder of sine features, a few layers and a linear decoder. Variants differ in how a point
finds its *leaf* (by a gate, a grid or an octree, or there is one leaf), and in how many sets of weights each
stage has for those leaves. Unless a variant says otherwise, all share what the package does: data-driven
frequencies, the best of some starts, Muon, quantisation-aware training, steps allocated to the byte budget,
the same entropy coder. So a row of the table tells what one idea is worth, not how a published program
performs.

``encoder``
    MoEC with as many experts as the package's encoder would use, which may be one, and with all starts
    that it would try: those of ``one`` and of ``siren``.
``siren``
    One network, first layer isotropic at omega 10, 20, 40 or 80 (the best is kept), Sitzmann et al.,
    arXiv 2006.09661. Hidden layers start at the same effective weights, without the factor omega.
``one``
    One network with data-driven frequencies.
``blocks``
    Independent networks on a fixed grid, each in coordinates of its block, as in SCI, arXiv 2209.15180.
``octree``
    A tree of one or two levels, each of which halves the longest axis three times. Leaves own the decoder
    and the last layer, their ancestors the layers before it, the root the encoder; as in TINC, arXiv
    2211.06689. Coordinates are those of the whole field.
``fourier``
    Random Fourier features, fixed by the seed and not stored, of standard deviation 1, 2, 4 or 8 turns; a
    residual MLP of GELU blocks; Huang and Hoefler, arXiv 2210.12538. Without its batch normalisation and
    its spherical coordinates, which suit one kind of data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from moec_zarr.fit.network import initialise
from moec_zarr.fit.payloads import DoesNotFit

Weights = dict[str, torch.Tensor]

BITS = 6.8  # of a weight, on average, from which the sizes follow


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What sets a network apart from MoEC; the defaults are MoEC."""

    title: str
    routing: Literal["gate", "features", "one", "blocks", "octree"] = "gate"
    features: Literal["data", "isotropic", "either", "fourier"] = "data"
    minimum_experts: int = 4  # below, there is nothing to gate
    own_encoders: bool = False
    own_decoders: bool = False
    gate_start: bool = True
    balance: bool = True
    muon: bool = True
    quantised: bool = True


VARIANTS = {
    "moec": Variant(title="MoEC"),
    "encoder": Variant(title="MoEC, experts as the encoder has them", features="either", minimum_experts=1),
    "siren": Variant(title="SIREN", routing="one", features="isotropic"),
    "one": Variant(title="SIREN, data-driven frequencies", routing="one"),
    "blocks": Variant(title="block partition (SCI)", routing="blocks", own_encoders=True, own_decoders=True),
    "octree": Variant(title="octree (TINC)", routing="octree", own_decoders=True),
    "fourier": Variant(title="random Fourier features, residual MLP", routing="one", features="fourier"),
    "no-frequencies": Variant(title="MoEC, no data-driven frequencies", features="isotropic"),
    "no-gate-start": Variant(title="MoEC, no gate initialisation", gate_start=False),
    "no-balance": Variant(title="MoEC, no balance loss", balance=False),
    "feature-gate": Variant(title="MoEC, gate on features", routing="features"),
    "adam": Variant(title="MoEC, Adam instead of Muon", muon=False),
    "no-qat": Variant(title="MoEC, no quantisation-aware training", quantised=False),
    "own-encoders": Variant(title="MoEC, independent encoders", own_encoders=True),
    "own-decoders": Variant(title="MoEC, independent decoders", own_decoders=True),
}


# ---------------------------------------------------------------------------------- network


@dataclass(frozen=True)
class Network:
    """Sizes of a variant's network.

    Attributes
    ----------
    halvings : tuple of int
        Axes that a grid or an octree halves, in turn; empty for the others.
    leaves : int
        Experts, blocks, or leaves of the tree.
    """

    variant: Variant
    axes: int
    encoder: int
    width: int
    layers: int
    leaves: int
    halvings: tuple[int, ...] = ()

    @property
    def inputs(self) -> int:
        """Features of a point."""
        return 2 * self.encoder if self.variant.features == "fourier" else self.encoder

    def sets(self, stage: int) -> int:
        """How many sets of weights a stage has: 0 is the encoder, then the layers, last the decoder.

        A point of leaf i uses set ``i * sets // leaves``: neighbours in the tree share an ancestor's.
        """
        if stage == 0:
            return self.leaves if self.variant.own_encoders else 1
        if stage > self.layers:
            return self.leaves if self.variant.own_decoders else 1
        if self.variant.routing == "octree":
            return max(1, self.leaves // 8 ** (self.layers - stage))
        return self.leaves

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor that is stored, as :class:`moec_zarr.model.network.Architecture` has it."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.variant.routing in ("gate", "features"):
            inputs = self.axes if self.variant.routing == "gate" else self.inputs
            shapes |= {"gate.weight": (inputs, self.leaves), "gate.bias": (self.leaves,)}
        if self.variant.features != "fourier":
            own = (self.sets(0), self.encoder)
            shapes |= {f"encoder.weight.{axis}": own for axis in range(self.axes)} | {"encoder.bias": own}
        inputs = self.inputs
        for layer in range(self.layers):
            sets = self.sets(layer + 1)
            shapes[f"expert.weight.{layer}"] = (sets, self.width, inputs)
            shapes[f"expert.bias.{layer}"] = (sets, self.width)
            inputs = self.width
        sets = self.sets(self.layers + 1)
        return shapes | {"decoder.weight": (sets, self.width), "decoder.bias": (sets,)}

    @property
    def weights(self) -> int:
        """Number of all weights stored."""
        return sum(math.prod(shape) for shape in self.shapes().values())


def sized(variant: Variant, shape: tuple[int, ...], budget: int) -> Network:
    """The widest network of a variant that a byte budget pays for.

    Raises
    ------
    DoesNotFit
        If none does.
    """
    axes = len(shape)
    experts = max(variant.minimum_experts, initialise.architecture_for(axes, budget, None).experts)
    if experts == 1:
        variant = replace(variant, routing="one")
    leaves, layers = experts, 2
    halvings: tuple[int, ...] = ()
    if variant.routing == "one":
        leaves, layers = 1, 5 if variant.features == "fourier" else 3
    elif variant.routing in ("blocks", "octree"):
        levels = 1 if experts < 16 else 2
        depth = 3 * levels if variant.routing == "octree" else round(math.log2(experts))
        leaves, halvings = 2**depth, halved_axes(shape, depth)
    best = None
    for width in range(2, 1024):
        sizes = Network(variant, axes, max(2, round(1.4 * width)), width, layers, leaves, halvings)
        if sizes.weights * BITS / 8 + 4 * len(sizes.shapes()) > budget:
            break
        best = sizes
    if best is None:
        raise DoesNotFit(f"{leaves} leaves do not fit into {budget} bytes")
    return best


def halved_axes(shape: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The axis longest in voxels, halved `depth` times in turn."""
    lengths, axes = [float(n) for n in shape], []
    for _ in range(depth):
        axes.append(int(np.argmax(lengths)))
        lengths[axes[-1]] /= 2
    return tuple(axes)


def forward(sizes: Network, weights: Weights, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Values at points, shape (n, axes), and the balance loss while a gate learns.

    The gate is trained as the package's is (:func:`moec_zarr.fit.network.forward.forward`).
    """
    variant = sizes.variant
    hidden = None if sizes.sets(0) > 1 else features(sizes, weights, u, None)
    logits = None
    if variant.routing in ("gate", "features"):
        logits = _logits(weights, u if hidden is None or variant.routing == "gate" else hidden)
        leaf = logits.argmax(dim=-1)
    else:
        leaf, local = _halved(u, sizes.halvings)
        u = local if variant.routing == "blocks" else u
    load = torch.bincount(leaf, minlength=sizes.leaves)
    order = torch.argsort(leaf)  # each set of weights then has its points in a row

    def parts(stage: int) -> list[int]:
        return [int(n) for n in load.reshape(sizes.sets(stage), -1).sum(dim=1).tolist()]

    def own(tensor: torch.Tensor, stage: int) -> torch.Tensor:
        """Each sorted point's own row of a tensor."""
        counts = torch.tensor(parts(stage), device=tensor.device)
        return tensor.repeat_interleave(counts, dim=0, output_size=len(u))

    def linear(x: torch.Tensor, layer: int) -> torch.Tensor:
        weight, bias = weights[f"expert.weight.{layer}"], weights[f"expert.bias.{layer}"]
        pieces = zip(x.split(parts(layer + 1)), weight, bias, strict=True)
        return torch.cat([functional.linear(piece, w, b) for piece, w, b in pieces])

    x = hidden[order] if hidden is not None else features(sizes, weights, u[order], own)
    if variant.features == "fourier":
        x = linear(x, 0)
        for layer in range(1, sizes.layers, 2):
            x = x + linear(functional.gelu(linear(functional.gelu(x), layer)), layer + 1)
        x = functional.gelu(x)
    else:
        for layer in range(sizes.layers):
            x = torch.sin(linear(x, layer))
    last = sizes.layers + 1
    values = (x * own(weights["decoder.weight"], last)).sum(dim=-1) + own(weights["decoder.bias"], last)
    balance = None
    if logits is not None and weights["gate.weight"].requires_grad:
        probabilities = functional.softmax(logits, dim=-1)
        balance = sizes.leaves * (probabilities.mean(dim=0) * load / len(u)).sum()
        p = probabilities.gather(1, leaf[:, None])[order, 0]
        values = values * (1 + p - p.detach())
    return torch.empty_like(values).scatter(0, order, values), balance


def features(sizes: Network, weights: Weights, u: torch.Tensor, own: Any) -> torch.Tensor:
    """Sine features; `own` yields each point's row where every leaf has an encoder of its own."""
    if sizes.variant.features == "fourier":
        phase = u @ weights["waves"].T
        return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)
    rows = (lambda tensor: own(tensor, 0)) if own is not None else (lambda tensor: tensor)
    phase = rows(weights["encoder.bias"])
    for axis in range(sizes.axes):
        phase = phase + u[:, axis, None] * rows(weights[f"encoder.weight.{axis}"])
    return torch.sin(phase)


def _logits(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    """The gate's; of its integers once it is frozen, where only their order matters."""
    return torch.addmm(weights["gate.bias"], x, weights["gate.weight"])


def _halved(u: torch.Tensor, halvings: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Leaf of each point, and its coordinates in [-1, 1] within the leaf."""
    leaf = torch.zeros(len(u), dtype=torch.int64, device=u.device)
    u = u.clone()
    for axis in halvings:
        upper = u[:, axis] > 0
        leaf = 2 * leaf + upper
        u[:, axis] = 2 * u[:, axis] + torch.where(upper, -1.0, 1.0)
    return leaf, u
