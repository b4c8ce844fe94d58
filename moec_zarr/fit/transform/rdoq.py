"""Coefficients to integers: those that lower the error most for the bytes they take.

A coefficient c in steps is coded as the integer q that minimises ``(c - q)^2 + RATE * bits(q)``
(rate-distortion optimised quantisation; Sullivan and Wiegand, IEEE Signal Process. Mag. 15(6),
1998). With ``RATE = ln 2 / 6`` both terms fall alike when a step of a fine quantiser is made finer,
so that the step, which is brought to the byte budget, steers both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Doubles, Floats, Integers
from moec_zarr.bitstream.coding_order import (
    ContextTables,
    band_counts,
    band_octaves,
    context_tables,
    parents,
)
from moec_zarr.bitstream.contexts import (
    LARGEST_SYMBOL,
    Context,
    classes,
    logarithms,
    magnitude_frequencies,
    significance,
    zero_context_activity,
)
from moec_zarr.bitstream.range_coder import PRECISION
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.transform import rdoq_kernels as kernels
from moec_zarr.fit.transform.basis_search import RATE, Bases
from moec_zarr.fit.transform.context_fit import (
    Parameters,
    Sample,
    first_parameters,
    fit_context,
    round_parameters,
    round_rise,
)
from moec_zarr.model.basis import AXIS_NEIGHBOURS, functions_of
from moec_zarr.model.coefficients import Coefficients
from moec_zarr.model.transform import joint_axes

__all__ = [
    "RATE",
    "SAME_CONTEXT",
    "SAMPLE_SIZE",
    "Quantised",
    "Search",
    "bit_table",
    "forget_many",
    "leave_out",
    "place_coefficients",
    "prepare_search",
    "quantise_at",
]

SAME_CONTEXT = 1.05  # ratio of two steps: as near, a context stays as it is
_DEAD_ZONE = 0.55  # of a step: what is no larger is zero
_LARGE = 0.65  # of a step: what is larger says whether a band pays for itself
_ROUNDING = 0.4
_MANY = 1 << 18  # candidates from which on rows take much memory
_REUSED = 0.96, 1.3  # between these ratios of a step to that of the rows, they are used again
_NEXT = 0.6, 1.5  # ratios of steps next to one another
_FEW_ROWS = 1 << 12
_LEFT_OUT = 100  # of the largest coefficients one more or less does not matter
SAMPLE_SIZE = 1 << 13  # coefficients at most that a context is fitted to, beside zeros with zero contexts


@dataclass(frozen=True)
class Search:
    """Coefficients of a grid, and the tables of their bases.

    Attributes
    ----------
    shape : tuple of int
    bases : tuple of AxisBasis
    flat : float32 array
        The coefficients in C order.
    tables : ContextTables
    parents : int32 array
        Of each coefficient of a joint basis the position of its parent; empty in others.
    bands : int32 array, shape (axes, longest axis)
        Band of each function of an axis.
    band_strides, band_sizes, band_octaves : int64 array
        In the flat order of all bands: what a band of an axis adds to its number, how many coefficients
        it has, and their octave.
    moves, turns : int32 array, shape of `tables.reach`
        What a place that a coefficient adds to is further along in flat positions, and in bands.
    kept : list of _Rows
        Those of the last step, which one next to it uses again. Many take most of the memory: whoever needs
        it empties the list.
    shared : Dictionary or None
        What the section may begin with.
    context : Context or None
        With which integers are coded, whatever they are; it is fitted to them where None.
    """

    shape: tuple[int, ...]
    bases: Bases
    flat: Floats
    tables: ContextTables
    parents: NDArray[np.int32]
    bands: NDArray[np.int32]
    band_strides: Integers
    band_sizes: Integers
    band_octaves: Integers
    moves: NDArray[np.int32]
    turns: NDArray[np.int32]
    kept: list[_Rows] = field(default_factory=list)
    shared: Dictionary | None = None
    context: Context | None = None


def prepare_search(coefficients: Floats, bases: Bases) -> Search:
    """Prepare what the search for integers of some coefficients needs, whatever the step."""
    shape = coefficients.shape
    functions, joint = functions_of(bases, shape), bool(joint_axes(bases))
    counts = band_counts(functions)
    bands = np.zeros((len(shape), max(shape)), np.int32)
    for axis, each in enumerate(functions):
        bands[axis, : shape[axis]] = each.bands
    tables = context_tables(functions, shape)
    band_strides = np.array([math.prod(counts[axis + 1 :]) for axis in range(len(counts))], np.int64)
    axes = tables.slots[:, 0]
    own = bands[axes][:, None, :]
    beyond = np.minimum(np.arange(bands.shape[1]) + tables.reach, bands.shape[1] - 1)
    turns = np.take_along_axis(np.broadcast_to(own, beyond.shape), beyond, axis=2) - own
    return Search(
        shape=shape,
        bases=bases,
        flat=np.ascontiguousarray(coefficients).reshape(-1),
        tables=tables,
        parents=parents(functions, shape).reshape(-1) if joint else np.zeros(0, np.int32),
        bands=bands,
        band_strides=band_strides,
        band_sizes=reduce(np.multiply.outer, [np.bincount(each.bands) for each in functions]).reshape(-1),
        band_octaves=np.broadcast_to(band_octaves(functions), counts).reshape(-1).astype(np.int64),
        moves=(tables.reach * tables.strides[axes, None, None]).astype(np.int32),
        turns=(turns * band_strides[axes, None, None]).astype(np.int32),
    )


class _Rows(NamedTuple):
    """Candidates and rows, as `rdoq_kernels` has them, of a step.

    Attributes
    ----------
    places, sizes
        Positions and magnitudes of the candidates, the latter not yet in steps.
    present
        Bands that are coded.
    zero_context_counts
        How many zeros with zero contexts each octave has beside the rows.
    """

    step: float
    places: NDArray[np.int32]
    sizes: Floats
    first: NDArray[Any]
    links: NDArray[np.int32]
    weights: NDArray[np.uint8]
    bands: NDArray[np.int32]
    octaves: NDArray[np.uint8]
    present: Bools
    zero_context_counts: Integers


@dataclass(frozen=True)
class Quantised:
    """Integers of a step.

    Attributes
    ----------
    step : float
    context : Context
    places : int32 array
        Flat positions of candidates.
    magnitudes : int32 array
        Theirs.
    bits : float
        About how many they take.
    error : float
        Squared error of the coefficients, less that of none at all.
    """

    step: float
    context: Context
    places: NDArray[np.int32]
    magnitudes: NDArray[np.int32]
    bits: float
    error: float


def quantise_at(
    search: Search,
    known: Parameters | None,
    step: float,
    steps: tuple[int, ...],
    last: Quantised | None = None,
) -> tuple[Parameters | None, Quantised | None]:
    """Quantise at a step; return the parameters of the context, and the integers.

    Parameters
    ----------
    known : float64 array, or None
        Parameters of the context at another step, from which this one starts.
    steps : tuple of int
        Of the optimiser in each fit of the context; the integers are set anew after each. The first is left
        out where a context is known. Where there are none, the context is that of `last`.
    last : Quantised, optional
        Of another step. From those of one next to it integers start, and are set anew once.
    """
    rows = _rows_of(search, step)
    if not rows.places.size:
        return known, None
    scaled = rows.sizes / np.float32(step)
    context = search.context
    if last is not None and _NEXT[0] < step / last.step < _NEXT[1]:
        magnitudes = kernels.follow(rows.places, scaled, last.places, last.magnitudes, step / last.step)
        context, steps = context if steps else last.context, steps[-1:]
    else:
        magnitudes = (scaled + np.float32(_ROUNDING)).astype(np.int32)
    starts = [_first(search)]
    if known is not None:
        starts.insert(0, known)
    parameters, count = starts[0], len(rows.zero_context_counts)
    for turn, iterations in enumerate(steps or (0,)):
        if context is not None:
            chosen = _coded(rows, magnitudes, context)
        elif known is not None and turn < len(steps) - 1:
            chosen = _coded(rows, magnitudes, round_parameters(known, count))
        else:
            parameters, chosen = _fit(rows, magnitudes, starts, len(search.shape), iterations)
            starts[0] = parameters
        own = np.array(chosen.context.neighbour_weights, np.int32)
        kernels.quantise(
            scaled, magnitudes, chosen.activity, chosen.base, rows.octaves, rows.first, rows.links,
            rows.weights, own, chosen.context.power, logarithms(), bit_table(), RATE,
        )  # fmt: skip
    if not magnitudes.any():
        return parameters, None
    bits = _bits(rows, magnitudes, chosen)
    error = kernels.loss(rows.sizes, magnitudes, step) * step**2
    return parameters, Quantised(step, chosen.context, rows.places, magnitudes, bits, error)


def leave_out(search: Search, known: Parameters | None, step: float, bits: float) -> Quantised | None:
    """Quantise the largest coefficients, as many as so many bits are enough for; None if for none."""
    rows = _rows_of(search, step)
    scaled = rows.sizes / np.float32(step)
    nearest = (scaled + np.float32(_ROUNDING)).astype(np.int32)
    order = np.argsort(-scaled, kind="stable")
    starts = [_first(search) if known is None else known]
    best: Quantised | None = None
    fewest, most = 0, int(np.count_nonzero(nearest)) + 1  # that fit, and that do not
    while most - fewest > 1 + fewest // _LEFT_OUT:
        count = (fewest + most) // 2
        magnitudes = np.zeros_like(nearest)
        magnitudes[order[:count]] = nearest[order[:count]]
        chosen = _fit(rows, magnitudes, starts, len(search.shape), 4)[1]
        if (taken := _bits(rows, magnitudes, chosen)) > bits:
            most = count
            continue
        fewest, error = count, kernels.loss(rows.sizes, magnitudes, step) * step**2
        best = Quantised(step, chosen.context, rows.places, magnitudes, taken, error)
    return best


def _first(search: Search) -> Parameters:
    return first_parameters(tuple(not basis.levels for basis in search.bases))


def forget_many(search: Search) -> None:
    """Forget the rows of the last step where they are many: they take most of the memory."""
    if search.kept and len(search.kept[0].places) >= _MANY:
        search.kept.clear()


def _fit(
    rows: _Rows, magnitudes: NDArray[np.int32], starts: list[Parameters], axes: int, steps: int
) -> tuple[Parameters, _Coded]:
    """Fit a context from the first start; from all of them, where few rows may lead it astray."""
    count = len(rows.zero_context_counts)
    sample = _sample(magnitudes, rows, axes)
    octave = float(sample.octaves @ sample.share)
    found = []
    for start in starts if len(sample.share) < _FEW_ROWS else starts[:1]:
        parameters = round_rise(fit_context(start, sample, count, steps), octave)
        found.append((parameters, _coded(rows, magnitudes, round_parameters(parameters, count))))
    return min(found, key=lambda each: _bits(rows, magnitudes, each[1])) if found[1:] else found[0]


class _Coded(NamedTuple):
    """Rows as a context codes them. `base` is what an octave adds to the class."""

    context: Context
    base: NDArray[np.int32]
    activity: NDArray[np.int32]


def _coded(rows: _Rows, magnitudes: NDArray[np.int32], context: Context) -> _Coded:
    count = len(rows.zero_context_counts)
    own = np.array(context.neighbour_weights, np.int32)
    base = (context.offset + context.slope * np.arange(count)).astype(np.int32)
    ground = np.minimum(zero_context_activity(context, count), 2**30).astype(np.int32)
    activity = kernels.activities(magnitudes, rows.first, rows.links, rows.weights, own, ground, rows.octaves)
    return _Coded(context, base, activity)


def _bits(rows: _Rows, magnitudes: NDArray[np.int32], coded: _Coded) -> float:
    """Return the bits of all coefficients."""
    bits = kernels.row_bits(
        magnitudes, coded.activity, coded.base, rows.octaves, coded.context.power, logarithms(), bit_table()
    )
    others = rows.zero_context_counts @ _zero_context_bits(coded.context, len(rows.zero_context_counts))
    return bits + float(others)


def _rows_of(search: Search, step: float) -> _Rows:
    """Those that are kept, where they are near enough; else new ones, in their place."""
    if search.kept:
        kept = search.kept[0]
        if _REUSED[0] < step / kept.step < _REUSED[1]:
            return kept
        del kept
        search.kept.clear()  # first, so that memory holds one
    search.kept.append(_rows(search, step))
    return search.kept[0]


def _rows(search: Search, step: float) -> _Rows:
    """Return the candidates of a step, and the rows whose context they are part of."""
    places = kernels.find_large(search.flat, _DEAD_ZONE * step)
    tables = search.tables
    bands = kernels.bands_of(places, tables.strides, search.bands, search.band_strides)
    sizes = np.abs(search.flat[places])
    present = _paying(search, bands, np.asarray(sizes / np.float32(step), np.float32))
    kept = present[bands]
    places, sizes = places[kept], sizes[kept]
    most = len(places) * len(tables.slots) + search.flat.size  # links, children among them
    first = np.empty(len(places) + 1, np.int32 if most < 2**31 else np.int64)
    links, weights, row_bands = kernels.find_links(
        places, present, tables.strides, search.bands, search.band_strides, tables.slots, search.moves,
        search.turns, tables.depth, tables.parent_weight, search.parents, search.flat.size, first,
    )  # fmt: skip
    octaves = search.band_octaves.astype(np.uint8)[row_bands]
    count = int(search.band_octaves.max()) + 1
    coded = np.bincount(search.band_octaves, search.band_sizes * present, count).astype(np.int64)
    zero_context_counts = coded - np.bincount(octaves, minlength=count)
    return _Rows(step, places, sizes, first, links, weights, row_bands, octaves, present, zero_context_counts)


def place_coefficients(search: Search, quantised: Quantised) -> Coefficients:
    """Put signed integers in their places, up to the last one that is not zero on each axis."""
    places, magnitudes = quantised.places, quantised.magnitudes
    integers = np.zeros(search.flat.size, np.int32)
    integers[places] = np.where(search.flat[places] < 0, -magnitudes, magnitudes)
    integers = integers.reshape(search.shape)
    axes = range(integers.ndim)
    last = [np.flatnonzero(integers.any(axis=tuple(a for a in axes if a != axis)))[-1] for axis in axes]
    integers = np.ascontiguousarray(integers[tuple(slice(int(n) + 1) for n in last)])
    return Coefficients(search.shape, search.bases, float(np.float32(quantised.step)), integers)


def _sample(magnitudes: NDArray[np.int32], rows: _Rows, axes: int) -> Sample:
    """Return what a context is fitted to: rows whose context is not zero, and all other zeros by octave."""
    counts, octaves = rows.zero_context_counts, rows.octaves
    chosen, repeats, beside = kernels.neighbour_magnitudes(
        magnitudes, rows.first, rows.links, rows.weights, SAMPLE_SIZE, AXIS_NEIGHBOURS * axes, len(octaves)
    )
    inner = chosen < len(magnitudes)
    q = np.zeros(len(chosen) + len(counts), np.float32)
    q[: len(chosen)][inner] = magnitudes[chosen[inner]]
    g = np.append(octaves[chosen], np.arange(len(counts))).astype(np.float32)
    # Rows whose context is zero by now count with the others of their octave.
    others = counts + np.bincount(octaves, minlength=len(counts))
    others = others - np.bincount(octaves[chosen], repeats, len(counts))
    share = np.append(repeats, np.maximum(others, 0)).astype(np.float64)
    t = np.concatenate([beside, np.zeros((len(counts), beside.shape[1]), np.float32)])
    return Sample(q, g, t, (share / share.sum()).astype(np.float32))


def _paying(search: Search, bands: NDArray[np.int32], scaled: Floats) -> Bools:
    """Bands whose large coefficients are worth more than it costs to say where they stand."""
    size = search.band_sizes.size
    large = scaled > _LARGE
    count = np.bincount(bands[large], minlength=size)
    worth = np.bincount(bands[large], np.minimum(np.square(scaled[large]), 1e6), size)
    cost = count * (0.5 * np.log2(search.band_sizes / np.maximum(count, 1)) + 2.0)
    return np.asarray((count > 0) & (worth > RATE * cost))


def _zero_context_bits(context: Context, octaves: int) -> Doubles:
    """Bits of a zero with a zero context on each octave."""
    chosen = classes(context, zero_context_activity(context, octaves), np.arange(octaves))
    return np.asarray(bit_table()[chosen, 0], np.float64)


@lru_cache(maxsize=1)
def bit_table() -> Floats:
    """Tabulate the bits of magnitudes that are symbols, signs included; (CLASSES, LARGEST_SYMBOL + 1)."""
    chance = significance()
    ones = magnitude_frequencies(LARGEST_SYMBOL) / 2.0**PRECISION
    bits = np.concatenate(
        [-np.log2(1 - chance)[:, None], 1 - np.log2(chance)[:, None] - np.log2(ones)], axis=1
    )
    return bits.astype(np.float32)
