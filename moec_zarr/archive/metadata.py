"""Metadata of arrays that is lost or damaged, and what consolidated metadata keeps of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import zarr

from moec_zarr.adapters.tree import owns_dims
from moec_zarr.archive.storage import read, write_json
from moec_zarr.errors import MoECError

__all__ = ["find_damaged_metadata", "refuse_damaged_metadata", "restore_metadata"]

_FILES = {2: (".zarray", ".zattrs"), 3: ("zarr.json",)}


def find_damaged_metadata(group: zarr.Group, dims: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of the arrays that cannot be opened, or do not say what their dimensions are.

    Parameters
    ----------
    group : zarr.Group
    dims : mapping of str to sequence of str
        The dimensions of each array, by its name.
    """
    return [name for name in dims if not _can_be_opened(group, name, named=not owns_dims(name, dims[name]))]


def _can_be_opened(group: zarr.Group, name: str, named: bool) -> bool:
    try:
        array = group[name]
        if not isinstance(array, zarr.Array):
            return False
        has = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    except (KeyError, ValueError, TypeError, AttributeError):  # as zarr's reading of odd JSON ends
        return False
    return array.ndim == 0 or not named or has is not None


def refuse_damaged_metadata(group: zarr.Group, dims: Mapping[str, Sequence[str]]) -> None:
    """Raise if arrays cannot be opened.

    Raises
    ------
    MoECError
        If one cannot.
    """
    if lost := find_damaged_metadata(group, dims):
        raise MoECError(
            f"the metadata of {', '.join(map(repr, lost))} in the store is damaged; moec-zarr verify "
            "--repair restores it, if the store has consolidated metadata"
        )


def restore_metadata(group: zarr.Group, names: Iterable[str]) -> None:
    """Write the metadata of arrays again, as the consolidated metadata of their group has it.

    Raises
    ------
    MoECError
        If it does not have it.
    """
    kept = _consolidated(group)
    found = {}
    for name in names:
        for file in _FILES[group.metadata.zarr_format]:
            data = kept.get(name if file == "zarr.json" else f"{name}/{file}")
            if not isinstance(data, dict):
                raise MoECError(
                    f"the metadata of {name!r} is damaged, and the store has no consolidated metadata to "
                    "restore it from; restore it from elsewhere, or convert anew"
                )
            found["/".join(part for part in (group.path, name, file) if part)] = data
    for key, data in found.items():
        write_json(group.store, key, data)


def _consolidated(group: zarr.Group) -> dict[str, Any]:
    """Return the consolidated metadata of a group; empty where there is none."""
    file = ".zmetadata" if group.metadata.zarr_format == 2 else "zarr.json"
    try:
        data = json.loads(read(group.store, "/".join(part for part in (group.path, file) if part)) or b"{}")
        if file == "zarr.json":
            data = data.get("consolidated_metadata") or {}
        return dict(data.get("metadata") or {})
    except (ValueError, TypeError, AttributeError):
        return {}
