"""Candidates with a network: one that corrects a transform, or one alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from moec_zarr.arrays import Floats
from moec_zarr.bitstream.container import FRAME
from moec_zarr.fit.candidates import Candidate, choose_better
from moec_zarr.fit.field import Field
from moec_zarr.fit.network.group import fit_in_group
from moec_zarr.fit.network.initialise import architecture_for, stencils_for
from moec_zarr.fit.network.network_fit import prepare_fit
from moec_zarr.fit.network.train import Fitted
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.fit.presets import Preset
from moec_zarr.fit.transform.rate_control import fit_transform
from moec_zarr.fit.transform.start import mean_error
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.decode_torch import evaluate_on
from moec_zarr.model.device_torch import on_device
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.features import feature_count
from moec_zarr.model.network import Architecture, Network
from moec_zarr.runtime import choose_device
from moec_zarr.settings import Settings

__all__ = ["fit_alone", "fit_corrected", "probe_correction"]

_LARGEST_SHIFT = 10  # octaves between half the range of the data and the scale they are fitted at
_DEVIATION_SAMPLES = 1 << 16  # voxels that the deviation is measured on
_CORRECTION_SHARE = 0.05  # of the bytes are for a network that corrects the transform
_CORRECTION_BYTES = 200  # that it has at least
_FURTHER = 0.95  # of the error of the first alternation, at least, that is left by all of them
_STALLED = 2  # alternations without gain, after which the last one is made


def probe_correction(
    field: Field, settings: Settings, preset: Preset, budget: int, alone: Candidate
) -> float:
    """Train a network for a moment to correct a transform; return the share of the error that it leaves.

    This is 1 where the bytes pay for no such network.
    """
    correction = _correction_bytes(budget)
    if correction is None or alone.transform is None:
        return 1.0
    transform = alone.transform.field()
    based = replace(field, base=transform.whole(), norm=transform.norm)
    short = replace(
        preset, steps=preset.screening_steps, batch=preset.batch // 4, allocations=1, starts=preset.starts[:1]
    )
    try:
        fitted = _fit_correction(based, settings, short, correction, 0, None)
    except DoesNotFit:
        return 1.0
    return fitted.error / fitted.before if fitted.before else 1.0


def fit_corrected(
    field: Field,
    settings: Settings,
    preset: Preset,
    budget: int,
    target: Floats,
    alone: Candidate | None,
    target_error: float,
    progress: Callable[[float], None],
) -> Candidate | None:
    """Fit a transform and a network that corrects it, each in turn to what the other leaves.

    The best of the alternations is returned. They start from the bases and the step of `alone`, the
    transform alone, and end after the first where further ones are not expected to reach the target. Where
    values may lie beyond the range of the data, because a decoder clips them, or at invalid voxels, the
    transform is left as it is.
    """
    valid = field.valid
    correction = _correction_bytes(budget)
    if correction is None:
        return None
    best: Candidate | None = None
    network: Network | None = None
    warm_start = alone.transform.coefficients if alone and alone.transform else None
    aim, stalled, last = target, 0, False
    for turn in range(preset.alternations):
        last = last or turn + 1 == preset.alternations
        transform = fit_transform(aim, None if turn else valid, budget - correction, warm_start)
        if transform is None:
            break
        warm_start = transform.coefficients
        coefficients = CoefficientField(warm_start)
        base = coefficients.whole()
        steps, number = preset.correction_steps, turn
        if last:
            steps, number = preset.final_steps, preset.alternations - 1
        short = replace(preset, steps=steps, starts=preset.starts[:1])
        room = budget - transform.nbytes - FRAME - base.ndim
        based = replace(field, base=base, norm=coefficients.norm)
        try:
            network = _fit_correction(based, settings, short, room, number, network).network
        except DoesNotFit:
            break
        values = np.clip(_on_whole_grid(network, coefficients), -1, 1)
        kept = choose_better(best, Candidate(network, transform, mean_error(values, target, valid)).log())
        stalled = 0 if kept is not best else stalled + 1
        best = kept
        progress((turn + 1) / preset.alternations)
        if last or (turn == 0 and best and _FURTHER * best.error > target_error):
            break
        last = stalled == _STALLED
        aim = base + (target - values)
        if valid is not None:
            aim[~valid] = base[~valid]
    return best


def _correction_bytes(budget: int) -> int | None:
    """Return the bytes of a network that corrects a transform; None where there are too few for one."""
    correction = max(int(_CORRECTION_SHARE * budget), _CORRECTION_BYTES)
    return None if correction > budget // 3 else correction


def _fit_correction(
    field: Field, settings: Settings, preset: Preset, budget: int, turn: int, initial: Network | None
) -> Fitted:
    """Fit a network that reads and corrects the field's base; from `initial`, if any."""
    assert field.base is not None
    if initial is None:
        stencils = stencils_for(field.base, field.norm)
        features = feature_count(len(stencils))
        architecture = architecture_for(field.base.ndim, budget, settings.experts, features)
    else:
        stencils, architecture = initial.stencils, initial.architecture
    field = replace(field, stencils=stencils)
    result = _fit_network(field, settings.seed + turn, preset, architecture, budget, initial)
    assert result is not None  # no error is too large to go on
    return result._replace(network=replace(result.network, stencils=stencils))


def fit_alone(
    field: Field,
    settings: Settings,
    preset: Preset,
    budget: int,
    target_error: float,
    progress: Callable[[float], None],
) -> Candidate | None:
    """Fit a network without a transform; None where it stays far from the target, or has too few bytes."""
    architecture = architecture_for(field.array.ndim, budget, settings.experts)
    try:
        result = _fit_network(
            field, settings.seed, preset, architecture, budget, None, target_error, progress
        )
    except DoesNotFit:
        return None
    return None if result is None else Candidate(result.network, None, result.error).log()


def _fit_network(
    field: Field,
    seed: int,
    preset: Preset,
    architecture: Architecture,
    budget: int,
    initial: Network | None,
    target_error: float = math.inf,
    progress: Callable[[float], None] = lambda share: None,
) -> Fitted | None:
    """Return a network for what the transform leaves of a field, and its mean square error."""
    generator = torch.Generator().manual_seed(seed)
    sample = field.targets(field.draw(_DEVIATION_SAMPLES, generator))
    deviation = float(sample.std(dtype=np.float64))
    # Fitted at the scale of their deviation, rounded to a power of two of their range, the data
    # suit the learning rate, and the decoder's step codes alone undo it.
    shift = min(max(round(-math.log2(deviation)), 0), _LARGEST_SHIFT) if deviation else 0
    shifted = replace(field, normalisation=replace(field.normalisation, shift=shift))
    fit = prepare_fit(
        shifted, architecture, preset, budget,
        initial=initial, seed=seed, target_error=target_error, progress=progress,
    )  # fmt: skip
    outcome = fit_in_group(fit)
    if isinstance(outcome, DoesNotFit):
        raise outcome
    return outcome


def _on_whole_grid(network: Network, field: CoefficientField) -> Floats:
    """Return the transform and the network that corrects it on the whole grid."""
    voxels = [range(n) for n in field.shape]
    if (device := choose_device()) != "cpu":
        with on_device(device) as own:
            return evaluate_on(own, network, field, field.shape, voxels)
    out = np.empty(field.shape, np.float32)
    for tile, values in evaluate(network, field, field.shape, voxels):
        out[tile] = values
    return out
