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
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from moec_zarr.basis import LONGEST, TAPS, Basis, Kind, analysis, basis
from moec_zarr.entropy import MAX_MAGNITUDE, PRECISION, class_frequencies
from moec_zarr.latents import (
    STEPS,
    Context,
    Fronts,
    Latents,
    Synthesis,
    band_counts,
    bands_at,
    corner,
    fronts,
    present_bands,
    reach,
)

__all__ = ["fit_latents", "has_bases", "squared_error"]

RATE = math.log(2) / 6
_LARGEST = 255  # magnitude beyond which a table of bits is continued by its last entry
_DENSITY = 1.5  # coefficients that a byte pays for, about
_NEAR = 1.05  # of the budget: what is estimated above it is not coded to be measured
_SMALL = 2000  # bytes of a budget in which what stands before the coefficients counts
_FULL = 0.993  # of the budget: near enough
_LOOKS = 2  # at a step, before bases are compared
_ROUNDS = 10  # in which the step nears the budget
_PASSES = 3  # over the integers in a round
_FITTED = 1 << 17  # coefficients at most that the context is fitted to
_FILLS = 12  # iterations that extend the valid voxels to the others

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float32]


def has_bases(shape: tuple[int, ...]) -> bool:
    """Whether a grid can have latents."""
    return all(n <= LONGEST for n in shape)


