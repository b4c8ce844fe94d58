"""The part of two arrays that their coordinates have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.adapters.tree import local_name
from moec_zarr.arrays import Array, Integers
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["align", "decode_times"]

_SAME = 1e-3  # of the smallest step: float coordinates nearer than this are the same


def align(a: xr.DataArray, b: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray, tuple[str, ...]]:
    """Bring both arrays to the coordinates that they share, in the order of the first.

    Dimensions are the same that have one name in their groups. Along each, positions are found by the
    coordinate of that name. Floats are the same where they are nearer to each other than a thousandth of the
    smallest step; times are compared as times, to the millisecond, whatever they are counted from. A
    dimension without a coordinate in both arrays is left as it is. Nothing is read but coordinates.

    Parameters
    ----------
    a, b : DataArray
        Original and decoded, with the same dimensions in any order.

    Returns
    -------
    a, b : DataArray
        Of one shape.
    left_out : tuple of str
        What one of them lacks, in words, by dimension.

    Raises
    ------
    MoECError
        If dimensions differ in their names, or in length without a coordinate to align by, coordinates that
        differ hold a value twice, or nothing is in common.
    """
    mine = {local_name(dim): dim for dim in a.dims}
    if set(a.dims) != set(b.dims) and sorted(mine) == sorted(map(local_name, b.dims)):
        b = b.rename({dim: mine[local_name(dim)] for dim in b.dims})
    if set(a.dims) != set(b.dims):
        raise MoECError(
            f"got dimensions {_names(a)} in the original and {_names(b)} in the decoded; rename or select, "
            "so that both have the same"
        )
    b = b.transpose(*a.dims)
    left_out = []
    for dim, name in zip(a.dims, map(local_name, a.dims), strict=True):
        if dim not in a.indexes or dim not in b.indexes:
            if a.sizes[dim] != b.sizes[dim]:
                raise MoECError(
                    f"the original has {a.sizes[dim]} voxels along {name!r}, the decoded {b.sizes[dim]}, and "
                    "not both have a coordinate to align by; select what belongs together"
                )
            continue
        first, second = _comparable(a[dim], b[dim])
        if first.equals(second):
            continue  # then values may repeat, or be missing
        for index, which in ((first, "original"), (second, "decoded")):
            if not index.is_unique:
                twice = index[index.duplicated()][0]
                raise MoECError(
                    f"the coordinate {name!r} of the {which} holds {twice} twice; drop one of them"
                )
        place = _find(first, second)
        here = np.flatnonzero(place >= 0)
        there = place[here]
        lacking = [
            f"{name}: {_text(index, absent)} only in the {which} ({absent.size} of {len(index)})"
            for index, absent, which in (
                (first, np.flatnonzero(place < 0), "original"),
                (second, np.setdiff1d(np.arange(len(second)), there), "decoded"),
            )
            if absent.size
        ]
        if lacking and not here.size:
            raise MoECError(f"original and decoded have nothing in common: {'; '.join(lacking)}")
        left_out += lacking
        if here.size != len(first):
            a = a.isel({dim: _selection(here)})
        if not np.array_equal(there, np.arange(len(second))):
            b = b.isel({dim: _selection(there)})
    return a, b, tuple(left_out)


def _names(array: xr.DataArray) -> str:
    return f"({', '.join(repr(local_name(dim)) for dim in array.dims)})"


def _comparable(a: xr.DataArray, b: xr.DataArray) -> tuple[Any, Any]:
    """Return the values of two coordinates, such that equal ones are equal in meaning."""
    import pandas as pd  # type: ignore[import-untyped]

    counted = [_counting(each) for each in (a, b)]
    if any(counted) and counted[0] != counted[1]:
        a, b = (decode_times(each) if how else each for each, how in zip((a, b), counted, strict=True))
    # xarray's own index of decoded times may be one of cftime's, which pandas does not make by itself.
    first, second = (each.to_index() for each in (a, b))
    if isinstance(first, pd.DatetimeIndex) and isinstance(second, pd.DatetimeIndex):
        first, second = (
            each.as_unit("ms") if each.unit == "s" else each.round("ms") for each in (first, second)
        )
    return first, second


def _counting(coordinate: xr.DataArray) -> tuple[str, str] | None:
    """From when, and by which calendar, numbers count time; None where they do not."""
    units = str(coordinate.attrs.get("units", ""))
    return (units, str(coordinate.attrs.get("calendar", "standard"))) if " since " in units else None


def decode_times(coordinate: xr.DataArray) -> xr.DataArray:
    """Read the times that a coordinate counts by numbers."""
    import xarray as xr

    try:
        decoded = xr.conventions.decode_cf_variable(coordinate.name, coordinate.variable.to_base_variable())
    except (ValueError, OverflowError) as error:
        raise MoECError(f"the coordinate {coordinate.name!r} cannot be read as time: {error}") from error
    return xr.DataArray(decoded.load(), name=coordinate.name)


def _find(first: Any, second: Any) -> Integers:
    """Return the position in `second` of each value of `first`; -1 where it is not there."""
    if first.dtype.kind != "f" and second.dtype.kind != "f":
        return np.asarray(second.get_indexer(first), np.int64)
    if first.dtype.kind not in "iuf" or second.dtype.kind not in "iuf":
        return np.full(len(first), -1)
    order = np.argsort(second.values, kind="stable")
    values, wanted = second.values[order].astype(np.float64), first.values.astype(np.float64)
    right = np.clip(np.searchsorted(values, wanted), 1, max(len(values) - 1, 1))
    left = np.minimum(right - 1, len(values) - 1)
    right = np.minimum(right, len(values) - 1)
    nearest = np.where(np.abs(values[left] - wanted) <= np.abs(values[right] - wanted), left, right)
    near = np.abs(values[nearest] - wanted) <= _SAME * min(_step(values), _step(np.sort(wanted)))
    return np.where(near, order[nearest], -1)


def _step(values: Array) -> float:
    """Return the smallest step between sorted values; of a single one, a thousandth of it."""
    return float(np.diff(values).min()) if len(values) > 1 else abs(float(values[0])) * 1e-3


def _selection(places: Integers) -> slice | Integers:
    """Positions as a slice where they follow one another, in either direction: it is read faster."""
    if len(places) == 1:
        return slice(int(places[0]), int(places[0]) + 1)
    step = int(places[1] - places[0])
    if abs(step) != 1 or not np.all(np.diff(places) == step):
        return places
    stop = int(places[-1]) + step
    return slice(int(places[0]), stop if stop >= 0 else None, step)


def _text(index: Any, places: Integers) -> str:
    """Values of a coordinate as ranges: what follows one another there is one."""
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    texts = [" .. ".join(_value(index[place]) for place in dict.fromkeys((run[0], run[-1]))) for run in runs]
    return ", ".join(texts[:3] + ["and others"] * (len(texts) > 3))


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)
