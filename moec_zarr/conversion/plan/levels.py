"""Coarser levels of images that are made again of the finest one as it is decoded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from moec_zarr.adapters.ome import levels_of
from moec_zarr.adapters.pyramid import METHODS, Method, coarsen, find_factors
from moec_zarr.adapters.tree import groups_of, join_path
from moec_zarr.adapters.zarr_groups import array_of
from moec_zarr.archive.plan import Plan, PlannedVariable, Rebuilt
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["plan_rebuilding", "replace_rebuilt"]

_log = logging.getLogger(__name__)
_SAMPLE = 64  # voxels of the coarser level, along each axis, by which it is told how it was made


def plan_rebuilding(planned: Plan, ds: xr.Dataset) -> Plan:
    """Plan to make the coarser levels of images again of the finest one, where that is compressed.

    How they were made is told by a sample.

    Raises
    ------
    MoECError
        If there is no image of several levels, or a level is not made of blocks of the finest.
    """
    known = {each.name: each for each in planned.variables}
    changed: dict[str, PlannedVariable] = {}
    for path, group in groups_of(ds).items():
        for levels in levels_of(group.attrs):
            finest, *coarser = [join_path(path, level) for level in levels]
            if finest not in known or known[finest].codec is None:
                continue
            for name in coarser:
                if name in known:
                    changed[name] = _rebuild(known[name], finest, ds)
    if not changed:
        raise MoECError(
            "--rebuild-levels (rebuild_levels=) makes the coarser levels of images again, and the source has "
            "no image of several levels that is compressed; leave it out"
        )
    return replace(planned, variables=tuple(changed.get(each.name, each) for each in planned.variables))


def _rebuild(each: PlannedVariable, finest: str, ds: xr.Dataset) -> PlannedVariable:
    """Return what becomes of a level; it is written by tasks, after those of the finest."""
    array = array_of(ds.variables[each.name])
    assert array is not None
    try:
        factors = find_factors(ds.variables[finest].shape, each.shape)
    except MoECError as error:
        raise MoECError(f"{each.name!r} cannot be made again of {finest!r}: {error}") from error
    method, off = _find_method(ds.variables[finest], ds.variables[each.name], factors)
    _log.info(
        "level %r is made again of %r by its %s; the source's differs from that by %.3g in the mean",
        each.name, finest, method, off,
    )  # fmt: skip
    chunks, shards = (each.chunks, each.shards) if each.tasks else (array.chunks, array.shards)
    return replace(each, chunks=chunks, shards=shards, rebuilt=Rebuilt(finest, method))


def _find_method(fine: xr.Variable, coarse: xr.Variable, factors: tuple[int, ...]) -> tuple[Method, float]:
    """Tell by a sample how a level was made, and how far it is from that in the mean."""
    starts = [max(n - _SAMPLE, 0) // 2 for n in coarse.shape]
    region = tuple(slice(a, min(a + _SAMPLE, n)) for a, n in zip(starts, coarse.shape, strict=True))
    inside = tuple(slice(r.start * f, r.stop * f) for r, f in zip(region, factors, strict=True))
    old, new = np.asarray(coarse[region].values), np.asarray(fine[inside].values)
    found: dict[Method, float] = {}
    for method in METHODS:
        made = coarsen(new, factors, method)[tuple(slice(n) for n in old.shape)]
        error = np.abs(made.astype(np.float64) - old.astype(np.float64))
        found[method] = float(error.mean()) if error.size else 0.0
    method = min(METHODS, key=lambda each: found[each])
    return method, found[method]


def replace_rebuilt(
    planned: Plan, ds: xr.Dataset, group: zarr.Group, offsets: Mapping[str, int]
) -> xr.Dataset:
    """Return a source whose rebuilt levels are those of what the destination holds of the finest.

    Parameters
    ----------
    planned : Plan
        Of the destination.
    ds : Dataset
        The source.
    group : zarr.Group
        The destination, with the shapes of the plan.
    offsets : mapping of str to int
        Position in the destination of the first voxel of the source, by dimension, where it is not 0.
    """
    from moec_zarr.adapters.lazy_values import as_coarse

    made: dict[str, Any] = {}
    for each in planned.variables:
        if each.rebuilt is None:
            continue
        var = ds.variables[each.name].to_base_variable()
        finest: Any = group[each.rebuilt.finest]
        whole = type(var)(
            var.dims, as_coarse(finest, each.shape, each.rebuilt.method), var.attrs, var.encoding
        )
        starts = [offsets.get(dim, 0) for dim in each.dims]
        made[each.name] = whole[tuple(slice(a, a + n) for a, n in zip(starts, var.shape, strict=True))]
    return ds.assign(made) if made else ds
