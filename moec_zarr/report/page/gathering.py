"""A report on a compressed store: opened, gathered variable by variable, and written as a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from moec_zarr.archive.attributes import FILE_BYTES
from moec_zarr.archive.inspection import compressed_arrays
from moec_zarr.archive.storage import StorageOptions, store_at
from moec_zarr.conversion.plan.source import Source, open_source
from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.labels import clean
from moec_zarr.report.page.findings import Report
from moec_zarr.report.page.lossless import list_lossless
from moec_zarr.report.page.render import render_page
from moec_zarr.report.page.variable import gather_variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["gather_report", "write_report"]

_SLICES = 9  # of a variable, and the one with the largest error
_ALL_SLICES = 45  # of all variables together
_SINGLE = "array"  # name of an array that stands alone


def write_report(
    store: str | PathLike[str],
    path: str | PathLike[str],
    *,
    against: Source | None = None,
    variables: Iterable[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> None:
    """Write a report on a compressed store: one HTML page that needs no network.

    It shows what the conversion recorded and what the streams say of themselves, and a few slices as they
    are decoded. With a source it compares these slices with their originals. It reads no more of a variable
    than the slices and 256 of its stored objects.

    Parameters
    ----------
    store : path or URL
        A zarr group with variables that this package compressed, or one such array.
    path : path
        The file to write; one that exists is replaced.
    against : Source, optional
        The original, as `moec_zarr.convert` takes it.
    variables : iterable of str, optional
        Compressed variables to report on; by default all.
    storage_options : mapping, optional
        Options of fsspec for remote places.

    Raises
    ------
    MoECError
        If there is no compressed variable in `store`, or none of a name asked for.
    """
    found = gather_report(store, against=against, variables=variables, storage_options=storage_options)
    Path(path).write_text(render_page(found), encoding="utf-8")


def gather_report(
    store: str | PathLike[str],
    *,
    against: Source | None = None,
    variables: Iterable[str] | None = None,
    storage_options: StorageOptions | None = None,
) -> Report:
    """Gather what `write_report` shows, with the same parameters."""
    place: Any = store_at(store, storage_options) if storage_options else fspath(store)
    arrays = {name or _SINGLE: array for name, array in compressed_arrays(place).items()}
    names = list(arrays) if variables is None else list(variables)
    if absent := [name for name in names if name not in arrays]:
        raise MoECError(
            f"no compressed variable {', '.join(map(repr, absent))}; there are {', '.join(map(repr, arrays))}"
        )
    budget = max(1, min(_SLICES, _ALL_SLICES // max(len(names), 1)))
    found = []
    with ExitStack() as opened:
        group = zarr.open(place, mode="r")
        ds = opened.enter_context(_open_dataset(store, group, arrays, storage_options))
        source = None if against is None else opened.enter_context(open_source(against, storage_options))
        for name in names:
            original, note = _find_original(source, name, arrays)
            stored = ds[name]
            if not _dimension_names(arrays[name]) and original is not None and original.shape == stored.shape:
                stored = stored.rename(dict(zip(stored.dims, original.dims, strict=True)))
            found.append(gather_variable(name, arrays[name], stored, original, budget, note))
        lossless = tuple(list_lossless(group, ds, arrays))
        history = str(ds.attrs.get("history", "")).splitlines()
        file_bytes = ds.attrs.get(FILE_BYTES, 0)
    return Report(
        store=clean(fspath(store)),
        source="" if against is None else _name_source(against),
        history=clean(history[0]) if history else "",
        # Only of all variables together is it known.
        file_bytes=file_bytes if variables is None and isinstance(file_bytes, int) else 0,
        variables=tuple(found),
        lossless=lossless,
    )


@contextmanager
def _open_dataset(
    store: str | PathLike[str],
    group: zarr.Group | zarr.Array[Any],
    arrays: Mapping[str, zarr.Array[Any]],
    options: StorageOptions | None,
) -> Iterator[xr.Dataset]:
    """Open the store as a dataset; if xarray cannot, take its compressed arrays without coordinates."""
    if isinstance(group, zarr.Group) and all(
        _dimension_names(each) or not each.ndim for _, each in group.arrays()
    ):
        with open_source(store, options) as ds:
            yield ds
        return
    import dask.array as da
    import xarray as xr

    # Dimensions that have no names are no two arrays' in common.
    yield xr.Dataset(
        {
            name: (
                _dimension_names(array) or [f"{name}_{i}" for i in range(array.ndim)],
                da.from_zarr(array),
                dict(array.attrs),
            )
            for name, array in arrays.items()
        }
    )


def _dimension_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the names of an array's dimensions, as xarray needs them; empty where one has none."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, (list, tuple)) or len(names) != array.ndim or None in names:
        return ()
    return tuple(map(str, names))


def _find_original(
    source: xr.Dataset | None, name: str, arrays: Mapping[str, Any]
) -> tuple[xr.DataArray | None, str]:
    """Find the original of a variable, or say why there is none."""
    if source is None:
        return None, ""
    if name in source.variables:
        return source[name], ""
    if len(arrays) == len(source.data_vars) == 1:
        return next(iter(source.data_vars.values())), ""
    return None, "The source has no variable of this name: nothing was compared."


def _name_source(source: Source) -> str:
    if isinstance(source, (str, PathLike)):
        return clean(fspath(source))
    return "a dataset in memory" if hasattr(source, "dims") else f"{len(list(source))} files"
