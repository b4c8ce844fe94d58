"""What a conversion has done so far, kept in the destination beside the chunks it speaks of.

Zarr looks into a group for its members, and into an array for chunks by their names alone. So everything
lies within arrays, where nothing else takes notice of it::

    <variable>/.moec_zarr/plan.json      of the first compressed variable: the plan and the source's digest
    <variable>/.moec_zarr/append.json    beside it, while an append is unfinished: the plan of the grown store
    <variable>/.moec_zarr/groups.json    beside it, of a tree: the attributes of its groups but the root
    <variable>/.moec_zarr/<i>.<j>.json   one record for each finished task
    <variable>/.moec_zarr/quality/       a table of all records, made at the end of a run (`quality_table`)
    <variable>/.moec_zarr/whole.json     of a variable without tasks: the digest of each of its chunks

The plan is written by the client alone, a record by the one task that it belongs to, after the chunk. Each
is one small object: a store either has it or does not, and one that was cut short is no JSON, and does not
count. A record holds the digest of the object that it speaks of, so that damage is noticed.

A store that was appended to has had several plans. The manifest keeps the digest of each, with the length of
the dimension that it grew to: a record counts if it names the plan that its chunk was made by.

An append writes its chunks beyond the end of the arrays, where no reader looks. The store is what
``plan.json`` says, until ``append.json`` says that all chunks are there. From then on it is what that one
says, and whoever writes to the store next lets the arrays grow, if the append did not come to it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import zarr

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.tree import local_name
from moec_zarr.adapters.zarr_core import sync
from moec_zarr.archive.attributes import PREFIX
from moec_zarr.archive.records import FOLDER, WHOLE, path_within
from moec_zarr.archive.storage import names_in, read, write_json
from moec_zarr.errors import MoECError

__all__ = [
    "PLAN_OF",
    "PLAN_PATH",
    "Append",
    "Digests",
    "Generation",
    "Manifest",
    "change_format",
    "end_append",
    "read_append",
    "read_groups",
    "read_manifest",
    "write_append",
    "write_groups",
    "write_manifest",
]

_log = logging.getLogger(__name__)
_PLAN = "plan.json"
PLAN_PATH = f"{FOLDER}/{_PLAN}"
"""Key of the plan within the array that holds it."""

PLAN_OF = f"{PREFIX}plan"
"""Attribute of the root of a tree: the path of the array that holds the plan."""

_APPEND = "append.json"
_GROUPS = "groups.json"
_LONG = 60  # characters of a text that are shown
_DEFAULT = re.compile(r"^c[./]?")  # begins the name of a chunk in format 3


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A plan that a destination was made by before it was appended to.

    Attributes
    ----------
    digest : str
        Of the plan.
    length : int
        Of the dimension that grew, in voxels, before it grew.
    """

    digest: str
    length: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The plan that a destination was made by.

    Attributes
    ----------
    plan : dict
        All that decides what is stored, as `moec_zarr.archive.plan.Plan.to_dict` has it.
    source : str
        The source's digest, as `moec_zarr.conversion.plan.source.fingerprint` has it.
    created : bool
        Whether metadata and small variables are complete, so that tasks can write.
    along : str
        The dimension that was appended along; empty where nothing was.
    earlier : tuple of Generation
        The plans before this one, the oldest first.
    file_bytes : int
        Of the files that it was made from; 0 where that is not known.
    """

    plan: dict[str, Any]
    source: str
    created: bool = False
    along: str = ""
    earlier: tuple[Generation, ...] = ()
    file_bytes: int = 0

    @property
    def digest(self) -> str:
        """What a record must name to belong to this plan."""
        text = json.dumps([self.plan, self.source], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def dims(self) -> dict[str, list[str]]:
        """The dimensions of each variable."""
        return {name: each["dims"] for name, each in self.plan["variables"].items()}

    def codec(self, variable: str) -> MoECCodec | None:
        """Return the codec that a variable is stored with; None if it is not this package's.

        Raises
        ------
        MoECError
            If there is one that cannot be read.
        """
        known = self.plan["variables"].get(variable) or {}
        if known.get("codec") is None:
            return None
        try:
            return MoECCodec.from_configuration(known["codec"])
        except (MoECError, TypeError, ValueError) as error:
            raise MoECError(
                f"the codec of {variable!r} in the manifest {PLAN_PATH} of the destination cannot be read: "
                f"{error}. Restore that file, or --overwrite (resume=False) converts anew"
            ) from error

    def digests(self, variable: str) -> Digests:
        """Return what the records of a variable must name."""
        planned = self.plan["variables"][variable]
        block = planned["shards"] or planned["chunks"]
        dims = [local_name(dim) for dim in planned["dims"]]
        if block is None or self.along not in dims:
            first = self.earlier[0].digest if self.earlier else self.digest
            return Digests(axis=0, digests=(first,), starts=())
        axis = dims.index(self.along)
        return Digests(
            axis=axis,
            digests=(*(each.digest for each in self.earlier), self.digest),
            # A chunk that was incomplete when the dimension grew was made again.
            starts=tuple(each.length // block[axis] for each in self.earlier),
        )

    def precedes(self, wanted: Manifest) -> bool:
        """Say whether `wanted` appends to what this manifest made."""
        return bool(wanted.earlier) and wanted.earlier[-1].digest == self.digest

    def refuse_other(self, wanted: Manifest) -> None:
        """Raise what differs between this manifest and the one that is `wanted`.

        Raises
        ------
        MoECError
            If a setting or the source has changed.
        """
        if self.along and self.digest != wanted.digest:
            raise MoECError(
                f"the destination was appended to along {self.along!r}, "
                + (
                    "while this append was planned; give the same command again"
                    if wanted.along
                    else f"so that it is no longer what this source makes; --append {self.along} goes on"
                )
            )
        remedy = "give the same settings again to go on, or --overwrite (resume=False) to start anew"
        if changes := list(_differences(self.plan, wanted.plan)):
            raise MoECError(
                f"the destination was begun with other settings: {'; '.join(changes[:3])}; {remedy}"
            )
        if self.source != wanted.source:
            raise MoECError(
                "the source has changed since the destination was begun; "
                "--overwrite (resume=False) converts it anew"
            )


@dataclass(frozen=True, kw_only=True)
class Digests:
    """Which plan each chunk was made by: one of `digests`, each but the first from one of `starts` on."""

    axis: int
    digests: tuple[str, ...]
    starts: tuple[int, ...]

    def at(self, index: tuple[int, ...]) -> str:
        """Return the digest that the record of a chunk must name."""
        return self.digests[sum(start <= index[self.axis] for start in self.starts)]

    def accepted(self, index: tuple[int, ...]) -> tuple[str, ...]:
        """Return the digests with which the record of a chunk counts."""
        return (self.at(index),)


def _differences(old: Any, new: Any, path: str = "") -> Iterable[str]:
    """Return what has changed between two plans, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{path} {key}".strip())
    elif old != new:
        yield f"{path.removeprefix('variables ')} was {_words(old)}, got {_words(new)}"


