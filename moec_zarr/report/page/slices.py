"""A few slices of a decoded array, and of its original where there is one; never the whole of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles
from moec_zarr.quality import measure, merge
from moec_zarr.report.comparison.labels import Axis, axis_of
from moec_zarr.report.comparison.pictures import Slice
from moec_zarr.report.page.findings import Choice, Sample, SliceView
from moec_zarr.statistics import valid_voxels

__all__ = ["Pair", "sample_slices"]

_SIDE = 1024  # voxels of a slice that is read; of larger ones the middle
_DRAWN = 320  # voxels of a side that are drawn at most
_PLACES = 5  # to choose from along a dimension
_BINS = 61


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A decoded array and its original, of one shape; both are xarray's, and lazy.

    Attributes
    ----------
    decoded : DataArray
    original : DataArray or None
    missing : float or None
        A sentinel that is no valid value.
    """

    decoded: Any
    original: Any
    missing: float | None

    @property
    def plane(self) -> list[int]:
        """The two axes of a slice: the last ones longer than 1. Fewer where there are no two."""
        return [axis for axis, n in enumerate(self.decoded.shape) if n > 1][-2:]

    @property
    def outer(self) -> list[int]:
        """The other axes longer than 1."""
        return [axis for axis, n in enumerate(self.decoded.shape) if n > 1][:-2]

    @property
    def spacing(self) -> tuple[float, str] | None:
        """The length of a voxel and its units, where it is the same along both axes of a slice."""
        if len(self.plane) < 2:
            return None
        y, x = map(self.axis, self.plane)
        if y.values is None or not y.comparable(x) or y.step is None or x.step is None or not y.units:
            return None
        return (abs(y.step), y.units) if math.isclose(abs(y.step), abs(x.step), rel_tol=1e-3) else None

    def axis(self, axis: int) -> Axis:
        """Return an axis with its coordinate."""
        return axis_of(self.decoded, axis)

    def read(self, place: Mapping[int, int]) -> tuple[Any, Array | None, Array]:
        """Return the middle of a slice: the array, not read, and values of original and decoded."""
        where: dict[Any, Any] = {}
        for axis, (dim, length) in enumerate(zip(self.decoded.dims, self.decoded.shape, strict=True)):
            start = _first(length)
            where[dim] = slice(start, start + _SIDE) if axis in self.plane else place.get(axis, 0)
        decoded = self.decoded.isel(where)
        x = None if self.original is None else np.asarray(self.original.isel(where).values)
        return decoded, x, np.asarray(decoded.values)

    def valid(self, values: Array) -> Bools:
        """Return which voxels hold a valid value."""
        return valid_voxels(values, self.missing)


def _first(length: int) -> int:
    """Return the first index of the middle of a side."""
    return max(0, length - _SIDE) // 2


def sample_slices(
    pair: Pair, budget: int, worst: int | None, exceeding: Mapping[int, Sequence[int]]
) -> Sample:
    """Read slices, evenly spread along each dimension that is no side of a slice.

    Parameters
    ----------
    pair : Pair
        With at least two axes longer than 1.
    budget : int
        Slices to read; along the first dimension there may be one place more.
    worst : int or None
        The index along the first axis with the largest error on record: it is among the places, and is
        shown first.
    exceeding : mapping of int to sequence of int
        By axis, the indices where the error exceeds the signal, the worst first: that is among the places.
    """
    worsts = {axis: next(iter(exceeding.get(axis, ())), None) for axis in pair.outer}
    if worst is not None and 0 in worsts:
        worsts[0] = worst
    places = [_places(pair, axis, budget, worsts[axis]) for axis in pair.outer]
    views: list[SliceView] = []
    errors: list[Doubles] = []
    differ = 0

    for key in product(*(range(len(chosen)) for chosen in places)):
        at = {axis: places[i][key[i]] for i, axis in enumerate(pair.outer)}
        shown, x, y = pair.read(at)
        if x is None:
            views.append(_view(pair, key, shown, None, y, None))
            continue
        in_x, in_y = pair.valid(x), pair.valid(y)
        both = in_x & in_y
        with np.errstate(invalid="ignore", over="ignore"):  # of infinities, which do not count
            error = np.where(both, y.astype(np.float64) - x.astype(np.float64), np.nan)
        views.append(_view(pair, key, shown, x, y, error))
        differ += int(np.count_nonzero(in_x != in_y))
        errors.append(error[both])
    choices = (
        _choice(pair.axis(axis), chosen, worst if axis == 0 else None, exceeding.get(axis, ()))
        for axis, chosen in zip(pair.outer, places, strict=True)
    )
    sample = Sample(choices=tuple(choices), views=tuple(views))
    if pair.original is None:
        return sample
    error = np.concatenate(errors)
    bound = float(np.abs(error).max(initial=0)) or 1.0
    return dataclasses.replace(
        sample,
        differ=differ,
        measured=merge(view.quality for view in views if view.quality is not None),
        histogram=np.histogram(error, bins=_BINS, range=(-bound, bound)),
    )


def _places(pair: Pair, axis: int, budget: int, worst: int | None) -> list[int]:
    """Choose indices along an axis that the reader chooses from."""
    length = int(pair.decoded.shape[axis])
    count = min(_PLACES, int(budget ** (1 / len(pair.outer)) + 1e-9), length)
    if count < 2:
        return [length // 2 if worst is None else worst]
    even = np.linspace(0, length - 1, count).round().astype(int).tolist()
    return sorted({*even, *(() if worst is None else (worst,))})


def _choice(axis: Axis, chosen: list[int], worst: int | None, exceeding: Sequence[int]) -> Choice:
    texts = []
    for i in chosen:
        said = ["has the largest error"] * (i == worst) + ["the error exceeds the signal"] * (i in exceeding)
        texts.append(axis.place(i) + (f" ({', '.join(said)})" if said else ""))
    shown = worst if worst is not None else next(iter(exceeding), None)
    return Choice(title=axis.title, places=tuple(texts), first=0 if shown is None else chosen.index(shown))


def _view(
    pair: Pair, key: tuple[int, ...], shown: Any, x: Array | None, y: Array, error: Doubles | None
) -> SliceView:
    strides = [-(-n // _DRAWN) for n in y.shape]
    small = tuple(slice(None, None, stride) for stride in strides)
    drawn = shown[small]
    rows, columns = (
        dataclasses.replace(axis_of(drawn, side), start=_first(pair.decoded.shape[axis]), stride=stride)
        for side, (axis, stride) in enumerate(zip(pair.plane, strides, strict=True))
    )

    def of(values: Doubles) -> Slice:
        return Slice(values=values[small], y=rows, x=columns)

    decoded = of(np.where(pair.valid(y), y, np.nan))
    if x is None or error is None:
        return SliceView(key=key, decoded=decoded)
    both = pair.valid(x) & pair.valid(y)
    return SliceView(
        key=key,
        decoded=decoded,
        original=of(np.where(pair.valid(x), x, np.nan)),
        error=of(error),
        quality=measure(x, y, both),
        deviation=float(x[both].astype(np.float64).std()) if both.any() else None,
    )
