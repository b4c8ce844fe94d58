"""What the metadata of OME-Zarr say of a group: which arrays are the levels of an image, and their axes.

Versions 0.4 (https://ngff.openmicroscopy.org/0.4) and 0.5, which keeps the same under the key "ome".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from moec_zarr.adapters.tree import local_name

__all__ = ["Axis", "holds_labels", "is_label", "levels_of"]

_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


class Axis(NamedTuple):
    """An axis of a level of an image.

    Attributes
    ----------
    name, type : str
        The type is such as "space" or "channel", or empty.
    units : str
        Of its scale, such as "micrometer"; empty where there are none.
    step : float or None
        From one voxel to the next; None where the metadata have no plain scale.
    start : float
        Where the first voxel lies.
    """

    name: str
    type: str
    units: str = ""
    step: float | None = None
    start: float = 0.0


def holds_labels(path: str, attrs: Mapping[str, Any]) -> bool:
    """Say whether a group is an image of labels, or the collection of all such images within another."""
    collects = local_name(path) == "labels" and isinstance(_ome(attrs).get("labels"), list)
    return collects or is_label(attrs)


def is_label(attrs: Mapping[str, Any]) -> bool:
    """Say whether the image of a group is one of labels."""
    return isinstance(_ome(attrs).get("image-label"), Mapping)


def levels_of(attrs: Mapping[str, Any]) -> list[dict[str, tuple[Axis, ...]]]:
    """Return the axes of each level of the images in a group, by the path of its array, the finest first.

    Metadata are untrusted: what is not as it should be is left out.
    """
    found = []
    for image in _mappings(_ome(attrs).get("multiscales")):
        named = image.get("axes")
        axes = tuple(map(_axis, named if isinstance(named, list) else ()))
        levels = {
            path.strip("/"): _place(axes, level, image)
            for level in _mappings(image.get("datasets"))
            if isinstance(path := level.get("path"), str)
        }
        if levels:
            found.append(levels)
    return found


def _mappings(values: Any) -> Iterable[Mapping[str, Any]]:
    return (each for each in values if isinstance(each, Mapping)) if isinstance(values, list) else ()


def _axis(axis: Any) -> Axis:
    if isinstance(axis, Mapping):
        name = str(axis.get("name", ""))
        units = str(axis.get("unit") or "")
        return Axis(name, str(axis.get("type") or _TYPES.get(name, "")), units)
    return Axis(str(axis), _TYPES.get(str(axis), ""))  # version 0.3 has names alone


def _place(axes: tuple[Axis, ...], *owners: Mapping[str, Any]) -> tuple[Axis, ...]:
    """Return the axes with the places of their voxels, by the transformations of a level, then of its image.

    Where there is none, or one that is no scale or translation by plain numbers, no place is known.
    """
    steps, starts = [1.0] * len(axes), [0.0] * len(axes)
    known = False
    for owner in owners:
        for each in _mappings(owner.get("coordinateTransformations")):
            kind = each.get("type")
            numbers = each.get(kind) if kind in ("scale", "translation") else None
            if not isinstance(numbers, list) or len(numbers) != len(axes):
                return axes
            if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
                return axes
            if kind == "scale":
                known = all(n > 0 for n in numbers)
                steps = [step * n for step, n in zip(steps, numbers, strict=True)]
                starts = [start * n for start, n in zip(starts, numbers, strict=True)]
            else:
                starts = [start + n for start, n in zip(starts, numbers, strict=True)]
    if not known or not all(map(math.isfinite, steps + starts)):
        return axes
    return tuple(
        axis._replace(step=step, start=start) for axis, step, start in zip(axes, steps, starts, strict=True)
    )


def _ome(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = attrs.get("ome")
    return inner if isinstance(inner, Mapping) else attrs
