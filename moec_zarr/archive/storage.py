"""Where sources and destinations lie: file systems, the zarr stores in them, and the objects of a store.

A store has an object as it was written or not at all, locally too.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import json
import weakref
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from os import PathLike, fspath
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore

from moec_zarr.adapters.zarr_core import sync
from moec_zarr.archive.attributes import to_strict
from moec_zarr.archive.single import as_group, is_single, whole_of

__all__ = [
    "StorageOptions",
    "close_at_exit",
    "digest_of",
    "file_system",
    "is_local",
    "key_of",
    "names_in",
    "read",
    "read_many",
    "read_object",
    "store_at",
    "stored_bytes",
    "stored_keys",
    "to_read",
    "write",
    "write_json",
]

StorageOptions = Mapping[str, Any]

_AT_ONCE = 64  # objects asked of a store at a time
_closed_at_exit: weakref.WeakSet[Any] = weakref.WeakSet()


def file_system(place: str | PathLike[str], options: StorageOptions | None) -> tuple[Any, str]:
    """Return the fsspec file system of a path or URL, and the path within it.

    Listings are never cached: workers write what the client looks for, and the other way round.
    """
    import fsspec

    fs, root = fsspec.url_to_fs(fspath(place), **{"use_listings_cache": False, **(options or {})})
    return fs, str(root)


def is_local(fs: Any) -> bool:
    """Say whether an fsspec file system is this machine's."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


def store_at(place: str | PathLike[str] | Store, options: StorageOptions | None = None) -> Store:
    """Return the zarr store at a path or URL; one that is open already is returned as it is.

    A store of one array that a conversion made is returned as a group of it.
    """
    store = place if isinstance(place, Store) else _open_store(place, options)
    return as_group(store) if whole_of(store) is None and is_single(to_read(store)) else store


def _open_store(place: str | PathLike[str], options: StorageOptions | None) -> Store:
    fs, root = file_system(place, options)
    if is_local(fs):
        return LocalStore(root)  # which writes whole objects or none; FsspecStore does not
    store = FsspecStore.from_url(
        fspath(place), storage_options={"use_listings_cache": False, **(options or {})}
    )
    close_at_exit(store)
    return store


def to_read(store: Store) -> Store:
    """Return a store to look into: a local folder would be made as soon as it is opened for writing."""
    local = isinstance(whole_of(store) or store, LocalStore)
    return store.with_read_only(True) if local else store


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


def key_of(array: zarr.Array[Any], key: str) -> str:
    """Return the key within the store of a key within an array."""
    return f"{array.path}/{key}" if array.path else key


def digest_of(data: bytes) -> str:
    """Return what tells stored bytes from others: 32 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def read_object(array: zarr.Array[Any], index: tuple[int, ...]) -> bytes | None:
    """Return the bytes of a stored chunk, or shard; None where there are none."""
    return read(array.store, key_of(array, array.metadata.encode_chunk_key(index)))


def write_json(store: Store, path: str, data: dict[str, Any]) -> None:
    """Write an object of plain JSON types; numbers that JSON has not become words."""
    write(store, path, json.dumps(to_strict(data), indent=1, allow_nan=False).encode())


def write(store: Store, path: str, data: bytes) -> None:
    """Write an object."""
    sync(store.set(path, default_buffer_prototype().buffer.from_bytes(data)))


def read(store: Store, path: str) -> bytes | None:
    """Return the bytes of an object; None where there is none."""
    buffer = sync(store.get(path, default_buffer_prototype()))
    return None if buffer is None else buffer.to_bytes()


def read_many(store: Store, paths: Iterable[str]) -> Iterator[bytes | None]:
    """Read objects of a store in order, many at a time, and hold few."""

    async def read(part: list[str]) -> list[Any]:
        return await asyncio.gather(*(store.get(path, default_buffer_prototype()) for path in part))

    left = iter(paths)
    while part := list(islice(left, _AT_ONCE)):
        for buffer in sync(read(part)):
            yield None if buffer is None else buffer.to_bytes()


def names_in(store: Store, path: str) -> list[str]:
    """List what lies directly within a path."""

    async def collect() -> list[str]:
        return [key async for key in store.list_dir(path)]

    return sync(collect())


def stored_keys(array: zarr.Array[Any]) -> list[str]:
    """Return the keys of all objects that lie within an array: chunks, metadata and records."""

    async def collect() -> list[str]:
        prefix = key_of(array, "")
        return [key async for key in array.store.list_prefix(prefix)]

    return sync(collect())


def stored_bytes(array: zarr.Array[Any]) -> int:
    """Count the bytes of an array's chunks, without metadata and records."""
    prefix = key_of(array, "")
    names = ("zarr.json", ".zarray", ".zattrs", ".zmetadata", ".zgroup")
    keys = [
        key
        for key in stored_keys(array)
        if key.removeprefix(prefix) not in names and not key.removeprefix(prefix).startswith(".moec_zarr/")
    ]

    async def sizes() -> list[int]:
        return list(await asyncio.gather(*(array.store.getsize(key) for key in keys)))

    return sum(sync(sizes()))
