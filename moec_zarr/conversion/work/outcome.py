"""What a store says of its own making: whether it is complete, and what was done to each variable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from os import PathLike, fspath
from typing import Any

import zarr

from moec_zarr.adapters.zarr_core import sync
from moec_zarr.archive.attributes import FILE_BYTES, PREFIX, REBUILT, stored_attributes, to_strict
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.status import Progress, Summary
from moec_zarr.archive.stored import hide_expected_warnings
from moec_zarr.conversion.plan.source import STATUS, Source

__all__ = ["exceeded_text", "mark", "name_source", "say_incomplete", "write_attributes"]

_KINDS = {  # of a stream, in the words of an attribute
    "transform": "a transform",
    "model": "a mixture-of-experts network",
    "both": "a transform corrected by a mixture-of-experts network",
    "constant": "a constant",
    "rounded": "rounded values",
    "lossless": "lossless values",
}


def mark(group: zarr.Group, done: int, tasks: int) -> None:
    """Say in the attributes of the group that it is unfinished, and how much of it is done."""
    say_incomplete(group, _count(done, tasks))


def _count(done: int, tasks: int) -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{done} of {tasks} chunks are done at {when}, the others read as missing values or zeros"


def say_incomplete(group: zarr.Group, why: str) -> None:
    """Say in the attributes of the group why it is unfinished."""
    group.attrs[STATUS] = f"incomplete: {why}"
    if group.metadata.zarr_format == 2:
        # Consolidated metadata would go on saying that all is done. In format 3 it has just been dropped.
        prefix = f"{group.path}/" if group.path else ""
        sync(group.store.delete(f"{prefix}.zmetadata"))


@hide_expected_warnings()
def write_attributes(
    planned: Plan,
    origin: str,
    group: zarr.Group,
    state: Progress,
    what: str = "converted",
    file_bytes: int = 0,
) -> None:
    """Say in the destination's attributes what was done to each variable, and whether all is done."""
    summaries = state.summaries()
    for each in planned.compressed:
        array = group[each.name]
        # Those of an earlier run, and of an older version, go.
        array.attrs.put(
            stored_attributes(dict(array.attrs), repr(each.name)) | _attributes(summaries[each.name])
        )
    for each in planned.variables:
        if each.rebuilt is not None:
            group[each.name].attrs[REBUILT] = f"{each.rebuilt.finest}, {each.rebuilt.method}"
    done = f"moec_zarr {version('moec_zarr')}: {what} from {origin}"
    attributes: dict[str, Any] = {FILE_BYTES: file_bytes} if file_bytes else {}
    if state.failures or len(state.records) < planned.tasks:
        attributes[STATUS] = f"incomplete: {_count(len(state.records), planned.tasks)}"
    else:
        history = str(group.attrs.get("history", ""))
        if done not in history:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            attributes["history"] = f"{now} {done}" + (f"\n{history}" if history else "")
        attributes[STATUS] = "complete"
    # Consolidated first: then the group's own attributes change together with it.
    if planned.consolidated:
        group = zarr.consolidate_metadata(
            group.store, path=group.path or None, zarr_format=planned.zarr_format
        )
    group.update_attributes(attributes)


# For those who open the store without the package: zarr's own error names the codec alone.
_READING = "zarr and xarray decode this variable once the Python package moec_zarr is installed"


def _attributes(summary: Summary) -> dict[str, Any]:
    """Return the attributes of a compressed variable.

    CF 1.12, section 8.4 describes the quantisation of mantissa bits and has names for its algorithms alone,
    so its ``quantization`` variable would say something untrue here. Its terms are kept: an algorithm, and
    an implementation with a version.
    """
    quality = summary.quality
    attributes = {
        "algorithm": _algorithm(summary.kinds),
        "implementation": f"moec_zarr {version('moec_zarr')}",
        "reading": _READING,
        "codec": repr(summary.codec),
        "dictionary_bytes": None if summary.codec is None else summary.codec.dictionary_bytes or None,
        "ratio": summary.ratio and float(f"{summary.ratio:.6g}"),
        "psnr": round(quality.psnr, 3) if math.isfinite(quality.psnr) else None,
        "max_error": quality.max_error,
        "warning": _warning(summary),
    }
    return {PREFIX + key: to_strict(value) for key, value in attributes.items() if value is not None}


def exceeded_text(summary: Summary) -> str:
    """Say how many chunks take more bytes than their ratio allows."""
    assert summary.codec is not None
    return (
        f"{summary.exceeded} chunks take more bytes than {summary.codec.ratio:g}x allows, down to "
        f"{summary.smallest_ratio:.3g}x, since what they keep exactly, such as the places of NaN, takes them"
    )


def _warning(summary: Summary) -> str | None:
    """Say which chunks exceed their bytes, and in which a value stands apart; None where none does."""
    if summary.exceeded:
        return exceeded_text(summary)
    if not summary.suspects:
        return None
    index, what = summary.suspects[0]
    more = f", and {len(summary.suspects) - 1} more chunks have the like" if len(summary.suspects) > 1 else ""
    return f"in chunk {index}, {what}{more}; if it stands for missing values, convert with missing="


def _algorithm(kinds: Mapping[str, int]) -> str:
    """Return what the streams of a variable hold, the most frequent first."""
    order = sorted(kinds, key=lambda kind: -kinds[kind])
    return "MoEC: " + (
        ", ".join(f"{_KINDS[kind]} ({kinds[kind]})" for kind in order) or "nothing but fill values"
    )


def name_source(src: Source) -> str:
    """Return where the values of a store come from, in words."""
    if isinstance(src, (str, PathLike)):
        return fspath(src)
    if isinstance(src, (list, tuple)):
        return f"{fspath(src[0])} and {len(src) - 1} more files"
    origin = getattr(src, "encoding", {}).get("source")
    return str(origin or "a dataset in memory")
