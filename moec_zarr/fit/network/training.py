"""What stays the same through all phases in which a group of networks is trained as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from moec_zarr.fit.network.batches import DRAWN, Batches
from moec_zarr.fit.network.forward import forward
from moec_zarr.fit.network.network_fit import NetworkFit
from moec_zarr.fit.network.optimiser import Optimiser
from moec_zarr.fit.network.stack import Weights, common_architecture, stack_rows, take_member, take_rows

__all__ = ["Networks", "Training", "device_bytes"]

_SENSITIVITY_BATCHES = 16  # batches from which the sensitivity is estimated


def device_bytes(fit: NetworkFit) -> int:
    """Estimate the memory of the device that a fit takes in a group: never less than it does.

    The chunk, what is drawn of it at a time, activations with their gradients, and weights with the state
    of their optimiser.
    """
    field, a, batch = fit.field, fit.architecture, fit.preset.batch
    voxel = field.array.itemsize + 4 * (field.base is not None) + 4 * (field.valid is not None)
    drawn = DRAWN * batch * (8 * (4 * a.axes + 6) + 16 * a.feature_count)
    # The blocks of several experts are filled in part, and are a copy.
    blocks = 1 if a.experts == 1 else 3
    step = 16 * blocks * batch * (a.encoder + a.feature_count + a.layers * a.width + 2 * a.experts)
    weights = 40 * a.parameter_count * (1 if a.experts == 1 else 3)
    return voxel * field.array.size + len(fit.starts) * (drawn + step + weights)


class Networks(NamedTuple):
    """Networks in training.

    Attributes
    ----------
    fits : list of int
        The fit that each is for; several may be for one.
    weights : dict of tensors, shape (networks, ...)
    """

    fits: list[int]
    weights: Weights

    def some(self, rows: Sequence[int]) -> Networks:
        """Take some of them."""
        return Networks([self.fits[row] for row in rows], take_rows(self.weights, rows))


class Training:
    """What stays the same through all phases of a group of fits."""

    def __init__(self, fits: Sequence[NetworkFit], device: torch.device) -> None:
        self.fits, self.device, self.preset = fits, device, fits[0].preset
        self.architecture = common_architecture([fit.architecture for fit in fits])
        fields = [fit.field for fit in fits]
        self.batches = Batches(fields, self.preset.batch, fits[0].seed, device)

    def started(self, fits: Sequence[int], starts: Sequence[int]) -> Networks:
        """Return a network for each of these fits, from one of its starts."""
        chosen = [self.fits[i].starts[start] for i, start in zip(fits, starts, strict=True)]
        weights = self.stack(fits, chosen)
        return Networks(list(fits), {name: tensor.requires_grad_() for name, tensor in weights.items()})

    def stack(self, fits: Sequence[int], weights: Sequence[Weights]) -> Weights:
        """Stack tensors of networks for these fits as rows of one set on the device."""
        return stack_rows(weights, [self.fits[i].architecture for i in fits], self.architecture, self.device)

    def members(self, networks: Networks) -> list[Weights]:
        """Return the tensors of each network on the host, in the shapes of its own architecture."""
        weights = {name: tensor.detach().cpu() for name, tensor in networks.weights.items()}
        return [
            take_member(weights, row, self.fits[i].architecture, self.architecture)
            for row, i in enumerate(networks.fits)
        ]

    def optimiser(self, weights: Weights) -> Optimiser:
        """Return a new optimisation of these weights."""
        return Optimiser(weights, {"gate.weight": self.preset.gate_rate, "gate.bias": self.preset.gate_rate})

    def rate(self, step: int, of: int) -> float:
        """Return the learning rate of a step."""
        warm = min(1.0, (step + 1) / self.preset.warm_up)
        return self.preset.rate * warm * (0.5 * (1 + math.cos(math.pi * step / of)) + 0.005)

    def run(
        self, networks: Networks, optimiser: Optimiser, steps: range, of: int, report: bool = True
    ) -> None:
        """Train all of the weights, unquantised."""
        self.batches.of(networks.fits)
        for step in steps:
            u, features, target = self.batches()
            values, balance = forward(self.architecture, networks.weights, u, features)
            loss = (values - target).square().mean(dim=1)
            if balance is not None:
                loss = loss + self.preset.balance * loss.detach() * balance
            loss.sum().backward()
            optimiser.step(self.rate(step, of))
            if report:
                self.report(networks.fits, step / of)

    def report(self, fits: Sequence[int], share: float) -> None:
        """Say how much of these fits is done."""
        for i in fits:
            self.fits[i].progress(share)

    @torch.no_grad()
    def errors(self, networks: Networks, batches: int) -> tuple[list[float], list[float]]:
        """Estimate the mean square of each network's error, and of its targets, in the units of the fit."""
        self.batches.of(networks.fits)
        total = torch.zeros(2, len(networks.fits), dtype=torch.float64, device=self.device)
        for _ in range(batches):
            u, features, target = self.batches()
            values, _ = forward(self.architecture, networks.weights, u, features)
            total += torch.stack([(values - target).square().mean(dim=1), target.square().mean(dim=1)])
        # One that is not a number loses every comparison.
        errors, squares = (total / batches).nan_to_num(nan=math.inf, posinf=math.inf).tolist()
        return errors, squares

    def sensitivities(self, networks: Networks, gates: Weights) -> list[dict[str, float]]:
        """Estimate the mean square derivative of a value by a weight, for each network and tensor.

        With signs r = +-1 drawn at random, the square of ``d(sum r y)/dw`` has the expectation
        ``sum (dy/dw)^2``: Hutchinson's estimator of the Gauss-Newton matrix's diagonal.
        """
        free = networks.weights
        total = {name: torch.zeros(len(networks.fits), device=self.device) for name in free}
        generator = torch.Generator(self.device).manual_seed(0)
        self.batches.of(networks.fits)
        for _ in range(_SENSITIVITY_BATCHES):
            u, features, target = self.batches()
            values, _ = forward(self.architecture, free | gates, u, features)
            signs = 2 * torch.randint(2, target.shape[1:], generator=generator, device=self.device) - 1
            gradients = torch.autograd.grad((values * signs).sum(), list(free.values()))
            for name, gradient in zip(free, gradients, strict=True):
                total[name] += gradient.flatten(1).square().sum(dim=1) / signs.numel()
        squares = {name: tensor.tolist() for name, tensor in total.items()}
        sizes = [
            {name: math.prod(shape) for name, shape in self.fits[i].architecture.shapes().items()}
            for i in networks.fits
        ]
        return [
            {name: squares[name][row] / own[name] / _SENSITIVITY_BATCHES for name in free}
            for row, own in enumerate(sizes)
        ]
