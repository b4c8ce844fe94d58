"""What a verdict is made of: figures of slices, and of values of the original beside those decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from moec_zarr.adapters.tree import local_name
from moec_zarr.arrays import Array, Bools, Doubles
from moec_zarr.quality import absolute_error, measure, merge
from moec_zarr.report.comparison.labels import Axis, axis_of, units_of
from moec_zarr.report.comparison.spectra import Spectrum, spectrum
from moec_zarr.report.verdict.dssim import LEAST_SIDE, dssim
from moec_zarr.statistics import valid_voxels

__all__ = ["VOXELS", "Beyond", "Recorded", "Slices", "Values", "measure_pair"]

VOXELS = 2**22
"""That are read of a variable, at most."""

_PERCENTILES = (1.0, 10.0, 50.0, 90.0, 99.0)
_TAILS = (1.0, 99.0)  # percentiles that are thresholds where nothing else is
_RAIN = (1.0, 10.0, 20.0)  # mm a day: wet days, and those of the indices R10mm and R20mm of ETCCDI
_A_DAY = {"mm/day", "mm/d", "mm day-1", "mm d-1", "mm day^-1", "mm d^-1", "mm day**-1", "mm d**-1"}
_A_SECOND = {"kg m-2 s-1", "kg/m2/s", "kg m^-2 s^-1", "kg m**-2 s**-1", "mm s-1", "mm/s"}
_NEAR = 1e-4  # of a value: an error that counts for the share of points
_MAP = ("lat", "lon", "rlat", "rlon", "latitude", "longitude")


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Figures of slices, or of all slices at a place, along axes that are no side of one.

    Attributes
    ----------
    axes : tuple of Axis
    indices : tuple of tuple of int
        Along each, which the figures belong to.
    n_valid, rmse, max_error, magnitude, deviation : array of float64
        Number of valid values, root mean square and largest error; of the original the mean magnitude, and
        the standard deviation within slices. What belongs to no valid value is not to be looked at.
    """

    axes: tuple[Axis, ...]
    indices: tuple[tuple[int, ...], ...]
    n_valid: Doubles
    rmse: Doubles
    max_error: Doubles
    magnitude: Doubles
    deviation: Doubles

    @np.errstate(over="ignore")  # squares of the largest doubles are infinite
    def along(self, *kept: int) -> Slices:
        """Return the figures along some of the axes, over all others; over all axes where none is given."""
        over = tuple(axis for axis in range(len(self.axes)) if axis not in kept)
        count = np.asarray(self.n_valid.sum(axis=over))

        def mean(values: Doubles) -> Doubles:
            total = (self.n_valid * np.where(self.n_valid > 0, values, 0)).sum(axis=over)
            return np.asarray(total / np.maximum(count, 1))

        return Slices(
            axes=tuple(self.axes[axis] for axis in kept),
            indices=tuple(self.indices[axis] for axis in kept),
            n_valid=count,
            rmse=np.sqrt(mean(np.square(self.rmse))),
            max_error=np.where(self.n_valid > 0, self.max_error, 0).max(axis=over, initial=0.0),
            magnitude=mean(self.magnitude),
            deviation=np.sqrt(mean(np.square(self.deviation))),
        )

    @property
    def of_magnitude(self) -> Doubles:
        """The error over the mean magnitude; NaN where no value is valid."""
        return self._share(self.magnitude)

    @property
    def of_deviation(self) -> Doubles:
        """The error over the standard deviation, NaN where no value is valid; above 1 it exceeds it."""
        return self._share(self.deviation)

    def _share(self, signal: Doubles) -> Doubles:
        """Divide; no error is no share of nothing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(self.rmse == 0, 0.0, self.rmse / signal)
        return np.where(self.n_valid > 0, share, np.nan)

    def place(self, position: tuple[int, ...]) -> str:
        """Say which slice stands at a position among the others."""
        each = zip(self.axes, self.indices, position, strict=True)
        return ", ".join(axis.at(indices[i]) for axis, indices, i in each)

    @property
    def exceeding(self) -> list[tuple[int, ...]]:
        """The positions where the error exceeds the signal."""
        return [tuple(place) for place in np.argwhere(self.of_deviation > 1).tolist()]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Errors and what they are errors of, of a whole variable or of some of its slices.

    Attributes
    ----------
    origin : str
        What they were measured on.
    n_valid : int
    low, high : float or None
        Smallest and largest valid value of the original.
    max_error, bias : float
        Of the valid values; NaN where not known.
    zeros : tuple of three int, or None
        Valid values that are 0, that are 0 once decoded, and that are 0 in both; None where not known.
    slices : Slices or None
    spectrum : Spectrum or None
    spectrum_origin : str
        What it was measured on.
    """

    origin: str
    n_valid: int
    low: float | None = None
    high: float | None = None
    max_error: float = math.nan
    bias: float = math.nan
    zeros: tuple[int, int, int] | None = None
    slices: Slices | None = None
    spectrum: Spectrum | None = None
    spectrum_origin: str = ""


