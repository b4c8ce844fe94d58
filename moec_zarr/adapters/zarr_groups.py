"""The groups of a zarr store as datasets: by xarray where it opens them, else array by array.

xarray wants names of dimensions, each of one length in a group. Arrays of images, and those that other
programs write, have none, or several levels in one group. Then each array has dimensions of its own, named
after it, ``0/z``; nothing is decoded, and its attributes are as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import zarr

from moec_zarr.adapters.ome import Axis, levels_of
from moec_zarr.adapters.tree import group_of, join_path, local_name

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "SINGLE",
    "array_of",
    "axes_of",
    "axis_types",
    "has_names",
    "is_consolidated",
    "open_groups",
    "role_of",
]

SINGLE = "array"
"""Name of an array that is a store of its own."""

_ARRAY = "moec_zarr_array"  # keys in the encoding of a variable that is an array without a dataset
_AXES = "moec_zarr_axes"
_ROLE = "moec_zarr_role"

Arrays = dict[str, "zarr.Array[Any]"]


def array_of(var: xr.Variable) -> zarr.Array[Any] | None:
    """Return the array that a variable is, where that has no dataset; None of other variables."""
    found: zarr.Array[Any] | None = var.encoding.get(_ARRAY)
    return found


def axes_of(var: xr.Variable) -> tuple[Axis, ...]:
    """Return the axes of an image; empty where the variable is none."""
    axes: tuple[Axis, ...] = var.encoding.get(_AXES, ())
    return axes


def axis_types(var: xr.Variable) -> tuple[str, ...]:
    """Return the types of the axes of an image, such as "space"; empty where the variable is none."""
    return tuple(axis.type for axis in axes_of(var))


def role_of(var: xr.Variable) -> str:
    """Say what an array is by the metadata of its group, if it is no field; else empty."""
    return str(var.encoding.get(_ROLE, ""))


def open_groups(
    store: Any,
    path: str,
    open_dataset: Callable[[str, list[str]], xr.Dataset],
    without: Iterable[str] = (),
    consolidated: bool | None = None,
) -> dict[str, xr.Dataset]:
    """Open all groups of a store; nothing but metadata is read.

    Parameters
    ----------
    store : zarr Store
        With a group, or a single array.
    path : str
        Of the root within the store.
    open_dataset : callable
        Opens the group at a path in the store as a dataset, without the variables that it is given.
    without : iterable of str
        Paths of arrays to leave out, from the root.
    consolidated : bool, optional
        Whether consolidated metadata are used; by default where there are some.

    Returns
    -------
    dict of str to Dataset
        By path from the root. That of a single array holds it under the name `SINGLE`.
    """
    try:
        root = zarr.open_group(store, path=path or None, mode="r", use_consolidated=consolidated)
    except (zarr.errors.ContainsArrayError, FileNotFoundError):  # in format 3 and 2, if it is an array
        single = zarr.open_array(store, path=path, mode="r")
        return {"": _open_arrays({SINGLE: single}, {}, {})}
    skipped = set(without)
    groups: dict[str, tuple[Mapping[str, Any], Arrays]] = {"": (dict(root.attrs), {})}
    nodes = sorted(root.members(max_depth=None))
    for name, node in nodes:
        if isinstance(node, zarr.Group):
            groups[name] = dict(node.attrs), {}
    for name, node in nodes:
        if isinstance(node, zarr.Array):
            groups[group_of(name)][1][local_name(name)] = node
    levels = {
        join_path(name, level): axes
        for name, (attrs, _) in groups.items()
        for image in levels_of(attrs)
        for level, axes in image.items()
    }
    opened = {}
    for name, (attrs, arrays) in groups.items():
        # Of an image, a level may lie in a group of its own.
        places = {each: join_path(name, each) for each in arrays}
        own = {each: levels[place] for each, place in places.items() if place in levels}
        here = [local_name(each) for each in skipped if group_of(each) == name]
        if own or levels_of(attrs) or not _is_dataset(arrays):
            left = {each: array for each, array in arrays.items() if each not in here}
            opened[name] = _open_arrays(left, attrs, own)
        else:
            opened[name] = open_dataset(join_path(path, name), here)
            if "coordinates" in attrs:  # which xarray takes out of the attributes
                opened[name].attrs["coordinates"] = attrs["coordinates"]
    return opened


def is_consolidated(array: zarr.Array[Any]) -> bool:
    """Say whether the store of an array has consolidated metadata."""
    try:
        root = zarr.open_group(array.store, mode="r")
    except (zarr.errors.ContainsArrayError, FileNotFoundError):
        return False
    return root.metadata.consolidated_metadata is not None


def has_names(array: zarr.Array[Any]) -> bool:
    """Say whether an array has names of its dimensions."""
    return array.ndim == 0 or bool(_names(array))


def _names(array: zarr.Array[Any]) -> list[str]:
    """Return the names of an array's dimensions; empty where it does not name all of them."""
    if array.metadata.zarr_format == 3:  # where an attribute of that name means nothing
        names: Any = array.metadata.dimension_names
    else:
        names = array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, (list, tuple)) or len(names) != array.ndim:
        return []
    return list(names) if all(isinstance(name, str) and name and "/" not in name for name in names) else []


def _is_dataset(arrays: Arrays) -> bool:
    """Say whether the arrays of a group name their dimensions, each of which has one length."""
    lengths: dict[str, int] = {}
    for array in arrays.values():
        if not has_names(array):
            return False
        names = _names(array)
        if any(lengths.setdefault(dim, n) != n for dim, n in zip(names, array.shape, strict=True)):
            return False
    return True


def _open_arrays(
    arrays: Arrays, attrs: Mapping[str, Any], axes: Mapping[str, tuple[Axis, ...]]
) -> xr.Dataset:
    """Return arrays that are no dataset as variables, each with dimensions of its own.

    `axes` are those of the arrays that are levels of images.
    """
    import xarray as xr

    variables = {}
    for name, array in arrays.items():
        var = _open_array(name, array, axes.get(name, ()))
        if array.ndim == 1 and local_name(var.dims[0]) == name:
            var.encoding[_ROLE] = "coordinate"
        variables[name] = var
    return xr.Dataset(variables, attrs=dict(attrs))


def _open_array(name: str, array: zarr.Array[Any], axes: tuple[Axis, ...]) -> xr.Variable:
    import xarray as xr

    from moec_zarr.adapters.lazy_values import as_lazy

    known = tuple(axis.name for axis in axes) if len(axes) == array.ndim else ()
    names = [*(_names(array) or known)]
    if len(set(names)) != array.ndim or any(not each or "/" in each for each in names):
        names = [f"dim_{axis}" for axis in range(array.ndim)]
    var = xr.Variable(
        [f"{name}/{axis}" for axis in names],
        as_lazy(array),
        dict(array.attrs),
        {_ARRAY: array, "preferred_chunks": dict(zip(names, array.shards or array.chunks, strict=True))},
    )
    if known:
        var.encoding[_AXES] = axes
    return var
