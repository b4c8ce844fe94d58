"""Records of what is stored: one for each task, and one for each variable that has none.

They lie beside the chunks that they speak of, as `moec_zarr.archive.manifest` says.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zarr

from moec_zarr.adapters.tree import join_path
from moec_zarr.archive.storage import digest_of, key_of, names_in, read, read_many, read_object, write_json
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.quality import Quality
from moec_zarr.statistics import Statistics

__all__ = [
    "FOLDER",
    "WHOLE",
    "Damage",
    "Record",
    "check_whole",
    "expect_whole",
    "has_record",
    "is_sound",
    "path_within",
    "read_records",
    "write_record",
    "write_whole",
]

_log = logging.getLogger(__name__)
FOLDER = ".moec_zarr"
WHOLE = "whole.json"


class Damage(NamedTuple):
    """Why something that is on record does not count.

    Attributes
    ----------
    reason : str
        What was found.
    missing : bool
        Whether there is nothing at all.
    """

    reason: str
    missing: bool = False


_GONE = Damage("it has gone", missing=True)
_CHANGED = Damage("its bytes are not those that were written")


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
    exceeded : int
        Number of its streams that take more bytes than the ratio allows.
    suspect : str
        A value that stands apart from all others, in words; empty where none does.
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
    exceeded: int = 0
    suspect: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the record in plain JSON types, with the PSNR in dB for those who read it there."""
        return dataclasses.asdict(self) | {
            "psnr": self.quality.psnr if math.isfinite(self.quality.psnr) else None
        }


def write_record(array: zarr.Array[Any], record: Record, digest: str) -> None:
    """Write the record of a finished task, which then counts as done."""
    write_json(array.store, _record_path(array, record.index), record.to_dict() | {"plan": digest})


def has_record(array: zarr.Array[Any], index: tuple[int, ...]) -> bool:
    """Say whether the record of a task can be seen from here."""
    return read(array.store, _record_path(array, index)) is not None


def is_sound(array: zarr.Array[Any], variable: str, index: tuple[int, ...]) -> bool:
    """Say whether a chunk is what its record says, by whatever plan it was made."""
    data = read(array.store, _record_path(array, index))
    try:
        record = _parse(data, variable, index, [str(json.loads(data or b"")["plan"])])
    except (ValueError, KeyError, TypeError):
        return False
    stored = read_object(array, index)
    return record.checksum == ("" if stored is None else digest_of(stored))


def read_records(
    array: zarr.Array[Any],
    variable: str,
    digests_at: Callable[[tuple[int, ...]], Collection[str]],
    look: Callable[[bytes], str] | None = None,
) -> tuple[dict[tuple[int, ...], Record], dict[tuple[int, ...], Damage]]:
    """Read which tasks of a variable are finished, and what speaks against others that have a record.

    A record that is damaged or belongs to another plan does not count, nor does one whose chunk has gone or
    is no longer what was written: the task is done again. Every chunk that has a record is read, and `look`
    says what else is wrong with its bytes.

    Parameters
    ----------
    array : zarr.Array
    variable : str
        Its name.
    digests_at : callable
        Gives the digests of the plans by which the chunk at a position may be made.
    look : callable, optional

    Returns
    -------
    records : dict of tuple of int to Record
        By the position of the chunk, or shard.
    damage : dict of tuple of int to Damage
        Likewise.
    """
    prefix = key_of(array, "")
    folder = f"{prefix}{FOLDER}/"
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
            records[index] = _parse(data, variable, index, digests_at(index))
        except (ValueError, KeyError, TypeError) as error:
            damage[index] = Damage(f"its record does not count: {error}")
    stored = [index for index, record in records.items() if record.checksum]
    keys = [prefix + array.metadata.encode_chunk_key(index) for index in stored]
    for index, data in zip(stored, read_many(array.store, keys), strict=True):
        if data is None:
            damage[index] = _GONE
        elif digest_of(data) != records[index].checksum:
            damage[index] = _CHANGED
        elif look is not None and (reason := look(data)):
            damage[index] = Damage(reason)
    return {index: record for index, record in records.items() if index not in damage}, damage


def _parse(data: bytes | None, variable: str, index: tuple[int, ...], digests: Collection[str]) -> Record:
    loaded = json.loads(data or b"")
    if not isinstance(loaded, dict):
        raise ValueError("it is no record")
    if loaded["variable"] != variable or tuple(loaded["index"]) != index:
        raise ValueError("it belongs to another chunk")
    if loaded.pop("plan") not in digests:
        raise ValueError("it belongs to another plan")
    loaded.pop("psnr")
    loaded.setdefault("suspect", "")  # records of older versions have neither
    loaded.setdefault("exceeded", 0)
    _check_types(loaded, _RECORD_TYPES)
    measured = {key: _number(value) for key, value in loaded.pop("quality").items()}
    _check_types(measured, _QUALITY_TYPES)
    quality = Quality(**measured)
    loaded["steps"] = {str(name): float(seconds) for name, seconds in loaded["steps"].items()}
    if loaded["statistics"] is not None:
        loaded["statistics"] = Statistics.from_dict(loaded["statistics"])
    return Record(**loaded | {"index": index, "quality": quality})


def _number(value: Any) -> Any:
    """Return the number that a word stands for, where JSON has none."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


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
    "exceeded": int,
    "suspect": str,
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
    keys = sorted(map(array.metadata.encode_chunk_key, ChunkGrid.of_objects(array).indices()))
    digests = {
        key: digest_of(data)
        for key, data in zip(keys, read_many(array.store, [key_of(array, key) for key in keys]), strict=True)
        if data is not None
    }
    write_json(array.store, path_within(group, variable, WHOLE), digests)


def expect_whole(group: zarr.Group, variable: str, coming: Mapping[str, str]) -> None:
    """Put on record, beside the digests of some chunks, those of what will take their place in a moment.

    Until `write_whole`, either counts.
    """
    path = path_within(group, variable, WHOLE)
    try:
        digests = json.loads(read(group.store, path) or b"{}")
        both = {key: [*_digests(digests[key]), coming[key]] for key in coming if key in digests}
    except (ValueError, TypeError):
        return  # it is damaged, and written anew
    write_json(group.store, path, digests | both)


def _digests(recorded: Any) -> list[Any]:
    """Return the digests of which a chunk must have one."""
    return recorded if isinstance(recorded, list) else [recorded]


def check_whole(group: zarr.Group, variable: str) -> dict[str, Damage]:
    """Check the chunks of a variable without tasks; return what is wrong, by key."""
    array = group.get(variable)
    if not isinstance(array, zarr.Array):
        return {"zarr.json": Damage("the variable has gone")}
    try:
        digests = json.loads(read(array.store, path_within(group, variable, WHOLE)) or b"")
        keys = list(digests)
        found = read_many(array.store, [key_of(array, key) for key in keys])
    except (ValueError, TypeError) as error:
        return {f"{FOLDER}/{WHOLE}": Damage(f"it cannot be read: {error}")}
    return {
        key: _GONE if data is None else _CHANGED
        for key, data in zip(keys, found, strict=True)
        if data is None or digest_of(data) not in _digests(digests[key])
    }


def _record_path(array: zarr.Array[Any], index: tuple[int, ...]) -> str:
    name = ".".join(map(str, index)) or "0"
    return join_path(array.path, FOLDER, f"{name}.json")


def path_within(group: zarr.Group, variable: str, name: str) -> str:
    """Return the key of an object that is kept for a variable."""
    return join_path(group.path, variable, FOLDER, name)
