"""The smallest transform within a mean square error: its step, found from the errors of others."""

from __future__ import annotations

import logging
import math

import numpy as np

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.contexts import Context
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.transform.basis_search import energy_of
from moec_zarr.fit.transform.expert_fit import Restoration
from moec_zarr.fit.transform.heads import is_advised
from moec_zarr.fit.transform.inpainting import fill_smoothly
from moec_zarr.fit.transform.rdoq import SAME_CONTEXT, forget_many, place_coefficients, quantise_at
from moec_zarr.fit.transform.restoration import restore_within
from moec_zarr.fit.transform.start import (
    Transform,
    encode_transform,
    estimate_count,
    find_start,
    finest_step,
    fold_grid,
    mean_error,
)
from moec_zarr.fit.transform.straighten import straighten
from moec_zarr.model.coefficients import CoefficientField, Coefficients

__all__ = ["fit_transform_to_error"]

_log = logging.getLogger(__name__)
_FITS = 4, 4  # steps of the optimiser of the context at each step
_SAME_STEP = 1.002  # of two steps: nothing lies between them
_EARLY_ROUNDS = 4
_ERROR_ROUNDS = 24  # at most, on the way to an error
_LEAST_ERROR = 1e-60  # in place of 0, where integers times the step hit all coefficients exactly
# Of the error's logarithm over the step's, to begin with: more of it with the root of the share that is not
# zero, and at most that of all.
_ERROR_SLOPE = 1.2, 1.05, 2.0
_LEAST_MOVE = 0.04  # of the step's logarithm, from which the slope is found
_AIM_ERROR = 0.983  # of an error asked for
_CLOSE_ERROR = 0.965  # of it: near enough
_LATE_CLOSE_ERROR = 0.9  # the same, after some rounds
_MEASURED = 0.8, 1.25  # between these ratios to it, the voxels' error is measured


def fit_transform_to_error(
    target: Floats,
    valid: Bools | None,
    error: float,
    zero: float = 0.0,
    shared: Dictionary | None = None,
) -> tuple[Transform, float] | None:
    """Fit the smallest transform within a mean square error; return its error too. None if none reaches it.

    Parameters
    ----------
    target, valid
        As for :func:`fit_transform`.
    error : float
        Mean over the valid voxels, of values that are clipped to -1..1 as a decoder does.
    zero : float
        The target of zero, as :func:`moec_zarr.fit.transform.straighten.straighten` takes it.
    shared : Dictionary, optional
        As for :func:`fit_transform`.
    """
    if valid is not None:
        target = np.where(valid, target, np.float32(0))
    shape = target.shape
    target, valid = fold_grid(target, valid)
    whole = target if valid is None else fill_smoothly(target, valid)
    count, start = max(1, estimate_count(whole, error)), None
    while start is None and count <= whole.size:  # of few coefficients none may be worth its bytes
        start = find_start(whole, valid, count, None, shared)
        count *= 4
    if start is None:
        return None
    search, parameters, first = start
    advised = is_advised(shared, search.bases, whole.shape)
    energy, voxels, finest = energy_of(search.flat), search.flat.size, finest_step(search)
    # The error of coefficients is about that of the voxels; how nearly is measured.
    share = np.count_nonzero(first.magnitudes) / voxels
    slope = min(_ERROR_SLOPE[0] + _ERROR_SLOPE[1] * math.sqrt(share), _ERROR_SLOPE[2])
    ratio, last, step, fitted, nearest = 1.0, (0.0, 0.0), first.step, math.inf, first
    if valid is None:  # else these are not the coefficients that the first integers stand for
        last = first.step, max((energy + first.error) / voxels, _LEAST_ERROR)
        step *= _finer(last[1], error, slope)
    fine, coarse = 0.0, math.inf  # steps that keep the error, and that do not
    best: tuple[Coefficients, Context, float, Restoration | None] | None = None
    for turn in range(_ERROR_ROUNDS):
        if not fine < step < coarse:
            step = math.sqrt(fine * coarse) if fine > 0 and coarse < math.inf else (2 * fine or coarse / 2)
        if step < finest or coarse < _SAME_STEP * fine:
            break
        anew = not 1 / SAME_CONTEXT < step / fitted < SAME_CONTEXT
        parameters, quantised = quantise_at(search, parameters, step, _FITS if anew else (), last=nearest)
        if quantised is None:
            coarse = step
            continue
        fitted, nearest = step if anew else fitted, quantised
        own = max((energy + quantised.error) / voxels, _LEAST_ERROR)
        _log.debug("step %.4g: a mean square error of about %.3g for %.3g", step, ratio * own, error)
        moved = math.log(quantised.step / last[0]) if last[0] else 0.0
        if abs(moved) > _LEAST_MOVE and own != last[1]:
            slope = min(max(math.log(own / last[1]) / moved, 0.5), 2.5)
        last, measured = (quantised.step, own), ratio * own
        if _MEASURED[0] < measured / error < _MEASURED[1] or (best is None and measured <= error):
            forget_many(search)
            found = place_coefficients(search, quantised)
            values = CoefficientField(found).whole()
            if (better := next(straighten(found, values, target, valid, zero), None)) is not None:
                found, values = better, CoefficientField(better).whole()
            measured, restoration = max(mean_error(values, target, valid), _LEAST_ERROR), None
            if target.shape == shape:
                nbytes = max(1, round(quantised.bits / 8))
                restored = restore_within(values, target, valid, zero, nbytes, shared=shared, advised=advised)
                if restored is not None:
                    restoration, measured, _ = restored
            if measured <= error and (best is None or measured > best[2]):
                best = found, quantised.context, measured, restoration
            close = _CLOSE_ERROR if turn < _EARLY_ROUNDS else _LATE_CLOSE_ERROR
            if best is not None and (best[2] > close * error or turn >= 4 * _EARLY_ROUNDS):
                break
            ratio = measured / own
        if measured <= error:
            fine = step
        else:
            coarse = step
        step = quantised.step * _finer(ratio * own, error, slope)
    if best is None:
        return None
    found, context, measured, restoration = best
    transform = encode_transform(found, context, shape, search.shared)
    return transform._replace(restoration=restoration), measured


def _finer(own: float, error: float, slope: float) -> float:
    """By how much a step is to be larger, for an error that is to be another."""
    return float(min(max((_AIM_ERROR * error / own) ** (1 / slope), 0.1), 10.0))
