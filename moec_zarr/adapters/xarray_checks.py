"""Datasets that xarray holds and no zarr store can: refused before anything is written, with the way out."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.errors import MoECError, UnsupportedArrayError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_dataset", "check_name"]

_RESERVED = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", ".", "..")
_ADDRESSED = 2**63 - 1  # bytes of an array of NumPy
_SHOWN = 4  # types in a message


def check_dataset(ds: xr.Dataset) -> None:
    """Refuse a dataset with names, indexes or values that cannot be stored.

    Only values of Python objects are read, which have no type of their own.

    Raises
    ------
    MoECError
        If a name of a variable or dimension is no text, or is none that zarr can have, or a coordinate is a
        multi-index.
    UnsupportedArrayError
        If values are of a type that zarr does not have, or are held by something else than NumPy and dask.
    """
    for name, index in ds.indexes.items():
        if index.nlevels > 1:
            dim = index.name if index.name in ds.dims else ds[name].dims[0]
            raise MoECError(
                f"{dim!r} has a multi-index of {', '.join(map(repr, index.names))}, and a coordinate is one "
                f"array in a store; make coordinates of its levels by ds.reset_index({dim!r})"
            )
    for dim in ds.dims:
        if not isinstance(dim, str):
            raise MoECError(
                f"names of dimensions are text, got {dim!r} of type {type(dim).__name__}; "
                f"ds.rename({{{dim!r}: {str(dim)!r}}}) renames it"
            )
    for name, var in ds.variables.items():
        check_name(name)
        _check_values(name, var)


def check_name(name: Hashable) -> None:
    """Refuse the name of a variable that zarr cannot have, or takes for a path."""
    if not isinstance(name, str):
        what = f"names of variables are text, got {name!r} of type {type(name).__name__}"
    elif not name or "\0" in name:
        what = f"a variable needs a name that can be one of a file, got {name!r}"
    elif "/" in name or "\\" in name:
        what = f"zarr takes a name with / or \\ for a path, got {name!r}"
    elif name in _RESERVED:
        what = f"{name!r} is a name that zarr keeps for itself"
    else:
        return
    other = "".join("_" if each in "/\\\0" else each for each in str(name)).strip(".") or "values"
    raise MoECError(f"{what}; ds.rename({{{name!r}: {other + '_' * (other == name)!r}}}) renames it")


def _check_values(name: Hashable, var: xr.Variable) -> None:
    """Refuse values that zarr cannot hold, or that NumPy cannot have."""
    if not isinstance(var.dtype, np.dtype):
        raise UnsupportedArrayError(
            f"variable {name!r} holds {var.dtype}, a type of pandas alone; make numbers, times or text of "
            f"it, such as ds[{name!r}].astype(str)"
        )
    if math.prod(var.shape) * max(var.dtype.itemsize, 1) > _ADDRESSED:
        raise UnsupportedArrayError(
            f"variable {name!r} has the shape {var.shape}, which is more than memory has addresses for; its "
            "metadata may be damaged"
        )
    if var.dtype.kind in "fc" and np.finfo(var.dtype).nexp > np.finfo("f8").nexp:
        other = "c16" if var.dtype.kind == "c" else "f8"
        raise UnsupportedArrayError(
            f"variable {name!r} holds {var.dtype}, which zarr has not; ds[{name!r}].astype({other!r})"
        )
    held = _holder(var)
    if not issubclass(held, np.ndarray):
        raise UnsupportedArrayError(
            f"variable {name!r} is held by {held.__module__}.{held.__qualname__}, expected NumPy or dask; "
            "ds.as_numpy() makes NumPy of it (units of pint: first ds.pint.dequantify(), which keeps them)"
        )
    if var.dtype.kind == "O" or hasattr(var.dtype, "na_object") or _is_ragged(var):
        _check_objects(name, var)


def _holder(var: xr.Variable) -> type[Any]:
    """Return the type of a variable's arrays, of which nothing is read."""
    if var.chunks is not None:
        from dask.array.utils import meta_from_array

        return type(meta_from_array(var.data))
    return type(var[tuple(slice(0, 0) for _ in var.dims)].data)


def _is_ragged(var: xr.Variable) -> bool:
    """Whether values are arrays of any length, which netCDF4 calls numbers until they are read."""
    return var.chunks is None and var[tuple(slice(0, 0) for _ in var.dims)].data.dtype.kind == "O"


def _check_objects(name: Hashable, var: xr.Variable) -> None:
    """Refuse Python objects that are not all text, bytes, times or numbers."""
    from xarray.conventions import encode_cf_variable

    var = var.compute() if var.chunks is None else var.compute(scheduler="synchronous")
    try:
        encoded = encode_cf_variable(var.to_base_variable(), name=name)  # makes numbers of times
    except (ValueError, TypeError):
        encoded = var
    if encoded.dtype.kind not in "OT":
        return
    encoded = encoded.astype(object)  # xarray 2025.6 does not look for what is missing in NumPy's text
    missing = np.asarray(encoded.isnull())
    present = encoded.values[~missing]
    kinds = {type(each) for each in present}
    what = f"variable {name!r} holds Python objects of type " + ", ".join(
        sorted(kind.__name__ for kind in kinds)[:_SHOWN]
    )
    first = np.asarray(present[0]) if present.size else np.zeros(())
    if first.ndim:
        raise UnsupportedArrayError(
            f"{what}, of any length each; give them an axis of their own, or leave them out by "
            f"ds.drop_vars({name!r})"
        )
    if len(kinds) > 1 or first.dtype.kind not in "biufcSU":
        raise UnsupportedArrayError(
            f"{what}, and all of them must be text, times or numbers of one type; "
            f"ds[{name!r}].astype(str) or .astype(float) makes them so"
        )
    if missing.any() and kinds & {str, bytes}:
        raise UnsupportedArrayError(
            f"{what}, of which {missing.sum()} are missing, and text is never missing in a store; "
            f"ds[{name!r}].fillna('') makes empty text of them"
        )
