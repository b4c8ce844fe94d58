"""A report on a compressed store: opened, gathered variable by variable, and written as a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr

from moec_zarr.adapters.tree import select
from moec_zarr.adapters.zarr_groups import array_of, has_names
from moec_zarr.archive.attributes import FILE_BYTES
from moec_zarr.archive.inspection import compressed_arrays
from moec_zarr.archive.storage import StorageOptions, file_system, store_at
from moec_zarr.conversion.plan.source import Source, fingerprint, open_source
from moec_zarr.report.comparison.labels import clean, with_places
from moec_zarr.report.page.findings import Report
from moec_zarr.report.page.images import find_images, list_images
from moec_zarr.report.page.lossless import list_lossless
from moec_zarr.report.page.render import render_page
from moec_zarr.report.page.variable import gather_variable
from moec_zarr.report.verdict.criteria import Criteria, check_criteria, limits_of
from moec_zarr.report.verdict.pairs import VOXELS

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["gather_report", "write_report"]

_SLICES = 9  # of a variable, and the one with the largest error
_ALL_SLICES = 45  # of all variables together
_ALL_VOXELS = 2**24  # of all variables together, that are compared for their verdicts
_IN_FULL = 30  # variables with a part of the page of their own


def write_report(
    store: str | PathLike[str],
    path: str | PathLike[str],
    *,
    against: Source | None = None,
    variables: Iterable[str] | None = None,
    criteria: Criteria | None = None,
    storage_options: StorageOptions | None = None,
) -> None:
    """Write a report on a compressed store: one HTML page that needs no network.

    It begins with a verdict on each variable, by stated criteria. It shows what the conversion recorded and
    what the streams say of themselves, and a few slices as they are decoded. With a source it compares these
    slices with their originals, and for the verdict at most 4 million voxels of each variable. It reads no
    more of a variable than these and 256 of its stored objects. Of more than 30 variables, the others
    are in tables alone.

    Parameters
    ----------
    store : path or URL
        A zarr group with variables that this package compressed, in it or in groups within, or one such
        array.
    path : path
        The file to write; one that exists is replaced.
    against : Source, optional
        The original, as `moec_zarr.convert` takes it.
    variables : iterable of str, optional
        Paths of the compressed variables to report on, or patterns such as ``*/t2m``; by default all.
    criteria : mapping, optional
        Limits by criterion in place of the defaults, as `moec_zarr.judge` takes them.
    storage_options : mapping, optional
        Options of fsspec for remote places.

    Raises
    ------
    MoECError
        If there is no compressed variable in `store`, none of a name asked for, or no such criterion.
    """
    found = gather_report(
        store, against=against, variables=variables, criteria=criteria, storage_options=storage_options
    )
    Path(path).write_text(render_page(found), encoding="utf-8")


def gather_report(
    store: str | PathLike[str],
    *,
    against: Source | None = None,
    variables: Iterable[str] | None = None,
    criteria: Criteria | None = None,
    storage_options: StorageOptions | None = None,
) -> Report:
    """Gather what `write_report` shows, with the same parameters."""
    check_criteria(criteria)
    arrays = compressed_arrays(store_at(store, storage_options))
    names = select(variables, arrays, "compressed variable")
    found = []
    with ExitStack() as opened:
        ds = opened.enter_context(open_source(store, storage_options))
        check_criteria(criteria, sorted({*arrays, *map(str, ds.data_vars)}))
        source = None if against is None else opened.enter_context(open_source(against, storage_options))
        group = zarr.open(store_at(store, storage_options), mode="r")
        images = find_images(ds)
        shown = _choose_full(names, images)
        budget = max(1, min(_SLICES, _ALL_SLICES // max(len(shown), 1)))
        voxels = min(VOXELS, _ALL_VOXELS // max(len(shown), 1))
        for name in names:
            original, note = _find_original(source, name, arrays)
            stored = with_places(_name_dims(ds[name], original))
            found.append(
                gather_variable(
                    name, arrays[name], stored, original, budget if name in shown else 0,
                    limits_of(name, criteria), voxels, note,
                )
            )  # fmt: skip
        lossless = tuple(list_lossless(group, ds, arrays))
        history = str(ds.attrs.get("history", "")).splitlines()
        file_bytes = ds.attrs.get(FILE_BYTES, 0)
        if source is not None and against is not None and not file_bytes:
            file_bytes = fingerprint(against, source, storage_options).file_bytes
    return Report(
        store=clean(fspath(store)),
        source="" if against is None else _name_source(against),
        history=clean(history[0]) if history else "",
        # Only of all variables together is it known.
        file_bytes=file_bytes if variables is None and isinstance(file_bytes, int) else 0,
        stored_bytes=_count_bytes(store, storage_options),
        variables=tuple(found),
        lossless=lossless,
        images=tuple(list_images(images, found, lossless)),
    )


def _count_bytes(store: str | PathLike[str], storage_options: StorageOptions | None) -> int:
    """Count the bytes of all files of a store."""
    fs, root = file_system(store, storage_options)
    return int(fs.du(root))


def _choose_full(names: list[str], images: Mapping[str, list[str]]) -> set[str]:
    """Choose the variables that get a part of the page of their own: of images, the finest levels first."""
    lower = {name for levels in images.values() for name in levels[1:]}
    return set(sorted(names, key=lambda name: name in lower)[:_IN_FULL])


def _name_dims(stored: xr.DataArray, original: xr.DataArray | None) -> xr.DataArray:
    """Give an array that does not name its dimensions those of its original."""
    array = array_of(stored.variable)
    if array is None or has_names(array) or original is None or original.shape != stored.shape:
        return stored
    return stored.rename(dict(zip(stored.dims, original.dims, strict=True)))


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
