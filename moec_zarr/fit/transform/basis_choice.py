"""The bases of a chunk: those of a dictionary or its own, and first integers in them."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import NamedTuple

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.coefficients import STEPS
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.advice import read_advice
from moec_zarr.fit.transform.basis_search import (
    RATE,
    Analyses,
    Bases,
    energy_of,
    estimate_separate,
    find_joint,
    find_separate,
    finest_of,
    measure,
    side_bits,
    wavelets_of,
)
from moec_zarr.fit.transform.context_fit import Parameters, real_parameters
from moec_zarr.fit.transform.heads import Head, find_head, heads_for
from moec_zarr.fit.transform.rdoq import Quantised, Search, forget_many, prepare_search, quantise_at
from moec_zarr.model.transform import analyse

__all__ = ["BasisTrial", "choose_bases", "try_bases"]

_log = logging.getLogger(__name__)
_FIRST_FITS = (6,)  # steps of the optimiser of the context, before bases are compared
_HEAD_FITS = 4, 4  # the same from the context of a head, which is taken as it is at first
_SMALL = 1 << 15  # coefficients, up to which that takes no time, and another context is tried
_BETTER = 0.995  # times the loss with that of the head, from which it is taken
_POOR = 1.33  # times the measure: it loses more with a context that does not suit, which is fitted then
_CLOSE_PRECISE = 1.25  # times the smallest measure: of fine steps it says less, hence more are quantised
# Times what other bases lose, about, up to which a head is taken: voxels that do not count are filled for the
# bases taken at the end.
_WORSE = 1.05, 1.025
_COARSER_FINEST = 2.0  # of the finest step in some bases: those with no finer one are left out
_COARSE = 1 << 13  # steps of the largest coefficient, up to which single precision is far more than enough


class BasisTrial(NamedTuple):
    """Integers at a step in some bases, and what they lose: squared error and weighted bits."""

    search: Search
    parameters: Parameters | None
    quantised: Quantised | None
    loss: float


def choose_bases(
    whole: Floats, valid: Bools | None, count: int, shared: Dictionary | None = None
) -> BasisTrial | None:
    """Return integers in the bases that do best, those of a dictionary or others; None if none are of use.

    A measure picks one, in which each coefficient counts by its error and its bytes. Of fine steps those that
    come near are quantised at the same step.

    Parameters
    ----------
    whole : float32 array
        Of folded axes.
    valid : bool array of the same shape, or None
        Which voxels count; all where None.
    count : int
        Coefficients that are kept, about.
    shared : Dictionary, optional
    """
    heads = {head.bases: head for head in heads_for(shared, whole.shape)}
    known = Analyses(whole, next(iter(heads), tuple(map(wavelets_of, whole.shape))), count)
    if known.step < STEPS[0]:
        return None

    def lose(bases: Bases) -> float:
        head = heads.get(bases)
        return known.lose(bases) + (0.0 if head is None else RATE * (head.side_bits - side_bits(bases)))

    losses = {bases: lose(bases) for bases in heads}
    suiting = min(losses, key=lambda bases: losses[bases], default=None)
    if suiting is not None and (
        read_advice(shared).no_search or losses[suiting] <= _WORSE[valid is None] * estimate_separate(known)
    ):
        losses = {suiting: losses[suiting]}
    else:
        separate = find_separate(known)
        losses |= {bases: lose(bases) for bases in (separate, find_joint(known, separate))}
    chosen = sorted(losses, key=lambda each: losses[each])
    close = _CLOSE_PRECISE * losses[chosen[0]] if known.precise else 0.0
    chosen = [bases for bases in chosen if bases == chosen[0] or losses[bases] <= close]
    if heads and chosen[0] not in heads:
        _log.info("no bases of the dictionary suit %s", whole.shape)
    # Where the steps wanted are too fine, bases of smaller coefficients have finer ones.
    finest = {bases: finest_of(known.find(bases)) for bases in chosen}
    most = max(known.step, _COARSER_FINEST * min(finest.values()))
    chosen = [bases for bases in chosen if finest[bases] <= most]
    step = max(known.step, *(finest[bases] for bases in chosen))
    # Fine steps tell what changes of bases have rounded.
    precise = max(finest.values()) * 0.5 * MAX_COEFFICIENT > _COARSE * step
    trials = []
    for bases in chosen:
        coefficients = analyse(whole, bases) if precise else known.find(bases)
        trials.append(_try(coefficients, bases, step, shared))
    best = min(trials, key=lambda each: each.loss)
    return None if best.quantised is None else best


def try_bases(whole: Floats, bases: Bases, step: float, shared: Dictionary | None = None) -> BasisTrial:
    """Quantise in some bases at a step."""
    return _try(analyse(whole, bases), bases, step, shared)


def _try(coefficients: Floats, bases: Bases, step: float, shared: Dictionary | None) -> BasisTrial:
    search = prepare_search(coefficients, bases)
    head = find_head(shared, bases, search.shape)
    if head is None:
        return _quantise(search, None, step, _FIRST_FITS)
    search = replace(search, shared=shared, context=head.context)
    trial = _quantise(search, real_parameters(head.context), step, _HEAD_FITS)
    if coefficients.size > _SMALL and trial.loss <= _POOR * step**2 * measure(coefficients, step):
        return trial
    fitted = replace(search, context=None)
    other = _quantise(fitted, trial.parameters, step, _HEAD_FITS[1:], trial.quantised)
    return other if other.loss < _BETTER * trial.loss else trial


def _quantise(
    search: Search,
    known: Parameters | None,
    step: float,
    fits: tuple[int, ...],
    last: Quantised | None = None,
) -> BasisTrial:
    parameters, quantised = quantise_at(search, known, step, fits, last=last)
    forget_many(search)
    loss = math.inf
    if quantised is not None:
        loss = energy_of(search.flat) + quantised.error + _weighted_bits(quantised, search)
    return BasisTrial(search, parameters, quantised, loss)


def _weighted_bits(quantised: Quantised, search: Search) -> float:
    """Weigh the bits of the integers and of what tells their bases, in units of the squared error."""
    head = None if search.context is None else Head(search.bases, search.context)
    side = side_bits(search.bases) if head is None else head.side_bits
    return RATE * quantised.step**2 * (quantised.bits + side)
