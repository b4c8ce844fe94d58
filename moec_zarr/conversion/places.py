"""Where sources and destinations lie: file systems, and the zarr stores in them."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

__all__ = ["StorageOptions", "close_at_exit", "file_system", "is_local", "store_at", "to_read"]

StorageOptions = Mapping[str, Any]

_closed_at_exit: weakref.WeakSet[Any] = weakref.WeakSet()


def file_system(place: str | PathLike[str], options: StorageOptions | None) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path within it.

    Listings are never cached: workers write what the client looks for, and the other way round.
    """
    import fsspec

    fs, root = fsspec.url_to_fs(fspath(place), **{"use_listings_cache": False, **(options or {})})
    return fs, str(root)


def is_local(fs: Any) -> bool:
    """Whether an fsspec file system is this machine's."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def store_at(place: str | PathLike[str] | Store, options: StorageOptions | None = None) -> Store:
    """The zarr store at a path or URL; one that is open already is returned as it is."""
    if isinstance(place, Store):
        return place
    fs, root = file_system(place, options)
    if is_local(fs):
        return LocalStore(root)  # which writes whole objects or none; FsspecStore does not
    store = FsspecStore.from_url(
        fspath(place), storage_options={"use_listings_cache": False, **(options or {})}
    )
    close_at_exit(store)
    return store


def to_read(store: Store) -> Store:
    """A store to look into: a local folder would be made as soon as it is opened for writing."""
    return store.with_read_only(True) if isinstance(store, LocalStore) else store


def close_at_exit(store: Store) -> None:
    """Let this process close the session of a remote store when it ends.

    fsspec leaves the sessions of asynchronous file systems, which zarr needs, to whoever made them.
    """
    fs = getattr(store, "fs", None)
    if fs is None or not hasattr(fs, "set_session") or fs in _closed_at_exit:
        return
    _closed_at_exit.add(fs)

    async def close() -> None:
        session = await fs.set_session()
        await session.close()

    atexit.register(lambda: sync(close()))
