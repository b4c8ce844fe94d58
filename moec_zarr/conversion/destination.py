"""The store that a conversion makes: its metadata before any chunk, and what it says of itself after."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal

import zarr
from zarr.abc.store import Store

from moec_zarr.conversion.manifest import Manifest, read_manifest, write_manifest
from moec_zarr.conversion.plan import STORAGE, Plan
from moec_zarr.conversion.source import Source, is_local
from moec_zarr.conversion.status import Progress, Summary
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Destination", "open_destination", "open_result", "refuse_overlap", "write_attributes"]

Destination = str | PathLike[str] | Store

_PREFIX = "compression_"  # begins the name of every attribute that says how a variable was compressed


def refuse_overlap(src: Source, ds: xr.Dataset, dst: Destination) -> None:
    """Refuse a destination that lies within the source, or around it."""
    if isinstance(dst, Store):
        return
    import fsspec

    def whole(path: str) -> str:
        fs, root = fsspec.url_to_fs(path)
        return f"{fs.unstrip_protocol(root).rstrip('/')}/"

    paths = [ds.encoding.get("source"), *(var.encoding.get("source") for var in ds.variables.values())]
    if isinstance(src, (str, PathLike)):
        paths.append(fspath(src))
    target = whole(fspath(dst))
    for path in paths:
        if isinstance(path, str) and (target.startswith(whole(path)) or whole(path).startswith(target)):
            raise MoECError(
                f"source {path} and destination {dst} overlap; give the destination a place of its own"
            )


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    """Silence what zarr says of stores like these, and what their users can do nothing about."""
    with warnings.catch_warnings():
        # Text has no type in the specification of format 3 so far; zarr reads what it writes.
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification")
        # Nor does that specification know of consolidated metadata.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        # The folder of a variable whose manifest is there before its metadata.
        warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component")
        yield


@_without_expected_warnings()
def open_destination(
    planned: Plan, ds: xr.Dataset, dst: Destination, wanted: Manifest, resume: bool
) -> zarr.Group:
    """The destination with its metadata complete: as an earlier run left it, or made anew."""
    store = _place(dst)
    first = planned.compressed[0].name
    existing = _existing(store)
    if existing is not None and resume:
        manifest = read_manifest(existing)
        if manifest is None and any(True for _ in existing.members()):
            raise MoECError(
                f"there is a store at {dst}, and no conversion made it; choose another destination, or "
                "--overwrite (resume=False) to replace it"
            )
        if manifest is not None:
            manifest.refuse_other(wanted)
            if manifest.created:
                return existing
    # Nothing was fitted yet, or it is to be replaced.
    group = zarr.open_group(store, mode="w", zarr_format=planned.zarr_format)
    write_manifest(group, first, wanted)
    _create(planned, ds, store)
    write_manifest(group, first, replace(wanted, created=True))
    return zarr.open_group(store, mode="r+", zarr_format=planned.zarr_format, use_consolidated=False)


def _place(dst: Destination) -> str | Store:
    """Where zarr finds the destination; a local URL as a path, which it writes atomically."""
    if isinstance(dst, Store):
        return dst
    import fsspec

    fs, root = fsspec.url_to_fs(fspath(dst))
    return str(root) if is_local(fs) else fspath(dst)


def _existing(store: str | Store) -> zarr.Group | None:
    """The group at a place; None where there is nothing.

    Raises
    ------
    MoECError
        If there is something else, which must not be replaced.
    """
    if isinstance(store, str):
        import fsspec

        fs, root = fsspec.url_to_fs(store)
        if fs.isfile(root):
            raise MoECError(f"there is a file at {store}; choose another destination")
    try:
        return zarr.open_group(store, mode="r+", use_consolidated=False)
    except FileNotFoundError:
        pass
    except zarr.errors.ContainsArrayError as error:
        raise MoECError(f"{store} holds an array, not a group; choose another destination") from error
    if isinstance(store, str) and fs.exists(root) and fs.ls(root):
        raise MoECError(f"there is a folder at {store} that is no zarr store; choose another destination")
    return None


def _create(planned: Plan, ds: xr.Dataset, store: str | Store) -> None:
    """Write metadata, and the variables that have no tasks."""
    import dask.array as da

    template = ds.copy()
    for each in planned.variables:
        var = ds.variables[each.name]
        if each.tasks:
            # A stand-in of one chunk: nothing of it is ever computed.
            blank = da.zeros(var.shape, dtype=var.dtype, chunks=-1)
            template[each.name] = var.copy(data=blank)
        elif var.chunks is not None:
            # What is lazy is not written now, and this variable has no task that would.
            template[each.name] = var.compute(scheduler="synchronous")
        template[each.name].encoding = {} if each.codec else each.encoding
    for var in template.variables.values():
        var.attrs = {key: value for key, value in var.attrs.items() if not key.startswith(_PREFIX)}
    template.to_zarr(
        store,
        mode="a",
        zarr_format=planned.zarr_format,
        encoding={each.name: each.encoding for each in planned.compressed},
        consolidated=False,
        compute=False,
    )


@_without_expected_warnings()
def write_attributes(planned: Plan, src: Source, group: zarr.Group, state: Progress) -> None:
    """Say in the destination's attributes what was done to each variable."""
    summaries = state.summaries()
    for each in planned.compressed:
        group[each.name].attrs.update(_attributes(summaries[each.name]))
    complete = not state.failures and len(state.records) == planned.tasks
    history = str(group.attrs.get("history", ""))
    done = f"moec_zarr {version('moec_zarr')}: converted from {_source_name(src)}"
    if complete and done not in history:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        group.attrs["history"] = f"{now} {done}" + (f"\n{history}" if history else "")
    zarr.consolidate_metadata(group.store, path=group.path or None, zarr_format=planned.zarr_format)


def _attributes(summary: Summary) -> dict[str, Any]:
    """The attributes of a compressed variable.

    CF 1.12, section 8.4 describes the quantisation of mantissa bits and has names for its algorithms alone,
    so its ``quantization`` variable would say something untrue here. Its terms are kept: an algorithm, and
    an implementation with a version.
    """
    quality = summary.quality
    attributes = {
        "algorithm": "MoEC: each chunk a transform, a mixture-of-experts network (arXiv 2312.01361), or both",
        "implementation": f"moec_zarr {version('moec_zarr')}",
        "codec": repr(summary.codec),
        "ratio": summary.ratio and float(f"{summary.ratio:.6g}"),
        "psnr": round(quality.psnr, 3) if math.isfinite(quality.psnr) else None,
        "max_error": quality.max_error,
    }
    return {_PREFIX + key: value for key, value in attributes.items() if value is not None}


def _source_name(src: Source) -> str:
    if isinstance(src, (str, PathLike)):
        return fspath(src)
    if isinstance(src, (list, tuple)):
        return f"{fspath(src[0])} and {len(src) - 1} more files"
    origin = getattr(src, "encoding", {}).get("source")
    return str(origin or "a dataset in memory")


def open_result(dst: Destination, zarr_format: Literal[2, 3]) -> xr.Dataset:
    """The destination, with encodings that say what values mean and not how they were stored."""
    import xarray as xr

    store: Any = _place(dst)
    ds: xr.Dataset = xr.open_zarr(store, zarr_format=zarr_format, decode_timedelta=False)
    for var in ds.variables.values():
        var.encoding = {key: value for key, value in var.encoding.items() if key not in STORAGE}
    return ds
