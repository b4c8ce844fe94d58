"""A store whose arrays grow along a dimension, so that whoever opens it meanwhile can read it.

The shape of each array is an object of its own, and a reader refuses variables that give one dimension
several lengths. So an array takes a dimension of its own before it grows, and the one that all of them share
after the last has grown. Wherever this ends early, all that was there can be read, and it can be done again.
Readers of consolidated metadata, which is one object, see nothing of it.

What is to be stored in an array before it grows is written through `view_as_planned`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import WrapperStore

from moec_zarr.adapters.tree import dims_named, join_path, local_name, owns_dims
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.archive.storage import read, write_json

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype

__all__ = ["grow_arrays", "view_as_planned"]


def view_as_planned(group: zarr.Group, plan: Plan) -> zarr.Group:
    """Return a group whose arrays have the shapes and dimensions of a plan, whatever the store says of them.

    Chunks are read and written through it; metadata must not be.
    """
    changed = {}
    for each in plan.variables:
        for key, old, new in _planned_metadata(group, each, each.dims, each.shape):
            if new != old:
                changed[key] = json.dumps(new).encode()
    if not changed:
        return group
    store = _Overlaid(group.store, changed)
    return zarr.open_group(
        store,
        path=group.path,
        mode="r" if store.read_only else "r+",
        zarr_format=group.metadata.zarr_format,
        use_consolidated=False,
    )


def grow_arrays(group: zarr.Group, plan: Plan, dim: str) -> None:
    """Give the arrays along a dimension the shape that a plan has for them."""
    for growing in dims_named(dict.fromkeys(d for each in plan.variables for d in each.dims), dim):
        _grow_along(group, [each for each in plan.variables if growing in each.dims], growing)


def _grow_along(group: zarr.Group, along: list[PlannedVariable], dim: str) -> None:
    # One array keeps the dimension: that of the coordinate, which is the dimension's index.
    first = next((each for each in along if each.dims == (dim,) and each.name == dim), along[0])
    others = [each for each in along if each is not first]
    if not any(
        new != old for each in along for _, old, new in _planned_metadata(group, each, each.dims, each.shape)
    ):
        return
    for each in others:
        name = f"{local_name(dim)} of {local_name(each.name)} while the store grows"
        own = tuple(name if d == dim else d for d in each.dims)
        _write(group, each, own, each.shape)
    _write(group, first, first.dims, first.shape)
    for each in others:
        _write(group, each, each.dims, each.shape)


def _write(group: zarr.Group, each: PlannedVariable, dims: tuple[str, ...], shape: tuple[int, ...]) -> None:
    for key, old, new in _planned_metadata(group, each, dims, shape):
        if new != old:
            write_json(group.store, key, new)


def _planned_metadata(
    group: zarr.Group, each: PlannedVariable, dims: tuple[str, ...], shape: tuple[int, ...]
) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Return the objects of an array's metadata, as they are and with dimensions and shape; dimensions first.

    An array whose metadata cannot be read has none. One that shares no dimension keeps what it calls them.
    """
    local = [local_name(dim) for dim in dims]
    named = not owns_dims(each.name, each.dims)
    names: dict[str, dict[str, Any]] = (
        {"zarr.json": {"shape": list(shape)} | ({"dimension_names": local} if named else {})}
        if group.metadata.zarr_format == 3
        else ({".zattrs": {"_ARRAY_DIMENSIONS": local}} if named else {})
        | {".zarray": {"shape": list(shape)}}
    )
    found = []
    for name, wanted in names.items():
        key = join_path(group.path, each.name, name)
        data = read(group.store, key)
        if data is None:
            continue
        try:
            old = json.loads(data)
        except ValueError:
            continue
        if isinstance(old, dict):
            found.append((key, old, {**old, **wanted}))
    return found


class _Overlaid(WrapperStore[Store]):
    """A store in which some objects read otherwise."""

    def __init__(self, store: Store, objects: Mapping[str, bytes]) -> None:
        super().__init__(store)
        self._objects = dict(objects)

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._objects)

    @property
    def fs(self) -> Any:
        """The file system of the store, if it has one."""
        return getattr(self._store, "fs", None)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        data = self._objects.get(key)
        if data is None or byte_range is not None:
            return await super().get(key, prototype, byte_range)
        return default_buffer_prototype().buffer.from_bytes(data)
