"""Values of a zarr array that xarray reads where they are asked for.

By what xarray offers to backends: https://docs.xarray.dev/en/stable/internals/how-to-add-new-backend.html.
This module alone imports xarray when it is loaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

__all__ = ["as_lazy"]


class _StoredValues(BackendArray):
    """An array of a store; workers get a copy of it, which opens the store again."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: Any) -> Any:
        return np.asarray(self.array[key])


def as_lazy(array: zarr.Array[Any]) -> Any:
    """Return data for a variable of xarray, of which nothing is read yet."""
    return indexing.LazilyIndexedArray(_StoredValues(array))
