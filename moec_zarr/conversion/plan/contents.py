"""The groups of NetCDF4 and HDF5 files, which are found without xarray."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from moec_zarr.adapters.tree import join_path

__all__ = ["list_file_groups"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, *(512 << step for step in range(8)))  # sizes of what others may put before it


def list_file_groups(opened: Any) -> dict[str, str]:
    """List the groups of a file, after the root, whose path is empty, each with its attribute "coordinates".

    xarray takes that out of the attributes.

    Parameters
    ----------
    opened : str or file object
        The file: a local path, or what reads bytes. One of a format without groups has the root alone.
    """
    root = _open_hdf5(opened)
    if root is None:
        return {"": ""}
    with root:
        return {path: _coordinates(group) for path, group in _file_groups(root, "")}


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


def _file_groups(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Give a group and all within it, parents first."""
    yield path, group
    for name, each in group.groups.items():
        yield from _file_groups(each, join_path(path, name))


def _coordinates(group: Any) -> str:
    if hasattr(group, "ncattrs"):  # of netCDF4
        found = group.getncattr("coordinates") if "coordinates" in group.ncattrs() else ""
    else:
        found = group.attrs.get("coordinates", "")
    return found if isinstance(found, str) else ""
