"""Which variables of a dataset are compressed, and why the others stay lossless."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from moec_zarr.adapters.chunking import LEAST_BYTES
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.bitstream.container import MAX_RANK
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.errors import MoECError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["OTHERS", "PACKING", "choose", "no_fields", "why_lossless"]

OTHERS = "*"
"""In a mapping of codecs: all variables that are not named and hold a field."""

PACKING = ("scale_factor", "add_offset")
"""Attributes of packed values."""

_FEW = 64  # different values that a mask or a variable of classes has at most
_SAMPLES, _SAMPLE_VOXELS = 16, 2**14  # places where integers are looked at, and the voxels of each
_DESCRIBE = {"bounds": "bounds", "climatology": "bounds", "grid_mapping": "grid mapping"}
_FLAGS = ("flag_values", "flag_meanings", "flag_masks")


def choose(
    ds: xr.Dataset,
    codec: MoECCodec | Mapping[Any, MoECCodec | None],
    variables: Iterable[Hashable] | None = None,
) -> tuple[dict[Hashable, MoECCodec], dict[Hashable, str]]:
    """Choose the codec of each variable to compress; of each other one, say why it stays lossless.

    The parameters are those of `encoding`, and what it raises.
    """
    given = dict(codec) if isinstance(codec, Mapping) else {OTHERS: codec}
    for each in given.values():
        if not isinstance(each, MoECCodec) and not (each is None and isinstance(codec, Mapping)):
            raise MoECError(f"codec must be a MoECCodec in either zarr format, got {each!r}")
    others = given.pop(OTHERS, None)
    if variables is None:
        named = {name: each for name, each in given.items() if each is not None}
    else:
        names = [variables] if isinstance(variables, str) else list(variables)
        named = {name: given.get(name, others) for name in names}
    for name in named | given:
        if name not in ds.data_vars or (name in named and named[name] is None):
            raise MoECError(
                f"{name!r} is not a data variable with a codec; the data variables are "
                f"{', '.join(map(repr, ds.data_vars))}"
            )
    codecs = cast("dict[Hashable, MoECCodec]", dict(named))
    reasons: dict[Hashable, str] = {}
    for name in ds.variables:
        if name in named:
            continue
        if name in ds.coords:
            reason = "coordinate"
        elif name in given and given[name] is None:
            reason = "as asked"
        elif variables is not None or others is None:
            reason = "not named"
        else:
            reason = why_lossless(ds, name, others)
        if reason:
            reasons[name] = reason
        elif others is not None:
            codecs[name] = others
    return codecs, reasons


def why_lossless(ds: xr.Dataset, name: Hashable, settings: Settings) -> str:
    """Say in a word why a variable that is not named stays lossless; empty if it is compressed.

    Values are read as `encoding` says.
    """
    var = ds.variables[name]
    known = var.attrs.keys() | var.encoding.keys()
    units = str(var.attrs.get("units", var.encoding.get("units", "")))
    if name in ds.coords:
        return "coordinate"
    if reason := no_fields(ds).get(name):
        return reason
    if var.dtype.kind in "mM" or " since " in units:
        return "time"
    if var.dtype.kind not in "iuf" or var.dtype.itemsize > 8:
        return "no number"
    if not known.isdisjoint(_FLAGS):
        return "flags"
    if var.ndim > MAX_RANK:
        return f"more than {MAX_RANK} axes"
    if var.nbytes < LEAST_BYTES * (settings.ratio or 1):
        return "small"
    # xarray makes floats of integers that have a fill value.
    stored = np.dtype(var.encoding.get("dtype") or var.dtype)
    integers = stored.kind in "iu" and var.encoding.keys().isdisjoint(PACKING)
    names = (name, var.attrs.get("standard_name"), var.attrs.get("long_name"))
    if integers or re.search(r"mask|flag", " ".join(map(str, names)).lower()):
        return _few_values(var)
    return ""


def no_fields(ds: xr.Dataset) -> dict[Hashable, str]:
    """Find the data variables that only describe others, and as what: "bounds" or "grid mapping"."""
    found: dict[Hashable, str] = {}
    for var in ds.variables.values():
        known = var.encoding | var.attrs
        for key, what in _DESCRIBE.items():
            for word in str(known.get(key, "")).split():
                name = word.rstrip(":")  # "crs: x y" names the grid mapping of coordinates
                if name in ds.data_vars and (what == "bounds" or ds[name].size == 1):
                    found[name] = what
    return found


def _few_values(var: xr.Variable) -> str:
    """List the different values of a sample, in words; empty if they are more than a mask or classes have."""
    found = np.zeros(0, var.dtype)
    for region in _sample(var.shape):
        part = var[region]
        # Not on a cluster: the sample is small, and decided on here.
        values = np.asarray((part if var.chunks is None else part.compute(scheduler="synchronous")).values)
        found = np.union1d(found, values[np.isfinite(values)])
        if found.size > _FEW:
            return ""
    if found.size <= 4:
        return f"few values: {', '.join(f'{value:g}' for value in found)}" if found.size else "no values"
    return f"few values: {found.size} from {found[0]:g} to {found[-1]:g}"


def _sample(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Regions of a bounded size, spread evenly from the first voxel to the last."""
    sides = [1] * len(shape)
    for axis in reversed(range(len(shape))):
        sides[axis] = min(shape[axis], max(1, _SAMPLE_VOXELS // math.prod(sides)))
    grid = ChunkGrid(shape, tuple(sides))
    yield from map(grid.region, grid.spread(_SAMPLES))
