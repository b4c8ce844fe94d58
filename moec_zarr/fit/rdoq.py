"""Array to latents: the coefficients that lower the error most for the bytes they take.

A coefficient c in steps is coded as the integer q that minimises ``(c - q)^2 + RATE * bits(q)``
(rate-distortion optimised quantisation; Sullivan and Wiegand, IEEE Signal Process. Mag. 15(6),
1998). With ``RATE = ln 2 / 6`` both terms fall alike when a step of a fine quantiser is made finer,
so that the step, which is brought to the byte budget, steers both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE, PRECISION, class_frequencies
from moec_zarr.fit.basis_search import extended, filled, largest, near, options, promising
from moec_zarr.fit.context_fit import ContextFit
from moec_zarr.model.basis import LONGEST, Basis, Kind, bases_of
from moec_zarr.model.coefficients import (
    STEPS,
    Context,
    Fronts,
    Latents,
    band_counts,
    bands_at,
    fronts,
    present_bands,
    reach,
)
from moec_zarr.model.features import Synthesis
from moec_zarr.model.transform import coefficients, corner

__all__ = ["fit_latents", "has_bases", "squared_error"]

RATE = math.log(2) / 6
_LARGEST = 255  # magnitude beyond which a table of bits is continued as it ends
_DENSITY = 1.5  # coefficients that a byte pays for, about
_NEAR = 1.02  # of the budget: what is estimated above it is not coded to be measured
_SMALL = 2000  # bytes of a budget in which what stands before the coefficients counts
_FULL = 0.993  # of the budget: near enough
_ENOUGH = 0.98  # of it, after as many rounds as are meant
_LOOKS = 2  # at a step, before bases are compared
_ROUNDS = 10  # in which the step nears the budget
_AGAIN = 3  # the same, where it starts near it
_PASSES = 3  # over the integers in a round

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]


def has_bases(shape: tuple[int, ...]) -> bool:
    """Whether a grid can have latents."""
    return all(n <= LONGEST for n in shape)


def fit_latents(
    target: _Floats,
    valid: NDArray[np.bool_] | None,
    size: Callable[[Latents], int],
    budget: int,
    like: Latents | None = None,
    tries: int = 0,
) -> Latents | None:
    """Latents of a grid within a byte budget; None where it pays for none.

    Parameters
    ----------
    target : float32 array
        What they shall add up to; no axis of one voxel. What stands at invalid voxels does not matter.
    valid : bool array of the same shape, or None
        Which voxels count; all where None.
    size : callable
        Bytes that latents take.
    budget : int
        Bytes that they may take; kept.
    like : Latents, optional
        Of about as many bytes, from whose bases and step the search starts; else bases are compared.
    tries : int
        Bases compared beside the promising ones, each near the best so far.
    """
    count = min(max(1, int(_DENSITY * budget)), target.size - 1)
    if like is None:
        rounds, (search, step) = _ROUNDS, _best_search(target, valid, count, tries)
    else:
        rounds, search, step = _AGAIN, _search(target, valid, count, like.kinds), like.step
    best, least, held, extra = None, math.inf, 0.0, 0.0
    for turn in range(2 * rounds if step >= STEPS[0] else 0):
        found, taken, error = search(step)
        taken += extra
        if found is not None and (taken < _NEAR * budget or budget < _SMALL):
            try:
                exact = float(size(found))
                extra, taken = extra + exact - taken, exact
            except OverflowError:  # a coefficient of more steps than can be coded
                taken = 3.0 * budget
        if found is not None and taken <= budget and error < least:
            best, least, held = found, error, taken
        if _FULL * budget < taken <= budget or (turn + 1 >= rounds and held > _ENOUGH * budget):
            break
        # Bytes go with about the inverse step, and fall a little with each pass at the same one.
        step *= min(max((taken + 1) / (0.998 * budget), 0.3), 3.0) ** 0.7
        if best is None and turn + 1 >= rounds // 2:
            step *= 1 + 0.01 * (turn + 1 - rounds // 2)
    return best


def _best_search(
    target: _Floats, valid: NDArray[np.bool_] | None, count: int, tries: int
) -> tuple[_Search, float]:
    """The search in the bases that do best, all at the same step; and that step.

    Error and bytes count as they do for one coefficient.
    """
    whole = target if valid is None else filled(target, valid, count)
    each = options(whole)
    first = promising(whole, count, each)
    best, known = _tried(whole, valid, count, first[0], 0.0), set(first)
    for kinds in first[1:]:
        best = _cheaper(best, _tried(whole, valid, count, kinds, best.step))
    for _ in range(tries):
        around = near(best.search.kinds, whole.shape, each)
        fresh = next((kinds for kinds in around if kinds not in known), None)
        if fresh is None:
            break
        known.add(fresh)
        best = _cheaper(best, _tried(whole, valid, count, fresh, best.step))
    return best.search, best.step


class _Tried(NamedTuple):
    search: _Search
    step: float
    cost: float  # squared error and weighted bits at this step


def _cheaper(one: _Tried, other: _Tried) -> _Tried:
    return one if one.cost <= other.cost else other


def _tried(
    target: _Floats, valid: NDArray[np.bool_] | None, count: int, kinds: tuple[Kind, ...], step: float
) -> _Tried:
    """A search in bases of these kinds, at a step; at one that suits the count where it is zero."""
    search = _search(target, valid, count, kinds)
    if not step:
        magnitudes = np.abs(search.coefficients)
        # No finer than the largest coefficient can be coded, with room for a few finer steps.
        step = max(1.3 * largest(magnitudes, count), float(magnitudes.max()) / (0.9 * MAX_MAGNITUDE))
    return _Tried(search, step, _cost(search, step, target, valid) if step >= STEPS[0] else 0.0)


def _search(target: _Floats, valid: NDArray[np.bool_] | None, count: int, kinds: tuple[Kind, ...]) -> _Search:
    found = coefficients(target, kinds) if valid is None else extended(target, valid, kinds, count)
    return _Search(target.shape, kinds, found)


def _cost(search: _Search, step: float, target: _Floats, valid: NDArray[np.bool_] | None) -> float:
    """Squared error and weighted bits of a search at a step."""
    for _ in range(_LOOKS):
        found, taken, _error = search(step)
    search.forget()
    values = np.zeros_like(target) if found is None else Synthesis(found).whole()
    return squared_error(values, target, valid) + RATE * step**2 * 8 * taken


def squared_error(values: _Floats, target: _Floats, valid: NDArray[np.bool_] | None) -> float:
    """Sum over the valid voxels."""
    where: Any = True if valid is None else valid
    return float(np.square(values - target).sum(dtype=np.float64, where=where))


@dataclass
class _Search:
    """Finds the integers for a step, starting from those of the step before."""

    shape: tuple[int, ...]
    kinds: tuple[Kind, ...]
    coefficients: _Floats

    def __post_init__(self) -> None:
        self.bases = bases_of(self.kinds, self.shape)
        self._worth: NDArray[np.bool_] | None = None  # bands that paid for themselves
        self._last: tuple[NDArray[np.bool_], Fronts] | None = None  # bands of the last search
        self._before = np.zeros(self.shape, np.int32)  # its magnitudes
        self._fitted = ContextFit(len(self.shape))

    def __call__(self, step: float) -> tuple[Latents | None, float, float]:
        """Latents of this step, None where all integers are zero; about how many bytes; squared error.

        The error lacks what all steps have.
        """
        present = _paying(self.bases, self.coefficients, step)
        if self._worth is not None:
            present &= self._worth
        if not present.any():
            return None, 0.0, math.inf
        if self._last is None or not np.array_equal(self._last[0], present):
            self.forget()
            self._last = present, fronts(self.bases, self.kinds, present)
        order = self._last[1]
        own = self.coefficients[corner(order.extent)].ravel()[order.where]
        rows = _rows(order, np.abs(own) > 0.5 * step)
        where, own = order.where[rows.at], own[rows.at]
        quiet = np.bincount(order.scales, rows.others).astype(np.int64)  # by level
        scaled = np.asarray(np.abs(own) / np.float32(step), np.float32)
        magnitudes = self._before[corner(order.extent)].ravel()[where].astype(np.int64)
        if not magnitudes.any():
            magnitudes = np.floor(scaled + 0.35).astype(np.int64)
        for _ in range(_PASSES):
            taps = _at_taps(magnitudes, order, rows)
            context = self._fitted(magnitudes, taps, rows.levels, quiet)
            magnitudes = _cheapest(scaled, magnitudes, taps, context, order, rows)
        taps = _at_taps(magnitudes, order, rows)
        context = self._fitted(magnitudes, taps, rows.levels, quiet)
        bits = _bits(context.classes(taps, rows.levels), magnitudes)
        nothing = np.zeros((len(quiet), taps.shape[1]), np.int64)
        silent = _BITS[context.classes(nothing, np.arange(len(quiet))), 0]
        change = np.square(scaled - magnitudes) - np.square(scaled)
        balance = np.bincount(order.bands[rows.at], change + RATE * bits, present.size)
        balance += rows.others * RATE * silent[order.scales]
        self._worth = present & (balance.reshape(present.shape) < 0)
        if not magnitudes.any():
            return None, 0.0, math.inf
        whole = np.zeros(math.prod(order.extent), np.int32)
        whole[where] = magnitudes * np.sign(own).astype(np.int64)
        whole = whole.reshape(order.extent)
        self._before[...] = 0
        self._before[corner(order.extent)] = np.abs(whole)
        whole = whole[corner(reach(self.bases, present_bands(self.bases, whole)))]
        latents = Latents(self.shape, self.kinds, float(np.float32(step)), context, whole)
        taken = bits.sum(dtype=np.float64) + quiet @ silent
        return latents, float(taken) / 8, step**2 * float(change.sum(dtype=np.float64))

    def forget(self) -> None:
        """Drop what takes most memory, and can be made again."""
        self._last = None


class _Rows(NamedTuple):
    """Coefficients that may be other than zero, and those with such a one at a tap."""

    at: _Ints  # which ones of the order
    taps: _Ints
    levels: _Ints
    others: _Ints  # how many more each band has


def _rows(order: Fronts, loud: NDArray[np.bool_]) -> _Rows:
    whole = _spread(order, slice(None), loud)
    near = loud.copy()
    for tap in order.taps.T:
        near |= whole[tap]
    at = np.flatnonzero(near)
    count = order.scales.size
    others = np.bincount(order.bands, minlength=count) - np.bincount(order.bands[at], minlength=count)
    return _Rows(at, order.taps[at], order.levels(at), others)


def _paying(bases: list[Basis], found: _Floats, step: float) -> NDArray[np.bool_]:
    """Bands whose large coefficients are worth more than it costs to say where they stand."""
    shape = band_counts(bases)
    large = np.nonzero(np.abs(found) > 0.65 * step)
    bands = np.ravel_multi_index(bands_at(bases, large), shape)
    size = math.prod(shape)
    count = np.bincount(bands, minlength=size)
    worth = np.bincount(bands, np.minimum(np.square(found[large] / step), 1e6), size)
    room = reduce(np.multiply.outer, [np.bincount(each.bands) for each in bases]).ravel()
    cost = count * (0.5 * np.log2(room / np.maximum(count, 1)) + 2.0)
    return np.asarray((count > 0) & (worth > RATE * cost)).reshape(shape)


def _at_taps(magnitudes: _Ints, order: Fronts, rows: _Rows) -> _Ints:
    return np.asarray(_spread(order, rows.at, magnitudes.astype(np.int32))[rows.taps])


def _spread(order: Fronts, at: _Ints | slice, values: NDArray[Any]) -> NDArray[Any]:
    """Values of some of the coefficients where taps find them; zero at all others, and where no tap is."""
    whole = np.zeros(math.prod(order.extent) + 1, values.dtype)
    whole[order.where[at]] = values
    return whole


def _cheapest(
    scaled: _Floats, magnitudes: _Ints, taps: _Ints, context: Context, order: Fronts, rows: _Rows
) -> _Ints:
    """The integer next to each coefficient, the one below it, or zero: what costs least.

    The bits of a choice are its own and those of the coefficients that it is a tap of, while all
    others are as in `magnitudes`, whose taps are `taps`.
    """
    near = np.rint(scaled).astype(np.int64)
    loud = np.flatnonzero(near)
    choices = np.stack([np.zeros_like(loud), near[loud] - 1, near[loud]])
    activity = context.activity(taps, rows.levels)
    classes = context.classes_at(activity[loud], rows.levels[loud])
    bits = _bits(classes, choices).astype(np.float64)
    number = _spread(order, rows.at[loud], 1 + np.arange(len(loud))) - 1
    for weight, tap, held in zip(context.weights, rows.taps.T, taps.T, strict=True):
        of = number[tap]
        at = np.flatnonzero(of >= 0)
        of, others, levels, own = of[at], activity[at] - weight * held[at], rows.levels[at], magnitudes[at]
        for choice, total in zip(choices, bits, strict=True):
            classes = context.classes_at(others + weight * choice[of], levels)
            total += np.bincount(of, _bits(classes, own), len(loud))
    best = (np.square(scaled[loud] - choices) + RATE * bits).argmin(axis=0)
    found = np.zeros_like(near)
    found[loud] = choices[best, np.arange(len(loud))]
    return found


# Bits of a magnitude, its sign included, shape (CLASSES, _LARGEST + 1); without the tail folded in.
_BITS: _Floats = (PRECISION - np.log2(class_frequencies(_LARGEST + 1)[:, :-1].astype(np.float64))).astype(
    np.float32
)
_RISE = _BITS[:, -1] - _BITS[:, -2]


def _bits(classes: _Ints, magnitudes: _Ints) -> _Floats:
    """Bits of magnitudes in these classes."""
    bits: _Floats = _BITS[classes, np.minimum(magnitudes, _LARGEST)]
    if magnitudes.max(initial=0) > _LARGEST:  # rare
        bits = bits + _RISE[classes] * np.maximum(magnitudes - _LARGEST, 0)
    return bits
