"""Muon for the matrices, Adam for everything else.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a
matrix by a nearby orthogonal one. Here its steps have the same spectral norm whatever the size of the
matrix, as the matrices of a network of any width have (Yang et al., arXiv 2310.17813, section 3): one
learning rate suits them all, where steps with the size of Adam's break wide ones. Adam: Kingma and Ba,
arXiv 1412.6980.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moec_zarr.fit.network.stack import take_rows

__all__ = ["Optimiser"]

_MOMENTUM = 0.95
_SPECTRAL = 1.5  # norm of a matrix's step over the learning rate
_BETAS = (0.9, 0.99)


class Optimiser:
    """State of one optimisation over named tensors, with a learning rate each.

    Parameters
    ----------
    tensors : dict of torch.Tensor
        Leaves that require a gradient, of shape (networks, ...); of shape (networks, experts, rows,
        columns), they are orthogonalised matrix by matrix.
    scales : dict of float
        Factor on the learning rate of the tensors named; 1 for the others.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], scales: dict[str, float]) -> None:
        self._tensors, self._scales = tensors, scales
        self._vectors = [name for name, tensor in tensors.items() if not _is_matrix(tensor)]
        self._momenta = {name: torch.zeros_like(t) for name, t in tensors.items() if _is_matrix(t)}
        # Adam's moments of all vectors, one after the other: few operations, whatever their number.
        self._first = _flat([torch.zeros_like(tensors[name]) for name in self._vectors])
        self._second = torch.zeros_like(self._first)
        self._count = 0

    def rows(self, tensors: dict[str, torch.Tensor], rows: Sequence[int]) -> Optimiser:
        """Return the optimisation of some of the networks, whose tensors are given, gone on with."""
        result = Optimiser(tensors, self._scales)
        result._momenta = take_rows({name: self._momenta[name] for name in result._momenta}, rows)
        first, second = (take_rows(self._parts(flat), rows) for flat in (self._first, self._second))
        result._first = _flat([first[name] for name in result._vectors])
        result._second = _flat([second[name] for name in result._vectors])
        result._count = self._count
        return result

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update once with learning rate `rate`; gradients are consumed, missing ones count as zero."""
        self._count += 1
        gradients = {
            name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            for name, tensor in self._tensors.items()
        }
        gradient = _flat([gradients[name] for name in self._vectors])
        self._first.lerp_(gradient, 1 - _BETAS[0])
        self._second.lerp_(gradient * gradient, 1 - _BETAS[1])
        root = (self._second / (1 - _BETAS[1] ** self._count)).sqrt_().add_(1e-8)
        updates = self._parts(self._first / root)
        for name, tensor in self._tensors.items():
            scaled = rate * self._scales.get(name, 1.0)
            if name in self._momenta:
                momentum = self._momenta[name].mul_(_MOMENTUM).add_(gradients[name])
                update = _orthogonal(gradients[name].add(momentum, alpha=_MOMENTUM))
                tensor.add_(update, alpha=-scaled * _SPECTRAL)
            else:
                tensor.add_(updates[name], alpha=-scaled / (1 - _BETAS[0] ** self._count))
            tensor.grad = None

    def _parts(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the vectors of this optimisation that stand one after the other."""
        tensors = [self._tensors[name] for name in self._vectors]
        parts = flat.split([tensor.numel() for tensor in tensors])
        return {
            name: part.view_as(tensor)
            for name, tensor, part in zip(self._vectors, tensors, parts, strict=True)
        }


def _flat(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors one after the other."""
    return torch.cat([vector.reshape(-1) for vector in vectors]) if vectors else torch.zeros(0)


def _is_matrix(tensor: torch.Tensor) -> bool:
    return tensor.ndim >= 4 and min(tensor.shape[-2:]) > 3


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly the orthogonal factor of each matrix: five quintic Newton-Schulz iterations."""
    x = matrices.flatten(0, -3)
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    wide = x.shape[-2] <= x.shape[-1]
    if not wide:
        x = x.mT
    for _ in range(5):
        a = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return (x if wide else x.mT).reshape(matrices.shape)
