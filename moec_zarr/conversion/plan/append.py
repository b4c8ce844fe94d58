"""New steps for a store that a conversion made: what of a source is new, and how the store grows by it."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.abc.store import Store

from moec_zarr.archive.manifest import Generation, Manifest, read_manifest, write_manifest
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.records import check_whole, write_whole
from moec_zarr.archive.storage import to_read
from moec_zarr.archive.stored import hide_expected_warnings, stored_dataset, stored_plan
from moec_zarr.conversion.plan.options import Incomplete
from moec_zarr.conversion.plan.source import STATUS
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Growth", "grow", "offset_of", "plan_append", "whole_chunks"]

_log = logging.getLogger(__name__)


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
        The dimension that grows.
    length : int
        Of that dimension in the store, in voxels, before.
    offset : int
        Position in the store of the first step of `ds`.
    held : int
        Number of steps that are kept back, since they do not fill a chunk.
    earlier : tuple of Generation
        The plans that the store was made by so far.
    """

    plan: Plan
    ds: xr.Dataset
    dim: str
    length: int
    offset: int
    held: int
    earlier: tuple[Generation, ...]

    @property
    def added(self) -> int:
        """Number of steps by which the store grows."""
        return max(0, self.offset + self.ds.sizes[self.dim] - self.length)


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
    complete = group.attrs.get(STATUS) == "complete"
    if not complete and not manifest.earlier:
        return None
    if manifest.along not in ("", dim):
        raise MoECError(
            f"the store grows along {manifest.along!r}, so it cannot be appended to along {dim!r}"
        )
    stored = stored_plan(group, manifest)
    if not complete:  # an append was interrupted: as it was before
        stored = _resize(stored, dim, manifest.earlier[-1].length)
    else:
        length = _length(stored, dim)
        generation = Generation(digest=manifest.digest, length=length)
        manifest = replace(manifest, earlier=(*manifest.earlier, generation))
    length = _length(stored, dim)
    damaged = [each.name for each in stored.variables if not each.tasks and check_whole(group, each.name)]
    if damaged and complete:
        raise MoECError(
            f"{', '.join(map(repr, damaged))} in the store is damaged; repair it first, with "
            "moec-zarr verify --repair"
        )
    before = stored_dataset(group).isel({dim: slice(length)})
    _check_variables(stored, ds, before, group, dim)
    offset = offset_of(ds, before, dim)
    if offset == length and (gap := _gap(ds, before, dim)):
        if incomplete == "hold":
            raise MoECError(
                f"the source does not continue the store along {dim!r}: {gap}; give what was kept back"
            )
        _log.warning("there is a gap along %r: %s", dim, gap)
    end = max(offset + ds.sizes[dim], length)
    end = _end(stored, dim, length, offset, end, incomplete, before)
    held = max(offset + ds.sizes[dim] - max(end, length), 0)
    return Growth(
        plan=_resize(stored, dim, max(end, length)),
        ds=ds.isel({dim: slice(max(end, length) - offset)}),
        dim=dim,
        length=length,
        offset=offset,
        held=held,
        earlier=manifest.earlier,
    )


def _length(plan: Plan, dim: str) -> int:
    for each in plan.variables:
        if dim in each.dims:
            return each.shape[each.dims.index(dim)]
    known = sorted({dim for each in plan.variables for dim in each.dims})
    raise MoECError(f"the store has no dimension {dim!r} to append along; it has {', '.join(known)}")