def fit_latents(
    target: _Floats, valid: NDArray[np.bool_] | None, size: Callable[[Latents], int], budget: int
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
    """
    count = min(max(1, int(_DENSITY * budget)), target.size - 1)
    if valid is not None:
        nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
        target = target[tuple(nearest)]
    search, step = _best_search(target, valid, count)
    best, most = None, 0.0
    for turn in range(2 * _ROUNDS if step >= STEPS[0] else 0):
        found, taken = search(step)
        if found is not None and (taken < _NEAR * budget or budget < _SMALL):
            try:
                taken = float(size(found))
            except OverflowError:  # a coefficient of more steps than can be coded
                taken = 3.0 * budget
        if most < taken <= budget:
            best, most = found, taken
        if most > _FULL * budget or (best is not None and turn + 1 >= _ROUNDS):
            break
        # Bytes go with about the inverse step, and fall a little with each pass at the same one.
        step *= min(max((taken + 1) / (0.998 * budget), 0.3), 3.0) ** 0.7
        if best is None and turn + 1 >= _ROUNDS:
            step *= 1.2
    return best


def _best_search(target: _Floats, valid: NDArray[np.bool_] | None, count: int) -> tuple[_Search, float]:
    """The search in the bases that do best, all at the same step; and that step.

    Error and bytes count as they do for one coefficient.
    """
    best = _tried(target, valid, count, _kinds(target, count), 0.0)
    for kind in Kind:
        alike = (kind,) * target.ndim
        if alike != best.search.kinds:
            found = _tried(target, valid, count, alike, best.step)
            best = found if found.cost < best.cost else best
    return best.search, best.step


class _Tried(NamedTuple):
    search: _Search
    step: float
    cost: float  # squared error and weighted bits at this step


def _tried(
    target: _Floats, valid: NDArray[np.bool_] | None, count: int, kinds: tuple[Kind, ...], step: float
) -> _Tried:
    """A search in bases of these kinds, at a step; at one that suits the count where it is zero."""
    bases = [basis(kind, n) for kind, n in zip(kinds, target.shape, strict=True)]
    inverses = [analysis(kind, n) for kind, n in zip(kinds, target.shape, strict=True)]
    coefficients = _transformed(target, inverses)
    if valid is not None:
        coefficients = _extended(coefficients, target, valid, bases, inverses, count)
    if not step:
        magnitudes = np.abs(coefficients)
        # No finer than the largest coefficient can be coded, with room for a few finer steps.
        step = max(1.3 * _largest(magnitudes, count), float(magnitudes.max()) / (0.9 * MAX_MAGNITUDE))
    search = _Search(target.shape, kinds, bases, coefficients)
    return _Tried(search, step, _cost(search, step, target, valid) if step >= STEPS[0] else 0.0)


def _cost(search: _Search, step: float, target: _Floats, valid: NDArray[np.bool_] | None) -> float:
    """Squared error and weighted bits of a search at a step."""
    for _ in range(_LOOKS):
        found, taken = search(step)
    values = np.zeros_like(target) if found is None else Synthesis(found).whole()
    return squared_error(values, target, valid) + RATE * step**2 * 8 * taken


def squared_error(values: _Floats, target: _Floats, valid: NDArray[np.bool_] | None) -> float:
    """Sum over the valid voxels."""
    where: Any = True if valid is None else valid
    return float(np.square(values - target).sum(dtype=np.float64, where=where))


def _kinds(target: _Floats, count: int) -> tuple[Kind, ...]:
    """For each axis the basis with which `count` coefficients leave the least error."""

    def left(kinds: list[Kind]) -> float:
        squares = np.square(
            _transformed(target, [analysis(k, n) for k, n in zip(kinds, target.shape, strict=True)])
        ).ravel()
        return float(
            np.partition(squares, squares.size - count)[: squares.size - count].sum(dtype=np.float64)
        )

    kinds = [Kind.WAVELETS] * target.ndim
    least = left(kinds)
    for axis in range(target.ndim):
        other = [*kinds[:axis], Kind.COSINES, *kinds[axis + 1 :]]
        if (error := left(other)) < least:
            least, kinds = error, other
    return tuple(kinds)


def _transformed(array: _Floats, matrices: list[_Floats]) -> _Floats:
    """A matrix, shape (new, old), applied along each axis."""
    for matrix in matrices:
        array = np.tensordot(array, matrix, axes=(0, 1))
    return array


def _largest(magnitudes: _Floats, count: int) -> float:
    """The magnitude that `count` coefficients exceed."""
    flat = magnitudes.ravel()
    return float(np.partition(flat, flat.size - count)[flat.size - count])


def _extended(
    coefficients: _Floats,
    target: _Floats,
    valid: NDArray[np.bool_],
    bases: list[Basis],
    inverses: list[_Floats],
    count: int,
) -> _Floats:
    """Coefficients of the field that is sparsest where its voxels do not count.

    In turn the small coefficients are dropped and the valid voxels restored, as in Guleryuz, IEEE
    Trans. Image Process. 15(3), 2006.
    """
    for turn in range(_FILLS):
        share = (turn + 1) / _FILLS
        threshold = _largest(np.abs(coefficients), max(1, int(count * share)))
        sparse = np.where(np.abs(coefficients) > threshold, coefficients, np.float32(0))
        filled = np.where(valid, target, _transformed(sparse, [each.synthesis for each in bases]))
        coefficients = _transformed(filled, inverses)
    return coefficients


@dataclass
class _Search:
    """Finds the integers for a step, starting from those of the step before."""

    shape: tuple[int, ...]
    kinds: tuple[Kind, ...]
    bases: list[Basis]
    coefficients: _Floats

    def __post_init__(self) -> None:
        self._worth: NDArray[np.bool_] | None = None  # bands that paid for themselves
        self._before = np.zeros(self.shape, np.int32)  # magnitudes of the last search
        self._parameters = _parameters(len(self.shape))

    def __call__(self, step: float) -> tuple[Latents | None, float]:
        """Latents of this step, None where all integers are zero; and about how many bytes they take."""
        present = _promising(self.bases, self.coefficients, step)
        if self._worth is not None:
            present &= self._worth
        if not present.any():
            return None, 0.0
        order = fronts(self.bases, present)
        inner = self.coefficients[corner(order.extent)].ravel()[order.where]
        scaled = (np.abs(inner) / np.float32(step)).astype(np.float32)
        before = self._before[corner(order.extent)].ravel()[order.where]
        magnitudes = before.astype(np.int64) if before.any() else np.floor(scaled + 0.35).astype(np.int64)
        for _ in range(_PASSES):
            taps = _at_taps(magnitudes, order)
            context = _fitted(self._parameters, magnitudes, taps, order.levels)
            classes = context.classes(taps, order.levels)
            magnitudes = _cheapest(scaled, classes)
        bits = _BITS[classes, np.minimum(magnitudes, _LARGEST)]
        self._worth = present & ~self._wasteful(scaled, magnitudes, bits, order, present)
        if not magnitudes.any():
            return None, 0.0
        integers = np.zeros(math.prod(order.extent), np.int32)
        integers[order.where] = magnitudes * np.sign(inner).astype(np.int64)
        context = _fitted(self._parameters, magnitudes, _at_taps(magnitudes, order), order.levels)
        whole = integers.reshape(order.extent)
        self._before[...] = 0
        self._before[corner(order.extent)] = np.abs(whole)
        whole = whole[corner(reach(self.bases, present_bands(self.bases, whole)))]
        latents = Latents(self.shape, self.kinds, float(np.float32(step)), context, whole)
        return latents, float(bits.sum(dtype=np.float64)) / 8

    def _wasteful(
        self, scaled: _Floats, magnitudes: _Ints, bits: _Floats, order: Fronts, present: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Bands that cost more than they save."""
        saved = np.square(scaled) - np.square(scaled - magnitudes)
        index = np.unravel_index(order.where, order.extent)
        bands = np.ravel_multi_index(bands_at(self.bases, index), present.shape)
        balance = np.bincount(bands, saved - RATE * bits, present.size).reshape(present.shape)
        return np.asarray(present & (balance <= 0))


def _promising(bases: list[Basis], coefficients: _Floats, step: float) -> NDArray[np.bool_]:
    """Bands whose large coefficients are worth more than it costs to say where they stand."""
    shape = band_counts(bases)
    large = np.nonzero(np.abs(coefficients) > 0.65 * step)
    bands = np.ravel_multi_index(bands_at(bases, large), shape)
    size = math.prod(shape)
    count = np.bincount(bands, minlength=size)
    worth = np.bincount(bands, np.minimum(np.square(coefficients[large] / step), 1e6), size)
    room = reduce(np.multiply.outer, [np.bincount(each.bands) for each in bases]).ravel()
    cost = count * (0.5 * np.log2(room / np.maximum(count, 1)) + 2.0)
    return np.asarray((count > 0) & (worth > RATE * cost)).reshape(shape)


def _at_taps(magnitudes: _Ints, order: Fronts) -> _Ints:
    whole = np.zeros(math.prod(order.extent) + 1, np.int64)
    whole[order.where] = magnitudes
    return whole[order.taps]


def _cheapest(scaled: _Floats, classes: _Ints) -> _Ints:
    """The integer next to each coefficient, the one below it, or zero."""
    near = np.rint(scaled).astype(np.int64)
    best, least = np.zeros_like(near), np.square(scaled) + RATE * _BITS[classes, 0]
    at = np.flatnonzero(near > 0)
    for candidate in (near[at] - 1, near[at]):
        cost = np.square(scaled[at] - candidate) + RATE * _BITS[classes[at], np.minimum(candidate, _LARGEST)]
        better = cost < least[at]
        best[at[better]], least[at[better]] = candidate[better], cost[better]
    return best


# Bits of a magnitude, its sign included, shape (CLASSES, _LARGEST + 1).
_BITS: _Floats = (PRECISION - np.log2(class_frequencies(_LARGEST).astype(np.float64))).astype(np.float32)


# -------------------------------------------------------------------------------- context
#
# The context in real numbers, fitted by L-BFGS, then rounded. Scale of the Laplace distribution:
# exp(offset + slope g + power log(exp(floor + rise g) + sum of exp(weight) |q|)).

_MOST_SCALE = 900.0
_MOST_FLOOR = 15  # its logarithm
_LEAST_SCALE = 0.03
_STEPS = 12  # of its optimiser, in each pass


def _parameters(axes: int) -> dict[str, torch.Tensor]:
    start = {"weights": [-1.0] * (axes * TAPS), "floor": -2.0, "rise": 0.0}
    start |= {"power": 0.9, "offset": 0.0, "slope": 0.0}
    return {name: torch.tensor(value).requires_grad_() for name, value in start.items()}


def _fitted(p: dict[str, torch.Tensor], magnitudes: _Ints, taps: _Ints, levels: _Ints) -> Context:
    """The context with which magnitudes take the fewest bits; `p` is trained on."""
    every = max(1, len(magnitudes) // _FITTED)
    q, t, g = (torch.from_numpy(part[::every].astype(np.float32)) for part in (magnitudes, taps, levels))
    optimiser = torch.optim.LBFGS(p.values(), max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        activity = torch.exp(p["floor"] + p["rise"] * g) + t @ torch.exp(p["weights"])
        scale = torch.exp(p["offset"] + p["slope"] * g + p["power"] * torch.log(activity))
        bits = _laplace_bits(q, scale.clamp(_LEAST_SCALE, _MOST_SCALE)).mean()
        optimiser.zero_grad()
        bits.backward()
        return bits

    optimiser.step(loss)
    return _rounded({name: value.detach().numpy().astype(np.float64) for name, value in p.items()})


def _laplace_bits(q: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Bits of magnitude q under a Laplace distribution in bins of unit width."""
    half = 0.5 / scale
    zero = -torch.log(-torch.expm1(-half))
    other = (2 * q - 1) * half - torch.log(-0.5 * torch.expm1(-2 * half))
    return torch.where(q > 0, other, zero) / math.log(2)


def _rounded(p: dict[str, NDArray[np.float64]]) -> Context:
    """The parameters in the units of :class:`Context`."""
    octave = math.log(2)
    # Whole numbers of activity in one of the real ones: as many as weights and floor have room for.
    unit = min(255 / np.exp(p["weights"].max()), 2.0**_MOST_FLOOR / np.exp(p["floor"]))

    def whole(value: Any, low: int, high: int) -> int:
        return int(min(max(round(float(value)), low), high))

    # Both exponential and logarithm run in eighths of an octave, classes in quarters from 2**-5 on.
    floor = 8 * (p["floor"] + np.log(unit)) / octave
    offset = 128 * (4 * (p["offset"] - p["power"] * np.log(unit)) / octave + 20.5)
    return Context(
        weights=tuple(whole(w, 0, 255) for w in np.atleast_1d(unit * np.exp(p["weights"]))),
        floor=whole(floor, -128, 127),
        rise=whole(8 * p["rise"] / octave, -128, 127),
        power=whole(64 * p["power"], 0, 255),
        offset=whole(offset, -(2**15), 2**15 - 1),
        slope=whole(128 * 4 * p["slope"] / octave, -(2**15), 2**15 - 1),
    )
