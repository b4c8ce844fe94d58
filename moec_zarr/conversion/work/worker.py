"""What a worker does: chunks, or shards, from the source to the destination."""

from __future__ import annotations

import errno
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import StorePath, WrapperStore

from moec_zarr.adapters.meaning import stored_values
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.archive.inspection import headers_within
from moec_zarr.archive.records import Record, write_record
from moec_zarr.archive.storage import close_at_exit, digest_of, read_object
from moec_zarr.arrays import Array
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.codec.fidelity import find_missed
from moec_zarr.config import config
from moec_zarr.conversion.plan.options import OnBudget
from moec_zarr.conversion.plan.source import reading
from moec_zarr.errors import MoECError
from moec_zarr.fills import find_suspect
from moec_zarr.quality import Quality, measure, merge
from moec_zarr.statistics import Statistics, statistics, valid_voxels

if TYPE_CHECKING:
    import xarray as xr
    from zarr.abc.buffer import Buffer

__all__ = ["DestinationError", "Task", "count_chunks", "do_tasks", "measure_stored", "task_lock"]

_T = TypeVar("_T")
task_lock = threading.Lock()
"""A process does one job at a time, whatever number of threads it was given."""

_BLOCK = 2**20  # voxels compared at a time
_FATAL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class DestinationError(MoECError):
    """Raised when nothing more can be written: the destination is full or read-only."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One chunk, or one shard, to be made.

    Attributes
    ----------
    variable : str
        Name of the variable.
    index : tuple of int
        Position of the chunk, or shard, among the others.
    region : tuple of slice
        Its voxels in the array.
    source : xarray.Variable
        Those voxels in the source, not yet read, and the encoding of their values.
    bytes_before : int
        Bytes of other voxels of the chunk, which are there already and stay.
    files : list of str
        Where those voxels lie, as far as it is known.
    array : zarr.Array
        The array to write to.
    codec : MoECCodec or None
        None where the variable stays lossless.
    plan : str
        Digest of the plan.
    device : str
        Where to fit.
    threads : int
        Torch threads of the fit.
    group : int
        Number of chunks whose networks are trained together.
    on_budget : {"keep", "fail"}
        What becomes of a chunk that cannot be as small as its ratio asks.
    """

    variable: str
    index: tuple[int, ...]
    region: tuple[slice, ...]
    source: xr.Variable
    bytes_before: int
    files: list[str]
    array: zarr.Array[Any]
    codec: MoECCodec | None
    plan: str
    device: str
    threads: int
    group: int
    on_budget: OnBudget = "keep"


def do_tasks(tasks: Sequence[Task], attempt: int = 1) -> list[Record | Exception]:
    """Do some tasks side by side, so that the networks of their chunks are trained together.

    All regions are read before any is written, so that their fits begin at the same time.

    Parameters
    ----------
    tasks : sequence of Task
        Of one variable.
    attempt : int
        Which attempt it is.

    Returns
    -------
    list
        The record of each task, or the error that it ended with, which a single task raises.

    Raises
    ------
    MoECError
        If the target cannot be met, or what was read back is not what was asked for.
    DestinationError
        If the destination is full or read-only.
    OSError
        If the source cannot be read, or the destination not be written.
    """
    first, count = tasks[0], len(tasks)
    # The chunks of a shard would be fitted side by side, and a worker has the cores of one fit.
    together = max(1, min(first.group, count * count_chunks(first)))
    with (
        task_lock,
        config.set(
            device=first.device,
            threads=first.threads,
            group=first.group,
            budget=first.on_budget,
            progress=False,
        ),  # fmt: skip
        zarr.config.set({"async.concurrency": together}),
    ):
        if count == 1:
            return [_do_task(first, _values_of(first), attempt)]
        values = [_outcome(partial(_values_of, task)) for task in tasks]
        with ThreadPoolExecutor(count) as threads:
            futures = [
                threads.submit(_do_task, task, read, attempt, count)
                for task, read in zip(tasks, values, strict=True)
                if isinstance(read, _Read)
            ]
            made = iter([_outcome(future.result) for future in futures])
        return [next(made) if isinstance(read, _Read) else read for read in values]


def _outcome(call: Callable[[], _T]) -> _T | Exception:
    """Return what a call returns, or what it raises."""
    try:
        return call()
    except Exception as error:
        return error


class _Read(NamedTuple):
    values: Array
    seconds: float


def _values_of(task: Task) -> _Read:
    start = time.perf_counter()
    close_at_exit(task.array.store)
    return _Read(_stored_values(task), time.perf_counter() - start)


