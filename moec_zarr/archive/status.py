"""How far a conversion has come, and what became of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.archive.records import Record
from moec_zarr.errors import MoECError
from moec_zarr.quality import Quality, merge

__all__ = ["ConversionError", "Failure", "Progress", "Summary"]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A task that failed for good.

    Attributes
    ----------
    variable : str
        Name of the variable.
    index : tuple of int
        Position of the chunk, or shard, among the others.
    error : str
        What the last attempt raised.
    attempts : int
        How many were made.
    """

    variable: str
    index: tuple[int, ...]
    error: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of one variable, as far as its chunks are done.

    Attributes
    ----------
    codec : MoECCodec or None
        None where it stays lossless.
    done, tasks : int
        Number of tasks that are done, and of all.
    bytes_in, bytes_out : int
        Bytes of the chunks that are done, before and after.
    quality : Quality
        How far their values are from the source's.
    kinds : dict of str to int
        How many of their streams hold a transform, a network ("model"), both, a constant or lossless values.
    exceeded : int
        Number of their streams that take more bytes than the ratio allows.
    smallest_ratio : float or None
        That of the task which takes the most of what it was given; None where nothing was stored.
    suspects : tuple of (tuple of int, str)
        The chunks in which a value stands apart from all others: position, and what was found.
    """

    codec: MoECCodec | None
    done: int
    tasks: int
    bytes_in: int
    bytes_out: int
    quality: Quality
    kinds: dict[str, int]
    exceeded: int = 0
    smallest_ratio: float | None = None
    suspects: tuple[tuple[tuple[int, ...], str], ...] = ()

    @property
    def ratio(self) -> float | None:
        """Bytes before over bytes after; None where nothing was stored."""
        return self.bytes_in / self.bytes_out if self.bytes_out else None


@dataclass(kw_only=True)
class Progress:
    """The state of a conversion, passed to the caller's function after each task.

    Attributes
    ----------
    plan : Plan
        The plan of the conversion.
    resumed : int
        Number of tasks that an earlier run had finished.
    records : list of Record
        The records of all finished tasks.
    failures : list of Failure
        Tasks that failed for good.
    started : float
        `time.monotonic` when the first task was submitted.
    phase : str
        A description of what is being done now; empty while chunks are compressed.
    workers : int
        Number of jobs that run at a time.
    together : int
        Number of tasks of a job, which a worker does side by side.
    file_bytes : int
        Of the files of the source, with those of earlier appends; 0 where it has none.
    running : list of (str, float)
        For each running task, as far as the client knows: its variable, and `time.monotonic` when it began.
    """

    plan: Plan
    resumed: int
    records: list[Record]
    failures: list[Failure]
    started: float
    phase: str = ""
    workers: int = 1
    together: int = 1
    file_bytes: int = 0
    running: list[tuple[str, float]] = field(default_factory=list)

    @property
    def bytes_in(self) -> int:
        """Bytes of the finished chunks before compression."""
        return sum(record.bytes_in for record in self.records)

    @property
    def bytes_out(self) -> int:
        """Bytes of the finished chunks as stored."""
        return sum(record.bytes_out for record in self.records)

    @property
    def mean_psnr(self) -> float | None:
        """Mean PSNR in dB of the finished chunks, each with its own range; None before the first."""
        values = [psnr for record in self.records if math.isfinite(psnr := record.quality.psnr)]
        return sum(values) / len(values) if values else None

    @property
    def done(self) -> float:
        """Number of finished tasks, plus the expected share of each running task, at most 0.9 of it."""
        now, cost, speed = time.monotonic(), self._cost, self._speed
        parts = (
            min((now - began) * speed / (cost[name] * self.together), 0.9) if cost[name] else 0.0
            for name, began in self.running
        )
        return len(self.records) + sum(parts)

    @property
    def seconds_left(self) -> float:
        """Estimated time left: by the plan at first, then by the speed of this run's finished tasks."""
        cost, now = self._cost, time.monotonic()
        left = self.plan.seconds
        left -= sum(cost[record.variable] for record in self.records)
        left -= sum(cost[failure.variable] for failure in self.failures)
        speed = self._speed
        for name, began in self.running:
            left -= min((now - began) * speed / self.together, 0.9 * cost[name])
        return max(left, 0.0) / (speed * max(self.workers, 1))

    @property
    def _cost(self) -> dict[str, float]:
        """Seconds of a task on one core, by the plan."""
        return {each.name: each.seconds / each.tasks for each in self.plan.variables if each.tasks}

    @property
    def _speed(self) -> float:
        """Seconds of the plan that one worker gets done in a second."""
        made = self.records[self.resumed :]
        planned = sum(self._cost[record.variable] for record in made)
        taken = sum(record.seconds for record in made)
        return planned / taken if planned and taken else 1.0

    def summaries(self) -> dict[str, Summary]:
        """Return the result for each variable that has tasks."""
        return {
            each.name: _summary(each, [record for record in self.records if record.variable == each.name])
            for each in self.plan.variables
            if each.tasks
        }


def _summary(variable: PlannedVariable, records: list[Record]) -> Summary:
    stored = [record for record in records if record.bytes_out]
    return Summary(
        codec=variable.codec,
        done=len(records),
        tasks=variable.tasks,
        bytes_in=sum(record.bytes_in for record in records),
        bytes_out=sum(record.bytes_out for record in records),
        quality=merge(record.quality for record in records),
        kinds=dict(sum((Counter(record.kinds) for record in records), Counter())),
        exceeded=sum(record.exceeded for record in records),
        smallest_ratio=min((each.bytes_in / each.bytes_out for each in stored), default=None),
        suspects=tuple((record.index, record.suspect) for record in records if record.suspect),
    )


class ConversionError(MoECError):
    """Raised at the end of a conversion in which chunks failed. All other chunks are stored.

    Attributes
    ----------
    progress : Progress
        What was finished and what failed.
    """

    def __init__(self, message: str, progress: Progress) -> None:
        super().__init__(message)
        self.progress = progress
