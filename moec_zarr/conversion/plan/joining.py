"""Several files as one dataset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.adapters.meaning import FLAGS, LIMITS, WRITTEN, unpack_limits
from moec_zarr.adapters.tree import group_of, groups_of, merge_groups
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["files_behind", "join", "refuse_other_units"]

_log = logging.getLogger(__name__)
_EXTENTS = "moec_zarr_files"  # key in the encoding of a dataset that was joined from files
_MEANINGS = ("units", *FLAGS)
# What of a variable's encoding says how its values are written, which files may do in different ways.
_WRITTEN = (*WRITTEN, "units")


def refuse_other_units(paths: list[str], parts: list[xr.Dataset]) -> None:
    """Refuse files whose times stay numbers, and count in other units than those of the first."""
    for path, part in zip(paths[1:], parts[1:], strict=True):
        for name, var in part.variables.items():
            mine, first = (
                (each.attrs.get("units"), each.attrs.get("calendar"))
                for each in (var, parts[0].variables.get(name, var))
            )
            if mine != first and "since" in f"{mine} {first}":
                raise MoECError(
                    f"the files cannot be joined: {name!r} counts {first[0]!r} in {paths[0]} and {mine[0]!r} "
                    f"in {path}, which xarray cannot decode; write them in the same units, or in days since "
                    "a date"
                )


def join(paths: list[str], parts: list[xr.Dataset]) -> xr.Dataset:
    """Join files into one dataset, group by group, which remembers what of it lies in which file.

    Raises
    ------
    MoECError
        If they do not follow one another, have other groups, or the same numbers mean something else in them.
    """
    groups = groups_of(parts[0])
    for path, part in zip(paths, parts, strict=True):
        if differ := sorted(groups_of(part).keys() ^ groups.keys()):
            raise MoECError(
                f"the files cannot be joined: one alone of {paths[0]} and {path} has the group {differ[0]!r}"
            )
    if len(groups) == 1:
        return _join(paths, parts)
    joined, encoding = [], dict(parts[0].encoding)
    extents: dict[str, dict[str, tuple[int, int]]] = {path: {} for path in paths}
    for group in groups:
        # The coordinates along its dimensions, which say how the files follow one another, may lie above.
        own = [[name for name in part.variables if group_of(name) == group] for part in parts]
        if not own[0]:
            continue
        chosen = [part[names] for part, names in zip(parts, own, strict=True)]
        ds = _join(paths, chosen, static=not _has_steps(chosen))
        for path, extent in ds.encoding.get(_EXTENTS, {}).items():
            extents[path] |= extent
        joined.append(ds.drop_vars([name for name in ds.variables if group_of(name) != group]))
    return merge_groups(joined, parts[0].attrs, encoding | {_EXTENTS: extents})


def _has_steps(parts: list[xr.Dataset]) -> bool:
    """Whether a coordinate tells datasets apart, along which they can be joined."""
    indexes = parts[0].indexes
    return any(not index.equals(part.indexes.get(dim)) for part in parts for dim, index in indexes.items())


def _join(paths: list[str], parts: list[xr.Dataset], static: bool = False) -> xr.Dataset:
    """Join datasets of one group, which are all the same where they are static."""
    import xarray as xr

    _check_meanings(paths, parts)

    # A variable that is named like a dimension and has several, as of ocean models, would be taken for the
    # coordinate to join along.
    aside = {
        name: f"{name} with {len(var.dims)} dimensions"
        for name, var in parts[0].variables.items()
        if name in parts[0].dims and len(var.dims) > 1
    }
    apart = [part.rename_vars({k: v for k, v in aside.items() if k in part.variables}) for part in parts]
    # What has no dimension to be joined along is static: taken once, if it is the same everywhere.
    # Grids that differ are refused; xarray would widen them and fill in NaN.
    how: Any = {"compat": "equals", "join": "exact", "combine_attrs": "override"}
    try:
        if static:
            ds: xr.Dataset = xr.merge(apart, **how)
        else:
            ds = xr.combine_by_coords(  # type: ignore[assignment]
                apart, data_vars="minimal", coords="minimal", **how
            )
    except (ValueError, TypeError) as error:  # those of a merge and of an alignment are ValueErrors, too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MoECError(
            f"the {len(paths)} files from {paths[0]} to {paths[-1]} cannot be joined: {reason}. "
            "Give files of the same variables on the same grid that follow one another; or join them with "
            "xarray, and convert the dataset"
        ) from error
    if not isinstance(ds, xr.Dataset):  # combine_by_coords returns arrays for arrays only
        raise TypeError(f"expected a Dataset, got {type(ds)}")
    ds = ds.rename_vars({new: name for name, new in aside.items()})
    _refuse_overlap(paths, parts, ds)
    _unify(parts, ds)
    ds.encoding[_EXTENTS] = {
        path: {
            str(dim): (int(positions.min()), int(positions.max()) + 1)
            for dim, index in part.indexes.items()
            # Where values repeat, it is not known which are whose, and a file counts as a part of everything.
            if index.size and index.is_unique and ds.indexes[dim].is_unique
            if (positions := ds.indexes[dim].get_indexer(index)).size < ds.sizes[dim]
        }
        for path, part in zip(paths, parts, strict=True)
    }
    return ds


def _check_meanings(paths: list[str], parts: list[xr.Dataset]) -> None:
    """Refuse files in which the same numbers mean something else; attributes of the first would stay.

    Raises
    ------
    MoECError
        If units or flags of a variable differ.
    """
    first: dict[tuple[Any, str], tuple[str, Any]] = {}
    for path, part in zip(paths, parts, strict=True):
        for name, var in part.variables.items():
            for key in _MEANINGS:
                value = np.asarray(var.attrs.get(key, "absent")).tolist()
                where, other = first.setdefault((name, key), (path, value))
                if value != other:
                    raise MoECError(
                        f"variable {name!r} has {key} {other!r} in {where} and {value!r} in {path}, so that "
                        "its values do not belong together; convert one of them in xarray, and give the "
                        "datasets joined"
                    )


def _refuse_overlap(paths: list[str], parts: list[xr.Dataset], ds: xr.Dataset) -> None:
    """Refuse files that hold the same step, as restarts of a model do."""
    for dim, index in ds.indexes.items():
        own = [part.indexes[dim] for part in parts if dim in part.indexes]
        if index.is_unique or not all(each.is_unique for each in own):
            continue  # what repeats within a file is its own affair
        twice = index[index.duplicated()][0]
        raise MoECError(
            f"the {len(paths)} files from {paths[0]} to {paths[-1]} overlap: {dim} {twice} is in two of "
            "them; leave it out of one, or give the files one after the other to --append"
        )


def _unify(parts: list[xr.Dataset], ds: xr.Dataset) -> None:
    """Let variables that files write in different ways be written as their values are.

    Joined, a variable has the packing, dtype and sentinels of the first file, which others need not fit.
    """
    differ = []
    for name, var in ds.variables.items():
        own = [part.variables[name] for part in parts if name in part.variables]
        written = [{key: _comparable(each.encoding.get(key)) for key in _WRITTEN} for each in own]
        limits = [{key: _comparable(unpack_limits(each).get(key)) for key in LIMITS} for each in own]
        if any(each != limits[0] for each in limits):
            _log.warning(
                "the files have different limits, such as valid_range, of %r; they are left out", name
            )
            for key in LIMITS:
                var.attrs.pop(key, None)
        if any(each != written[0] for each in written):
            differ.append(repr(name))
            var.attrs |= {key: value for key, value in unpack_limits(var).items() if key in var.attrs}
            for key in _WRITTEN:
                var.encoding.pop(key, None)
    if differ:
        _log.info("files differ in packing, dtype or sentinels of %s: stored unpacked", ", ".join(differ))


def _comparable(value: Any) -> str:
    return (
        repr(np.asarray(value).tolist()) if not isinstance(value, (np.dtype, type)) else str(np.dtype(value))
    )


def files_behind(ds: xr.Dataset, dims: Sequence[str], region: Sequence[slice]) -> list[str]:
    """Return the files that a region of a dataset is read from, as far as they are known."""
    extents = ds.encoding.get(_EXTENTS)
    if extents is None:
        source = ds.encoding.get("source")
        return [source] if isinstance(source, str) else []
    asked = {dim: (part.start, part.stop) for dim, part in zip(dims, region, strict=True)}
    return [
        path
        for path, extent in extents.items()
        if all(
            start < asked[dim][1] and asked[dim][0] < stop
            for dim, (start, stop) in extent.items()
            if dim in asked
        )
    ]
