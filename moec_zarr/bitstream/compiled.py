"""Whether compiled code decodes."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from moec_zarr.config import config

__all__ = ["is_compiled"]

_FROM = 1 << 16  # numbers to decode: fewer are read before compiled code is loaded


def is_compiled(size: int) -> bool:
    """Whether so many numbers are decoded by compiled code: ``config compiled``, where numba is installed."""
    return size >= _FROM and bool(config.get("compiled")) and _has_numba()


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    return find_spec("numba") is not None
