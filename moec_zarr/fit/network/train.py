"""Arrays to quantised networks: several networks of one kind are trained as one."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from moec_zarr.fit.network.forward import forward
from moec_zarr.fit.network.network_fit import NetworkFit, float_weights
from moec_zarr.fit.network.optimiser import Optimiser
from moec_zarr.fit.network.quantise import (
    Gate,
    StepAllocator,
    freeze_gate,
    quantise,
    round_through,
    unshifted,
)
from moec_zarr.fit.network.stack import Weights, take_rows
from moec_zarr.fit.network.training import Networks, Training
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.model.network import Network
from moec_zarr.model.steps import step_size

__all__ = ["Fitted", "Outcome", "fit_networks"]

_log = logging.getLogger(__name__)
_RACED = 32  # batches from which the error of a short fit is estimated
_JUDGED = 96  # the same, of a whole fit
_PROBED = 2  # starts that are trained further
_LONGER = 3  # times as many steps in each further one
_SUSTAINED = 0.65  # of a fit's gain a doubling of its steps, that further doublings bring on average
_MARGIN = 0.997  # of the budget while training goes on: the entropy still drifts


class Fitted(NamedTuple):
    """A network, its mean square error at some hundred thousands of voxels, and what it is without a network.

    The errors are those of normalised values without the field's shift.
    """

    network: Network
    error: float
    before: float


Outcome: TypeAlias = Fitted | DoesNotFit | None


def fit_networks(fits: Sequence[NetworkFit], device: str = "cpu") -> list[Outcome]:
    """Fit several networks of one kind as one.

    Parameters
    ----------
    fits : sequence of NetworkFit
        All of one `kind`.
    device : str
        Where to train.

    Returns
    -------
    list, one for each fit
        A `Fitted`; None where the fit was given up; a `DoesNotFit` where no quantisation of the
        architecture fits into the budget. None of them affects the others.
    """
    if any(fit.kind != fits[0].kind for fit in fits):
        raise ValueError("fits of several kinds cannot be trained together")
    training = Training(fits, torch.device(device))
    networks = _race(training) if fits[0].is_raced else training.started(range(len(fits)), [0] * len(fits))
    outcomes: list[Outcome] = [None] * len(fits)
    if networks.fits:
        for index, outcome in _train_whole(training, networks).items():
            outcomes[index] = outcome
    return outcomes


def _race(training: Training) -> Networks:
    """For each fit the start that does best in short fits, with weights as these leave them.

    All starts are tried, the better ones are trained further, the best of them ever longer. A fit is left
    out as soon as the whole of it is not expected to reach its target. The logarithm of the error falls
    with that of the steps, ever more slowly.
    """
    preset, fits = training.preset, training.fits
    count, indices = len(fits[0].starts), range(len(fits))
    tried = training.started([*indices] * count, [start for start in range(count) for _ in indices])
    errors = np.reshape(_short_fit(training, tried, preset.trial_steps), (count, len(fits)))
    for start, losses in zip(preset.starts, errors, strict=False):
        _log.debug("%s: mean square errors %s after %d steps", start, losses, preset.trial_steps)
    order = np.argsort(errors, axis=0, kind="stable")[:_PROBED]
    probed = tried.some((order * len(fits) + np.arange(len(fits))).ravel().tolist())
    steps, before = preset.probe_steps, preset.trial_steps
    after = np.reshape(_short_fit(training, probed, steps), order.shape)
    first = np.take_along_axis(errors, order, 0)
    best = after.argmin(axis=0)
    networks = probed.some((best * len(fits) + np.arange(len(fits))).tolist())
    loss, last = (np.take_along_axis(each, best[None], 0)[0] for each in (after, first))
    while True:
        done = before + steps
        kept = []
        for row, i in enumerate(networks.fits):
            expected = _expected(float(loss[row]), float(last[row]), done, before, preset.steps)
            _log.debug("mean square error %.4g after %d steps, %.4g expected", loss[row], done, expected)
            wanted = fits[i].target_error
            if expected > wanted * 4.0 ** fits[i].field.normalisation.shift:
                _log.info("a network is not expected to reach a mean square error of %.4g", wanted)
            else:
                kept.append(row)
        steps *= _LONGER
        if len(kept) < len(networks.fits):
            networks, loss = networks.some(kept), loss[kept]
        if not kept or fits[0].target_error == math.inf or steps > preset.steps / 4:
            return networks
        last, before = loss, done
        loss = np.array(_short_fit(training, networks, steps))


def _expected(now: float, then: float, done: int, before: int, more: int) -> float:
    """Return the error after so many more steps, from those after `done` and `before` of them."""
    slope = math.log(now / then) / math.log2(done / before) if 0 < now < then else 0.0
    return now * math.exp(_SUSTAINED * slope * math.log2((done + more) / done))


def _short_fit(training: Training, networks: Networks, steps: int) -> list[float]:
    """Train all of the weights, to a rate of zero; the mean square errors reached."""
    optimiser = training.optimiser(networks.weights)
    training.run(networks, optimiser, range(steps), steps, report=False)
    return training.errors(networks, _RACED)[0]


def _train_whole(training: Training, networks: Networks) -> dict[int, Outcome]:
    """Return the whole fits, one network for each, and what comes of them."""
    preset = training.preset
    turn = preset.steps - round(preset.steps * preset.quantised)
    optimiser = training.optimiser(networks.weights)
    training.run(networks, optimiser, range(turn), preset.steps)
    phase = _QuantisedPhase(training, networks, optimiser)
    span = preset.steps - turn
    every = max(1, math.ceil(0.75 * span / preset.allocations))
    for done in range(0, span, every):
        if done < 0.75 * span:
            phase.allocate()
        phase.run(range(turn + done, min(turn + done + every, preset.steps)))
    return phase.outcomes()


def _floats(gate: Gate) -> Weights:
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in gate.items()}


def _is_finite(weights: Weights) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values())


class _QuantisedPhase:
    """The last steps of some fits: weights are rounded in them, the gates are frozen."""

    def __init__(self, training: Training, networks: Networks, optimiser: Optimiser) -> None:
        self._training = training
        members = training.members(networks)
        self._gates = {i: freeze_gate(own) for i, own in zip(networks.fits, members, strict=True)}
        self._frozen = training.stack(networks.fits, [_floats(self._gates[i]) for i in networks.fits])
        free = {name: tensor for name, tensor in networks.weights.items() if name not in self._frozen}
        self._networks, self._optimiser = Networks(networks.fits, free), optimiser
        self._allocators = {i: self._allocator(i, _MARGIN) for i in networks.fits}
        self._codes: dict[int, dict[str, int]] = {}
        self._failed: dict[int, Outcome] = {}

    def _allocator(self, i: int, share: float = 1.0) -> StepAllocator:
        fit = self._training.fits[i]
        shift = fit.field.normalisation.shift
        return StepAllocator(fit.architecture, self._gates[i], int(fit.budget * share), shift)

    def allocate(self) -> None:
        """Set the steps anew; fits without steps that meet the budget leave the group."""
        if not self._networks.fits:
            return
        kept = self._allocate_steps(self._allocators)
        if len(kept) < len(self._networks.fits):
            self._networks = self._networks.some(kept)
            self._frozen = take_rows(self._frozen, kept)
            self._optimiser = self._optimiser.rows(self._networks.weights, kept)

    def _allocate_steps(self, allocators: dict[int, StepAllocator]) -> list[int]:
        """Find steps for the fits that allocators are given of; the rows of all that have steps."""
        members = self._training.members(self._networks)
        sensitivities = self._training.sensitivities(self._networks, self._frozen)
        for i, own, sensitivity in zip(self._networks.fits, members, sensitivities, strict=True):
            if not _is_finite(own):
                self._failed[i] = DoesNotFit("training diverged")
            elif i in allocators:
                try:
                    self._codes[i] = allocators[i](own, sensitivity)
                except DoesNotFit as reason:
                    self._failed[i] = reason
        return [row for row, i in enumerate(self._networks.fits) if i not in self._failed]

    def run(self, steps: range) -> None:
        """Train with the weights rounded to their steps."""
        training, (fits, free) = self._training, self._networks
        if not fits:
            return
        rounding = {}
        for name, tensor in free.items():
            sizes = torch.tensor([step_size(self._codes[i][name]) for i in fits], device=training.device)
            rounding[name] = sizes.reshape(-1, *[1] * (tensor.ndim - 1))
        training.batches.of(fits)
        for step in steps:
            u, features, target = training.batches()
            rounded = round_through(free, rounding)
            values, _ = forward(training.architecture, rounded | self._frozen, u, features)
            (values - target).square().mean(dim=1).sum().backward()
            self._optimiser.step(training.rate(step, training.preset.steps))
            training.report(fits, step / training.preset.steps)

    def outcomes(self) -> dict[int, Outcome]:
        """Return the quantised networks with their errors, and the reasons of those that failed."""
        training, fits = self._training, self._networks.fits
        members = dict(zip(fits, training.members(self._networks) if fits else [], strict=True))
        last = {i: self._allocator(i) for i in fits}
        over = {
            i: each
            for i, each in last.items()
            if not _is_finite(members[i]) or not each.fits(members[i], self._codes[i])
        }
        if over:
            fits = [fits[row] for row in self._allocate_steps(over)]
        networks = []
        for i in fits:
            own = training.fits[i]
            network = quantise(own.architecture, members[i], self._codes[i], self._gates[i])
            networks.append(unshifted(network, own.field.normalisation.shift))
        return self._failed | dict(zip(fits, _measure_networks(training, fits, networks), strict=True))


def _measure_networks(training: Training, fits: Sequence[int], networks: Sequence[Network]) -> list[Fitted]:
    """Quantised networks with their errors."""
    if not fits:
        return []
    shifts = [training.fits[i].field.normalisation.shift for i in fits]
    weights = [float_weights(network, shift) for network, shift in zip(networks, shifts, strict=True)]
    errors, squares = training.errors(Networks(list(fits), training.stack(fits, weights)), _JUDGED)
    return [
        Fitted(network, error * 4.0**-shift, square * 4.0**-shift)
        for network, error, square, shift in zip(networks, errors, squares, shifts, strict=True)
    ]
