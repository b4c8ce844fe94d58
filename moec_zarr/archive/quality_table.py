"""The quality of a converted variable as a table in the store, which xarray and pandas read.

It is a zarr group of small arrays, made from the records of all tasks, and lies where nothing that opens the
data takes notice of it: ``<variable>/.moec_zarr/quality``, within the variable's array.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from moec_zarr.adapters.tree import join_path, local_name
from moec_zarr.adapters.zarr_core import sync
from moec_zarr.archive.inspection import compressed_arrays
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.archive.records import Record
from moec_zarr.errors import MoECError
from moec_zarr.statistics import PERCENTILES

if TYPE_CHECKING:
    import xarray as xr
    from zarr.abc.buffer import Buffer

__all__ = ["DIMENSIONS", "open_quality", "quality_table", "read_quality", "write_quality"]

_FOLDER = ".moec_zarr/quality"
DIMENSIONS = "dimensions"
"""Attribute of a table: the names in its columns of the variable's dimensions, in their order."""

_STEPS = ("reading", "fitting", "writing", "checking")
_DIMS = ("task", "percentile", "wavelength")

# What each column holds, and its units; None where they are those of the data.
_COLUMNS = {
    "bytes_in": ("bytes before compression", "byte"),
    "bytes_out": ("bytes stored", "byte"),
    "attempt": ("attempt that succeeded", "1"),
    "seconds": ("time of the task", "s"),
    **{f"seconds_{step}": (f"time of {step}", "s") for step in _STEPS},
    "n": ("voxels", "1"),
    "n_valid": ("valid voxels, over which all errors are taken", "1"),
    "low": ("smallest valid value of the original", None),
    "high": ("largest valid value of the original", None),
    "rmse": ("root mean square error", None),
    "max_error": ("largest absolute error", None),
    "psnr": ("peak signal-to-noise ratio, the range of the task's original as the peak", "dB"),
    "bias": ("mean of decoded less original", None),
    "zeros": ("valid voxels that are 0", "1"),
    "decoded_zeros": ("valid voxels that are 0 once decoded", "1"),
    "kept_zeros": ("valid voxels that are 0 and stay so", "1"),
}


_COUNTS = {"bytes_in", "bytes_out", "attempt", "n", "n_valid", "zeros", "decoded_zeros", "kept_zeros"}


def quality_table(variable: PlannedVariable, records: Iterable[Record], units: str = "1") -> xr.Dataset:
    """Make a table with a row for each task that is done, in the order of their indices.

    Parameters
    ----------
    variable : PlannedVariable
        What the records speak of.
    records : iterable of Record
        Those of other variables are left out.
    units : str
        Units of the data.

    Returns
    -------
    Dataset
        Along ``task``: the columns above, and the voxels that it covers along each dimension as
        ``<dimension>_start`` and ``<dimension>_stop``. Along ``task`` and ``percentile``:
        ``error_percentile``, of the absolute error. Along ``task`` and ``wavelength``, the shortest of each
        octave in voxels: ``power`` of the original and ``power_ratio``, that of the decoded to it. Along the
        variable's first dimension, over all tasks, ``rmse_by_index``, ``max_error_by_index``,
        ``bias_by_index``, ``n_valid_by_index``, and of the original ``low_by_index``, ``high_by_index``,
        ``magnitude_by_index``, the mean of magnitudes, and ``deviation_by_index``. Along all dimensions but
        the last two, where there are several and few enough indices, the same as ``rmse_by_slice`` and so on.
    """
    import xarray as xr

    rows = sorted((r for r in records if r.variable == variable.name), key=lambda record: record.index)
    columns: dict[str, Any] = {}
    regions = [variable.grid.region(record.index) for record in rows]
    for axis, dim in enumerate(map(local_name, variable.dims)):
        columns[f"{dim}_start"] = ("task", np.array([r[axis].start for r in regions], "i8"), {"units": "1"})
        columns[f"{dim}_stop"] = ("task", np.array([r[axis].stop for r in regions], "i8"), {"units": "1"})
    figures = [_figures(record) for record in rows]
    for name, (meaning, its_units) in _COLUMNS.items():
        kind = "i8" if name in _COUNTS else "f8"
        attrs = {"long_name": meaning, "units": units if its_units is None else its_units}
        columns[name] = ("task", np.array([figure[name] for figure in figures], kind), attrs)

    found = [record.statistics for record in rows]
    wavelengths = max((each.wavelengths for each in found if each is not None), key=len, default=())
    percentiles = np.full((len(rows), len(PERCENTILES)), np.nan)
    power, decoded = np.full((2, len(rows), len(wavelengths)), np.nan)
    for i, each in enumerate(found):
        if each is not None:
            percentiles[i] = each.percentiles
            power[i, : len(each.power)], decoded[i, : len(each.power)] = each.power, each.decoded_power
    columns["error_percentile"] = (
        ("task", "percentile"),
        percentiles,
        {"long_name": "percentile of the absolute error", "units": units},
    )
    columns["power"] = (
        ("task", "wavelength"),
        power,
        {"long_name": "variance of the original in the octave", "units": f"({units})2"},
    )
    columns["power_ratio"] = (
        ("task", "wavelength"),
        np.divide(decoded, power, out=np.full_like(power, np.nan), where=power > 0),
        {"long_name": "variance of the decoded in the octave over that of the original", "units": "1"},
    )
    columns |= _by_index(variable, rows, units)
    coords = {
        "percentile": ("percentile", np.array(PERCENTILES), {"units": "percent"}),
        "wavelength": (
            "wavelength",
            np.array(wavelengths, "i8"),
            {"long_name": "shortest wavelength of the octave, in voxels", "units": "1"},
        ),
    }
    title = f"Quality of {variable.name} by task of its conversion, measured on what was read back"
    names = [local_name(dim) for dim in variable.dims]
    return xr.Dataset(columns, coords=coords, attrs={"title": title, DIMENSIONS: names})


