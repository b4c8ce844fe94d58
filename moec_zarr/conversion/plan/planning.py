"""What a conversion will do, decided before any of it is done, and without dask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from moec_zarr.adapters.choice import choose
from moec_zarr.adapters.chunking import LEAST_BYTES, choose_chunks, choose_image_chunks
from moec_zarr.adapters.find import find_codec
from moec_zarr.adapters.meaning import exact_encoding
from moec_zarr.adapters.tree import local_name
from moec_zarr.adapters.xarray_encoding import make_entries
from moec_zarr.adapters.zarr_groups import array_of, axis_types, is_consolidated
from moec_zarr.archive.plan import STORAGE, Plan, PlannedVariable
from moec_zarr.conversion.plan.levels import plan_rebuilding
from moec_zarr.conversion.plan.options import ConversionOptions, Sizes
from moec_zarr.errors import BudgetError, MoECError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["plan"]

_WHOLE_BYTES = 2**24  # a lossless variable up to this size is written together with the metadata
_LOSSLESS_BYTES = 2**24  # a chunk of a larger one


def plan(ds: xr.Dataset, options: ConversionOptions) -> Plan:
    """Decide which variables of a dataset are compressed, in which chunks, and in how many tasks.

    The variables to compress are those that `moec_zarr.encoding` chooses: fields of integers or floats, but
    no coordinates, times, flags, bounds, text, integers of few values or variables too small for the ratio.
    Only samples of integers are read.

    Chunks are chosen so that the ratio leaves a model enough bytes, then moved to the boundaries of the
    source's chunks where these lie near: to a multiple of the source's chunk along each dimension, or to an
    equal part of it, so that no chunk of the source is read more often than needed.

    Parameters
    ----------
    ds : Dataset
        The source.
    options : ConversionOptions
        Its codec, variables, chunks, shards and zarr format count.

    Raises
    ------
    MoECError
        If a variable or dimension does not exist, a size is no positive number, shards are no multiples of
        chunks, or nothing is left to compress.
    UnsupportedArrayError
        If a variable that is named has a dtype or rank that cannot be encoded.
    BudgetError
        If a chunk is too small for its ratio.
    """
    assert options.codec is not None
    chunks, shards = options.chunks, options.shards
    zarr_format = choose_format(ds, options)
    for what, sizes in (("chunks", chunks), ("shards", shards)):
        _check_sizes(what, sizes, ds)
    codecs, reasons = choose(ds, options.codec, options.variables)
    # A stand-in without values and without chunks: the choice of chunks is free.
    blank = ds.copy(
        data={name: np.broadcast_to(np.zeros((), var.dtype), var.shape) for name, var in ds.data_vars.items()}
    )
    entries = make_entries(blank, codecs, zarr_format)
    planned = []
    shape: tuple[int, ...] | None
    shard: tuple[int, ...] | None
    for name, var in ds.variables.items():
        entry, array = entries.get(name, {}), array_of(var)
        chosen = find_codec([entry.get("serializer"), *(entry.get("compressors") or ())])
        if chosen is not None and not var.size:
            chosen, reasons[name] = None, "holds no value"
        dtype = np.dtype(entry.get("dtype", var.dtype)) if chosen is not None else var.dtype
        if chosen is not None:
            free = entry["chunks"]
            if types := axis_types(var):
                free = choose_image_chunks(var.shape, types, dtype, chosen)
            shape = _chunk_shape(var, dtype, chosen, free, chunks, options.append)
            _check_budget(str(name), var, dtype, chosen, shape)
            entry = entry | {"chunks": shape}
            shard = _shard_shape(str(name), var, shape, shards)
            if shard:
                entry["shards"] = shard
        elif array is not None:
            # It is copied as it is, each object of the store in a task where there are many.
            large = var.dtype.kind in "biufc" and var.nbytes > _WHOLE_BYTES
            shape, shard = (array.chunks, array.shards) if large else (None, None)
            entry = {}
        else:
            exact = exact_encoding(var)
            entry = {key: value for key, value in exact.items() if key not in STORAGE}
            shape, shard = None, None
            if var.dtype.kind in "biufc" and var.nbytes > _WHOLE_BYTES and name not in ds.xindexes:
                free = choose_chunks(var.shape, var.dtype, Settings(ratio=1), target_bytes=_LOSSLESS_BYTES)
                shape = entry["chunks"] = _align(free, var)
        planned.append(
            PlannedVariable(
                name=str(name),
                dims=tuple(map(str, var.dims)),
                shape=var.shape,
                dtype=dtype,
                codec=chosen,
                reason=reasons.get(name, ""),
                chunks=shape,
                shards=shard,
                encoding=entry,
            )
        )
    arrays = [array for var in ds.variables.values() if (array := array_of(var)) is not None]
    result = Plan(
        variables=tuple(planned),
        zarr_format=zarr_format,
        consolidated=len(arrays) < len(ds.variables) or any(map(is_consolidated, arrays[:1])),
    )
    if not result.compressed:
        why = ", ".join(f"{each.name!r}: {each.reason}" for each in planned) or "it is empty"
        raise MoECError(f"the source has nothing to compress ({why}); name the variables, or lower the ratio")
    return plan_rebuilding(result, ds) if options.rebuild_levels else result


def choose_format(ds: xr.Dataset, options: ConversionOptions) -> Literal[2, 3]:
    """Return the zarr format of the destination: that of arrays without a dataset, which keep theirs, or 3.

    Raises
    ------
    MoECError
        If another one is asked for.
    """
    formats = {array.metadata.zarr_format for var in ds.variables.values() if (array := array_of(var))}
    asked = options.zarr_format
    if len(formats) > 1 or (asked is not None and formats - {asked}):
        kept = " and ".join(map(str, sorted(formats)))
        raise MoECError(
            f"images, and arrays without names of their dimensions, keep their zarr format, which is {kept}; "
            + (
                "leave --zarr-format (zarr_format=) out"
                if len(formats) == 1
                else "convert one part at a time"
            )
        )
    found = formats.pop() if formats else asked or 3
    if options.shards is not None and found == 2:
        raise MoECError("the arrays have zarr format 2, which has no shards; leave shards= out")
    return found


def _check_sizes(what: str, sizes: Literal["auto"] | Sizes | None, ds: xr.Dataset) -> None:
    if sizes is None or sizes == "auto":
        return
    if not isinstance(sizes, Mapping):
        raise MoECError(f"{what} must give a size by dimension, such as {{'time': 24}}, got {sizes!r}")
    known = dict.fromkeys(map(local_name, ds.dims))
    for dim, size in sizes.items():
        if dim not in known:
            raise MoECError(
                f"{what} give a size for {dim!r}, which is no dimension; "
                f"the source has {', '.join(map(repr, known))}"
            )
        if not isinstance(size, int) or not (size > 0 or size == -1):
            raise MoECError(
                f"{what} along {dim!r} must be a number of voxels, or -1 for all of them, got {size!r}"
            )


def _chunk_shape(
    var: xr.Variable,
    dtype: np.dtype[Any],
    settings: Settings,
    free: tuple[int, ...],
    asked: Literal["auto"] | Sizes,
    growing: str | None,
) -> tuple[int, ...]:
    """Shape of the chunks: as asked for, else `free` moved to the source's boundaries.

    Along a dimension that is to grow, a chunk may be longer than the source.
    """
    aligned = _align(free, var)
    left = math.prod(aligned) * dtype.itemsize / (settings.ratio or 1)
    shape = list(free if left < LEAST_BYTES else aligned)
    for axis, (dim, length) in enumerate(zip(map(local_name, var.dims), var.shape, strict=True)):
        if asked != "auto" and dim in asked:
            size = max(length, 1) if asked[dim] == -1 else asked[dim]
            shape[axis] = size if dim == growing else min(size, max(length, 1))
    return tuple(shape)


def _align(free: tuple[int, ...], var: xr.Variable) -> tuple[int, ...]:
    """Return a chunk shape near `free` whose boundaries meet those of the source's chunks."""
    shape = []
    for axis, (dim, length, size) in enumerate(zip(map(local_name, var.dims), var.shape, free, strict=True)):
        if var.chunks is not None:
            source = max(var.chunks[axis], default=0)
        else:
            source = var.encoding.get("preferred_chunks", {}).get(dim, 0)
        if size >= length or not source or source >= length:
            shape.append(size)
        elif size >= source:
            shape.append(size // source * source)
        else:
            # The part nearest to `size`; where all equal parts are far from it, alignment is not worth it.
            part = source // math.ceil(source / size)
            while source % part:
                part -= 1
            shape.append(part if 2 * part > size else size)
    return tuple(shape)


def _shard_shape(
    name: str, var: xr.Variable, chunk: tuple[int, ...], asked: Sizes | None
) -> tuple[int, ...] | None:
    dims = [local_name(dim) for dim in var.dims]
    if asked is None or asked.keys().isdisjoint(dims):
        return None
    shape = []
    for dim, length, side in zip(dims, var.shape, chunk, strict=True):
        whole = math.ceil(max(length, 1) / side) * side
        size = asked.get(dim, side)
        size = whole if size == -1 else min(size, whole)
        if size % side:
            raise MoECError(
                f"variable {name!r}: shards of {size} voxels along {dim!r} do not hold whole chunks of "
                f"{side}; make them a multiple of it, or give chunks= along {dim!r}"
            )
        shape.append(size)
    return tuple(shape)


def _check_budget(
    name: str, var: xr.Variable, dtype: np.dtype[Any], settings: Settings, chunk: tuple[int, ...]
) -> None:
    left = math.prod(chunk) * dtype.itemsize / (settings.ratio or 1)
    if settings.ratio is not None and left < LEAST_BYTES and var.size:
        larger = choose_chunks(var.shape, dtype, settings)
        if math.prod(larger) > math.prod(chunk):
            remedy = "make chunks as large as " + ",".join(
                f"{local_name(d)}={n}" for d, n in zip(var.dims, larger, strict=True)
            )
        else:
            remedy = f"ask for at most {var.size * dtype.itemsize / LEAST_BYTES:.4g}x, or leave it lossless"
        raise BudgetError(
            f"variable {name!r}: {settings.ratio:g}x leaves {left:.0f} bytes to a chunk of shape {chunk}, "
            f"and a model needs {LEAST_BYTES}; {remedy}"
        )
