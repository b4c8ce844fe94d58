"""A store that a conversion made, opened: its dataset, and the plan that it was made by."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.abc.store import Store

from moec_zarr.adapters.meaning import without_storage
from moec_zarr.adapters.tree import flatten, map_groups, owns_dims
from moec_zarr.adapters.zarr_groups import array_of, open_groups
from moec_zarr.archive.manifest import Manifest
from moec_zarr.archive.plan import Plan, PlannedVariable, Rebuilt
from moec_zarr.archive.single import whole_of
from moec_zarr.archive.storage import StorageOptions, store_at

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Destination",
    "decode_times",
    "find_undecodable_times",
    "hide_expected_warnings",
    "is_alike",
    "open_result",
    "stored_dataset",
    "stored_plan",
]

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
    opened = stored_dataset(group, without=whole, times=False)
    meanings = {
        name: {} if array_of(var) is not None else var.encoding for name, var in opened.variables.items()
    }
    variables = []
    for name, each in planned.items():
        encoding = without_storage(meanings.get(name, {}))
        if each["chunks"]:
            encoding["chunks"] = tuple(each["chunks"])
        variables.append(
            PlannedVariable(
                name=name,
                dims=tuple(each["dims"]),
                shape=tuple(each["shape"]),
                dtype=_dtype(each["dtype"]),
                codec=manifest.codec(name),
                reason="" if each["codec"] else "as before",
                chunks=each["chunks"] and tuple(each["chunks"]),
                shards=each["shards"] and tuple(each["shards"]),
                encoding=encoding,
                rebuilt=Rebuilt(**each["rebuilt"]) if "rebuilt" in each else None,
            )
        )
    return Plan(
        variables=tuple(variables),
        zarr_format=group.metadata.zarr_format,
        consolidated=manifest.plan.get("consolidated", True) is True,
    )


def _dtype(name: str) -> np.dtype[Any]:
    """Return the type that a plan names; NumPy does not read its own name of text of any length."""
    return np.dtypes.StringDType() if name.startswith("StringDType") else np.dtype(name)


def stored_dataset(group: zarr.Group, without: Iterable[str] = (), times: bool = True) -> xr.Dataset:
    """Return the group as a dataset, lazily and without dask, nor some of its variables."""
    import xarray as xr

    store: Any = group.store

    def open_dataset(path: str, dropped: list[str]) -> xr.Dataset:
        opened: xr.Dataset = xr.open_zarr(
            store, group=path or None, consolidated=False, chunks=None, decode_timedelta=False,
            decode_times=False, drop_variables=dropped,
        )  # fmt: skip
        return opened

    # Stores without consolidated metadata are as good; what is consolidated may be older.
    ds = flatten(open_groups(store, group.path, open_dataset, without, consolidated=False))
    return decode_times(ds) if times else ds


def decode_times(ds: xr.Dataset) -> xr.Dataset:
    """Decode the times of a dataset; those that xarray cannot decode stay the numbers that they are."""
    return map_groups(ds, _decode_times)


def _decode_times(ds: xr.Dataset) -> xr.Dataset:
    import xarray as xr

    if any(array_of(var) for var in ds.variables.values()):
        return ds
    numbers = find_undecodable_times(ds)
    named: Mapping[Any, Any] = {name: ds.variables[name] for name in numbers}
    decoded: xr.Dataset = xr.decode_cf(ds.drop_vars(numbers), decode_timedelta=False)
    return decoded.assign(named).set_coords([name for name in numbers if name in ds.coords])


def find_undecodable_times(ds: xr.Dataset) -> list[str]:
    """Return the variables whose times xarray cannot decode, such as those in months since a date."""
    from xarray.conventions import decode_cf_variable

    found = []
    for name, var in ds.variables.items():
        bounds = var.attrs.get("bounds")
        for each in map(str, [name] + [bounds] * (bounds in ds.variables)):
            times = ds.variables[each].copy(deep=False)
            # Bounds have the units of what they belong to.
            times.attrs = {
                key: value
                for key, value in {**var.attrs, **times.attrs}.items()
                if key in ("units", "calendar")
            }
            if "since" not in str(times.attrs.get("units")) or times.dtype.kind not in "iuf":
                continue
            try:
                decode_cf_variable(each, times, decode_timedelta=False)
            except (ValueError, OverflowError):
                found.append(each)
    return sorted(set(found))


def is_alike(one: xr.Variable, other: xr.Variable) -> bool:
    """Say whether two variables have the same values; times that stay numbers, in the same units too."""
    units = [
        (str(var.attrs.get("units")), var.attrs.get("calendar", "standard"))
        for var in (one, other)
        if "since" in str(var.attrs.get("units"))
    ]
    same: Any = one.equals  # which has no types
    return bool(same(other)) and len(units) in (0, 2) and len(set(units)) < 2


def open_result(
    dst: Destination, plan: Plan, options: StorageOptions | None = None
) -> xr.Dataset | xr.DataTree | zarr.Group | zarr.Array[Any]:
    """Open what a conversion made: as a dataset, as a tree of several groups, or else as zarr has it.

    The last where arrays are no dataset, and where xarray has no tree for groups: where a dimension has
    another length in the group above. Encodings say what values mean and not how they were stored.
    """
    import xarray as xr

    place: Any = store_at(dst, options)
    if (whole := whole_of(place)) is not None:
        return zarr.open_array(whole, mode="r")
    if any(owns_dims(each.name, each.dims) for each in plan.variables):
        return zarr.open_group(place, mode="r")

    def open_group(path: str, dropped: list[str]) -> xr.Dataset:
        opened: xr.Dataset = xr.open_zarr(
            place, group=path or None, zarr_format=plan.zarr_format, consolidated=not path,
            decode_times=False, decode_timedelta=False, drop_variables=dropped,
        )  # fmt: skip
        ds = _decode_times(opened)
        for var in ds.variables.values():
            var.encoding = without_storage(var.encoding)
        return ds

    groups = open_groups(place, "", open_group)
    if list(groups) == [""]:
        return groups[""]
    try:
        return xr.DataTree.from_dict(groups)
    except ValueError:  # a group has a dimension of another length than one above of that name
        return zarr.open_group(place, mode="r")