def _figures(record: Record) -> dict[str, float]:
    quality = record.quality
    return {
        **dataclasses.asdict(quality),
        "low": math.nan if quality.low is None else quality.low,
        "high": math.nan if quality.high is None else quality.high,
        "psnr": quality.psnr,
        "bias": record.statistics.bias if record.statistics else math.nan,
        **{name: getattr(record.statistics, name, 0) for name in ("zeros", "decoded_zeros", "kept_zeros")},
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "attempt": record.attempt,
        "seconds": record.seconds,
        **{f"seconds_{step}": record.steps.get(step, math.nan) for step in _STEPS},
    }


_BY_INDEX = {
    "rmse": "root mean square error",
    "max_error": "largest absolute error",
    "bias": "mean of decoded less original",
    "low": "smallest valid value of the original",
    "high": "largest valid value of the original",
    "magnitude": "mean magnitude of the original",
    "deviation": "standard deviation of the original, within tasks",
}


def _by_index(variable: PlannedVariable, records: list[Record], units: str) -> dict[str, Any]:
    """Errors along the first dimension, and along all first ones that records tell apart, over all tasks."""
    ranks = {len(each.statistics.slices) for each in records if each.statistics is not None}
    columns: dict[str, Any] = {}
    if len(variable.shape) > 1 and ranks and 0 not in ranks:
        columns |= _over(variable, records, 1, "index", units)
        if min(ranks) > 1:
            columns |= _over(variable, records, min(ranks), "slice", units)
    return columns


