"""All that is known of one variable: by its records, its streams, and slices beside the original."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.tree import local_name
from moec_zarr.archive.attributes import PREFIX, REBUILT
from moec_zarr.archive.inspection import StreamInfo, expert_map, inspect_streams
from moec_zarr.archive.quality_table import DIMENSIONS, read_quality
from moec_zarr.archive.storage import stored_bytes
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.errors import MoECError
from moec_zarr.quality import merge
from moec_zarr.report.comparison.alignment import align
from moec_zarr.report.comparison.labels import PATH, Axis, axis_of, clean, name_of, settings_text, units_of
from moec_zarr.report.page.findings import Cell, Experts, Profile, Sample, Scaled, Variable
from moec_zarr.report.page.records import (
    find_worst_index,
    read_octaves,
    read_percentiles,
    read_profile,
    read_qualities,
)
from moec_zarr.report.page.slices import Pair, sample_slices
from moec_zarr.report.verdict.criteria import Limits
from moec_zarr.report.verdict.measures import Recorded, Values
from moec_zarr.report.verdict.pairs import measure_pair
from moec_zarr.report.verdict.recorded import read_recorded
from moec_zarr.report.verdict.rules import percent
from moec_zarr.report.verdict.verdict import reach_verdict

if TYPE_CHECKING:
    import xarray as xr
    import zarr

__all__ = ["gather_variable"]

_Infos: TypeAlias = Mapping[tuple[int, ...], StreamInfo]

_SENTENCE = 400  # characters of a warning, at most
_STREAMS = 256  # stored objects whose streams are looked at
_FEW = 4  # of a variable without a part of the page of its own


def gather_variable(
    name: str,
    array: zarr.Array[Any],
    stored: xr.DataArray,
    original: xr.DataArray | None,
    slices: int,
    limits: Limits,
    voxels: int,
    note: str = "",
) -> Variable:
    """Gather all that is known of a variable.

    Parameters
    ----------
    name : str
    array : zarr.Array
    stored : DataArray
        The same, opened by xarray.
    original : DataArray or None
    slices : int
        Slices to embed. Where it is 0, the variable gets no part of the page: only its figures are gathered.
    limits : Limits
        What is asked of the variable.
    voxels : int
        That are compared with the original for it, at most.
    note : str
        What a reader must know first, such as why there is no original.
    """
    codec = codec_of(array)
    assert codec is not None
    table = _rename_columns(read_quality(array), stored.dims)
    most = _STREAMS if slices or not table else _FEW  # without a record, figures are those of the streams
    infos = dict(inspect_streams(array, most))
    objects, chunks = ChunkGrid.of_objects(array), ChunkGrid(array.shape, array.chunks)
    grid = objects if table else chunks
    axes = [axis_of(stored, i) for i in range(stored.ndim)]
    cells = tuple(_list_cells(grid, axes, infos, table))
    qualities = read_qualities(table)
    whole, complete = merge(qualities), bool(table) and len(qualities) == len(grid)
    psnr = whole.psnr if qualities else cells[0].psnr if len(cells) == len(grid) == 1 else None
    spread = None if whole.low is None or whole.high is None else whole.high - whole.low
    max_error = max((cell.max_error for cell in cells), default=0.0)
    pair, left_out = _align_pair(original, stored, codec.missing)
    recorded = None if REBUILT in array.attrs else read_recorded(table, axes, read_octaves(table), len(grid))
    errors, values = recorded, None
    if pair.original is not None and slices and pair.decoded.size:
        measured, values = measure_pair(
            pair.original, pair.decoded, missing=pair.missing, thresholds=limits.thresholds, voxels=voxels
        )
        measured, values = _say_part(measured, values, pair.decoded.size / array.size)
        errors = measured
        if recorded is not None and recorded.slices is not None:
            waves = measured.spectrum, measured.spectrum_origin
            errors = dataclasses.replace(recorded, spectrum=waves[0], spectrum_origin=waves[1])
    worst = find_worst_index(table) if pair.decoded.shape[:1] == array.shape[:1] else None
    sliced = slices > 0 and len(pair.plane) == 2 and pair.decoded.size > 0
    sample = sample_slices(pair, slices, worst, _find_exceeding(pair, errors)) if sliced else Sample()
    sections: Counter[str] = Counter()
    for info in infos.values():
        sections.update(info.sections)
    found = Variable(
        name=clean(name, PATH),
        title=name_of(stored),
        units=units_of(stored),
        codec=settings_text(codec),
        dims=tuple(clean(local_name(dim)) for dim in stored.dims),
        shape=array.shape,
        chunks=array.chunks,
        bytes_in=array.nbytes,
        bytes_out=int(table.bytes_out.sum()) if complete else stored_bytes(array),
        psnr=psnr,
        psnr_lowest=min((cell.psnr for cell in cells), default=None),
        max_error=max_error,
        spread=spread,
        bound=_find_bound(infos.values()),
        scaled=_find_scaled(infos.values()),
        origin=(
            "recorded by the conversion, of every value as it was read back" if qualities
            else "stated by the streams, as measured when they were made"
        ),
        cell_name="shard" if table and array.shards else "chunk",
        cells=cells,
        grid=grid.counts,
        streams=len(infos),
        streams_all=len(chunks),
        sampled=len(objects) > most,
        kinds=Counter(info.kind for info in infos.values()),
        sections=sections,
        percentiles=read_percentiles(table),
        sample=sample,
        spectrum=None if errors is None else errors.spectrum,
        spectrum_origin="" if errors is None else errors.spectrum_origin,
        spacing=pair.spacing,
        profiles=tuple(_list_profiles(pair, axes, table, errors)) if slices else (),
        verdict=reach_verdict(clean(name, PATH), errors, values, limits) if limits.limits else None,
        experts=_find_experts(array, chunks, axes, infos) if slices else None,
        full=slices > 0,
    )  # fmt: skip
    notes = [note] if note else []
    notes += _list_notes(found, array, left_out, recorded=bool(table))
    return dataclasses.replace(found, notes=tuple(notes))


def _rename_columns(table: xr.Dataset, dims: Sequence[Hashable]) -> xr.Dataset:
    """Return a table of quality with the columns of each dimension under the name that it has now.

    A level by itself does not know what its image calls its axes; other names may be those of an original.
    """
    recorded = table.attrs.get(DIMENSIONS, dims)
    names = {
        f"{local_name(old)}_{end}": f"{local_name(name)}_{end}"
        for old, name in zip(recorded, dims, strict=True)
        for end in ("start", "stop")
    }
    return table.rename({old: name for old, name in names.items() if old in table and old != name})


def _list_notes(
    found: Variable, array: zarr.Array[Any], left_out: Iterable[str], *, recorded: bool
) -> Iterator[str]:
    """List what a reader must know before trusting the figures, the gravest first."""
    rebuilt = array.attrs.get(REBUILT)
    if rebuilt:
        yield (
            f"Computed from another level as decoded ({clean(rebuilt)}): PSNR and errors on record are "
            "against that, not against the source."
        )
    measured, done, tasks = found.sample.measured, len(found.cells), math.prod(found.grid)
    if not rebuilt and measured and measured.max_error > 1.01 * found.max_error + 1e-5 * (found.spread or 0):
        yield (
            f"The source differs from what was compressed: errors of {measured.max_error:.3g} were found, "
            f"and {found.max_error:.3g} is on record as the largest. Compare it with the right source, or "
            "suspect damage."
        )
    if found.sample.differ:
        yield f"{found.sample.differ} voxels of these slices have no value in one of both alone."
    if warning := array.attrs.get(f"{PREFIX}warning"):
        yield f"The conversion warned: {clean(warning, _SENTENCE)}."
    if recorded and done < tasks:
        yield f"The conversion has not come to its end: {done} of {tasks} tasks are done."
    yield from left_out
    if not recorded and tasks > 1:
        yield "No conversion left its records here, so a PSNR of the whole variable is not known."
    if "scale_factor" in array.attrs:
        yield "The values are packed: errors on record are before scale_factor is applied."
    if found.full and not found.sample.views:
        yield "It has fewer than two axes longer than 1: there is no slice to show."


def _align_pair(
    original: xr.DataArray | None, stored: xr.DataArray, missing: float | None
) -> tuple[Pair, list[str]]:
    """Bring the original beside what is stored, and say what of it cannot be compared."""
    notes = []
    if original is not None:
        try:
            x, y, left_out = align(original, stored)
        except MoECError as error:  # the other variables of the page may be compared all the same
            notes.append(f"Not compared with the source: {clean(error)}.")
        else:
            notes += [f"Not compared: {clean(text)}." for text in left_out]
            x, y = (each.transpose(*stored.dims) for each in (x, y))
            return Pair(decoded=y, original=x, missing=missing), notes
    return Pair(decoded=stored, original=None, missing=missing), notes


def _say_part(measured: Recorded, values: Values | None, share: float) -> tuple[Recorded, Values | None]:
    """Say in what was looked at that the source has a share of the values alone."""
    if share == 1:
        return measured, values
    origin = f"{measured.origin}, which has {percent(min(share, 0.9999))} of the values"
    measured = dataclasses.replace(measured, origin=origin, spectrum_origin=origin)
    return measured, values and dataclasses.replace(values, origin=origin)


def _list_cells(grid: ChunkGrid, axes: Sequence[Axis], infos: _Infos, table: xr.Dataset) -> Iterator[Cell]:
    """List the figures of all tasks that are on record; without a record, those of the streams."""
    figures: Iterable[tuple[Any, ...]]
    if table:
        starts = np.stack([table[f"{axis.dim}_start"].values for axis in axes], axis=1)
        ratio = table.bytes_in / np.maximum(table.bytes_out, 1)
        columns = (starts // grid.chunk, table.psnr.values, table.max_error.values, ratio.values)
        figures = zip(*(column.tolist() for column in columns), strict=True)
    else:
        figures = ((index, info.psnr, info.max_error, info.ratio) for index, info in infos.items())
    for place, psnr, max_error, ratio in figures:
        index = tuple(place)
        yield Cell(
            index=index, place=_name_region(axes, grid.region(index)),
            psnr=psnr, max_error=max_error, ratio=ratio,
        )  # fmt: skip


def _name_region(axes: Sequence[Axis], region: Sequence[slice]) -> str:
    """Say where a chunk lies, along the dimensions that have several."""
    parts = zip(axes, region, strict=True)
    several = (each for each in parts if each[1].stop - each[1].start < each[0].length)
    return ", ".join(f"{axis.title} {axis.span(part)}" for axis, part in several) or "all"


def _find_exceeding(pair: Pair, errors: Recorded | None) -> dict[int, list[int]]:
    """Find where along each axis the error exceeds the signal, the worst place first."""
    if errors is None or errors.slices is None:
        return {}
    found = {}
    for i, axis in enumerate(errors.slices.axes):
        view = errors.slices.along(i)
        places = [view.indices[0][place] for (place,) in view.exceeding]
        shares = dict(zip(view.indices[0], view.of_deviation.tolist(), strict=True))
        for position in pair.outer:
            its = pair.axis(position)
            if its.dim == axis.dim and its.length == axis.length:
                found[position] = sorted(places, key=lambda place: -shares[place])
    return found


def _list_profiles(
    pair: Pair, axes: Sequence[Axis], table: xr.Dataset, errors: Recorded | None
) -> Iterator[Profile]:
    """List errors along each dimension that is no side of a slice, by slice where that is known."""
    slices = None if errors is None else errors.slices
    for axis in (axes[i] for i in pair.outer):
        known = [] if slices is None else [each.dim for each in slices.axes]
        if errors is not None and slices is not None and axis.dim in known:
            signed = errors.low is not None and errors.high is not None and errors.low < 0 < errors.high
            of = f"Of {errors.origin}."
            yield Profile.of_slices(slices.along(known.index(axis.dim)), of, signed=signed)
        elif (profile := read_profile(table, axis)) is not None:
            yield profile


def _find_experts(
    array: zarr.Array[Any], chunks: ChunkGrid, axes: Sequence[Axis], infos: _Infos
) -> Experts | None:
    """Find the chunk with the most experts, and which of them evaluates what."""
    if not infos:
        return None
    index = max(infos, key=lambda i: (infos[i].experts, infos[i].sections.get("linear_experts", -1)))
    of_network = infos[index].experts > 1
    if not of_network and "linear_experts" not in infos[index].sections:
        return None
    found = expert_map(array, index)
    if found is None or (not of_network and not found.any()):
        return None
    load = infos[index].load if of_network else tuple((np.bincount(found.reshape(-1)) / found.size).tolist())
    region = _name_region(axes, chunks.region(index))
    return Experts(chunk=region, map=found, load=load, of_network=of_network)


def _find_bound(infos: Iterable[StreamInfo]) -> float | None:
    """Find the bound that all streams keep; None where one keeps nothing."""
    bounds = [0.0 if info.max_error == 0 and not info.refit else info.bound for info in infos]
    kept = [bound for bound in bounds if bound is not None]
    return max(kept) if kept and len(kept) == len(bounds) else None


def _find_scaled(infos: Iterable[StreamInfo]) -> Scaled | None:
    """Find what streams say of relative errors; None where none says anything."""
    infos = list(infos)
    errors = [info.max_relative_error for info in infos if info.max_relative_error is not None]
    psnrs = [info.log_psnr for info in infos if info.log_psnr is not None]
    # What is exact keeps every bound.
    exact = (info.max_error == 0 and not info.refit for info in infos)
    bounds = [
        0.0 if each and info.relative_bound is None else info.relative_bound
        for each, info in zip(exact, infos, strict=True)
    ]
    kept = [bound for bound in bounds if bound is not None]
    bound = max(kept, default=0.0) if len(kept) == len(bounds) else 0.0
    if not errors and not psnrs and not bound:
        return None
    return Scaled(
        bound=bound or None,
        knee=max(info.knee for info in infos),
        max_error=max(errors, default=None),
        psnr=min(psnrs, default=None),
    )
