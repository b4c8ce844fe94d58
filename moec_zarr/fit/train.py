"""Array to quantised network: the only place that trains."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from moec_zarr.arrays import Floats
from moec_zarr.fit.initialise import (
    axis_frequencies,
    draw_waves,
    gate,
    initial_weights,
    power_spectrum,
)
from moec_zarr.fit.optimiser import Optimiser
from moec_zarr.fit.presets import Preset, Start
from moec_zarr.fit.quantise import (
    DECODER,
    StepAllocator,
    Weights,
    freeze_gate,
    quantise,
    round_through,
    unshifted,
)
from moec_zarr.fit.sampling import Field
from moec_zarr.model.network import GATE_UNITS, Architecture, Network, coordinates

__all__ = ["fit_network", "forward"]

_log = logging.getLogger(__name__)
_DRAWN = 16  # batches gathered at a time
_JUDGED = 96  # batches from which a fit's error is estimated
_SENSITIVITY_BATCHES = 16  # batches from which the sensitivity is estimated
_PROBED = 2  # starts that are trained further
_LONGER = 3  # times as many steps in each further one
_SUSTAINED = 0.65  # of a fit's gain a doubling of its steps, that further doublings bring on average
_MARGIN = 0.997  # of the budget while training goes on: the entropy still drifts


def forward(
    architecture: Architecture, weights: Weights, u: torch.Tensor, features: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Values at points, and the balance loss while the gate learns.

    The chosen expert's output is multiplied by ``1 + p - stop(p)``, p its softmax probability:
    the value stays and the gate has a gradient. Balance loss: Fedus et al., arXiv 2101.03961,
    equation 4. A frozen gate holds integers and is evaluated as :mod:`moec_zarr.model.network` does.

    Parameters
    ----------
    u : float32 tensor, shape (n, axes)
        Coordinates in [-1, 1].
    features : float32 tensor, shape (n, features), optional
        What the experts read of the transform.

    Returns
    -------
    values : float32 tensor, shape (n,)
    balance : scalar tensor or None
        1 where all experts take part alike.
    """
    phase = weights["encoder.bias"].expand(len(u), -1)
    for axis in range(architecture.axes):
        phase = torch.addcmul(phase, u[:, axis, None], weights[f"encoder.weight.{axis}"])
    hidden = torch.sin(phase)
    if features is not None:
        hidden = torch.cat([hidden, features], dim=1)
    if architecture.experts == 1:
        return _expert(architecture, weights, hidden, 0) + weights["decoder.bias"], None
    learning = weights["gate.weight"].requires_grad
    if learning:
        logits = torch.addmm(weights["gate.bias"], u, weights["gate.weight"])
    else:
        units = GATE_UNITS
        logits = torch.addmm(units * weights["gate.bias"], torch.round(u * units), weights["gate.weight"])
    chosen = logits.argmax(dim=-1)
    order = torch.argsort(chosen)
    load = torch.bincount(chosen, minlength=architecture.experts)
    parts = hidden[order].split(load.tolist())
    values = torch.cat([_expert(architecture, weights, part, expert) for expert, part in enumerate(parts)])
    balance = None
    if learning:
        probabilities = functional.softmax(logits, dim=-1)
        balance = architecture.experts * (probabilities.mean(dim=0) * load / len(u)).sum()
        p = probabilities.gather(1, chosen[:, None])[order, 0]
        values = values * (1 + p - p.detach())
    return torch.empty_like(values).scatter(0, order, values) + weights["decoder.bias"], balance


def _expert(architecture: Architecture, weights: Weights, hidden: torch.Tensor, expert: int) -> torch.Tensor:
    for layer in range(architecture.layers):
        weight, bias = weights[f"expert.weight.{layer}"], weights[f"expert.bias.{layer}"]
        hidden = torch.sin(functional.linear(hidden, weight[expert], bias[expert]))
    return hidden @ weights["decoder.weight"]


_Batch = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]


class _Batches:
    """An endless supply of coordinates, shape (batch, axes), features and targets on the device."""

    def __init__(self, field: Field, batch: int, generator: torch.Generator, device: torch.device) -> None:
        self._field, self._batch, self._generator, self._device = field, batch, generator, device
        self._left: list[_Batch] = []

    def __call__(self) -> _Batch:
        if not self._left:
            index = self._field.draw(self._batch * _DRAWN, self._generator)
            axes = zip(index, self._field.array.shape, strict=True)
            u = np.stack([coordinates(i, n) for i, n in axes], axis=1).astype(np.float32)
            read = self._field.features(index)
            points, targets = self._split(u), self._split(self._field.targets(index))
            features = [None] * _DRAWN if read is None else self._split(read)
            self._left = list(zip(points, features, targets, strict=True))
        return self._left.pop()

    def _split(self, part: Floats) -> tuple[torch.Tensor, ...]:
        parts: tuple[torch.Tensor, ...] = torch.from_numpy(part).to(self._device).split(self._batch)
        return parts


