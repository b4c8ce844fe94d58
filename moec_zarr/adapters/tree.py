"""A hierarchy of groups as one dataset, and its groups again.

The name of a variable is its path from the root, ``science/no2``. A dimension is named after the group that
it belongs to, ``science/time``; in the root its name is its own. So a flat set is a tree of one group, in
which nothing is renamed. Attributes of groups stand in the encoding of the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "datasets_of",
    "dims_named",
    "flatten",
    "group_of",
    "groups_of",
    "join_path",
    "local_name",
    "map_groups",
    "merge_groups",
    "owns_dims",
    "select",
    "sort_key",
    "split",
]

_GROUPS = "moec_zarr_groups"  # key in the encoding of a dataset of several groups


class Group(NamedTuple):
    """What a tree knows of a group beside its variables.

    Attributes
    ----------
    attrs : dict
        Its attributes.
    dims : dict of str to str
        The dimensions of its variables: their names in the tree, by those in the group.
    """

    attrs: dict[Any, Any]
    dims: dict[str, str]


def local_name(path: Hashable) -> str:
    """Return the name that a variable or dimension has in its group."""
    return str(path).rpartition("/")[2]


def group_of(path: Hashable) -> str:
    """Return the path of the group that a variable lies in; empty for the root."""
    return str(path).rpartition("/")[0]


def sort_key(path: str) -> tuple[Any, Any]:
    """Return what puts paths in order: a group before those within it, and numbers by their size."""
    *above, last = [
        (each.isdecimal(), int(each) if each.isdecimal() else 0, each) for each in path.split("/")
    ]
    return above, last


def select(asked: Iterable[str] | None, existing: Iterable[str], what: str = "variable") -> list[str]:
    """Return the variables whose paths are asked for, or match a pattern such as ``*/t2m``; by default all.

    Raises
    ------
    MoECError
        If there is none for one of them.
    """
    known = list(existing)
    if asked is None:
        return known
    found: dict[str, None] = {}
    absent = []
    for each in [asked] if isinstance(asked, str) else asked:
        path = each.removeprefix("/")
        matching = [path] if path in known else [name for name in known if fnmatchcase(name, path)]
        absent += [] if matching else [each]
        found |= dict.fromkeys(matching)
    if absent:
        raise MoECError(f"no {what} {', '.join(map(repr, absent))}; there are {', '.join(map(repr, known))}")
    return list(found)


def join_path(*parts: str) -> str:
    """Return a path of those parts that are not empty."""
    return "/".join(part for part in parts if part)


def dims_named(dims: Iterable[Hashable], name: str) -> list[str]:
    """Return the dimensions, of any group, that are called so there."""
    return [str(dim) for dim in dims if local_name(dim) == name]


def owns_dims(name: str, dims: Sequence[str]) -> bool:
    """Say whether a variable shares its dimensions with no other: that of an array without a dataset."""
    return bool(dims) and all(group_of(dim) == name for dim in dims)


def groups_of(ds: xr.Dataset) -> dict[str, Group]:
    """Return what is known of each group of a tree, by path; parents come before children."""
    found: dict[str, Group] | None = ds.encoding.get(_GROUPS)
    return {"": Group(ds.attrs, {str(dim): str(dim) for dim in ds.dims})} if found is None else found


def datasets_of(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the groups of a tree of xarray, by path from its root."""
    root = tree.path.rstrip("/")
    return {
        node.path.removeprefix(root).strip("/"): node.to_dataset(inherit=node is tree)
        for node in tree.subtree
    }


