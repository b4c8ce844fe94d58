"""From one zarr format to the other: metadata is written anew, and no stream is touched.

The streams of this package are the same in both formats, as are those of the lossless codecs that both have.
Format 3 can name chunks as format 2 does, so that they stay where they are. The other way round each chunk is
copied to its new name before anything is removed. A migration that was interrupted is done by the same call.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Iterable, Iterator
from os import PathLike
from typing import Any, Literal, cast

import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype

from moec_zarr.adapters.ome import levels_of
from moec_zarr.adapters.tree import join_path
from moec_zarr.adapters.zarr_core import sync
from moec_zarr.archive.formats import Node, chunk_keys, to_v2, to_v3
from moec_zarr.archive.manifest import change_format, read_append
from moec_zarr.archive.storage import store_at, to_read
from moec_zarr.archive.stored import hide_expected_warnings
from moec_zarr.errors import MoECError

__all__ = ["migrate"]

_METADATA = {2: (".zarray", ".zgroup", ".zattrs", ".zmetadata"), 3: ("zarr.json",)}
_AT_ONCE = 10  # objects that are copied or removed side by side


def migrate(
    store: str | PathLike[str] | Store,
    zarr_format: Literal[2, 3],
    *,
    storage_options: dict[str, Any] | None = None,
) -> tuple[str, ...]:
    """Rewrite the metadata of a store in the other zarr format, and leave its streams as they are.

    Fields keep their codec. Lossless variables keep theirs if both formats have it: zstd, blosc, gzip,
    none, and the coding of text. What xarray keeps in metadata (names of dimensions, ``_FillValue``) is
    moved to its place in the other format; an array without such names gets none. All groups within are
    taken along. Nothing else may write to the store meanwhile.

    Parameters
    ----------
    store : path or zarr Store
        A group, with everything in it, or an array.
    zarr_format : 2 or 3
        The new format.
    storage_options : dict, optional
        Options of the fsspec backend of a URL.

    Returns
    -------
    tuple of str
        Paths of the groups and arrays that were rewritten; empty if the store has that format already.

    Raises
    ------
    MoECError
        If there is no store, or if an array cannot be expressed in the other format, because it has shards,
        a codec or data type that only one format has, or belongs to an OME-Zarr image. Nothing is changed
        then.
    """
    if zarr_format not in (2, 3):
        raise MoECError(f"zarr_format must be 2 or 3, got {zarr_format!r}")
    with hide_expected_warnings():
        other = cast("Literal[2, 3]", 5 - zarr_format)
        place = store_at(store, storage_options)
        formats: tuple[Literal[2, 3], ...] = (2, 3)
        if all(_open(to_read(place), each, "r") is None for each in formats):
            raise MoECError(f"there is no zarr store at {store}")
        root = _open(place, other)
        if isinstance(root, zarr.Group) and read_append(root) is not None:
            raise MoECError(
                f"an append to {store} is unfinished; give its command again, and migrate then; nothing "
                "was changed"
            )
        nodes = [] if root is None else list(_nodes(root))
        _refuse_images(store, nodes)
        if root is not None:
            convert = to_v3 if zarr_format == 3 else to_v2
            # All of them before the first is written: what cannot be done is refused whole.
            made = {path: convert(path, node) for path, node in nodes}
            sync(_write(root.store, nodes, made))
            if isinstance(root, zarr.Group):
                if _is_consolidated(root):
                    zarr.consolidate_metadata(root.store, path=root.path or None, zarr_format=zarr_format)
                change_format(root, zarr_format)
        new = _open(place, zarr_format)
        assert new is not None
        sync(_remove(new.store, list(_nodes(new)), other))
    return tuple(path for path, _ in nodes)


def _open(place: Store, zarr_format: Literal[2, 3], mode: Literal["r", "r+"] = "r+") -> Node | None:
    """Return what a store holds in one format; None where it is nothing."""
    try:
        return zarr.open_group(place, use_consolidated=False, mode=mode, zarr_format=zarr_format)
    except (FileNotFoundError, zarr.errors.ContainsArrayError):
        pass
    try:
        return zarr.open_array(place, mode=mode, zarr_format=zarr_format)
    except FileNotFoundError:
        return None


def _nodes(root: Node) -> Iterator[tuple[str, Node]]:
    """Return the root, as the last, and all within it, by path in the store."""
    if isinstance(root, zarr.Group):
        for _, node in root.members(max_depth=None, use_consolidated_for_children=False):
            yield node.path, node
    yield root.path, root


def _refuse_images(store: Any, nodes: Iterable[tuple[str, Node]]) -> None:
    """Refuse OME-Zarr, of which each version goes with one zarr format.

    Raises
    ------
    MoECError
        If a group is a part of an image.
    """
    images = [
        path or "/" for path, node in nodes if isinstance(node, zarr.Group) and levels_of(node.attrs.asdict())
    ]
    if images:
        raise MoECError(
            f"{min(images)!r} in {store} is a part of an OME-Zarr image, and OME-Zarr 0.4 belongs to zarr "
            "format 2, 0.5 to format 3; a program that writes the other version makes it anew from this one; "
            "nothing was changed"
        )


def _is_consolidated(root: Node) -> bool:
    if root.metadata.zarr_format == 2:
        return sync(root.store.exists(join_path(root.path, ".zmetadata")))
    # zarr was told not to look at it: what it says may be out of date.
    data = sync(root.store.get(join_path(root.path, "zarr.json"), default_buffer_prototype()))
    return data is not None and "consolidated_metadata" in json.loads(data.to_bytes())


async def _write(store: Store, nodes: list[tuple[str, Node]], made: dict[str, dict[str, bytes]]) -> None:
    """Copy chunks that get other names, and write the metadata, that of the root last."""
    prototype = default_buffer_prototype()

    async def copy(old: str, new: str) -> None:
        data = await store.get(old, prototype)
        if data is not None:
            await store.set(new, data)

    for path, node in nodes:
        await _at_once(copy(*each) for each in (await _list_renames(store, path, node)).items())
        for name, data in made[path].items():
            await store.set(join_path(path, name), prototype.buffer.from_bytes(data))


async def _remove(store: Store, nodes: list[tuple[str, Node]], other: Literal[2, 3]) -> None:
    """Remove what is left of the other format: first what makes the root a store of it.

    Readers take the new format from then on; of the other, chunks that lose their names would be missing.
    """
    for path, node in reversed(nodes):
        # What makes it a node of that format goes first: without the rest, it would be one that says less.
        for name in _METADATA[other]:
            if await store.exists(join_path(path, name)):
                await store.delete(join_path(path, name))
        if other == 3 and isinstance(node, zarr.Array):
            names = _new_names(path, [key async for key in store.list_prefix(f"{path}/" if path else "")])
            await _at_once([store.delete(old) for old, copied in names.items() if await store.exists(copied)])


async def _at_once(tasks: Iterable[Awaitable[None]]) -> None:
    room = asyncio.Semaphore(_AT_ONCE)

    async def take(task: Awaitable[None]) -> None:
        async with room:
            await task

    await asyncio.gather(*(take(task) for task in tasks))


async def _list_renames(store: Store, path: str, node: Node) -> dict[str, str]:
    """Old and new names of the chunks of an array of format 3 that are not named as in format 2."""
    if isinstance(node, zarr.Group) or node.metadata.zarr_format == 2:
        return {}
    if cast("Any", node.metadata).chunk_key_encoding.name != "default":
        return {}
    return _new_names(path, await chunk_keys(store, path, node))


def _new_names(path: str, keys: list[str]) -> dict[str, str]:
    """Of each chunk that is named as by default in format 3, its name in format 2."""
    default = re.compile(re.escape(join_path(path, "c")) + r"(?:[./]\d+)*")
    first = len(join_path(path, "c"))
    return {key: join_path(path, key[first + 1 :] or "0") for key in keys if default.fullmatch(key)}
