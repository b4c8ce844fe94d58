"""How far a conversion has come, and what became of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.conversion.manifest import Record
from moec_zarr.conversion.plan import Plan, PlannedVariable
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
    """

    codec: MoECCodec | None
    done: int
    tasks: int
    bytes_in: int
    bytes_out: int
    quality: Quality

    @property
    def ratio(self) -> float | None:
        """Bytes before over bytes after; None where nothing was stored."""
        return self.bytes_in / self.bytes_out if self.bytes_out else None


@dataclass(kw_only=True)
class Progress:
    """How far a conversion has come; handed to the caller after each task.

    Attributes
    ----------
    plan : Plan
        What is to be done.
    resumed : int
        Number of tasks that an earlier run had done.
    records : list of Record
        Of all tasks that are done.
    failures : list of Failure
        Tasks that failed for good.
    started : float
        `time.monotonic` when the first task was handed out.
    """

    plan: Plan
    resumed: int
    records: list[Record]
    failures: list[Failure]
    started: float

    @property
    def bytes_in(self) -> int:
        """Bytes of the chunks that are done, before compression."""
        return sum(record.bytes_in for record in self.records)

    @property
    def bytes_out(self) -> int:
        """Bytes of the chunks that are done, as stored."""
        return sum(record.bytes_out for record in self.records)

    @property
    def mean_psnr(self) -> float | None:
        """Mean PSNR in dB of the chunks that are done, each with its own range; None before the first."""
        values = [psnr for record in self.records if math.isfinite(psnr := record.quality.psnr)]
        return sum(values) / len(values) if values else None

    @property
    def seconds_left(self) -> float | None:
        """Time left, if the rest goes as what this run has done; None before its first task is done."""
        cost = {each.name: each.seconds / each.tasks for each in self.plan.variables if each.tasks}
        done = sum(cost[record.variable] for record in self.records[self.resumed :])
        lost = sum(cost[failure.variable] for failure in self.failures)
        before = sum(cost[record.variable] for record in self.records[: self.resumed])
        if not done:
            return None
        return (time.monotonic() - self.started) * (self.plan.seconds - done - lost - before) / (done + lost)

    def summaries(self) -> dict[str, Summary]:
        """What became of each variable that has tasks."""
        return {
            each.name: _summary(each, [record for record in self.records if record.variable == each.name])
            for each in self.plan.variables
            if each.tasks
        }


def _summary(variable: PlannedVariable, records: list[Record]) -> Summary:
    return Summary(
        codec=variable.codec,
        done=len(records),
        tasks=variable.tasks,
        bytes_in=sum(record.bytes_in for record in records),
        bytes_out=sum(record.bytes_out for record in records),
        quality=merge(record.quality for record in records),
    )


class ConversionError(MoECError):
    """Raised at the end of a conversion in which chunks failed; all others are done and stay.

    Attributes
    ----------
    progress : Progress
        What was done, and what failed.
    """

    def __init__(self, message: str, progress: Progress) -> None:
        super().__init__(message)
        self.progress = progress
