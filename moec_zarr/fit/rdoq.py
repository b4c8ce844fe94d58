"""Coefficients to integers: those that lower the error most for the bytes they take.

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
from moec_zarr.bitstream.range_coder import PRECISION, class_frequencies
from moec_zarr.fit.basis_search import (
    Bases,
    extended_coefficients,
)
from moec_zarr.fit.context_fit import fit_context, initial_parameters
from moec_zarr.model.basis import BasisFunctions, functions_of
from moec_zarr.model.coefficients import Coefficients
from moec_zarr.model.transform import analyse, corner

__all__ = ["RATE", "Result", "Search", "State", "squared_error"]

RATE = math.log(2) / 6
_TABLE_MAGNITUDE = 255  # beyond which a table of bits is continued as it ends
_PASSES = 3  # over the integers in a round


def squared_error(values: Floats, target: Floats, valid: Bools | None) -> float:
    """Sum over the valid voxels."""
    where: Any = True if valid is None else valid
    return float(np.square(values - target).sum(dtype=np.float64, where=where))


class State(NamedTuple):
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


class Result(NamedTuple):
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


_NOTHING = Result(None, None, 0.0, math.inf)


class Search(NamedTuple):
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
    def of(cls, target: Floats, valid: Bools | None, count: int, bases: Bases) -> Search:
        """The coefficients of a target of which `count` may be other than zero."""
        functions = functions_of(bases, target.shape)
        if valid is None:
            return cls(bases, functions, analyse(target, bases))
        return cls(bases, functions, extended_coefficients(target, valid, bases, count))

    def start(self) -> State:
        """The state before the first step."""
        shape = self.coefficients.shape
        return State(None, None, np.zeros(shape, np.int32), initial_parameters(len(shape)))

    def step(self, state: State, step: float) -> tuple[State, Result]:
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
        zero_context_bits = _BIT_TABLE[context.classes(nothing, np.arange(len(nothing))), 0]
        change = np.square(scaled - magnitudes) - np.square(scaled)
        balance = np.bincount(order.bands[rows.at], change + RATE * bits, present.size)
        balance += rows.others * RATE * zero_context_bits[order.band_octaves]
        worthwhile = present & (balance.reshape(present.shape) < 0)
        if not magnitudes.any():
            return State(worthwhile, (present, order), state.magnitudes, parameters), _NOTHING
        integers = np.zeros(math.prod(order.extent), np.int32)
        integers[where] = magnitudes * np.sign(own).astype(np.int64)
        integers = integers.reshape(order.extent)
        kept = np.zeros(self.coefficients.shape, np.int32)
        kept[corner(order.extent)] = np.abs(integers)
        integers = integers[corner(extent_of(self.functions, present_bands(self.functions, integers)))]
        size = (bits.sum(dtype=np.float64) + zero_context_counts @ zero_context_bits) / 8
        error = step**2 * float(change.sum(dtype=np.float64))
        coefficients = Coefficients(self.coefficients.shape, self.bases, float(np.float32(step)), integers)
        return (
            State(worthwhile, (present, order), kept, parameters),
            Result(coefficients, context, float(size), error),
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
_BIT_TABLE: Floats = (
    PRECISION - np.log2(class_frequencies(_TABLE_MAGNITUDE + 1)[:, :-1].astype(np.float64))
).astype(np.float32)
_SLOPE = _BIT_TABLE[:, -1] - _BIT_TABLE[:, -2]


def _bits(classes: Integers, magnitudes: Integers) -> Floats:
    """Bits of magnitudes in these classes."""
    bits: Floats = _BIT_TABLE[classes, np.minimum(magnitudes, _TABLE_MAGNITUDE)]
    if magnitudes.max(initial=0) > _TABLE_MAGNITUDE:  # rare
        bits = bits + _SLOPE[classes] * np.maximum(magnitudes - _TABLE_MAGNITUDE, 0)
    return bits
