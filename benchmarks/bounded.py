"""Bytes at a bound on the absolute error, beside SPERR, SZ3 and ZFP in their bounded modes.

``python -m benchmarks.bounded [FOLDER]`` measures each field of a folder of ``.npz`` files (array ``data``),
by default the package's simulated fields, at bounds of so many times the range of the valid values. Of each
codec: bytes, the largest error that its decoded array really has, PSNR, CPU seconds to encode and to decode,
on one thread, each in a process of its own. A peer is used in every layout of the axes that it takes, and
the smallest stream counts. NaN is filled in for peers and its mask costs them nothing. Of integers a peer
gets the widest bound with which rounding leads back to the bound asked for. Lines go to a JSON file, tables
beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402

from benchmarks.fields import find_fields  # noqa: E402
from benchmarks.isolate import LimitError, isolated  # noqa: E402
from benchmarks.peers import UnsuitableError, bounded_forms, filled, restored  # noqa: E402
from benchmarks.records import Array, Line, codec_version, machine, markdown, versions  # noqa: E402
from benchmarks.speed import warm  # noqa: E402
from moec_zarr.codec.decode import decode  # noqa: E402
from moec_zarr.codec.encode import encode  # noqa: E402
from moec_zarr.config import config  # noqa: E402
from moec_zarr.quality import absolute_error, measure  # noqa: E402
from moec_zarr.settings import Settings  # noqa: E402

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


def measure_peer(peer: str, array: Array, bound: float) -> Line:
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


def run(arguments: argparse.Namespace, path: Path) -> list[Line]:
    """All measurements, one after the other; lines are on disk as they are made."""
    lines: list[Line] = []
    packages = versions(*(f"numcodecs-wasm-{peer.lower()}" for peer in arguments.peers))
    made = {"version": codec_version(), "versions": packages, "machine": machine()}
    with path.open("w") as file:
        for field, load in find_fields(arguments.folder, arguments.fields).items():
            array = load()
            valid = np.isfinite(array)
            span = float(array[valid].max()) - float(array[valid].min())
            for share in arguments.bounds:
                calls: dict[str, tuple[Any, ...]] = {
                    f"moec_zarr, {effort}": (measure_ours, array, share * span, effort)
                    for effort in arguments.efforts
                }
                calls |= {peer: (measure_peer, peer, array, share * span) for peer in arguments.peers}
                for codec, call in calls.items():
                    line: Line = {"field": field, "share": share, "bound": share * span, "codec": codec}
                    line |= {"million": array.size / 1e6, "nbytes": array.nbytes, "load": os.getloadavg()[0]}
                    line |= made
                    try:
                        line |= isolated(*call, seconds=arguments.timeout, gigabytes=12)
                    except (UnsuitableError, LimitError, RuntimeError) as error:
                        line["reason"] = str(error)
                    lines.append(line)
                    file.write(json.dumps(line, default=str) + "\n")
                    file.flush()
                    print(describe(line), flush=True)
    return lines


def describe(line: Line) -> str:
    """A line of progress."""
    head = f"{line['field']} {line['share']:g} {line['codec']}"
    if "reason" in line:
        return f"{head}: {line['reason']}"
    share = line["largest"] / line["bound"]
    speed = line["encode_cpu"] / line["million"]
    return f"{head}: {line['bytes']} bytes, {share:.6f} of the bound, {speed:.2f} s/M to encode"


def summary(lines: list[Line]) -> str:
    """A row for each bound: our bytes over those of the best peer, medians over fields, and the times."""
    rows = []
    for share in sorted({line["share"] for line in lines}, reverse=True):
        relations, ours, theirs = [], [], []
        for field in dict.fromkeys(line["field"] for line in lines):
            found = [x for x in lines if (x["field"], x["share"]) == (field, share) and "bytes" in x]
            own = [line for line in found if line["codec"].startswith("moec_zarr")]
            peers = [line for line in found if line not in own]
            if not own or not peers:
                continue
            best = min(peers, key=lambda line: line["bytes"])
            relations.append(own[0]["bytes"] / best["bytes"])
            ours.append(own[0]["encode_cpu"] / own[0]["million"])
            theirs.append(best["encode_cpu"] / best["million"])
        if relations:
            rows.append((
                f"{share:g}", str(len(relations)), f"{statistics.median(relations):.2f}",
                f"{max(relations):.2f}", f"{statistics.median(ours):.2f}", f"{statistics.median(theirs):.2f}",
            ))  # fmt: skip
    header = (
        "bound over the range", "fields", "bytes over the best peer's, median", "most", "encode, CPU s/M",
        "that peer",
    )  # fmt: skip
    return markdown(header, rows, text_columns=0)


def tables(lines: list[Line]) -> str:
    """Markdown: a table for each bound, then the largest errors and the counts."""
    parts = []
    codecs = list(dict.fromkeys(line["codec"] for line in lines))
    own = [codec for codec in codecs if codec.startswith("moec_zarr")]
    for share in sorted({line["share"] for line in lines}, reverse=True):
        rows, relations, speeds = [], [], []
        for field in dict.fromkeys(line["field"] for line in lines):
            found = {x["codec"]: x for x in lines if (x["field"], x["share"]) == (field, share)}
            sizes = {codec: line["bytes"] for codec, line in found.items() if "bytes" in line}
            rivals = [size for codec, size in sizes.items() if codec not in own]
            cells = [str(sizes.get(codec, "-")) for codec in codecs]
            relation = sizes[own[0]] / min(rivals) if rivals and own[0] in sizes else math.nan
            relations.append(relation)
            ours = found[own[0]]
            speeds.append(ours["encode_cpu"] / ours["million"] if "encode_cpu" in ours else math.nan)
            ratio = f"{ours['nbytes'] / ours['bytes']:.1f}" if "bytes" in ours else "-"
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
    rows = []
    for codec in codecs:
        each = [line for line in lines if line["codec"] == codec and "largest" in line]
        beyond = [line for line in each if line["largest"] > line["bound"]]
        worst = max((line["largest"] / line["bound"] for line in each), default=math.nan)
        values = sum(line["values"] for line in each)
        rows.append((codec, str(len(each)), str(values), f"{worst:.7f}", str(len(beyond))))
    columns = ["codec", "streams", "values checked", "largest error over the bound", "streams beyond"]
    parts.append("### Largest errors\n\n" + markdown(columns, rows))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, print the tables, write them beside the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--bounds", type=float, nargs="+", default=list(BOUNDS), help="over the range")
    parser.add_argument("--efforts", nargs="+", default=["fast"], choices=("fast", "balanced", "best"))
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a measurement, at most")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bounded"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    lines = run(arguments, arguments.out.with_suffix(".jsonl"))
    arguments.out.with_suffix(".md").write_text(tables(lines))
    print(tables(lines))


if __name__ == "__main__":
    main()
