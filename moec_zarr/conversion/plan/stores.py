"""The groups of a zarr store as datasets, and what lies beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.abc.store import Store

from moec_zarr.adapters.meaning import is_packed
from moec_zarr.adapters.zarr_core import sync
from moec_zarr.adapters.zarr_groups import SINGLE, open_groups
from moec_zarr.archive.attributes import PREFIX
from moec_zarr.archive.storage import names_in, read, to_read, write
from moec_zarr.archive.stored import hide_expected_warnings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["METADATA", "copy_files", "keep_integers", "open_store"]

METADATA = ("zarr.json", ".zgroup", ".zmetadata", ".zarray")
"""Objects of which a zarr store has one at its root."""

_log = logging.getLogger(__name__)
_SHOWN = 6  # of what is left out, in a message
_SMALL = 2**24  # bytes of a file that is copied
# Key in the encoding of a dataset: its store, and the keys of small files in the groups of that.
_FILES = "moec_zarr_files_beside"


def keep_integers(opening: Callable[..., xr.Dataset]) -> xr.Dataset:
    """Open a dataset in which integers of 64 bits stay integers.

    Where such a variable has a fill value, xarray makes doubles of it, which hold no more than 53 bits.
    """
    ds = opening()
    wide = [
        name
        for name, var in ds.variables.items()
        if var.dtype == np.float64
        and np.dtype(var.encoding.get("dtype") or var.dtype).kind in "iu"
        and np.dtype(var.encoding["dtype"]).itemsize == 8
        and not is_packed(var)
        and "units" not in var.encoding  # of times that were decoded
    ]
    if not wide:
        return ds
    ds.close()
    return opening(mask_and_scale=dict.fromkeys(wide, False))


@hide_expected_warnings()
def open_store(path: str, store: Store, options: dict[str, Any]) -> dict[str, xr.Dataset]:
    """Open the groups of one zarr store."""
    import xarray as xr

    def open_group(group: str, without: list[str]) -> xr.Dataset:
        place: Any = store
        # Those of the root are parsed as a whole: once, not for each group.
        within: dict[str, Any] = {"group": group, "consolidated": False} if group else {}
        return keep_integers(lambda **more: xr.open_dataset(place, engine="zarr", **options | within | more))

    groups = open_groups(to_read(store), "", open_group)
    strays = list(_find_strays(store, groups))
    files = [place for place in strays if _is_small_file(store, place)]
    groups[""].encoding[_FILES] = store, files
    if strays := [place for place in strays if place not in files]:
        more = f" and {len(strays) - _SHOWN} more" if len(strays) > _SHOWN else ""
        _log.warning(
            "%s holds what is no array or group by its metadata, and is left out: %s%s; copy files yourself, "
            "and consolidate metadata again if arrays are among them",
            path, ", ".join(strays[:_SHOWN]), more,
        )  # fmt: skip
    for each in groups.values():
        each.encoding.setdefault("source", path)
    return groups


def _find_strays(store: Store, groups: dict[str, xr.Dataset]) -> Iterator[str]:
    """Find files, and folders, in the groups of a store that are neither a group nor an array there."""
    if not store.supports_listing or SINGLE in groups[""].variables:
        return
    known = {f"{path}/{name}".strip("/") for path, ds in groups.items() for name in (*ds.variables, "")}
    for path in groups:
        for name in sorted(names_in(store, path)):
            place = f"{path}/{name}".strip("/")
            if place not in known and name not in (*METADATA, ".zattrs") and not name.startswith(PREFIX[:-1]):
                yield place


def _is_small_file(store: Store, key: str) -> bool:
    """Say whether there is an object at a key, not a folder, and it is not large."""
    try:
        return not names_in(store, key) and sync(store.exists(key)) and sync(store.getsize(key)) <= _SMALL
    except OSError:
        return False


def copy_files(ds: xr.Dataset, store: Store) -> None:
    """Copy the small files in the groups of a source into another store."""
    source, files = ds.encoding.get(_FILES, (None, ()))
    for key in files:
        if (data := read(source, key)) is not None:
            write(store, key, data)
