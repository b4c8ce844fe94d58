"""A store that is one array, seen as a group that holds it.

The array is called "array" there. The group's own objects, such as what its attributes say of a conversion,
lie in ``.moec_zarr/group/`` within the array, where no other reader takes notice of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, Store
from zarr.storage import WrapperStore

from moec_zarr.adapters.zarr_core import sync
from moec_zarr.adapters.zarr_groups import SINGLE

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype

__all__ = ["as_group", "is_single", "whole_of"]

_GROUP = ".moec_zarr/group"


def is_single(store: Store) -> bool:
    """Say whether a conversion made a store of one array."""

    async def exists() -> bool:
        return await store.exists(f"{_GROUP}/zarr.json") or await store.exists(f"{_GROUP}/.zgroup")

    return sync(exists())


def as_group(store: Store) -> Store:
    """Return a store whose root is, or will be, an array, as one of a group that holds it."""
    return store if isinstance(store, _SingleArray) else _SingleArray(store)


def whole_of(store: Store) -> Store | None:
    """Return the store whose root is the array that a group stands for; None of other stores."""
    return store._store if isinstance(store, _SingleArray) else None


class _SingleArray(WrapperStore[Store]):
    """A group of one array, which is the root of another store."""

    @property
    def fs(self) -> Any:
        """The file system of the store, if it has one."""
        return getattr(self._store, "fs", None)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        return await self._store.get(_inner(key), prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        ranges = [(_inner(key), part) for key, part in key_ranges]
        return await self._store.get_partial_values(prototype, ranges)

    async def exists(self, key: str) -> bool:
        return await self._store.exists(_inner(key))

    async def set(self, key: str, value: Buffer) -> None:
        await self._store.set(_inner(key), value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await self._store.set_if_not_exists(_inner(key), value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        await self._store._set_many([(_inner(key), value) for key, value in values])

    async def _get_many(self, requests: Iterable[tuple[str, Any, Any]]) -> Any:
        for key, prototype, part in requests:
            yield key, await self.get(key, prototype, part)

    async def getsize(self, key: str) -> int:
        return await self._store.getsize(_inner(key))

    async def delete(self, key: str) -> None:
        await self._store.delete(_inner(key))

    async def list(self) -> AsyncIterator[str]:
        async for key in self._store.list():
            yield _outer(key)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        prefix = prefix.rstrip("/")
        if not prefix and not await self.is_empty(SINGLE):
            yield SINGLE
        async for name in self._store.list_dir(_inner(prefix) if prefix else _GROUP):
            yield name

    async def is_empty(self, prefix: str) -> bool:
        async for _ in self.list_prefix(f"{prefix.rstrip('/')}/" if prefix else ""):
            return False
        return True

    async def delete_dir(self, prefix: str) -> None:
        for key in [key async for key in self.list_prefix(f"{prefix.rstrip('/')}/" if prefix else "")]:
            await self.delete(key)

    async def clear(self) -> None:
        await self.delete_dir("")


def _inner(key: str) -> str:
    """Return the key in the store of the array."""
    if key == SINGLE:
        return ""
    return key.removeprefix(f"{SINGLE}/") if key.startswith(f"{SINGLE}/") else f"{_GROUP}/{key}"


def _outer(key: str) -> str:
    """Return the key in the group."""
    return key.removeprefix(f"{_GROUP}/") if key.startswith(f"{_GROUP}/") else f"{SINGLE}/{key}"