def flatten(groups: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Make one dataset of the groups of a tree.

    A group has the dimensions of those above where its own have the same name and length, and it has no
    coordinate of that name, as in NetCDF4. A dimension whose name is a path belongs to the array there.

    Parameters
    ----------
    groups : mapping of str to Dataset
        By path, which is empty for the root. Groups between that hold nothing may be missing.
    """
    if list(groups) == [""]:
        return groups[""]
    known: dict[str, Group] = {}
    parts = []
    for path in sorted(groups, key=lambda path: (path.count("/") + bool(path), path)):
        ds = groups[path]
        dims = {str(dim): _find_dim(str(dim), ds, path, known, groups) for dim in ds.dims}
        known[path] = Group(dict(ds.attrs), dims)
        parts.append(_qualify(ds, path, dims))
    encodings = [groups[path].encoding for path in known]  # that of the root first
    sources = [{"source": each["source"]} for each in encodings if "source" in each]
    encoding = {**encodings[0], **(sources[0] if sources else {}), _GROUPS: known}
    return merge_groups(parts, dict(groups[""].attrs) if "" in groups else {}, encoding)


def _find_dim(
    dim: str, ds: xr.Dataset, path: str, known: Mapping[str, Group], groups: Mapping[str, xr.Dataset]
) -> str:
    """Return the name that a dimension of a group has in the tree."""
    above = path
    while above and dim not in ds.variables and "/" not in dim:
        above = group_of(above)
        if above in known and dim in known[above].dims:
            if groups[above].sizes[dim] == ds.sizes[dim]:
                return known[above].dims[dim]
            break
    return join_path(path, dim)


def _qualify(ds: xr.Dataset, path: str, dims: Mapping[str, str]) -> xr.Dataset:
    """Give variables and dimensions of a group the names that they have in the tree."""
    names = {str(name): join_path(path, str(name)) for name in ds.variables}
    new = {old: new for old, new in dims.items() if old in ds.dims} | names
    return ds.rename({old: name for old, name in new.items() if old != name})


def merge_groups(
    parts: list[xr.Dataset], attrs: Mapping[Any, Any], encoding: Mapping[str, Any]
) -> xr.Dataset:
    """Make a tree of datasets that hold the variables of one group each, under their names in the tree."""
    import xarray as xr

    # No two of them have a variable in common, so that nothing is compared.
    flat = xr.merge(parts, compat="override", join="exact", combine_attrs="override")
    flat.attrs, flat.encoding = dict(attrs), dict(encoding)
    return flat


def split(ds: xr.Dataset, inherit: bool = False) -> dict[str, xr.Dataset]:
    """Return the groups of a tree as datasets of their own names, by path; parents come before children.

    With `inherit`, each has the coordinates of the groups above that lie along its dimensions.
    """
    if _GROUPS not in ds.encoding:
        return {"": ds}
    known = groups_of(ds)
    names: dict[str, list[Hashable]] = {path: [] for path in known}
    for name in ds.variables:
        names[group_of(name)].append(name)
    return {path: _extract(ds, path, own, known[path], inherit) for path, own in names.items()}


def _extract(ds: xr.Dataset, path: str, own: list[Hashable], group: Group, inherit: bool) -> xr.Dataset:
    part = ds[own]
    names = {name: local_name(name) for name in own}
    for name in part.variables:
        # Coordinates along its dimensions that belong to other groups came along.
        if name in names or not inherit or local_name(name) in names.values():
            continue
        if _lies_above(group_of(name), path):
            names[name] = local_name(name)
    part = part.drop_vars([name for name in part.variables if name not in names])
    dims = {name: dim for dim, name in group.dims.items() if name in part.dims}
    part = part.rename({old: new for old, new in (dims | names).items() if old != new})
    part.attrs = dict(group.attrs)
    part.encoding = {key: value for key, value in ds.encoding.items() if key != _GROUPS}
    return part


def map_groups(ds: xr.Dataset, change: Callable[[xr.Dataset], xr.Dataset]) -> xr.Dataset:
    """Return a tree each group of which is changed; its variables and dimensions keep their names."""
    if _GROUPS not in ds.encoding:
        return change(ds)
    known = groups_of(ds)
    parts = [_qualify(change(part), path, known[path].dims) for path, part in split(ds).items()]
    return merge_groups(parts, ds.attrs, ds.encoding)


def _lies_above(group: str, path: str) -> bool:
    return not group or path.startswith(f"{group}/")
