"""What fits share with the machine: how many run at a time, threads, device, progress on a terminal.

A fit is fastest on a core of its own, so as many run at a time as there are cores, each with one
thread of torch unless ``moec_zarr.config`` says otherwise.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moec_zarr.config import config
from moec_zarr.errors import MoECError

__all__ = ["chosen_device", "fit_slot", "naming_extras", "progress", "torch_threads"]

_PROGRESS_DELAY = 2.0  # seconds before anything is shown
_slots = threading.BoundedSemaphore(os.cpu_count() or 1)
_terminal = threading.Lock()  # one bar at a time: of fits that run side by side the first shows its own


@contextmanager
def fit_slot() -> Iterator[None]:
    """Waits until fewer fits run in this process than there are cores."""
    with _slots:
        yield


@contextmanager
def naming_extras() -> Iterator[None]:
    """Says which extra brings a package that is missing.

    Raises
    ------
    ImportError
        In place of a ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as absent:
        extra = "networks" if absent.name == "torch" else "encode"
        remedy = ', or ask for effort="fast", which needs none' if absent.name == "torch" else ""
        raise ImportError(
            f"this fit needs {absent.name}, which is not installed (reading does not). "
            f"Install the extra moec-zarr[{extra}], which brings it{remedy}"
        ) from absent


def chosen_device() -> str:
    """Where torch fits: ``config device``.

    Raises
    ------
    MoECError
        If it is not there.
    """
    import torch

    name = config.get("device")
    if name == "cpu" or (name == "cuda" and torch.cuda.is_available()):
        return str(name)
    raise MoECError(
        f"config device is {name!r}, expected 'cpu', or 'cuda' where torch finds a GPU (it finds "
        f"{torch.cuda.device_count()}); set moec_zarr.config or MOEC_ZARR_DEVICE"
    )


class _TorchThreads:
    """How many fits run in this process, and torch's threads before the first of them."""

    lock = threading.Lock()
    fits = 0
    before = 1


@contextmanager
def torch_threads() -> Iterator[None]:
    """Torch with the threads of ``config threads``, and as it was once no fit is running any more."""
    import torch

    with _TorchThreads.lock:
        if not _TorchThreads.fits:
            _TorchThreads.before = torch.get_num_threads()
        _TorchThreads.fits += 1
    torch.set_num_threads(config.get("threads"))
    try:
        yield
    finally:
        with _TorchThreads.lock:
            _TorchThreads.fits -= 1
            if not _TorchThreads.fits:
                torch.set_num_threads(_TorchThreads.before)


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
        if not shown and time.monotonic() - started > _PROGRESS_DELAY and _terminal.acquire(blocking=False):
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
