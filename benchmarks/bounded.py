"""Bytes at a bound on the absolute error, beside SPERR, SZ3 and ZFP in their bounded modes.

``python -m benchmarks.bounded [FOLDER]`` measures each field of a folder of ``.npz`` files (array ``data``),
by default the package's simulated fields, at bounds of so many times the range of the valid values. Of each
codec: bytes, the largest error that its decoded array really has, PSNR, CPU seconds to encode and to decode,
on one thread, each in a process of its own. A peer is used in every layout of the axes that it takes, and
the smallest stream counts. NaN is filled in for peers and its mask costs them nothing. Of integers a peer
gets the widest bound with which rounding leads back to the bound asked for.

A measurement is a line in the file of results; what is there already is not measured again. Tables (Markdown)
are made from the lines at the end, or by ``--report`` at any time.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np

from benchmarks.fields import find_fields
from benchmarks.isolate import LimitError, isolated
from benchmarks.peers import PEERS as ALL_PEERS
from benchmarks.peers import UnsuitableError, bounded_forms, filled, restored
from benchmarks.records import (
    Array,
    Line,
    Records,
    codec_version,
    latest,
    markdown,
    origin,
    versions,
)
from benchmarks.speed import GIGABYTES, OURS, million, series, warm
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.quality import absolute_error, measure
from moec_zarr.settings import EFFORTS, Settings

PEERS = ("SPERR", "SZ3", "ZFP")
BOUNDS = (1e-1, 1e-2, 1e-3, 1e-4)


def measure_ours(array: Array, bound: float, effort: str) -> Line:
    """This codec, in a process that is warm."""
    warm(effort)
    with config.set(cache=0, progress=False):
        begun = time.process_time()
        stream = encode(array, Settings(max_error=bound, effort=effort))
        encoded = time.process_time()
        decoded = decode(stream)
        done = time.process_time()
    times = {"encode_cpu": encoded - begun, "decode_cpu": done - encoded}
    return {"bytes": len(stream)} | times | errors(array, decoded)


def measure_peer(array: Array, bound: float, peer: str) -> Line:
    """The smallest stream of a peer over its forms."""
    valid = np.isfinite(array)
    given = filled(array, valid)
    best: Line = {}
    for form in bounded_forms(peer, given, bound):
        begun = time.process_time()
        stream = form.encode(form.settings(0.0))
        encoded = time.process_time()
        if best and len(stream) >= best["bytes"]:
            continue
        decoded = restored(form.decode(stream), given)
        times = {"encode_cpu": encoded - begun, "decode_cpu": time.process_time() - encoded}
        found = errors(array, np.where(valid, decoded, array))
        best = {"bytes": len(stream), "form": form.name} | times | found
    return best


def errors(original: Array, decoded: Array) -> Line:
    """Largest error, how many values there are, PSNR at data-range peak."""
    valid = np.isfinite(original)
    quality = measure(original, decoded, valid)
    largest = float(absolute_error(original[valid], decoded[valid]).max())
    return {"largest": largest, "values": quality.n_valid, "psnr": quality.psnr}


def codecs(arguments: argparse.Namespace) -> list[tuple[Line, Callable[..., Line], str]]:
    """What identifies each codec, the function that measures it, and which effort or peer that gets."""
    ours = codec_version()
    found: list[tuple[Line, Callable[..., Line], str]] = []
    for effort in arguments.efforts:
        found.append(({"codec": OURS, "settings": {"effort": effort}, "version": ours}, measure_ours, effort))
    for peer in arguments.peers:
        version = versions(ALL_PEERS[peer].package)[ALL_PEERS[peer].package]
        found.append(({"codec": peer, "settings": {}, "version": version}, measure_peer, peer))
    return found


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet, one after the other."""
    used, here = codecs(arguments), origin()
    for field, load in find_fields(arguments.folder, arguments.fields).items():
        array = load()
        valid = np.isfinite(array)
        span = float(array[valid].max()) - float(array[valid].min())
        place: Line = {"benchmark": "bounded", "field": field, "shape": array.shape, "dtype": array.dtype.str}
        for share, (codec, function, which) in itertools.product(arguments.bounds, used):
            line = place | {"share": share} | codec
            if line in records:
                continue
            line |= {"bound": share * span, "load": os.getloadavg()[0]}
            try:
                line |= isolated(
                    function, array, share * span, which, seconds=arguments.timeout, gigabytes=GIGABYTES
                )
            except (UnsuitableError, LimitError, RuntimeError) as error:
                line["reason"] = str(error)
            records.add(line | here)
            print(describe(line), flush=True)


