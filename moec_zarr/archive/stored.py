"""A store that a conversion made, opened: its dataset, and the plan that it was made by."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.archive.manifest import Manifest
from moec_zarr.archive.plan import STORAGE, Plan, PlannedVariable
from moec_zarr.archive.storage import StorageOptions, store_at

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Destination", "hide_expected_warnings", "open_result", "stored_dataset", "stored_plan"]

Destination = str | PathLike[str] | Store


@contextmanager
def hide_expected_warnings() -> Iterator[None]:
    """Silence what zarr says of stores like these, and what their users can do nothing about."""
    with warnings.catch_warnings():
        # Text has no type in the specification of format 3 so far; zarr reads what it writes.
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
        # Nor does that specification know of consolidated metadata.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        # The lock, and the folder of a variable whose manifest is there before its metadata.
        warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component")
        yield


@hide_expected_warnings()
def stored_plan(group: zarr.Group, manifest: Manifest) -> Plan:
    """Return the plan that a destination was made by, with what its values mean as the store has it."""
    planned = manifest.plan["variables"]
    # Variables without tasks are not looked at: one may be damaged.
    whole = [name for name, each in planned.items() if each["chunks"] is None]
    opened = stored_dataset(group, without=whole, decode_times=False)
    meanings = {name: var.encoding for name, var in opened.variables.items()}
    variables = []
    for name, each in planned.items():
        codec = each["codec"]
        encoding = {key: value for key, value in meanings.get(name, {}).items() if key not in STORAGE}
        if each["chunks"]:
            encoding["chunks"] = tuple(each["chunks"])
        variables.append(
            PlannedVariable(
                name=name,
                dims=tuple(each["dims"]),
                shape=tuple(each["shape"]),
                dtype=_dtype(each["dtype"]),
                codec=None if codec is None else MoECCodec.from_configuration(codec),
                reason="" if codec else "as before",
                chunks=each["chunks"] and tuple(each["chunks"]),
                shards=each["shards"] and tuple(each["shards"]),
                encoding=encoding,
            )
        )
    return Plan(variables=tuple(variables), zarr_format=group.metadata.zarr_format)


def _dtype(name: str) -> np.dtype[Any]:
    """Return the type that a plan names; NumPy does not read its own name of text of any length."""
    return np.dtypes.StringDType() if name.startswith("StringDType") else np.dtype(name)


def stored_dataset(group: zarr.Group, without: Iterable[str] = (), decode_times: bool = True) -> xr.Dataset:
    """Return the group as a dataset, lazily and without dask, nor some of its variables."""
    import xarray as xr

    # Stores without consolidated metadata are as good; what is consolidated may be older.
    store: Any = group.store
    ds: xr.Dataset = xr.open_zarr(
        store, group=group.path or None, consolidated=False, chunks=None, decode_timedelta=False,
        decode_times=decode_times, drop_variables=list(without),
    )  # fmt: skip
    return ds


def open_result(
    dst: Destination, zarr_format: Literal[2, 3], options: StorageOptions | None = None
) -> xr.Dataset:
    """Return the destination, with encodings that say what values mean and not how they were stored."""
    import xarray as xr

    store: Any = store_at(dst, options)
    ds: xr.Dataset = xr.open_zarr(store, zarr_format=zarr_format, decode_timedelta=False)
    for var in ds.variables.values():
        var.encoding = {key: value for key, value in var.encoding.items() if key not in STORAGE}
    return ds
