"""From a dataset to a compressed store, on dask: metadata once, then one task for each chunk or shard."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import zarr

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.config import config
from moec_zarr.conversion.cluster import connect, offering, resources_for
from moec_zarr.conversion.destination import (
    Destination,
    open_destination,
    open_result,
    refuse_overlap,
    write_attributes,
)
from moec_zarr.conversion.manifest import Manifest, Record, has_record, read_records
from moec_zarr.conversion.plan import STORAGE, Plan, Sizes, plan
from moec_zarr.conversion.quality_table import write_quality
from moec_zarr.conversion.source import Source, fingerprint, open_source
from moec_zarr.conversion.status import ConversionError, Failure, Progress
from moec_zarr.conversion.worker import DestinationError, Task, run
from moec_zarr.errors import CorruptStreamError, MoECError

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client, Future

__all__ = ["convert", "execute"]

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_TICK = 60  # seconds without a result after which workers are looked for


def convert(
    src: Source,
    dst: Destination,
    codec: MoECCodec | Mapping[Any, MoECCodec | None],
    *,
    variables: Iterable[Hashable] | None = None,
    chunks: Literal["auto"] | Sizes = "auto",
    shards: Sizes | None = None,
    zarr_format: Literal[2, 3] = 3,
    client: Client | str | None = None,
    workers: int | None = None,
    resources: Mapping[str, float] | None = None,
    resume: bool = True,
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
        fields, and None for a variable that stays lossless.
    variables : iterable of str, optional
        Names of the data variables to compress; all others stay lossless. By default those that hold fields.
    chunks : "auto" or mapping of dimension to int
        Sizes of chunks, in voxels; -1 is the whole dimension. Dimensions that are not named are chosen.
    shards : mapping of dimension to int, optional
        Sizes of shards, in voxels; dimensions that are not named take one chunk.
    zarr_format : {2, 3}
        Format of the destination.
    client : distributed.Client or str, optional
        Where to run: a client, or the address of a scheduler. By default a cluster is made on this machine.
    workers : int, optional
        Number of worker processes of that cluster; by default one a core, or one a graphics card.
    resources : mapping of str to float, optional
        What each task takes of a worker's dask resources. By default ``{"GPU": 1}`` where the device is
        ``"cuda"`` and workers offer it.
    resume : bool
        Go on with what an earlier run left at `dst`. If False, a zarr store at `dst` is replaced.
    progress : callable, optional
        Called with a `Progress` at the start and after each task.

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
    with open_source(src) as ds:
        planned = plan(ds, codec, variables=variables, chunks=chunks, shards=shards, zarr_format=zarr_format)
        result = execute(
            planned,
            src,
            ds,
            dst,
            client=client,
            workers=workers,
            resources=resources,
            resume=resume,
            progress=progress,
        )
    if result.failures:
        first = result.failures[0]
        raise ConversionError(
            f"{len(result.failures)} of {planned.tasks} chunks failed; the first is {first.index} of "
            f"{first.variable!r}: {first.error}. The others are done; the same call tries these again",
            result,
        )
    return open_result(dst, zarr_format)


def execute(
    planned: Plan,
    src: Source,
    ds: xr.Dataset,
    dst: Destination,
    *,
    client: Client | str | None = None,
    workers: int | None = None,
    resources: Mapping[str, float] | None = None,
    resume: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Do what a plan says; the parameters are those of `convert`, and what it opened.

    Returns
    -------
    Progress
        What was done and what failed.

    Raises
    ------
    MoECError
        As `convert` does, except for chunks that failed.
    """
    refuse_overlap(src, ds, dst)
    manifest = Manifest(plan=planned.to_dict(), source=fingerprint(src, ds))
    try:
        group = open_destination(planned, ds, dst, manifest, resume)
    except OSError as error:
        raise DestinationError(f"the destination {dst} cannot be written: {error}") from error
    arrays: dict[str, Any] = {each.name: group[each.name] for each in planned.variables if each.tasks}
    done = {name: read_records(array, name, manifest.digest) for name, array in arrays.items()}
    records = [record for each in done.values() for record in each.values()]
    state = Progress(
        plan=planned, resumed=len(records), records=records, failures=[], started=time.monotonic()
    )
    if progress is not None:
        progress(state)
    if state.resumed < planned.tasks:
        with connect(client, workers) as connected:
            needed = resources_for(connected, resources)
            tasks = _tasks(planned, ds, arrays, done, manifest.digest)
            state.started = time.monotonic()
            _run_all(connected, tasks, needed, state, progress)
    write_attributes(planned, src, group, state)
    write_quality(group, planned, state.records)
    return state


def _tasks(
    planned: Plan,
    ds: xr.Dataset,
    arrays: Mapping[str, zarr.Array[Any]],
    done: Mapping[str, Mapping[tuple[int, ...], Record]],
    digest: str,
) -> Iterator[Task]:
    """The tasks that are not done, made one by one as they are asked for."""
    from dask.base import optimize

    for each in planned.variables:
        meaning = {key: value for key, value in each.encoding.items() if key not in STORAGE}
        for index in each.indices():
            if index in done[each.name]:
                continue
            region = each.region(index)
            source = ds.variables[each.name][region].to_base_variable()
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
                array=arrays[each.name],
                codec=each.codec,
                plan=digest,
                device=config.get("device"),
                threads=config.get("threads"),
            )


def _run_all(
    client: Client,
    tasks: Iterator[Task],
    resources: Mapping[str, float],
    state: Progress,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Keep every worker busy until all tasks are done or have failed for good."""
    from dask import config as dask_config
    from distributed import wait

    running: dict[Future[Any], tuple[Task, int]] = {}

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
        # One waits for each that runs, so that no worker is idle and the client holds few at a time.
        slots = sum(worker["nthreads"] for worker in offering(client, resources).values())
        while len(running) < 2 * max(1, slots):
            task = next(tasks, None)
            if task is None:
                return
            submit(task, 1)

    try:
        fill()
        while running:
            try:
                with client.as_current():
                    finished = wait(list(running), timeout=_TICK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                if not offering(client, resources):
                    _log.warning(
                        "no worker is left that offers %s; waiting for one", dict(resources) or "its time"
                    )
                continue
            for future in finished:
                task, attempt = running.pop(future)
                error = _error_of(future)
                if error is None:
                    if len(state.records) == state.resumed and not has_record(task.array, task.index):
                        raise MoECError(
                            "what the workers write cannot be seen from here; the destination must be a "
                            "place that all processes share, not one in memory or on a machine's own disk"
                        )
                    state.records.append(future.result())
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
                if progress is not None:
                    progress(state)
            fill()
    finally:
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
