"""What the metadata of OME-Zarr say of a group: which arrays are the levels of an image, and their axes.

Versions 0.4 (https://ngff.openmicroscopy.org/0.4) and 0.5, which keeps the same under the key "ome".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Axis", "is_image_group", "is_label", "levels_of"]

_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
_IMAGE_KEYS = ("multiscales", "plate", "well", "labels", "image-label", "bioformats2raw.layout")


class Axis(NamedTuple):
    """Name and type of an axis of an image; the type is such as "space" or "channel", or empty."""

    name: str
    type: str


def is_image_group(attrs: Mapping[str, Any]) -> bool:
    """Say whether a group is a part of an image, a plate or a collection of labels."""
    return bool(_ome(attrs).keys() & set(_IMAGE_KEYS))


def is_label(attrs: Mapping[str, Any]) -> bool:
    """Say whether the image of a group is one of labels."""
    return "image-label" in _ome(attrs)


def levels_of(attrs: Mapping[str, Any]) -> list[dict[str, tuple[Axis, ...]]]:
    """Return the axes of each level of the images in a group, by the path of its array, the finest first.

    Metadata are untrusted: what is not as it should be is left out.
    """
    images = _ome(attrs).get("multiscales")
    found = []
    for image in images if isinstance(images, list) else []:
        if not isinstance(image, Mapping):
            continue
        axes = tuple(map(_axis, image.get("axes") or ()))
        levels = image.get("datasets")
        paths = [each.get("path") for each in levels or () if isinstance(each, Mapping)]
        found.append({path.strip("/"): axes for path in paths if isinstance(path, str)})
    return found


def _axis(axis: Any) -> Axis:
    if isinstance(axis, Mapping):
        name = str(axis.get("name", ""))
        return Axis(name, str(axis.get("type") or _TYPES.get(name, "")))
    return Axis(str(axis), _TYPES.get(str(axis), ""))  # version 0.3 has names alone


def _ome(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = attrs.get("ome")
    return inner if isinstance(inner, Mapping) else attrs
