"""One run at a time: a lock in the destination, with its owner and its age.

The lock is one object beside the store, ``archive.zarr.lock``: within it, whoever lists the members of the
group would be told that it is none. Creating it is atomic on local disks and on stores with
conditional writes, such as S3; elsewhere two runs that begin at the same moment see each other at their first
renewal.

A run that was killed leaves its lock behind. Where its process is certain to have ended, since it ran on this
machine, the next run takes over and says so. Of one elsewhere only its owner knows, who can break the lock.
"""

from __future__ import annotations

import getpass
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore

from moec_zarr.adapters.zarr_core import sync
from moec_zarr.archive.process import has_ended, identify
from moec_zarr.archive.single import whole_of
from moec_zarr.errors import MoECError

__all__ = ["LOCK", "Lock", "LockedError", "hold_lock"]

LOCK = "moec_zarr.lock"
"""Key of the lock within a store that has no place beside it."""

_log = logging.getLogger(__name__)
_RENEW = 30.0  # seconds between renewals
_SETTLE = 1.0  # seconds in which runs that take over at the same time have all written their lock


class LockedError(MoECError):
    """Raised when another run holds the destination, or has taken it over."""


class Lock:
    """A lock that is held; `hold_lock` makes it.

    Parameters
    ----------
    store : zarr Store
        The store to lock.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._key = _beside(store)
        self._lost = ""
        self._content = {
            "id": uuid.uuid4().hex,
            "owner": f"{_user()}@{socket.gethostname()}",
            **identify(),
            "begun": _now(),
        }

    def take(self, break_lock: bool) -> None:
        """Create the lock, or replace that of a run that has ended, or any if `break_lock`.

        Raises
        ------
        LockedError
            If another run holds it.
        """
        sync(_create(self._store, self._key, self._data()))
        found = self._read()
        if found is not None and found.get("id") != self._content["id"]:
            ended = has_ended(found)
            if not ended and not break_lock:
                raise LockedError(
                    f"{_describe(found)}. If that run is certain to have ended, --break-lock "
                    "(break_lock=True) takes the destination over; what it has done is kept"
                )
            what = "a run that was killed is taken over" if ended else "the lock is broken"
            _log.warning("%s: %s", what, _describe(found))
            self._write()
            if not break_lock:
                time.sleep(_SETTLE)  # the last of several that take over keeps the lock
            found = self._read()
        if found is None or found.get("id") != self._content["id"]:
            raise LockedError("another run has taken the destination at this very moment")

    def check(self) -> None:
        """Raise if the lock was broken by another run.

        Raises
        ------
        LockedError
            If it was.
        """
        if self._lost:
            raise LockedError(self._lost)

    def renew_until(self, over: threading.Event) -> None:
        """Renew the lock now and then until `over` is set, or another run has broken it."""
        while not over.wait(_RENEW):
            try:
                found = self._read()
                if found is None or found.get("id") != self._content["id"]:
                    by = f"by {found.get('owner')}" if found else "and removed"
                    self._lost = f"the lock of the destination was broken {by}; this run ends"
                    return
                self._write()
            except OSError as error:  # the store is out of reach: the next write of a task will say so
                _log.warning("the lock could not be renewed: %s", error)

    def release(self) -> None:
        """Remove the lock, if it is still this one."""
        found = self._read()
        if found is not None and found.get("id") == self._content["id"]:
            sync(self._store.delete(self._key))

    def _read(self) -> dict[str, Any] | None:
        """Return what the lock says; None without one."""
        buffer = sync(self._store.get(self._key, default_buffer_prototype()))
        if buffer is None:
            return None
        try:
            content = json.loads(buffer.to_bytes())
        except ValueError:
            content = None
        return content if isinstance(content, dict) else {}

    def _write(self) -> None:
        sync(self._store.set(self._key, default_buffer_prototype().buffer.from_bytes(self._data())))

    def _data(self) -> bytes:
        return json.dumps(self._content | {"renewed": _now()}, indent=1).encode()


@contextmanager
def hold_lock(store: Store, break_lock: bool = False) -> Iterator[Lock]:
    """Hold the lock of a store; it is renewed meanwhile, and removed at the end.

    Parameters
    ----------
    store : zarr Store
        The store to lock.
    break_lock : bool
        Take over from a run that has ended without removing its lock, though it cannot be seen from here
        that it has.

    Raises
    ------
    LockedError
        If another run holds the lock.
    """
    lock = Lock(store)
    lock.take(break_lock)
    over = threading.Event()
    thread = threading.Thread(target=lock.renew_until, args=(over,), daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        over.set()
        thread.join()
        lock.release()


def _beside(store: Store) -> tuple[Store, str]:
    """Return the store and the key of the lock of a store."""
    store = whole_of(store) or store
    if isinstance(store, LocalStore):
        root = store.root.resolve()
        return LocalStore(root.parent), f"{root.name}.lock"
    if isinstance(store, FsspecStore):
        parent, _, name = store.path.rstrip("/").rpartition("/")
        if parent.strip("/"):  # a bucket has nothing beside it
            return FsspecStore(store.fs, path=parent), f"{name}.lock"
    return store, LOCK


async def _create(store: Store, key: str, data: bytes) -> None:
    """Write the lock unless there is one."""
    if isinstance(store, FsspecStore):
        path = f"{store.path.rstrip('/')}/{key}"
        try:
            await store.fs._pipe_file(path, data, mode="create")
        except FileExistsError:
            return
        except (TypeError, ValueError, NotImplementedError):
            pass  # this file system has no conditional writes
        else:
            return
    await store.set_if_not_exists(key, default_buffer_prototype().buffer.from_bytes(data))


def _describe(content: dict[str, Any]) -> str:
    """Who holds a lock, and for how long, in words."""
    owner = f"{content.get('owner', 'an unknown owner')}, process {content.get('pid', '?')}"
    text = (
        f"the destination is locked by a run of {owner}, begun {_age(content.get('begun'))} ago and last "
        f"heard of {_age(content.get('renewed'))} ago"
    )
    if has_ended(content):
        return f"{text}; its process has ended"
    return f"{text}; whether it still runs cannot be seen from here" if not _is_here(content) else text


def _is_here(content: dict[str, Any]) -> bool:
    """Say whether a lock was made on this machine, in this container and since the last boot."""
    here = identify()
    return all(content.get(key) == here[key] for key in ("host", "boot", "namespace"))


def _age(moment: Any) -> str:
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(str(moment))).total_seconds()
    except (ValueError, TypeError):
        return "an unknown time"
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in a container
        return "unknown"
