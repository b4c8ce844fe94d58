"""A report on a compressed store: what is on record there, and a few slices beside the source."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from moec_zarr.adapters.find import codec_of
from moec_zarr.archive.inspection import StreamInfo, compressed_arrays, expert_map, inspect_streams
from moec_zarr.archive.quality_table import open_quality
from moec_zarr.archive.storage import StorageOptions, store_at, stored_bytes, stored_keys
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.conversion.plan.source import Source, open_source
from moec_zarr.errors import MoECError
from moec_zarr.quality import Quality, merge
from moec_zarr.report.comparison.alignment import align
from moec_zarr.report.comparison.labels import axis_of, clean, name_of, units_of
from moec_zarr.report.comparison.spectra import Spectrum
from moec_zarr.report.page.findings import Cell, Experts, Profile, Report, Variable
from moec_zarr.report.page.lossless import lossless_variables
from moec_zarr.report.page.render import render_page
from moec_zarr.report.page.slices import Pair, Sample, make_profile, sample, sample_profile, spacing

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["gather_report", "write_report"]

_STREAMS = 256  # stored objects of a variable whose streams are looked at
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
    """Return what `write_report` shows, with the same parameters."""
    place: Any = store_at(store, storage_options) if storage_options else fspath(store)
    arrays = compressed_arrays(place)
    tables = _tables(place, arrays)
    if "" in arrays:
        arrays, tables = {_SINGLE: arrays[""]}, {_SINGLE: tables[""]} if tables else {}
    names = list(arrays) if variables is None else list(variables)
    if absent := [name for name in names if name not in arrays]:
        raise MoECError(
            f"no compressed variable {', '.join(map(repr, absent))}; there are {', '.join(map(repr, arrays))}"
        )
    budget = max(1, min(_SLICES, _ALL_SLICES // max(len(names), 1)))
    found = []
    with ExitStack() as opened:
        group = zarr.open(place, mode="r")
        ds = opened.enter_context(_opened(store, group, arrays, storage_options))
        source = None if against is None else opened.enter_context(open_source(against, storage_options))
        for name in names:
            original, note = _original(source, name, arrays)
            stored = ds[name]
            if not _dimensions(arrays[name]) and original is not None and original.shape == stored.shape:
                stored = stored.rename(dict(zip(stored.dims, original.dims, strict=True)))
            gathered = _VariableGathering(arrays[name], stored, tables.get(name), original, budget)
            found.append(gathered.variable(name, [note] if note else []))
        lossless = tuple(lossless_variables(group, ds, arrays))
        history = str(ds.attrs.get("history", "")).splitlines()
    return Report(
        store=clean(fspath(store)),
        source="" if against is None else _source_name(against),
        history=clean(history[0]) if history else "",
        variables=tuple(found),
        lossless=lossless,
    )


def _tables(store: Any, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables that a conversion left; none where the store was written otherwise."""
    folder = "/.moec_zarr/quality/"
    recorded = any(folder in f"/{key}" for array in arrays.values() for key in stored_keys(array))
    return dict(open_quality(store)) if recorded else {}


@contextmanager
def _opened(
    store: str | PathLike[str],
    group: zarr.Group | zarr.Array[Any],
    arrays: Mapping[str, zarr.Array[Any]],
    options: StorageOptions | None,
) -> Iterator[xr.Dataset]:
    """Open the store as a dataset; if xarray cannot, take its compressed arrays without coordinates."""
    if isinstance(group, zarr.Group) and all(
        _dimensions(each) or not each.ndim for _, each in group.arrays()
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
                _dimensions(array) or [f"{name}_{i}" for i in range(array.ndim)],
                da.from_zarr(array),
                dict(array.attrs),
            )
            for name, array in arrays.items()
        }
    )


