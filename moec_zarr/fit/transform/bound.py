"""A transform and the corrections that keep an absolute error, in the fewest bytes together.

A finer step leaves less to correct and takes more bytes itself. As in SPERR (Li, Lindstrom and Clyne,
IPDPS 2023), values that a transform leaves outside the bound are corrected one by one; here the step is
searched for, since the best one is between one and many times the bound, by the field's noise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT
from moec_zarr.bitstream.residual import write_residual
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.advice import read_advice
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.fit.transform.context_fit import Parameters
from moec_zarr.fit.transform.heads import is_advised
from moec_zarr.fit.transform.inpainting import fill_smoothly
from moec_zarr.fit.transform.rdoq import Quantised, Search, place_coefficients, quantise_at
from moec_zarr.fit.transform.restoration import restore_within
from moec_zarr.fit.transform.start import (
    DENSEST,
    Transform,
    encode_transform,
    estimate_count,
    find_start,
    finest_step,
    fold_grid,
)
from moec_zarr.fit.transform.voxel_context import estimate_voxel_bits, find_corrections, fit_voxel_context
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.folding import fold
from moec_zarr.model.residual import Residual

__all__ = ["BOTH_TRIED", "encode_residual", "find_corrections", "fit_transform_to_bound"]

BOTH_TRIED = 1 << 15
"""Number of voxels up to which corrections alone are encoded too: an estimate says little of so few."""

_log = logging.getLogger(__name__)
_FIRST_STEPS = 2.2, 6.0, 32.0  # of the bound: for smooth fields the first one is the best
_LEAST_BYTES = 0.4  # of each coefficient that wavelets need, about, corrections among them
_SOON_BETTER = 1.035  # times what is wanted that its first steps take at most
_MISJUDGED = 1.4  # times what is wanted that these are at most, where a transform is of use
_WIDER = 2.5  # from one step that is tried to the next, where none is known beyond
_WORSE = 1.02  # times the fewest bytes: no step that is better lies near
_NOISE = 1.0  # bits a voxel of a transform, from which it leaves white noise that no experts know more of
_SMOOTH = 1.2  # bits a voxel: where all takes fewer, the first step is the best
_LATER_STEPS = 3  # that are tried, at most
_FITS = (5,)  # steps of the optimiser of the context at each step
_NEAR = 1.25  # between two steps: not worth another look
_ERROR = 0.4  # root mean square error of the transform, of the bound, about
_CONTEXT_STEPS = 8
_SAMPLED = 1 << 21  # voxels that the context of corrections is fitted to, in a few slabs
_SLABS = 4


class _BoundTrial(NamedTuple):
    """What a step takes, in bits with all corrections; infinite where it can have no transform."""

    step: float
    bits: float
    quantised: Quantised | None


def fit_transform_to_bound(
    target: Floats,
    valid: Bools | None,
    bound: float,
    limit: float = math.inf,
    shared: Dictionary | None = None,
) -> Transform | None:
    """Fit the transform that takes the fewest bytes together with its corrections; None if none pays.

    Of up to `BOTH_TRIED` voxels the caller finds out whether it does.

    Parameters
    ----------
    target : float32 array
        No axis of one voxel.
    valid : bool array of the same shape, or None
        Which voxels keep the bound; all where None.
    bound : float
        Largest absolute error, in units of the target.
    limit : float
        Bytes that it is to be smaller than, with its corrections.
    shared : Dictionary, optional
        As for `fit_transform`; where it advises a step, that one is taken.

    Raises
    ------
    DoesNotFit
        If the first looks at it say that it takes more.
    """
    if valid is not None:
        target = np.where(valid, target, np.float32(0))
    shape = target.shape
    target, valid = fold_grid(target, valid)
    whole = target if valid is None else fill_smoothly(target, valid)
    advised = read_advice(shared).step
    count = min(estimate_count(whole, (_ERROR * bound) ** 2), int(DENSEST * target.size))
    if advised is None and _LEAST_BYTES * count > _MISJUDGED * limit:
        raise DoesNotFit(f"a transform of about {count} coefficients takes far more than {limit:.0f} bytes")
    start = find_start(whole, valid, count, None, shared) if count else None
    if start is None:
        return None
    search, parameters, last = start
    finest = finest_step(search)
    bits: dict[float, float] = {}  # of each step that was tried
    best = _BoundTrial(math.nan, math.inf, None)

    def tried(step: float) -> _BoundTrial:
        nonlocal parameters, last, best
        step = max(step, finest)
        parameters, trial = _trial(search, parameters, step, last, target, valid, bound)
        last = trial.quantised or last
        _log.debug("step %.3g bounds: about %.0f bytes", step / bound, trial.bits / 8)
        bits[step] = trial.bits
        if trial.bits < best.bits:
            best = trial
        return trial._replace(quantised=None)  # that of the best one alone is kept

    # Noise is best left to corrections, smooth fields to the transform; between the two steps may lie a hill.
    for factor in _FIRST_STEPS if advised is None else (advised,):
        if max(factor * bound, finest) in bits:
            continue
        own = tried(factor * bound).bits
        if math.inf > best.bits > 8 * _SOON_BETTER * limit:
            raise DoesNotFit(f"a transform takes about {best.bits / 8:.0f} bytes, {limit:.0f} are wanted")
        if own > _WORSE * best.bits or best.bits < _SMOOTH * target.size:
            break
    # Finer ones than the first leave next to nothing to correct.
    if advised is None and best.step > min(bits):
        for _ in range(_LATER_STEPS):
            step = max(_lowest(bits), finest)
            if any(max(step / other, other / step) < _NEAR for other in bits):
                break
            tried(step)
    if best.quantised is None:
        return None
    found = place_coefficients(search, best.quantised)
    try:
        transform = encode_transform(found, best.quantised.context, shape, search.shared)
    except DoesNotFit:
        return None
    own = best.bits - best.quantised.bits + 8 * transform.nbytes
    if target.size > BOTH_TRIED and not _pays(own, target, valid, bound):
        return None
    if target.shape != shape or 8 * len(transform.payload) > _NOISE * target.size:
        return transform
    return _restored(transform, target, valid, bound, shared)


def _restored(
    transform: Transform, target: Floats, valid: Bools | None, bound: float, shared: Dictionary | None
) -> Transform:
    """Return a transform with experts, if these save more bits of corrections than they take."""
    values = CoefficientField(transform.coefficients).whole()
    advised = is_advised(shared, transform.coefficients.bases, target.shape)
    restored = restore_within(
        values, target, valid, 0.0, len(transform.payload), shared=shared, advised=advised
    )
    if restored is None:
        return transform
    better = transform._replace(restoration=restored.restoration)
    own, other = (
        8 * each.nbytes + _estimate_bits(target, decoded, valid, bound)
        for each, decoded in ((transform, values), (better, restored.values))
    )
    return better if other < own else transform


def _pays(bits: float, target: Floats, valid: Bools | None, bound: float) -> bool:
    """Say whether a transform and its corrections take fewer bits than corrections alone."""
    alone = find_corrections(target, np.zeros(1, target.dtype), valid, bound)
    if bits <= np.count_nonzero(alone):  # each takes a sign at least
        return True
    return bits <= estimate_voxel_bits(np.asarray(fold(alone), np.int32))


def _trial(
    search: Search,
    known: Parameters | None,
    step: float,
    last: Quantised,
    target: Floats,
    valid: Bools | None,
    bound: float,
) -> tuple[Parameters | None, _BoundTrial]:
    parameters, quantised = quantise_at(search, known, step, _FITS, last=last)
    search.kept.clear()  # the next step is too far for them
    if quantised is None:
        return parameters, _BoundTrial(step, math.inf, None)
    values = CoefficientField(place_coefficients(search, quantised)).whole()
    bits = quantised.bits + _estimate_bits(target, values, valid, bound)
    return parameters, _BoundTrial(step, bits, quantised)


def _lowest(bits: Mapping[float, float]) -> float:
    """Return the step at the vertex of the parabola through the best step and its neighbours.

    The best one is not the finest. A coarser step than all, where it is the coarsest.
    """
    known = sorted((step, own) for step, own in bits.items() if own < math.inf)
    number = min(range(len(known)), key=lambda i: known[i][1])
    if number == len(known) - 1:
        return known[number][0] * _WIDER
    near = np.array(known[number - 1 : number + 2])
    x = np.log(near[:, 0]) - math.log(known[number][0])
    curvature, slope, _ = np.polyfit(x, near[:, 1], 2)
    lowest = -slope / (2 * curvature) if curvature > 0 else 0.0
    return float(known[number][0] * math.exp(min(max(lowest, x[0] / 2), x[2] / 2)))


def _estimate_bits(target: Floats, values: Floats, valid: Bools | None, bound: float) -> float:
    """About how many bits the corrections of decoded values take."""
    return estimate_voxel_bits(np.asarray(fold(find_corrections(target, values, valid, bound)), np.int32))


def _sampled(corrections: NDArray[np.int32]) -> NDArray[np.int32]:
    """Corrections in their folded shape; of many, slabs along the longest axis."""
    inner = np.asarray(fold(corrections), np.int32)
    if inner.size <= _SAMPLED:
        return inner
    axis = int(np.argmax(inner.shape))
    length = inner.shape[axis]
    side = max(1, length * _SAMPLED // inner.size // _SLABS)
    starts = np.linspace(0, length - side, _SLABS).astype(int)
    parts = [inner[(slice(None),) * axis + (slice(at, at + side),)] for at in starts]
    return np.concatenate(parts, axis)


def encode_residual(residual: Residual) -> bytes:
    """Encode the section of a residual, with the context that suits it.

    Raises
    ------
    DoesNotFit
        If a correction is too large.
    """
    corrections = residual.corrections
    if corrections is None:
        return write_residual(residual, None)
    if int(np.abs(corrections).max()) > MAX_COEFFICIENT:
        raise DoesNotFit("a correction is too large to be coded")
    sample = _sampled(corrections)
    if not sample.any():
        sample = np.asarray(fold(corrections), np.int32)
    return write_residual(residual, fit_voxel_context(sample, _CONTEXT_STEPS))
