"""Where the steps of a source lie among those of a store, by the values of a coordinate.

Values may repeat, be missing, and stand in any order: a source is found in a store as a run of values, not by
each of them. Where a dimension has no coordinate of one axis, nothing tells its steps apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.archive.stored import decode_times
from moec_zarr.arrays import Array
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["find_run", "place_after", "steps_of"]


def steps_of(ds: xr.Dataset, dim: str) -> Array | None:
    """Return the values of a dimension's coordinate, times decoded where possible; None without one."""
    if dim not in ds.variables or ds.variables[dim].dims != (dim,):
        return None
    return np.asarray(decode_times(ds[[dim]]).variables[dim].values)


def find_run(steps: Array, run: Array) -> list[int]:
    """Return the first two positions at most at which `run` stands in `steps`; missing values are equal."""
    if not run.size or run.size > steps.size:
        return []
    found: list[int] = []
    for start in np.flatnonzero(_equal(steps[: steps.size - run.size + 1], run[0])):
        if len(found) < 2 and _equal(steps[start : start + run.size], run).all():
            found.append(int(start))
    return found


def place_after(ds: xr.Dataset, stored: xr.Dataset, dim: str) -> tuple[int, str]:
    """Find the position in a store of the first step of a source that continues or overlaps it.

    Returns
    -------
    offset : int
        The position.
    gap : str
        A gap between the store and a source that begins after it, in words; empty where there is none.

    Raises
    ------
    MoECError
        If the source neither continues nor overlaps the store, or it cannot be told which steps are new.
    """
    length = stored.sizes[dim]
    old, new = steps_of(stored, dim), steps_of(ds, dim)
    if old is None or new is None or not new.size or not old.size:
        return length, ""  # without a coordinate, whatever comes is new
    if new.size > 1 and _equal(new, new[0]).all():
        raise MoECError(
            f"the values of {dim!r} are all {new[0]} in the source, so that it cannot be told which of its "
            "steps are new; give it other values, or none in source and store"
        )
    if places := find_run(old, new):  # all of it is there
        _refuse_two(places, dim, new)
        return places[0], ""
    places = [
        int(start)
        for start in np.flatnonzero(_equal(old, new[0]))
        if length - start < new.size and _equal(old[start:], new[: length - start]).all()
    ]
    _refuse_two(places, dim, new)
    offset = places[0] if places else length
    added = new[length - offset :]
    wrong = _out_of_order(old, added)
    if wrong:
        raise MoECError(
            f"the source does not continue the store along {dim!r}: the store has {old[0]} to {old[-1]}, the "
            f"source {new[0]} to {new[-1]}, and {wrong}"
        )
    return offset, "" if places else _gap(old, new)


def _refuse_two(places: list[int], dim: str, new: Array) -> None:
    if len(places) > 1:
        raise MoECError(
            f"values of {dim!r} repeat in the store, so that it cannot be told which of its steps the source "
            f"begins with: {new[0]} could be step {places[0]} or {places[1]}"
        )


def _equal(one: Array, other: Any) -> Any:
    """Compare element by element; missing values are equal."""
    return (one == other) | (_missing(one) & _missing(np.asarray(other)))


def _missing(values: Array) -> Any:
    return np.not_equal(values, values) if values.dtype.kind in "fcmMO" else np.zeros(values.shape, bool)


def _out_of_order(old: Array, added: Array) -> str:
    """Return why steps do not follow those of a store, in words; empty where they do.

    They lie beyond all of them, and are ordered if these are. Text and what is missing have no order.
    """
    if old.dtype.kind in "UST" or isinstance(old[0], str):
        return "it has some of them again, out of place" if np.isin(added, old).any() else ""
    known, values = old[~_missing(old)], added[~_missing(added)]
    if not known.size or not values.size:
        return ""
    falls = bool(known[-1] < known[0])
    ordered = bool(np.all(known[1:] <= known[:-1]) if falls else np.all(known[1:] >= known[:-1]))
    beyond = values < known.min() if falls else values > known.max()
    if not np.all(beyond):
        return f"{values[~beyond][0]} is out of order"
    if ordered and not np.all(values[1:] <= values[:-1] if falls else values[1:] >= values[:-1]):
        return "its own steps are out of order"
    return ""


def _gap(old: Array, new: Array) -> str:
    if old.dtype.kind not in "iufmMO" or isinstance(old[0], str) or old.size < 2:
        return ""
    with np.errstate(invalid="ignore"):
        between = abs(np.diff(old))
    between = between[~_missing(between)]
    first, last = new[0], old[-1]
    if not between.size or first != first or last != last or abs(first - last) <= 1.5 * between.max():
        return ""
    return f"the store ends with {last}, and the source begins with {first}"
