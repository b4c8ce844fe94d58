"""How integers of a grid are best predicted from their neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Doubles, Integers
from moec_zarr.bitstream.lattice import Lattice, surroundings
from moec_zarr.bitstream.prediction import (
    UNIT_BITS,
    WITNESSES,
    Predictor,
    encode_predicted,
    find_repeated,
    half_octaves,
)

__all__ = ["Seen", "adapt_predictor", "choose_predictor", "draw_seen", "rank_predictors"]

_SAMPLE = 1 << 13  # voxels that weights are fitted to
_WHOLE = 1 << 14  # voxels that are coded with each predictor; of more the sample says which one is best
_ROUNDS = 4  # of reweighted least squares
_REPEATED = 0.05  # share of values that repeat from which flags are tried
_NEAREST = 5  # neighbours whose likeness says in an estimate whether a value repeats
_LARGEST = 2.0**62  # error that is told from others
_LARGEST_WEIGHT = (1 << 15) - 1
_PER_WEIGHT = 16  # voxels for each weight at least


class Seen(NamedTuple):
    """Some integers, and what is seen of their neighbours.

    Attributes
    ----------
    own : int64 array, shape (n,)
    values, there : int64 and bool array, shape (n, neighbours)
        The neighbours' integers, nearest first, and which of them there are.
    """

    own: Integers
    values: Integers
    there: Bools

    def only(self, which: Bools) -> Seen:
        """Return some of them."""
        return Seen(self.own[which], self.values[which], self.there[which])


def draw_seen(flat: Integers, known: Bools, lattice: Lattice) -> Seen:
    """Draw some of the integers that `arrange` returns."""
    places = np.flatnonzero(known)
    if places.size > _SAMPLE:
        places = np.sort(np.random.default_rng(0).choice(places, _SAMPLE, replace=False))
    return Seen(flat[places], *surroundings(flat, known, lattice, places))


def choose_predictor(
    flat: Integers, known: Bools, lattice: Lattice, ranked: Sequence[Predictor]
) -> Predictor:
    """Choose the best one of those that `rank_predictors` returns: of few integers by the bytes they take."""
    if flat.size > _WHOLE or len(ranked) == 1:
        return ranked[0]

    def size(predictor: Predictor) -> float:
        coded = encode_predicted(flat, known, lattice, predictor)
        return math.inf if coded is None else len(coded)

    return min(ranked, key=size)


def rank_predictors(seen: Seen) -> tuple[list[Predictor], float]:
    """Return ways to predict integers, the best one by a sample first, and the bits of each with that one."""
    predictors = _list_predictors(seen)
    bits = _estimate_bits(seen, predictors)
    order = sorted(range(len(bits)), key=lambda i: bits[i])
    return [predictors[i] for i in order], bits[order[0]]


def _list_predictors(seen: Seen) -> list[Predictor]:
    """List ways to predict integers."""
    plain = _fit(seen)
    predictors = [Predictor(*plain)]
    common, share = _most_common(seen.own)
    candidate, _ = find_repeated(seen.values, seen.there, common)
    new = seen.own != candidate
    if new.mean() > 1 - _REPEATED:
        return predictors
    predictors.append(Predictor(*plain, common))
    if new.any():
        predictors.append(Predictor(*_fit(seen.only(new)), common))
        if share > _REPEATED:
            other = new & (seen.own != common)
            if other.any():
                beside = seen.there & (seen.values != common)
                predictors.append(Predictor(*_fit(seen._replace(there=beside).only(other)), common, True))
    return predictors


def adapt_predictor(predictor: Predictor, values: Integers) -> Predictor:
    """Return one with the same weights for the integers of another spacing."""
    sample = values[:: max(1, values.size // _SAMPLE) | 1]  # an odd step meets all columns of most arrays
    common = None if predictor.common is None else _most_common(sample)[0]
    if predictor.blank and (other := sample[sample != common]).size:
        sample = other
    return replace(predictor, start=int(np.sort(sample)[sample.size // 2]), common=common)


def _estimate_bits(seen: Seen, predictors: Sequence[Predictor]) -> list[float]:
    """Estimate how many bits each integer takes with these predictors, as listed, by those of a sample."""
    bits, new, flagged = [], np.ones(seen.own.size, bool), 0.0
    for number, predictor in enumerate(predictors):
        if number == 1:  # the first one alone has no flags
            common = predictor.common or 0
            candidate, context = find_repeated(seen.values, seen.there, common)
            new = seen.own != candidate
            nearest = context >> max(min(WITNESSES, seen.values.shape[1]) + 1 - _NEAREST, 1)
            flagged = _entropy(2 * nearest + context % 2, new.astype(np.int64))
        own = seen.only(new)
        if predictor.blank:
            own = own._replace(there=own.there & (own.values != predictor.common))
        bits.append((flagged + _error_bits(own, predictor)) / seen.own.size)
    return bits


def _error_bits(seen: Seen, predictor: Predictor) -> float:
    """Estimate how many bits the errors of a prediction take."""
    if not seen.own.size:
        return 0.0
    base, steps = _steps_of(seen, predictor.start)
    guess = steps[:, : len(predictor.weights)] @ np.array(predictor.weights, np.float64) / (1 << UNIT_BITS)
    sizes = np.minimum(np.abs((seen.own - base) - np.rint(guess)), _LARGEST).astype(np.int64)
    # How far off neighbours were is not known here; how much they differ says nearly as much.
    around = np.abs(steps.astype(np.float64)).sum(axis=1) / np.maximum(seen.there.sum(axis=1) // 2, 1)
    classes = half_octaves(sizes)
    behind = np.where(classes > 3, classes >> 1, np.minimum(classes, 1)).sum()  # bits behind the classes
    contexts = half_octaves(np.minimum(around, _LARGEST).astype(np.int64))
    return _entropy(contexts, classes) + float(behind)


def _entropy(contexts: Integers, symbols: Integers) -> float:
    """Return the bits of symbols, given their contexts; both are small numbers."""
    counts = np.bincount(contexts * (int(symbols.max()) + 1) + symbols).astype(np.float64)
    together = np.bincount(contexts).astype(np.float64)
    own, whole = counts[counts > 0], together[together > 0]
    return float(whole @ np.log2(whole) - own @ np.log2(own))


def _most_common(values: Integers) -> tuple[int, float]:
    """Return the most common value and its share."""
    each, counts = np.unique(values, return_counts=True)
    return int(each[counts.argmax()]), float(counts.max() / values.size)


def _steps_of(seen: Seen, start: int) -> tuple[Integers, Integers]:
    """Return the nearest neighbour of each integer, and by how much the others differ from it."""
    nearest = seen.values[np.arange(len(seen.own)), seen.there.argmax(axis=1)]
    base = np.where(seen.there.any(axis=1), nearest, start)
    return base, np.where(seen.there, seen.values - base[:, None], 0)


def _fit(seen: Seen) -> tuple[tuple[int, ...], int]:
    """Fit weights of neighbours by least absolute errors, and what stands in where there are none."""
    own = seen.own
    start = int(np.sort(own)[own.size // 2])
    count = min(seen.values.shape[1], max(own.size // _PER_WEIGHT, 1))
    base, differences = _steps_of(seen, start)
    steps: Doubles = differences[:, :count].astype(np.float64)
    wanted = (own - base).astype(np.float64)
    scale = max(float(np.abs(steps).max(initial=0)), 1.0)
    steps, wanted = steps / scale, wanted / scale
    weighting = np.ones(len(own))
    weights = np.zeros(count)
    for _ in range(_ROUNDS):
        weighted = steps * weighting[:, None]
        products = weighted.T @ steps
        products += np.eye(count) * (1e-6 * max(products.trace() / count, 1e-12) + 1e-300)
        weights = np.linalg.solve(products, weighted.T @ wanted)
        off = np.abs(wanted - steps @ weights)
        weighting = 1 / np.maximum(off, max(0.5 / scale, 0.5 * float(np.median(off))))
    whole = np.clip(np.rint(weights * (1 << UNIT_BITS)), -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
    used = np.flatnonzero(whole)
    return tuple(whole[: used[-1] + 1].astype(int).tolist()) if used.size else (), start
