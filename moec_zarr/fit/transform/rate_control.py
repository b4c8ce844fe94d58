"""The transform of a chunk within a byte budget: step, context, integers."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.coding_order import band_counts
from moec_zarr.bitstream.coefficients import STEPS, write_bases, write_context
from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.masks import write_mask
from moec_zarr.bitstream.shared import NUMBER_BYTES, find_entry
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.fit.transform.basis_search import Bases
from moec_zarr.fit.transform.context_fit import Parameters, first_parameters, round_parameters
from moec_zarr.fit.transform.inpainting import fill_smoothly
from moec_zarr.fit.transform.rdoq import (
    SAME_CONTEXT,
    Quantised,
    Search,
    forget_many,
    leave_out,
    place_coefficients,
    quantise_at,
)
from moec_zarr.fit.transform.rdoq_kernels import bands_of
from moec_zarr.fit.transform.start import (
    DENSEST,
    Start,
    Transform,
    encode_transform,
    find_start,
    finest_step,
    fold_grid,
    mean_error,
)
from moec_zarr.model.basis import AxisBasis, functions_of
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.folding import folded_shape

__all__ = [
    "Begun",
    "begin_transform",
    "fit_mean",
    "fit_transform",
    "smallest_transform",
]

_log = logging.getLogger(__name__)
_COEFFICIENTS_PER_BYTE = 1.5  # that a budget pays for, about
_TOO_FINE = 2.0  # times a budget: bases that were compared at so many bytes may not be the best ones
_STEP = 5  # bytes of the step and the largest magnitude
_WORDS = 2  # bytes that the range coder takes beside the bits, about
_CLOSE = 0.991  # of the budget: near enough to be coded
_LATE_CLOSE = 0.97  # the same, after a few rounds
_AIM = 0.9965  # of the budget
_ACCEPTABLE = 0.99  # of the budget
_SMALL_BUDGET = 2000  # bytes in which a step is cheap
_SMALL_CLOSE = 0.9955  # of a small budget
_FEW_BYTES = 6  # below the budget, that are near enough too: the range coder's words have four
_EARLY_ROUNDS, _SMALL_ROUNDS = 5, 8
_LATE_ROUNDS = 8  # after which the smallest coefficients are left out, where much of a budget is left
_MOST_ROUNDS = 20
# To begin with, of nats a coefficient: with all coded ever more finely it would be 1, but new ones come.
_POWER = 0.31, 0.55
_OWN_CONTEXT = 20_000  # bytes of integers, from which a fitted context saves far more than it takes
_LEAST_POWER = 0.1  # of the bytes, that the step changes by: of noise a little changes many
_MOST_POWER = 5.0
_LEAST_CHANGE = 0.01  # of the logarithm of the bytes, from which the power is found
_COARSER_STEPS = 20  # at most, where none of the rounds fits
_FITS = 4, 4  # steps of the optimiser of the context
_FIRST_FITS = 1, 2  # rounds that fit it in any case: of a large budget, and of a small one
_SAME_STEP = 1.002  # of two steps: nothing lies between them


class Begun:
    """A transform that is begun: its bases are known, and integers of about the bytes that it may take."""

    def __init__(self, starts: list[Start], target: Floats, valid: Bools | None, shape: tuple[int, ...]):
        self._starts, self._target, self._valid, self._shape = starts, target, valid, shape

    @property
    def bases(self) -> Bases:
        """Bases of the axes, most likely."""
        return self._starts[0][0].bases

    def values(self) -> Floats:
        """Return the values that the first integers add up to, in the shape that is fitted."""
        search, _, first = self._starts[0]
        return CoefficientField(place_coefficients(search, first)).whole()

    def finish(self, budget: int) -> Transform | None:
        """Return the transform that takes so many bytes at most; None if they pay for none."""
        found = [_within_budget(*start, budget) for start in self._starts]
        known = [each for each in found if each is not None]
        if not known:
            return None

        def error(transform: Transform) -> float:
            return mean_error(CoefficientField(transform.coefficients).whole(), self._target, self._valid)

        return (known[0] if len(known) == 1 else min(known, key=error)).unfold(self._shape)


def begin_transform(
    target: Floats,
    valid: Bools | None,
    budget: int,
    warm_start: Coefficients | None = None,
    shared: Dictionary | None = None,
) -> Begun | None:
    """Begin the transform of a grid within a byte budget; None if it pays for none.

    Parameters
    ----------
    target : float32 array
        No axis of one voxel. Values at invalid voxels do not matter.
    valid : bool array of the same shape, or None
        Which voxels count; all where None.
    budget : int
        Bytes that the section may take, about.
    warm_start : Coefficients, optional
        Of about as many bytes, from whose bases and step the search starts; else bases are compared.
    shared : Dictionary, optional
        Whose bases are taken where they suit, in place of the comparison.
    """
    shape = target.shape
    target, valid = fold_grid(target, valid)
    count = max(1, int(min(_COEFFICIENTS_PER_BYTE * budget, DENSEST * target.size)))
    whole = target if valid is None else fill_smoothly(target, valid)
    start = find_start(whole, valid, count, warm_start, shared)
    if start is None:
        return None
    starts, taken = [start], start[2].bits / 8
    if warm_start is None and taken > _TOO_FINE * budget:
        other = find_start(whole, valid, max(1, int(count * budget / taken)), None, shared)
        starts += [] if other is None else [other]
    return Begun(starts, target, valid, shape)


def fit_transform(
    target: Floats,
    valid: Bools | None,
    budget: int,
    warm_start: Coefficients | None = None,
    shared: Dictionary | None = None,
) -> Transform | None:
    """Fit the transform of a grid within a byte budget, which is kept; None if it pays for none.

    All parameters are those of :func:`begin_transform`.
    """
    begun = begin_transform(target, valid, budget, warm_start, shared)
    return None if begun is None else begun.finish(budget)


def fit_mean(target: Floats, valid: Bools | None) -> Transform:
    """Return the smallest transform: a single coefficient, that of the mean of the valid voxels."""
    mean = float(target.mean(dtype=np.float64) if valid is None else target[valid].mean(dtype=np.float64))
    return _single(target.shape, mean * math.sqrt(math.prod(folded_shape(target.shape))))


@lru_cache(maxsize=16)
def smallest_transform(shape: tuple[int, ...]) -> int:
    """Return the bytes of the smallest transform of a grid."""
    return len(_single(shape, 1.0).payload)


def _single(shape: tuple[int, ...], value: float) -> Transform:
    """Return a transform of the first coefficient alone."""
    folded = folded_shape(shape)
    step = float(np.float32(max(abs(value), STEPS[0])))
    integers = np.full((1,) * len(folded), math.copysign(1, value), np.int32)
    coefficients = Coefficients(shape, (AxisBasis(),) * len(folded), step, integers)
    context = round_parameters(first_parameters((True,) * len(folded)), 1)
    return encode_transform(coefficients, context, shape)


def _within_budget(
    search: Search, parameters: Parameters | None, first: Quantised, budget: int
) -> Transform | None:
    """Return the finest step that fits, in a few rounds."""
    best: Transform | None = None
    head, last = float(_estimate_head(search, first)), first
    count = int(np.count_nonzero(first.magnitudes))
    power = (_POWER[0] + _POWER[1] * count / search.flat.size) * math.log(2) * first.bits / count
    power = max(power, math.log(2) * 8 * budget / search.flat.size)  # where all are coded
    if first.bits > 8 * _OWN_CONTEXT:
        search = replace(search, context=None)
    small = budget < _SMALL_BUDGET
    finest = finest_step(search)
    step = max(first.step * _coarser(first.bits / 8 + head, budget, power), finest)
    over, under = 0.0, math.inf  # the coarsest step that takes too many bytes, and the finest one that fits
    fits: Quantised | None = None
    beyond: Quantised | None = None  # the least that takes too many bytes
    smallest_error = math.inf
    fitted = math.inf  # the step that the context is fitted to
    for turn in range(_MOST_ROUNDS):
        used = 0.0 if fits is None else fits.bits / 8 + head
        if turn == _LATE_ROUNDS and beyond is not None and used < _LATE_CLOSE * budget:
            # Bits and integers decide about one another: all noise is coded, or next to none.
            room = _AIM * budget - max(head, _estimate_head(search, beyond))
            left = leave_out(search, parameters, beyond.step, 8 * room)
            fits = left if left is not None and (fits is None or left.error < fits.error) else fits
            break
        anew = (
            turn < _FIRST_FITS[small]
            or turn >= _EARLY_ROUNDS
            or not 1 / SAME_CONTEXT < step / fitted < SAME_CONTEXT
        )
        parameters, quantised = quantise_at(search, parameters, step, _FITS if anew else (), last=last)
        if quantised is None:
            if step == finest:
                break
            under = step
            step = max(0.7 * step if over == 0 else math.sqrt(over * step), finest)
            continue
        size = quantised.bits / 8 + head
        _log.debug("step %.4g: about %.0f bytes of %d", quantised.step, size, budget)
        change = math.log(quantised.bits / last.bits)
        if turn and abs(change) > _LEAST_CHANGE:
            slope = -math.log(quantised.step / last.step) / change
            power = min(max(slope, _LEAST_POWER), _MOST_POWER) if slope > 0 else power
        last, fitted = quantised, step if anew else fitted
        early = turn < (_SMALL_ROUNDS if small else _EARLY_ROUNDS)
        close = (_SMALL_CLOSE if small else _CLOSE) if early else _LATE_CLOSE
        if min(close * budget, budget - _FEW_BYTES) <= size <= budget:
            transform = _coded(search, quantised)
            if transform is not None:
                exact = transform.nbytes
                head, size = head + exact - size, float(exact)
                if exact <= budget and quantised.error < smallest_error:
                    best, smallest_error = transform, quantised.error
                enough = budget - _FEW_BYTES if small else _ACCEPTABLE * budget
                if best is not None and (enough <= size <= budget or not early):
                    break
        if size <= budget and (fits is None or quantised.error < fits.error):
            fits = quantised
        # What is found last holds: the same step takes other bytes after other ones.
        if size > budget:
            if beyond is None or quantised.bits < beyond.bits:
                beyond = quantised
            over, under = step, under if under > step else math.inf
        else:
            over, under = over if over < step else 0.0, step
        if under < _SAME_STEP * over:
            over, under = (over, math.inf) if size > budget else (0.0, under)
        step = max(quantised.step * _coarser(size, budget, power), finest)
        if step == quantised.step:
            break
        if not over < step < under and over > 0 and under < math.inf:
            step = max(math.sqrt(over * under), finest)
    if fits is not None and fits.error < smallest_error:
        best = _coded_within(search, fits, budget) or best
    step = max(last.step, step)
    for _ in range(_COARSER_STEPS):
        if best is not None:
            break
        step *= 1.1
        parameters, quantised = quantise_at(search, parameters, step, _FITS)
        if quantised is None:
            break
        best = _coded_within(search, quantised, budget)
    return best


def _estimate_head(search: Search, quantised: Quantised) -> int:
    """Estimate the bytes beside the bits of the integers."""
    head = write_bases(search.bases) + write_context(quantised.context)
    own = find_entry(search.shared, Section.TRANSFORM, head)
    tables = search.tables
    places = quantised.places[quantised.magnitudes > 0]
    bands = bands_of(places, tables.strides, search.bands, search.band_strides)
    present = np.bincount(bands, minlength=search.band_sizes.size) > 0
    mask = write_mask(present.reshape(band_counts(functions_of(search.bases, search.shape))))
    return len(head) + len(mask) + _STEP + _WORDS + (0 if own is None else NUMBER_BYTES - own[1])


def _coded(search: Search, quantised: Quantised) -> Transform | None:
    forget_many(search)  # with what coding needs they would take the most memory
    coefficients = place_coefficients(search, quantised)
    try:
        return encode_transform(coefficients, quantised.context, search.shape, search.shared)
    except DoesNotFit:
        return None


def _coded_within(search: Search, quantised: Quantised, budget: int) -> Transform | None:
    transform = _coded(search, quantised)
    return transform if transform is not None and transform.nbytes <= budget else None


def _coarser(size: float, budget: int, power: float) -> float:
    """By how much a step is to be larger."""
    return float(min(max((size / min(_AIM * budget, budget - _FEW_BYTES / 2)) ** power, 0.2), 5.0))
