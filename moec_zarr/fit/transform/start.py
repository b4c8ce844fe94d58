"""Where a search for a transform starts: its bases, and first integers in them; and what a search returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from moec_zarr.arrays import Bools, Floats
from moec_zarr.bitstream.coding_order import extent_of, present_bands
from moec_zarr.bitstream.coefficients import STEPS
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT, Context
from moec_zarr.bitstream.shared import NUMBER_BYTES
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.payloads import encode_after_entry
from moec_zarr.fit.transform.basis_choice import choose_bases, try_bases
from moec_zarr.fit.transform.basis_search import estimate_kept, wavelets_of
from moec_zarr.fit.transform.context_fit import Parameters
from moec_zarr.fit.transform.expert_fit import Restoration
from moec_zarr.fit.transform.inpainting import inpaint
from moec_zarr.fit.transform.rdoq import Quantised, Search, prepare_search
from moec_zarr.model.basis import SINGLE
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.folding import fold
from moec_zarr.model.linear_experts import AnyTransform, restore
from moec_zarr.model.transform import analyse, corner

__all__ = [
    "DENSEST",
    "Start",
    "Transform",
    "encode_transform",
    "estimate_count",
    "find_start",
    "finest_step",
    "fold_grid",
    "mean_error",
    "squared_error",
]

DENSEST = 0.565  # coefficients of a voxel that are kept where bases are compared, at most
_INPAINTING_STEPS = 4, 14  # where few coefficients are kept, and where many are, whose error is small
_MANY = 0.15  # coefficients of a voxel

Start: TypeAlias = tuple[Search, Parameters | None, Quantised]


class Transform(NamedTuple):
    """Coefficients with the bytes of their section but for a dictionary's entry, and what restores them."""

    coefficients: Coefficients
    payload: bytes
    context: Context
    restoration: Restoration | None = None
    entry: int | None = None
    shared: Dictionary | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the section, with the number of the entry before it, and of what restores it."""
        entry = 0 if self.entry is None else NUMBER_BYTES
        return len(self.payload) + entry + (0 if self.restoration is None else self.restoration.nbytes)

    def field(self, precision: np.dtype[Any] = SINGLE) -> AnyTransform:
        """Return the field that they are decoded to."""
        experts = None if self.restoration is None else self.restoration.experts
        return restore(CoefficientField(self.coefficients, precision), experts)

    def unfold(self, shape: tuple[int, ...]) -> Transform:
        """Return the transform of the grid that was folded."""
        return self._replace(coefficients=replace(self.coefficients, shape=shape))


def fold_grid(target: Floats, valid: Bools | None) -> tuple[Floats, Bools | None]:
    """Fold what is fitted: what stands behind the last voxels of an axis repeats them, or is not valid."""
    return fold(target, None), None if valid is None else fold(valid)


def find_start(
    whole: Floats,
    valid: Bools | None,
    count: int,
    warm_start: Coefficients | None = None,
    shared: Dictionary | None = None,
) -> Start | None:
    """Find the best bases, or take those of a warm start, and integers in them.

    `whole` is the target, filled smoothly where it is not valid.
    """
    if warm_start is None:
        best = choose_bases(whole, valid, count, shared)
    else:
        best = try_bases(whole, warm_start.bases, warm_start.step, shared)
    if best is None or best.quantised is None:
        return None
    search = best.search
    if valid is not None:
        whole = inpaint(whole, valid, search.bases, count, _INPAINTING_STEPS[count > _MANY * whole.size])
        inpainted = prepare_search(analyse(whole, search.bases), search.bases)
        search = replace(inpainted, shared=search.shared, context=search.context)
    return search, best.parameters, best.quantised


def encode_transform(
    coefficients: Coefficients,
    context: Context,
    shape: tuple[int, ...],
    shared: Dictionary | None = None,
) -> Transform:
    """Encode the coefficients of a folded grid; return the transform of the grid of a shape.

    Raises
    ------
    DoesNotFit
        If they cannot be coded.
    """
    payload, entry = encode_after_entry(coefficients, context, shared)
    return Transform(_as_read(coefficients), payload, context, None, entry, shared).unfold(shape)


def _as_read(coefficients: Coefficients) -> Coefficients:
    """Return coefficients in the corner in which a decoder has them: others are added up in another order."""
    functions, own = coefficients.functions, coefficients.integers
    extent = extent_of(functions, present_bands(functions, own))
    integers = np.zeros(extent, np.int32)
    common = corner(tuple(map(min, extent, own.shape)))
    integers[common] = own[common]
    return replace(coefficients, integers=integers)


def estimate_count(whole: Floats, error: float) -> int:
    """Estimate how many coefficients a mean square error takes, by wavelets on all axes."""
    coefficients = analyse(whole, tuple(wavelets_of(n) for n in whole.shape))
    return estimate_kept(coefficients, error * whole.size)


def finest_step(search: Search) -> float:
    """Return the step with which the largest coefficient can just be coded."""
    return max(STEPS[0], 1.0001 * float(np.abs(search.flat).max()) / MAX_COEFFICIENT)


def mean_error(values: Floats, target: Floats, valid: Bools | None) -> float:
    """Compute the mean square error over the valid voxels, of values that a decoder clips to -1..1."""
    voxels = target.size if valid is None else int(valid.sum())
    return squared_error(np.clip(values, -1, 1), target, valid) / voxels


def squared_error(values: Floats, target: Floats, valid: Bools | None) -> float:
    """Add up squared errors over the valid voxels."""
    where: Any = True if valid is None else valid
    return float(np.square(values - target).sum(dtype=np.float64, where=where))
