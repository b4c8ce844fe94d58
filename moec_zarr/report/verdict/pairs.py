"""An original and what was decoded of it, measured slice by slice."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np

from moec_zarr.adapters.tree import local_name
from moec_zarr.arrays import Array, Bools, Doubles
from moec_zarr.quality import Quality, absolute_error, measure, merge
from moec_zarr.report.comparison.labels import axis_of, units_of
from moec_zarr.report.comparison.spectra import spectrum
from moec_zarr.report.verdict.dssim import LEAST_SIDE, dssim
from moec_zarr.report.verdict.measures import Beyond, Recorded, Slices, Values
from moec_zarr.statistics import valid_voxels

__all__ = ["VOXELS", "measure_pair"]

VOXELS = 2**22
"""That are read of a variable, at most."""

_PERCENTILES = (1.0, 10.0, 50.0, 90.0, 99.0)
_TAILS = (1.0, 99.0)  # percentiles that are thresholds where nothing else is
_RAIN = (1.0, 10.0, 20.0)  # mm a day: wet days, and those of the indices R10mm and R20mm of ETCCDI
_A_DAY = {"mm/day", "mm/d", "mm day-1", "mm d-1", "mm day^-1", "mm d^-1", "mm day**-1", "mm d**-1"}
_A_SECOND = {"kg m-2 s-1", "kg/m2/s", "kg m^-2 s^-1", "kg m**-2 s**-1", "mm s-1", "mm/s"}
_NEAR = 1e-4  # of a value: an error that counts for the share of points
_MAP = ("lat", "lon", "rlat", "rlon", "latitude", "longitude")


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
        return Recorded(origin="every value, of which there is none", n_valid=0), None
    reading = _Reading.of(decoded.shape, voxels)
    flat = len(reading.plane) == 2
    is_map = flat and all(_on_a_map(original, decoded, axis) for axis in reading.plane)
    sums = _Sums.of(tuple(map(len, reading.places)))

    def read() -> Iterator[tuple[Array, Array, Bools]]:
        """Yield one slice after the other, so that no more are held at full size."""
        for key, where in reading.regions():
            x, y = (np.asarray(array[where]) for array in (original, decoded))
            in_x, in_y = valid_voxels(x, missing), valid_voxels(y, missing)
            both = in_x & in_y
            sums.add(key, x, y, both, differ=int(np.count_nonzero(in_x != in_y)))
            if is_map and (similarity := dssim(x, y, both)) is not None:
                sums.similar.append(similarity)
            yield x, y, both

    waves = None
    if flat:
        waves = spectrum(read())
    else:
        deque(read(), maxlen=0)
    named = decoded if hasattr(decoded, "dims") else original
    whole = merge(sums.qualities)
    recorded = Recorded(
        origin=reading.origin,
        low=whole.low,
        high=whole.high,
        n_valid=whole.n_valid,
        max_error=whole.max_error if whole.n_valid else math.nan,
        bias=sums.error / whole.n_valid if whole.n_valid else math.nan,
        zeros=sums.zeros,
        slices=Slices(
            axes=tuple(axis_of(named, axis) for axis in reading.outer), indices=reading.places, **sums.figures
        ),
        spectrum=waves,
        spectrum_origin=reading.origin,
    )
    if not whole.n_valid:
        return recorded, None
    x, y = (np.concatenate([pair[i] for pair in sums.values]) for i in range(2))
    return recorded, _compare_values(
        x, y, sums.differ, thresholds, original,
        origin=reading.origin,
        dssim=min(sums.similar, default=None),
        no_dssim=f"slices have a side below {LEAST_SIDE} voxels" if is_map
        else "slices are no maps of latitude and longitude",
    )  # fmt: skip


class _Reading(NamedTuple):
    """Which slices of an array are read, and how much of each."""

    shape: tuple[int, ...]
    plane: list[int]
    outer: list[int]
    cut: list[int]
    places: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], voxels: int) -> Self:
        """Choose slices of at most so many voxels together."""
        long = [axis for axis, length in enumerate(shape) if length > 1]
        plane, outer = long[-2:], long[:-2]
        cut = [shape[axis] for axis in plane]
        if math.prod(cut) > voxels:
            side = max(1, round(voxels ** (1 / len(cut))))
            cut = [min(each, side) for each in cut]
        places = _spread([shape[axis] for axis in outer], max(1, voxels // math.prod(cut)))
        return cls(shape, plane, outer, cut, places)

    def regions(self) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
        """Yield the position of each slice among the others, and what selects it."""
        for key in product(*(range(len(each)) for each in self.places)):
            where: list[Any] = [0] * len(self.shape)
            for axis, places, i in zip(self.outer, self.places, key, strict=True):
                where[axis] = places[i]
            for axis, side in zip(self.plane, self.cut, strict=True):
                start = (self.shape[axis] - side) // 2
                where[axis] = slice(start, start + side)
            yield key, tuple(where)

    @property
    def origin(self) -> str:
        """What is read, in words."""
        taken, every = math.prod(map(len, self.places)), math.prod(self.shape[axis] for axis in self.outer)
        middle = self.cut != [self.shape[axis] for axis in self.plane]
        text = f"{taken} of {every} slices" if middle or taken < every else "every value"
        text += f", of each the middle {' x '.join(map(str, self.cut))} voxels" if middle else ""
        return f"{text}, compared with the source"


@dataclass(kw_only=True)
class _Sums:
    """What is gathered from slice to slice."""

    figures: dict[str, Doubles]
    qualities: list[Quality] = field(default_factory=list)
    values: list[tuple[Array, Array]] = field(default_factory=list)
    similar: list[float] = field(default_factory=list)
    error: float = 0.0
    zeros: tuple[int, int, int] = (0, 0, 0)
    differ: int = 0

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Self:
        """Begin with nothing, for slices along so many places."""
        names = ("n_valid", "rmse", "max_error", "magnitude", "deviation", "size")
        return cls(figures={name: np.zeros(shape) for name in names})

    def add(self, key: tuple[int, ...], x: Array, y: Array, both: Bools, *, differ: int) -> None:
        """Add a slice."""
        quality = measure(x, y, both)
        self.qualities.append(quality)
        self.differ += differ
        a, b = x[both], y[both]
        if not a.size:
            return
        error = absolute_error(a, b)
        self.error += float(np.where(b < a, -error, error).sum())
        counts = (int(np.count_nonzero(each)) for each in (a == 0, b == 0, (a == 0) & (b == 0)))
        before, after, kept = self.zeros
        self.zeros = (before + next(counts), after + next(counts), kept + next(counts))
        values = a.astype(np.float64)
        self.figures["n_valid"][key] = a.size
        self.figures["rmse"][key], self.figures["max_error"][key] = quality.rmse, quality.max_error
        self.figures["magnitude"][key] = np.abs(values).mean()
        self.figures["deviation"][key] = values.std()
        self.figures["size"][key] = np.hypot(values.mean(), values.std())
        self.values.append((a, b))


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
    x: Array, y: Array, differ: int, thresholds: Sequence[float] | None, original: Any, **more: Any
) -> Values:
    """Compare valid values, of both."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    deviations = a - a.mean(), b - b.mean()
    scale = math.prod(math.sqrt(np.square(each).mean()) for each in deviations)
    percentiles = zip(np.percentile(a, _PERCENTILES), np.percentile(b, _PERCENTILES), strict=True)
    return Values(
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
        **more,
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
