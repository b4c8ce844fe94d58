"""Fields to compare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A field with structure, and the field with noise."""
    rng = np.random.default_rng(seed)
    a = np.cumsum(rng.standard_normal(shape), axis=-1).astype("f4")
    return a, (a + 0.3 * rng.standard_normal(shape)).astype("f4")
