"""Whatever xarray opens, opened without reading its values."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Source", "fingerprint", "is_local", "open_source"]

Source: TypeAlias = Union["xr.Dataset", "xr.DataArray", str, PathLike[str], Sequence[str | PathLike[str]]]

_FILES = ("*.nc", "*.nc4", "*.cdf", "*.h5", "*.hdf5", "*.grib", "*.grib2")
_METADATA = ("zarr.json", ".zgroup", ".zmetadata")
_SMALL = 2**24  # bytes of a coordinate whose values take part in the fingerprint


@contextmanager
def open_source(src: Source) -> Iterator[xr.Dataset]:
    """Open a dataset lazily, and close it with the context if it was opened here.

    Parameters
    ----------
    src : Dataset, DataArray, path, or sequence of paths
        An open dataset or array; a local path or fsspec URL of a zarr store, of one file that xarray opens,
        or of a directory of such files; a glob pattern, or a sequence of paths. Several files are combined
        by their coordinates.

    Yields
    ------
    Dataset
        With nothing read but metadata and indexes. Times in a single file or store are left as the numbers
        that it holds: nothing is exact that went through a calendar.

    Raises
    ------
    MoECError
        If a DataArray has no name, a pattern matches no file, a directory holds neither a zarr store nor
        files that xarray opens, or xarray is not installed.
    FileNotFoundError
        If there is nothing at a path.
    """
    try:
        import xarray as xr
    except ModuleNotFoundError as error:
        raise MoECError('this needs xarray; install it with pip install "moec-zarr[all]"') from error
    if isinstance(src, xr.Dataset):
        yield src
        return
    if isinstance(src, xr.DataArray):
        if src.name is None:
            raise MoECError("a DataArray needs a name to be written; give it one by .rename(name)")
        yield src.to_dataset()
        return
    paths = _paths(src)
    with warnings.catch_warnings():
        # A store without consolidated metadata is a store like any other.
        warnings.filterwarnings("ignore", message="Failed to open Zarr store with consolidated metadata")
        if len(paths) > 1:
            # Each file counts time from where it likes, so here times must be decoded to be joined.
            ds = xr.open_mfdataset(paths, chunks={}, decode_timedelta=False)
        else:
            engine: Any = "zarr" if _is_store(paths[0]) else None
            ds = xr.open_dataset(paths[0], engine=engine, decode_times=False, cache=False)
    with ds:
        yield ds


def _paths(src: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[str]:
    """The files or the store that `src` means."""
    import fsspec

    if not isinstance(src, (str, PathLike)):
        paths = [fspath(path) for path in src]
        if not paths:
            raise MoECError("the source is an empty list; name at least one file")
        return paths
    path = fspath(src)
    fs, root = fsspec.url_to_fs(path)
    patterns = [root] if "*" in root else []
    if not patterns and fs.isdir(root) and not _is_store(path):
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


def is_local(fs: Any) -> bool:
    """Whether an fsspec file system is this machine's."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def _is_store(path: str) -> bool:
    import fsspec

    fs, root = fsspec.url_to_fs(path)
    return any(fs.exists(f"{root.rstrip('/')}/{name}") for name in _METADATA)


def fingerprint(src: Source, ds: xr.Dataset) -> str:
    """A digest that changes when the source does.

    It covers dimensions, dtypes, attributes and the values of small coordinates, and of every file its name
    within the source, its size, and its time of change or what else the file system tells versions apart
    by. Values of fields are not read: of an open dataset, the file it was opened from counts, and a change
    of values in memory goes unnoticed.

    Parameters
    ----------
    src : Source
        What was given to `open_source`.
    ds : Dataset
        What it returned.

    Returns
    -------
    str
        Hexadecimal.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([dict(ds.sizes), ds.attrs], default=str, sort_keys=True).encode())
    for name, var in sorted(ds.variables.items(), key=lambda item: str(item[0])):
        facts = [str(name), var.dims, var.shape, var.dtype.str, var.attrs]
        digest.update(json.dumps(facts, default=str, sort_keys=True).encode())
        if name in ds.coords and var.dtype.kind in "biufcmM" and var.nbytes <= _SMALL:
            digest.update(np.asarray(var.values).tobytes())
    if hasattr(src, "variable") or hasattr(src, "data_vars"):
        named = {var.encoding.get("source") for var in ds.variables.values()} | {ds.encoding.get("source")}
        paths = sorted(path for path in named if isinstance(path, str))
    else:
        paths = _paths(src)
    for stamp in _stamps(paths):
        digest.update(json.dumps(stamp).encode())
    return digest.hexdigest()


def _stamps(paths: list[str]) -> Iterator[tuple[str, int | None, str]]:
    """Of each file: its name within the source, its size, and what tells its versions apart."""
    import fsspec

    for path in paths:
        fs, root = fsspec.url_to_fs(path)
        for name, info in sorted(fs.find(root, detail=True).items()):
            version = next(
                (info[key] for key in ("ETag", "etag", "mtime", "LastModified") if key in info), ""
            )
            yield name[len(root) :], info.get("size"), str(version)