@dataclass(frozen=True)
class _Training:
    """What stays the same through all phases of a fit."""

    architecture: Architecture
    preset: Preset
    batches: _Batches
    progress: Callable[[float], None]

    def run(self, weights: Weights, optimiser: Optimiser, steps: range, of: int, report: bool = True) -> None:
        """Train all of `weights`, unquantised."""
        for step in steps:
            u, features, target = self.batches()
            values, balance = forward(self.architecture, weights, u, features)
            loss = functional.mse_loss(values, target)
            if balance is not None:
                loss = loss + self.preset.balance * loss.detach() * balance
            loss.backward()
            optimiser.step(self.rate(step, of))
            if report:
                self.progress(step / of)

    def rate(self, step: int, of: int) -> float:
        warm = min(1.0, (step + 1) / self.preset.warm_up)
        return self.preset.rate * warm * (0.5 * (1 + math.cos(math.pi * step / of)) + 0.005)

    def optimiser(self, weights: Weights) -> Optimiser:
        return Optimiser(weights, {"gate.weight": self.preset.gate_rate, "gate.bias": self.preset.gate_rate})

    @torch.no_grad()
    def loss(self, weights: Weights, batches: int) -> float:
        losses = []
        for _ in range(batches):
            u, features, target = self.batches()
            losses.append(
                functional.mse_loss(forward(self.architecture, weights, u, features)[0], target).item()
            )
        return float(np.mean(losses))

    def sensitivity(self, free: Weights, frozen: Weights) -> dict[str, float]:
        """Mean square derivative of a value by a weight, for each tensor of `free`.

        With signs r = +-1 drawn at random, the square of ``d(sum r y)/dw`` has the expectation
        ``sum (dy/dw)^2``: Hutchinson's estimator of the Gauss-Newton matrix's diagonal.
        """
        total = dict.fromkeys(free, 0.0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(_SENSITIVITY_BATCHES):
            u, features, _target = self.batches()
            values, _ = forward(self.architecture, free | frozen, u, features)
            signs = (2 * torch.randint(2, (len(u),), generator=generator) - 1).to(values)
            gradients = torch.autograd.grad((values * signs).sum(), list(free.values()))
            for name, gradient in zip(free, gradients, strict=True):
                total[name] += gradient.square().mean().item() / len(u) / _SENSITIVITY_BATCHES
        return total


def fit_network(
    field: Field,
    architecture: Architecture,
    preset: Preset,
    budget: int,
    *,
    initial: Network | None = None,
    seed: int = 0,
    device: str = "cpu",
    target_error: float = math.inf,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Network, float] | None:
    """A network fitted to a field, quantised to a byte budget.

    Parameters
    ----------
    field : Field
        The valid voxels and their targets.
    budget : int
        Bytes that the network's section may take; kept.
    initial : Network, optional
        One of this architecture to start from, instead of the preset's starts. Its gate is not taken
        over: with experts, the fit starts as without it.
    seed : int
        Of everything random. Threads and device change results by rounding alone.
    target_error : float
        Mean square error that is worth having. The fit is given up where a short one shows that it
        stays out of reach.
    progress : callable
        Called with the share of steps done.

    Returns
    -------
    network : Network
    error : float
        Its mean square error at some hundred thousands of voxels; None instead of both where the fit
        was given up. Both errors are those of normalised values without the field's shift.

    Raises
    ------
    DoesNotFit
        If no quantisation of this architecture fits into the budget.
    """
    shift = field.normalisation.shift
    generator = torch.Generator().manual_seed(seed)
    training = _Training(
        architecture, preset, _Batches(field, preset.batch, generator, torch.device(device)), progress
    )
    if initial is None or architecture.experts > 1:
        fresh = _starts(field, architecture, generator, device)
        if target_error < math.inf or len(preset.starts) > 1:
            raced = _raced(training, fresh, target_error * 4.0**shift)
            if raced is None:
                _log.info("a network is not expected to reach a mean square error of %.4g", target_error)
                return None
            weights = raced
        else:
            weights = fresh(preset.starts[0])
    else:
        weights = _float_weights(initial, shift, device, True)
    turn = preset.steps - round(preset.steps * preset.quantised)
    optimiser = training.optimiser(weights)
    training.run(weights, optimiser, range(turn), preset.steps)
    network = _train_quantised(training, weights, optimiser, turn, budget, shift)
    return network, training.loss(_float_weights(network, shift, device, False), _JUDGED) * 4.0**-shift


def _starts(
    field: Field, architecture: Architecture, generator: torch.Generator, device: str
) -> Callable[[Start], Weights]:
    """Draws the weights that a fit starts from, after one look at what the field says of them."""
    frequencies = axis_frequencies(field, generator)
    mean = float(field.targets(field.draw(1 << 14, generator)).mean())
    partition: Weights = {}
    if architecture.experts > 1:
        weight, bias = (
            torch.from_numpy(part.astype(np.float32))
            for part in gate(field, frequencies, architecture.experts, generator)
        )
        partition = {"gate.weight": weight, "gate.bias": bias}
    spectrum = power_spectrum(field, frequencies)

    def drawn(start: Start) -> Weights:
        shape = architecture.encoder, architecture.axes
        if start.omega:
            uniform = 2 * torch.rand(shape, generator=generator, dtype=torch.float64).numpy() - 1
            waves = start.omega / architecture.axes * uniform
        else:
            normal = torch.randn(shape, generator=generator, dtype=torch.float64).numpy()
            waves = normal * frequencies * start.scale
            spectral = round(start.spectral * len(waves))
            waves[:spectral] = draw_waves(spectrum, spectral, generator)
        weights = partition | initial_weights(architecture, waves, mean, generator)
        return {name: tensor.to(device, copy=True).requires_grad_() for name, tensor in weights.items()}

    return drawn


def _float_weights(network: Network, shift: int, device: str, learning: bool) -> Weights:
    """A network's weights in the units of a fit, whose targets are shifted."""
    weights = {name: torch.from_numpy(weight.copy()) for name, weight in network.weights().items()}
    for name in DECODER:
        weights[name] *= 2.0**shift
    return {name: weight.to(device).requires_grad_(learning) for name, weight in weights.items()}


def _raced(training: _Training, fresh: Callable[[Start], Weights], target_error: float) -> Weights | None:
    """Weights of the start that does best in short fits, as these leave them.

    All starts are tried, the better ones are trained further, the best of them ever longer. None as soon
    as the whole fit is not expected to reach the target: the logarithm of the error falls with that of the
    steps, ever more slowly.
    """
    preset = training.preset
    tried = []
    for start in preset.starts:
        weights = fresh(start)
        loss = _short_fit(training, weights, preset.trial_steps)
        _log.debug("%s: mean square error %.4g after %d steps", start, loss, preset.trial_steps)
        tried.append((loss, weights))
    tried.sort(key=lambda trial: trial[0])
    steps, before = preset.probe_steps, preset.trial_steps
    probed = [(_short_fit(training, weights, steps), first, weights) for first, weights in tried[:_PROBED]]
    loss, last, best = min(probed, key=lambda probe: probe[0])
    while True:
        done = before + steps
        slope = math.log(loss / last) / math.log2(done / before) if 0 < loss < last else 0.0
        expected = loss * math.exp(_SUSTAINED * slope * math.log2((done + preset.steps) / done))
        _log.debug("mean square error %.4g after %d steps, %.4g expected", loss, done, expected)
        if expected > target_error:
            return None
        steps *= _LONGER
        if target_error == math.inf or steps > preset.steps / 4:
            return best
        last, before = loss, done
        loss = _short_fit(training, best, steps)


def _short_fit(training: _Training, weights: Weights, steps: int) -> float:
    """Train all of the weights, to a rate of zero; the mean square error reached."""
    training.run(weights, training.optimiser(weights), range(steps), steps, report=False)
    return training.loss(weights, 2 * _DRAWN)


def _train_quantised(
    training: _Training, weights: Weights, optimiser: Optimiser, turn: int, budget: int, shift: int
) -> Network:
    architecture, preset = training.architecture, training.preset
    gate = freeze_gate(weights)
    device = weights["encoder.bias"].device
    frozen = {name: torch.from_numpy(values.astype(np.float32)).to(device) for name, values in gate.items()}
    free = {name: weight for name, weight in weights.items() if name not in gate}
    allocate = StepAllocator(architecture, gate, int(budget * _MARGIN), shift)
    span = preset.steps - turn
    every = max(1, math.ceil(0.75 * span / preset.allocations))
    codes = allocate(free, training.sensitivity(free, frozen))
    for step in range(turn, preset.steps):
        done = step - turn
        if done and done % every == 0 and done < 0.75 * span:
            codes = allocate(free, training.sensitivity(free, frozen))
        u, features, target = training.batches()
        values, _ = forward(architecture, round_through(free, codes) | frozen, u, features)
        functional.mse_loss(values, target).backward()
        optimiser.step(training.rate(step, preset.steps))
        training.progress(step / preset.steps)
    last = StepAllocator(architecture, gate, budget, shift)
    if not last.fits(free, codes):
        codes = last(free, training.sensitivity(free, frozen))
    return unshifted(quantise(architecture, free, codes, gate), shift)
