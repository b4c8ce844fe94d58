"""Steps of quantisation: a byte each, eight to the octave."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["STEP_SIZES", "nearest_code", "step_size"]


def step_size(code: int) -> float:
    """Return the quantisation step of a step code in 0..255: eight to the octave, from 2**-24."""
    return math.ldexp(8 + code % 8, code // 8 - 27)


STEP_SIZES = np.array([step_size(code) for code in range(256)])
"""The step of each code."""


def nearest_code(size: float) -> int:
    """Return the code of the step that differs least from a size."""
    return int(np.argmin(np.abs(STEP_SIZES - size)))
