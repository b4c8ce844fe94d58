"""Is an archive whole: every chunk there, undamaged, and as close to its source as was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import zarr

from moec_zarr.archive.growth import view_as_planned
from moec_zarr.archive.inspection import compressed_arrays, stored_objects
from moec_zarr.archive.lock import hold_lock
from moec_zarr.archive.manifest import Append, Manifest, read_append, read_manifest
from moec_zarr.archive.metadata import find_damaged_metadata, restore_metadata
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.archive.records import Record
from moec_zarr.archive.soundness import Index, Problem, check_bytes, look_at_streams
from moec_zarr.archive.status import Progress
from moec_zarr.archive.storage import StorageOptions, store_at, to_read
from moec_zarr.archive.stored import (
    Destination,
    decode_times,
    hide_expected_warnings,
    is_alike,
    stored_dataset,
    stored_plan,
)
from moec_zarr.conversion.plan.levels import replace_rebuilt
from moec_zarr.conversion.plan.source import STATUS, Source, open_source
from moec_zarr.conversion.plan.steps import find_run, steps_of
from moec_zarr.conversion.work.cluster import connect, resources_for
from moec_zarr.conversion.work.destination import restore
from moec_zarr.conversion.work.dispatch import make_tasks, run_tasks
from moec_zarr.conversion.work.growing import let_grow
from moec_zarr.conversion.work.outcome import mark, name_source, write_attributes
from moec_zarr.conversion.work.worker import measure_stored
from moec_zarr.errors import MoECError
from moec_zarr.quality import Quality, merge

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

__all__ = ["Checked", "Problem", "Verification", "verify"]

_TOLERANCE = 0.01  # of the largest error: machines decode the same values up to rounding


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was looked at of a variable.

    Attributes
    ----------
    chunks : int
        Number of chunks, or shards, that it has.
    compared : int
        Number of those that were compared with the source.
    quality : Quality
        How far their values are from the source's.
    rebuilt : str
        Name of the level that its values are made of, where they are compared with that and not with the
        source.
    """

    chunks: int
    compared: int = 0
    quality: Quality = field(default_factory=Quality)
    rebuilt: str = ""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of `verify`.

    Attributes
    ----------
    status : str
        The store's attribute ``moec_zarr_status``: "complete", or how much is done; empty if no conversion
        made the store.
    variables : dict of str to Checked
        What was checked, by variable.
    problems : tuple of Problem
        Everything that is missing, damaged or differs from the source.
    repaired : int
        Number of chunks that were made again.
    """

    status: str
    variables: dict[str, Checked]
    problems: tuple[Problem, ...]
    repaired: int = 0

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def verify(
    store: Destination,
    against: Source | None = None,
    *,
    repair: bool = False,
    client: Client | str | None = None,
    workers: int | None = None,
    break_lock: bool = False,
    storage_options: StorageOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Verification:
    """Check that an archive is complete, and that its bytes, streams and shapes are those that were written.

    Parameters
    ----------
    store : path or zarr Store
        A store that `moec_zarr.convert` made. In other stores with this package's codec, only the streams are
        checked.
    against : Dataset, DataArray, path, or sequence of paths, optional
        The source, or a part of it. Chunks that it covers are decoded and compared with it, on one core.
    repair : bool
        Make missing and damaged chunks again, from `against`.
    client, workers : optional
        Where to repair, as for `moec_zarr.convert`.
    break_lock : bool
        For a repair, take over the store from a run that was killed on another machine.
    storage_options : mapping, optional
        Options of fsspec for remote places.
    progress : callable, optional
        Called with a `Progress` while chunks are repaired.
    say : callable, optional
        Called with a description of what is being done.

    Returns
    -------
    Verification

    Raises
    ------
    MoECError
        If there is no archive, if `against` does not belong to it, or if a repair is not possible.
    """
    say = say or (lambda phase: None)
    place = store_at(store, storage_options)
    if repair and against is None:
        raise MoECError("a repair makes chunks again from the source; name it (--against, against=)")
    try:
        group = zarr.open_group(to_read(place), mode="r", use_consolidated=False)
    except FileNotFoundError as error:
        raise MoECError(f"there is no zarr store at {store}") from error
    except (ValueError, TypeError) as error:
        raise MoECError(
            f"the metadata of the store at {store} cannot be read ({error}); restore it, or convert anew"
        ) from error
    append, manifest = read_append(group), read_manifest(group)
    if manifest is None:
        if against is not None:
            raise MoECError(
                f"no conversion made {store}; moec-zarr compare measures how far it is from a source"
            )
        return _streams_alone(place)
    if lost := find_damaged_metadata(group, manifest):
        if repair:
            with hold_lock(place, break_lock):
                restore_metadata(zarr.open_group(place, mode="r+", use_consolidated=False), lost, manifest)
            again = verify(
                store, against, repair=True, client=client, workers=workers, break_lock=break_lock,
                storage_options=storage_options, progress=progress, say=say,
            )  # fmt: skip
            return replace(again, repaired=again.repaired + len(lost))
        reason = "it cannot be opened, or read with its dictionary; nothing else was checked"
        return Verification(
            status=_status(group, append),
            variables={},
            problems=tuple(
                Problem(variable=name, chunk="metadata", kind="damaged", reason=reason) for name in lost
            ),
        )
    planned = stored_plan(group, manifest)
    if append is not None:
        group = view_as_planned(group, planned)  # its arrays may just be growing
    say("checking bytes and records")
    problems, records = check_bytes(planned, group, manifest, append)
    checked = {each.name: Checked(chunks=max(each.tasks, 1)) for each in planned.variables}
    if against is None:
        return Verification(status=_status(group, append), variables=checked, problems=tuple(problems))
    with open_source(against, storage_options) as ds:
        damaged = {problem.variable for problem in problems if isinstance(problem.chunk, str)}
        stored = stored_dataset(group, without=damaged)
        extent = _extent(ds, stored, planned, damaged)
        say("comparing with the source")
        found, checked = _compare(planned, ds, group, stored, manifest, records, extent)
        if not repair or not (problems or _is_unfinished(place, append)):
            problems += found
            return Verification(status=_status(group, append), variables=checked, problems=tuple(problems))
        if found:
            raise MoECError(
                f"{against} is not what {store} was made from: {found[0].variable!r}, {found[0].chunk}, "
                f"which is undamaged, {found[0].reason}; nothing was repaired"
            )
        repaired = _repair(
            planned, ds, against, place, manifest, records, problems, extent, say,
            client=client, workers=workers, break_lock=break_lock, progress=progress,
        )  # fmt: skip
    after = verify(store, against, storage_options=storage_options, say=say)
    return Verification(
        status=after.status, variables=after.variables, problems=after.problems, repaired=repaired
    )


def _status(group: zarr.Group, append: Append | None) -> str:
    if append is not None:
        return (
            f"incomplete: an append along {append.manifest.along!r}, of {append.origin}, was begun; the same "
            "command finishes it"
        )
    return str(group.attrs.get(STATUS, ""))


def _is_unfinished(place: Any, append: Append | None) -> bool:
    """Say whether a run made all chunks, and ended before the store could say so to all who read it."""
    said = [
        str(zarr.open_group(to_read(place), mode="r", use_consolidated=each).attrs.get(STATUS, ""))
        for each in (None, False)
    ]
    return (append is not None and append.ready) or any(text.startswith("incomplete") for text in said)


def _streams_alone(place: Any) -> Verification:
    """Return a store that was not made by a conversion: of a chunk that is not there, nothing is known."""
    problems, checked = [], {}
    for name, array in compressed_arrays(place).items():
        checked[name] = Checked(chunks=int(array.nchunks))
        for index, data in stored_objects(array):
            if reason := look_at_streams(array, data):
                problems.append(Problem(variable=name, chunk=index, kind="damaged", reason=reason))
    return Verification(status="", variables=checked, problems=tuple(problems))


def _extent(ds: xr.Dataset, stored: xr.Dataset, planned: Plan, damaged: Collection[str]) -> dict[str, slice]:
    """Return what of the store a source covers, by dimension.

    Raises
    ------
    MoECError
        If its coordinates are not those of the store.
    """
    lengths = {dim: n for each in planned.variables for dim, n in zip(each.dims, each.shape, strict=True)}
    if absent := [each.name for each in planned.variables if each.name not in ds.variables]:
        raise MoECError(f"the source lacks {', '.join(map(repr, absent))}")
    extent = {}
    for dim, length in lengths.items():
        if dim not in ds.dims:
            raise MoECError(f"the source lacks the dimension {dim!r}")
        old, new = steps_of(stored, dim), steps_of(ds, dim)
        if old is not None and new is not None and length:
            places = find_run(old, new)
            if not places:
                has = f"it has {new[0]} to {new[-1]}" if new.size else "it has no step"
                raise MoECError(
                    f"the source's {dim!r} is not a part of the store's: {has}, the store {old[0]} to "
                    f"{old[-1]}"
                )
            if len(places) > 1:
                raise MoECError(
                    f"values of {dim!r} repeat in the store, so that it cannot be told where the source "
                    f"lies: at step {places[0]} or {places[1]}; give one that covers more"
                )
            extent[dim] = slice(places[0], places[0] + new.size)
        elif ds.sizes[dim] != length:
            raise MoECError(
                f"{dim!r} has {ds.sizes[dim]} steps in the source and {length} in the store, and "
                + (
                    "the store's coordinate, which says which they are, is damaged; give a source of all"
                    if dim in damaged
                    else "no coordinate says which they are"
                )
            )
        else:
            extent[dim] = slice(0, length)
    return extent


def _within(each: PlannedVariable, index: Index, extent: Mapping[str, slice]) -> bool:
    """Whether the source covers a chunk."""
    return all(
        extent[dim].start <= part.start and part.stop <= extent[dim].stop
        for dim, part in zip(each.dims, each.grid.region(index), strict=True)
    )


def _compare(
    planned: Plan,
    ds: xr.Dataset,
    group: zarr.Group,
    stored: xr.Dataset,
    manifest: Manifest,
    records: Mapping[str, Mapping[Index, Record]],
    extent: Mapping[str, slice],
) -> tuple[list[Problem], dict[str, Checked]]:
    """Undamaged chunks compared with the source, as far as it covers them."""
    problems: list[Problem] = []
    checked = {}
    offsets = {dim: part.start for dim, part in extent.items()}
    tasks = {each.name: each.tasks for each in planned.variables}
    small = decode_times(ds[[each.name for each in planned.variables if not each.tasks]])
    ds = replace_rebuilt(planned, ds, group, offsets)
    for each in planned.variables:
        if not each.tasks:
            checked[each.name] = Checked(chunks=1)
            if each.name in stored.variables:
                part = stored.variables[each.name][tuple(extent[dim] for dim in each.dims)]
                if not is_alike(part, small.variables[each.name]):
                    reason = "has values that are not those of the source"
                    problems.append(
                        Problem(variable=each.name, chunk="values", kind="differs", reason=reason)
                    )
                quality = Quality(n=part.size, n_valid=part.size)
                checked[each.name] = Checked(chunks=1, compared=1, quality=quality)
            continue
        chosen = [index for index in records.get(each.name, {}) if _within(each, index, extent)]
        if (
            each.rebuilt is not None
            and len(records.get(each.rebuilt.finest, {})) < tasks[each.rebuilt.finest]
        ):
            chosen = []  # what it is made of is not there
        parts = []
        for task in make_tasks(planned, ds, group, {each.name: chosen}, manifest, offsets):
            recorded = records[each.name][task.index].quality
            try:
                quality = measure_stored(task)
            except MoECError as error:
                problems.append(
                    Problem(variable=each.name, chunk=task.index, kind="differs", reason=str(error))
                )
                continue
            parts.append(quality)
            if quality.max_error > recorded.max_error * (1 + _TOLERANCE):
                reason = f"is {quality.max_error:.4g} off at most, and {recorded.max_error:.4g} was recorded"
                problems.append(Problem(variable=each.name, chunk=task.index, kind="differs", reason=reason))
        checked[each.name] = Checked(
            chunks=max(each.tasks, 1),
            compared=len(parts),
            quality=merge(parts),
            rebuilt="" if each.rebuilt is None else each.rebuilt.finest,
        )
    return problems, checked


@hide_expected_warnings()
def _repair(
    planned: Plan,
    ds: xr.Dataset,
    src: Source,
    place: Any,
    manifest: Manifest,
    records: Mapping[str, Mapping[Index, Record]],
    problems: list[Problem],
    extent: Mapping[str, slice],
    say: Callable[[str], None],
    *,
    client: Client | str | None,
    workers: int | None,
    break_lock: bool,
    progress: Callable[[Progress], None] | None,
) -> int:
    """Make what is missing or damaged again; the number of chunks, and of variables written whole."""
    if lost := [problem.variable for problem in problems if problem.chunk == "metadata"]:
        raise MoECError(
            f"the metadata of {', '.join(map(repr, lost))} is damaged; restore it, or convert anew"
        )
    bad: dict[str, list[Index]] = {}
    whole = {problem.variable for problem in problems if isinstance(problem.chunk, str)}
    for each in planned.variables:
        found = [p.chunk for p in problems if p.variable == each.name and not isinstance(p.chunk, str)]
        bad[each.name] = [index for index in found if _within(each, index, extent)]
    count = sum(map(len, bad.values()))
    state = Progress(plan=planned, resumed=0, records=[], failures=[], started=time.monotonic())
    state.records = [record for each in records.values() for record in each.values()]
    state.resumed = len(state.records)
    with ExitStack() as held:
        if count:
            say("starting workers")
            connected = held.enter_context(connect(client, workers))
            needed = resources_for(connected, None, planned.has_networks)
        lock = held.enter_context(hold_lock(place, break_lock))
        group = let_grow(place)
        mark(group, state.resumed, planned.tasks)
        offsets = {dim: part.start for dim, part in extent.items()}
        restore(planned, ds, group, whole, offsets)
        ds = replace_rebuilt(planned, ds, group, offsets)
        for part in planned.phases(bad):
            tasks = make_tasks(planned, ds, group, part, manifest, offsets)
            run_tasks(connected, tasks, needed, group, lock, state, progress)
        write_attributes(planned, name_source(src), group, state, "repaired")
    return count + len(whole)
