"""Tasks handed out to the workers of a cluster, until all are done or have failed for good."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zarr

from moec_zarr.adapters.meaning import part_of
from moec_zarr.archive.lock import Lock
from moec_zarr.archive.manifest import Manifest
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.records import Record, has_record
from moec_zarr.archive.status import Failure, Progress
from moec_zarr.config import config
from moec_zarr.conversion.plan.joining import files_behind
from moec_zarr.conversion.plan.options import OnBudget
from moec_zarr.conversion.work.cluster import offering
from moec_zarr.conversion.work.outcome import mark
from moec_zarr.conversion.work.worker import DestinationError, Task, count_chunks, do_tasks
from moec_zarr.errors import CorruptStreamError, MoECError
from moec_zarr.runtime import group_size

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client, Future

__all__ = ["error_of", "make_tasks", "run_tasks"]

_log = logging.getLogger(__name__)
_ATTEMPTS = 3
_TICK = 1.0  # seconds between reports of progress while no task ends
_PATIENCE = 60.0  # seconds without a result after which workers are looked for
_MARK = 10.0  # seconds between two notes in the destination of how much is done
_AHEAD = 8  # tasks that wait for each that runs, where they are short


def make_tasks(
    planned: Plan,
    ds: xr.Dataset,
    group: zarr.Group,
    wanted: Mapping[str, Iterable[tuple[int, ...]]],
    manifest: Manifest,
    offsets: Mapping[str, int],
    on_budget: OnBudget = "keep",
) -> Iterator[Task]:
    """Iterate over tasks at the indices that are wanted of each variable, made as they are asked for."""
    for each in planned.variables:
        if not each.tasks or each.name not in wanted:
            continue
        digests = manifest.digests(each.name)
        array: Any = group[each.name]
        for index in wanted[each.name]:
            whole = each.grid.region(index)
            region, inside = _covered(whole, each.dims, offsets)
            yield Task(
                variable=each.name,
                index=index,
                region=region,
                source=part_of(ds.variables[each.name], inside, each.encoding),
                bytes_before=each.dtype.itemsize * (_size(whole) - _size(region)),
                files=files_behind(ds, each.dims, inside),
                array=array,
                codec=each.codec,
                plan=digests.at(index),
                device=config.get("device"),
                threads=config.get("threads"),
                group=group_size(math.prod(array.chunks)),
                on_budget=on_budget,
            )


def _covered(
    region: tuple[slice, ...], dims: tuple[str, ...], offsets: Mapping[str, int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what of a region of the destination the source holds, and where in the source that is.

    That is less than the region where a lossless chunk was begun by another source: what is there stays.
    """
    starts = [offsets.get(dim, 0) for dim in dims]
    region = tuple(slice(max(part.start, at), part.stop) for part, at in zip(region, starts, strict=True))
    inside = tuple(slice(part.start - at, part.stop - at) for part, at in zip(region, starts, strict=True))
    return region, inside


def _size(region: tuple[slice, ...]) -> int:
    return math.prod(part.stop - part.start for part in region)


