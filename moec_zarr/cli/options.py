"""Options of the command line that need more than typer to be understood."""

from __future__ import annotations

import json
from typing import Any

from moec_zarr.errors import MoECError

__all__ = ["storage_options"]


def storage_options(given: list[str] | None) -> dict[str, Any] | None:
    """Read storage options from ``key=value``, where values may be JSON, or from one JSON object.

    Raises
    ------
    MoECError
        If one is neither.
    """
    options: dict[str, Any] = {}
    for each in given or []:
        if each.lstrip().startswith("{"):
            try:
                options |= json.loads(each)
            except (ValueError, TypeError) as error:
                raise MoECError(f"--storage-option got {each!r}, which is no JSON object: {error}") from error
            continue
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise MoECError(f"--storage-option takes key=value or a JSON object, got {each!r}")
        options[key] = _value(value)
    return options or None


def _value(text: str) -> Any:
    """Return a number, true, false or null as that; anything else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
