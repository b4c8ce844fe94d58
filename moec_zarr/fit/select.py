"""A chunk's transform, its network, or both: whichever has the smallest error in the bytes allowed.

The transform alone wins where the field is smooth or periodic, a network alone where few bytes meet
much structure, and a small network that corrects the transform in between. All that the effort and
the settings allow are fitted, what they reach is measured, the best is kept. Effort "balanced" fits networks
where one that is trained for a moment promises a gain.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from moec_zarr.arrays import Floats
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.candidates import Candidate, choose_better
from moec_zarr.fit.field import Field
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.fit.presets import PRESETS, Preset, scale_preset
from moec_zarr.fit.transform.error_control import fit_transform_to_error
from moec_zarr.fit.transform.heads import find_head, heads_for, is_advised
from moec_zarr.fit.transform.rate_control import (
    begin_transform,
    fit_mean,
    smallest_transform,
)
from moec_zarr.fit.transform.restoration import choose_experts, experts_of, may_restore, restore_within
from moec_zarr.fit.transform.straighten import measure_clipped, straighten_within, stretch_for_shift
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.folding import folded_shape
from moec_zarr.runtime import torch_threads
from moec_zarr.settings import Settings

__all__ = ["fit", "fit_to_error", "may_gain", "may_take_entries", "smallest_fit", "smallest_network"]

_log = logging.getLogger(__name__)
_SMALLEST_NETWORK = 110  # bytes of the section that the smallest network fits into
# Logarithm of the error that experts or a short network take off where a network alone may win, and more of
# it at a bit a voxel.
_SHARP = 0.035, 2.8
_CORRECTED = 0.988  # of its error, that a short network leaves where one that corrects it is worth a fit
_MANY = 2.0  # bits a voxel, from which experts are not fitted against the advice of a dictionary
_UNUSED = 0.005  # of a budget: more bytes than that are not left over
_DECIDED = 0.6  # of the transform's error: a network alone below it leaves no room for a correction


def fit(
    field: Field,
    settings: Settings,
    budget: int,
    *,
    spare: int = 0,
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
    spare : int
        Bytes that a transform may take too where it takes no entry of a dictionary.
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
    presets = [scale_preset(preset, _voxels(field), share) for preset in PRESETS[settings.effort]]
    target = None
    if settings.model != "network":
        target = field.normalised()
    best = plain = None
    if target is not None and settings.experts is None:  # else a network is asked for
        plain, best = _fit_transform(field, target, budget, spare, settings.shared)
    enough = best is None or budget >= smallest_network(field.array.ndim, settings.experts)
    if enough and settings.has_networks:
        with torch_threads():
            for turn, preset in enumerate(presets):

                def report(done: float, turn: int = turn) -> None:
                    progress((turn + done) / len(presets))

                best = _fit_networks(field, settings, preset, budget, target, plain, best, report)
    if best is None:
        raise DoesNotFit(f"nothing fits into {budget} bytes")
    return best


def _fit_networks(
    field: Field,
    settings: Settings,
    preset: Preset,
    budget: int,
    target: Floats | None,
    plain: Candidate | None,
    best: Candidate | None,
    progress: Callable[[float], None],
) -> Candidate | None:
    """Fit a network alone and one that corrects the transform; return the best of these and of `best`.

    Parameters
    ----------
    target : float32 array, or None
        Targets of a transform; None where there is to be none.
    plain, best : Candidate or None
        The transform alone, as it is and made better.
    progress : callable
        Called with the share done.
    """
    from moec_zarr.fit import networks

    def to_beat() -> float:  # clipping is no matter of theirs
        own = plain if best is not None and best.is_straightened else best
        return math.inf if own is None else own.error

    alone_pays = correction_pays = True
    if preset.screening_steps and plain is not None and best is not None:
        alone_pays, correction_pays = _probe(field, settings, preset, budget, plain, best)
    target_error = to_beat()
    if alone_pays:
        alone = networks.fit_alone(
            field, settings, preset, budget, target_error, lambda done: progress(done / 2)
        )
        best = choose_better(best, alone)
        if alone and alone.error < _DECIDED * target_error:
            return best
    if target is not None and correction_pays:
        corrected = networks.fit_corrected(
            field, settings, preset, budget, target, plain, to_beat(), lambda done: progress((1 + done) / 2)
        )
        best = choose_better(best, corrected)
    return best


def _probe(
    field: Field, settings: Settings, preset: Preset, budget: int, plain: Candidate, best: Candidate
) -> tuple[bool, bool]:
    """Say whether a network alone may beat a transform, and whether one may that corrects it.

    A network that corrects it is trained for a moment. One alone wins where few bytes meet sharp surfaces:
    there experts, or that network, gain much.
    """
    from moec_zarr.fit import networks

    if not best.error:  # nothing is left to a network
        return False, False
    left = networks.probe_correction(field, settings, preset, budget, best)
    _log.info("a short network leaves %.3f of the transform's error", left)
    gain = -math.log(min(left, best.error / plain.error))
    return gain > _SHARP[0] + _SHARP[1] * 8 * budget / field.array.size, left < _CORRECTED


def may_gain(field: Field, settings: Settings, budget: int, fitted: Candidate) -> bool:
    """Say whether networks are worth a fit to a chunk whose transform takes so many bytes.

    Parameters
    ----------
    field, settings, budget
        As for :func:`fit`.
    fitted : Candidate
        The transform.
    """
    preset = scale_preset(PRESETS[settings.effort][0], _voxels(field), 1.0)
    if not preset.screening_steps:
        return True
    with torch_threads():
        return any(_probe(field, settings, preset, budget, fitted, fitted))


def _voxels(field: Field) -> int:
    return field.array.size if field.valid is None else int(field.valid.sum())


def _fit_transform(
    field: Field, target: Floats, budget: int, spare: int, shared: Dictionary | None
) -> tuple[Candidate | None, Candidate | None]:
    """Fit a transform alone, then make it right in the mean and restore it; return both.

    Experts that a first transform is worth take their bytes off those of the next one, which has its bases.
    Spare bytes are there where nothing is taken from the dictionary.
    """
    valid, zero = field.valid, field.zero
    begun = begin_transform(target, valid, budget, shared=shared)
    worth = head = None
    if begun is not None and folded_shape(target.shape) == target.shape:
        head = find_head(shared, begun.bases, target.shape)
        # Of many bits a voxel experts gain little anyhow.
        advised = is_advised(shared, begun.bases, target.shape) or 8 * budget > _MANY * target.size
        if not advised or may_restore(shared, target.ndim):
            worth = choose_experts(begun.values(), target, valid, budget, shared=shared, advised=advised)
    alone = budget + (spare if head is None else 0)
    earlier: Candidate | None = None

    def left(kept: int) -> int:
        """Return the bytes that are there where the transform takes no entry."""
        return budget if kept and worth is not None and worth.is_shared else budget + spare

    def finish(kept: int, total: int) -> tuple[Candidate, int] | None:
        """Return it alone, and the bytes that it may take, which are all but those kept."""
        transform = None if begun is None else begun.finish(total - kept)
        if begun and transform and transform.entry is not None and transform.nbytes > budget - kept:
            total, transform = budget, begun.finish(budget - kept)
        elif begun and transform and transform.entry is None and total < left(kept) - _UNUSED * budget:
            other = begun.finish(left(kept) - kept)  # with the bytes that an entry would take
            if other is not None and other.entry is None:
                total, transform = left(kept), other
        if transform is None and not kept and earlier is None and budget >= smallest_transform(target.shape):
            transform = fit_mean(target, valid)
        if transform is None:
            return None
        values = CoefficientField(transform.coefficients).whole()
        error = measure_clipped(values, target, valid).error
        return Candidate(None, transform, error, values).log(), total - kept

    def make_right(plain: Candidate, room: int) -> Candidate:
        """Return it right in the mean, where so many bytes hold that."""
        assert plain.transform is not None
        assert plain.values is not None
        better = straighten_within(plain.transform, plain.values, target, valid, zero, room)
        return plain if better.transform is plain.transform else Candidate(None, *better).log()

    if worth is not None:
        total = budget if worth.is_shared else alone
        if (finished := finish(worth.nbytes, total)) is not None:
            plain, room = finished
            assert plain.transform is not None
            assert plain.values is not None
            own, values = stretch_for_shift(plain.transform, plain.values, target, valid), plain.values
            if own is not plain.transform:
                values = CoefficientField(own.coefficients).whole()
            rest = (left(worth.nbytes) if own.entry is None else budget) - own.nbytes
            found = restore_within(values, target, valid, zero, budget, rest, shared, known=worth)
            if found is not None:
                restored = own._replace(restoration=found.restoration)
                return plain, Candidate(None, restored, found.error, found.values).log()
            earlier = make_right(plain, room)
    if (finished := finish(0, alone)) is None:  # all bytes are the transform's
        return earlier, earlier
    plain = finished[0]
    return plain, choose_better(earlier, make_right(*finished))


def smallest_network(axes: int, experts: int | None) -> int:
    """Return bytes of a network's section that the smallest one fits into: its gate has whole weights."""
    gate = 0 if experts in (None, 1) else 8 + experts * (axes + 1.5)
    return _SMALLEST_NETWORK + math.ceil(gate)


def smallest_fit(shape: tuple[int, ...], settings: Settings) -> int:
    """Return the bytes of the smallest section that may be fitted to a grid."""
    if settings.model != "network" and settings.experts is None:
        return smallest_transform(shape)
    return smallest_network(len(shape), settings.experts)


def may_take_entries(shared: Dictionary | None, shape: tuple[int, ...]) -> bool:
    """Say whether a dictionary has heads or experts for transforms of a grid."""
    return bool(heads_for(shared, folded_shape(shape)) or experts_of(shared, len(shape)))


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
