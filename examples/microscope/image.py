"""An OME-Zarr image with labels: written and read with ome-zarr-py, as other programs do."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from ome_zarr.format import format_from_version
from ome_zarr.io import parse_url
from ome_zarr.reader import Node, Reader
from ome_zarr.scale import Methods
from ome_zarr.writer import add_metadata, write_image, write_labels

# Of the levels below the first: y and x are halved until voxels are cubes, then all.
FACTORS = [{"y": 2, "x": 2}, {"z": 2, "y": 4, "x": 4}, {"z": 4, "y": 8, "x": 8}]
COLOURS = {"nuclei": "00FFFF", "membranes": "FF00FF"}


def write(
    path: Path, picture: NDArray[Any], labels: NDArray[Any], voxel: tuple[float, ...], version: str = "0.5"
) -> None:
    """Write channels of a picture, and the nuclei of its first as labels.

    Parameters
    ----------
    path : Path
        The image's folder; what is there is replaced.
    picture : ndarray, shape (channels, z, y, x)
        Counts of the channels of `COLOURS`.
    labels : ndarray of integers, shape (z, y, x)
        The number of the nucleus in each voxel, and 0 between them.
    voxel : tuple of float
        Size of a voxel in micrometres, along z, y and x.
    version : {"0.4", "0.5"}
        Of OME-Zarr. The first is zarr format 2, the second zarr format 3.
    """
    fmt = format_from_version(version)
    group = zarr.open_group(path, mode="w", zarr_format=fmt.zarr_format)
    size = dict(zip("zyx", voxel, strict=True))
    common: dict[str, Any] = {
        "scale_factors": FACTORS,
        "axes_units": dict.fromkeys("zyx", "micrometer"),
        "fmt": fmt,
    }
    channels = [
        {
            "label": name,
            "color": colour,
            "active": True,
            "window": {
                "min": 0,
                "max": 65535,
                "start": int(np.percentile(counts, 1)),
                "end": int(np.percentile(counts, 99.9)),
            },
        }
        for (name, colour), counts in zip(COLOURS.items(), picture, strict=True)
    ]
    write_image(
        picture,
        group,
        name="cells",
        axes="czyx",
        scale=size | {"c": 1.0},
        method=Methods.LOCAL_MEAN,
        storage_options={"chunks": (1, 16, 64, 64)},
        **common,
    )
    add_metadata(group, {"omero": {"channels": channels, "rdefs": {"model": "color"}}}, fmt)
    numbers = range(1, int(labels.max()) + 1)
    write_labels(
        labels,
        group,
        name="nuclei",
        axes="zyx",
        scale=size,
        scaler=None,  # its default would replace the scale factors
        storage_options={"chunks": (16, 64, 64)},
        label_metadata={
            "colors": [{"label-value": number, "rgba": _colour(number)} for number in numbers],
            "properties": [{"label-value": number, "class": "nucleus"} for number in numbers],
            "source": {"image": "../../"},
        },
        **common,
    )


def _colour(number: int) -> list[int]:
    """Red, green, blue and opacity of a hue far from those of the numbers before, by the golden ratio."""
    return [round(255 * part) for part in hsv_to_rgb(0.618034 * number % 1, 1, 1)] + [255]


def read(path: Path) -> dict[str, Node]:
    """Open an image: ome-zarr-py's nodes of it and of its labels, by their paths in it."""
    location = parse_url(str(path), mode="r")
    if location is None:
        raise FileNotFoundError(f"{path} is no OME-Zarr image")
    # Versions of ome-zarr-py differ in whether the paths of nodes are absolute.
    nodes = Reader(location)()
    return {str(Path(node.zarr.path).resolve().relative_to(path.resolve())): node for node in nodes}
