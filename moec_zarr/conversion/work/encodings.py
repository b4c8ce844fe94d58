"""The encodings with which a conversion creates variables: xarray adds nothing to a source's attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.adapters.choice import no_fields
from moec_zarr.adapters.xarray_encoding import related
from moec_zarr.archive.plan import PlannedVariable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["encode_chosen"]

_SENTINELS = ("_FillValue", "missing_value")

Encodings = dict[str, dict[str, Any]]


def encode_chosen(ds: xr.Dataset, chosen: list[PlannedVariable]) -> tuple[Encodings, Encodings]:
    """Return the encodings of variables to create.

    Returns
    -------
    own : dict of str to dict
        What each has as its encoding: xarray looks for names of other variables here, before it looks at the
        entries.
    entries : dict of str to dict
        The argument ``encoding`` of ``to_zarr``: an entry for each variable to compress.
    """
    plain = {each.name: _without_nan(each.encoding) for each in chosen}
    unasked = _unasked(ds, chosen)
    own = {
        each.name: (_names(ds.variables[each.name]) if each.codec else plain[each.name]) | unasked[each.name]
        for each in chosen
    }
    return own, {each.name: plain[each.name] for each in chosen if each.codec}


def _without_nan(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return an encoding without a missing value of NaN: JSON has no number for it, and it is missing."""
    missing = np.ravel(encoding.get("missing_value", 0))
    finite = [value for value in missing if value == value]
    kept = {key: value for key, value in encoding.items() if key != "missing_value" or finite}
    return kept if len(finite) == missing.size or not finite else kept | {"missing_value": np.array(finite)}


def _unasked(ds: xr.Dataset, chosen: list[PlannedVariable]) -> dict[str, dict[str, Any]]:
    """Return, as None, the attributes that xarray would add to variables though the source has none."""
    described = no_fields(ds)
    named = " ".join(
        str(var.encoding.get("coordinates") or var.attrs.get("coordinates") or "")
        for var in ds.variables.values()
    ).split()
    others = {name: set(var.dims) for name, var in ds.coords.items() if name not in ds.dims}
    found: dict[str, dict[str, Any]] = {}
    for each in chosen:
        var = ds.variables[each.name]
        known = var.attrs.keys() | var.encoding.keys()
        unasked = found[each.name] = {}
        stored = np.dtype(var.encoding.get("dtype") or var.dtype)
        if not each.codec and not each.tasks and stored.kind in "fc" and known.isdisjoint(_SENTINELS):
            unasked["_FillValue"] = None
        # Bounds have the coordinates of what they bound; else, a source that names them somewhere means it.
        along = [name for name, dims in others.items() if dims <= set(var.dims)]
        means = described.get(each.name) == "bounds" or (along and set(along) <= set(named))
        if "coordinates" not in known and means:
            unasked["coordinates"] = None
    return found


def _names(var: xr.Variable) -> dict[str, Any]:
    """Return what the encoding of a variable says of other variables."""
    names = related(var)
    if "coordinates" in var.encoding:
        names["coordinates"] = var.encoding["coordinates"]
    return names
