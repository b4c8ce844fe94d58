"""From a dataset to a compressed store, on dask: metadata once, then one task for each chunk or shard."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import zarr

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.config import config
from moec_zarr.conversion.append import Growth, Incomplete, grow, plan_append, whole_chunks
from moec_zarr.conversion.cluster import connect, offering, resources_for
from moec_zarr.conversion.destination import (
    Destination,
    find_begun,
    mark,
    open_destination,
    open_result,
    refuse_other_than_store,
    refuse_overlap,
    without_expected_warnings,
    write_attributes,
)
from moec_zarr.conversion.lock import Lock, hold_lock
from moec_zarr.conversion.manifest import Manifest, Record, has_record, read_records
from moec_zarr.conversion.places import StorageOptions, store_at
from moec_zarr.conversion.plan import STORAGE, Plan, Sizes, plan
from moec_zarr.conversion.quality_table import write_quality
from moec_zarr.conversion.source import Source, SourceError, files_behind, fingerprint, open_source
from moec_zarr.conversion.status import ConversionError, Failure, Progress
from moec_zarr.conversion.worker import DestinationError, Task, run
from moec_zarr.errors import CorruptStreamError, MoECError

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client, Future

__all__ = ["Job", "convert", "execute", "make", "plan_job", "records_of", "tasks_done", "tasks_of"]

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_TICK = 1.0  # seconds between reports of progress while no task ends
_PATIENCE = 60.0  # seconds without a result after which workers are looked for
_MARK = 10.0  # seconds between two notes in the destination of how much is done
_AHEAD = 8  # tasks that wait for each that runs, where they are short


def convert(
    src: Source,
    dst: Destination,
    codec: MoECCodec | Mapping[Any, MoECCodec | None] | None = None,
    *,
    variables: Iterable[Hashable] | None = None,
    chunks: Literal["auto"] | Sizes = "auto",
    shards: Sizes | None = None,
    zarr_format: Literal[2, 3] = 3,
    append: str | None = None,
    incomplete: Incomplete | None = None,
    client: Client | str | None = None,
    workers: int | None = None,
    resources: Mapping[str, float] | None = None,
    resume: bool = True,
    break_lock: bool = False,
    storage_options: StorageOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> xr.Dataset:
    """Convert whatever xarray opens into a compressed zarr store.

    Fields are compressed; coordinates, times, flags, text and all else are copied without loss. Each chunk,
    or shard, is read, fitted, written, read back and compared by one task in a worker process, which holds
    no other at the time. A run that was killed goes on where it stopped when it is started again.

    `moec_zarr.config` sets where to fit, and with how many threads. A script that
    lets a cluster be made must be importable, since its workers import it: begin its work under
    ``if __name__ == "__main__":``.

    Parameters
    ----------
    src : Dataset, DataArray, path, or sequence of paths
        An open dataset or array; a local path or fsspec URL of a zarr store, of one file that xarray opens,
        or of a directory of such files; a glob pattern, or a sequence of paths.
    dst : path or zarr Store
        A local path, an fsspec URL or a zarr store, to hold the result.
    codec : MoECCodec or mapping of variable name to MoECCodec or None
        The codec of all variables, or of each one to compress; ``"*"`` stands for all others that hold
        fields, and None for a variable that stays lossless. An append takes what the store has.
    variables : iterable of str, optional
        Names of the data variables to compress; all others stay lossless. By default those that hold fields.
    chunks : "auto" or mapping of dimension to int
        Sizes of chunks, in voxels; -1 is the whole dimension. Dimensions that are not named are chosen.
    shards : mapping of dimension to int, optional
        Sizes of shards, in voxels; dimensions that are not named take one chunk.
    zarr_format : {2, 3}
        Format of the destination.
    append : str, optional
        The dimension to append along, such as ``"time"``: what is new in `src` is added to the store at
        `dst`, with the settings that it was made with. Steps that the store has are recognised by their
        coordinate, and not made again. Where there is no store yet, one is made.
    incomplete : {"hold", "refit"}, optional
        What to do with steps at the end of the dimension that is appended along that do not fill a chunk:
        keep them back, or store them, and make that chunk again from the source when more are appended. Such
        steps are refused by default.
    client : distributed.Client or str, optional
        Where to run: a client, or the address of a scheduler. By default a cluster is made on this machine.
    workers : int, optional
        Number of worker processes of that cluster; by default one a core, or one a graphics card.
    resources : mapping of str to float, optional
        What each task takes of a worker's dask resources. By default ``{"GPU": 1}`` where the device is
        ``"cuda"`` and workers offer it.
    resume : bool
        Go on with what an earlier run left at `dst`. If False, a zarr store at `dst` is replaced.
    break_lock : bool
        Take `dst` over from a run that was killed, and left its lock there. Never while that run goes on.
    storage_options : mapping, optional
        What fsspec is given for remote places, source and destination alike: an endpoint, credentials.
    progress : callable, optional
        Called with a `Progress` at the start, after each task, and about every second between.

    Returns
    -------
    Dataset
        The destination, opened lazily. Its variables have forgotten how they are stored, so that writing it
        elsewhere does not compress, and lose, a second time.

    Raises
    ------
    ConversionError
        If chunks failed, each after three attempts, or one where another could not do better.
    MoECError
        If the settings or the source differ from those that the destination was begun with, it holds
        something else, it is full or read-only, nothing is to be compressed, or workers cannot do the work.
    BudgetError, UnsupportedArrayError
        If a variable cannot be compressed as asked, before any work is done.
    FileNotFoundError
        If there is nothing at `src`.
    """
    if workers is not None and (client is not None or workers < 1):
        raise MoECError(
            f"workers= counts those of a cluster that is made here, at least one; got {workers!r}"
        )
    with open_source(src, storage_options) as ds:
        job = plan_job(
            ds, dst, codec, variables=variables, chunks=chunks, shards=shards, zarr_format=zarr_format,
            append=append, incomplete=incomplete, resume=resume, storage_options=storage_options,
        )  # fmt: skip
        result = execute(
            job, src, dst, client=client, workers=workers, resources=resources, resume=resume,
            break_lock=break_lock, storage_options=storage_options, progress=progress,
        )  # fmt: skip
    if result.failures:
        first = result.failures[0]
        raise ConversionError(
            f"{len(result.failures)} of {job.plan.tasks} chunks failed; the first is {first.index} of "
            f"{first.variable!r}: {first.error}. The others are done; the same call tries these again",
            result,
        )
    return open_result(dst, job.plan.zarr_format, storage_options)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a conversion, or an append, will do.

    Attributes
    ----------
    plan : Plan
        Of the whole destination.
    ds : Dataset
        The source.
    growth : Growth or None
        What an append will do; None where the destination is made.
    held : int
        Number of steps at the end that are kept back.
    """

    plan: Plan
    ds: xr.Dataset
    growth: Growth | None = None
    held: int = 0

    @property
    def offsets(self) -> dict[str, int]:
        """Position in the destination of the first voxel of the source, by dimension, where it is not 0."""
        return {} if self.growth is None else {self.growth.dim: self.growth.offset}

    def manifest(self, src: Source, options: StorageOptions | None) -> Manifest:
        """What the destination will say that it was made by."""
        source = fingerprint(src, self.ds, options)
        if self.growth is None:
            return Manifest(plan=self.plan.to_dict(), source=source)
        return Manifest(
            plan=self.plan.to_dict(),
            source=source,
            created=True,
            along=self.growth.dim,
            earlier=self.growth.earlier,
        )


