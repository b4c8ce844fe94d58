"""What the table of a conversion says for a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from moec_zarr.arrays import Doubles
from moec_zarr.report.comparison.labels import Axis
from moec_zarr.report.comparison.spectra import Spectrum
from moec_zarr.report.verdict.measures import Recorded, Slices

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read_recorded"]


def read_recorded(
    table: xr.Dataset, axes: Sequence[Axis], found: Spectrum | None, tasks: int
) -> Recorded | None:
    """Read what a conversion recorded of a variable; None where it recorded nothing.

    Parameters
    ----------
    table : Dataset
        As `moec_zarr.archive.quality_table.quality_table` makes it; empty without a record.
    axes : sequence of Axis
        All axes of the variable.
    found : Spectrum or None
        On record.
    tasks : int
        That the conversion has; those that are done are the rows of the table.
    """
    if not table or not table.sizes["task"]:
        return None
    n = table.n_valid.values.astype(np.float64)
    done = len(n)
    slices = _read_slices(table, axes)
    zeros = None
    if slices is not None and "kept_zeros" in table:
        counted = (int(table[name].sum()) for name in ("zeros", "decoded_zeros", "kept_zeros"))
        zeros = (next(counted), next(counted), next(counted))
    bias = table.bias.values
    known = np.isfinite(bias) & (n > 0)
    return Recorded(
        origin="every value, on record" if done == tasks else f"{done} of {tasks} tasks, on record",
        low=_finite(table.low.min()),
        high=_finite(table.high.max()),
        n_valid=int(n.sum()),
        max_error=float(table.max_error.max()),
        bias=_mean(bias, n, known) if known.any() and (known | (n == 0)).all() else math.nan,
        zeros=zeros,
        slices=slices,
        spectrum=found,
        spectrum_origin="some slices of every chunk, on record by octave",
    )


def _finite(value: xr.DataArray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: Doubles, weights: Doubles, some: Doubles) -> float:
    total = float(weights[some].sum())
    return float((values[some] * weights[some]).sum()) / total if total else math.nan


def _read_slices(table: xr.Dataset, axes: Sequence[Axis]) -> Slices | None:
    """Read figures of slices, by all first axes where they are on record, else by the first one."""
    end = "slice" if "magnitude_by_slice" in table else "index"
    if f"magnitude_by_{end}" not in table:
        return None
    figures = {
        name: table[f"{name}_by_{end}"].values.astype(np.float64)
        for name in ("n_valid", "rmse", "max_error", "magnitude", "deviation")
    }
    some = figures["n_valid"] > 0
    if not some.any() or bool(np.isnan(table[f"low_by_{end}"].values[some]).any()):
        return None  # recorded by an older version, which did not look at the original
    found = Slices(
        axes=tuple(axes[: some.ndim]),
        indices=tuple(tuple(range(length)) for length in some.shape),
        size=np.hypot(figures["magnitude"], figures["deviation"]),  # of values of one sign
        **figures,
    )
    outer = [position for position, axis in enumerate(axes) if axis.length > 1][:-2]
    return found.along(*(position for position in outer if position < some.ndim))
