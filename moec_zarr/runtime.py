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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

from moec_zarr.config import config
from moec_zarr.errors import MoECError
from moec_zarr.settings import Settings

__all__ = [
    "CORES",
    "choose_device",
    "fit_slot",
    "fitting_threads",
    "group_size",
    "is_installed",
    "lend_slot",
    "name_extras",
    "progress",
    "renew_after_fork",
    "torch_threads",
]

_PROGRESS_DELAY = 2.0  # seconds before anything is shown
_LARGEST_GROUP = 128  # chunks, where the device is a GPU
_GROUP_VOXELS = 1 << 28  # of a group: the host holds some 30 bytes of each
# Not all of a node's: those that a job was given.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_thread = threading.local()  # whether this thread has a slot


_slots = threading.BoundedSemaphore(CORES)
_terminal = threading.Lock()  # one bar at a time: of fits that run side by side the first shows its own


def renew_after_fork(renew: Callable[[], None]) -> Callable[[], None]:
    """Call a function in each child that is forked.

    A child has the locks as they were, held by threads that it does not have: it needs new ones.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)
    return renew


@renew_after_fork
def _renew() -> None:
    global _slots, _terminal
    _slots, _terminal = threading.BoundedSemaphore(CORES), threading.Lock()
    _thread.has_slot = False
    _threads.cache_clear()  # threads do not survive a fork
    _TorchThreads.lock, _TorchThreads.fits = threading.Lock(), 0


@contextmanager
def fit_slot() -> Iterator[None]:
    """Wait until fewer fits run in this process than there are cores."""
    with _slots:
        _thread.has_slot = True
        try:
            yield
        finally:
            _thread.has_slot = False


@contextmanager
def lend_slot() -> Iterator[None]:
    """Lend this thread's slot, if it has one, to other fits while it waits for them."""
    if not getattr(_thread, "has_slot", False):
        yield
        return
    _thread.has_slot = False
    _slots.release()
    try:
        yield
    finally:
        _slots.acquire()
        _thread.has_slot = True


def fitting_threads(voxels: int) -> ThreadPoolExecutor:
    """Start threads for chunks of so many voxels, fitted side by side: one for each core, or of a group.

    Each thread has memory of its own that it does not give back at once, so there are no more than needed.
    """
    return _threads(CORES if group_size(voxels) == 1 else 2 * _LARGEST_GROUP)


@lru_cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="moec_zarr")


def group_size(voxels: int) -> int:
    """Return the number of chunks of so many voxels whose networks are trained together: ``config group``.

    Raises
    ------
    MoECError
        If it is neither "auto" nor a whole number.
    """
    size = config.get("group")
    if size == "auto":
        if config.get("device") == "cpu":
            return 1  # a core for each chunk is faster
        return max(1, min(_LARGEST_GROUP, _GROUP_VOXELS // max(voxels, 1)))
    if isinstance(size, int) and not isinstance(size, bool) and size >= 1:
        return size
    raise MoECError(
        f'config group is {size!r}, expected "auto" or a number of chunks from 1; set moec_zarr.config or '
        "MOEC_ZARR_GROUP"
    )


def is_installed(package: str) -> bool:
    """Say whether a package can be imported."""
    try:
        return find_spec(package) is not None
    except ValueError:  # it was hidden: its entry in sys.modules is None
        return False


@contextmanager
def name_extras(settings: Settings) -> Iterator[None]:
    """Name the extra that brings a package that is missing, and what can be done without it.

    Raises
    ------
    ImportError
        In place of a ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as absent:
        extra = "networks" if absent.name == "torch" else "encode"
        remedy = ""
        if extra == "networks" and settings.has_networks:
            remedy = ', or ask for effort="fast", which fits transforms'
        raise ImportError(
            f"this fit needs {absent.name}, which is not installed (reading does not). "
            f"Install the extra moec-zarr[{extra}], which brings it{remedy}"
        ) from absent


def choose_device() -> str:
    """Return where torch fits: ``config device``.

    Raises
    ------
    MoECError
        If it is not there.
    ImportError
        If torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as absent:
        raise ImportError(
            f"config device is {config.get('device')!r} and decoder {config.get('decoder')!r}, which take "
            "torch, and it is not installed. Install the extra moec-zarr[networks], or set device to 'cpu' "
            "and decoder to 'auto'"
        ) from absent
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
    """Run torch with the threads of ``config threads``, and as before once no fit is running any more."""
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
    """Give a function to call with the share done; show a bar after two seconds where wanted.

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
