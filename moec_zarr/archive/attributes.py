"""Attributes as a store holds them: plain JSON, and those of this package under a prefix of its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "FILE_BYTES",
    "PREFIX",
    "REBUILT",
    "check_attributes",
    "stored_attributes",
    "strict_attributes",
    "to_strict",
]

_log = logging.getLogger(__name__)
_SHOWN = 6  # attributes in a message
PREFIX = "moec_zarr_"
"""Begins the name of every attribute that this package writes; a source's own of such names go."""

FILE_BYTES = f"{PREFIX}file_bytes"
"""Attribute of a group: bytes of the files that it was made from."""

REBUILT = f"{PREFIX}rebuilt_from"
"""Attribute of a level of an image: of which level it was made again, and how."""

# What stores of older versions have instead. Others use such names, too, so the package must be named beside.
_FORMER = ("algorithm", "implementation", "reading", "codec", "ratio", "psnr", "max_error")


def stored_attributes(attrs: Mapping[Any, Any], owner: str) -> dict[str, Any]:
    """Return the attributes of a source as a store can hold them.

    NumPy's scalars and arrays become numbers and lists; bytes become text, in UTF-8 or else Latin-1. NaN and
    infinities, for which JSON has no number, become the words "NaN", "Infinity" and "-Infinity", as in zarr's
    fill values; a missing value of NaN goes, since NaN is missing anyway. Attributes that say how the source
    itself was compressed by this package go, too.

    Parameters
    ----------
    attrs : mapping
        Those of a variable or of a dataset.
    owner : str
        Whose they are, for a message.

    Raises
    ------
    MoECError
        If a name is no text, or JSON has nothing for a value.
    """
    former = str(attrs.get("compression_implementation", "")).startswith("moec_zarr ")
    gone = {f"compression_{name}" for name in _FORMER} if former else set()
    stored: dict[str, Any] = {}
    for name, value in attrs.items():
        if not isinstance(name, str) or not name:
            raise MoECError(
                f"names of attributes are text, got {name!r} of type {type(name).__name__} in {owner}; "
                "rename it in attrs"
            )
        if name.startswith(PREFIX) or name in gone:
            continue
        # xarray has a coding of its own for the fill value.
        stored[name] = value if name == "_FillValue" else _plain(value, f"attribute {name!r} of {owner}")
    return strict_attributes(stored)


def strict_attributes(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain attributes without numbers that JSON has not, as `stored_attributes` has them."""
    return {
        name: value if name == "_FillValue" else to_strict(value)
        for name, value in attrs.items()
        if name != "missing_value" or value == value
    }


def check_attributes(ds: xr.Dataset) -> None:
    """Refuse attributes that a store cannot hold, and say in the log which will be words instead of numbers.

    Raises
    ------
    MoECError
        If there is one.
    """
    words = []
    owners = {repr(name): var.attrs for name, var in ds.variables.items()} | {"the dataset": ds.attrs}
    for owner, attrs in owners.items():
        stored = stored_attributes(attrs, owner)
        words += [
            f"{name} of {owner}"
            for name, value in attrs.items()
            if name in stored and name != "_FillValue" and stored[name] != _plain(value, owner)
        ]
    if words:
        more = f", and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
        _log.warning("NaN and infinities in attributes become words: %s%s", ", ".join(words[:_SHOWN]), more)


def _plain(value: Any, what: str) -> Any:
    """Return a value in plain types."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufSUTO":
        plain: Any = value.tolist()
        return plain if isinstance(plain, (bool, int, float)) else _plain(plain, what)
    if isinstance(value, (str, bytes)):
        return _text(value)
    if isinstance(value, (bool, int, float, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each, what) for each in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(each, what) for key, each in value.items()}
    raise MoECError(
        f"{what} is {str(value)[:40]!r} of type {type(value).__name__}, and a store holds numbers, text, and "
        "lists and mappings of these; make text of it, such as str(value), in attrs"
    )


def _text(value: str | bytes) -> str:
    """Return text that JSON can hold: what is no UTF-8 is taken for Latin-1, in which all bytes are text."""
    raw = value if isinstance(value, bytes) else value.encode(errors="surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def to_strict(value: Any) -> Any:
    """Return plain types with words in place of numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: to_strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
