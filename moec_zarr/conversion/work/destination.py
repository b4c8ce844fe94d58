"""The store that a conversion makes: its metadata before any chunk, and what it says of itself."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike, fspath
from os.path import realpath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import zarr
from zarr.abc.store import Store

from moec_zarr.adapters.meaning import unpack_limits
from moec_zarr.adapters.tree import group_of, groups_of, local_name, split
from moec_zarr.adapters.zarr_core import sync
from moec_zarr.adapters.zarr_groups import SINGLE, array_of
from moec_zarr.archive.attributes import stored_attributes
from moec_zarr.archive.lock import LOCK
from moec_zarr.archive.manifest import (
    PLAN_OF,
    PLAN_PATH,
    Manifest,
    read_manifest,
    write_groups,
    write_manifest,
)
from moec_zarr.archive.metadata import refuse_damaged_metadata
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.archive.records import Record, check_whole, read_records, write_whole
from moec_zarr.archive.single import as_group, whole_of
from moec_zarr.archive.storage import StorageOptions, file_system, is_local, store_at, to_read
from moec_zarr.archive.stored import Destination, decode_times, hide_expected_warnings
from moec_zarr.archive.whole import damaged_chunks, encode_as_stored, write_part
from moec_zarr.conversion.plan.joining import files_behind
from moec_zarr.conversion.plan.source import STATUS, Source, reading
from moec_zarr.conversion.plan.stores import copy_files
from moec_zarr.conversion.work.arrays import create_array
from moec_zarr.conversion.work.encodings import encode_chosen
from moec_zarr.conversion.work.outcome import say_incomplete
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "find_begun",
    "open_destination",
    "read_done",
    "refuse_other_than_store",
    "refuse_overlap",
    "restore",
    "store_for",
]

_log = logging.getLogger(__name__)
# Metadata of a group, which either of the first makes it.
_ROOT = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
# What zarr leaves of a local object if it is killed as it writes.
_PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.partial")


def store_for(ds: xr.Dataset, dst: Destination, options: StorageOptions | None) -> Store:
    """Return the store at a destination: where the source is one array, as a group of that."""
    store = store_at(dst, options)
    array = array_of(ds.variables[SINGLE]) if SINGLE in ds.variables else None
    if array is not None and (not array.path or whole_of(array.store) is not None):
        return as_group(store)
    return whole_of(store) or store


def refuse_overlap(
    src: Source, ds: xr.Dataset, dst: Destination, options: StorageOptions | None = None
) -> None:
    """Refuse a destination that lies within the source, or around it."""
    if isinstance(dst, Store):
        return

    def whole(path: str) -> str:
        fs, root = file_system(path, options)
        if is_local(fs):
            root = realpath(root)  # links and .. may lead anywhere
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


@hide_expected_warnings()
def find_begun(store: Store, dst: Destination, wanted: Manifest) -> tuple[zarr.Group, Manifest] | None:
    """Return what an earlier run left at the destination, if this one can go on from it; nothing is changed.

    Raises
    ------
    MoECError
        If there is something else.
    """
    existing = _existing(store, dst)
    if existing is None:
        return None
    manifest = read_manifest(existing)
    if manifest is None:
        if any(True for _ in existing.members()):
            raise MoECError(
                f"there is a store at {dst}, and no conversion made it; choose another destination, or "
                "--overwrite (resume=False) to replace it"
            )
        return None
    if not manifest.precedes(wanted):
        manifest.refuse_other(wanted)
    return existing, manifest


@hide_expected_warnings()
def open_destination(
    planned: Plan, ds: xr.Dataset, store: Store, dst: Destination, wanted: Manifest, resume: bool
) -> zarr.Group:
    """Return the destination with its metadata complete: as an earlier run left it, or made anew."""
    begun = find_begun(store, dst, wanted) if resume else None
    if begun is not None and begun[1].created:
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
        refuse_damaged_metadata(group, wanted)
        damaged = {
            each.name for each in planned.variables if not each.tasks and check_whole(group, each.name)
        }
        restore(planned, ds, group, damaged)
        return group
    # Nothing was fitted yet, or it is to be replaced.
    if _existing(store, dst) is not None:
        say_incomplete(zarr.open_group(store, mode="r+", use_consolidated=False), "it is being replaced")
    _clear(store)
    group = zarr.open_group(store, mode="a", zarr_format=planned.zarr_format)
    first = planned.compressed[0].name
    ours = {STATUS: "incomplete: metadata is being written"} | ({PLAN_OF: first} if group_of(first) else {})
    group.attrs.update(ours)
    attrs = stored_attributes(ds.attrs, "the dataset") | ours
    write_manifest(group, first, wanted)
    _create(planned, ds, store, attrs)
    copy_files(ds, store)
    for each in planned.variables:
        if not each.tasks:
            write_whole(group, each.name)
    if own := {path: each.attrs for path, each in groups_of(ds).items() if path}:
        write_groups(
            group, first, {path: stored_attributes(own[path], f"the group {path!r}") for path in own}
        )
    write_manifest(group, first, replace(wanted, created=True))
    return zarr.open_group(store, mode="r+", zarr_format=planned.zarr_format, use_consolidated=False)


def restore(
    planned: Plan,
    ds: xr.Dataset,
    group: zarr.Group,
    names: set[str],
    offsets: Mapping[str, int] | None = None,
) -> None:
    """Write what is damaged of variables that have no tasks again.

    Parameters
    ----------
    planned : Plan
        Of the destination.
    ds : Dataset
        The source.
    group : zarr.Group
        The destination.
    names : set of str
        The variables.
    offsets : mapping of str to int, optional
        Position in the destination of the first voxel of the source, by dimension, where it is not 0.

    Raises
    ------
    MoECError
        If the source does not hold a chunk that is damaged, or metadata is damaged as well.
    """
    if not names:
        return
    _log.warning("damaged, and written again: %s", ", ".join(sorted(names)))
    decoded = decode_times(ds[sorted(names)])
    parts = []
    for each in planned.variables:
        if each.name not in names:
            continue
        starts = [(offsets or {}).get(dim, 0) for dim in each.dims]
        for region in damaged_chunks(group, each.name):
            inside = [slice(part.start - at, part.stop - at) for part, at in zip(region, starts, strict=True)]
            held = ds[each.name].shape
            if any(part.start < 0 or part.stop > n for part, n in zip(inside, held, strict=True)):
                raise MoECError(
                    f"{each.name!r} in the destination is damaged, and the source holds a part of it; "
                    "moec-zarr verify --repair makes it again from a source that holds all"
                )
            with reading(files_behind(ds, each.dims, inside)):
                new, numbers = (
                    those.variables[each.name][tuple(inside)]
                    .to_base_variable()
                    .compute(scheduler="synchronous")
                    for those in (decoded, ds)
                )
            parts.append((each.name, region, encode_as_stored(group, each.name, new, numbers, "restored")))
    for name, region, values in parts:
        write_part(group, name, [part.start for part in region], values)
    for name in names:
        write_whole(group, name)


def _clear(store: Store) -> None:
    """Remove everything but the lock.

    What tells whose store it is goes last: what is left of an interrupted removal can be removed again.
    """

    async def clear() -> None:
        names = sorted([name async for name in store.list_dir("")])
        kept = [key async for key in store.list_prefix("") if key.endswith(f"/{PLAN_PATH}")]
        roots = {key.partition("/")[0] for key in kept}
        for name in names:
            if name in roots:
                keys = [key async for key in store.list_prefix(f"{name}/")]
                await asyncio.gather(*(store.delete(key) for key in keys if key not in kept))
            elif name not in (LOCK, *_ROOT):
                await store.delete(name)
                await store.delete_dir(name)
        for key in kept:
            await store.delete(key)
        for name in roots:
            await store.delete_dir(name)
        for name in reversed(_ROOT):
            await store.delete(name)

    sync(clear())


def refuse_other_than_store(store: Store, dst: Destination) -> None:
    """Raise if what is at a place must not be replaced, since it is no zarr group.

    Raises
    ------
    MoECError
        If it is a file, an array, or a folder of other things.
    """
    _existing(store, dst)


def _existing(store: Store, dst: Destination) -> zarr.Group | None:
    """Return the group at a place; None where there is nothing.

    Raises
    ------
    MoECError
        If there is something else, which must not be replaced.
    """
    root = getattr(store, "root", None)
    if root is not None and root.is_file():
        raise MoECError(f"there is a file at {dst}; choose another destination")
    store = to_read(store)
    try:
        return zarr.open_group(store, mode="r", use_consolidated=False)
    except FileNotFoundError:
        pass
    except zarr.errors.ContainsArrayError as error:
        raise MoECError(f"{dst} holds an array, not a group; choose another destination") from error
    except (ValueError, TypeError) as error:
        raise MoECError(
            f"the metadata of the store at {dst} cannot be read ({error}); restore it, or remove the store"
        ) from error

    async def names() -> set[str]:
        return {name async for name in store.list_dir("")}

    # What a run leaves that was killed as it began, or as it removed all.
    left = {LOCK, *_ROOT}
    if ".zarray" in sync(names()):
        raise MoECError(f"{dst} holds an array, not a group; choose another destination")
    if any(name not in left and not _PARTIAL.fullmatch(name) for name in sync(names())):
        raise MoECError(f"there is a folder at {dst} that is no zarr store; choose another destination")
    return None


def _create(planned: Plan, ds: xr.Dataset, store: Store, attrs: Mapping[Any, Any]) -> None:
    """Write attributes of groups, metadata of variables, and the values of those that have no tasks."""
    for path, part in split(ds).items():
        chosen = [
            replace(each, name=local_name(each.name))
            for each in planned.variables
            if group_of(each.name) == path
        ]
        own = dict(attrs) if not path else stored_attributes(part.attrs, f"the group {path!r}")
        if any(array_of(part.variables[each.name]) is not None for each in chosen) or not chosen:
            _create_arrays(planned, ds, store, path, own)
        else:
            _create_dataset(part, chosen, store, path, planned.zarr_format, own)


def _create_arrays(planned: Plan, ds: xr.Dataset, store: Store, path: str, attrs: Mapping[str, Any]) -> None:
    """Create a group of arrays without a dataset."""
    zarr.open_group(store, path=path or None, mode="a", zarr_format=planned.zarr_format).attrs.put(
        dict(attrs)
    )
    for each in planned.variables:
        if group_of(each.name) != path:
            continue
        var = ds.variables[each.name]
        like = array_of(var)
        assert like is not None
        create_array(store, each, like, stored_attributes(var.attrs, repr(each.name)))
        if not each.tasks:
            with reading(files_behind(ds, each.dims, tuple(slice(0, n) for n in each.shape))):
                values = np.asarray(var.values)
            zarr.open_array(store, path=each.name, mode="r+")[...] = values


def _create_dataset(
    ds: xr.Dataset,
    chosen: list[PlannedVariable],
    store: Store,
    path: str,
    zarr_format: Literal[2, 3],
    attrs: Mapping[Any, Any],
) -> None:
    """Create a group of variables as xarray does."""
    import dask.array as da

    place: Any = store
    own, entries = encode_chosen(ds, chosen)
    template = ds.copy()
    for each in chosen:
        var = ds.variables[each.name]
        if each.tasks:
            # A stand-in of one chunk: nothing of it is ever computed.
            blank = da.zeros(var.shape, dtype=var.dtype, chunks=-1)
            template[each.name] = var.copy(data=blank)
        else:
            # What is lazy would not be written now, and this variable has no task that would.
            with reading(files_behind(ds, each.dims, tuple(slice(0, n) for n in each.shape))):
                lazy = {} if var.chunks is None else {"scheduler": "synchronous"}
                template[each.name] = var.compute(**lazy)
        # xarray looks for names of other variables here before it looks at the entries.
        template[each.name].encoding = own[each.name]
        # Compressed values are stored unpacked.
        own_attrs = unpack_limits(var) if each.codec else var.attrs
        template[each.name].attrs = stored_attributes(own_attrs, repr(each.name))
    template.attrs = dict(attrs)
    template.to_zarr(
        place,
        group=path or None,
        mode="a",
        zarr_format=zarr_format,
        encoding=entries,
        consolidated=False,
        compute=False,
    )


def read_done(
    planned: Plan, group: zarr.Group, manifest: Manifest
) -> dict[str, dict[tuple[int, ...], Record]]:
    """Read which tasks are done, by variable and index; what is damaged does not count, and is logged."""
    done = {}
    for each in planned.variables:
        if each.tasks:
            array = group[each.name]
            assert isinstance(array, zarr.Array)
            records, damage = read_records(array, each.name, manifest.digests(each.name).accepted)
            for index, why in damage.items():
                _log.warning("chunk %s of %r is made again: %s", index, each.name, why.reason)
            done[each.name] = records
    return done