def _dimensions(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the names of an array's dimensions, as xarray needs them; empty where one has none."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, (list, tuple)) or len(names) != array.ndim or None in names:
        return ()
    return tuple(map(str, names))


def _original(
    source: xr.Dataset | None, name: str, arrays: Mapping[str, Any]
) -> tuple[xr.DataArray | None, str]:
    """Return the original of a variable, or why there is none."""
    if source is None:
        return None, ""
    if name in source.variables:
        return source[name], ""
    if len(arrays) == len(source.data_vars) == 1:
        return next(iter(source.data_vars.values())), ""
    return None, "The source has no variable of this name: nothing was compared."


def _source_name(source: Source) -> str:
    if isinstance(source, (str, PathLike)):
        return clean(fspath(source))
    return "a dataset in memory" if hasattr(source, "dims") else f"{len(list(source))} files"


class _VariableGathering:
    """What is known of one variable; each method finds one part of it.

    Parameters
    ----------
    array : zarr.Array
    stored : DataArray
        The same, opened by xarray.
    table : Dataset or None
        What the conversion recorded.
    original : DataArray or None
    budget : int
        Slices to embed.
    """

    def __init__(self, array: zarr.Array[Any], stored: Any, table: Any, original: Any, budget: int) -> None:
        self.array, self.stored, self.table, self.budget = array, stored, table, budget
        codec = codec_of(array)
        assert codec is not None
        self.codec = codec
        self.axes = [axis_of(stored, i) for i in range(stored.ndim)]
        self.infos: dict[tuple[int, ...], StreamInfo] = dict(inspect_streams(array, _STREAMS))
        self.notes: list[str] = []
        self.pair = Pair(decoded=stored, original=None, missing=codec.missing)
        if original is not None:
            try:
                x, y, left_out = align(original, stored)
            except MoECError as error:  # the other variables of the page may be compared all the same
                self.notes.append(f"Not compared with the source: {clean(error)}.")
            else:
                self.pair = Pair(decoded=y, original=x, missing=codec.missing)
                self.notes += [f"Not compared: {clean(text)}." for text in left_out]

    def variable(self, name: str, notes: list[str]) -> Variable:
        cells, grid, cell_name = self._cells()
        qualities = [] if self.table is None else list(_qualities(self.table))
        whole = merge(qualities)
        self._check_completeness(len(qualities), math.prod(grid))
        spread = None if whole.low is None or whole.high is None else whole.high - whole.low
        max_error = max((cell.max_error for cell in cells), default=0.0)
        if qualities:
            origin = "recorded by the conversion, of every value as it was read back"
        else:
            origin = "stated by the streams, as measured when they were made"
        sampled = self._sample()
        measured, found = sampled.measured, sampled.spectrum
        if measured is not None and measured.max_error > 1.01 * max_error + 1e-5 * (spread or 0):
            self.notes.insert(
                0,
                f"The source differs from what was compressed: errors of {measured.max_error:.3g} were "
                f"found, and {max_error:.3g} is on record as the largest. Compare it with the right source, "
                "or suspect damage.",
            )
        elif found is None and self.table is not None:
            found = _octaves(self.table)
        sections: Counter[str] = Counter()
        for info in self.infos.values():
            sections.update(info.sections)
        return Variable(
            name=clean(name),
            title=name_of(self.stored),
            units=units_of(self.stored),
            codec=", ".join(f"{key}={value}" for key, value in self.codec.configuration().items()),
            dims=tuple(clean(dim) for dim in self.stored.dims),
            shape=self.array.shape,
            chunks=self.array.chunks,
            bytes_in=math.prod(self.array.shape) * self.array.dtype.itemsize,
            bytes_out=self._stored_bytes(len(qualities) == math.prod(grid)),
            psnr=whole.psnr if qualities else cells[0].psnr if len(cells) == math.prod(grid) == 1 else None,
            psnr_lowest=min((cell.psnr for cell in cells), default=None),
            max_error=max_error,
            spread=spread,
            bound=_bound(self.infos.values()),
            origin=origin,
            cell_name=cell_name,
            cells=cells,
            grid=grid,
            streams=len(self.infos),
            streams_all=len(ChunkGrid(self.array.shape, self.array.chunks)),
            sampled=_sampled(self.array),
            kinds=Counter(info.kind for info in self.infos.values()),
            sections=sections,
            percentiles=_percentiles(self.table),
            choices=sampled.choices,
            slices=tuple(sampled.views),
            measured=measured,
            histogram=sampled.histogram,
            spectrum=found,
            spectrum_origin=(
                "of the slices above" if sampled.spectrum is not None
                else "recorded by the conversion by octave, in slices of every chunk"
            ),
            spacing=spacing(self.pair),
            profiles=tuple(self._profiles()),
            experts=self._experts(),
            notes=(*notes, *self.notes),
        )  # fmt: skip

    # ------------------------------------------------------------------------------- on record

    def _check_completeness(self, done: int, expected: int) -> None:
        if self.table is None:
            if expected > 1:
                self.notes.append(
                    "No conversion left its records here, so a PSNR of the whole variable is not known."
                )
        elif done < expected:
            self.notes.insert(
                0, f"The conversion has not come to its end: {done} of {expected} tasks are done."
            )
        if "scale_factor" in self.array.attrs:
            self.notes.append("The values are packed: errors on record are before scale_factor is applied.")

    def _stored_bytes(self, recorded: bool) -> int:
        return (
            int(self.table.bytes_out.sum())
            if recorded and self.table is not None
            else stored_bytes(self.array)
        )

    def _cells(self) -> tuple[tuple[Cell, ...], tuple[int, ...], str]:
        """Figures of all tasks that are on record; else of the streams that were looked at."""
        recorded = self.table is not None
        block = (self.array.shards or self.array.chunks) if recorded else self.array.chunks
        grid = ChunkGrid(self.array.shape, block).counts
        if not recorded:
            rows = [(i, info.psnr, info.max_error, info.ratio) for i, info in self.infos.items()]
        else:
            table = self.table
            starts = np.stack([table[f"{dim}_start"].values for dim in self.stored.dims], axis=1)
            ratio = table.bytes_in.values / np.maximum(table.bytes_out.values, 1)
            rows = [
                (tuple((start // np.array(block)).tolist()), float(psnr), float(largest), float(its))
                for start, psnr, largest, its in zip(
                    starts, table.psnr.values, table.max_error.values, ratio, strict=True
                )
            ]
        cells = tuple(
            Cell(index=index, place=self._place(index, block), psnr=psnr, max_error=largest, ratio=its)
            for index, psnr, largest, its in rows
        )
        return cells, grid, "shard" if recorded and self.array.shards else "chunk"

    def _place(self, index: tuple[int, ...], block: tuple[int, ...]) -> str:
        """Return what a block covers, along the dimensions that have several."""
        parts = []
        for axis, i, side in zip(self.axes, index, block, strict=True):
            first, last = i * side, min((i + 1) * side, axis.length) - 1
            if side < axis.length and first <= last:
                to = f" to {axis.place(last)}" if last > first else ""
                parts.append(f"{axis.at(first)}{to}")
        return ", ".join(parts) or "all"

    def _experts(self) -> Experts | None:
        index = max(self.infos, key=lambda i: self.infos[i].experts, default=None)
        if index is None or self.infos[index].experts < 2:
            return None
        found = expert_map(self.array, index)
        if found is None:
            return None
        return Experts(chunk=self._place(index, self.array.chunks), map=found, load=self.infos[index].load)

    # ------------------------------------------------------------------------------- slices

    def _sample(self) -> Sample:
        if len(self.pair.plane) < 2:
            self.notes.append("It has fewer than two axes longer than 1: there is no slice to show.")
            return Sample()
        found = sample(self.pair, self.budget, self._worst())
        if found.differ:
            self.notes.insert(0, f"{found.differ} voxels of these slices have no value in one of both alone.")
        return found

    def _worst(self) -> int | None:
        """Return the index along the first dimension with the largest error on record."""
        largest = None if self.table is None else self.table.get("max_error_by_index")
        if largest is None or not np.isfinite(largest.values).any() or not np.nanmax(largest.values):
            return None
        whole = self.pair.decoded.shape[0] == self.stored.shape[0]
        return int(np.nanargmax(largest.values)) if whole else None

    # ------------------------------------------------------------------------------- profiles

    def _profiles(self) -> Iterator[Profile]:
        """Errors along each dimension that is no side of a slice, from records where there are some."""
        for axis in self.pair.outer:
            profile = self._gather_records(axis) or self._by_cells(axis) or sample_profile(self.pair, axis)
            if profile is not None:
                yield profile

    def _gather_records(self, axis: int) -> Profile | None:
        rmse = None if self.table is None or axis else self.table.get("rmse_by_index")
        if rmse is None or bool(rmse.isnull().all()) or len(rmse) != self.axes[0].length:
            return None
        largest = self.table.max_error_by_index
        origin = "Recorded by the conversion, of every value."
        return make_profile(self.axes[0], range(len(rmse)), rmse.values, largest.values, origin)

    def _by_cells(self, axis: int) -> Profile | None:
        """By the chunks along an axis, where a conversion recorded several."""
        if self.table is None:
            return None
        starts = self.table[f"{self.stored.dims[axis]}_start"].values
        stops = self.table[f"{self.stored.dims[axis]}_stop"].values
        if len(set(starts.tolist())) < 2:
            return None
        rows = list(_qualities(self.table))
        ranges = sorted(set(zip(starts.tolist(), stops.tolist(), strict=True)))
        merged = [
            merge(row for row, start in zip(rows, starts, strict=True) if start == first)
            for first, _ in ranges
        ]
        along = self.axes[axis]
        return Profile(
            title=along.name,
            places=tuple(f"{along.place(first)} to {along.place(stop - 1)}" for first, stop in ranges),
            positions=None,
            rmse=tuple(each.rmse if each.n_valid else math.nan for each in merged),
            max_error=tuple(each.max_error if each.n_valid else math.nan for each in merged),
            origin="Recorded by the conversion, of every value, by chunk.",
        )


def _qualities(table: Any) -> Iterator[Quality]:
    """Return the errors of each task on record."""
    columns = ("n", "n_valid", "low", "high", "rmse", "max_error")
    for n, n_valid, low, high, rmse, largest in zip(*(table[name].values for name in columns), strict=True):
        yield Quality(
            n=int(n),
            n_valid=int(n_valid),
            low=None if math.isnan(low) else float(low),
            high=None if math.isnan(high) else float(high),
            rmse=float(rmse),
            max_error=float(largest),
        )


def _sampled(array: zarr.Array[Any]) -> bool:
    """Whether an array has more stored objects than are looked at."""
    return len(ChunkGrid.of_objects(array)) > _STREAMS


def _percentiles(table: Any) -> dict[str, float]:
    if table is None or bool(table.error_percentile.isnull().all()):
        return {}
    largest = table.error_percentile.max("task")
    return {f"{each:g}%": float(largest.sel(percentile=each)) for each in table.percentile.values}


def _octaves(table: Any) -> Spectrum | None:
    """Spectra by octave, over all tasks on record."""
    power = table.power.sum("task").values
    decoded = (table.power * table.power_ratio).sum("task").values
    if not power.size or not (power > 0).any():
        return None
    middle = 1 / (table.wavelength.values * math.sqrt(2))
    return Spectrum(wavenumber=middle[::-1], original=power[::-1], decoded=decoded[::-1])


def _bound(infos: Iterable[StreamInfo]) -> float | None:
    """Return what all streams keep; None where one keeps nothing."""
    bounds = [0.0 if info.max_error == 0 else info.bound for info in infos]
    kept = [bound for bound in bounds if bound is not None]
    return max(kept) if kept and len(kept) == len(bounds) else None