def _do_task(task: Task, read: _Read, attempt: int, together: int = 1) -> Record:
    """Write a region through zarr, read it back, compare, and put it on record.

    So many tasks are done `together`: they share alike in the time.
    """
    start, values = time.perf_counter(), read.values
    store = _TimedStore(task.array.store)
    timed = zarr.Array.from_dict(StorePath(store, task.array.path), task.array.metadata.to_dict())
    try:
        timed[task.region] = values
    except OSError as error:
        _refuse(error)
        raise
    written = time.perf_counter()
    stored = read_object(task.array, task.index) or b""
    parts, errors = _check(task, values)
    end = time.perf_counter()
    steps = {
        "reading": read.seconds,
        "writing": store.seconds / together,
        "fitting": (written - start - store.seconds) / together,
        "checking": (end - written) / together,
    }
    kinds, exceeded = _look_at_streams(task, stored)
    record = Record(
        variable=task.variable,
        index=task.index,
        bytes_in=task.bytes_before + values.nbytes,
        bytes_out=len(stored),
        quality=merge(parts),
        seconds=round((end - start) / together + read.seconds, 3),
        attempt=attempt,
        checksum=digest_of(stored) if stored else "",
        kinds=kinds,
        exceeded=exceeded,
        steps={name: round(seconds, 3) for name, seconds in steps.items()},
        statistics=errors,
        suspect=_describe_suspect(task, values),
    )
    try:
        write_record(task.array, record, task.plan)
    except OSError as error:
        _refuse(error)
        raise
    return record


def _describe_suspect(task: Task, values: Array) -> str:
    """Say what seems to stand for missing values, or is a peak; empty where nothing does."""
    if task.codec is None:
        return ""
    suspect = find_suspect(values, task.codec.missing)
    return "" if suspect is None else str(suspect)


def count_chunks(task: Task) -> int:
    """Return the number of chunks that are fitted for a task: those of a shard."""
    return len(ChunkGrid(tuple(part.stop - part.start for part in task.region), task.array.chunks))


class _TimedStore(WrapperStore[Store]):
    """A store that adds up how long its writing takes."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.seconds = 0.0

    async def set(self, key: str, value: Buffer) -> None:
        start = time.perf_counter()
        await super().set(key, value)
        self.seconds += time.perf_counter() - start


def measure_stored(task: Task) -> Quality:
    """Measure how far what is stored of a region is from the source.

    Raises
    ------
    MoECError
        If it is not what was asked for.
    SourceError
        If the source cannot be read.
    """
    with config.set(threads=task.threads):
        return merge(_check(task, _stored_values(task))[0])


def _stored_values(task: Task) -> Array:
    """Return the values of the region as they are to be stored, in the array's dtype."""
    with reading(task.files):
        values = stored_values(task.source, task.variable)
    return values.astype(task.array.dtype, copy=False)


def _refuse(error: OSError) -> None:
    """Raise what says that the destination cannot be written, where trying again does not help."""
    if error.errno in _FATAL_ERRNOS:
        raise DestinationError(f"the destination cannot be written: {error}") from error


def _look_at_streams(task: Task, stored: bytes) -> tuple[dict[str, int], int]:
    """Count the streams that were stored by kind, and those with more bytes than the ratio allows."""
    if task.codec is None or not stored:
        return {}, 0
    ratio = task.codec.ratio or 0
    found = list(headers_within(task.array, stored))
    exceeded = sum(
        length * ratio > math.prod(header.shape) * header.dtype.itemsize for _, header, _, length in found
    )
    return dict(Counter(kind for _, _, kind, _ in found)), exceeded


def _check(task: Task, values: Array) -> tuple[list[Quality], Statistics | None]:
    """Quality of each chunk of the region, read back from the store one at a time, and that of them all.

    Raises
    ------
    MoECError
        If a chunk does not hold what it must.
    """
    parts = []
    inner = ChunkGrid(values.shape, task.array.chunks)
    # One chunk is kept as it was read back; those of a shard are put together.
    back = np.empty_like(values) if task.codec is not None and len(inner) > 1 else values
    where = f"chunk {task.index} of {task.variable!r}"
    for inside in map(inner.region, inner.indices()):
        outside = tuple(
            slice(whole.start + part.start, whole.start + part.stop)
            for whole, part in zip(task.region, inside, strict=True)
        )
        expected, decoded = values[inside], np.asarray(task.array[outside])
        if task.codec is None:
            if not np.array_equal(expected, decoded, equal_nan=expected.dtype.kind in "fc"):
                raise MoECError(
                    f"{where} was stored without loss, but reads back changed; is the disk sound?"
                )
            parts.append(Quality(n=expected.size))
            continue
        part = _measure(expected, decoded, task.codec.missing, where)
        parts.append(part)
        if missed := find_missed(task.codec, expected, decoded, part):
            raise MoECError(f"{where} reads back with {missed}")
        if len(inner) > 1:
            back[inside] = decoded
        else:
            back = decoded
    return parts, None if task.codec is None else statistics(values, back, task.codec.missing)


def _measure(expected: Array, decoded: Array, missing: float | None, where: str) -> Quality:
    """Quality over the valid voxels; a flat block at a time, so that little is held beside the arrays.

    Raises
    ------
    MoECError
        If NaN, infinities or the sentinel do not stand where they stood.
    """
    x, y = expected.reshape(-1), decoded.reshape(-1)
    parts = []
    for start in range(0, x.size, _BLOCK):
        a, b = x[start : start + _BLOCK], y[start : start + _BLOCK]
        masked = ~valid_voxels(a, missing)
        lost = ~np.isfinite(b[~masked])
        if lost.any() or not np.array_equal(a[masked], b[masked], equal_nan=a.dtype.kind == "f"):
            raise MoECError(
                f"{where} reads back with NaN, infinities or the sentinel where they did not stand"
            )
        parts.append(measure(a, b, ~masked))
    return merge(parts)
