"""Bases and contexts that a dictionary holds, in place of a search for them: most of the time of a fit.

The bases of other chunks of the same variable do about as well as those that a chunk is searched for: a cheap
measure picks those that suit it. Where none does, it is searched after all.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.coefficients import STEPS, read_bases, read_context
from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT, Context
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import CorruptStreamError
from moec_zarr.fit.advice import read_advice
from moec_zarr.fit.transform.basis_choice import BasisTrial, cheapest, try_bases, weighted_bits
from moec_zarr.fit.transform.basis_search import (
    Bases,
    axis_options,
    energy_of,
    estimate_fine_bits,
    find_exceeded,
    join,
    list_groups,
    measure,
    sample_lines,
    wavelets_of,
)
from moec_zarr.fit.transform.context_fit import real_parameters
from moec_zarr.fit.transform.rdoq import forget_many, prepare_search, quantise_at
from moec_zarr.model.basis import AxisBasis, analysis_matrix, synthesis_matrix
from moec_zarr.model.transform import analyse, joint_axes

__all__ = ["choose_head", "find_head", "heads_for", "try_head"]

_log = logging.getLogger(__name__)
_MOST = 8  # bases that are measured
_DENSE = 0.15  # share of the voxels that are kept, from which bits of a fine quantiser are the measure
_MUCH_WORSE = 1.05  # times the measure of other bases: then a chunk is searched for its own
_CLOSE = 1.02  # times the smallest measure: what is quantised, to decide
_BITS = 6.0  # of a coefficient that is kept, about
_QUANTISED = 2  # of these at most
_FEW = 4500  # coefficients up to which a context is taken as it is; of more a new one is worth its bytes
_FITS = (4,)  # steps of the optimiser of a new one


class Head(NamedTuple):
    """Bases of the folded axes, and what coefficients in them are coded with."""

    bases: Bases
    context: Context


@lru_cache(maxsize=64)
def heads_for(dictionary: Dictionary | None, folded: tuple[int, ...]) -> tuple[Head, ...]:
    """Return the heads of a dictionary that folded axes of these lengths can have, one for each bases."""
    heads: dict[Bases, Head] = {}
    for entry in () if dictionary is None else dictionary.entries:
        if entry.section != Section.TRANSFORM:
            continue
        try:
            bases, offset = read_bases(entry.data, folded)
            context, end = read_context(entry.data, offset, len(folded))
        except CorruptStreamError:
            continue  # it is for chunks of another shape
        if end != len(entry.data):
            continue
        heads.setdefault(bases, Head(bases, context))
    return tuple(heads.values())[:_MOST]


def choose_head(whole: Floats, valid: Bools | None, count: int, dictionary: Dictionary) -> BasisTrial | None:
    """Return integers in the bases of a dictionary that suit an array best; None where none suits it.

    Parameters
    ----------
    whole : float32 array
        Of folded axes.
    valid : bool array of the same shape, or None
        Which voxels count; all where None.
    count : int
        Coefficients that are kept, about.
    dictionary : Dictionary
    """
    heads = heads_for(dictionary, whole.shape)
    if not heads:
        return None
    threshold = find_exceeded(analyse(whole, heads[0].bases), count)
    dense = count >= _DENSE * whole.size

    def measured(coefficients: Floats) -> float:
        if dense:
            return estimate_fine_bits(coefficients.reshape(-1), 1.3 * threshold)
        return measure(coefficients, threshold)

    found, finest = [], STEPS[0]
    for head in heads:
        coefficients = analyse(whole, head.bases)
        finest = max(finest, float(np.abs(coefficients).max()) / (0.5 * MAX_COEFFICIENT))
        found.append((measured(coefficients), head))
    found.sort(key=lambda each: each[0])
    likely = [head for own, head in found[:_QUANTISED] if own <= _CLOSE * found[0][0]]
    other = None
    if not read_advice(dictionary).no_search:
        side_bit = 1.0 if dense else threshold**2 / _BITS
        own, head = found[0]
        least, other = _best_other(whole, own, head.bases, heads, threshold, measured, side_bit)
        further = least
        if other is not None and own > _CLOSE * least:
            further, _ = _best_other(whole, least, other, heads, threshold, measured, side_bit)
        if own > _MUCH_WORSE * further or least > _CLOSE * further:
            _log.info("no bases of the dictionary suit %s; they are searched", whole.shape)
            return None
    step = max(1.3 * threshold, finest)
    trials = [try_head(whole, head, step, dictionary, count) for head in likely]
    if other is not None:
        trials.append(try_bases(analyse(whole, other), other, step))
    best = cheapest([each for each in trials if each.quantised is not None], whole, valid)
    if best is not None and best is trials[-1] and other is not None:
        _log.info("no bases of the dictionary suit %s, but those with another axis", whole.shape)
    return best


def _best_other(
    whole: Floats,
    own: float,
    start: Bases,
    heads: tuple[Head, ...],
    threshold: float,
    measured: Callable[[Floats], float],
    side_bit: float,
) -> tuple[float, Bases | None]:
    """Return plain bases, or a start with another axis or joint ones, of a smaller measure than its own."""
    plain: list[Bases] = [tuple(AxisBasis() for _ in whole.shape), tuple(map(wavelets_of, whole.shape))]
    if any(basis.joint for basis in start):
        plain += [
            tuple(other if basis.joint else basis for basis, other in zip(start, others, strict=True))
            for others in plain
        ]
        plain += [  # fewer of them together
            tuple(replace(basis, joint=basis.joint and axis in axes) for axis, basis in enumerate(start))
            for axes in [(), *list_groups(whole.shape)]
        ]
    plain += [join(whole.shape, start, axes) for axes in list_groups(whole.shape)]
    least: tuple[float, Bases | None] = own, None
    for bases in dict.fromkeys(plain):
        if len(joint_axes(bases)) != 1 and all(bases != each.bases for each in heads):
            least = min(least, (measured(analyse(whole, bases)), bases), key=lambda each: each[0])
    coefficients = analyse(whole, start)
    for axis, basis in enumerate(start):
        if basis.joint:
            continue
        length = whole.shape[axis]
        lines, share = sample_lines(coefficients, axis, threshold)
        voxels = synthesis_matrix(basis, length) @ lines
        now = measured(lines)
        for other in axis_options(whole, axis):
            if other == basis:
                continue
            gain = now - measured(np.asarray(analysis_matrix(other, length) @ voxels, np.float32))
            total = own - gain * share + 4 * len(other.edge_weights) * side_bit
            bases = (*start[:axis], other, *start[axis + 1 :])
            least = min(least, (total, bases), key=lambda each: each[0])
    return least


def find_head(dictionary: Dictionary | None, bases: Bases, folded: tuple[int, ...]) -> Head | None:
    """Find the head of these bases; None where a dictionary has none."""
    return next((head for head in heads_for(dictionary, folded) if head.bases == bases), None)


def try_head(whole: Floats, head: Head, step: float, dictionary: Dictionary, count: int) -> BasisTrial:
    """Quantise in the bases of a head at a step; its context is taken as it is where that is cheaper."""
    search = prepare_search(analyse(whole, head.bases), head.bases)
    search = replace(search, shared=dictionary)
    trials = []
    for context in [head.context, None] if count <= _FEW else [None]:
        own = replace(search, context=context, kept=[])
        parameters, quantised = quantise_at(own, real_parameters(head.context), step, _FITS)
        forget_many(own)
        loss = math.inf
        if quantised is not None:
            loss = energy_of(own.flat) + quantised.error + weighted_bits(quantised, own)
        trials.append(BasisTrial(own, parameters, quantised, loss))
    return min(trials, key=lambda each: each.loss)
