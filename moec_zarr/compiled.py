"""Compiled code: where it is used, and how it is kept."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, TypeVar

from moec_zarr.config import config

__all__ = ["compiled", "is_compiled"]

_log = logging.getLogger(__name__)
_FROM = 1 << 16  # numbers: fewer are coded before compiled code is loaded
_KERNELS = "moec_zarr.bitstream.kernels"

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Compile a function with numba, and keep the result on disk where there is a place for it.

    Parameters
    ----------
    **options
        As ``numba.njit`` takes them.
    """
    import numba

    def decorate(function: _Function) -> _Function:
        dispatcher: Any = numba.njit(**options)(function)
        try:
            dispatcher.enable_caching()
        except RuntimeError:  # numba found no folder that it can write to
            _say_once(
                "compiled code cannot be kept, hence each process compiles for some seconds: neither the "
                "installation nor the home can be written to; set NUMBA_CACHE_DIR to a folder that can"
            )
        return dispatcher  # type: ignore[no-any-return]

    return decorate


def is_compiled(size: int) -> bool:
    """Say whether compiled code takes so many numbers: ``config compiled``, where numba is installed."""
    return (size >= _FROM or _KERNELS in sys.modules) and bool(config.get("compiled")) and _has_numba()


@lru_cache(maxsize=1)
def _has_numba() -> bool:
    if find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401
    except (ImportError, OSError) as error:  # of another NumPy, or without its libraries
        _say_once(f"numba is installed but cannot be used, hence reading is slower ({error})")
        return False
    return True


@lru_cache
def _say_once(text: str) -> None:
    _log.warning(text)
