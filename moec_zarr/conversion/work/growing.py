"""An append, from what it is about to do to a store that has grown: chunks first, what readers see last."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import zarr
from zarr.abc.store import Store

from moec_zarr.archive.growth import grow_arrays, view_as_planned
from moec_zarr.archive.manifest import Append, Manifest, end_append, read_append, write_append
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.quality_table import write_quality
from moec_zarr.archive.records import Record, is_sound
from moec_zarr.archive.status import Progress
from moec_zarr.archive.stored import Destination, decode_times, hide_expected_warnings, stored_plan
from moec_zarr.archive.whole import encode_as_stored, write_part
from moec_zarr.conversion.plan.append import Growth
from moec_zarr.conversion.work.destination import find_begun, read_done
from moec_zarr.conversion.work.outcome import write_attributes
from moec_zarr.errors import MoECError

__all__ = ["begin_append", "finish_append", "is_growing", "let_grow", "refuse_damage"]

_log = logging.getLogger(__name__)


def is_growing(group: zarr.Group) -> bool:
    """Say whether an append has made all its chunks, and ended before the store had grown."""
    append = read_append(group)
    return append is not None and append.ready


@hide_expected_warnings()
def let_grow(store: Store) -> zarr.Group:
    """Return a store to write to, once it has grown by an append that ended before."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    append = read_append(group)
    if append is None or not append.ready:
        return group
    planned = stored_plan(group, append.manifest)
    done = read_done(planned, view_as_planned(group, planned), append.manifest)
    _finish(group, planned, append, [record for each in done.values() for record in each.values()])
    return zarr.open_group(store, mode="r+", use_consolidated=False)


@hide_expected_warnings()
def begin_append(growth: Growth, store: Store, dst: Destination, wanted: Manifest, origin: str) -> zarr.Group:
    """Put on record what an append is about to do; return the store as it will be once it has grown.

    Raises
    ------
    MoECError
        If the store has changed since the append was planned.
    """
    if find_begun(store, dst, wanted) is None:
        raise MoECError(f"there is no store at {dst} any more")
    group = let_grow(store)
    append = read_append(group)
    if growth.added and (append is None or append.manifest.digest != wanted.digest):
        if append is not None:
            _log.warning(
                "another append, of %s, was begun and not finished; this one takes its place", append.origin
            )
        write_append(group, _first(growth.plan), Append(manifest=wanted, origin=origin))
    return view_as_planned(group, growth.plan)


def refuse_damage(
    growth: Growth, group: zarr.Group, left: Mapping[str, Iterable[tuple[int, ...]]], resumed: bool
) -> None:
    """Refuse to append where a chunk is damaged that the source does not hold all of.

    Parameters
    ----------
    growth : Growth
        The append.
    group : zarr.Group
        The store as it will be.
    left : mapping of str to iterable of tuple of int
        The chunks to be made, by variable.
    resumed : bool
        Whether the append was begun before, so that the last chunk of a lossless variable may be written and
        not on record.

    Raises
    ------
    MoECError
        If there is one.
    """
    for each in growth.plan.variables:
        axis = next((axis for axis, dim in enumerate(each.dims) if dim in growth.along), None)
        if axis is None or not each.tasks:
            continue
        array = group[each.name]
        assert isinstance(array, zarr.Array)
        for index in left[each.name]:
            part = each.grid.region(index)[axis]
            if part.start >= growth.offset:
                continue
            # The lossless chunk that the arrays end in keeps what it holds, and takes new steps beside it.
            grows = each.codec is None and part.start < growth.length < part.stop
            if not grows or not (resumed or is_sound(array, each.name, index)):
                raise MoECError(
                    f"chunk {index} of {each.name!r} in the store is damaged, and the source does not hold "
                    "all of it; repair it first, with moec-zarr verify --repair"
                )


@hide_expected_warnings()
def finish_append(growth: Growth, store: Store, wanted: Manifest, origin: str, records: list[Record]) -> None:
    """Write what has no tasks, and let the store grow."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    _write_small(growth, view_as_planned(group, growth.plan))
    append = Append(manifest=wanted, origin=origin, ready=True)
    write_append(group, _first(growth.plan), append)
    _finish(group, growth.plan, append, records)


def _write_small(growth: Growth, group: zarr.Group) -> None:
    """Write the new values of variables that have no tasks."""
    small = [
        each
        for each in growth.plan.variables
        if not set(growth.along).isdisjoint(each.dims) and not each.tasks
    ]
    if not small:
        return
    numbers = growth.ds[[each.name for each in small]]
    decoded, numbers = (
        each.isel(
            {dim: slice(growth.length - growth.offset, None) for dim in growth.along if dim in each.dims}
        )
        for each in (decode_times(numbers), numbers)
    )
    for each in small:
        values = encode_as_stored(
            group, each.name, decoded.variables[each.name], numbers.variables[each.name], "appended"
        )
        start = [growth.length if dim in growth.along else 0 for dim in each.dims]
        write_part(group, each.name, start, values)


def _finish(group: zarr.Group, planned: Plan, append: Append, records: Iterable[Record]) -> None:
    """Let a store grow whose chunks are all there. It can be interrupted, and done again."""
    grow_arrays(group, planned, append.manifest.along)
    state = Progress(plan=planned, resumed=0, records=list(records), failures=[], started=time.monotonic())
    write_attributes(planned, append.origin, group, state, "appended", append.manifest.file_bytes)
    write_quality(group, planned, state.records)
    end_append(group, _first(planned), replace(append, manifest=replace(append.manifest, created=True)))


def _first(planned: Plan) -> str:
    return planned.compressed[0].name
