"""What ``moec-zarr inspect --quality`` shows: the tables that conversions leave in their stores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from moec_zarr.cli.tables import duration, number, table

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["quality_result", "quality_tables"]

_STEPS = ("reading", "fitting", "writing", "checking")


def quality_tables(tables: Mapping[str, xr.Dataset]) -> Iterator[Table]:
    """Make tables of errors, power by octave, and time, with a row for each variable."""
    percentiles = next(iter(tables.values())).percentile.values
    yield table(
        ("variable", "chunks", "bias", *(f"{each:g}%" for each in percentiles), "max error", "worst at"),
        (
            (
                name, str(each.sizes["task"]), number(_bias(each), 3),
                *(number(value, 3) for value in each.error_percentile.max("task").values),
                number(float(each.max_error.max()), 3), _worst(each),
            )
            for name, each in tables.items()
        ),
        title="Errors, in units of the data; percentiles are the largest of any chunk",
    )  # fmt: skip
    wavelengths = max((each.wavelength.values.tolist() for each in tables.values()), key=len)
    if wavelengths:
        yield table(
            ("variable", *(f"{each}-{2 * each}" for each in wavelengths)),
            (
                (name, *(number(_ratios(each).get(wavelength), 3) for wavelength in wavelengths))
                for name, each in tables.items()
            ),
            title="Power that is kept, by wavelength in voxels",
        )
    yield table(
        ("variable", *_STEPS),
        (
            (name, *(duration(float(each[f"seconds_{step}"].sum())) for step in _STEPS))
            for name, each in tables.items()
        ),
        title="Time of all chunks",
    )


def _bias(each: xr.Dataset) -> float | None:
    """Over all chunks."""
    known = each.bias.notnull()
    count = float(each.n_valid.where(known).sum())
    return float((each.bias * each.n_valid).sum()) / count if count else None


def _worst(each: xr.Dataset) -> str:
    """Return the index along the first dimension whose mean error is the largest."""
    rmse = each.get("rmse_by_index")
    if rmse is None or bool(rmse.isnull().all()):
        return "-"
    return f"{rmse.dims[0]} {int(np.nanargmax(rmse.values))}"


def _ratios(each: xr.Dataset) -> dict[int, float]:
    """Power decoded over power of the original, over all chunks, by octave."""
    power, decoded = each.power.sum("task"), (each.power * each.power_ratio).sum("task")
    return {
        int(wavelength): float(y / x)
        for wavelength, x, y in zip(each.wavelength.values, power.values, decoded.values, strict=True)
        if x > 0
    }


def quality_result(tables: Mapping[str, xr.Dataset]) -> dict[str, dict[str, Any]]:
    """Return all columns, for scripts; what is not known is null."""
    return {
        name: {str(column): each[column].values.tolist() for column in each.variables}
        for name, each in tables.items()
    }
