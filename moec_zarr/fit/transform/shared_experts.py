"""Linear experts that chunks of a variable share, fitted to several of them together.

The products of the chunks' columns add up. A few sets of experts are found, in each of which those chunks
count most that it serves best; a chunk takes one of them, or none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Doubles
from moec_zarr.fit.transform.expert_fit import NEPER, NOTHING, Restoration, quantise
from moec_zarr.fit.transform.expert_sample import Sample, find_knots, merge_ramps, multiply_columns

__all__ = ["fit_shared_experts"]

_STEEPNESS = 0.3, 0.6, 0.8, 0.92, 0.98, 0.998  # quantiles of the knots
_VALUES = (0.002, 0.02, 0.06, *np.linspace(0.12, 0.92, 11).tolist(), 0.97, 0.998)
_SETS = 3  # at most, beside the one for all chunks
_ROUNDS = 4  # in which chunks change sets
_OTHERS = 0.25  # weight of all chunks in each set
_RIDGE = 1e-2  # of the squares of a column: chunks differ by more than their samples
_PRICE = 1e-6  # of a chunk's squares of errors, that a bit is worth
_FEWEST = 3  # chunks


class _Products(NamedTuple):
    """Of each chunk, whose squares of errors add up to 1: products of all columns, and with the errors."""

    gram: Doubles  # shape (chunks, columns, columns)
    moment: Doubles


class _Squares(NamedTuple):
    """Those of some chunks."""

    gram: Doubles
    moment: Doubles

    def solve(self) -> Doubles:
        return np.asarray(np.linalg.solve(self.gram, self.moment), np.float64)


def fit_shared_experts(samples: Sequence[Sample], axes: int) -> tuple[list[Restoration], float]:
    """Fit sets of experts to samples of several chunks.

    Returns
    -------
    sets : list of Restoration
    gain : float
        dB that a chunk gains in the mean, by the sets that the others lead to.
    """
    totals = [float(each.weights @ np.square(each.errors)) for each in samples]
    samples = [
        each._replace(weights=each.weights / total)
        for each, total in zip(samples, totals, strict=True)
        if total > 0
    ]
    if len(samples) < _FEWEST:
        return [], 0.0
    together = Sample(
        *(np.concatenate([own[index] for own in samples], axis=-1) for index in range(len(Sample._fields)))
    )
    counted = np.concatenate([each.weights / each.weights.sum() for each in samples])
    spread = math.exp(-sum(math.log(float(each.weights.sum())) for each in samples) / (2 * len(samples)))
    steepness, levels = (
        merge_ramps(knots, range(len(knots.places)))
        for knots in find_knots(together._replace(weights=counted), spread, _STEEPNESS, _VALUES)
    )
    parts = [multiply_columns(each, steepness, levels) for each in samples]
    products = _Products(np.stack([gram for gram, _ in parts]), np.stack([moment for _, moment in parts]))
    chunks = list(range(len(samples)))
    gains = []
    for chunk in chunks:
        sets = _find_sets(products, [other for other in chunks if other != chunk])
        gains.append(max(0.0, *(_gain(each.solve(), products, chunk) for each in sets)))
    found = []
    for each in _find_sets(products, chunks):
        price = _PRICE * len(chunks)
        found.append(quantise(steepness.knots, levels.knots, axes, each.gram, each.moment, price)[0])
    return found, NEPER * float(np.mean(gains))


def _find_sets(products: _Products, chunks: Sequence[int]) -> list[_Squares]:
    """Find the set that serves all of some chunks, and a few that serve parts of them better."""
    every = _add(products, chunks)
    if len(chunks) < _FEWEST:
        return [every]
    alone = [_add(products, [chunk], every) for chunk in chunks]
    gains = np.array([_gains(each, products, chunks) for each in [every, *alone]])
    chosen = [0]
    for _ in range(min(_SETS, len(chunks) - 1)):
        best = gains[chosen].max(axis=0)
        # What a set gains on the chunk that it was made for says nothing of others.
        further = np.maximum(gains[1:] - best, 0)
        np.fill_diagonal(further, 0)
        chosen.append(1 + int(further.sum(axis=1).argmax()))
    sets = [alone[number - 1] for number in dict.fromkeys(chosen[1:])]
    for _ in range(_ROUNDS):
        nearest = np.argmax([_gains(each, products, chunks) for each in sets], axis=0)
        members = [
            [chunk for chunk, own in zip(chunks, nearest, strict=True) if own == number]
            for number in range(len(sets))
        ]
        sets = [_add(products, own, every) for own in members if own]
    return [every, *sets]


def _add(products: _Products, chunks: Sequence[int], every: _Squares | None = None) -> _Squares:
    """Add up the products of some chunks, and a part of those of all."""
    gram, moment = products.gram[chunks].sum(axis=0), products.moment[chunks].sum(axis=0)
    if every is not None:
        gram, moment = gram + _OTHERS * every.gram, moment + _OTHERS * every.moment
    diagonal = np.diag(gram)
    return _Squares(gram + np.diag(_RIDGE * diagonal + 1e-9 * diagonal.max()), moment)


def _gains(squares: _Squares, products: _Products, chunks: Sequence[int]) -> list[float]:
    weights = squares.solve()
    return [max(0.0, _gain(weights, products, chunk)) for chunk in chunks]


def _gain(weights: Doubles, products: _Products, chunk: int) -> float:
    """Return the logarithm of a chunk's error over what weights leave of it."""
    left = 1 + float(weights @ products.gram[chunk] @ weights - 2 * products.moment[chunk] @ weights)
    return -math.log(max(left, NOTHING))
