"""What a conversion has done so far, kept in the destination beside the chunks it speaks of.

Zarr looks into a group for its members, and into an array for chunks by their names alone. So everything
lies within arrays, where nothing else takes notice of it::

    <variable>/.moec_zarr/plan.json      of the first compressed variable: the plan and the source's digest
    <variable>/.moec_zarr/<i>.<j>.json   one record for each finished task
    <variable>/.moec_zarr/quality/       a table of all records, made at the end of a run (`quality_table`)
    <variable>/.moec_zarr/whole.json     of a variable without tasks: the digest of each of its chunks

The plan is written by the client alone, a record by the one task that it belongs to, after the chunk. Each
is one small object: a store either has it or does not, and one that was cut short is no JSON, and does not
count. A record holds the digest of the object that it speaks of, so that damage is noticed.

A store that was appended to has had several plans. The manifest keeps the digest of each, with the length of
the dimension that it grew to: a record counts if it names the plan that its chunk was made by.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import zarr

from moec_zarr.archive.storage import digest_of, key_of, names_in, read, read_many, write_json
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.errors import MoECError
from moec_zarr.quality import Quality
from moec_zarr.statistics import Statistics

__all__ = [
    "Generation",
    "Manifest",
    "Record",
    "change_format",
    "check_whole",
    "has_record",
    "read_manifest",
    "read_records",
    "write_manifest",
    "write_record",
    "write_whole",
]

_log = logging.getLogger(__name__)
_FOLDER = ".moec_zarr"
_PLAN = "plan.json"
_WHOLE = "whole.json"
_DEFAULT = re.compile(r"^c[./]?")  # begins the name of a chunk in format 3


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of one task.

    Attributes
    ----------
    variable : str
        Name of the variable.
    index : tuple of int
        Position of the task's chunk, or shard, among the others.
    bytes_in : int
        Bytes before compression, padding at the end of a dimension left out.
    bytes_out : int
        Bytes stored; 0 where all is the fill value, which zarr does not store.
    quality : Quality
        Of the values read back from the store.
    seconds : float
        Time that the task took of a worker: an equal share, where several were done together.
    attempt : int
        1 where it succeeded at once.
    checksum : str
        SHA-256 of the bytes stored, as `digest_of` has it; empty where nothing was stored.
    kinds : dict of str to int
        How many of its streams hold a transform, a network ("model"), both, a constant, or lossless values;
        empty where the codec was not used.
    steps : dict of str to float
        Seconds of "reading", "fitting", "writing" and "checking", the last of which reads back, compares and
        measures. Lossless codecs count as fitting. Empty in records of older versions.
    statistics : Statistics or None
        How the errors are distributed; None where there are none, and in records of older versions.
    """

    variable: str
    index: tuple[int, ...]
    bytes_in: int
    bytes_out: int
    quality: Quality
    seconds: float
    attempt: int
    checksum: str
    kinds: dict[str, int] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    statistics: Statistics | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record in plain JSON types, with the PSNR in dB for those who read it there."""
        return dataclasses.asdict(self) | {
            "psnr": self.quality.psnr if math.isfinite(self.quality.psnr) else None
        }


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
    """

    plan: dict[str, Any]
    source: str
    created: bool = False
    along: str = ""
    earlier: tuple[Generation, ...] = ()

    @property
    def digest(self) -> str:
        """What a record must name to belong to this plan."""
        text = json.dumps([self.plan, self.source], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def digests(self, variable: str) -> Digests:
        """What the records of a variable must name."""
        planned = self.plan["variables"][variable]
        block = planned["shards"] or planned["chunks"]
        dims = planned["dims"]
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
        """Whether `wanted` appends to what this manifest made."""
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
                    "and other files are being appended; give the same files again to finish that"
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
        """The digest that the record of a chunk must name."""
        return self.digests[sum(start <= index[self.axis] for start in self.starts)]


def _differences(old: Any, new: Any, path: str = "") -> Iterable[str]:
    """What has changed between two plans, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{path} {key}".strip())
    elif old != new:
        yield f"{path.removeprefix('variables ')} was {_words(old)}, got {_words(new)}"


def _words(value: Any) -> str:
    if isinstance(value, list):
        return "(" + ", ".join(map(str, value)) + ")"
    return "absent" if value is None else json.dumps(value)


def write_manifest(group: zarr.Group, variable: str, manifest: Manifest) -> None:
    """Write the plan into the folder of `variable`."""
    write_json(group.store, _path(group, variable, _PLAN), dataclasses.asdict(manifest))


def read_manifest(group: zarr.Group) -> Manifest | None:
    """The plan that a group was made by; None where it was not made by a conversion.

    Raises
    ------
    MoECError
        If there is one that cannot be read.
    """
    for name in sorted(names_in(group.store, group.path)):
        data = read(group.store, _path(group, name, _PLAN))
        if data is None:
            continue
        try:
            return _parse_manifest(json.loads(data))
        except (ValueError, KeyError, TypeError) as error:
            raise MoECError(
                f"the manifest {name}/{_FOLDER}/{_PLAN} in the destination is damaged ({error}), so it "
                "is not known what is done; --overwrite (resume=False) converts anew"
            ) from error
    return None


def _parse_manifest(loaded: Any) -> Manifest:
    return Manifest(
        plan=dict(loaded["plan"]),
        source=str(loaded["source"]),
        created=loaded["created"] is True,
        along=str(loaded["along"]),
        earlier=tuple(
            Generation(digest=str(each["digest"]), length=int(each["length"])) for each in loaded["earlier"]
        ),
    )


def write_record(array: zarr.Array[Any], record: Record, digest: str) -> None:
    """Write the record of a finished task, which then counts as done."""
    write_json(array.store, _record_path(array, record.index), record.to_dict() | {"plan": digest})


def has_record(array: zarr.Array[Any], index: tuple[int, ...]) -> bool:
    """Whether the record of a task can be seen from here."""
    return read(array.store, _record_path(array, index)) is not None


def read_records(
    array: zarr.Array[Any],
    variable: str,
    digests: Digests,
    look: Callable[[bytes], str] | None = None,
) -> tuple[dict[tuple[int, ...], Record], dict[tuple[int, ...], str]]:
    """The finished tasks of a variable, and what speaks against others that have a record.

    A record that is damaged or belongs to another plan does not count, nor does one whose chunk has gone or
    is no longer what was written: the task is done again. Every chunk that has a record is read, and `look`
    says what else is wrong with its bytes.

    Returns
    -------
    records : dict of tuple of int to Record
        By the position of the chunk, or shard.
    damage : dict of tuple of int to str
        What is wrong, likewise.
    """
    prefix = f"{array.path}/" if array.path else ""
    folder = f"{prefix}{_FOLDER}/"
    names = [name for name in names_in(array.store, folder.rstrip("/")) if name[:1].isdigit()]
    places = {}
    for name in sorted(names):
        try:
            places[tuple(int(i) for i in name.removesuffix(".json").split("."))] = folder + name
        except ValueError:
            _log.warning("%s%s is no record", folder, name)
    records, damage = {}, {}
    for index, data in zip(places, read_many(array.store, places.values()), strict=True):
        try:
            records[index] = _parse(data, variable, index, digests)
        except (ValueError, KeyError, TypeError) as error:
            damage[index] = f"its record does not count: {error}"
    stored = [index for index, record in records.items() if record.checksum]
    keys = [prefix + array.metadata.encode_chunk_key(index) for index in stored]
    for index, data in zip(stored, read_many(array.store, keys), strict=True):
        if data is None:
            damage[index] = "it has gone"
        elif digest_of(data) != records[index].checksum:
            damage[index] = "its bytes are not those that were written"
        elif look is not None and (reason := look(data)):
            damage[index] = reason
    return {index: record for index, record in records.items() if index not in damage}, damage


def change_format(group: zarr.Group, zarr_format: int) -> None:
    """Let the plan and all records say that the store has another zarr format, where a conversion made it."""
    manifest = read_manifest(group)
    if manifest is None:
        return
    forms = [dataclasses.replace(manifest, plan=manifest.plan | {"zarr_format": each}) for each in (2, 3)]
    digest = next(each.digest for each in forms if each.plan["zarr_format"] == zarr_format)
    for name in names_in(group.store, group.path):
        folder = _path(group, name, "").rstrip("/")
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
            elif file == _WHOLE and zarr_format == 2:
                # Chunks are named as in format 2 from now on; format 3 keeps these names.
                loaded = {_DEFAULT.sub("", each) or "0": value for each, value in loaded.items()}
            elif file[:1].isdigit() and loaded.get("plan") in {each.digest for each in forms}:
                loaded["plan"] = digest
            else:
                continue
            write_json(group.store, key, loaded)


def _parse(data: bytes | None, variable: str, index: tuple[int, ...], digests: Digests) -> Record:
    loaded = json.loads(data or b"")
    if not isinstance(loaded, dict):
        raise ValueError("it is no record")
    if loaded["variable"] != variable or tuple(loaded["index"]) != index:
        raise ValueError("it belongs to another chunk")
    if loaded.pop("plan") != digests.at(index):
        raise ValueError("it belongs to another plan")
    loaded.pop("psnr")
    _check_types(loaded, _RECORD_TYPES)
    _check_types(loaded["quality"], _QUALITY_TYPES)
    quality = Quality(**loaded.pop("quality"))
    loaded["steps"] = {str(name): float(seconds) for name, seconds in loaded["steps"].items()}
    if loaded["statistics"] is not None:
        loaded["statistics"] = Statistics.from_dict(loaded["statistics"])
    return Record(**loaded | {"index": index, "quality": quality})


_NUMBER = (int, float)
_RECORD_TYPES: dict[str, Any] = {
    "bytes_in": int,
    "bytes_out": int,
    "seconds": _NUMBER,
    "attempt": int,
    "checksum": str,
    "kinds": dict,
    "steps": dict,
    "statistics": (dict, type(None)),
    "quality": dict,
}
_QUALITY_TYPES: dict[str, Any] = {
    "n": int,
    "n_valid": int,
    "rmse": _NUMBER,
    "max_error": _NUMBER,
    "low": (*_NUMBER, type(None)),
    "high": (*_NUMBER, type(None)),
}


def _check_types(loaded: dict[str, Any], types: Mapping[str, Any]) -> None:
    """Refuse what would be believed now, and fail where it is added up.

    Raises
    ------
    ValueError
        If a value has another type.
    """
    for key, kind in types.items():
        if not isinstance(loaded[key], kind) or isinstance(loaded[key], bool):
            raise ValueError(f"its {key} is {json.dumps(loaded[key])}")


def write_whole(group: zarr.Group, variable: str) -> None:
    """Put a variable without tasks on record: the digest of each of its chunks."""
    array = group[variable]
    assert isinstance(array, zarr.Array)
    keys = sorted(_chunk_keys(array))
    digests = {
        key: digest_of(data)
        for key, data in zip(keys, read_many(array.store, [key_of(array, key) for key in keys]), strict=True)
        if data is not None
    }
    write_json(array.store, _path(group, variable, _WHOLE), digests)


def check_whole(group: zarr.Group, variable: str) -> dict[str, str]:
    """What is wrong with the chunks of a variable without tasks, by their keys; empty where nothing is."""
    array = group.get(variable)
    if not isinstance(array, zarr.Array):
        return {"zarr.json": "the variable has gone"}
    try:
        digests = json.loads(read(array.store, _path(group, variable, _WHOLE)) or b"")
        keys = list(digests)
        found = read_many(array.store, [key_of(array, key) for key in keys])
    except (ValueError, TypeError) as error:
        return {f"{_FOLDER}/{_WHOLE}": f"it cannot be read: {error}"}
    return {
        key: "it has gone" if data is None else "its bytes are not those that were written"
        for key, data in zip(keys, found, strict=True)
        if data is None or digest_of(data) != digests[key]
    }


def _chunk_keys(array: zarr.Array[Any]) -> Iterator[str]:
    """Keys of all chunks, or shards, that an array can have, within its folder."""
    return (array.metadata.encode_chunk_key(index) for index in ChunkGrid.of_objects(array).indices())


def _record_path(array: zarr.Array[Any], index: tuple[int, ...]) -> str:
    name = ".".join(map(str, index)) or "0"
    return "/".join(part for part in (array.path, _FOLDER, f"{name}.json") if part)


def _path(group: zarr.Group, variable: str, name: str) -> str:
    return "/".join(part for part in (group.path, variable, _FOLDER, name) if part)
