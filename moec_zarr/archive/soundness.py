"""What is missing or damaged in a store, by its records and its streams alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import zarr

from moec_zarr.archive.inspection import headers_within
from moec_zarr.archive.manifest import Append, Digests, Manifest
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.records import Damage, Record, check_whole, read_records
from moec_zarr.errors import CorruptStreamError, UnsupportedVersionError

__all__ = ["Index", "Problem", "check_bytes", "look_at_streams"]

Index = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something of a store that is not as it should be.

    Attributes
    ----------
    variable : str
        Name of the variable.
    chunk : tuple of int or str
        Position of the chunk, or shard, among the others; the name of the object where it is no chunk of a
        task.
    kind : {"missing", "damaged", "differs"}
        Whether it is not there, is not what was written, or is farther from the source than was recorded.
    reason : str
        What was found.
    """

    variable: str
    chunk: Index | str
    kind: Literal["missing", "damaged", "differs"]
    reason: str


def look_at_streams(array: zarr.Array[Any], data: bytes) -> str:
    """Return what is wrong with the streams of a stored object; empty where nothing is."""
    try:
        for place, header, _, _ in headers_within(array, data):
            if header.shape != array.chunks or header.dtype != array.dtype:
                return (
                    f"its stream {place} holds {header.dtype} of shape {header.shape}, and the array has "
                    f"{array.dtype} in chunks of {array.chunks}"
                )
    except (CorruptStreamError, UnsupportedVersionError) as error:
        return str(error)
    return ""


def check_bytes(
    planned: Plan, group: zarr.Group, manifest: Manifest, append: Append | None
) -> tuple[list[Problem], dict[str, dict[Index, Record]]]:
    """Return what is missing or damaged, and the records of what is not.

    A chunk that an unfinished append has made again is as good as the one before.
    """
    problems: list[Problem] = []
    records: dict[str, dict[Index, Record]] = {}
    for each in planned.variables:
        array = group.get(each.name)
        if not isinstance(array, zarr.Array) or array.shape != each.shape:
            what = f"has shape {array.shape}" if isinstance(array, zarr.Array) else "cannot be read"
            problems.append(
                Problem(
                    variable=each.name,
                    chunk="metadata",
                    kind="damaged",
                    reason=f"the array {what}; the plan says {each.shape}",
                )
            )
            continue
        if not each.tasks:
            problems += [_problem(each.name, key, why) for key, why in check_whole(group, each.name).items()]
            continue
        look = None if each.codec is None else (lambda data, array=array: look_at_streams(array, data))
        plans = [manifest.digests(each.name)] + ([append.manifest.digests(each.name)] if append else [])
        records[each.name], damage = read_records(array, each.name, partial(_digests_of, plans), look)
        for index in each.grid.indices():
            if index not in records[each.name]:
                why = damage.get(index, Damage("it has not been made", missing=True))
                problems.append(_problem(each.name, index, why))
    return problems, records


def _digests_of(plans: list[Digests], index: Index) -> set[str]:
    return {plan.at(index) for plan in plans}


def _problem(variable: str, chunk: Index | str, damage: Damage) -> Problem:
    kind: Literal["missing", "damaged"] = "missing" if damage.missing else "damaged"
    return Problem(variable=variable, chunk=chunk, kind=kind, reason=damage.reason)