def plan_job(
    ds: xr.Dataset,
    dst: Destination,
    codec: MoECCodec | Mapping[Any, MoECCodec | None] | None,
    *,
    variables: Iterable[Hashable] | None = None,
    chunks: Literal["auto"] | Sizes = "auto",
    shards: Sizes | None = None,
    zarr_format: Literal[2, 3] = 3,
    append: str | None = None,
    incomplete: Incomplete | None = None,
    resume: bool = True,
    storage_options: StorageOptions | None = None,
) -> Job:
    """Plan what `convert` does; its parameters. Nothing is written."""
    if incomplete is not None and append is None:
        raise MoECError("incomplete= (--incomplete) belongs to an append; name the dimension")
    if append is not None and not resume:
        raise MoECError(
            "an append keeps what is there, and --overwrite (resume=False) replaces it; choose one"
        )
    if append is not None:
        growth = plan_append(ds, store_at(dst, storage_options), append, incomplete)
        if growth is not None:
            if codec is not None or variables is not None or chunks != "auto" or shards is not None:
                raise MoECError(
                    "an append takes codec, variables, chunks and shards from the store; leave them out"
                )
            return Job(plan=growth.plan, ds=growth.ds, growth=growth, held=growth.held)
    if codec is None:
        raise MoECError(
            f"no finished conversion is at {dst} to append to; give a codec (--ratio or --psnr) to make one"
        )
    planned = plan(ds, codec, variables=variables, chunks=chunks, shards=shards, zarr_format=zarr_format)
    if incomplete != "hold" or append is None:
        return Job(plan=planned, ds=ds)
    if chunks == "auto" or append not in chunks:
        raise MoECError(
            f"give the size of chunks along {append!r} (--chunks {append}=N), so that it does not depend on "
            "how many steps there are when the store is made"
        )
    whole = whole_chunks(planned, append)
    if not whole:
        raise MoECError(f"the source does not fill one chunk along {append!r}, so nothing would be stored")
    part = ds.isel({append: slice(whole)})
    planned = plan(part, codec, variables=variables, chunks=chunks, shards=shards, zarr_format=zarr_format)
    return Job(plan=planned, ds=part, held=ds.sizes[append] - whole)


