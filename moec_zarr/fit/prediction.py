"""How integers of a grid are best predicted from their neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moec_zarr.arrays import Bools, Doubles, Integers
from moec_zarr.bitstream.lattice import Lattice, sublattice, surroundings
from moec_zarr.bitstream.prediction import UNIT_BITS, Predictor, encode_predicted, find_repeated

__all__ = ["estimate", "list_predictors"]

_SAMPLE = 1 << 13  # voxels that weights are fitted to
_WHOLE = 1 << 14  # voxels that are tried as a whole
_BOXES, _BOX = (0.1, 0.5, 0.9), 6000  # where boxes of about so many voxels lie that are tried of others
_ROUNDS = 4  # of reweighted least squares
_REPEATED = 0.05  # share of values that repeat from which flags are tried
_LARGEST_WEIGHT = (1 << 15) - 1
_PER_WEIGHT = 16  # voxels for each weight at least


def estimate(flat: Integers, known: Bools, lattice: Lattice, predictors: Sequence[Predictor]) -> list[float]:
    """Estimate how many bytes integers, as `arrange` returns them, take with each of these predictors."""
    parts, scale = [(flat, known, lattice)], 1.0
    if flat.size > _WHOLE:
        parts = [sublattice(flat, known, lattice, _BOX, where) for where in _BOXES]
        counted = sum(int(np.count_nonzero(part[1])) for part in parts)
        scale = int(np.count_nonzero(known)) / max(counted, 1)
    sizes = []
    for predictor in predictors:
        coded = [encode_predicted(*part, predictor) for part in parts]
        sizes.append(scale * sum(math.inf if each is None else len(each) for each in coded))
    return sizes


def list_predictors(flat: Integers, known: Bools, lattice: Lattice) -> list[Predictor]:
    """List ways to predict integers."""
    rng = np.random.default_rng(0)
    places = np.flatnonzero(known)
    if places.size > _SAMPLE:
        places = np.sort(rng.choice(places, _SAMPLE, replace=False))
    own = flat[places]
    seen, beside = surroundings(flat, known, lattice, places)
    plain = _fit(seen, beside, own)
    predictors = [Predictor(*plain)]
    common, share = _most_common(own)
    candidate, _ = find_repeated(seen, beside, common)
    new = own != candidate
    if new.mean() > 1 - _REPEATED:
        return predictors
    predictors.append(Predictor(*plain, common))
    if new.any():
        predictors.append(Predictor(*_fit(seen[new], beside[new], own[new]), common))
        if share > _REPEATED:
            other = new & (own != common)
            if other.any():
                weights = _fit(seen[other], (beside & (seen != common))[other], own[other])
                predictors.append(Predictor(*weights, common, True))
    return predictors


def _most_common(values: Integers) -> tuple[int, float]:
    """Return the most common value and its share."""
    each, counts = np.unique(values, return_counts=True)
    return int(each[counts.argmax()]), float(counts.max() / values.size)


def _fit(seen: Integers, beside: Bools, own: Integers) -> tuple[tuple[int, ...], int]:
    """Fit weights of neighbours by least absolute errors, and what stands in where there are none."""
    start = int(np.sort(own)[own.size // 2])
    count = min(seen.shape[1], max(own.size // _PER_WEIGHT, 1))
    base = np.where(beside.any(axis=1), seen[np.arange(len(seen)), beside.argmax(axis=1)], start)
    steps: Doubles = np.where(beside, (seen - base[:, None]), 0)[:, :count].astype(np.float64)
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
