"""Chunks and shards of the variables to compress."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from moec_zarr.adapters.chunking import LEAST_BYTES, choose_chunks, choose_image_chunks
from moec_zarr.adapters.tree import local_name
from moec_zarr.adapters.uneven import describe_uneven, find_uneven_axis, weighs_alike
from moec_zarr.adapters.zarr_groups import axis_types
from moec_zarr.conversion.plan.options import Sizes
from moec_zarr.errors import BudgetError, MoECError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "align",
    "check_budget",
    "check_sizes",
    "choose_chunk_shape",
    "choose_free_shape",
    "choose_shard_shape",
]

_log = logging.getLogger(__name__)


def check_sizes(ds: xr.Dataset, chunks: Literal["auto"] | Sizes, shards: Sizes | None) -> None:
    """Refuse sizes of chunks or shards along dimensions that are not there, and such as are no sizes.

    Raises
    ------
    MoECError
        If there is one.
    """
    for what, sizes in (("chunks", chunks), ("shards", shards)):
        _check_sizes(what, sizes, ds)


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


def choose_free_shape(
    ds: xr.Dataset,
    path: str,
    dtype: np.dtype[Any],
    settings: Settings,
    chunk: tuple[int, ...],
    asked: Literal["auto"] | Sizes,
) -> tuple[int, ...]:
    """Return the shape that chunks would have if the source had none: `chunk`, but for images and levels.

    `ds` is the group of the variable at a path.

    Images are cut as viewers read them. Where a target weighs all errors of a chunk alike, and slices differ
    in range from level to level, each is in a chunk of its own; that is logged.
    """
    var = ds.variables[local_name(path)]
    if types := axis_types(var):
        return choose_image_chunks(var.shape, types, dtype, settings)
    if not weighs_alike(settings):
        return chunk
    uneven = find_uneven_axis(ds, var)
    if uneven is None:
        return chunk
    dim = local_name(var.dims[uneven.axis])
    if asked != "auto" and dim in asked:
        return chunk
    what = describe_uneven(ds, path, dim, uneven)
    shape = tuple(1 if axis == uneven.axis else n for axis, n in enumerate(var.shape))
    single = choose_chunks(shape, dtype, settings)
    cut = choose_chunk_shape(var, dtype, settings, single, asked, None)
    if _has_too_little(cut, dtype, settings):
        _log.warning(
            "%s; at %gx there is too little in each for a chunk of its own, so that errors are too large "
            "where the range is small: ask for less, or for a bound", what, settings.ratio,
        )  # fmt: skip
        return chunk
    _log.warning("%s, so that chunks hold one step of it each; --chunks %s=N decides otherwise", what, dim)
    return single


def choose_chunk_shape(
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
    aligned = align(free, var)
    left = math.prod(aligned) * dtype.itemsize / (settings.ratio or 1)
    shape = list(free if left < LEAST_BYTES else aligned)
    for axis, (dim, length) in enumerate(zip(map(local_name, var.dims), var.shape, strict=True)):
        if asked != "auto" and dim in asked:
            size = max(length, 1) if asked[dim] == -1 else asked[dim]
            shape[axis] = size if dim == growing else min(size, max(length, 1))
    if axis_types(var) and _has_too_little(shape, dtype, settings):
        return free  # sizes are asked of the levels that are large enough for them
    return tuple(shape)


def _has_too_little(shape: Sequence[int], dtype: np.dtype[Any], settings: Settings) -> bool:
    """Say whether the ratio leaves a chunk too few bytes for a model."""
    return math.prod(shape) * dtype.itemsize / (settings.ratio or 1) < LEAST_BYTES


def align(free: tuple[int, ...], var: xr.Variable) -> tuple[int, ...]:
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


def choose_shard_shape(
    name: str, var: xr.Variable, chunk: tuple[int, ...], asked: Sizes | None
) -> tuple[int, ...] | None:
    """Return the shape of shards; None where the variable has none.

    Raises
    ------
    MoECError
        If they do not hold whole chunks.
    """
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


def check_budget(
    name: str, var: xr.Variable, dtype: np.dtype[Any], settings: Settings, chunk: tuple[int, ...]
) -> None:
    """Refuse chunks that the ratio leaves too few bytes.

    Raises
    ------
    BudgetError
        If it does.
    """
    left = math.prod(chunk) * dtype.itemsize / (settings.ratio or 1)
    if settings.ratio is not None and _has_too_little(chunk, dtype, settings) and var.size:
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
