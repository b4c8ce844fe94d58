"""A few slices of a decoded array, and of its original where there is one; never the whole of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles, Integers
from moec_zarr.quality import Quality, measure, merge
from moec_zarr.report.comparison.labels import Axis, axis_of
from moec_zarr.report.comparison.pictures import Slice
from moec_zarr.report.comparison.spectra import Spectrum, spectrum
from moec_zarr.report.page.findings import Choice, Profile, SliceView
from moec_zarr.statistics import valid_voxels

__all__ = ["Pair", "Sample", "make_profile", "sample", "sample_profile", "spacing"]

_SIDE = 1024  # voxels of a slice that is read; of larger ones the middle
_DRAWN = 320  # voxels of a side that are drawn at most
_PLACES = 5  # to choose from along a dimension
_PROFILE = 32  # slices that are compared along a dimension
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

    def axis(self, axis: int) -> Axis:
        """Return an axis with its coordinate."""
        return axis_of(self.decoded, axis)

    def read(self, place: Mapping[int, int]) -> tuple[Any, Array | None, Array]:
        """Return the middle of a slice: the array, not read, and values of original and decoded."""
        where: dict[Any, Any] = {}
        for axis, (dim, length) in enumerate(zip(self.decoded.dims, self.decoded.shape, strict=True)):
            start = max(0, length - _SIDE) // 2
            where[dim] = slice(start, start + _SIDE) if axis in self.plane else place.get(axis, 0)
        decoded = self.decoded.isel(where)
        x = None if self.original is None else np.asarray(self.original.isel(where).values)
        return decoded, x, np.asarray(decoded.values)

    def valid(self, values: Array) -> Bools:
        """Return which voxels hold a valid value."""
        return valid_voxels(values, self.missing)


@dataclass(kw_only=True)
class Sample:
    """The slices of a report, and what they have in common.

    Attributes
    ----------
    choices : tuple of Choice
    views : list of SliceView
    differ : int
        Voxels that are valid in one of both arrays alone.
    measured : Quality or None
        Over all slices; None without an original, and so are the next two.
    histogram : tuple of two arrays or None
        Voxels in each bin, and the edges of the bins, of decoded less original.
    spectrum : Spectrum or None
    """

    choices: tuple[Choice, ...] = ()
    views: list[SliceView] = field(default_factory=list)
    differ: int = 0
    measured: Quality | None = None
    histogram: tuple[Integers, Doubles] | None = None
    spectrum: Spectrum | None = None


def sample(pair: Pair, budget: int, worst: int | None) -> Sample:
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
    """
    places = [_places(pair, axis, budget, worst if axis == 0 else None) for axis in pair.outer]
    found = Sample(
        choices=tuple(
            _choice(pair.axis(axis), chosen, worst if axis == 0 else None)
            for axis, chosen in zip(pair.outer, places, strict=True)
        )
    )
    errors: list[Doubles] = []

    def read() -> Iterator[tuple[Array, Array, Bools]]:
        """One slice after the other, so that only one is held at full size."""
        for key in product(*(range(len(chosen)) for chosen in places)):
            at = {axis: places[i][key[i]] for i, axis in enumerate(pair.outer)}
            shown, x, y = pair.read(at)
            if x is None:
                found.views.append(_view(pair, key, shown, None, y, None))
                continue
            in_x, in_y = pair.valid(x), pair.valid(y)
            both = in_x & in_y
            with np.errstate(invalid="ignore", over="ignore"):  # of infinities, which do not count
                error = np.where(both, y.astype(np.float64) - x.astype(np.float64), np.nan)
            found.views.append(_view(pair, key, shown, x, y, error))
            found.differ += int(np.count_nonzero(in_x != in_y))
            errors.append(error[both])
            yield x, y, both

    found.spectrum = spectrum(read())
    if pair.original is not None:
        found.measured = merge(view.quality for view in found.views if view.quality is not None)
        error = np.concatenate(errors)
        bound = float(np.abs(error).max(initial=0)) or 1.0
        found.histogram = np.histogram(error, bins=_BINS, range=(-bound, bound))
    return found


def _places(pair: Pair, axis: int, budget: int, worst: int | None) -> list[int]:
    """Choose indices along an axis that the reader chooses from."""
    length = int(pair.decoded.shape[axis])
    count = min(_PLACES, int(budget ** (1 / len(pair.outer)) + 1e-9), length)
    if count < 2:
        return [length // 2 if worst is None else worst]
    even = np.linspace(0, length - 1, count).round().astype(int).tolist()
    return sorted({*even, *(() if worst is None else (worst,))})


def _choice(axis: Axis, chosen: list[int], worst: int | None) -> Choice:
    texts = [axis.place(i) + (" (has the largest error)" if i == worst else "") for i in chosen]
    return Choice(title=axis.title, places=tuple(texts), first=0 if worst is None else chosen.index(worst))


def _view(
    pair: Pair, key: tuple[int, ...], shown: Any, x: Array | None, y: Array, error: Doubles | None
) -> SliceView:
    small = tuple(slice(None, None, -(-n // _DRAWN)) for n in y.shape)
    drawn = shown[small]
    decoded = Slice.of(drawn, np.where(pair.valid(y), y, np.nan)[small])
    if x is None or error is None:
        return SliceView(key=key, decoded=decoded)
    return SliceView(
        key=key,
        decoded=decoded,
        original=Slice.of(drawn, np.where(pair.valid(x), x, np.nan)[small]),
        error=Slice.of(drawn, error[small]),
        quality=measure(x, y, pair.valid(x) & pair.valid(y)),
    )


def spacing(pair: Pair) -> tuple[float, str] | None:
    """Return the length of a voxel and its units, where it is the same along both axes of a slice."""
    if len(pair.plane) < 2:
        return None
    y, x = map(pair.axis, pair.plane)
    if y.values is None or not y.comparable(x) or y.step is None or x.step is None or not y.units:
        return None
    return (abs(y.step), y.units) if math.isclose(abs(y.step), abs(x.step), rel_tol=1e-3) else None


def sample_profile(pair: Pair, axis: int) -> Profile | None:
    """Measure errors at some places along an axis, in the middle of the others; None if no original."""
    if pair.original is None:
        return None
    length = int(pair.decoded.shape[axis])
    places = np.unique(np.linspace(0, length - 1, min(length, _PROFILE)).round().astype(int)).tolist()
    middle = {other: pair.decoded.shape[other] // 2 for other in pair.outer}
    found = []
    for i in places:
        _, x, y = pair.read(middle | {axis: i})
        assert x is not None
        found.append(measure(x, y, pair.valid(x) & pair.valid(y)))
    others = [pair.axis(other).at(middle[other]) for other in pair.outer if other != axis]
    at = f" at {', '.join(others)}" if others else ""
    return make_profile(
        pair.axis(axis),
        places,
        [each.rmse if each.n_valid else math.nan for each in found],
        [each.max_error if each.n_valid else math.nan for each in found],
        f"Measured in {len(places)} slices{at}.",
    )


def make_profile(
    axis: Axis, indices: Iterable[int], rmse: Iterable[float], max_error: Iterable[float], origin: str
) -> Profile:
    """Return a profile whose rows are single voxels of an axis."""
    indices = list(indices)
    values = axis.values if axis.values is not None and axis.values.dtype.kind in "iuf" else None
    return Profile(
        title=axis.name,
        places=tuple(axis.place(i) for i in indices),
        positions=None if values is None else tuple(float(values[i]) for i in indices),
        rmse=tuple(map(float, rmse)),
        max_error=tuple(map(float, max_error)),
        origin=origin,
    )
