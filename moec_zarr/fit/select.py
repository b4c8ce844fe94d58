"""A chunk's transform, its network, or both: whichever has the smallest error in the bytes allowed.

The transform alone wins where the field is smooth or periodic, a network alone where few bytes meet
much structure, and a small network that corrects the transform in between. All are fitted, what they
reach is measured, the best is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from moec_zarr.arrays import Array, Bools, Floats
from moec_zarr.bitstream.container import FRAME, Section
from moec_zarr.fit.initialise import architecture_for, stencils_for
from moec_zarr.fit.payloads import DoesNotFit, network_payload
from moec_zarr.fit.presets import PRESETS, Preset, scaled
from moec_zarr.fit.rate_control import Transform, fit_transform, has_transform, squared_error
from moec_zarr.fit.runtime import chosen_device, torch_threads
from moec_zarr.fit.sampling import Field
from moec_zarr.fit.train import fit_network
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.features import feature_count
from moec_zarr.model.network import Architecture, Network
from moec_zarr.model.normalisation import Normalisation
from moec_zarr.settings import Settings

__all__ = ["Candidate", "fit"]

_log = logging.getLogger(__name__)
_LARGEST_SHIFT = 10  # octaves between half the range of the data and the scale they are fitted at
_DEVIATION_SAMPLES = 1 << 16  # voxels that the deviation is measured on
_CORRECTION_SHARE = 0.05  # of the bytes are for a network that corrects the transform
_CORRECTION_BYTES = 200  # that it has at least
_LONGER_FIT = 0.6  # of the error of a shorter fit: what a longer one may hope to reach
_STALLED = 2  # alternations without gain, after which the last one is made


@dataclass(frozen=True)
class Candidate:
    """What stands for a chunk's valid values, normalised by their range.

    Attributes
    ----------
    network : Network or None
    transform : Transform or None
        One of them at least.
    error : float
        Mean square error.
    """

    network: Network | None
    transform: Transform | None
    error: float

    def sections(self) -> dict[Section, bytes]:
        """The sections of a stream that it takes."""
        result = {}
        if self.network is not None:
            result[Section.MODEL] = network_payload(self.network)
        if self.transform is not None:
            result[Section.TRANSFORM] = self.transform.payload
        return result


def fit(
    array: Array,
    valid: Bools | None,
    normalisation: Normalisation,
    settings: Settings,
    budget: int,
    *,
    share: float = 1.0,
    progress: Callable[[float], None] = lambda share: None,
) -> Candidate:
    """Fit what a chunk and a byte budget call for.

    Parameters
    ----------
    array : array, every axis longer than one
        Never written to. A transform needs some copies of it in single precision.
    valid : bool array of the same shape, or None
        Which voxels are fitted; all where None.
    normalisation : Normalisation
        That of the valid values' range.
    settings : Settings
        Its effort, experts and seed count; its target is `budget`.
    budget : int
        Bytes that the sections may take; kept.
    share : float
        Of the effort's steps that are taken.
    progress : callable
        Called with the share done, about: half of it is for the transform, half for a network alone.

    Raises
    ------
    MoECError
        If ``moec_zarr.config`` asks for a device that is not there.
    DoesNotFit
        If the bytes suffice for no candidate.
    """
    voxels = array.size if valid is None else int(valid.sum())
    preset = scaled(PRESETS[settings.effort], voxels, share)
    task = _Task(Field(array, valid, normalisation), preset, settings, budget, chosen_device())

    def second_half(done: float) -> None:
        progress((1 + done) / 2)

    with torch_threads():
        best = None
        if has_transform(array.shape):
            best = _with_transform(task, lambda done: progress(done / 2))
        for part in (*preset.shorter, 1.0):
            target_error = math.inf if best is None else best.error
            shorter = replace(preset, steps=round(part * preset.steps), trial=preset.trial / part)
            report = second_half if part == 1.0 else lambda done: None
            candidate = _network_alone(replace(task, preset=shorter), target_error, report)
            best = _better(best, candidate)
            if candidate is None or _LONGER_FIT * candidate.error > target_error:
                break
    assert best is not None  # a network is given up for something better alone
    return best


@dataclass(frozen=True)
class _Task:
    """What all candidates are fitted to, and how."""

    field: Field
    preset: Preset
    settings: Settings
    budget: int
    device: str

    def error(self, values: Floats, target: Floats) -> float:
        """Mean square error of values, which a decoder clips to the range of the data."""
        valid = self.field.valid
        voxels = target.size if valid is None else int(valid.sum())
        return squared_error(np.clip(values, -1, 1), target, valid) / voxels


def _logged(candidate: Candidate) -> Candidate:
    """The same, logged."""
    names = {"transform": candidate.transform, "network": candidate.network}
    parts = " and ".join(name for name, part in names.items() if part is not None)
    _log.info("%s: mean square error %.4g", parts, candidate.error)
    return candidate


def _better(one: Candidate | None, other: Candidate | None) -> Candidate | None:
    """Whichever has the smaller error, of those that there are."""
    if one is None or other is None:
        return one or other
    return one if one.error <= other.error else other


def _with_transform(task: _Task, progress: Callable[[float], None]) -> Candidate | None:
    """The transform alone or corrected by a network; None where the bytes suffice for neither."""
    field = task.field
    target = np.empty(field.array.shape, np.float32)
    for row in range(len(target)):  # at most a row in double precision
        target[row] = field.targets(row)
    if field.valid is not None:
        target[~field.valid] = 0
    alone = None
    if task.settings.experts is None:  # else a network is asked for
        transform = fit_transform(target, field.valid, task.budget, basis_trials=task.preset.basis_trials)
        if transform is not None:
            values = CoefficientField(transform.coefficients).whole()
            alone = _logged(Candidate(None, transform, task.error(values, target)))
    warm_start = alone.transform.coefficients if alone and alone.transform else None
    return _better(alone, _corrected(task, target, warm_start, progress))


def _corrected(
    task: _Task, target: Floats, warm_start: Coefficients | None, progress: Callable[[float], None]
) -> Candidate | None:
    """A transform and a network that corrects it, each fitted in turn to what the other leaves.

    The best of the alternations. Where values may lie beyond the range of the data, because a decoder
    clips them, or at invalid voxels, the transform is left as it is.
    """
    valid, preset = task.field.valid, task.preset
    correction = max(int(_CORRECTION_SHARE * task.budget), _CORRECTION_BYTES)
    if correction > task.budget // 3:
        return None
    best: Candidate | None = None
    network: Network | None = None
    aim, stalled, last = target, 0, False
    for turn in range(preset.alternations):
        last = last or turn + 1 == preset.alternations
        transform = fit_transform(
            aim,
            None if turn else valid,
            task.budget - correction,
            warm_start,
            basis_trials=preset.basis_trials,
        )
        if transform is None:
            break
        warm_start = transform.coefficients
        field = CoefficientField(warm_start)
        base = field.whole()
        steps, number = preset.correction_steps, turn
        if last:
            steps, number = preset.final_steps, preset.alternations - 1
        short = replace(task, preset=replace(preset, steps=steps, starts=preset.starts[:1]))
        room = task.budget - len(transform.payload) - FRAME - base.ndim
        try:
            network = _correction(short, base, field.norm, room, number, network)
        except DoesNotFit:
            break
        values = np.clip(_on_whole_grid(network, field), -1, 1)
        better = _better(best, _logged(Candidate(network, transform, task.error(values, target))))
        stalled = 0 if better is not best else stalled + 1
        best = better
        progress((turn + 1) / preset.alternations)
        if last:
            break
        last = stalled == _STALLED
        aim = base + (target - values)
        if valid is not None:
            aim[~valid] = base[~valid]
    return best


def _correction(
    task: _Task, base: Floats, norm: float, budget: int, turn: int, initial: Network | None
) -> Network:
    """A network that reads and corrects the transform `base`; from `initial`, if any."""
    if initial is None:
        stencils = stencils_for(base, norm)
        features = feature_count(len(stencils))
        architecture = architecture_for(base.ndim, budget, task.settings.experts, features)
    else:
        stencils, architecture = initial.stencils, initial.architecture
    field = replace(task.field, base=base, stencils=stencils, norm=norm)
    result = _network(replace(task, field=field), architecture, budget, turn, initial)
    assert result is not None  # no error is too large to go on
    return replace(result[0], stencils=stencils)


def _network_alone(task: _Task, target_error: float, progress: Callable[[float], None]) -> Candidate | None:
    """A network alone; None where it would not come near the target."""
    architecture = architecture_for(task.field.array.ndim, task.budget, task.settings.experts)
    try:
        result = _network(task, architecture, task.budget, 0, None, target_error, progress)
    except DoesNotFit:
        if target_error == math.inf:
            raise
        return None
    return None if result is None else _logged(Candidate(result[0], None, result[1]))


def _network(
    task: _Task,
    architecture: Architecture,
    budget: int,
    turn: int,
    initial: Network | None,
    target_error: float = math.inf,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Network, float] | None:
    """A network for what the transform leaves of a field, and its mean square error."""
    field, seed = task.field, task.settings.seed + turn
    generator = torch.Generator().manual_seed(seed)
    sample = field.targets(field.draw(_DEVIATION_SAMPLES, generator))
    deviation = float(sample.std(dtype=np.float64))
    # Fitted at the scale of their deviation, rounded to a power of two of their range, the data
    # suit the learning rate, and the decoder's step codes alone undo it.
    shift = min(max(round(-math.log2(deviation)), 0), _LARGEST_SHIFT) if deviation else 0
    shifted = replace(field, normalisation=replace(field.normalisation, shift=shift))
    return fit_network(
        shifted, architecture, task.preset, budget,
        initial=initial, seed=seed, device=task.device, target_error=target_error, progress=progress,
    )  # fmt: skip


def _on_whole_grid(network: Network, field: CoefficientField) -> Floats:
    """The transform and the network that corrects it on the whole grid."""
    out = np.empty(field.shape, np.float32)
    for tile, values in evaluate(network, field, field.shape, [np.arange(n) for n in field.shape]):
        out[tile] = values
    return out