def _over(
    variable: PlannedVariable, records: list[Record], rank: int, name: str, units: str
) -> dict[str, Any]:
    """Combine the figures of tasks at each index along the first dimensions, so many of them."""
    shape = variable.shape[:rank]
    count = np.zeros(shape, "i8")
    sums = {key: np.zeros(shape) for key in ("squares", "error", "magnitude", "variance")}
    largest, low, high = np.zeros(shape), np.full(shape, np.inf), np.full(shape, -np.inf)
    for record in records:
        each, region = record.statistics, variable.grid.region(record.index)[:rank]
        if each is None:
            continue
        over = tuple(range(rank, len(each.slices)))
        arrays = {
            key: np.asarray(getattr(each, f"{key}_by_index"), np.float64).reshape(each.slices)
            for key in ("n_valid", *_BY_INDEX)
            if getattr(each, f"{key}_by_index")
        }
        n = arrays["n_valid"]
        count[region] += n.sum(axis=over).astype("i8")
        sums["squares"][region] += (n * np.square(arrays["rmse"])).sum(axis=over)
        largest[region] = np.maximum(largest[region], arrays["max_error"].max(axis=over, initial=0.0))
        if "low" not in arrays:
            continue  # of an older version
        sums["error"][region] += (n * arrays["bias"]).sum(axis=over)
        sums["magnitude"][region] += (n * arrays["magnitude"]).sum(axis=over)
        sums["variance"][region] += (n * np.square(arrays["deviation"])).sum(axis=over)
        lows, highs = np.where(n, arrays["low"], np.inf), np.where(n, arrays["high"], -np.inf)
        low[region] = np.minimum(low[region], lows.min(axis=over, initial=np.inf))
        high[region] = np.maximum(high[region], highs.max(axis=over, initial=-np.inf))
    # A dimension that is named like one of the table's own keeps a name of its own.
    dims = tuple(each + "_" * (each in _DIMS) for each in map(local_name, variable.dims[:rank]))
    some = np.maximum(count, 1)
    figures = {
        "rmse": np.sqrt(sums["squares"] / some),
        "max_error": largest,
        "bias": sums["error"] / some,
        "low": np.where(np.isfinite(low), low, np.nan),
        "high": np.where(np.isfinite(high), high, np.nan),
        "magnitude": sums["magnitude"] / some,
        "deviation": np.sqrt(sums["variance"] / some),
    }
    counted = {"long_name": "valid voxels that were measured", "units": "1"}
    columns: dict[str, Any] = {f"n_valid_by_{name}": (dims, count, counted)}
    for key, what in _BY_INDEX.items():
        values = np.where(count == 0, np.nan, figures[key])
        columns[f"{key}_by_{name}"] = (dims, values, {"long_name": what, "units": units})
    return columns


def write_quality(group: zarr.Group, plan: Plan, records: Iterable[Record]) -> None:
    """Write the table of each compressed variable into a converted store, in place of an older one."""
    records = list(records)
    for variable in plan.compressed:
        units = str(group[variable.name].attrs.get("units", "1"))
        table = quality_table(variable, records, units)
        # zarr refuses to make a group within an array, and reads one that is there.
        made: dict[str, Buffer] = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            table.to_zarr(MemoryStore(made), zarr_format=plan.zarr_format, consolidated=True)
        folder = join_path(group.path, variable.name, _FOLDER)
        sync(_replace(group.store, folder, made))


async def _replace(store: Store, folder: str, made: Mapping[str, Buffer]) -> None:
    """Put objects into a folder in place of all that it holds; it is no group before the last of them."""
    last = {key: made[key] for key in (".zattrs", ".zgroup", ".zmetadata", "zarr.json") if key in made}
    await store.delete_dir(folder)
    await asyncio.gather(
        *(store.set(f"{folder}/{key}", value) for key, value in made.items() if key not in last)
    )
    for key, value in last.items():
        await store.set(f"{folder}/{key}", value)


async def _copy(store: Store, folder: str) -> dict[str, Buffer]:
    """All objects of a folder, by their path within it."""
    keys = [key async for key in store.list_prefix(f"{folder}/")]
    found = await asyncio.gather(*(store.get(key, default_buffer_prototype()) for key in keys))
    return {
        key.removeprefix(f"{folder}/"): value
        for key, value in zip(keys, found, strict=True)
        if value is not None
    }


def read_quality(array: zarr.Array[Any]) -> xr.Dataset:
    """Read the table of one compressed array; it is empty where no conversion left one."""
    import xarray as xr

    # xarray looks for groups within groups alone; by itself the folder is a store like any other.
    copied = sync(_copy(array.store, join_path(array.path, _FOLDER)))
    return xr.open_zarr(MemoryStore(copied)).load() if copied else xr.Dataset()


def open_quality(store: str | PathLike[str] | Store) -> dict[str, xr.Dataset]:
    """Return the tables of a converted store, by variable.

    Parameters
    ----------
    store : path or zarr Store
        What a conversion made.

    Returns
    -------
    dict of str to Dataset
        As `quality_table` makes them.

    Raises
    ------
    MoECError
        If there is no store that was compressed with this package, or it has no such table.
    """
    found = {name: read_quality(array) for name, array in compressed_arrays(store).items()}
    tables = {name: table for name, table in found.items() if table}
    if not tables:
        raise MoECError(
            f"{store} has no table of its quality: no conversion made it, or none has come to its end; "
            "give the command that converted it again"
        )
    return tables
