"""The bases of a chunk: those that do best at one step, among the ones that are listed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.coefficients import STEPS, write_bases, write_context
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT
from moec_zarr.bitstream.shared import ENTRY_BYTES
from moec_zarr.fit.transform.basis_search import (
    Analyses,
    Bases,
    energy_of,
    estimate_fine_bits,
    list_bases,
    measure,
)
from moec_zarr.fit.transform.context_fit import Parameters
from moec_zarr.fit.transform.rdoq import (
    RATE,
    Quantised,
    Search,
    forget_many,
    place_coefficients,
    prepare_search,
    quantise_at,
)
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.transform import analyse

__all__ = ["BasisTrial", "cheapest", "choose_bases", "squared_error", "try_bases", "weighted_bits"]

_FIRST_FITS = (6,)  # steps of the optimiser of the context, before bases are compared
# Times the smallest measure: bases beyond are not tried. Cosines alone take fewer bits than it says.
_UNLIKELY, _UNLIKELY_COSINES, _UNLIKELY_PRECISE = 1.04, 1.1, 1.25
# The same of the bits of a fine quantiser, where so large a share of the coefficients is kept.
_UNLIKELY_BITS = (0.15, 1.0), (0.04, 1.02)
_COARSER_FINEST = 2.0  # of the finest step in some bases: those with no finer one are left out
_COARSE = 1 << 13  # steps of the largest coefficient, up to which single precision is far more than enough
_CLOSE_LOSS = 0.05  # of the smallest loss above it: what is compared by the error of its voxels


class BasisTrial(NamedTuple):
    """Integers at a step in some bases, and what they lose: squared error and weighted bits."""

    search: Search
    parameters: Parameters | None
    quantised: Quantised | None
    loss: float


def choose_bases(whole: Floats, valid: Bools | None, count: int) -> BasisTrial | None:
    """Return the bases that do best, all at the same step.

    Error and bytes count as they do for one coefficient. Where many coefficients are kept, the bits of a
    fine quantiser say as much: then few bases are tried, or one.
    """
    known = Analyses(whole)
    candidates, threshold = list_bases(known, count)
    tolerance = next((most for share, most in _UNLIKELY_BITS if count >= share * whole.size), math.inf)
    dense = tolerance < math.inf
    step = 1.3 * threshold
    measured: list[tuple[float, float, float, Bases]] = []
    for bases in candidates:
        coefficients = known.find(bases)
        # No finer than the largest coefficient can be coded, with room for a few finer steps.
        finest = float(np.abs(coefficients).max()) / (0.5 * MAX_COEFFICIENT)
        if max(step, finest) < STEPS[0]:
            return None
        bits = estimate_fine_bits(coefficients.reshape(-1), max(step, finest)) if dense else 0.0
        measured.append((measure(coefficients, threshold), finest, bits, bases))
    smallest = min(each[0] for each in measured)
    likely = [each[1:] for each in measured if each[0] <= _most_likely(each[3], known.precise) * smallest]
    # Where the steps wanted are too fine, bases of smaller coefficients have finer ones.
    finest = max(step, _COARSER_FINEST * min((each[0] for each in likely), default=0.0))
    likely = [each for each in likely if each[0] <= finest]
    step = max(step, *(each[0] for each in likely), STEPS[0])
    fewest = min((bits for _, bits, _ in likely), default=math.inf)
    chosen = [bases for _, bits, bases in likely if not dense or bits <= tolerance * fewest]
    known.keep(chosen)
    # Fine steps tell what changes of bases have rounded.
    precise = max((each[0] for each in likely), default=0.0) * 0.5 * MAX_COEFFICIENT > _COARSE * step
    trials = [
        try_bases(analyse(whole, bases) if precise else known.find(bases), bases, step) for bases in chosen
    ]
    known.keep([])
    return cheapest([each for each in trials if each.quantised is not None], whole, valid)


def _most_likely(bases: Bases, precise: bool) -> float:
    """Return what times the smallest measure bases may have."""
    if precise:
        return _UNLIKELY_PRECISE
    return _UNLIKELY if any(basis.levels for basis in bases) else _UNLIKELY_COSINES


def try_bases(coefficients: Floats, bases: Bases, step: float) -> BasisTrial:
    """Quantise the coefficients in some bases at a step."""
    search = prepare_search(coefficients, bases)
    parameters, quantised = quantise_at(search, None, step, _FIRST_FITS)
    energy = energy_of(search.flat)
    loss = math.inf if quantised is None else energy + quantised.error + weighted_bits(quantised, search)
    forget_many(search)
    return BasisTrial(search, parameters, quantised, loss)


def cheapest(trials: list[BasisTrial], whole: Floats, valid: Bools | None) -> BasisTrial | None:
    """Return the one of smallest loss; those that come near it are compared by the error of their voxels."""
    smallest = min((each.loss for each in trials), default=math.inf)
    close = [each for each in trials if each.loss <= smallest + _CLOSE_LOSS * abs(smallest)]
    if len(close) < 2:
        return close[0] if close else None
    return min(close, key=lambda each: _voxel_loss(each, whole, valid))


def _voxel_loss(trial: BasisTrial, whole: Floats, valid: Bools | None) -> float:
    """Return the loss with the error of the voxels: wavelets are not quite orthonormal."""
    assert trial.quantised is not None
    if valid is None and not any(basis.levels for basis in trial.search.bases):
        return trial.loss
    values = CoefficientField(place_coefficients(trial.search, trial.quantised)).whole()
    return squared_error(values, whole, valid) + weighted_bits(trial.quantised, trial.search)


def weighted_bits(quantised: Quantised, search: Search) -> float:
    """Weigh the bits of the integers and of the edge weights of their bases, in units of the squared error.

    Bases with an entry of a dictionary take none, and spare others that all transforms have.
    """
    side = sum(4 * len(basis.edge_weights) for basis in search.bases)
    if search.context is not None:
        side = -8 * (len(write_bases(search.bases)) + len(write_context(search.context)) - ENTRY_BYTES)
    return RATE * quantised.step**2 * (quantised.bits + side)


def squared_error(values: Floats, target: Floats, valid: Bools | None) -> float:
    """Add up squared errors over the valid voxels."""
    where: Any = True if valid is None else valid
    return float(np.square(values - target).sum(dtype=np.float64, where=where))
