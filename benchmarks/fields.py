"""The fields that are measured: a folder of one's own, or the package's simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.demo.simulate import simulate

Array = NDArray[Any]

SHAPE = (16, 8, 128, 128)  # of a simulated field: 2 million voxels
MOST = 2_200_000  # voxels of a field that is measured whole by benchmarks of time
SIMULATED = ("temperature", "tracer", "vorticity")


def find_fields(folder: Path | None, names: Sequence[str] = ()) -> dict[str, Callable[[], Array]]:
    """A loader for each field, by name.

    Parameters
    ----------
    folder : Path or None
        Of ``.npz`` files that hold an array ``data``; the simulated fields where None.
    names : sequence of str
        Which of them; all where empty.
    """
    if folder is None:
        found = {f"simulated_{name}": partial(_simulated, name) for name in SIMULATED}
    else:
        found = {path.stem: partial(_stored, path) for path in sorted(folder.glob("*.npz"))}
    if unknown := sorted(set(names) - set(found)):
        raise SystemExit(f"no field {', '.join(unknown)}; there are {', '.join(found) or 'none'}")
    return {name: load for name, load in found.items() if not names or name in names}


def cropped(array: Array, most: int = MOST) -> Array:
    """The middle of an array along its first axis, whole slices, as many as `most` voxels hold."""
    slices = min(len(array), most // (array.size // len(array)))
    begin = (len(array) - slices) // 2
    return np.ascontiguousarray(array[begin : begin + slices])


def _stored(path: Path) -> Array:
    with np.load(path) as file:
        return np.ascontiguousarray(file["data"])


@cache
def _dataset() -> Any:
    return simulate(SHAPE)


def _simulated(name: str) -> Array:
    return np.asarray(_dataset()[name].values)


def shells(shape: tuple[int, int, int] = (96, 128, 128)) -> Array:
    """A phantom in which networks win: thin curved shells with sharp surfaces, some of them cut open.

    Values are 0 outside, 1 in the material and 0.4 in what a shell encloses, smoothed over about a voxel.
    """
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    field = np.zeros(shape)
    for centre, radius, thickness, tilt in (
        ((0.0, 0.0, 0.0), 0.85, 0.05, 0.0),
        ((-0.2, 0.25, -0.2), 0.45, 0.04, 0.7),
        ((0.3, -0.3, 0.25), 0.35, 0.03, -0.5),
    ):
        u, v, w = z - centre[0], y - centre[1], x - centre[2]
        v, w = np.cos(tilt) * v + np.sin(tilt) * w, np.cos(tilt) * w - np.sin(tilt) * v
        distance = np.sqrt((u / 1.2) ** 2 + v**2 + (w / 0.9) ** 2) - radius
        sharp = shape[-1] / 1.5
        wall = 1 / (1 + np.exp(np.clip(sharp * (np.abs(distance) - thickness / 2), -40, 40)))
        inside = 0.4 / (1 + np.exp(np.clip(sharp * distance, -40, 40)))
        wall = np.where(v > 0.6 * radius, 0.0, wall)  # cut open
        field = np.maximum(field, np.maximum(wall, inside))
    return field.astype("f4")
