"""Whatever xarray opens, opened without reading its values."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from glob import has_magic
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

import numpy as np

from moec_zarr.adapters.enums import flags_of
from moec_zarr.adapters.tree import datasets_of, flatten, groups_of
from moec_zarr.adapters.xarray_checks import check_name
from moec_zarr.adapters.zarr_groups import array_of
from moec_zarr.archive.storage import StorageOptions, file_system, is_local, store_at
from moec_zarr.archive.stored import find_undecodable_times
from moec_zarr.conversion.plan.contents import list_file_groups
from moec_zarr.conversion.plan.joining import join, refuse_other_units
from moec_zarr.conversion.plan.stores import METADATA, keep_integers, open_store
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["STATUS", "Source", "SourceError", "fingerprint", "open_source", "reading"]

Source: TypeAlias = Union[
    "xr.Dataset", "xr.DataArray", "xr.DataTree", str, PathLike[str], Sequence[str | PathLike[str]]
]

STATUS = "moec_zarr_status"
"""Attribute of a group that says whether its conversion is complete."""

_log = logging.getLogger(__name__)
_FILES = ("*.nc", "*.nc4", "*.cdf", "*.h5", "*.hdf5", "*.grib", "*.grib2")
_SMALL = 2**24  # bytes of a coordinate whose values take part in the fingerprint


class SourceError(OSError):
    """Raised when a file of the source cannot be read."""


@contextmanager
def open_source(src: Source, storage_options: StorageOptions | None = None) -> Iterator[xr.Dataset]:
    """Open a dataset lazily, and close it with the context if it was opened here.

    Parameters
    ----------
    src : Dataset, DataArray, DataTree, path, or sequence of paths
        An open dataset, array or tree; a local path or fsspec URL of a zarr store, of one file that xarray
        opens, or of a directory of such files; a glob pattern, or a sequence of paths. Several files are
        joined along the dimensions whose coordinates differ. A variable without such a dimension must be the
        same in all of them, and is taken once.
    storage_options : mapping, optional
        What fsspec is given to open a URL: an endpoint, credentials.

    Yields
    ------
    Dataset
        Of all groups, named as `moec_zarr.adapters.tree` says, with nothing read but metadata, indexes, and
        of several files the variables that they must share.
        Times in a single file or store are left as the numbers that it holds: nothing is exact that went
        through a calendar.

    Raises
    ------
    MoECError
        If a DataArray has no name, a name is a path, a pattern matches no file, a directory holds neither a
        zarr store nor files that xarray opens, files cannot be joined, or xarray is not installed.
    FileNotFoundError
        If there is nothing at a path.
    SourceError
        If a file is truncated or damaged.
    """
    try:
        import xarray as xr
    except ModuleNotFoundError as error:
        raise MoECError("this needs xarray, which the extra moec-zarr[all] brings; install it") from error
    if isinstance(src, xr.DataArray):
        if src.name is None:
            raise MoECError("a DataArray needs a name to be written; give it one by .rename(name)")
        src = src.to_dataset()
    if isinstance(src, (xr.Dataset, xr.DataTree)):
        groups = datasets_of(src) if isinstance(src, xr.DataTree) else {"": src}
        for each in groups.values():
            _refuse_paths(each)
        yield _name_enums(flatten(groups))
        return
    paths = _paths(src, storage_options)
    with ExitStack() as opened, warnings.catch_warnings():
        # A store without consolidated metadata is a store like any other.
        warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated metadata")
        if len(paths) == 1:
            ds = _keep_open(opened, _open(paths[0], storage_options, decode_times=False, cache=False))
            ds = _name_enums(ds)
        else:
            # Each file counts time from where it likes, so here times must be decoded to be joined.
            parts = [_keep_open(opened, _open_part(path, storage_options)) for path in paths]
            refuse_other_units(paths, parts)
            ds = join(paths, [_name_enums(part) for part in parts])
        if str(ds.attrs.get(STATUS, "")).startswith("incomplete"):
            _log.warning("%s is unfinished, values are missing from it: %s", src, ds.attrs[STATUS])
        yield ds


def _keep_open(opened: ExitStack, groups: dict[str, xr.Dataset]) -> xr.Dataset:
    """Return the groups of a file or store as one dataset, which is closed with a context."""
    for each in groups.values():
        opened.enter_context(each)
    return flatten(groups)


def _refuse_paths(ds: xr.Dataset) -> None:
    """Refuse names of a dataset in memory that would be taken for paths.

    Raises
    ------
    MoECError
        If there is one.
    """
    for name in ds.variables:
        check_name(name)
    for dim in ds.dims:
        if "/" in str(dim):
            raise MoECError(
                f"zarr takes a name with / for a path, got the dimension {dim!r}; "
                f"ds.rename({{{dim!r}: {str(dim).replace('/', '_')!r}}}) renames it"
            )


def _name_enums(ds: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose attributes name the values of enumerations; the same if it has none."""
    found = {name: flags for name, var in ds.variables.items() if (flags := flags_of(var))}
    if found:
        ds = ds.copy()
        for name, flags in found.items():
            ds.variables[name].attrs.update(flags)
    return ds


