"""Metadata of groups and arrays that is lost or damaged, and what consolidated metadata keeps of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import zarr

from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.tree import group_of, join_path, owns_dims
from moec_zarr.adapters.zarr_groups import has_names
from moec_zarr.archive.manifest import PLAN_PATH, Manifest, read_groups
from moec_zarr.archive.storage import read, write_json
from moec_zarr.errors import MoECError

__all__ = ["find_damaged_metadata", "refuse_damaged_metadata", "restore_metadata"]


def find_damaged_metadata(group: zarr.Group, manifest: Manifest) -> list[str]:
    """Return the groups within, and the arrays, that cannot be opened or lack what others read of them.

    An array lacks its dictionary where it has another one than the plan, or none.

    Parameters
    ----------
    group : zarr.Group
    manifest : Manifest
        Its own.
    """
    known, dims = read_groups(group), manifest.dims
    groups = {path: bool(attrs) for path, attrs in known.items()}
    for name in dims:
        while name := group_of(name):
            groups.setdefault(name, False)
    lost = [path for path, has in sorted(groups.items()) if not _is_group(group, path, has)]
    return lost + [
        name for name in dims if not _can_be_read(group, name, manifest, not owns_dims(name, dims[name]))
    ]


def _is_group(group: zarr.Group, path: str, has_attributes: bool) -> bool:
    node = _node(group, path)
    return isinstance(node, zarr.Group) and (not has_attributes or _has_attributes(node))


def _can_be_read(group: zarr.Group, name: str, manifest: Manifest, named: bool) -> bool:
    array = _node(group, name)
    if not isinstance(array, zarr.Array) or not _has_attributes(array):
        return False
    planned, codec = manifest.codec(name), codec_of(array)
    if planned is not None and (codec is None or codec.dictionary != planned.dictionary):
        return False
    return not named or has_names(array)


def _node(group: zarr.Group, path: str) -> zarr.Group | zarr.Array[Any] | None:
    """Return what can be opened at a path; None where nothing can."""
    try:
        return group[path]
    except (KeyError, ValueError, TypeError, AttributeError):  # as zarr's reading of odd JSON ends
        return None


def _has_attributes(node: zarr.Group | zarr.Array[Any]) -> bool:
    """Say whether the object is there that holds attributes, empty ones too: in format 2 one of its own."""
    key = join_path(node.path, ".zattrs")
    if not isinstance(node.metadata.attributes, dict):
        return False
    return node.metadata.zarr_format == 3 or read(node.store, key) is not None


def refuse_damaged_metadata(group: zarr.Group, manifest: Manifest) -> None:
    """Raise if groups or arrays cannot be opened, or lack what others read of them.

    Raises
    ------
    MoECError
        If one cannot.
    """
    if lost := find_damaged_metadata(group, manifest):
        raise MoECError(
            f"the metadata of {', '.join(map(repr, lost))} in the store is damaged; moec-zarr verify "
            "--repair restores it, if the store has consolidated metadata"
        )


def restore_metadata(group: zarr.Group, names: Iterable[str], manifest: Manifest) -> None:
    """Write the metadata of groups and arrays again, as it is on record or in consolidated metadata.

    Raises
    ------
    MoECError
        If neither has it, or that is damaged, too.
    """
    kept, known = _consolidated(group), read_groups(group)
    found = {}
    for name in names:
        for file, data in _documents(name, group.metadata.zarr_format, kept, known).items():
            if not isinstance(data, dict):
                raise MoECError(
                    f"the metadata of {name!r} is damaged, and the store has no consolidated metadata to "
                    "restore it from; restore it from elsewhere, or convert anew"
                )
            found[join_path(group.path, name, file)] = data
    for key, data in found.items():
        write_json(group.store, key, data)
    if lost := find_damaged_metadata(group, manifest):
        raise MoECError(
            f"the metadata of {', '.join(map(repr, lost))} is damaged, or is not that of "
            f"{PLAN_PATH}, and so is what consolidated metadata keeps of it; restore one of them from "
            "elsewhere, or convert anew"
        )


def _documents(
    name: str, zarr_format: int, kept: Mapping[str, Any], known: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return the objects that the metadata of a group or an array are, None where one is not known."""
    if zarr_format == 3:
        made = {"zarr_format": 3, "node_type": "group", "attributes": known[name]} if name in known else None
        found = kept.get(name, made)
        if isinstance(found, dict):  # in there, a group is said to have no members
            found = {key: found[key] for key in found if key != "consolidated_metadata"}
        return {"zarr.json": found}
    if name in known or f"{name}/.zgroup" in kept:
        return {".zgroup": {"zarr_format": 2}, ".zattrs": kept.get(f"{name}/.zattrs", known.get(name, {}))}
    return {file: kept.get(f"{name}/{file}") for file in (".zarray", ".zattrs")}


def _consolidated(group: zarr.Group) -> dict[str, Any]:
    """Return the consolidated metadata of a group; empty where there is none."""
    file = ".zmetadata" if group.metadata.zarr_format == 2 else "zarr.json"
    try:
        data = json.loads(read(group.store, join_path(group.path, file)) or b"{}")
        if file == "zarr.json":
            data = data.get("consolidated_metadata") or {}
        return dict(data.get("metadata") or {})
    except (ValueError, TypeError, AttributeError):
        return {}