def _words(value: Any) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(map(str, value)) + ")"
    if isinstance(value, str) and len(value) > _LONG:
        return json.dumps(f"{value[:12]}...")  # a dictionary
    return "absent" if value is None else json.dumps(value)


def write_manifest(group: zarr.Group, variable: str, manifest: Manifest) -> None:
    """Write the plan into the folder of `variable`."""
    write_json(group.store, path_within(group, variable, _PLAN), dataclasses.asdict(manifest))


def read_manifest(group: zarr.Group) -> Manifest | None:
    """Return the plan that a group was made by; None where it was not made by a conversion.

    Raises
    ------
    MoECError
        If there is one that cannot be read.
    """
    append = read_append(group)
    if append is not None and append.ready:
        return append.manifest
    found = _find(group, _PLAN)
    return None if found is None else _parse_manifest(found, _PLAN)


@dataclass(frozen=True, kw_only=True)
class Append:
    """An append that has begun and is not finished.

    Attributes
    ----------
    manifest : Manifest
        What the store is made by once it has grown.
    origin : str
        Where the new steps come from, in words.
    ready : bool
        Whether all chunks are there, so that the arrays can grow.
    """

    manifest: Manifest
    origin: str
    ready: bool = False


def write_append(group: zarr.Group, variable: str, append: Append) -> None:
    """Write into the folder of `variable` that an append has begun, or that its chunks are there."""
    write_json(group.store, path_within(group, variable, _APPEND), dataclasses.asdict(append))


