"""New steps for a store that a conversion made: what of a source is new to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import Store

from moec_zarr.adapters.meaning import FLAGS, LIMITS, PACKING, stored_dtype
from moec_zarr.adapters.tree import dims_named, group_of, local_name
from moec_zarr.archive.attributes import stored_attributes
from moec_zarr.archive.growth import view_as_planned
from moec_zarr.archive.manifest import Generation, read_manifest
from moec_zarr.archive.metadata import refuse_damaged_metadata
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.records import check_whole
from moec_zarr.archive.storage import to_read
from moec_zarr.archive.stored import (
    decode_times,
    hide_expected_warnings,
    is_alike,
    stored_dataset,
    stored_plan,
)
from moec_zarr.archive.whole import encode_as_stored
from moec_zarr.conversion.plan.options import Incomplete
from moec_zarr.conversion.plan.source import STATUS
from moec_zarr.conversion.plan.steps import place_after
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Growth", "plan_append", "whole_chunks"]

_log = logging.getLogger(__name__)
_SHOWN = 6  # attributes in a message
# Attributes that belong to the way in which values are stored, and may differ.
_OWN = {"units", "calendar", "coordinates", "_FillValue", "missing_value", "_Unsigned", *PACKING, *LIMITS}


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What an append will do.

    Attributes
    ----------
    plan : Plan
        Of the whole store, once it has grown.
    ds : Dataset
        The source, without the steps that are kept back.
    dim : str
        The name of the dimension that grows.
    along : tuple of str
        The dimensions of that name, of which groups may have one each.
    length : int
        Of that dimension in the store, in voxels, before.
    offset : int
        Position in the store of the first step of `ds`.
    held : int
        Number of steps that are kept back, since they do not fill a chunk.
    earlier : tuple of Generation
        The plans that the store was made by so far.
    file_bytes : int
        Of the files that it was made from so far; 0 where that is not known.
    """

    plan: Plan
    ds: xr.Dataset
    dim: str
    along: tuple[str, ...]
    length: int
    offset: int
    held: int
    earlier: tuple[Generation, ...]
    file_bytes: int

    @property
    def added(self) -> int:
        """Number of steps by which the store grows."""
        return max(0, self.offset + self.ds.sizes[self.along[0]] - self.length)


@hide_expected_warnings()
def plan_append(ds: xr.Dataset, store: Store, dim: str, incomplete: Incomplete | None) -> Growth | None:
    """Find what of a source is new to a store, and plan how it is appended.

    Parameters
    ----------
    ds : Dataset
        The source: the variables of the store, with new steps along `dim`. Steps that the store has are
        recognised by their coordinate, and not made again.
    store : zarr Store
        The destination.
    dim : str
        The dimension to append along.
    incomplete : {"hold", "refit"}, optional
        What to do with steps at the end that do not fill a chunk: keep them back, or store them and make that
        chunk again, from the source, when more are appended. Refused by default.

    Returns
    -------
    Growth or None
        None if no conversion has begun at `store`, or one has and is not finished.

    Raises
    ------
    MoECError
        If `ds` does not continue the store, or would not end on the boundary of a chunk.
    """
    try:
        group = zarr.open_group(to_read(store), mode="r", use_consolidated=False)
    except FileNotFoundError:
        return None
    manifest = read_manifest(group)
    if manifest is None:
        return None
    if not manifest.created or (group.attrs.get(STATUS) != "complete" and not manifest.earlier):
        return None
    if manifest.along not in ("", dim):
        raise MoECError(
            f"the store grows along {manifest.along!r}, so it cannot be appended to along {dim!r}"
        )
    refuse_damaged_metadata(group, manifest)
    stored = stored_plan(group, manifest)
    group = view_as_planned(group, stored)  # where an append ended before the arrays had grown
    length = _length(stored, dim)
    damaged = [each.name for each in stored.variables if not each.tasks and check_whole(group, each.name)]
    if damaged:
        raise MoECError(
            f"{', '.join(map(repr, damaged))} in the store is damaged; repair it first, with "
            "moec-zarr verify --repair"
        )
    before = stored_dataset(group)
    _check_variables(stored, ds, before, group, dim)
    along = dims_named(before.dims, dim)
    added = _one_length(ds.sizes, along, dim, "the source")
    offset, gap = _place_after(ds, before, along, dim)
    if gap:
        if incomplete == "hold":
            raise MoECError(
                f"the source does not continue the store along {dim!r}: {gap}; give what was kept back"
            )
        _log.warning("there is a gap along %r: %s", dim, gap)
    end = max(offset + added, length)
    end = _end(stored, dim, length, offset, end, incomplete, before)
    held = max(offset + added - max(end, length), 0)
    return Growth(
        plan=_resize(stored, dim, max(end, length)),
        ds=ds.isel(dict.fromkeys(along, slice(max(end, length) - offset))),
        dim=dim,
        along=tuple(along),
        length=length,
        offset=offset,
        held=held,
        earlier=(*manifest.earlier, Generation(digest=manifest.digest, length=length)),
        file_bytes=manifest.file_bytes,
    )


