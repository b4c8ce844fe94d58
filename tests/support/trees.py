"""Trees as others write them: groups of NetCDF4, images in OME-Zarr, arrays without names of dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from moec_zarr.archive.stored import hide_expected_warnings
from tests.support.fields import smooth

SHAPE = (4, 12, 16)
DIMS = ("time", "lat", "lon")


def write_groups(path: Path) -> Path:
    """A file of groups: one has the dimensions of the root, one within it a grid of its own."""
    import netCDF4

    with netCDF4.Dataset(path, "w") as file:
        file.title = "a product"
        for name, n in zip(DIMS, SHAPE, strict=True):
            file.createDimension(name, n)
        time = file.createVariable("time", "f8", ("time",))
        time[:], time.units = np.arange(SHAPE[0]) * 6.0, "hours since 2000-01-01"
        file.createVariable("aod", "f4", DIMS)[:] = smooth(SHAPE)
        science = file.createGroup("science")
        science.comment = "of gases"
        variable = science.createVariable("no2", "f4", DIMS)
        variable[:], variable.units = smooth(SHAPE) + 5, "mol m-2"
        flags = science.createVariable("qa", "i1", DIMS)
        flags[:], flags.flag_values = smooth(SHAPE) > 50, np.array([0, 1], "i1")
        deep = science.createGroup("deep")
        deep.createDimension("lat", 6)
        deep.createDimension("lon", 8)
        deep.createVariable("lat", "f4", ("lat",))[:] = np.arange(6.0)
        deep.createVariable("o3", "f4", DIMS)[:] = smooth((SHAPE[0], 6, 8))
    return path


def write_image(
    path: Path,
    version: str = "0.5",
    *,
    shape: tuple[int, ...] = (2, 4, 16, 20),
    levels: int = 2,
    labels: bool = True,
    consolidated: bool = False,
) -> Path:
    """Write an image of two channels, halved along the last two axes at each level, with its labels."""
    zarr_format = 2 if version == "0.4" else 3
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    _write_levels(root, version, shape, levels, "czyx", "u2")
    omero = {"channels": [{"label": "nuclei", "color": "0000FF", "window": {"start": 0, "end": 9.5}}] * 2}
    _update(root, version, {"omero": omero})
    if labels:
        group = root.create_group("labels")
        _update(group, version, {"labels": ["cells"]})
        cells = group.create_group("cells")
        _write_levels(cells, version, shape[1:], levels, "zyx", "i4")
        _update(cells, version, {"image-label": {"colors": [{"label-value": 1, "rgba": [255, 0, 0, 255]}]}})
    if consolidated:
        zarr.consolidate_metadata(path, zarr_format=zarr_format)
    return path


def _update(group: zarr.Group, version: str, found: dict[str, Any]) -> None:
    if version == "0.4":
        group.attrs.update(found)
    else:
        old: Any = group.attrs.get("ome", {"version": version})
        group.attrs["ome"] = old | found


def _write_levels(
    group: zarr.Group, version: str, shape: tuple[int, ...], levels: int, names: str, dtype: str
) -> None:
    kinds = {"c": "channel", "t": "time"}
    axes: list[dict[str, str]] = [
        {"name": name, "type": kinds.get(name, "space")} | ({} if name in kinds else {"unit": "micrometer"})
        for name in names
    ]
    sets = []
    values = smooth(shape) * 40 + 100
    for level in range(levels):
        if group.metadata.zarr_format == 2:
            options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        else:
            options = {"dimension_names": list(names)}
        if dtype == "i4":
            values = np.floor(values / 300)
        chunks = (1, *values.shape[1:]) if names[0] == "c" else values.shape
        array = group.create_array(str(level), shape=values.shape, dtype=dtype, chunks=chunks, **options)
        array[:] = values.astype(dtype)
        factor = float(2**level)
        scale = [1.0] * (len(names) - 2) + [factor, factor]
        sets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        values = values[..., ::2, ::2]
    image = {"axes": axes, "datasets": sets, "name": "cells", "type": "nearest"}
    _update(group, version, {"multiscales": [image | ({"version": "0.4"} if version == "0.4" else {})]})


def write_plate(path: Path, version: str = "0.5") -> Path:
    """Write a plate of two wells with one field each."""
    root = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    wells = [{"path": f"A/{column}", "rowIndex": 0, "columnIndex": column - 1} for column in (1, 2)]
    _update(
        root,
        version,
        {"plate": {"rows": [{"name": "A"}], "columns": [{"name": "1"}, {"name": "2"}], "wells": wells}},
    )
    for well in wells:
        group = root.create_group(str(well["path"]))
        _update(group, version, {"well": {"images": [{"path": "0"}]}})
        write_image(path / str(well["path"]) / "0", version, shape=(2, 1, 16, 20), labels=False)
    return path


@hide_expected_warnings()  # text has no type in the specification of format 3
def write_arrays(path: Path, zarr_format: int) -> Path:
    """Write arrays without names of dimensions, in groups, of fields and of all kinds of other things."""
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    root.attrs["made"] = {"by": ["me"], "at": 5.5}
    for name, values in {
        "p": smooth((12, 16)).astype(">f4" if zarr_format == 2 else "f4"),
        "deep/down/q": smooth(SHAPE).astype("f8"),
        "deep/flags": smooth(SHAPE) > 50,
        "scalar": np.array(5.0, "f4"),
        "words": np.array(["a", "bcd"], "<U3"),
        "complex": smooth((5, 6)) * 1j,
        "empty": np.zeros((0, 3), "f4"),
    }.items():
        array = root.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=tuple(max(n, 1) for n in values.shape)
        )
        array[...] = values
    root["deep/down/q"].attrs.update({"scale_factor": 2.0, "units": "K", "nested": [{"a": None}]})
    return path
