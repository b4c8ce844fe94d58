"""Chunks whose fit would be spoilt by fill values that nobody declared."""

from __future__ import annotations

import logging
from functools import lru_cache

from moec_zarr.codec.prepare import Prepared
from moec_zarr.errors import MoECError
from moec_zarr.fills import find_suspect, remedy

__all__ = ["refuse_fills"]

_log = logging.getLogger(__name__)


def refuse_fills(chunk: Prepared) -> None:
    """Refuse a known fill value that nobody declared; warn of what may be one.

    Raises
    ------
    MoECError
        If there is one.
    """
    suspect = find_suspect(chunk.valid_values)
    if suspect is None:
        return
    if suspect.is_known:
        raise MoECError(f"chunk of shape {chunk.array.shape}: {suspect}. {remedy(suspect)}")
    _warn_of_fill(str(suspect.value))


@lru_cache(maxsize=64)  # once in a process: a variable has many chunks
def _warn_of_fill(value: str) -> None:
    _log.warning(
        "%s stands far from all other values of a chunk, and spoils the fit of these; if it stands for "
        "missing values, say so: missing=%s",
        value, value,
    )  # fmt: skip
