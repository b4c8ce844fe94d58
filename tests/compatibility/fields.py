"""What is in the stores of each release, by the names of arrays: a formula, and how far off it may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHAPE = (8, 12, 16)


def _waves() -> NDArray[np.float64]:
    i, j, k = np.indices(SHAPE)
    return 100 * np.sin((i + 2 * j + 3 * k) / 12)


def _with_land() -> NDArray[np.float32]:
    _, j, k = np.indices(SHAPE)
    return np.where(j + k < 9, np.nan, _waves()).astype("f4")


def _counts() -> NDArray[np.int16]:
    """Integers with a sentinel."""
    counts = np.rint(1000 + 9 * _waves()).astype("i2")
    counts[:, 8:, 12:] = -999
    return counts


def _magnitudes() -> NDArray[np.float64]:
    """Numbers of both signs over six decades, and zeros."""
    decades = np.exp(_waves() / 15)
    decades[:, ::3] *= -1
    decades[2:4, 5] = 0
    return decades


class Expected(NamedTuple):
    """A field, what it was written with, and what that promises of errors: of each value, or of all."""

    make: Callable[[], NDArray[Any]]
    settings: dict[str, Any]
    absolute: float = math.inf
    relative: float = 0.0
    psnr: float = 0.0


# A ratio promises bytes alone: its PSNR is some dB below what release 0.1.0 reached.
FIELDS = {
    "ratio": Expected(lambda: _waves().astype("f4"), {"ratio": 25}, psnr=30),
    "land": Expected(_with_land, {"max_error": 0.25}, absolute=0.25),
    "missing": Expected(_counts, {"psnr": 50, "missing": -999}, psnr=50),
    "relative": Expected(_magnitudes, {"max_relative_error": 0.01}, absolute=0, relative=0.01),
    "exact": Expected(_counts, {"max_error": 0}, absolute=0),
    "network": Expected(lambda: _waves().astype(">f4"), {"ratio": 15, "experts": 2}, psnr=20),
}