def read_append(group: zarr.Group) -> Append | None:
    """Return the append that is unfinished; None where there is none.

    Raises
    ------
    MoECError
        If it cannot be read.
    """
    found = _find(group, _APPEND)
    if found is None:
        return None
    return Append(
        manifest=_parse_manifest(found.get("manifest"), _APPEND),
        origin=str(found.get("origin")),
        ready=found.get("ready") is True,
    )


def end_append(group: zarr.Group, variable: str, append: Append) -> None:
    """Let the store be what an append made it, once its arrays have grown."""
    write_manifest(group, variable, append.manifest)
    sync(group.store.delete(path_within(group, variable, _APPEND)))


def write_groups(group: zarr.Group, variable: str, attrs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the attributes of groups, by path, into the folder of `variable`."""
    write_json(group.store, path_within(group, variable, _GROUPS), {key: dict(attrs[key]) for key in attrs})


def read_groups(group: zarr.Group) -> dict[str, dict[str, Any]]:
    """Return the attributes that groups had when they were made, by path; empty for a flat set.

    Raises
    ------
    MoECError
        If they cannot be read.
    """
    found = _find(group, _GROUPS) or {}
    try:
        return {_checked_path(path): dict(attrs) for path, attrs in found.items()}
    except (ValueError, TypeError) as error:
        raise _damaged(_GROUPS, error) from error


def _find(group: zarr.Group, file: str) -> dict[str, Any] | None:
    """Return what a file says that one of the variables has."""
    named = group.attrs.get(PLAN_OF)
    names = sorted(names_in(group.store, group.path)) if named is None else [_checked_path(named)]
    for name in names:
        data = read(group.store, path_within(group, name, file))
        if data is None:
            continue
        try:
            return dict(json.loads(data))
        except (ValueError, TypeError) as error:
            raise _damaged(file, error) from error
    return None


def _checked_path(path: Any) -> str:
    """Return the path of a variable that a store names.

    Raises
    ------
    MoECError
        If it leads out of the store.
    """
    if not isinstance(path, str) or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise MoECError(f"the store names {path!r} as a variable, which is no path within it; it is damaged")
    return path


def _damaged(file: str, error: Exception) -> MoECError:
    return MoECError(
        f"the manifest {FOLDER}/{file} in the destination is damaged ({error}), so it is not known what is "
        "done; --overwrite (resume=False) converts anew"
    )


def _parse_manifest(loaded: Any, file: str) -> Manifest:
    try:
        for name in loaded["plan"]["variables"]:
            _checked_path(name)
        return Manifest(
            plan=dict(loaded["plan"]),
            source=str(loaded["source"]),
            created=loaded["created"] is True,
            along=str(loaded["along"]),
            earlier=tuple(
                Generation(digest=str(each["digest"]), length=int(each["length"]))
                for each in loaded["earlier"]
            ),
            file_bytes=int(loaded.get("file_bytes", 0)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error


def change_format(group: zarr.Group, zarr_format: int) -> None:
    """Let the plan and all records say that the store has another zarr format, where a conversion made it."""
    manifest = read_manifest(group)
    if manifest is None:
        return
    forms = [dataclasses.replace(manifest, plan=manifest.plan | {"zarr_format": each}) for each in (2, 3)]
    digest = next(each.digest for each in forms if each.plan["zarr_format"] == zarr_format)
    for name in manifest.plan["variables"]:
        folder = path_within(group, name, "").rstrip("/")
        for file in names_in(group.store, folder):
            key = f"{folder}/{file}"
            try:
                loaded = json.loads(read(group.store, key) or b"")
            except ValueError:
                continue  # it does not count in any format
            if not isinstance(loaded, dict):
                continue
            if file == _PLAN:
                loaded["plan"]["zarr_format"] = zarr_format
            elif file == WHOLE and zarr_format == 2:
                # Chunks are named as in format 2 from now on; format 3 keeps these names.
                loaded = {_DEFAULT.sub("", each) or "0": value for each, value in loaded.items()}
            elif file[:1].isdigit() and loaded.get("plan") in {each.digest for each in forms}:
                loaded["plan"] = digest
            else:
                continue
            write_json(group.store, key, loaded)