def _resize(plan: Plan, dim: str, length: int) -> Plan:
    """Return the plan with another length of a dimension."""
    return replace(
        plan,
        variables=tuple(
            replace(
                each,
                shape=tuple(length if d == dim else n for d, n in zip(each.dims, each.shape, strict=True)),
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
    import xarray as xr

    def same(one: Any, other: Any) -> bool:
        return bool(one.equals(other))

    names = {each.name for each in stored.variables}
    for what, differ in (
        ("lacks", names - set(map(str, ds.variables))),
        ("also has", set(map(str, ds.variables)) - names),
    ):
        if differ:
            raise MoECError(f"the source {what} {', '.join(map(repr, sorted(differ)))}, unlike the store")
    small = xr.decode_cf(
        ds[[each.name for each in stored.variables if not each.tasks]], decode_timedelta=False
    )
    for each in stored.variables:
        var = ds.variables[each.name]
        shape = tuple(ds.sizes[d] if d == dim else n for d, n in zip(each.dims, each.shape, strict=True))
        if var.dims != each.dims or var.shape != shape:
            raise MoECError(
                f"variable {each.name!r} of the source has {dict(var.sizes)}, unlike the store, where it has "
                f"{dict(zip(each.dims, each.shape, strict=True))}"
            )
        if each.tasks:
            units = group[each.name].attrs.get("units")
            if (var.dtype, var.attrs.get("units")) != (each.dtype, units):
                raise MoECError(
                    f"variable {each.name!r} of the source is {var.dtype} in {var.attrs.get('units')}; in "
                    f"the store it is {each.dtype} in {units}"
                )
        elif dim not in each.dims:
            if not same(small.variables[each.name], before.variables[each.name]):
                raise MoECError(
                    f"variable {each.name!r} differs from the store's; it does not run along {dim!r}, so the "
                    "store can hold one of the two alone"
                )
        else:
            _check_encoding(each.name, small.variables[each.name], before.variables[each.name], group)


def _check_encoding(name: str, var: xr.Variable, before: xr.Variable, group: zarr.Group) -> None:
    """Refuse values that the way in which the store holds a variable cannot represent.

    Raises
    ------
    MoECError
        If one would change.
    """
    import xarray as xr
    from xarray.conventions import decode_cf_variable, encode_cf_variable

    array = group[name]
    assert isinstance(array, zarr.Array)
    kept = {key: value for key, value in before.encoding.items() if key in _MEANINGS}
    plain = var.copy(deep=False).load()
    plain.encoding = dict(kept)
    try:
        with warnings.catch_warnings():
            # xarray would choose other units, which the store cannot have for some of its steps.
            warnings.filterwarnings("error", message="Times can't be serialized faithfully")
            encoded = encode_cf_variable(plain, name=name)
        stored = xr.Variable(var.dims, np.asarray(encoded.values).astype(array.dtype), encoded.attrs)
        decoded: Any = decode_cf_variable(name, stored, decode_timedelta=False)
        same = bool(decoded.equals(plain))
    except (ValueError, TypeError, OverflowError, UserWarning):
        same = False
    if not same:
        raise MoECError(
            f"variable {name!r} cannot be appended exactly: the store holds it as {array.dtype}"
            + (f" in {kept['units']!r}" if "units" in kept else "")
        )


_MEANINGS = ("dtype", "units", "calendar", "_FillValue", "missing_value", "scale_factor", "add_offset")


def offset_of(ds: xr.Dataset, stored: xr.Dataset, dim: str) -> int:
    """Find the position in a store of the first step of a source that continues or overlaps it.

    Raises
    ------
    MoECError
        If it does neither.
    """
    import xarray as xr

    length = stored.sizes[dim]
    if dim not in ds.variables or dim not in stored.variables:
        return length  # without a coordinate, whatever comes is new
    old = stored.indexes[dim]
    new = xr.decode_cf(ds[[dim]], decode_timedelta=False).indexes[dim]
    known = old.get_indexer(new)
    overlap = int((known >= 0).sum())
    first = int(known[0]) if overlap else length
    expected = np.arange(first, first + overlap)
    continues = new[overlap:].size == 0 or first + overlap == length
    ordered = old.append(new[overlap:])
    if (
        not np.array_equal(known[:overlap], expected)
        or not continues
        or not (ordered.is_monotonic_increasing or ordered.is_monotonic_decreasing)
        or not ordered.is_unique
    ):
        raise MoECError(
            f"the source does not continue the store along {dim!r}: the store has {old[0]} to {old[-1]}, the "
            f"source {new[0]} to {new[-1]}, and no step may be out of order or be missing in between"
        )
    return first


def _gap(ds: xr.Dataset, stored: xr.Dataset, dim: str) -> str:
    """Return a gap between a store and a source that begins after it, in words; empty where there is none."""
    import xarray as xr

    if dim not in ds.variables or dim not in stored.variables or stored.sizes[dim] < 2:
        return ""
    old = stored.indexes[dim].values
    first = xr.decode_cf(ds[[dim]], decode_timedelta=False).indexes[dim].values[0]
    if old.dtype.kind in "US":
        return ""
    usual = max(abs(np.diff(old)))
    if abs(first - old[-1]) <= 1.5 * usual:
        return ""
    return f"the store ends with {old[-1]}, and the source begins with {first}"


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
            first = before[dim].values[start] if dim in before.variables else f"step {start}"
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
        each.name: each.block[each.dims.index(dim)]
        for each in plan.compressed
        if each.block is not None and dim in each.dims
    }


def whole_chunks(plan: Plan, dim: str) -> int:
    """Return the length of a dimension up to which all chunks are whole."""
    unit = math.lcm(*_blocks(plan, dim).values())
    return _length(plan, dim) // unit * unit


@hide_expected_warnings()
def grow(growth: Growth, group: zarr.Group, wanted: Manifest) -> None:
    """Make the arrays of a store longer, and write the new values of those that have no tasks.

    It can be interrupted and done again: sizes and positions are absolute.
    """
    import xarray as xr

    first = growth.plan.compressed[0].name
    write_manifest(group, first, replace(wanted, created=False))
    along = [each for each in growth.plan.variables if growth.dim in each.dims]
    for each in along:
        array = group[each.name]
        assert isinstance(array, zarr.Array)
        array.resize(each.shape)
    small = [each.name for each in along if not each.tasks]
    if small and growth.added:
        new = slice(growth.length - growth.offset, None)
        part = growth.ds[small].isel({growth.dim: new})
        part = part.drop_vars([name for name in part.variables if name not in small])
        part = xr.decode_cf(part, decode_timedelta=False).load().drop_encoding()
        part = part.drop_indexes(
            list(part.xindexes)
        )  # xarray leaves an index out of what it writes to a region
        store: Any = group.store
        part.attrs = dict(group.attrs)  # those of the store stay
        for name in small:
            array = group[name]
            if part[name].dtype.kind in "US" and isinstance(array, zarr.Array):
                part[name] = part[name].astype(array.dtype)  # text of another width, which was found to fit
        part.to_zarr(
            store,
            group=group.path or None,
            region={growth.dim: slice(growth.length, growth.length + growth.added)},
            consolidated=False,
            safe_chunks=False,
        )
    for name in small:
        write_whole(group, name)
    write_manifest(group, first, wanted)
