"""Objects of a zarr store.

A store has an object as it was written or not at all, locally too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

__all__ = ["digest_of", "key_of", "names_in", "read", "read_many", "read_object", "write_json"]

_AT_ONCE = 64  # objects asked of a store at a time


def key_of(array: zarr.Array[Any], key: str) -> str:
    """The key within the store of a key within an array."""
    return f"{array.path}/{key}" if array.path else key


def digest_of(data: bytes) -> str:
    """What tells stored bytes from others: 32 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


def read_object(array: zarr.Array[Any], index: tuple[int, ...]) -> bytes | None:
    """The bytes of a stored chunk, or shard; None where there are none."""
    return read(array.store, key_of(array, array.metadata.encode_chunk_key(index)))


def write_json(store: Store, path: str, data: dict[str, Any]) -> None:
    """Write an object of plain JSON types."""
    text = json.dumps(data, indent=1).encode()
    sync(store.set(path, default_buffer_prototype().buffer.from_bytes(text)))


def read(store: Store, path: str) -> bytes | None:
    """The bytes of an object; None where there is none."""
    buffer = sync(store.get(path, default_buffer_prototype()))
    return None if buffer is None else buffer.to_bytes()


def read_many(store: Store, paths: Iterable[str]) -> Iterator[bytes | None]:
    """Objects of a store in order, many at a time and few held."""

    async def read(part: list[str]) -> list[Any]:
        return await asyncio.gather(*(store.get(path, default_buffer_prototype()) for path in part))

    left = iter(paths)
    while part := list(islice(left, _AT_ONCE)):
        for buffer in sync(read(part)):
            yield None if buffer is None else buffer.to_bytes()


def names_in(store: Store, path: str) -> list[str]:
    """Names of what lies directly within a path."""

    async def collect() -> list[str]:
        return [key async for key in store.list_dir(path)]

    return sync(collect())
