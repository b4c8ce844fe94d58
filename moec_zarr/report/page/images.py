"""The levels of images side by side, as the metadata of their groups name them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from moec_zarr.adapters.ome import is_label, levels_of
from moec_zarr.adapters.tree import groups_of, join_path
from moec_zarr.report.comparison.labels import PATH, clean
from moec_zarr.report.page.findings import Image, Lossless, Variable

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["find_images", "list_images"]

_LABELS = "labels"  # the group that holds the labels of an image


def find_images(ds: xr.Dataset) -> dict[str, list[str]]:
    """Return the levels of each image in a tree by its path: the finest first, then those of its labels."""
    found: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    for path, group in groups_of(ds).items():
        paths = [join_path(path, level) for image in levels_of(group.attrs) for level in image]
        if levels := [name for name in dict.fromkeys(paths) if name in ds.variables]:
            (labels if is_label(group.attrs) else found)[path] = levels
    for path, levels in labels.items():
        image = path.rpartition(f"{_LABELS}/")[0].rstrip("/")
        found.setdefault(image if image in found else path, []).extend(levels)
    return found


def list_images(
    images: Mapping[str, list[str]], variables: Iterable[Variable], lossless: Iterable[Lossless]
) -> Iterator[Image]:
    """List the images of which a level is among the compressed variables, with what is known of each."""
    known: dict[str, Variable | Lossless] = {each.name: each for each in lossless}
    known |= {each.name: each for each in variables}
    for path, names in images.items():
        levels = [known[name] for name in (clean(name, PATH) for name in names) if name in known]
        if any(isinstance(level, Variable) for level in levels):
            yield Image(name=clean(path, PATH) or "/", levels=tuple(levels))
