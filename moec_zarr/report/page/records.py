"""What a conversion recorded of a variable, as its table says; an empty table says nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from moec_zarr.quality import Quality, merge
from moec_zarr.report.comparison.labels import Axis
from moec_zarr.report.comparison.spectra import Spectrum
from moec_zarr.report.page.findings import Profile

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["find_worst_index", "read_octaves", "read_percentiles", "read_profile", "read_qualities"]


def read_qualities(table: xr.Dataset) -> list[Quality]:
    """Read the errors of each task."""
    if not table:
        return []
    columns = (table[name].values.tolist() for name in ("n", "n_valid", "low", "high", "rmse", "max_error"))
    return [
        Quality(
            n=n,
            n_valid=n_valid,
            low=None if math.isnan(low) else low,
            high=None if math.isnan(high) else high,
            rmse=rmse,
            max_error=max_error,
        )
        for n, n_valid, low, high, rmse, max_error in zip(*columns, strict=True)
    ]


def read_percentiles(table: xr.Dataset) -> dict[str, float]:
    """Read percentiles of the absolute error, the largest of any task."""
    found = table.get("error_percentile")
    if found is None or bool(found.isnull().all()):
        return {}
    shares, largest = table.percentile.values.tolist(), found.max("task").values.tolist()
    return {f"{share:g}%": value for share, value in zip(shares, largest, strict=True)}


def read_octaves(table: xr.Dataset) -> Spectrum | None:
    """Read spectra by octave, over all tasks."""
    if not table:
        return None
    power = table.power.sum("task").values
    if not (power > 0).any():
        return None
    decoded = (table.power * table.power_ratio).sum("task").values
    middle = 1 / (table.wavelength.values * math.sqrt(2))
    return Spectrum(wavenumber=middle[::-1], original=power[::-1], decoded=decoded[::-1])


def read_profile(table: xr.Dataset, axis: Axis) -> Profile | None:
    """Read the errors along an axis by chunk, where no others are on record."""
    if not table:
        return None
    parts: dict[tuple[int, int], list[Quality]] = defaultdict(list)
    ends = (table[f"{axis.dim}_{end}"].values.tolist() for end in ("start", "stop"))
    for start, stop, quality in zip(*ends, read_qualities(table), strict=True):
        parts[start, stop].append(quality)
    if len(parts) < 2:
        return None
    return Profile.of(
        axis,
        [slice(*ends) for ends in sorted(parts)],
        [merge(parts[ends]) for ends in sorted(parts)],
        "Recorded by the conversion, of every value, by chunk.",
    )


def find_worst_index(table: xr.Dataset) -> int | None:
    """Find the index along the first dimension with the largest error; None where no value is wrong."""
    largest = (
        np.nan_to_num(table["max_error_by_index"].values) if "max_error_by_index" in table else np.zeros(0)
    )
    return int(largest.argmax()) if largest.any() else None