def run_tasks(
    client: Client,
    tasks: Iterator[Task],
    resources: Mapping[str, float],
    group: zarr.Group | None,
    lock: Lock,
    state: Progress,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Keep every worker busy until all tasks are done or have failed for good.

    Now and then `group`, if it is given, says how many are done.

    Raises
    ------
    MoECError
        If the cluster lost the tasks, its workers write elsewhere, or the lock was broken.
    DestinationError
        If the destination is full or read-only.
    """
    from distributed import wait

    state.started, state.phase = time.monotonic(), ""
    dispatch = _Dispatch(client=client, jobs=_jobs(tasks), resources=resources, state=state)
    heard, marked = time.monotonic(), -math.inf

    def report() -> None:
        """Tell how far it is: the caller, and now and then the destination."""
        nonlocal marked
        dispatch.note_running()
        if group is not None and time.monotonic() - marked > _MARK:
            mark(group, len(state.records), state.plan.tasks)
            marked = time.monotonic()
        if progress is not None:
            progress(state)

    try:
        dispatch.fill()
        report()
        while dispatch.running:
            lock.check()
            try:
                with client.as_current():
                    waiting = wait(list(dispatch.running), timeout=_TICK, return_when="FIRST_COMPLETED")
            except TimeoutError:
                report()
                if time.monotonic() - heard > _PATIENCE and not offering(client, resources):
                    heard = time.monotonic()
                    _log.warning(
                        "no worker is left that offers %s; waiting for one", dict(resources) or "its time"
                    )
                continue
            heard = time.monotonic()
            made = [future for future in waiting.done if future.status == "finished"]
            fetched = dict(zip(made, client.gather(made), strict=True))  # in one message for all
            for future in waiting.done:
                dispatch.settle(future, fetched.get(future))
                report()
            dispatch.fill()
    finally:
        state.running = []
        if dispatch.running:
            client.cancel(list(dispatch.running), force=True)


@dataclass(kw_only=True, eq=False)
class _Dispatch:
    """Jobs on their way to workers, and back.

    Attributes
    ----------
    client : Client
    jobs : iterator of list of Task
        What is left to hand out; a worker does the tasks of a job together.
    resources : mapping of str to float
        What a job takes of a worker.
    state : Progress
        Gets the records and the failures.
    running : dict of Future to (list of Task, int)
        The jobs that were handed out, in that order, and which attempt each is.
    began : dict of Future to float
        `time.monotonic` when a worker had the job, as far as is known here.
    slots : int
        Number of jobs that the cluster does at a time.
    counted : float
        When they were counted.
    """

    client: Client
    jobs: Iterator[list[Task]]
    resources: Mapping[str, float]
    state: Progress
    running: dict[Future[Any], tuple[list[Task], int]] = field(default_factory=dict)
    began: dict[Future[Any], float] = field(default_factory=dict)
    slots: int = 1
    counted: float = -math.inf

    def fill(self) -> None:
        """Hand out jobs: one waits for each that runs, more where tasks end faster than jobs are handed out.

        So no worker is idle, and the client holds few at a time.
        """
        state = self.state
        if time.monotonic() - self.counted > _TICK:
            workers = offering(self.client, self.resources).values()
            self.slots = max(1, sum(worker["nthreads"] for worker in workers))
            state.workers, self.counted = self.slots, time.monotonic()
        made = state.records[max(state.resumed, len(state.records) - self.slots) :]
        short = made and max(record.seconds for record in made) < 1
        while len(self.running) < self.slots * (1 + (_AHEAD if short else 1)):
            job = next(self.jobs, None)
            if job is None:
                return
            state.together = max(state.together, len(job))
            self._submit(job, 1)

    def _submit(self, job: list[Task], attempt: int) -> None:
        from dask import config as dask_config

        task = job[0]
        name = f"{task.variable}-{'.'.join(map(str, task.index))}-{attempt}"
        # A task may carry its region of a source that lives in memory; dask's warning is for larger things.
        with dask_config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            future = self.client.submit(
                do_tasks, job, attempt, key=f"moec-{task.plan}-{name}-{time.time_ns()}", pure=False,
                resources=dict(self.resources) or None, retries=0,
            )  # fmt: skip
        self.running[future] = (job, attempt)

    def note_running(self) -> None:
        """Note in the state which tasks workers have."""
        now = time.monotonic()
        for future in self.running:
            if len(self.began) < self.slots:
                self.began.setdefault(future, now)
        self.state.running = [
            (task.variable, at) for future, at in self.began.items() for task in self.running[future][0]
        ]

    def settle(self, future: Future[Any], results: Sequence[Record | BaseException] | None) -> None:
        """Settle the tasks of a job that has ended; without results it failed as a whole.

        As where its worker died: then it is taken apart.
        """
        job, attempt = self.running.pop(future)
        self.began.pop(future, None)
        for task, result in zip(job, results or [error_of(future)] * len(job), strict=True):
            self._settle_task(task, result, attempt)

    def _settle_task(self, task: Task, result: Record | BaseException, attempt: int) -> None:
        """Keep the record of a task, or try it again, or count it as failed."""
        state = self.state
        if isinstance(result, Record):
            if len(state.records) == state.resumed and not has_record(task.array, task.index):
                raise MoECError(
                    "what the workers write cannot be seen from here; the destination must be a "
                    "place that all processes share, not one in memory or on a machine's own disk"
                )
            state.records.append(result)
        elif isinstance(result, DestinationError):
            raise result
        elif attempt < _ATTEMPTS and _is_retryable(result):
            _log.warning("chunk %s of %r failed and is tried again: %r", task.index, task.variable, result)
            self._submit([task], attempt + 1)
        else:
            state.failures.append(_failure(task, result, attempt))
            _log.info("chunk %s of %r failed", task.index, task.variable, exc_info=result)


def _jobs(tasks: Iterator[Task]) -> Iterator[list[Task]]:
    """Tasks of a variable that a worker does together."""
    job: list[Task] = []
    for task in tasks:
        if job and (task.variable != job[0].variable or len(job) == _together(job[0])):
            yield job
            job = []
        job.append(task)
    if job:
        yield job


def _together(task: Task) -> int:
    """Return how many tasks like this one a worker does together: a group, or two that share a GPU."""
    if task.group == 1 or task.codec is None or not task.codec.has_networks:
        return 1
    groups = 1 if task.device == "cpu" else 2  # one trains while the other is on the cores
    return -(-groups * task.group // count_chunks(task))


def error_of(future: Future[Any]) -> BaseException:
    """Return what a finished task raised."""
    if future.cancelled():
        raise MoECError("the scheduler lost the tasks; check the cluster and start the same conversion again")
    error: BaseException = future.exception()
    return error


def _is_retryable(error: BaseException) -> bool:
    """Whether another attempt could end otherwise. A fit would not; a dead worker dask itself replaced."""
    from distributed import KilledWorker

    return isinstance(error, CorruptStreamError) or not isinstance(error, (MoECError, KilledWorker))


def _failure(task: Task, error: BaseException, attempts: int) -> Failure:
    text = " ".join(str(error).split()) or type(error).__name__
    return Failure(variable=task.variable, index=task.index, error=text, attempts=attempts)