def _length(plan: Plan, dim: str) -> int:
    sizes = {name: n for each in plan.variables for name, n in zip(each.dims, each.shape, strict=True)}
    if not (along := dims_named(sizes, dim)):
        known = sorted(set(map(local_name, sizes)))
        raise MoECError(f"the store has no dimension {dim!r} to append along; it has {', '.join(known)}")
    return _one_length(sizes, along, dim, "the store")


def _one_length(sizes: Mapping[Any, int], along: list[str], dim: str, what: str) -> int:
    """Return the length that dimensions of one name have.

    Raises
    ------
    MoECError
        If some have another, or are not there.
    """
    lengths = {name: sizes.get(name) for name in along}
    first = lengths[along[0]]
    if first is None or set(lengths.values()) != {first}:
        raise MoECError(
            f"groups are appended to together, and {what} has {dim!r} of several lengths: "
            + ", ".join(f"{n} in {group_of(name)!r}" for name, n in lengths.items())
        )
    return first


def _place_after(ds: xr.Dataset, before: xr.Dataset, along: list[str], dim: str) -> tuple[int, str]:
    """Find the position of the first step of a source, as `place_after`, which all groups must agree on."""
    places = {name: place_after(ds, before, name) for name in along}
    known = {name: place for name, place in places.items() if name in before.variables} or places
    if len({offset for offset, _ in known.values()}) > 1:
        raise MoECError(
            f"groups are appended to together, and the source begins at several steps of {dim!r}: "
            + ", ".join(f"{offset} in {group_of(name)!r}" for name, (offset, _) in known.items())
        )
    return next(iter(known.values()))


def _resize(plan: Plan, dim: str, length: int) -> Plan:
    """Return the plan with another length of a dimension."""
    return replace(
        plan,
        variables=tuple(
            replace(
                each,
                shape=tuple(
                    length if local_name(d) == dim else n for d, n in zip(each.dims, each.shape, strict=True)
                ),
            )
            for each in plan.variables
        ),
    )


def _check_variables(stored: Plan, ds: xr.Dataset, before: xr.Dataset, group: zarr.Group, dim: str) -> None:
    """Refuse a source that does not hold the same variables.

    Raises
    ------
    MoECError
        If one differs.
    """
    names = {each.name for each in stored.variables}
    for what, differ in (
        ("lacks", names - set(map(str, ds.variables))),
        ("also has", set(map(str, ds.variables)) - names),
    ):
        if differ:
            raise MoECError(f"the source {what} {', '.join(map(repr, sorted(differ)))}, unlike the store")
    _check_attributes(stored, ds, group)
    small = decode_times(ds[[each.name for each in stored.variables if not each.tasks]])
    for each in stored.variables:
        var = ds.variables[each.name]
        grows = any(local_name(d) == dim for d in each.dims)
        shape = tuple(
            ds.sizes.get(d) if local_name(d) == dim else n for d, n in zip(each.dims, each.shape, strict=True)
        )
        if var.dims != each.dims or var.shape != shape:
            raise MoECError(
                f"variable {each.name!r} of the source has {dict(var.sizes)}, unlike the store, where it has "
                f"{dict(zip(each.dims, each.shape, strict=True))}"
            )
        if each.tasks:
            units = group[each.name].attrs.get("units")
            bounded = each.codec is None or each.codec.is_bounded
            dtype = stored_dtype(var, bounded=bounded)
            if (dtype, var.attrs.get("units")) != (each.dtype, units):
                raise MoECError(
                    f"variable {each.name!r} of the source is {dtype} in {var.attrs.get('units')}; in "
                    f"the store it is {each.dtype} in {units}"
                )
        elif not grows:
            if not is_alike(small.variables[each.name], before.variables[each.name]):
                raise MoECError(
                    f"variable {each.name!r} differs from the store's; it does not run along {dim!r}, so the "
                    "store can hold one of the two alone"
                )
        else:
            new, old = small.variables[each.name], before.variables[each.name]
            if _time_units(new) != _time_units(old):
                raise MoECError(
                    f"variable {each.name!r} of the source counts time in {_time_units(new)}, and in the "
                    f"store in {_time_units(old)}; xarray cannot decode these, so they must be the same"
                )
            encode_as_stored(group, each.name, new, var, "appended")


