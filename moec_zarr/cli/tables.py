"""What the command line shows: tables, and the progress of a conversion on a terminal or in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from moec_zarr.archive.plan import Plan
from moec_zarr.archive.status import Progress, Summary
from moec_zarr.report.comparison.labels import bytes_text, settings_text

__all__ = [
    "ProgressDisplay",
    "bytes_text",
    "counted",
    "duration",
    "number",
    "plan_table",
    "rebuilt_text",
    "streams_row",
    "summary_table",
    "table",
]

_LOG_EVERY = 30.0  # seconds between two lines of a log
_DRAW_EVERY = 0.1  # seconds between two pictures of a bar


def duration(seconds: float | None) -> str:
    """Write seconds as 3d 4h, 5h 6m, 7m 8s or 9s."""
    if seconds is None:
        return "?"
    whole = round(max(seconds, 0))
    for long, short, size, part in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size}{long} {whole % size // part}{short}"
    return f"{whole}s"


def counted(count: int, thing: str) -> str:
    """Return a number of things, such as 1 attempt or 2 attempts."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure with so many digits; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], title: str | None = None) -> Table:
    """Make a table whose first column is text, and the others figures; on a narrow terminal they wrap."""
    result = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for i, column in enumerate(columns):
        result.add_column(column, justify="right" if i else "left", no_wrap=not i, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def plan_table(plan: Plan) -> Table:
    """Return what a conversion will do with each variable."""
    rows = []
    for each in plan.variables:
        shape, chunks = (
            "x".join(map(str, sizes)) if sizes else "-" for sizes in (each.shape, each.shards or each.chunks)
        )
        what = each.reason and f"lossless: {each.reason}"
        if each.codec is not None:
            what = settings_text(each.codec)
        stored = bytes_text(each.stored_bytes) if each.codec else ""
        hours = f"{each.seconds / 3600:.3g}" if each.codec else ""
        rows.append(
            (each.name, what, shape, chunks, str(each.tasks or "-"), bytes_text(each.nbytes), stored, hours)
        )
    columns = ("variable", "codec", "shape", "written in", "tasks", "read", "stored", "core hours")
    return table(columns, rows)


def summary_table(summaries: dict[str, Summary]) -> Table:
    """Return what became of each variable."""
    rows = [
        (
            name, f"{each.done}/{each.tasks}", bytes_text(each.bytes_in), bytes_text(each.bytes_out),
            number(each.ratio), number(each.quality.psnr) if each.codec else "lossless",
            number(each.quality.max_error, 3) if each.codec else "0",
        )
        for name, each in summaries.items()
    ]  # fmt: skip
    return table(("variable", "done", "read", "stored", "ratio", "PSNR dB", "max error"), rows)


def streams_row(infos: list[Any]) -> tuple[str, ...]:
    """Put figures of several streams in a row: sums, ranges and the worst."""
    size, raw = sum(info.stream_bytes for info in infos), sum(info.nbytes for info in infos)
    psnrs = [info.psnr for info in infos if math.isfinite(info.psnr)]
    experts = [info.experts for info in infos]
    loads = [share for info in infos for share in info.load]
    sections: dict[str, int] = {}
    for info in infos:
        for name, count in info.sections.items():
            sections[name] = sections.get(name, 0) + count
    return (
        str(len(infos)),
        bytes_text(size),
        number(raw / size if size else None),
        _range_text(psnrs, ".1f"),
        number(max((info.max_error for info in infos), default=None), 3),
        "refitted" if any(info.refit for info in infos) else _bound_text(infos),
        _range_text(experts, "d"),
        _range_text(loads, ".2f"),
        ", ".join(f"{name} {count}" for name, count in sections.items()),
    )


def _bound_text(infos: list[Any]) -> str:
    """Return the widest bounds, absolute and relative."""
    relative = max((info.relative_bound for info in infos if info.relative_bound is not None), default=None)
    absolute = max((info.bound for info in infos if info.bound is not None), default=None)
    parts = [] if relative is None else [f"{number(relative, 6)} of |x|"]
    if relative is None or absolute is not None:
        parts.append(number(absolute, 6))
    return ", ".join(parts)


def _range_text(values: list[Any], form: str) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}}..{high:{form}}"


class ProgressDisplay:
    """Shows a conversion's progress: a bar on a terminal, lines with the time in a log.

    Parameters
    ----------
    console : rich.console.Console
        Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._logged = self._drawn = -math.inf
        self._phase = ""
        self._bar: Bar | None = None
        if console.is_terminal:
            columns = (BarColumn(), TextColumn("{task.fields[count]}"), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=console)
            self._task = self._bar.add_task("", count="", total=None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, phase: str) -> None:
        """Show what is being done before there are figures."""
        if phase == self._phase:
            return
        self._phase = phase
        if self._bar is not None:
            self._bar.update(self._task, description=phase)
        else:
            self._line(phase)

    def __call__(self, progress: Progress) -> None:
        """Take note of how far it is."""
        if progress.phase:
            self.say(progress.phase)
            return
        done, total, now = len(progress.records), progress.plan.tasks, time.monotonic()
        last = done + len(progress.failures) == total
        first = self._phase != ""
        self._phase = ""
        if self._bar is not None:
            if last or first or now - self._drawn >= _DRAW_EVERY:
                self._drawn = now
                self._bar.update(
                    self._task, completed=progress.done, total=total, count=f"{done}/{total}",
                    description=_facts(progress),
                )  # fmt: skip
        elif last or first or now - self._logged >= _LOG_EVERY:
            self._logged = now
            running = f" ({progress.done - done:.1f} more under way)" if progress.running else ""
            self._line(f"{done}/{total} chunks{running}, {_facts(progress)}")

    def _line(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True)


def _facts(progress: Progress) -> str:
    """Return the figures of a conversion in a line."""
    facts = []
    if progress.records:
        facts.append(f"{bytes_text(progress.bytes_in)} in, {bytes_text(progress.bytes_out)} out")
    if progress.bytes_out:
        facts.append(f"{progress.bytes_in / progress.bytes_out:.4g}x")
    if (psnr := progress.mean_psnr) is not None:
        facts.append(f"{psnr:.1f} dB")
    if progress.failures:
        facts.append(f"{len(progress.failures)} failed")
    measured = len(progress.records) > progress.resumed
    facts.append(f"{duration(progress.seconds_left)} left" + ("" if measured else " by the plan"))
    return ", ".join(facts)


def rebuilt_text(rebuilt: Mapping[str, str]) -> str:
    """Say which levels were made again, by the names of those that they were made of."""
    finest = ", ".join(dict.fromkeys(rebuilt.values()))
    return (
        f"levels {', '.join(rebuilt)} are computed from {finest} as decoded: their PSNR and errors are "
        "against that, not against the source"
    )
