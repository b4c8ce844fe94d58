"""Array to a transform within a byte budget: the bases that do best, and the step that fills the budget."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.coefficients import STEPS
from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE
from moec_zarr.fit.basis_search import (
    Bases,
    axis_options,
    candidate_bases,
    inpaint,
    magnitude_exceeded,
    neighbouring_bases,
)
from moec_zarr.fit.payloads import DoesNotFit, coefficients_payload
from moec_zarr.fit.rdoq import RATE, Search, State, squared_error
from moec_zarr.model.basis import LONGEST_AXIS
from moec_zarr.model.coefficients import CoefficientField, Coefficients

__all__ = ["Transform", "fit_transform", "has_transform"]

_COEFFICIENTS_PER_BYTE = 1.5  # that a budget pays for, about
_WORTH_CODING = 1.02  # of the budget: what is estimated above it is not coded to be measured
_SMALL_BUDGET = 2000  # bytes in which what stands before the coefficients counts
_CLOSE = 0.993  # of the budget: near enough
_ACCEPTABLE = 0.98  # of it, after as many rounds as are meant
_COMPARISON_STEPS = 2  # of the search, before bases are compared
_ROUNDS = 10  # in which the step nears the budget
_WARM_ROUNDS = 3  # the same, where it starts near it


class Transform(NamedTuple):
    """Coefficients with the bytes of their section."""

    coefficients: Coefficients
    payload: bytes


def has_transform(shape: tuple[int, ...]) -> bool:
    """Whether a grid can have a transform."""
    return all(n <= LONGEST_AXIS for n in shape)


def fit_transform(
    target: Floats,
    valid: Bools | None,
    budget: int,
    warm_start: Coefficients | None = None,
    basis_trials: int = 0,
) -> Transform | None:
    """Coefficients of a grid within a byte budget; None where it pays for none.

    Parameters
    ----------
    target : float32 array
        What they shall add up to; no axis of one voxel. Values at invalid voxels do not matter.
    valid : bool array of the same shape, or None
        Which voxels count; all where None.
    budget : int
        Bytes that the section may take; kept.
    warm_start : Coefficients, optional
        Of about as many bytes, from whose bases and step the search starts; else bases are compared.
    basis_trials : int
        Neighbouring bases compared beside the candidates.
    """
    count = min(max(1, int(_COEFFICIENTS_PER_BYTE * budget)), target.size - 1)
    if warm_start is None:
        rounds, (search, state, step) = _ROUNDS, _best_bases(target, valid, count, basis_trials)
    else:
        search = Search.of(target, valid, count, warm_start.bases)
        rounds, state, step = _WARM_ROUNDS, search.start(), warm_start.step
    best: Transform | None = None
    smallest_error, used, correction = math.inf, 0.0, 0.0
    for turn in range(2 * rounds if step >= STEPS[0] else 0):
        state, result = search.step(state, step)
        size, payload = result.size + correction, None
        if result.coefficients is not None and (size < _WORTH_CODING * budget or budget < _SMALL_BUDGET):
            assert result.context is not None
            try:
                payload = coefficients_payload(result.coefficients, result.context)
                correction, size = correction + len(payload) - size, len(payload)
            except DoesNotFit:
                size = 3.0 * budget
        if payload is not None and size <= budget and result.error < smallest_error:
            assert result.coefficients is not None
            best, smallest_error, used = Transform(result.coefficients, payload), result.error, size
        if _CLOSE * budget < size <= budget or (turn + 1 >= rounds and used > _ACCEPTABLE * budget):
            break
        # Bytes go with about the inverse step, and fall a little with each pass at the same one.
        step *= min(max((size + 1) / (0.998 * budget), 0.3), 3.0) ** 0.7
        if best is None and turn + 1 >= rounds // 2:
            step *= 1 + 0.01 * (turn + 1 - rounds // 2)
    return best


class _Trial(NamedTuple):
    search: Search
    state: State
    step: float
    cost: float  # squared error and weighted bits at this step


def _best_bases(
    target: Floats, valid: Bools | None, count: int, basis_trials: int
) -> tuple[Search, State, float]:
    """The search in the bases that do best, all at the same step; its state; and that step.

    Error and bytes count as they do for one coefficient.
    """
    whole = target if valid is None else inpaint(target, valid, count)
    options = axis_options(whole)
    first = candidate_bases(whole, count, options)
    best, known = _trial(whole, valid, count, first[0], 0.0), set(first)
    for bases in first[1:]:
        best = _cheaper(best, _trial(whole, valid, count, bases, best.step))
    for _ in range(basis_trials):
        around = neighbouring_bases(best.search.bases, whole.shape, options)
        fresh = next((bases for bases in around if bases not in known), None)
        if fresh is None:
            break
        known.add(fresh)
        best = _cheaper(best, _trial(whole, valid, count, fresh, best.step))
    return best.search, best.state, best.step


def _cheaper(one: _Trial, other: _Trial) -> _Trial:
    return one if one.cost <= other.cost else other


def _trial(target: Floats, valid: Bools | None, count: int, bases: Bases, step: float) -> _Trial:
    """A search in these bases, at a step; at one that suits the count where it is zero."""
    search = Search.of(target, valid, count, bases)
    state, cost = search.start(), 0.0
    if not step:
        magnitudes = np.abs(search.coefficients)
        # No finer than the largest coefficient can be coded, with room for a few finer steps.
        finest = float(magnitudes.max()) / (0.9 * MAX_MAGNITUDE)
        step = max(1.3 * magnitude_exceeded(magnitudes, count), finest)
    if step >= STEPS[0]:
        for _ in range(_COMPARISON_STEPS):
            state, result = search.step(state, step)
        found = result.coefficients
        values = np.zeros_like(target) if found is None else CoefficientField(found).whole()
        cost = squared_error(values, target, valid) + RATE * step**2 * 8 * result.size
    # The order of coding takes most of the memory, and can be made again.
    return _Trial(search, state._replace(order=None), step, cost)
