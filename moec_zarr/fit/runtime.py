"""Progress of a fit on the terminal, for those that last."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moec_zarr.config import config

__all__ = ["progress"]

_PATIENCE = 2.0  # seconds before anything is shown
_terminal = threading.Lock()  # one bar at a time: of fits that run side by side the first shows its own


@contextmanager
def progress(label: str) -> Iterator[Callable[[float], None]]:
    """A function to call with the share done; shows a bar after two seconds where wanted.

    ``moec_zarr.config`` decides: ``progress="auto"`` shows it where stderr is a terminal.
    """
    wanted = config.get("progress")
    if not (sys.stderr.isatty() if wanted == "auto" else wanted):
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn(label), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn(),
        console=console, transient=console.is_terminal,  # elsewhere its end is all that is written
    )  # fmt: skip
    task = bar.add_task(label, total=1.0)
    started = time.monotonic()
    shown = False

    def update(share: float) -> None:
        nonlocal shown
        if not shown and time.monotonic() - started > _PATIENCE and _terminal.acquire(blocking=False):
            bar.start()
            shown = True
        if shown:
            bar.update(task, completed=share)

    try:
        yield update
    finally:
        if shown:
            bar.stop()
            _terminal.release()
