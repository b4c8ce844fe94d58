"""Array to coefficients: those that lower the error most for the bytes they take.

A coefficient c in steps is coded as the integer q that minimises ``(c - q)^2 + RATE * bits(q)``
(rate-distortion optimised quantisation; Sullivan and Wiegand, IEEE Signal Process. Mag. 15(6),
1998). With ``RATE = ln 2 / 6`` both terms fall alike when a step of a fine quantiser is made finer,
so the step, which is brought to the byte budget, steers both.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Doubles, Floats, Integers
from moec_zarr.bitstream.coding_order import (
    Context,
    Wavefronts,
    band_counts,
    bands_at,
    extent_of,
    present_bands,
    wavefronts,
)
from moec_zarr.bitstream.coefficients import STEPS
from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE, PRECISION, class_frequencies
from moec_zarr.fit.basis_search import (
    Bases,
    axis_options,
    candidate_bases,
    extended_coefficients,
    inpaint,
    magnitude_exceeded,
    neighbouring_bases,
)
from moec_zarr.fit.context_fit import fit_context, initial_parameters
from moec_zarr.fit.payloads import DoesNotFit, coefficients_payload
from moec_zarr.model.basis import LONGEST_AXIS, BasisFunctions, functions_of
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.transform import analyse, corner

__all__ = ["Transform", "fit_transform", "has_transform", "squared_error"]

RATE = math.log(2) / 6
_TABLE_MAGNITUDE = 255  # beyond which a table of bits is continued as it ends
_COEFFICIENTS_PER_BYTE = 1.5  # that a budget pays for, about
_WORTH_CODING = 1.02  # of the budget: what is estimated above it is not coded to be measured
_SMALL_BUDGET = 2000  # bytes in which what stands before the coefficients counts
_CLOSE = 0.993  # of the budget: near enough
_ACCEPTABLE = 0.98  # of it, after as many rounds as are meant
_COMPARISON_STEPS = 2  # of the search, before bases are compared
_ROUNDS = 10  # in which the step nears the budget
_WARM_ROUNDS = 3  # the same, where it starts near it
_PASSES = 3  # over the integers in a round


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
        search = _Search.of(target, valid, count, warm_start.bases)
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


def squared_error(values: Floats, target: Floats, valid: Bools | None) -> float:
    """Sum over the valid voxels."""
    where: Any = True if valid is None else valid
    return float(np.square(values - target).sum(dtype=np.float64, where=where))


# ------------------------------------------------------------------------------- bases


class _Trial(NamedTuple):
    search: _Search
    state: _State
    step: float
    cost: float  # squared error and weighted bits at this step


def _best_bases(
    target: Floats, valid: Bools | None, count: int, basis_trials: int
) -> tuple[_Search, _State, float]:
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
    search = _Search.of(target, valid, count, bases)
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


# ------------------------------------------------------------------------------ search


class _State(NamedTuple):
    """What a search hands from one step to the next.

    Attributes
    ----------
    worthwhile : bool array or None
        Bands that paid for themselves; all may where None.
    order : (bool array, Wavefronts) or None
        Bands of the last step, and their order of coding.
    magnitudes : int32 array
        Of the last step.
    parameters : float64 array
        Of the last context.
    """

    worthwhile: Bools | None
    order: tuple[Bools, Wavefronts] | None
    magnitudes: NDArray[np.int32]
    parameters: Doubles


class _Result(NamedTuple):
    """Integers for a step size.

    Attributes
    ----------
    coefficients : Coefficients or None
        None where all integers are zero.
    context : Context or None
        With what they are coded.
    size : float
        Bytes that they take, about.
    error : float
        Squared error, less what all steps have.
    """

    coefficients: Coefficients | None
    context: Context | None
    size: float
    error: float


_NOTHING = _Result(None, None, 0.0, math.inf)


class _Search(NamedTuple):
    """Coefficients of an array in some bases, to be quantised.

    Attributes
    ----------
    bases : tuple of AxisBasis
    functions : list of BasisFunctions
    coefficients : float32 array
    """

    bases: Bases
    functions: list[BasisFunctions]
    coefficients: Floats

    @classmethod
    def of(cls, target: Floats, valid: Bools | None, count: int, bases: Bases) -> _Search:
        """The coefficients of a target of which `count` may be other than zero."""
        functions = functions_of(bases, target.shape)
        if valid is None:
            return cls(bases, functions, analyse(target, bases))
        return cls(bases, functions, extended_coefficients(target, valid, bases, count))

    def start(self) -> _State:
        """The state before the first step."""
        shape = self.coefficients.shape
        return _State(None, None, np.zeros(shape, np.int32), initial_parameters(len(shape)))

    def step(self, state: _State, step: float) -> tuple[_State, _Result]:
        """Integers for a step size, starting from those of the step before; `state` is not changed."""
        present = _paying_bands(self.functions, self.coefficients, step)
        if state.worthwhile is not None:
            present &= state.worthwhile
        if not present.any():
            return state, _NOTHING
        if state.order is not None and np.array_equal(state.order[0], present):
            order = state.order[1]
        else:
            order = wavefronts(self.functions, present)
        own = self.coefficients[corner(order.extent)].ravel()[order.where]
        rows = _rows(order, np.abs(own) > 0.5 * step)
        where, own = order.where[rows.at], own[rows.at]
        zero_context_counts = np.bincount(order.band_octaves, rows.others).astype(np.int64)
        scaled = np.asarray(np.abs(own) / np.float32(step), np.float32)
        magnitudes = state.magnitudes[corner(order.extent)].ravel()[where].astype(np.int64)
        if not magnitudes.any():
            magnitudes = np.floor(scaled + 0.35).astype(np.int64)
        parameters = state.parameters
        for _ in range(_PASSES):
            neighbours = _at_neighbours(magnitudes, order, rows)
            parameters, context = fit_context(
                parameters, magnitudes, neighbours, rows.octaves, zero_context_counts
            )
            magnitudes = _cheapest(scaled, magnitudes, neighbours, context, order, rows)
        neighbours = _at_neighbours(magnitudes, order, rows)
        parameters, context = fit_context(
            parameters, magnitudes, neighbours, rows.octaves, zero_context_counts
        )
        bits = _bits(context.classes(neighbours, rows.octaves), magnitudes)
        nothing = np.zeros((len(zero_context_counts), neighbours.shape[1]), np.int64)
        zero_context_bits = _BITS[context.classes(nothing, np.arange(len(nothing))), 0]
        change = np.square(scaled - magnitudes) - np.square(scaled)
        balance = np.bincount(order.bands[rows.at], change + RATE * bits, present.size)
        balance += rows.others * RATE * zero_context_bits[order.band_octaves]
        worthwhile = present & (balance.reshape(present.shape) < 0)
        if not magnitudes.any():
            return _State(worthwhile, (present, order), state.magnitudes, parameters), _NOTHING
        integers = np.zeros(math.prod(order.extent), np.int32)
        integers[where] = magnitudes * np.sign(own).astype(np.int64)
        integers = integers.reshape(order.extent)
        kept = np.zeros(self.coefficients.shape, np.int32)
        kept[corner(order.extent)] = np.abs(integers)
        integers = integers[corner(extent_of(self.functions, present_bands(self.functions, integers)))]
        size = (bits.sum(dtype=np.float64) + zero_context_counts @ zero_context_bits) / 8
        error = step**2 * float(change.sum(dtype=np.float64))
        found = Coefficients(self.coefficients.shape, self.bases, float(np.float32(step)), integers)
        return (
            _State(worthwhile, (present, order), kept, parameters),
            _Result(found, context, float(size), error),
        )


class _Rows(NamedTuple):
    """Coefficients that may be other than zero, and those with such a one as a context neighbour."""

    at: Integers  # which ones of the order
    neighbours: Integers
    octaves: Integers
    others: Integers  # how many more each band has


def _rows(order: Wavefronts, significant: Bools) -> _Rows:
    whole = _spread(order, slice(None), significant)
    near = significant.copy()
    for neighbour in order.neighbours.T:
        near |= whole[neighbour]
    at = np.flatnonzero(near)
    count = order.band_octaves.size
    others = np.bincount(order.bands, minlength=count) - np.bincount(order.bands[at], minlength=count)
    return _Rows(at, order.neighbours[at], order.octaves(at), others)


def _paying_bands(functions: list[BasisFunctions], coefficients: Floats, step: float) -> Bools:
    """Bands whose large coefficients are worth more than it costs to say where they stand."""
    shape = band_counts(functions)
    large = np.nonzero(np.abs(coefficients) > 0.65 * step)
    bands = np.ravel_multi_index(bands_at(functions, large), shape)
    size = math.prod(shape)
    count = np.bincount(bands, minlength=size)
    worth = np.bincount(bands, np.minimum(np.square(coefficients[large] / step), 1e6), size)
    room = reduce(np.multiply.outer, [np.bincount(each.bands) for each in functions]).ravel()
    cost = count * (0.5 * np.log2(room / np.maximum(count, 1)) + 2.0)
    return np.asarray((count > 0) & (worth > RATE * cost)).reshape(shape)


def _at_neighbours(magnitudes: Integers, order: Wavefronts, rows: _Rows) -> Integers:
    return np.asarray(_spread(order, rows.at, magnitudes.astype(np.int32))[rows.neighbours])


def _spread(order: Wavefronts, at: Integers | slice, values: NDArray[Any]) -> NDArray[Any]:
    """Values of some of the coefficients where neighbours find them; zero elsewhere, and where none is."""
    whole = np.zeros(math.prod(order.extent) + 1, values.dtype)
    whole[order.where[at]] = values
    return whole


def _cheapest(
    scaled: Floats,
    magnitudes: Integers,
    neighbours: Integers,
    context: Context,
    order: Wavefronts,
    rows: _Rows,
) -> Integers:
    """The integer next to each coefficient, the one below it, or zero: what costs least.

    The bits of a choice are its own and those of the coefficients whose context it is part of, while
    all others are as in `magnitudes`, of which `neighbours` are the context.
    """
    nearest = np.rint(scaled).astype(np.int64)
    significant = np.flatnonzero(nearest)
    choices = np.stack([np.zeros_like(significant), nearest[significant] - 1, nearest[significant]])
    activity = context.activity(neighbours, rows.octaves)
    classes = context.classes_at(activity[significant], rows.octaves[significant])
    bits = _bits(classes, choices).astype(np.float64)
    number = _spread(order, rows.at[significant], 1 + np.arange(len(significant))) - 1
    for weight, neighbour, held in zip(
        context.neighbour_weights, rows.neighbours.T, neighbours.T, strict=True
    ):
        of = number[neighbour]
        at = np.flatnonzero(of >= 0)
        of, others, octaves, own = of[at], activity[at] - weight * held[at], rows.octaves[at], magnitudes[at]
        for choice, total in zip(choices, bits, strict=True):
            classes = context.classes_at(others + weight * choice[of], octaves)
            total += np.bincount(of, _bits(classes, own), len(significant))
    best = (np.square(scaled[significant] - choices) + RATE * bits).argmin(axis=0)
    result = np.zeros_like(nearest)
    result[significant] = choices[best, np.arange(len(significant))]
    return result


# Bits of a magnitude and its sign, shape (CLASSES, _TABLE_MAGNITUDE + 1); without the tail folded in.
_BITS: Floats = (
    PRECISION - np.log2(class_frequencies(_TABLE_MAGNITUDE + 1)[:, :-1].astype(np.float64))
).astype(np.float32)
_SLOPE = _BITS[:, -1] - _BITS[:, -2]


def _bits(classes: Integers, magnitudes: Integers) -> Floats:
    """Bits of magnitudes in these classes."""
    bits: Floats = _BITS[classes, np.minimum(magnitudes, _TABLE_MAGNITUDE)]
    if magnitudes.max(initial=0) > _TABLE_MAGNITUDE:  # rare
        bits = bits + _SLOPE[classes] * np.maximum(magnitudes - _TABLE_MAGNITUDE, 0)
    return bits
