"""Axes along which a variable changes its scale, such as humidity from level to level.

A PSNR, and so a ratio, weighs all errors of a chunk alike. Where one level has a thousandth of the range of
another, the error that is small on this one is larger than all there is on that one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moec_zarr.adapters.tree import local_name
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["UNEVEN", "Uneven", "describe_uneven", "find_uneven_axis", "weighs_alike"]

UNEVEN = 8.0
"""Factor between the ranges of two slices above which they are not one field."""

_INDICES, _SIDE = 32, 256  # slices that are looked at, and the sides of the middle part of each
_SPATIAL = 2  # last axes, which make a slice
_LEVELS = re.compile(
    r"p?lev(els?)?\d*|level_?\w*|(iso)?bar(ic|s)?\w*|pressure\w*|height\w*|altitude\w*|depth\w*|layers?|bottom_top\w*"
    r"|s_(rho|w)|sigma\w*|hybrid\w*|model_level\w*|(olevel|nav_lev)\w*"
)
_PRESSURES = re.compile(r"(h|k|d|m)?pa|(m|milli)?bars?|pascals?", re.IGNORECASE)


class Uneven(NamedTuple):
    """An axis along which slices have ranges of different size.

    Attributes
    ----------
    axis : int
    factor : float
        The largest range over the smallest that is not 0.
    narrow, wide : int
        Indices of the slices that have these.
    """

    axis: int
    factor: float
    narrow: int
    wide: int


def weighs_alike(settings: Settings) -> bool:
    """Say whether all errors of a chunk count alike, however large its values are."""
    return settings.scale == "linear" and (settings.ratio is not None or settings.psnr is not None)


def find_uneven_axis(ds: xr.Dataset, var: xr.Variable) -> Uneven | None:
    """Find the axis of levels or categories along which the range of a variable differs most, by a sample.

    Parameters
    ----------
    ds : Dataset
        With the coordinates of the variable.
    var : Variable
        Of three axes at least; the last two make a slice.

    Returns
    -------
    Uneven or None
        None where no range is more than `UNEVEN` times another.
    """
    found = [
        _compare_ranges(var, axis)
        for axis, dim in enumerate(var.dims[:-_SPATIAL])
        if var.shape[axis] > 1 and _is_of_levels(str(dim), ds.variables.get(dim))
    ]
    uneven = [each for each in found if each is not None and each.factor > UNEVEN]
    return max(uneven, key=lambda each: each.factor, default=None)


def describe_uneven(ds: xr.Dataset, path: Hashable, dim: str, uneven: Uneven) -> str:
    """Say how the variable at a path changes its scale, and between which places of a dimension."""
    coordinate = ds.variables.get(dim)
    places = [
        f"{dim} {index}" if coordinate is None else f"{dim} {np.asarray(coordinate[index].values)}"
        for index in (uneven.narrow, uneven.wide)
    ]
    return (
        f"the range of variable {path!r} at {places[1]} is {uneven.factor:.3g} times that at {places[0]}, "
        "and a PSNR weighs all errors of a chunk alike"
    )


def _is_of_levels(dim: str, coordinate: xr.Variable | None) -> bool:
    """Whether a dimension counts levels of air or water, or names of things."""
    if coordinate is not None:
        attrs = coordinate.attrs
        if attrs.get("axis") == "Z" or "positive" in attrs or coordinate.dtype.kind in "SUTO":
            return True
        if _PRESSURES.fullmatch(str(attrs.get("units", ""))):
            return True
    return _LEVELS.fullmatch(local_name(dim).lower()) is not None


def _compare_ranges(var: xr.Variable, axis: int) -> Uneven | None:
    """Compare the ranges of slices, in the middle of the other axes."""
    region = [slice(n // 2, n // 2 + 1) for n in var.shape]
    region[-_SPATIAL:] = [_middle(n) for n in var.shape[-_SPATIAL:]]
    ranges: dict[int, float] = {}
    for index in np.unique(np.linspace(0, var.shape[axis] - 1, _INDICES).round().astype(int)).tolist():
        part = var[(*region[:axis], slice(index, index + 1), *region[axis + 1 :])]
        values = np.asarray((part if var.chunks is None else part.compute(scheduler="synchronous")).values)
        valid = values[np.isfinite(values)].astype(np.float64)
        if valid.size and valid.max() > valid.min():
            ranges[index] = float(valid.max() - valid.min())
    if len(ranges) < 2:
        return None
    narrow, wide = (choose(ranges, key=lambda index: ranges[index]) for choose in (min, max))
    return Uneven(axis, ranges[wide] / ranges[narrow], narrow, wide)


def _middle(n: int) -> slice:
    start = max(0, n - _SIDE) // 2
    return slice(start, start + min(n, _SIDE))
