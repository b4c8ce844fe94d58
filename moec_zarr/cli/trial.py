"""What ``moec-zarr convert --trial N`` shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from moec_zarr.cli.console import err, on_command_line
from moec_zarr.cli.tables import bytes_text, duration, number, table
from moec_zarr.conversion.plan.trial import Trial
from moec_zarr.settings import TARGETS

__all__ = ["announce", "trial_result", "trial_table"]


def announce(trials: Iterable[Trial], quiet: bool) -> list[Trial]:
    """Collect trials, each with a line when it is there: they take long."""
    result = []
    for each in trials:
        result.append(each)
        if not quiet:
            err.print(
                f"{each.variable} {_target(each)}: fitted in {duration(each.seconds)}"
                + (f", trained in {duration(each.training)}" if each.training else ""),
                highlight=False,
                soft_wrap=True,
            )
    return result


def _target(trial: Trial) -> str:
    settings = trial.codec.configuration()
    targets = [f"{name} {settings[name]:g}" for name in TARGETS if name in settings]
    if size := trial.codec.dictionary_bytes:
        targets.append(f"dictionary of {bytes_text(size)}")
    return ", ".join(targets)


def trial_table(trials: Iterable[Trial]) -> Table:
    """Return what each target costs and gives."""
    rows = [
        (
            each.variable, _target(each), str(each.chunks),
            number(each.seconds / each.chunks, 3) if each.chunks else "-",
            bytes_text(each.bytes_out / each.chunks) if each.chunks else "-", number(each.ratio),
            number(each.quality.psnr) if each.chunks else "-",
            number(each.quality.max_error, 3) if each.chunks else "-",
            duration(each.whole_seconds), bytes_text(each.whole_bytes), on_command_line(each.error),
        )
        for each in trials
    ]  # fmt: skip
    columns = (
        "variable", "target", "chunks", "s a chunk", "bytes a chunk", "ratio", "PSNR dB", "max error",
        "all on one core", "all stored",
    )  # fmt: skip
    if any(row[-1] for row in rows):
        return table((*columns, "not met"), rows)
    return table(columns, (row[:-1] for row in rows))


def trial_result(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """Return the same for scripts."""
    return [
        {
            "variable": each.variable,
            "codec": each.codec.configuration(),
            "chunks": each.chunks,
            "seconds": each.seconds,
            "bytes_in": each.bytes_in,
            "bytes_out": each.bytes_out,
            "ratio": each.ratio,
            "psnr": each.quality.psnr if each.chunks else None,
            "max_error": each.quality.max_error if each.chunks else None,
            "whole_core_seconds": each.whole_seconds,
            "whole_bytes": each.whole_bytes,
            "dictionary_bytes": each.codec.dictionary_bytes,
            "training_seconds": each.training,
            "error": each.error or None,
        }
        for each in trials
    ]
