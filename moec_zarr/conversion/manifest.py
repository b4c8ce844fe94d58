"""What a conversion has done so far, kept in the destination beside the chunks it speaks of.

Zarr looks into a group for its members, and into an array for chunks by their names alone. So everything
lies within arrays, where nothing else takes notice of it::

    <variable>/.moec_zarr/plan.json      of the first compressed variable: the plan and the source's digest
    <variable>/.moec_zarr/<i>.<j>.json   one record for each finished task
    <variable>/.moec_zarr/quality/       a table of all records, made at the end of a run (`quality_table`)

The plan is written by the client alone, a record by the one task that it belongs to, after the chunk. Each
is one small object: a store either has it or does not, and one that was cut short is no JSON, and does not
count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from moec_zarr.errors import MoECError
from moec_zarr.quality import Quality
from moec_zarr.report.statistics import Statistics

__all__ = [
    "Manifest",
    "Record",
    "change_format",
    "has_record",
    "read_manifest",
    "read_records",
    "write_manifest",
    "write_record",
]

_log = logging.getLogger(__name__)
_FOLDER = ".moec_zarr"
_PLAN = "plan.json"


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
        Time that the task took.
    attempt : int
        1 where it succeeded at once.
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
    steps: dict[str, float] = field(default_factory=dict)
    statistics: Statistics | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record in plain JSON types, with the PSNR in dB for those who read it there."""
        return dataclasses.asdict(self) | {
            "psnr": self.quality.psnr if math.isfinite(self.quality.psnr) else None
        }


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The plan that a destination was made by.

    Attributes
    ----------
    plan : dict
        All that decides what is stored, as `moec_zarr.conversion.plan.Plan.to_dict` has it.
    source : str
        The source's digest, as `moec_zarr.conversion.source.fingerprint` has it.
    created : bool
        Whether metadata and small variables are complete, so that tasks can write.
    """

    plan: dict[str, Any]
    source: str
    created: bool = False

    @property
    def digest(self) -> str:
        """What a record must name to belong to this plan."""
        text = json.dumps([self.plan, self.source], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def refuse_other(self, wanted: Manifest) -> None:
        """Raise what differs between this manifest and the one that is `wanted`.

        Raises
        ------
        MoECError
            If a setting or the source has changed.
        """
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
    _write(group.store, _path(group, variable, _PLAN), dataclasses.asdict(manifest))


def read_manifest(group: zarr.Group) -> Manifest | None:
    """The plan that a group was made by; None where it was not made by a conversion.

    Raises
    ------
    MoECError
        If there is one that cannot be read.
    """
    for name in sorted(_list_dir(group.store, group.path)):
        data = _read(group.store, _path(group, name, _PLAN))
        if data is None:
            continue
        try:
            loaded = json.loads(data)
            return Manifest(
                plan=dict(loaded["plan"]), source=str(loaded["source"]), created=loaded["created"] is True
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MoECError(
                f"the manifest {name}/{_FOLDER}/{_PLAN} in the destination is damaged ({error}), so it "
                "is not known what is done; --overwrite (resume=False) converts anew"
            ) from error
    return None


def write_record(array: zarr.Array[Any], record: Record, digest: str) -> None:
    """Write the record of a finished task, which then counts as done."""
    _write(array.store, _record_path(array, record.index), record.to_dict() | {"plan": digest})


def has_record(array: zarr.Array[Any], index: tuple[int, ...]) -> bool:
    """Whether the record of a task can be seen from here."""
    return _read(array.store, _record_path(array, index)) is not None


def read_records(array: zarr.Array[Any], variable: str, digest: str) -> dict[tuple[int, ...], Record]:
    """The finished tasks of a variable, by index.

    A record that is damaged or belongs to another plan does not count, nor does one whose chunk has gone:
    the task is done again.
    """
    prefix = f"{array.path}/" if array.path else ""
    keys = {key.removeprefix(prefix) for key in _list(array.store, prefix)}
    records = {}
    ours = re.compile(rf"{re.escape(_FOLDER)}/[\d.]+\.json")
    for key in sorted(filter(ours.fullmatch, keys)):
        try:
            record = _parse(_read(array.store, prefix + key), variable, digest)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("the record %s%s does not count, its task is done again: %s", prefix, key, error)
            continue
        if record.bytes_out and array.metadata.encode_chunk_key(record.index) not in keys:
            _log.warning("chunk %s of %r has gone and is made again", record.index, variable)
            continue
        records[record.index] = record
    return records


def change_format(group: zarr.Group, zarr_format: int) -> None:
    """Let the plan and all records say that the store has another zarr format, where a conversion made it."""
    manifest = read_manifest(group)
    if manifest is None:
        return
    forms = [dataclasses.replace(manifest, plan=manifest.plan | {"zarr_format": each}) for each in (2, 3)]
    digest = next(each.digest for each in forms if each.plan["zarr_format"] == zarr_format)
    prefix = f"{group.path}/" if group.path else ""
    record = re.compile(rf"{re.escape(prefix)}.+/{re.escape(_FOLDER)}/[\d.]+\.json")
    for key in filter(record.fullmatch, _list(group.store, prefix)):
        try:
            loaded = json.loads(_read(group.store, key) or b"")
        except ValueError:
            continue  # it does not count in any format
        if isinstance(loaded, dict) and loaded.get("plan") in {each.digest for each in forms}:
            _write(group.store, key, loaded | {"plan": digest})
    for name in _list_dir(group.store, group.path):
        key = _path(group, name, _PLAN)
        if (data := _read(group.store, key)) is not None:
            loaded = json.loads(data)
            _write(group.store, key, loaded | {"plan": loaded["plan"] | {"zarr_format": zarr_format}})


def _parse(data: bytes | None, variable: str, digest: str) -> Record:
    loaded = json.loads(data or b"")
    if not isinstance(loaded, dict):
        raise ValueError("it is no record")
    if loaded.pop("plan") != digest or loaded["variable"] != variable:
        raise ValueError("it belongs to another plan")
    loaded.pop("psnr")
    loaded["index"] = tuple(int(i) for i in loaded["index"])
    loaded["quality"] = Quality(**loaded["quality"])
    loaded["steps"] = {str(name): float(seconds) for name, seconds in loaded.get("steps", {}).items()}
    if (found := loaded.get("statistics")) is not None:
        loaded["statistics"] = Statistics.from_dict(found)
    return Record(**loaded)


# Zarr's stores write an object whole or not at all, locally too; they are asynchronous.


def _record_path(array: zarr.Array[Any], index: tuple[int, ...]) -> str:
    name = ".".join(map(str, index)) or "0"
    return "/".join(part for part in (array.path, _FOLDER, f"{name}.json") if part)


def _path(group: zarr.Group, variable: str, name: str) -> str:
    return "/".join(part for part in (group.path, variable, _FOLDER, name) if part)


def _write(store: Store, path: str, data: dict[str, Any]) -> None:
    text = json.dumps(data, indent=1).encode()
    sync(store.set(path, default_buffer_prototype().buffer.from_bytes(text)))


def _read(store: Store, path: str) -> bytes | None:
    buffer = sync(store.get(path, default_buffer_prototype()))
    return None if buffer is None else buffer.to_bytes()


def _list(store: Store, prefix: str) -> list[str]:
    async def collect() -> list[str]:
        return [key async for key in store.list_prefix(prefix)]

    return sync(collect())


def _list_dir(store: Store, path: str) -> list[str]:
    async def collect() -> list[str]:
        return [key async for key in store.list_dir(path)]

    return sync(collect())
