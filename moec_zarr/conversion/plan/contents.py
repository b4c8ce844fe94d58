"""What lies at a place beside the variables of one group, which alone are converted: said, not left out."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import zarr
from zarr.abc.store import Store

from moec_zarr.archive.storage import to_read
from moec_zarr.archive.stored import hide_expected_warnings
from moec_zarr.errors import MoECError

__all__ = ["explain_store", "refuse_file_groups", "refuse_store"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, *(512 << step for step in range(8)))  # sizes of what others may put before it
_SHOWN = 6  # names in a message


def refuse_file_groups(path: str, opened: Any) -> None:
    """Refuse a NetCDF4 or HDF5 file with groups.

    Parameters
    ----------
    path : str
        What to call the file.
    opened : str or file object
        The file: a local path, or what reads bytes.

    Raises
    ------
    MoECError
        If a group holds variables or attributes.
    """
    root = _open_hdf5(opened)
    if root is None:
        return
    with root:
        groups = list(_file_groups(root, ""))
    if groups:
        raise MoECError(
            f"{path} has groups, and the variables of one are taken at a time: {_names(groups)} would be "
            f"left out. In Python, xarray.open_dataset({path!r}, group={groups[0]!r}) opens one, and without "
            "group= the root; give what it returns in place of the path"
        )


def _open_hdf5(opened: Any) -> Any:
    """Return the root group of a file; None of a file in another format, which has no groups."""
    if isinstance(opened, str):
        with open(opened, "rb") as file:
            start = file.read(_USER_BLOCKS[-1] + len(_HDF5))
    else:
        start = opened.read(_USER_BLOCKS[-1] + len(_HDF5))
    if not any(start.startswith(_HDF5, place) for place in _USER_BLOCKS):
        return None
    if isinstance(opened, str) and importlib.util.find_spec("netCDF4"):
        import netCDF4

        return netCDF4.Dataset(opened)
    if importlib.util.find_spec("h5netcdf"):
        import h5netcdf  # type: ignore[import-untyped]

        return h5netcdf.File(opened, "r")
    return None  # xarray will say what it needs to open the file


def _file_groups(group: Any, path: str) -> Iterator[str]:
    """Paths of the groups that hold something themselves."""
    for name, each in group.groups.items():
        here = f"{path}/{name}" if path else name
        attributes = each.ncattrs() if hasattr(each, "ncattrs") else each.attrs
        if len(each.variables) or len(attributes):
            yield here
        yield from _file_groups(each, here)


@hide_expected_warnings()
def refuse_store(path: str, store: Store) -> None:
    """Refuse a zarr store that holds an array alone, the levels of an image, or groups.

    Raises
    ------
    MoECError
        If it does.
    """
    root = zarr.open(to_read(store), mode="r")
    if isinstance(root, zarr.Array):
        raise MoECError(
            f"{path} is a single zarr array, and a source is a group of arrays with named dimensions; "
            f"{_remedy(path, root)}"
        )
    if levels := _levels(root):
        first = root.get(levels[0])
        advice = _remedy(f"{path}/{levels[0]}", first) if isinstance(first, zarr.Array) else ""
        raise MoECError(
            f"{path} is an OME-Zarr image, whose resolution levels {_names(levels)} are no variables on one "
            f"grid; {advice or 'convert a level'} for each level that you need. What comes of it is no "
            "OME-Zarr image"
        )
    nodes = dict(root.members(max_depth=None))
    holding = {key.rpartition("/")[0] for key, node in nodes.items() if isinstance(node, zarr.Array)}
    groups = [
        name
        for name, node in sorted(nodes.items())
        if isinstance(node, zarr.Group) and (name in holding or len(node.attrs))
    ]
    if groups:
        raise MoECError(
            f"{path} has groups, and the variables of one are taken at a time: {_names(groups)} would be "
            f"left out. Give a group by its own path, such as {path}/{groups[0]}; for the root alone, in "
            f"Python, give xarray.open_zarr({path!r}) in place of the path"
        )


@hide_expected_warnings()
def explain_store(path: str, store: Store) -> str:
    """Say why xarray cannot open a zarr group, as far as its arrays tell; empty where they do not."""
    root = zarr.open(to_read(store), mode="r")
    arrays = dict(sorted(root.arrays())) if isinstance(root, zarr.Group) else {}
    unnamed = [name for name, array in arrays.items() if array.ndim and not _dimensions(array)]
    if unnamed:
        return (
            f"{path} has arrays without names of their dimensions, which a source needs: {_names(unnamed)}; "
            f"{_remedy(f'{path}/{unnamed[0]}', arrays[unnamed[0]])}"
        )
    lengths: dict[str, dict[int, str]] = {}
    for name, array in arrays.items():
        for dim, length in zip(_dimensions(array), array.shape, strict=False):
            lengths.setdefault(str(dim), {}).setdefault(length, name)
    for dim, found in lengths.items():
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            return (
                f"{path} is no dataset: the dimension {dim!r} has {one} voxels in {first!r} and {other} in "
                f"{second!r}; {_remedy(f'{path}/{first}', arrays[first])} for each array"
            )
    return ""


def _levels(root: zarr.Group) -> list[str]:
    """Paths of the levels of an image, where a group is one; OME-Zarr 0.5 has them within "ome"."""
    attributes: Any = dict(root.attrs)
    images = attributes.get("multiscales") or (attributes.get("ome") or {}).get("multiscales")
    try:
        return [str(level["path"]) for image in images or () for level in image["datasets"]]
    except (TypeError, KeyError, AttributeError):
        return []


def _dimensions(array: zarr.Array[Any]) -> list[Any]:
    """Names of an array's dimensions; empty where it has none."""
    names: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return list(names) if isinstance(names, (list, tuple)) else []


def _remedy(path: str, array: zarr.Array[Any]) -> str:
    axes = [*(f"dim_{i}" for i in range(array.ndim - 3)), "z", "y", "x"]
    dims = _dimensions(array) or axes[len(axes) - array.ndim :]
    name = path.rsplit("/", 1)[-1].removesuffix(".zarr")
    return (
        f"name its axes in Python, such as xarray.DataArray(dask.array.from_zarr({path!r}), dims={dims}, "
        f"name={name!r}), and let moec_zarr.convert take that"
    )


def _names(names: list[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*map(repr, names[:_SHOWN]), *more])