def execute(
    job: Job,
    src: Source,
    dst: Destination,
    *,
    client: Client | str | None = None,
    workers: int | None = None,
    resources: Mapping[str, float] | None = None,
    resume: bool = True,
    break_lock: bool = False,
    storage_options: StorageOptions | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Do what was planned by `plan_job`; the other parameters are those of `convert`.

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
    refuse_overlap(src, job.ds, dst, storage_options)
    wanted = job.manifest(src, storage_options)
    try:
        store = store_at(dst, storage_options)
        begun = find_begun(store, dst, wanted) if resume else None
        if not resume:
            refuse_other_than_store(store, dst)
        idle = job.growth is not None and not job.growth.added
        if idle and begun is not None and begun[1].precedes(wanted):
            _log.info("the source has nothing that %s lacks", dst)
            state.records = _flat(records_of(job.plan, *begun))
            state.resumed = len(state.records)
            return state
        with ExitStack() as held:
            connected = None
            if begun is None or not begun[1].created or begun[1].precedes(wanted):
                # Workers come first: a run that they refuse leaves nothing behind.
                say("starting workers")
                connected = held.enter_context(connect(client, workers))
                needed = resources_for(connected, resources)
            lock = held.enter_context(hold_lock(store, break_lock))
            say("writing metadata")
            if job.growth is None:
                group = open_destination(job.plan, job.ds, store, dst, wanted, resume)
            else:
                group = _grown(job.growth, store, dst, wanted)
            say("checking what is there")
            done = records_of(job.plan, group, wanted)
            state.records = _flat(done)
            state.resumed = len(state.records)
            if state.resumed < job.plan.tasks:
                if connected is None:
                    say("starting workers")
                    connected = held.enter_context(connect(client, workers))
                    needed = resources_for(connected, resources)
                left = {
                    each.name: [index for index in each.indices() if index not in done[each.name]]
                    for each in job.plan.variables
                    if each.tasks
                }
                tasks = tasks_of(job.plan, job.ds, group, left, wanted, job.offsets)
                make(connected, tasks, needed, group, lock, state, progress)
            write_attributes(job.plan, src, group, state, "appended" if job.growth else "converted")
            write_quality(group, job.plan, state.records)
    except SourceError:
        raise
    except OSError as error:
        raise DestinationError(f"the destination {dst} cannot be written: {error}") from error
    return state


def tasks_done(
    job: Job, src: Source, dst: Destination, *, resume: bool, storage_options: StorageOptions | None
) -> dict[str, int]:
    """Number of tasks that an earlier run has done, by variable; the parameters are those of `execute`."""
    wanted = job.manifest(src, storage_options)
    begun = find_begun(store_at(dst, storage_options), dst, wanted) if resume else None
    if begun is None:
        return {}
    done = records_of(job.plan, begun[0], wanted)
    return {name: len(records) for name, records in done.items()}


def records_of(
    planned: Plan, group: zarr.Group, manifest: Manifest
) -> dict[str, dict[tuple[int, ...], Record]]:
    """The tasks that are done, by variable and index; what is damaged does not count, and is logged."""
    done = {}
    for each in planned.variables:
        if each.tasks:
            records, damage = read_records(group[each.name], each.name, manifest.digests(each.name))  # type: ignore[arg-type]
            for index, why in damage.items():
                _log.warning("chunk %s of %r is made again: %s", index, each.name, why)
            done[each.name] = records
    return done


def _flat(done: Mapping[str, Mapping[tuple[int, ...], Record]]) -> list[Record]:
    return [record for each in done.values() for record in each.values()]


@without_expected_warnings()
def _grown(growth: Growth, store: Any, dst: Destination, wanted: Manifest) -> zarr.Group:
    """The destination with room for what is appended."""
    begun = find_begun(store, dst, wanted)
    if begun is None:
        raise MoECError(f"the store at {dst} has gone")
    _, manifest = begun
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    if manifest.precedes(wanted) or not manifest.created:
        mark(group, 0, growth.plan.tasks)
        grow(growth, group, wanted)
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
    return group


def tasks_of(
    planned: Plan,
    ds: xr.Dataset,
    group: zarr.Group,
    wanted: Mapping[str, Iterable[tuple[int, ...]]],
    manifest: Manifest,
    offsets: Mapping[str, int],
) -> Iterator[Task]:
    """The tasks at the indices that are wanted of each variable, made one by one as they are asked for."""
    from dask.base import optimize

    for each in planned.variables:
        if not each.tasks or each.name not in wanted:
            continue
        meaning = {key: value for key, value in each.encoding.items() if key not in STORAGE}
        digests = manifest.digests(each.name)
        array: Any = group[each.name]
        for index in wanted[each.name]:
            whole = each.region(index)
            region, inside = _covered(whole, each.dims, offsets)
            source = ds.variables[each.name][inside].to_base_variable()
            if source.chunks is not None:
                # Only what this region needs travels to the worker, not the graph of the whole source.
                (source,) = optimize(source)
            source = source.copy(deep=False)
            source.attrs, source.encoding = {}, meaning
            yield Task(
                variable=each.name,
                index=index,
                region=region,
                source=source,
                bytes_before=each.dtype.itemsize * (_size(whole) - _size(region)),
                files=files_behind(ds, each.dims, inside),
                array=array,
                codec=each.codec,
                plan=digests.at(index),
                device=config.get("device"),
                threads=config.get("threads"),
            )


def _covered(
    region: tuple[slice, ...], dims: tuple[str, ...], offsets: Mapping[str, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What of a region of the destination the source holds, and where in the source that is.

    That is less than the region where a lossless chunk was begun by another source: what is there stays.
    """
    starts = [offsets.get(dim, 0) for dim in dims]
    region = tuple(slice(max(part.start, at), part.stop) for part, at in zip(region, starts, strict=True))
    inside = tuple(slice(part.start - at, part.stop - at) for part, at in zip(region, starts, strict=True))
    return region, inside


def _size(region: tuple[slice, ...]) -> int:
    return math.prod(part.stop - part.start for part in region)


def make(
    client: Client,
    tasks: Iterator[Task],
    resources: Mapping[str, float],
    group: zarr.Group,
    lock: Lock,
    state: Progress,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Keep every worker busy until all tasks are done or have failed for good.

    Raises
    ------
    MoECError
        If the cluster lost the tasks, its workers write elsewhere, or the lock was broken.
    DestinationError
        If the destination is full or read-only.
    """
    from dask import config as dask_config
    from distributed import wait

    running: dict[Future[Any], tuple[Task, int]] = {}  # in the order in which they were handed out
    began: dict[Future[Any], float] = {}  # of those that a worker has
    slots = 1
    heard = counted = marked = -math.inf
    state.started = time.monotonic()
    state.phase = ""

    def submit(task: Task, attempt: int) -> None:
        name = f"{task.variable}-{'.'.join(map(str, task.index))}-{attempt}"
        # A task may carry its region of a source that lives in memory; dask's warning is for larger things.
        with dask_config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            future = client.submit(
                run, task, attempt, key=f"moec-{task.plan}-{name}-{time.time_ns()}", pure=False,
                resources=dict(resources) or None, retries=0,
            )  # fmt: skip
        running[future] = (task, attempt)

    def fill() -> None:
        # One waits for each that runs, so that no worker is idle and the client holds few at a time; more
        # where tasks end faster than the client could hand out the next one.
        nonlocal slots, counted
        if time.monotonic() - counted > _TICK:
            slots = max(1, sum(worker["nthreads"] for worker in offering(client, resources).values()))
            state.workers, counted = slots, time.monotonic()
        made = state.records[max(state.resumed, len(state.records) - slots) :]
        short = made and max(record.seconds for record in made) < 1
        while len(running) < slots * (1 + (_AHEAD if short else 1)):
            task = next(tasks, None)
            if task is None:
                return
            submit(task, 1)

    def report() -> None:
        """Tell how far it is: the caller, and now and then the destination."""
        nonlocal marked
        now = time.monotonic()
        for future in running:
            if len(began) < slots:
                began.setdefault(future, now)
        state.running = [(running[future][0].variable, at) for future, at in began.items()]
        if now - marked > _MARK:
            mark(group, len(state.records), state.plan.tasks)
            marked = now
        if progress is not None:
            progress(state)

    try:
        fill()
        heard = time.monotonic()
        report()
        while running:
            lock.check()
            try:
                with client.as_current():
                    finished = wait(list(running), timeout=_TICK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                report()
                if time.monotonic() - heard > _PATIENCE and not offering(client, resources):
                    heard = time.monotonic()
                    _log.warning(
                        "no worker is left that offers %s; waiting for one", dict(resources) or "its time"
                    )
                continue
            heard = time.monotonic()
            made = [future for future in finished if future.status == "finished"]
            fetched = dict(zip(made, client.gather(made), strict=True))  # in one message for all
            for future in finished:
                task, attempt = running.pop(future)
                began.pop(future, None)
                error = None if future in fetched else _error_of(future)
                if error is None:
                    if len(state.records) == state.resumed and not has_record(task.array, task.index):
                        raise MoECError(
                            "what the workers write cannot be seen from here; the destination must be a "
                            "place that all processes share, not one in memory or on a machine's own disk"
                        )
                    state.records.append(fetched[future])
                elif isinstance(error, DestinationError):
                    raise error
                elif attempt < _ATTEMPTS and _is_retryable(error):
                    _log.warning(
                        "chunk %s of %r failed and is tried again: %r", task.index, task.variable, error
                    )
                    submit(task, attempt + 1)
                    continue
                else:
                    state.failures.append(_failure(task, error, attempt))
                    _log.info("chunk %s of %r failed", task.index, task.variable, exc_info=error)
                report()
            fill()
    finally:
        state.running = []
        if running:
            client.cancel(list(running), force=True)


def _error_of(future: Future[Any]) -> BaseException | None:
    """What a finished task raised."""
    if future.cancelled():
        raise MoECError(
            "the scheduler lost the tasks; see to the cluster and start the same conversion again"
        )
    error: BaseException | None = future.exception()
    return error


def _is_retryable(error: BaseException) -> bool:
    """Whether another attempt could end otherwise. A fit would not; a dead worker dask itself replaced."""
    from distributed import KilledWorker

    return isinstance(error, CorruptStreamError) or not isinstance(error, (MoECError, KilledWorker))


def _failure(task: Task, error: BaseException, attempts: int) -> Failure:
    text = " ".join(str(error).split()) or type(error).__name__
    return Failure(variable=task.variable, index=task.index, error=text, attempts=attempts)
