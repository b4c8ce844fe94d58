"""Which process this is, and whether another one is certain to have ended.

A number of a process alone says neither: it is given to another process later, and means another one in a
container or on another machine. So a process is named by the boot of its kernel, the namespace that its
number belongs to, that number, and when it was started. Linux tells all of them; of a process on another
system nothing is certain.
"""

from __future__ import annotations

import os
import socket
from typing import Any, NamedTuple

__all__ = ["has_ended", "identify"]


class _Stat(NamedTuple):
    state: str
    started: int


def identify() -> dict[str, Any]:
    """Return what tells this process from all others, in plain JSON types; None is for what is not known."""
    return {"host": socket.gethostname(), "pid": os.getpid(), **_surroundings(), "started": _started()}


def has_ended(process: dict[str, Any]) -> bool:
    """Say whether a process that `identify` named is certain to have ended; False where it is not known."""
    here = {"host": socket.gethostname(), **_surroundings()}
    if any(value is None or process.get(key) != value for key, value in here.items()):
        return False  # another machine, another boot or another container: nothing can be seen from here
    pid, started = process.get("pid"), process.get("started")
    if type(pid) is not int or pid <= 0 or type(started) is not int:
        return False
    try:
        os.kill(pid, 0)  # a signal that is not sent; unlike /proc, it hides no process of another user
    except ProcessLookupError:
        return True
    except OSError:
        pass
    stat = _stat(str(pid))
    if stat is None:
        return False
    return stat.started != started or stat.state in "ZX"  # its number was given away, or only its end is kept


def _surroundings() -> dict[str, str | None]:
    """Return the boot of the kernel, and the namespace that numbers of processes belong to."""
    try:
        # Where /proc is that of another namespace, its numbers are others than those of this process.
        if os.readlink("/proc/self") != str(os.getpid()):
            return {"boot": None, "namespace": None}
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return {"boot": boot or None, "namespace": os.readlink("/proc/self/ns/pid")}
    except OSError:
        return {"boot": None, "namespace": None}


def _started() -> int | None:
    stat = _stat("self")
    return None if stat is None else stat.started


def _stat(process: str) -> _Stat | None:
    """State of a process, and its start in ticks since the boot; None where they cannot be read."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            # The second field is a name in brackets, in which anything may stand.
            fields = file.read().rpartition(")")[2].split()
        return _Stat(state=fields[0], started=int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None