def _open(path: str, storage_options: StorageOptions | None, **options: Any) -> dict[str, xr.Dataset]:
    """Open the groups of one file or store."""
    import xarray as xr

    options |= {"decode_timedelta": False}
    fs, _ = file_system(path, storage_options)
    try:
        if _is_store(path, storage_options):
            return open_store(path, store_at(path, storage_options), options)
        if is_local(fs):
            groups = list_file_groups(path)
        else:
            if not all(importlib.util.find_spec(name) for name in ("h5netcdf", "h5py")):
                raise MoECError(
                    f"files on remote storage, such as {path}, are read through h5netcdf; pip install "
                    "h5netcdf h5py, or copy them here"
                )
            with fs.open(path) as file:
                groups = list_file_groups(file)
            options["engine"] = "h5netcdf"

        def open_group(group: str, **more: Any) -> xr.Dataset:
            place = path if is_local(fs) else fs.open(path)
            # Formats without groups do not know of them.
            within: dict[str, Any] = {"group": group} if group else {}
            return xr.open_dataset(place, **within, **(options | more))

        opened = {group: keep_integers(partial(open_group, group)) for group in groups}
        for group, names in groups.items():
            if names:
                opened[group].attrs["coordinates"] = names
        return opened
    except (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
        # The last three are how zarr's reading of odd JSON ends.
        # zarr's own kinds say of a group that is on record, and no group, that it is not there.
        if isinstance(error, MoECError) or type(error) is FileNotFoundError:
            raise
        raise SourceError(
            f"{path} cannot be opened; it may be truncated, damaged, or in a format that needs another "
            f"package: fetch or write it again, or leave it out of the source ({_first_line(error)})"
        ) from error


def _open_part(path: str, storage_options: StorageOptions | None) -> dict[str, xr.Dataset]:
    """Open one of several files, with its times decoded, unless xarray cannot decode them.

    Raises
    ------
    MoECError
        If it holds arrays that nothing says how to join.
    """
    try:
        groups = _open(path, storage_options, chunks={})
    except SourceError:
        raw = _open(path, storage_options, decode_times=False, cache=False)
        numbers = {name for each in raw.values() for name in find_undecodable_times(each)}
        for each in raw.values():
            each.close()
        if not numbers:
            raise
        groups = _open(path, storage_options, chunks={}, decode_times=dict.fromkeys(numbers, False))
    arrays = [
        name for each in groups.values() for name, var in each.variables.items() if array_of(var) is not None
    ]
    if arrays:
        raise MoECError(
            f"{path} is an image, or has arrays without names of their dimensions ({arrays[0]!r}), and "
            "nothing says how several of these follow one another; convert one at a time"
        )
    return groups


@contextmanager
def reading(files: Sequence[str]) -> Iterator[None]:
    """Say of an error that occurs meanwhile which files were read.

    Raises
    ------
    SourceError
        In place of what xarray's libraries raise.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # netCDF4 raises either
        raise SourceError(
            f"{', '.join(files) or 'the source'} cannot be read ({_first_line(error)}); if truncated or "
            "damaged, fetch or write it again"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _paths(
    src: str | PathLike[str] | Sequence[str | PathLike[str]], options: StorageOptions | None
) -> list[str]:
    """Return the files or the store that `src` means."""
    if not isinstance(src, (str, PathLike)):
        try:
            paths = [fspath(path) for path in src]
        except TypeError as error:
            raise MoECError(
                "a source is a Dataset, a DataArray, a path, or a sequence of paths, got "
                f"{type(src).__name__}; name what it holds in xarray, such as "
                "xarray.DataArray(values, dims=[...], name=...)"
            ) from error
        if not paths:
            raise MoECError("the source is an empty list; name at least one file")
        return paths
    path = fspath(src)
    fs, root = file_system(path, options)
    patterns = [root] if has_magic(root) and not fs.exists(root) else []
    if not patterns and fs.isdir(root) and not _is_store(path, options):
        patterns = [f"{root.rstrip('/')}/{pattern}" for pattern in _FILES]
    if not patterns:
        if not fs.exists(root):
            raise FileNotFoundError(f"there is nothing at {path}")
        return [root if is_local(fs) else path]
    names = sorted(name for pattern in patterns for name in fs.glob(pattern))
    if not names:
        raise MoECError(
            f"{path} holds neither a zarr store nor files to read ({', '.join(patterns)} match nothing)"
        )
    return names if is_local(fs) else [fs.unstrip_protocol(name) for name in names]


def _is_store(path: str, options: StorageOptions | None) -> bool:
    fs, root = file_system(path, options)
    return any(fs.exists(f"{root.rstrip('/')}/{name}") for name in METADATA)


class Fingerprint(NamedTuple):
    """What tells a source from others.

    Attributes
    ----------
    digest : str
        Hexadecimal; it changes when the source does.
    file_bytes : int
        Bytes of all its files; 0 where it has none.
    """

    digest: str
    file_bytes: int


def fingerprint(src: Source, ds: xr.Dataset, storage_options: StorageOptions | None = None) -> Fingerprint:
    """Look at what tells a source from others.

    The digest covers dimensions, dtypes, attributes and the values of small coordinates. Of every file it
    covers its name within the source, its size, and its time of change or what else the file system tells
    versions apart by. Values of fields are not read: of an open dataset, the file it was opened from counts,
    and a change of values in memory goes unnoticed.

    Parameters
    ----------
    src : Source
        What was given to `open_source`.
    ds : Dataset
        What it returned.
    storage_options : mapping, optional
        What it was given.

    Returns
    -------
    Fingerprint
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([dict(ds.sizes), ds.attrs], default=str, sort_keys=True).encode())
    groups = groups_of(ds)
    if len(groups) > 1:
        known = {path: [group.attrs, group.dims] for path, group in groups.items()}
        digest.update(json.dumps(known, default=str, sort_keys=True).encode())
    for name, var in sorted(ds.variables.items(), key=lambda item: str(item[0])):
        facts = [str(name), var.dims, var.shape, var.dtype.str, var.attrs]
        digest.update(json.dumps(facts, default=str, sort_keys=True).encode())
        if name in ds.coords and var.dtype.kind in "biufcmM" and var.nbytes <= _SMALL:
            digest.update(np.asarray(var.values).tobytes())
    if hasattr(src, "variable") or hasattr(src, "data_vars"):
        named = {var.encoding.get("source") for var in ds.variables.values()} | {ds.encoding.get("source")}
        paths = sorted(path for path in named if isinstance(path, str))
    else:
        paths = _paths(src, storage_options)
    file_bytes = 0
    for stamp in _stamps(paths, storage_options):
        digest.update(json.dumps(stamp).encode())
        file_bytes += stamp[1] or 0
    return Fingerprint(digest.hexdigest(), file_bytes)


def _stamps(paths: list[str], options: StorageOptions | None) -> Iterator[tuple[str, int | None, str]]:
    """Of each file: its name within the source, its size, and what tells its versions apart."""
    for path in paths:
        fs, root = file_system(path, options)
        for name, info in sorted(fs.find(root, detail=True).items()):
            version = next(
                (info[key] for key in ("ETag", "etag", "mtime", "LastModified") if key in info), ""
            )
            yield name[len(root) :], info.get("size"), str(version)
