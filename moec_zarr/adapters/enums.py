"""The names of an enumeration's values, which NetCDF4 keeps in the type of a variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["flags_of"]


def flags_of(var: xr.Variable) -> dict[str, Any]:
    """Return ``flag_values`` and ``flag_meanings`` (CF 1.12, section 3.5) of an enumeration.

    Empty for other variables, and for one that has such attributes itself. A space in a name becomes "_".
    """
    stored: Any = var.encoding.get("dtype", var.dtype)
    names = (getattr(stored, "metadata", None) or {}).get("enum")
    if not names or "flag_meanings" in var.attrs:
        return {}
    return {
        "flag_values": np.array(list(names.values()), np.dtype(stored.str)),
        "flag_meanings": " ".join("_".join(str(name).split()) for name in names),
    }
