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


def _stored(path: Path) -> Array:
    with np.load(path) as file:
        return np.ascontiguousarray(file["data"])


@cache
def _dataset() -> Any:
    return simulate(SHAPE)


def _simulated(name: str) -> Array:
    return np.asarray(_dataset()[name].values)
