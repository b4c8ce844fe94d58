"""PSNR and bias at ratios of fields of which a value occurs often, beside SZ3 at the same bytes.

``python -m benchmarks.zeros FOLDER`` measures each field of a folder of ``.npz`` files (array ``data``):
rain, snow, cloud, ice, land cover. *Bias* is the mean of the decoded values less that of the original ones,
over the mean magnitude of these.

SZ3 (pysz) gets the least absolute bound whose stream takes no more bytes than the ratio allows, in every
layout of the axes that it takes; the highest PSNR counts. NaN is filled in with the nearest value; its mask
is free.

A measurement is a line in the file of results; what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np

from benchmarks.fields import find_fields
from benchmarks.forms import UnreachableError, UnsuitableError, bisect, filled, layouts
from benchmarks.isolate import LimitError, isolated
from benchmarks.peers import sz3, unsz3
from benchmarks.records import (
    OURS,
    Array,
    Line,
    Records,
    codec_version,
    latest,
    markdown,
    million,
    origin,
    versions,
)
from benchmarks.relative import _warming
from benchmarks.speed import GIGABYTES, warm
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.errors import MoECError
from moec_zarr.quality import measure
from moec_zarr.settings import Settings

RATIOS = (10.0, 30.0, 100.0, 300.0, 1000.0)
DECADES = 9  # of SZ3's bounds, from the range downwards
STEPS = 20  # of the search for one
EXACT = 999.0  # dB in place of that of exact values


def measure_ours(array: Array, ratio: float) -> Line:
    """This codec, in a process that is warm."""
    warm("fast")
    with config.set(cache=0, progress=False):
        encode(np.maximum(_warming(), 1), Settings(ratio=9, effort="fast"))
        begun = time.process_time()
        stream = encode(array, Settings(ratio=ratio, effort="fast"))
        encoded = time.process_time()
        decoded = decode(stream)
    return {"bytes": len(stream), "encode_cpu": encoded - begun} | figures(array, decoded)


def measure_sz3(array: Array, ratio: float) -> Line:
    """SZ3 at as many bytes."""
    valid = np.isfinite(array)
    given, budget = filled(array, valid), int(array.nbytes / ratio)
    span = float(given.max()) - float(given.min())
    best: Line = {}
    for layout in layouts(given, 1, 4):
        try:
            x, stream = bisect(
                lambda x, layout=layout: sz3(layout.array, span * 10 ** (DECADES * (x - 1))),
                budget,
                steps=STEPS,
            )
        except UnreachableError:
            continue
        begun = time.process_time()
        stream = sz3(layout.array, span * 10 ** (DECADES * (x - 1)))
        encoded = time.process_time()
        back = layout.restore(unsz3(stream, layout.array)).reshape(array.shape)
        back = np.where(valid, back, array)
        found = {"bytes": len(stream), "encode_cpu": encoded - begun} | figures(array, back)
        if not best or found["psnr"] > best["psnr"]:
            best = found | {"form": layout.name}
    if not best:
        raise UnreachableError(f"no bound leads to {budget} bytes")
    return best


def figures(original: Array, decoded: Array) -> Line:
    """PSNR, bias in % of the mean magnitude, and the share of the zeros that are still zero."""
    valid = np.isfinite(original)
    x, y = (values[valid].astype(np.float64) for values in (original, decoded))
    zeros = x == 0
    return {
        "psnr": min(measure(x, y).psnr, EXACT),
        "bias": 100 * float((y.mean() - x.mean()) / np.abs(x).mean()),
        "zeros_kept": float((y[zeros] == 0).mean()) if zeros.any() else None,
    }


CODECS: dict[str, tuple[Callable[[Array, float], Line], str]] = {
    OURS: (measure_ours, "numpy"),
    "SZ3": (measure_sz3, "pysz"),
}


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet, one after the other."""
    here = origin()
    for field, load in find_fields(arguments.folder, arguments.fields).items():
        array = load()
        for ratio in arguments.ratios:
            for codec, (function, package) in CODECS.items():
                own = codec == OURS
                line = {
                    "benchmark": "zeros", "field": field, "shape": array.shape, "dtype": array.dtype.str,
                    "ratio": ratio, "codec": codec, "settings": {"effort": "fast"} if own else {},
                    "version": codec_version() if own else versions(package)[package],
                }  # fmt: skip
                if line in records:
                    continue
                line |= {"load": os.getloadavg()[0]}
                try:
                    line |= isolated(function, array, ratio, seconds=arguments.timeout, gigabytes=GIGABYTES)
                except (UnreachableError, UnsuitableError, LimitError, MoECError, RuntimeError) as error:
                    line["reason"] = str(error)
                records.add(line | here)
                print(f"{field} {ratio:g}x {codec}: {line.get('psnr', line.get('reason'))}", flush=True)


def tables(lines: list[Line]) -> str:
    """Markdown: PSNR with SZ3's, bias with SZ3's, and times."""
    lines = latest(lines)
    return f"### PSNR, dB (SZ3)\n\n{decibels(lines)}\n### Bias, % (SZ3)\n\n{biases(lines)}"


def decibels(lines: list[Line]) -> str:
    """Tabulate the PSNR of each field at each ratio, with SZ3's."""
    return table(lines, lambda line: "exact" if line["psnr"] >= EXACT else f"{line['psnr']:.2f}")


def biases(lines: list[Line]) -> str:
    """Tabulate the bias of each field at each ratio, with SZ3's."""
    return table(lines, lambda line: f"{line['bias']:.2f}")


def table(lines: list[Line], cell: Callable[[Line], str]) -> str:
    """Tabulate a figure of each field at each ratio, with SZ3's, and the time at the ends."""
    ratios = sorted({line["ratio"] for line in lines})
    rows = []
    for field in dict.fromkeys(line["field"] for line in lines):
        found = {(x["codec"], x["ratio"]): x for x in lines if x["field"] == field and "psnr" in x}
        cells = []
        for ratio in ratios:
            ours, peer = (found.get((codec, ratio)) for codec in CODECS)
            cells.append(f"{cell(ours) if ours else '-'} ({cell(peer) if peer else '-'})")
        own = [line for (codec, _), line in found.items() if codec == OURS]
        speeds = [line["encode_cpu"] / million(line) for line in own] or [math.nan]
        rows.append([field, *cells, f"{min(speeds):.1f} to {max(speeds):.1f}"])
    return markdown(["field", *(f"{ratio:g}x" for ratio in ratios), "encode, CPU s/M"], rows)


def main(words: list[str] | None = None) -> None:
    """Measure, print the tables, write them beside the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--ratios", nargs="*", type=float, default=RATIOS)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds of a measurement")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/zeros.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the tables anew")
    arguments = parser.parse_args(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    print(tables(records.lines))


if __name__ == "__main__":
    main()
