"""Small trees to be looked at: noisy fields, with coordinates, scales and labels; `trees` has odder ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from moec_zarr.arrays import Array
from tests.support.fields import smooth

Format = Literal[2, 3]

AXES = ("c", "z", "y", "x")
SHAPE = (2, 4, 32, 40)
LEVELS = 3  # the last is too small for a ratio of 8
SPACING = {"z": 0.5, "y": 0.25, "x": 0.25}


def _field(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Waves with a little noise."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    return (np.roll(smooth(shape), seed, axis=-1) + noise).astype("f4")


def image(path: str | Path, zarr_format: Format, *, labels: bool = True, levels: int = LEVELS) -> Path:
    """Write an OME-Zarr image: 0.4 in format 2, 0.5 in format 3; with a level of labels, if asked for."""
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    field = (1000 + 10 * _field(SHAPE)).astype("u2")
    _write_levels(root, field, levels, {"omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}})
    if labels:
        _set(root.create_group("labels"), {"labels": ["nuclei"]})
        cells = np.zeros(SHAPE, "u4")
        cells[..., 8:16, 10:20] = 1
        cells[..., 18:30, 24:40] = 2
        _write_levels(root.create_group("labels/nuclei"), cells, levels, {"image-label": {"version": "0.4"}})
    return Path(path)


def plate(path: str | Path, zarr_format: Format) -> Path:
    """Write an HCS plate of two wells with two fields each."""
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    wells = [{"path": f"A/{n}", "rowIndex": 0, "columnIndex": n - 1} for n in (1, 2)]
    columns = [{"name": "1"}, {"name": "2"}]
    _set(root, {"plate": {"rows": [{"name": "A"}], "columns": columns, "wells": wells, "field_count": 2}})
    for n, well in enumerate(wells):
        group = root.create_group(str(well["path"]))
        _set(group, {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
        for name in "01":
            field = (500 + 10 * _field(SHAPE, 2 * n + int(name))).astype("u2")
            _write_levels(group.create_group(name), field, 2, {})
    return Path(path)


def _write_levels(group: zarr.Group, values: Array, levels: int, more: Mapping[str, Any]) -> None:
    datasets: list[dict[str, Any]] = []
    v3 = group.metadata.zarr_format == 3
    for level in range(levels):
        step = 2**level
        part = values[..., ::step, ::step]
        names = {"dimension_names": AXES} if v3 else {}
        key = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if not v3 else {}
        array = group.create_array(
            str(level), shape=part.shape, dtype=part.dtype, chunks=(1, 4, 16, 16), **names, **key
        )
        array[...] = part
        scale = [SPACING.get(axis, 1.0) * (step if axis in "yx" else 1) for axis in AXES]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    axes = [
        {"name": axis, "type": "space", "unit": "micrometer"} if axis in SPACING else
        {"name": axis, "type": "channel"}
        for axis in AXES
    ]  # fmt: skip
    _set(group, {"multiscales": [{"name": "cells", "axes": axes, "datasets": datasets}], **more})


def _set(group: zarr.Group, metadata: Mapping[str, Any]) -> None:
    """Write the metadata of OME-Zarr: in format 2 as 0.4 has them, in format 3 as 0.5."""
    if group.metadata.zarr_format == 3:
        group.attrs.put({"ome": {"version": "0.5", **metadata}})
        return
    each = {key: [{**item, "version": "0.4"} for item in value] if key == "multiscales" else value
            for key, value in metadata.items()}  # fmt: skip
    group.attrs.put(each)


def swath(path: str | Path) -> Path:
    """Write a NetCDF4 file whose groups inherit the dimensions of the root, and one that has its own."""
    import netCDF4

    shape = (6, 24, 32)
    with netCDF4.Dataset(path, "w") as nc:
        nc.title = "a satellite product"
        for name, n in zip(("time", "y", "x"), shape, strict=True):
            nc.createDimension(name, n)
        nc.createVariable("time", "f8", ("time",))[:] = np.arange(6.0)
        nc["time"].units = "hours since 2020-01-01"
        for name, n in zip("yx", shape[1:], strict=True):
            coordinate = nc.createVariable(name, "f4", (name,))
            coordinate[:] = np.linspace(0, 10, n)
            coordinate.units, coordinate.long_name = "km", f"distance in {name}"
        nc.createVariable("t2m", "f4", ("time", "y", "x"))[:] = 280 + _field(shape)
        nc["t2m"].units = "K"
        science = nc.createGroup("science")
        science.setncattr("level", "2")
        science.createVariable("no2", "f4", ("time", "y", "x"))[:] = _field(shape, 1)
        science["no2"].units = "mol m-2"
        coarse = science.createGroup("coarse")
        for name, n in (("time", 6), ("y", 12), ("x", 16)):
            coarse.createDimension(name, n)
        coordinate = coarse.createVariable("y", "f4", ("y",))
        coordinate[:] = np.linspace(0, 10, 12)
        coordinate.units, coordinate.long_name = "km", "coarse distance"
        coarse.createVariable("no2", "f4", ("time", "y", "x"))[:] = _field((6, 12, 16), 2)
    return Path(path)


def bare(path: str | Path, zarr_format: Format) -> Path:
    """Write an array without a group and without names of its dimensions."""
    values = _field((6, 24, 32))
    array = zarr.create_array(
        path, shape=values.shape, dtype="f4", chunks=(2, 24, 32), zarr_format=zarr_format,
        attributes={"units": "K"},
    )  # fmt: skip
    array[...] = values
    return Path(path)


def plain(path: str | Path, zarr_format: Format) -> Path:
    """Write zarr groups of arrays that have no names of their dimensions."""
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    root.attrs["by"] = "another program"
    for name, shape in (("run/a", (6, 24, 32)), ("run/b", (6, 12, 16)), ("mesh", (4, 24, 32))):
        array = root.create_array(name, shape=shape, dtype="f4", chunks=(2, *shape[1:]))
        array[...] = _field(shape, len(name))
    small = root.create_array("run/knots", shape=(5,), dtype="f8")
    small[...] = np.arange(5.0)
    return Path(path)


def datatree() -> Any:
    """A tree of xarray whose child has the coordinates of its parent."""
    import xarray as xr

    shape = (6, 24, 32)
    time = xr.date_range("2020-01-01", periods=6, freq="h")
    lat = ("lat", np.linspace(-10, 10, 24), {"units": "degrees_north"})
    top = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), _field(shape), {"units": "K"})},
        coords={"time": time, "lat": lat},
        attrs={"title": "a model"},
    )
    ocean = xr.Dataset({"sst": (("time", "lat", "lon"), _field(shape, 3), {"units": "K"})})
    return xr.DataTree.from_dict({"/": top, "/ocean": ocean})