def _check_attributes(stored: Plan, ds: xr.Dataset, group: zarr.Group) -> None:
    """Refuse flags that mean something else; say which other attributes differ from the store's, which stay.

    Raises
    ------
    MoECError
        If flags differ.
    """
    differ = []
    for each in stored.variables:
        old = dict(group[each.name].attrs)
        new = stored_attributes(ds.variables[each.name].attrs, repr(each.name))
        for key in FLAGS:
            if old.get(key) != new.get(key):
                raise MoECError(
                    f"variable {each.name!r} of the source has {key} {new.get(key)!r}, and {old.get(key)!r} "
                    "in the store: its values mean something else"
                )
        differ += [f"{key} of {each.name}" for key in new if key not in _OWN and new[key] != old.get(key)]
    if differ:
        more = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        _log.warning("attributes differ, and those of the store stay: %s%s", ", ".join(differ[:_SHOWN]), more)


def _time_units(var: xr.Variable) -> str | None:
    """Return the units of times that xarray cannot decode; None where there are none."""
    units = str(var.attrs.get("units"))
    return units if "since" in units else None


def _end(
    stored: Plan,
    dim: str,
    length: int,
    offset: int,
    end: int,
    incomplete: Incomplete | None,
    before: xr.Dataset,
) -> int:
    """Length of the dimension after the append.

    Raises
    ------
    MoECError
        If a chunk would be incomplete and nothing is said of that, or cannot be made again.
    """
    if end == length:
        return end
    blocks = _blocks(stored, dim)
    if incomplete == "hold":
        end = max(end // math.lcm(*blocks.values()) * math.lcm(*blocks.values()), length)
        if end == length:
            return end
    for name, block in blocks.items():
        start = length // block * block
        if length % block and incomplete != "refit":
            raise MoECError(
                f"the last chunk of {name!r} along {dim!r} holds {length % block} of {block} steps, so that "
                "an append makes it again; --incomplete refit does, from a source that holds these steps too"
            )
        if length % block and offset > start:
            along = [each for each in dims_named(before.dims, dim) if each in before.variables]
            first = before[along[0]].values[start] if along else f"step {start}"
            raise MoECError(
                f"the last chunk of {name!r} along {dim!r} is made again, and the source does not hold all "
                f"of it; give the files from {first} on"
            )
        if end % block and incomplete is None:
            raise MoECError(
                f"the last chunk of {name!r} along {dim!r} would hold {end % block} of {block} steps; "
                "--incomplete hold keeps such steps back, --incomplete refit stores them and makes the chunk "
                "again, from the source, when more are appended"
            )
    return end


def _blocks(plan: Plan, dim: str) -> dict[str, int]:
    """Return the steps along a dimension that are fitted together, by variable."""
    return {
        each.name: side
        for each in plan.compressed
        for name, side in zip(each.dims, each.block or (), strict=False)
        if local_name(name) == dim
    }


def whole_chunks(plan: Plan, dim: str) -> int:
    """Return the length of a dimension up to which all chunks are whole."""
    unit = math.lcm(*_blocks(plan, dim).values())
    return _length(plan, dim) // unit * unit
