"""Values of a zarr array that xarray reads where they are asked for.

By what xarray offers to backends: https://docs.xarray.dev/en/stable/internals/how-to-add-new-backend.html.
This module alone imports xarray when it is loaded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from moec_zarr.adapters.pyramid import Method, coarsen, find_factors

__all__ = ["as_coarse", "as_lazy"]

_AT_ONCE = 2**24  # voxels of a finer level that are read at a time


class _StoredValues(BackendArray):
    """An array of a store; workers get a copy of it, which opens the store again."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[slice | int, ...]) -> Any:
        return np.asarray(self.array[key])


def as_lazy(array: zarr.Array[Any]) -> Any:
    """Return data for a variable of xarray, of which nothing is read yet."""
    return indexing.LazilyIndexedArray(_StoredValues(array))


class _CoarseValues(_StoredValues):
    """A level of an image, made of a finer one as it is read."""

    def __init__(self, array: zarr.Array[Any], shape: tuple[int, ...], method: Method) -> None:
        super().__init__(array)
        self.shape, self.method = shape, method
        self.factors = find_factors(array.shape, shape)

    def _read(self, key: tuple[slice | int, ...]) -> Any:
        spans = [
            range(each, each + 1) if isinstance(each, (int, np.integer)) else range(*each.indices(n))
            for each, n in zip(key, self.shape, strict=True)
        ]
        # Of steps other than 1, what lies between is made and left out.
        bounds = [(min(span), max(span) + 1) if len(span) else (0, 0) for span in spans]
        values = np.empty([stop - start for start, stop in bounds], self.dtype)
        if values.size:
            for part in self._parts(bounds):
                inside = tuple(
                    slice(a - start, b - start) for (a, b), (start, _) in zip(part, bounds, strict=True)
                )
                values[inside] = self._coarsen(part)
        picked = [
            span[0] - start if isinstance(each, (int, np.integer)) else [i - start for i in span]
            for each, span, (start, _) in zip(key, spans, bounds, strict=True)
        ]
        for axis in reversed(range(values.ndim)):
            values = np.take(values, picked[axis], axis=axis)
        return values

    def _parts(self, bounds: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
        """Halve a region until each part is made of few voxels."""
        voxels = math.prod((b - a) * factor for (a, b), factor in zip(bounds, self.factors, strict=True))
        axis = max(range(len(bounds)), key=lambda axis: bounds[axis][1] - bounds[axis][0])
        start, stop = bounds[axis]
        if voxels <= _AT_ONCE or stop - start < 2:
            return [bounds]
        middle = (start + stop) // 2
        halves = [[*bounds[:axis], half, *bounds[axis + 1 :]] for half in ((start, middle), (middle, stop))]
        return [part for half in halves for part in self._parts(half)]

    def _coarsen(self, part: list[tuple[int, int]]) -> Any:
        fine = self.array[tuple(slice(a * f, b * f) for (a, b), f in zip(part, self.factors, strict=True))]
        return coarsen(np.asarray(fine), self.factors, self.method)


def as_coarse(array: zarr.Array[Any], shape: tuple[int, ...], method: Method) -> Any:
    """Return data for a variable of xarray: a coarser level of an image, of which nothing is read yet."""
    return indexing.LazilyIndexedArray(_CoarseValues(array, shape, method))
