"""Steps of quantisation: a byte each, eight to the octave."""

from __future__ import annotations

import math

__all__ = ["step_size"]


def step_size(code: int) -> float:
    """Return the quantisation step of a step code in 0..255: eight to the octave, from 2**-24."""
    return math.ldexp(8 + code % 8, code // 8 - 27)