class Beyond(NamedTuple):
    """The values beyond a threshold: at least as large, or at most where it is a lower one."""

    threshold: float
    lower: bool
    name: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Values:
    """What takes the values of both, original and decoded, at the voxels that are valid in both.

    Attributes
    ----------
    origin : str
        What was compared.
    n : int
        Voxels that are valid in both.
    differ : int
        Voxels that are valid in one alone.
    low, high : tuple of two float
        Smallest and largest value of the original, and of the decoded.
    negative : int
        Decoded values below 0.
    percentiles : mapping of float to two float
        Of the original, and of the decoded.
    beyond : tuple of Beyond
    deviation : float
        Standard deviation of the original.
    correlation : float or None
        None where one of both is constant, and NaN where sums are infinite.
    points : int
        Values with an error above 0.0001 of their magnitude.
    dssim : float or None
        The lowest of any slice; None where there is none.
    no_dssim : str
        Why.
    """

    origin: str
    n: int
    differ: int
    low: tuple[float, float]
    high: tuple[float, float]
    negative: int
    percentiles: Mapping[float, tuple[float, float]]
    beyond: tuple[Beyond, ...]
    deviation: float
    correlation: float | None
    points: int
    dssim: float | None
    no_dssim: str = ""


@np.errstate(over="ignore", invalid="ignore")  # sums of the largest doubles are infinite, which is looked for
def measure_pair(
    original: Any,
    decoded: Any,
    *,
    missing: float | None = None,
    thresholds: Sequence[float] | None = None,
    voxels: int = VOXELS,
) -> tuple[Recorded, Values | None]:
    """Measure decoded values beside their original, slice by slice.

    Slices are planes of the last two axes longer than 1. Of more voxels slices are taken, spread evenly:
    along the last of the other axes as many as possible, then along the one before. Of larger slices the
    middle is taken.

    Parameters
    ----------
    original, decoded : array-like or DataArray
        Of one shape and, of xarray, with the same dimensions.
    missing : float, optional
        A sentinel that is no valid value.
    thresholds : sequence of float, optional
        Of the shares; by default 1, 10 and 20 mm a day of rain, else percentiles.
    voxels : int
        That are read at most.

    Returns
    -------
    Recorded, and Values or None
        None where no voxel is valid in both.
    """
    if 0 in decoded.shape:
        nothing = "every value, of which there is none"
        return Recorded(origin=nothing, n_valid=0), None
    long = [axis for axis, length in enumerate(decoded.shape) if length > 1]
    plane, outer = long[-2:], long[:-2]
    sides = [decoded.shape[axis] for axis in plane]
    cut = [min(side, max(1, round(voxels ** (1 / len(sides))))) for side in sides] if sides else []
    if math.prod(sides) <= voxels:
        cut = sides
    places = _spread([decoded.shape[axis] for axis in outer], max(1, voxels // max(1, math.prod(cut))))
    shape = tuple(map(len, places))
    named = decoded if hasattr(decoded, "dims") else original
    axes = [axis_of(named, axis) for axis in range(len(decoded.shape))]
    is_map = len(plane) == 2 and all(_on_a_map(original, decoded, axis) for axis in plane)

    figures = {name: np.zeros(shape) for name in ("n_valid", "rmse", "max_error", "magnitude", "deviation")}
    qualities, errors, pairs, similar = [], 0.0, [], []
    zeros, differ = np.zeros(3, np.int64), 0

    def read() -> Iterator[tuple[Array, Array, Bools]]:
        nonlocal errors, differ, zeros
        for key in product(*map(range, shape)):
            where: list[Any] = [0] * len(decoded.shape)
            for i, axis in enumerate(outer):
                where[axis] = places[i][key[i]]
            for axis, side in zip(plane, cut, strict=True):
                start = (decoded.shape[axis] - side) // 2
                where[axis] = slice(start, start + side)
            x, y = (np.asarray(array[tuple(where)]) for array in (original, decoded))
            in_x, in_y = valid_voxels(x, missing), valid_voxels(y, missing)
            both = in_x & in_y
            differ += int(np.count_nonzero(in_x != in_y))
            quality = measure(x, y, both)
            qualities.append(quality)
            a, b = x[both], y[both]
            if a.size:
                error = absolute_error(a, b)
                errors += float(np.where(b < a, -error, error).sum())
                zeros += [np.count_nonzero(each) for each in (a == 0, b == 0, (a == 0) & (b == 0))]
                values = a.astype(np.float64)
                figures["n_valid"][key] = a.size
                figures["rmse"][key], figures["max_error"][key] = quality.rmse, quality.max_error
                figures["magnitude"][key], figures["deviation"][key] = np.abs(values).mean(), values.std()
                pairs.append((a, b))
                if is_map and (similarity := dssim(x, y, both)) is not None:
                    similar.append(similarity)
            if len(plane) == 2:
                yield x, y, both

    if len(plane) == 2:
        waves = spectrum(read())
    else:
        waves = None
        for _ in read():
            pass
    taken, every = math.prod(shape), math.prod(decoded.shape[axis] for axis in outer)
    origin = "every value" if taken == every else f"{taken} of {every} slices"
    if cut != sides:
        origin += f", of each the middle {' x '.join(map(str, cut))} voxels"
    origin += ", compared with the source"
    whole = merge(qualities)
    recorded = Recorded(
        origin=origin,
        low=whole.low,
        high=whole.high,
        n_valid=whole.n_valid,
        max_error=whole.max_error if whole.n_valid else math.nan,
        bias=errors / whole.n_valid if whole.n_valid else math.nan,
        zeros=(int(zeros[0]), int(zeros[1]), int(zeros[2])),
        slices=Slices(axes=tuple(axes[axis] for axis in outer), indices=places, **figures),
        spectrum=waves,
        spectrum_origin=origin,
    )
    if not pairs:
        return recorded, None
    x, y = (np.concatenate([pair[i] for pair in pairs]) for i in range(2))
    reason = "slices are no maps of latitude and longitude" if not is_map else ""
    reason = reason or ("" if similar else f"slices have a side below {LEAST_SIDE} voxels")
    return recorded, _compare_values(
        x, y, origin, differ, thresholds, original, min(similar, default=None), reason
    )


def _spread(lengths: list[int], count: int) -> tuple[tuple[int, ...], ...]:
    """Choose places along each axis, so many altogether; the last axis has as many as possible."""
    chosen: list[tuple[int, ...]] = []
    for length in reversed(lengths):
        some = max(1, min(length, count))
        count //= some
        even = np.linspace(0, length - 1, some) if some > 1 else np.array([length // 2])
        chosen.insert(0, tuple(even.round().astype(int).tolist()))
    return tuple(chosen)


def _on_a_map(original: Any, decoded: Any, axis: int) -> bool:
    """Say whether an axis is one of latitude or longitude."""
    for array in (original, decoded):
        if hasattr(array, "dims"):
            dim = array.dims[axis]
            attrs = array.coords[dim].attrs if dim in array.coords else {}
            names = {str(local_name(dim)).lower(), str(attrs.get("standard_name", "")).lower()}
            if names & set(_MAP) or str(attrs.get("units", "")).startswith(("degrees_", "degree_")):
                return True
    return False


def _compare_values(
    x: Array,
    y: Array,
    origin: str,
    differ: int,
    thresholds: Sequence[float] | None,
    original: Any,
    similarity: float | None,
    no_similarity: str,
) -> Values:
    """Compare valid values, of both."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    deviations = a - a.mean(), b - b.mean()
    scale = math.sqrt(np.square(deviations[0]).mean() * np.square(deviations[1]).mean())
    percentiles = zip(np.percentile(a, _PERCENTILES), np.percentile(b, _PERCENTILES), strict=True)
    return Values(
        origin=origin,
        n=a.size,
        differ=differ,
        low=(float(a.min()), float(b.min())),
        high=(float(a.max()), float(b.max())),
        negative=int(np.count_nonzero(b < 0)),
        percentiles={
            part: (float(p), float(q)) for part, (p, q) in zip(_PERCENTILES, percentiles, strict=True)
        },
        beyond=tuple(_count_beyond(a, b, thresholds, original)),
        deviation=float(a.std()),
        correlation=None if scale == 0 else float((deviations[0] * deviations[1]).mean() / scale),
        points=int(np.count_nonzero(np.abs(b - a) > _NEAR * np.abs(a))),
        dssim=similarity,
        no_dssim=no_similarity,
    )


def _count_beyond(
    a: Doubles, b: Doubles, thresholds: Sequence[float] | None, original: Any
) -> Iterator[Beyond]:
    """Count the values beyond each threshold, in both."""
    units = units_of(original)
    limits = [(float(limit), False, f"{limit:g} {units}".strip()) for limit in thresholds or ()]
    limits = limits or [
        (mm * factor, False, f"{mm:g} mm a day") for factor in _rain(original) for mm in _RAIN
    ]
    limits = limits or [
        (float(np.percentile(a, part)), part < 50, f"the {part:g}{'st' if part == 1 else 'th'} percentile")
        for part in _TAILS
    ]
    for limit, lower, name in limits:
        before, after = (
            int(np.count_nonzero(values <= limit if lower else values >= limit)) for values in (a, b)
        )
        yield Beyond(limit, lower, name, before, after)


def _rain(original: Any) -> list[float]:
    """Return what a mm a day is in units of the data, where they are a rate of rain; else nothing."""
    attrs = getattr(original, "attrs", {})
    units = " ".join(str(attrs.get("units", "")).split())
    words = " ".join(
        str(each).lower()
        for each in (
            getattr(original, "name", ""),
            attrs.get("standard_name", ""),
            attrs.get("long_name", ""),
        )
    )
    if units in _A_DAY:
        return [1.0]
    falls = any(word in words for word in ("precipitation", "rain", "snowfall")) or "pr" in words.split()
    return [1 / 86_400] if units in _A_SECOND and falls else []