def describe(line: Line) -> str:
    """A line of progress."""
    head = f"{line['field']} {line['share']:g} {series(line)}"
    if "reason" in line:
        return f"{head}: {line['reason']}"
    share = line["largest"] / line["bound"]
    speed = line["encode_cpu"] / million(line)
    return f"{head}: {line['bytes']} bytes, {share:.6f} of the bound, {speed:.2f} s/M to encode"


def tables(lines: list[Line]) -> str:
    """Markdown: a table for each bound, then the largest errors and the counts."""
    lines = latest(lines)
    parts = []
    codecs = list(dict.fromkeys(series(line) for line in lines))
    own = [codec for codec in codecs if codec.startswith(OURS)]
    for share in sorted({line["share"] for line in lines}, reverse=True):
        rows, relations, speeds = [], [], []
        for field in dict.fromkeys(line["field"] for line in lines):
            found = {series(x): x for x in lines if (x["field"], x["share"]) == (field, share)}
            sizes = {codec: line["bytes"] for codec, line in found.items() if "bytes" in line}
            rivals = [size for codec, size in sizes.items() if codec not in own]
            cells = [str(sizes.get(codec, "-")) for codec in codecs]
            relation = sizes[own[0]] / min(rivals) if rivals and own[0] in sizes else math.nan
            relations.append(relation)
            ours = found[own[0]]
            speeds.append(ours["encode_cpu"] / million(ours) if "encode_cpu" in ours else math.nan)
            ratio = f"{nbytes(ours) / ours['bytes']:.1f}" if "bytes" in ours else "-"
            rows.append((field, *cells, ratio, f"{relation:.3f}", f"{speeds[-1]:.2f}"))
        rows.append(("**median**", *[""] * (len(codecs) + 1), f"**{statistics.median(relations):.3f}**",
                     f"**{statistics.median(speeds):.2f}**"))  # fmt: skip
        columns = (
            "field",
            *(f"{codec}, bytes" for codec in codecs),
            "ratio",
            "of the best peer",
            "encode, CPU s/M",
        )
        parts.append(f"### {share:g} of the range\n\n" + markdown(columns, rows))
    parts.append("### Largest errors\n\n" + largest_errors(lines))
    return "\n\n".join(parts) + "\n"


def nbytes(line: Line) -> int:
    """Bytes of a line's field."""
    return math.prod(line["shape"]) * np.dtype(line["dtype"]).itemsize


def largest_errors(lines: list[Line]) -> str:
    """Markdown: for each codec its largest error over the bound, and how many streams are beyond."""
    rows = []
    for codec in dict.fromkeys(series(line) for line in lines):
        each = [line for line in lines if series(line) == codec and "largest" in line]
        beyond = [line for line in each if line["largest"] > line["bound"]]
        worst = max((line["largest"] / line["bound"] for line in each), default=math.nan)
        values = sum(line["values"] for line in each)
        rows.append((codec, str(len(each)), str(values), f"{worst:.7f}", str(len(beyond))))
    columns = ["codec", "streams", "values checked", "largest error over the bound", "streams beyond"]
    return markdown(columns, rows)


def main(words: list[str] | None = None) -> None:
    """Measure, print the tables, write them beside the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--bounds", type=float, nargs="+", default=list(BOUNDS), help="over the range")
    parser.add_argument("--efforts", nargs="+", default=["fast"], choices=EFFORTS)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a measurement, at most")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/bounded.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the tables anew")
    arguments = parser.parse_args(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    arguments.results.with_suffix(".md").write_text(tables(records.lines))
    print(tables(records.lines))


if __name__ == "__main__":
    main()
