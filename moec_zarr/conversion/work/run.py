"""From a dataset to a compressed store, on dask: metadata once, then one task for each chunk or shard."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.archive.growth import view_as_planned
from moec_zarr.archive.lock import hold_lock
from moec_zarr.archive.manifest import read_append
from moec_zarr.archive.quality_table import write_quality
from moec_zarr.archive.records import Record
from moec_zarr.archive.status import ConversionError, Progress
from moec_zarr.archive.storage import StorageOptions
from moec_zarr.archive.stored import Destination, open_result
from moec_zarr.conversion.plan.job import Job, plan_job
from moec_zarr.conversion.plan.levels import replace_rebuilt
from moec_zarr.conversion.plan.options import ConversionOptions, Incomplete, OnBudget, Sizes
from moec_zarr.conversion.plan.source import Source, SourceError, open_source
from moec_zarr.conversion.work.cluster import connect, resources_for
from moec_zarr.conversion.work.destination import (
    find_begun,
    open_destination,
    read_done,
    refuse_other_than_store,
    refuse_overlap,
    store_for,
)
from moec_zarr.conversion.work.dispatch import make_tasks, run_tasks
from moec_zarr.conversion.work.growing import begin_append, finish_append, is_growing, let_grow, refuse_damage
from moec_zarr.conversion.work.outcome import exceeded_text, name_source, write_attributes
from moec_zarr.conversion.work.training import train_dictionaries
from moec_zarr.conversion.work.worker import DestinationError

if TYPE_CHECKING:
    import xarray as xr
    import zarr
    from distributed import Client

__all__ = ["convert", "count_done", "execute"]

_log = logging.getLogger(__name__)


def convert(
    src: Source,
    dst: Destination,
    codec: MoECCodec | Mapping[Any, MoECCodec | None] | None = None,
    *,
    variables: Iterable[Hashable] | None = None,
    chunks: Literal["auto"] | Sizes = "auto",
    shards: Sizes | None = None,
    zarr_format: Literal[2, 3] | None = None,
    append: str | None = None,
    incomplete: Incomplete | None = None,
    on_budget: OnBudget = "keep",
    rebuild_levels: bool = False,
    train: bool | None = None,
    client: Client | str | None = None,
    workers: int | None = None,
    resources: Mapping[str, float] | None = None,
    resume: bool = True,
    break_lock: bool = False,
    storage_options: StorageOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> xr.Dataset | xr.DataTree | zarr.Group | zarr.Array[Any]:
    """Convert anything that xarray opens into a compressed zarr store.

    Fields are compressed. Coordinates, times, flags, text and everything else are copied without loss.
    Each chunk or shard is one task: a worker process reads it, fits it, writes it, reads it back and compares
    it, and holds no other meanwhile. A run that was killed continues where it stopped when it is started
    again.

    `moec_zarr.config` sets the device and the number of threads. Worker processes import the script that
    called `convert`, so call it under ``if __name__ == "__main__":``.

    Parameters
    ----------
    src : Dataset, DataArray, DataTree, path, or sequence of paths
        An open dataset, array or tree; a local path or fsspec URL of a zarr store, of one file that xarray
        opens, or of a directory of such files; a glob pattern, or a sequence of paths.
    dst : path or zarr Store
        A local path, an fsspec URL or a zarr store, to hold the result.
    codec : MoECCodec or mapping of variable name to MoECCodec or None
        The codec of all variables, or of each one to compress. ``"*"`` stands for all other fields, and
        None for lossless. Leave it out for an append, which uses the codecs of the store.
    variables : iterable of str, optional
        Names of the data variables to compress; all others stay lossless. By default those that hold fields.
    chunks : "auto" or mapping of dimension to int
        Sizes of chunks, in voxels; -1 is the whole dimension. Dimensions that are not named are chosen.
    shards : mapping of dimension to int, optional
        Sizes of shards, in voxels; dimensions that are not named take one chunk.
    zarr_format : {3, 2}, optional
        Format of the destination: by default that of images and of arrays without names of their dimensions,
        which keep theirs, and 3 of all others.
    append : str, optional
        The dimension to append along, such as ``"time"``. What is new in `src` is added to the store at
        `dst`, with the settings of that store. Steps that the store has are recognised by their coordinate
        and left alone. If there is no store yet, one is created.
    incomplete : "hold" or "refit", optional
        What to do with appended steps at the end that do not fill a chunk. "hold" leaves them out. "refit"
        stores them, and makes that chunk again from the source when more are appended. By default such steps
        are refused.
    on_budget : "keep" or "fail"
        What becomes of a chunk that cannot be as small as its ratio asks, say for scattered NaN. "keep"
        stores it at the smallest ratio that it reaches, and says so at the end, on record and in attributes.
        With "fail" such chunks fail, and all others are done.
    rebuild_levels : bool
        Make the coarser levels of images again of the finest one as it is decoded, so that they show what it
        does, rather than compress those of the source. How they were made, by means of blocks or by every
        other voxel, is told by a sample.
    train : bool, optional
        Train a dictionary for each variable before anything is written, as `train_dictionary` does, on
        chunks that are spread over the source. It stands in the array's metadata, without which chunks
        cannot be read then. By default where it takes less than an eighth of the time of all fits, which
        is some 130 chunks, and half of that where networks are fitted; True for all variables of at least
        six chunks, False for none. It is left out where other chunks get worse by it. A destination that
        was begun keeps what it was begun with, and so does one that is appended to.
    client : distributed.Client or str, optional
        Where to run: a client, or the address of a scheduler. By default a cluster is made on this machine.
    workers : int, optional
        Number of worker processes of that cluster; by default one for each core, or for each GPU.
    resources : mapping of str to float, optional
        The dask resources that each task takes of a worker. By default ``{"GPU": 1}`` if the device is
        ``"cuda"`` and workers offer it.
    resume : bool
        Continue what an earlier run left at `dst`. If False, a zarr store at `dst` is replaced.
    break_lock : bool
        Take over `dst` from a run that was killed on another machine and left its lock. Never use it while
        that run is alive. One that was killed on this machine is taken over without.
    storage_options : mapping, optional
        Options of fsspec, such as an endpoint and credentials, for source and destination alike.
    progress : callable, optional
        Called with a `Progress` at the start, after each task, and about every second between.

    Returns
    -------
    Dataset, DataTree, zarr.Group or zarr.Array
        The destination, opened lazily: a tree where it has several groups, and as zarr opens it where it has
        arrays that are no dataset, as images do, or groups that xarray does not align. Variables have no
        encoding of codecs, so writing them elsewhere does not compress them, and lose accuracy, a second
        time.

    Raises
    ------
    ConversionError
        If chunks failed. Each is tried three times, or once if another attempt could not help.
    MoECError
        If the settings or the source differ from those that the destination was begun with; if the
        destination holds something else, or is full or read-only; if there is nothing to compress; or if
        workers cannot do the work.
    BudgetError, UnsupportedArrayError
        If a variable cannot be compressed as asked, before any work is done.
    FileNotFoundError
        If there is nothing at `src`.
    """
    options = ConversionOptions(
        codec=codec, variables=variables, chunks=chunks, shards=shards, zarr_format=zarr_format,
        append=append, incomplete=incomplete, on_budget=on_budget, rebuild_levels=rebuild_levels, train=train,
        client=client, workers=workers, resources=resources, resume=resume, break_lock=break_lock,
        storage_options=storage_options,
    )  # fmt: skip
    with open_source(src, storage_options) as ds:
        job = plan_job(ds, dst, options)
        result = execute(job, src, dst, options, progress)
    if result.failures:
        first = result.failures[0]
        raise ConversionError(
            f"{len(result.failures)} of {job.plan.tasks} chunks failed; the first is {first.index} of "
            f"{first.variable!r}: {first.error}. The others are done; the same call tries these again",
            result,
        )
    return open_result(dst, job.plan, storage_options)


def execute(
    job: Job,
    src: Source,
    dst: Destination,
    options: ConversionOptions,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Do what was planned by `plan_job`; the parameters are those of `convert`.

    Returns
    -------
    Progress
        What was done and what failed.

    Raises
    ------
    MoECError
        As `convert` does, except for chunks that failed.
    """
    state = Progress(plan=job.plan, resumed=0, records=[], failures=[], started=time.monotonic())

    def say(phase: str) -> None:
        state.phase = phase
        if progress is not None:
            progress(state)

    say("looking at the destination")
    refuse_overlap(src, job.ds, dst, options.storage_options)
    wanted = job.manifest(src, options.storage_options)
    state.file_bytes = wanted.file_bytes
    try:
        store = store_for(job.ds, dst, options.storage_options)
        begun = find_begun(store, dst, wanted) if options.resume else None
        if not options.resume:
            refuse_other_than_store(store, dst)
        idle = job.growth is not None and not job.growth.added
        if idle and begun is not None and begun[1].precedes(wanted):
            _log.info("the source has nothing that %s lacks", dst)
            if is_growing(begun[0]):
                with hold_lock(store, options.break_lock):
                    let_grow(store)
            state.records = _flat(read_done(job.plan, *begun))
            state.resumed = len(state.records)
            return state
        with ExitStack() as held:
            connected = None
            if begun is None or not begun[1].created or begun[1].precedes(wanted):
                # Workers come first: a run that they refuse leaves nothing behind.
                say("starting workers")
                connected = held.enter_context(connect(options.client, options.workers))
                needed = resources_for(connected, options.resources, job.plan.has_networks)
            lock = held.enter_context(hold_lock(store, options.break_lock))
            if begun is None and connected is not None and any(each.training for each in job.plan.variables):
                # Before the plan and the metadata, which hold them: whatever is on record is complete.
                trained = train_dictionaries(connected, needed, job.plan, job.ds, lock, say)
                job, state.plan = replace(job, plan=trained), trained
                wanted = replace(wanted, plan=trained.to_dict())
            say("writing metadata")
            if job.growth is None:
                group = open_destination(job.plan, job.ds, store, dst, wanted, options.resume)
            else:
                group = begin_append(job.growth, store, dst, wanted, name_source(src))
            say("checking what is there")
            done = read_done(job.plan, group, wanted)
            state.records = _flat(done)
            state.resumed = len(state.records)
            if state.resumed < job.plan.tasks:
                if connected is None:
                    say("starting workers")
                    connected = held.enter_context(connect(options.client, options.workers))
                    needed = resources_for(connected, options.resources, job.plan.has_networks)
                left = {
                    each.name: [index for index in each.grid.indices() if index not in done[each.name]]
                    for each in job.plan.variables
                    if each.tasks
                }
                if job.growth is not None:
                    refuse_damage(job.growth, group, left, resumed=bool(begun and read_append(begun[0])))
                # Until an append is finished, the store is as complete as it was.
                noted = group if job.growth is None else None
                ds = replace_rebuilt(job.plan, job.ds, group, job.offsets)
                for part in job.plan.phases(left):
                    tasks = make_tasks(job.plan, ds, group, part, wanted, job.offsets, options.on_budget)
                    run_tasks(connected, tasks, needed, noted, lock, state, progress)
                    if state.failures:
                        break
            if job.growth is None:
                write_attributes(job.plan, name_source(src), group, state, file_bytes=wanted.file_bytes)
                write_quality(group, job.plan, state.records)
            elif job.growth.added and not state.failures:
                finish_append(job.growth, store, wanted, name_source(src), state.records)
            _log_exceeded(state)
    except SourceError:
        raise
    except OSError as error:
        raise DestinationError(f"the destination {dst} cannot be written: {error}") from error
    return state


def _log_exceeded(state: Progress) -> None:
    """Say which variables take more bytes than asked for."""
    for name, each in state.summaries().items():
        if each.exceeded and each.codec is not None:
            _log.warning("variable %r: %s", name, exceeded_text(each))


def count_done(job: Job, src: Source, dst: Destination, options: ConversionOptions) -> dict[str, int]:
    """Count the tasks that an earlier run has done, by variable; the parameters are those of `execute`."""
    refuse_overlap(src, job.ds, dst, options.storage_options)
    wanted = job.manifest(src, options.storage_options)
    store = store_for(job.ds, dst, options.storage_options)
    begun = find_begun(store, dst, wanted) if options.resume else None
    if begun is None:
        return {}
    done = read_done(job.plan, view_as_planned(begun[0], job.plan), wanted)
    return {name: len(records) for name, records in done.items()}


def _flat(done: Mapping[str, Mapping[tuple[int, ...], Record]]) -> list[Record]:
    return [record for each in done.values() for record in each.values()]
