"""A chunk's transform, its network, or both: whichever has the smallest error in the bytes allowed.

The transform alone wins where the field is smooth or periodic, a network alone where few bytes meet
much structure, and a small network that corrects the transform in between. All that the effort and
the settings allow are fitted, what they reach is measured, the best is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from moec_zarr.arrays import Floats
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.candidates import Candidate, choose_better
from moec_zarr.fit.field import Field
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.fit.presets import PRESETS, scale_preset
from moec_zarr.fit.transform.error_control import fit_transform_to_error
from moec_zarr.fit.transform.expert_fit import fit_experts, restore_within
from moec_zarr.fit.transform.rate_control import (
    begin_transform,
    fit_mean,
    smallest_transform,
    straighten_within,
)
from moec_zarr.fit.transform.start import Transform, mean_error
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.folding import folded_shape
from moec_zarr.runtime import torch_threads
from moec_zarr.settings import Settings

__all__ = ["fit", "fit_to_error", "smallest_fit", "smallest_network"]

_SMALLEST_NETWORK = 110  # bytes of the section that the smallest network fits into
_SECTION = 3  # bytes of a small section's number and length, at most
_DECIDED = 0.6  # of the transform's error: a network alone below it leaves no room for a correction


def fit(
    field: Field,
    settings: Settings,
    budget: int,
    *,
    share: float = 1.0,
    progress: Callable[[float], None] = lambda share: None,
) -> Candidate:
    """Fit what a chunk and a byte budget call for.

    Parameters
    ----------
    field : Field
        The chunk, every axis longer than one. A transform needs some copies of it in single precision.
    settings : Settings
        Its model, effort, experts and seed count; its target is `budget`.
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
    ModuleNotFoundError
        If a network is to be fitted and torch is not installed.
    DoesNotFit
        If the bytes suffice for no candidate.
    """
    shape, valid = field.array.shape, field.valid
    voxels = field.array.size if valid is None else int(valid.sum())
    presets = [scale_preset(preset, voxels, share) for preset in PRESETS[settings.effort]]
    target = None
    if settings.model != "network":
        target = field.normalised()
    best = plain = None
    if target is not None and settings.experts is None:  # else a network is asked for
        plain, best = _fit_transform(field, target, budget, settings.shared)
    enough = best is None or budget >= smallest_network(len(shape), settings.experts)
    if enough and settings.has_networks:
        from moec_zarr.fit import networks

        def to_beat() -> float:  # clipping is no matter of theirs
            own = plain if best is not None and best.is_straightened else best
            return math.inf if own is None else own.error

        with torch_threads():
            for turn, preset in enumerate(presets):
                start, part = turn / len(presets), 1 / len(presets)

                def report(done: float, start: float = start, part: float = part) -> None:
                    progress(start + part * done)

                target_error = to_beat()
                alone = networks.fit_alone(
                    field, settings, preset, budget, target_error, lambda done: report(done / 2)
                )
                best = choose_better(best, alone)
                if target is None or (alone and alone.error < _DECIDED * target_error):
                    continue
                target_error = to_beat()
                corrected = networks.fit_corrected(
                    field, settings, preset, budget, target, plain, target_error,
                    lambda done: report((1 + done) / 2),
                )  # fmt: skip
                best = choose_better(best, corrected)
    if best is None:
        raise DoesNotFit(f"nothing fits into {budget} bytes")
    return best


def _fit_transform(
    field: Field, target: Floats, budget: int, shared: Dictionary | None
) -> tuple[Candidate | None, Candidate | None]:
    """Fit a transform alone, then make it right in the mean and restore it; return both.

    Experts that a first transform is worth take their bytes off those of the next one, which has its bases.
    """
    valid, zero = field.valid, field.zero

    def finish(transform: Transform, kept: int) -> tuple[Candidate, Candidate, Floats]:
        """Return it alone, made right in the mean where all but so many bytes hold that, and its values."""
        values = CoefficientField(transform.coefficients).whole()
        plain = best = Candidate(None, transform, mean_error(values, target, valid)).log()
        better = straighten_within(transform, values, target, valid, zero, budget - kept)
        if better is not transform:
            values = CoefficientField(better.coefficients).whole()
            best = Candidate(None, better, mean_error(values, target, valid)).log()
        return plain, best, values

    begun = begin_transform(target, valid, budget, shared=shared)
    worth = None
    if begun is not None and folded_shape(target.shape) == target.shape:
        worth = fit_experts(begun.values(), target, valid, budget)
    kept = 0 if worth is None else len(worth.payload) + _SECTION
    earlier: Candidate | None = None
    if begun and worth and (transform := begun.finish(budget - kept)) is not None:
        plain, best, values = finish(transform, kept)
        assert best.transform is not None
        room = budget - best.transform.nbytes - _SECTION
        found = restore_within(values, target, valid, zero, budget, room, known=worth.experts)
        if found is not None:
            restored = best.transform._replace(restoration=found.restoration)
            return plain, Candidate(None, restored, found.error).log()
        earlier = best
    transform = None if begun is None else begun.finish(budget)  # all bytes are the transform's
    if transform is None and earlier is None and budget >= smallest_transform(target.shape):
        transform = fit_mean(target, valid)
    if transform is None:
        return earlier, earlier
    plain, best, _ = finish(transform, 0)
    return plain, choose_better(earlier, best)


def smallest_network(axes: int, experts: int | None) -> int:
    """Return bytes of a network's section that the smallest one fits into: its gate has whole weights."""
    gate = 0 if experts in (None, 1) else 8 + experts * (axes + 1.5)
    return _SMALLEST_NETWORK + math.ceil(gate)


def smallest_fit(shape: tuple[int, ...], settings: Settings) -> int:
    """Return the bytes of the smallest section that may be fitted to a grid."""
    if settings.model != "network" and settings.experts is None:
        return smallest_transform(shape)
    return smallest_network(len(shape), settings.experts)


def fit_to_error(field: Field, error: float, shared: Dictionary | None = None) -> Candidate:
    """Fit the smallest transform alone that keeps a mean square error, of normalised values.

    Parameters
    ----------
    field : Field
        As for :func:`fit`.
    error : float
        Mean square error that is not exceeded.
    shared : Dictionary, optional
        What chunks of the same variable share.

    Raises
    ------
    DoesNotFit
        If no transform keeps it.
    """
    result = fit_transform_to_error(field.normalised(), field.valid, error, field.zero, shared)
    if result is None:
        raise DoesNotFit(f"no transform keeps a mean square error of {error:.3g}")
    return Candidate(None, *result).log()
