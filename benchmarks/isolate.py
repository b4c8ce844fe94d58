"""A function in a process of its own, which may crash, hang or take too much memory."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import psutil


class LimitError(Exception):
    """The process ended without a result: it crashed, or took more time or memory than allowed."""


def isolated(function: Callable[..., Any], *args: Any, seconds: float, gigabytes: float) -> Any:
    """What ``function(*args)`` returns or raises in a process of its own.

    Its output is thrown away. Memory is watched from outside, for a limit on address space would
    also count what libraries reserve and never touch.

    Raises
    ------
    LimitError
        If the process ends by itself or is ended for `seconds` of wall time or `gigabytes` of
        resident memory.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, function, args), daemon=True)
    deadline = time.monotonic() + seconds
    process.start()
    theirs.close()
    try:
        while not ours.poll(0.1):
            if time.monotonic() > deadline:
                raise LimitError(f"took more than {seconds:g} s")
            if _resident(process.pid) > gigabytes * 1e9:
                raise LimitError(f"took more than {gigabytes:g} GB")
        try:
            succeeded, result = ours.recv()
        except EOFError:
            process.join()
            raise LimitError(f"ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if succeeded:
        return result
    raise result


def _resident(pid: int | None) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _child(connection: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # libraries write to the descriptor itself
    os.dup2(nowhere, 2)
    try:
        outcome = (True, function(*args))
    except Exception as error:
        outcome = (False, _portable(error))
    connection.send(outcome)


def _portable(error: Exception) -> Exception:
    """The error, or where it belongs to a library, one that can be sent, with the same words."""
    if type(error).__module__.startswith("benchmarks."):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}".strip().split("\n")[0])
