"""Variables that are stored whole, without tasks: values as the store holds them, written chunk by chunk.

What a chunk will hold is made in memory first. So an object is replaced at once, one that is damaged is never
read, and the record of a variable can name the object that is to come beside the one that is there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore, StorePath

from moec_zarr.adapters.tree import group_of, join_path, local_name
from moec_zarr.adapters.zarr_core import sync
from moec_zarr.adapters.zarr_groups import array_of
from moec_zarr.archive.records import check_whole, expect_whole, write_whole
from moec_zarr.archive.storage import digest_of, key_of, read
from moec_zarr.arrays import Array
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["damaged_chunks", "encode_as_stored", "write_part"]

_MEANINGS = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")
_TIMES = ("units", "calendar")


def encode_as_stored(
    group: zarr.Group, name: str, decoded: xr.Variable, numbers: xr.Variable, action: str
) -> Array:
    """Encode values of a variable in the way in which a store holds it.

    Parameters
    ----------
    group : zarr.Group
        The store.
    name : str
        Name of the variable.
    decoded : xarray.Variable
        Its values, or a part of them, with times decoded where that is possible.
    numbers : xarray.Variable
        The same as the source has them. Times that count as the store does are not put through a calendar.
    action : str
        What is to be done with them, for a message.

    Raises
    ------
    MoECError
        If one would change.
    """
    import xarray as xr
    from xarray.conventions import decode_cf_variable, encode_cf_variable

    if array_of(numbers) is not None:
        return np.asarray(numbers.values)
    stored = _undecoded(group, name)
    counted = [(var.attrs.get("units"), var.attrs.get("calendar", "standard")) for var in (stored, numbers)]
    same_count = counted[0] == counted[1] and numbers.dtype.kind in "iuf"
    plain = (numbers if same_count else decoded).to_base_variable().load()
    # Times that xarray cannot decode are numbers like others, and text is no time.
    times = plain.dtype.kind in "mMO"
    keys = _MEANINGS + _TIMES if times else _MEANINGS
    kept = {key: stored.attrs[key] for key in keys if key in stored.attrs}
    plain.encoding = kept | {"dtype": stored.dtype}
    try:
        with warnings.catch_warnings():
            # xarray would choose other units, which the store cannot have for some of its steps.
            warnings.filterwarnings("error", message="Times can't be serialized faithfully")
            encoded = np.asarray(encode_cf_variable(plain, name=name).values).astype(stored.dtype)
        as_stored = xr.Variable(plain.dims, encoded, stored.attrs)
        again: Any = decode_cf_variable(
            name, as_stored, decode_times=times, decode_timedelta=plain.dtype.kind == "m"
        )
        same = bool(again.equals(plain))
    except (ValueError, TypeError, OverflowError, UserWarning):
        same = False
    if not same:
        raise MoECError(
            f"variable {name!r} cannot be {action} exactly: the store holds it as {stored.dtype}"
            + (f" in {stored.attrs['units']!r}" if "units" in stored.attrs else "")
        )
    return encoded


def _undecoded(group: zarr.Group, name: str) -> xr.Variable:
    """Return a variable as it is stored, without its values being read."""
    from xarray.backends import ZarrStore

    place: Any = group.store
    parent = group_of(name)
    opened = ZarrStore.open_group(
        place,
        mode="r",
        group=join_path(group.path, parent) or None,
        consolidated=False,
        zarr_format=group.metadata.zarr_format,
    )
    found: xr.Variable = opened.open_store_variable(local_name(name))
    if "units" not in found.attrs:  # bounds have those of what they belong to
        beside: Any = group[parent] if parent else group
        for _, other in beside.arrays():
            if other.attrs.get("bounds") == local_name(name):
                found.attrs |= {key: other.attrs[key] for key in _TIMES if key in other.attrs}
    return found


def damaged_chunks(group: zarr.Group, name: str) -> list[tuple[slice, ...]]:
    """Return the voxels of all chunks of a variable that are damaged."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    grid = ChunkGrid.of_objects(array)
    damage = check_whole(group, name)
    keys = {array.metadata.encode_chunk_key(index): index for index in grid.indices()}
    # Where the record itself is damaged, nothing is known of any chunk.
    indices = [keys[key] for key in damage] if damage.keys() <= keys.keys() else list(keys.values())
    return [grid.region(index) for index in indices]


def write_part(group: zarr.Group, name: str, start: Sequence[int], values: Array) -> None:
    """Write encoded values of a variable from a position on, and put it on record.

    Chunks that they fill are not read. Of others, the rest stays as it is.
    """
    array = group[name]
    assert isinstance(array, zarr.Array)
    region = tuple(slice(at, at + n) for at, n in zip(start, values.shape, strict=True))
    grid = ChunkGrid.of_objects(array)
    touched = {key_of(array, array.metadata.encode_chunk_key(index)): index for index in grid.within(region)}
    made: dict[str, Any] = {}
    for key, index in touched.items():
        covered = all(
            part.start <= whole.start and whole.stop <= part.stop
            for part, whole in zip(region, grid.region(index), strict=True)
        )
        if not covered and (data := read(group.store, key)) is not None:
            made[key] = default_buffer_prototype().buffer.from_bytes(data)
    aside = zarr.Array.from_dict(StorePath(MemoryStore(made), array.path), array.metadata.to_dict())
    aside[region if array.ndim else ...] = values
    relative = {key: key.removeprefix(key_of(array, "")) for key in touched}
    expect_whole(
        group, name, {relative[key]: digest_of(made[key].to_bytes()) for key in touched if key in made}
    )
    for key in touched:
        if key in made:
            sync(group.store.set(key, made[key]))
        else:  # nothing but the fill value, which zarr does not store
            sync(group.store.delete(key))
    write_whole(group, name)
