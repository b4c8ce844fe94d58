"""What a conversion will do, decided before any of it is done, and without dask."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from moec_zarr.adapters.choice import choose
from moec_zarr.adapters.chunking import choose_chunks
from moec_zarr.adapters.find import find_codec
from moec_zarr.adapters.meaning import exact_encoding, without_storage
from moec_zarr.adapters.training import HELD_OUT, LEAST, MOST
from moec_zarr.adapters.tree import group_of, split
from moec_zarr.adapters.xarray_encoding import make_entries
from moec_zarr.adapters.zarr_groups import array_of, is_consolidated
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.conversion.plan.chunks import (
    align,
    check_budget,
    check_sizes,
    choose_chunk_shape,
    choose_free_shape,
    choose_shard_shape,
)
from moec_zarr.conversion.plan.levels import plan_rebuilding
from moec_zarr.conversion.plan.options import ConversionOptions
from moec_zarr.errors import MoECError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["plan"]

_WHOLE_BYTES = 2**24  # a lossless variable up to this size is written together with the metadata
_LOSSLESS_BYTES = 2**24  # a chunk of a larger one
_TRAINED_BYTES = 2**28  # of the chunks that a dictionary is trained on
_TRAINING = 1 / 8  # of the time of all fits, at most, goes into a dictionary


def plan(ds: xr.Dataset, options: ConversionOptions) -> Plan:
    """Decide which variables of a dataset are compressed, in which chunks, and in how many tasks.

    The variables to compress are those that `moec_zarr.encoding` chooses: fields of integers or floats, but
    no coordinates, times, flags, bounds, text, integers of few values or variables too small for the ratio.
    Only samples are read.

    Chunks are chosen so that the ratio leaves a model enough bytes, then moved to the boundaries of the
    source's chunks where these lie near: to a multiple of the source's chunk along each dimension, or to an
    equal part of it, so that no chunk of the source is read more often than needed.

    Parameters
    ----------
    ds : Dataset
        The source.
    options : ConversionOptions
        Its codec, variables, chunks, shards, zarr format, levels and dictionaries count.

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
    chunks = options.chunks
    zarr_format = _choose_format(ds, options)
    check_sizes(ds, chunks, options.shards)
    codecs, reasons = choose(ds, options.codec, options.variables)
    # A stand-in without values and without chunks: the choice of chunks is free.
    blank = ds.copy(
        data={name: np.broadcast_to(np.zeros((), var.dtype), var.shape) for name, var in ds.data_vars.items()}
    )
    entries = make_entries(blank, codecs, zarr_format)
    groups = split(ds, inherit=True)
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
            free = choose_free_shape(
                groups[group_of(name)], str(name), dtype, chosen, entry["chunks"], chunks
            )
            shape = choose_chunk_shape(var, dtype, chosen, free, chunks, options.append)
            check_budget(str(name), var, dtype, chosen, shape)
            entry = entry | {"chunks": shape}
            shard = choose_shard_shape(str(name), var, shape, options.shards)
            if shard:
                entry["shards"] = shard
        elif array is not None:
            # It is copied as it is, each object of the store in a task where there are many.
            large = var.dtype.kind in "biufc" and var.nbytes > _WHOLE_BYTES
            shape, shard = (array.chunks, array.shards) if large else (None, None)
            entry = {}
        else:
            exact = exact_encoding(var)
            entry = without_storage(exact)
            shape, shard = None, None
            if var.dtype.kind in "biufc" and var.nbytes > _WHOLE_BYTES and name not in ds.xindexes:
                free = choose_chunks(var.shape, var.dtype, Settings(ratio=1), target_bytes=_LOSSLESS_BYTES)
                shape = entry["chunks"] = align(free, var)
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
    if options.rebuild_levels:
        result = plan_rebuilding(result, ds)
    return replace(result, variables=tuple(_plan_training(each, options.train) for each in result.variables))


def _plan_training(each: PlannedVariable, asked: bool | None) -> PlannedVariable:
    """Plan on how many chunks a dictionary is trained: by default, as many as are worth their time.

    A level that is made again has no values yet.
    """
    codec = each.codec
    if asked is False or codec is None or codec.dictionary or codec.is_lossless or each.rebuilt is not None:
        return each
    assert each.chunks is not None
    whole = math.prod(max(n // side, 1) for n, side in zip(each.shape, each.chunks, strict=True))
    nbytes = math.prod(each.chunks) * each.dtype.itemsize
    for count in range(min(MOST, whole - HELD_OUT), LEAST - 1, -1):
        planned = replace(each, training=count)
        is_small = (count + HELD_OUT) * nbytes <= _TRAINED_BYTES
        if asked and (is_small or count == LEAST):
            return planned
        if is_small and planned.training_seconds <= _TRAINING * each.seconds:
            return planned
    return each


def _choose_format(ds: xr.Dataset, options: ConversionOptions) -> Literal[2, 3]:
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
            + ("leave zarr_format= out" if len(formats) == 1 else "convert one part at a time")
        )
    found = formats.pop() if formats else asked or 3
    if options.shards is not None and found == 2:
        raise MoECError("the arrays have zarr format 2, which has no shards; leave shards= out")
    return found
