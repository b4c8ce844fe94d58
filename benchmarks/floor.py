"""Bytes of values rounded as far as a bound allows, without a fit, beside rounded values through zstd.

``python -m benchmarks.floor [FOLDER]`` measures each field of a folder of ``.npz`` files (array ``data``), by
default the package's simulated fields, its first million voxels or so: at absolute bounds of so many times
the range, at relative ones, and without loss. Of each codec: bytes, whether every value keeps the bound, CPU
seconds to encode and to decode, on one thread.

"zstd" is the smallest of what comes of Blosc with zstd and either shuffle, and of byte planes through zstd:
of values with as few mantissa bits as a relative bound allows, of a grid's integers, or of the values as they
are. Of peers the valid values alone count, without their places. pcodec has the same values, where it is
installed; "deflate" is how values were stored without loss before there were integers.

A measurement is a line in the file of results; what is there already is not measured again. Tables (Markdown)
are made from the lines at the end, or by ``--report`` at any time.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np
from numcodecs import BitRound, Blosc, Shuffle, Zstd, blosc

from benchmarks.fields import find_fields
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
from moec_zarr.bitstream.values import write_lossless
from moec_zarr.codec.decode import decode
from moec_zarr.codec.lossless import encode_rounded
from moec_zarr.codec.prepare import prepare
from moec_zarr.config import config

TARGETS = (
    ("absolute", 1e-2), ("absolute", 1e-3), ("absolute", 1e-4),
    ("relative", 5e-2), ("relative", 1e-2), ("relative", 1e-3), ("exact", 0.0),
)  # fmt: skip
VOXELS = 1_200_000
LEVEL = 9  # of zstd
OURS = "moec_zarr"
MILLION = 1e6


def part_of(array: Array) -> Array:
    """The first voxels, about so many, along the first axis."""
    steps = max(int(VOXELS * len(array) / array.size), 1) if array.size > VOXELS else len(array)
    return np.ascontiguousarray(array[:steps])


def bounds(array: Array, kind: str, share: float) -> tuple[float, float]:
    """The absolute and the relative bound."""
    valid = array[np.isfinite(array)]
    span = float(valid.max()) - float(valid.min())
    return (share * span if kind == "absolute" else 0.0), (share if kind == "relative" else 0.0)


def measure_ours(array: Array, kind: str, share: float) -> Line:
    """The stream without a fit."""
    absolute, relative = bounds(array, kind, share)
    with config.set(cache=0):
        begun = time.process_time()
        stream = encode_rounded(prepare(array, None, None), absolute, relative)
        encoded = time.process_time()
        assert stream is not None
        decoded = decode(stream)
        done = time.process_time()
    valid = np.isfinite(array)
    x, y = array[valid].astype("f8"), decoded[valid].astype("f8")
    kept = bool((np.abs(x - y) <= np.maximum(absolute, relative * np.abs(x))).all())
    same = bool((np.isfinite(decoded) == valid).all())
    return {
        "bytes": len(stream), "kept": kept and same,
        "encode_cpu": encoded - begun, "decode_cpu": done - encoded,
    }  # fmt: skip


def rounded_ways(array: Array, kind: str, share: float) -> Iterator[Array]:
    """What a user of numcodecs would put through zstd: the valid values, rounded by hand."""
    absolute, relative = bounds(array, kind, share)
    values = array[np.isfinite(array)]
    if relative and values.dtype.kind == "f":
        bits = max(math.ceil(-math.log2(relative)) - 1, 0)
        yield BitRound(keepbits=bits).decode(BitRound(keepbits=bits).encode(values)).view(values.dtype)
    elif absolute and values.dtype.kind == "f":
        grid = np.rint(values.astype("f8") / (2 * absolute)).astype(np.int64)
        yield grid.astype(np.min_scalar_type(-int(np.abs(grid).max()) - 1))
    elif math.floor(absolute):
        step = 2 * math.floor(absolute) + 1
        yield np.floor_divide(values.astype(np.int64) + step // 2, step).astype(values.dtype)
    else:
        yield values


def measure_zstd(array: Array, kind: str, share: float) -> Line:
    """The smallest of what numcodecs makes."""
    blosc.use_threads = False
    shuffles = [Blosc("zstd", clevel=5, shuffle=each) for each in (Blosc.SHUFFLE, Blosc.BITSHUFFLE)]
    begun = time.process_time()
    sizes = []
    for values in rounded_ways(array, kind, share):
        sizes += [len(each.encode(values)) for each in shuffles]
        planes = Shuffle(values.itemsize).encode(values)
        sizes.append(len(Zstd(level=LEVEL).encode(planes)))
    return {"bytes": min(sizes), "encode_cpu": (time.process_time() - begun) / 3}


def measure_pcodec(array: Array, kind: str, share: float) -> Line:
    """The smallest of what pcodec makes at its usual level."""
    from pcodec import ChunkConfig, standalone

    begun = time.process_time()
    sizes = []
    for values in rounded_ways(array, kind, share):
        own = values.astype(np.int16 if values.dtype == np.int8 else values.dtype)
        own = own.astype(np.uint16) if own.dtype == np.uint8 else own
        sizes.append(len(standalone.simple_compress(own, ChunkConfig())))
    return {"bytes": min(sizes), "encode_cpu": time.process_time() - begun}


def measure_deflate(array: Array, kind: str, share: float) -> Line:
    """The values as they are, in the section that held them before."""
    begun = time.process_time()
    return {"bytes": len(write_lossless(array)), "encode_cpu": time.process_time() - begun}


def codecs() -> dict[str, tuple[Callable[[Array, str, float], Line], str | None]]:
    """Each codec's measurement and version."""
    found = {
        OURS: (measure_ours, codec_version()),
        "zstd": (measure_zstd, versions("numcodecs")["numcodecs"]),
    }
    if find_spec("pcodec"):
        found["pcodec"] = measure_pcodec, versions("pcodec")["pcodec"]
    found["deflate"] = measure_deflate, versions()["python"]
    return found


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet, one after the other."""
    here, used = origin(), codecs()
    for dtype in "f4", "u1":  # compiles, where that was not done before
        measure_ours(np.random.default_rng(0).integers(0, 9, (64, 64, 32)).astype(dtype), "exact", 0.0)
    for field, load in find_fields(arguments.folder, arguments.fields).items():
        array = part_of(load())
        place: Line = {"benchmark": "floor", "field": field, "shape": array.shape, "dtype": array.dtype.str}
        for kind, share in TARGETS:
            if kind == "relative" and array.dtype.kind != "f":
                continue
            for name, (function, version) in used.items():
                line = place | {
                    "codec": name,
                    "settings": {"bound": kind},
                    "share": share,
                    "version": version,
                }
                if line in records or (name == "deflate" and kind != "exact"):
                    continue
                records.add(line | function(array, kind, share) | {"load": os.getloadavg()[0]} | here)
                print(f"{field} {kind} {share:g} {name}: {records.lines[-1]['bytes']} bytes", flush=True)


def tables(lines: list[Line]) -> str:
    """A table for each target, and one of what all of them have in common."""
    lines = latest(lines)
    names = [name for name in (OURS, "zstd", "pcodec", "deflate") if any(x["codec"] == name for x in lines)]
    text, summary = [], []
    for kind, share in TARGETS:
        here = [x for x in lines if (x["settings"]["bound"], x["share"]) == (kind, share)]
        found: dict[str, dict[str, Line]] = {}
        for line in here:
            found.setdefault(line["field"], {})[line["codec"]] = line
        rows, best, others, encode, decoded = [], [], [], [], []
        for field, of in found.items():
            ours, voxels = of[OURS], math.prod(of[OURS]["shape"]) / MILLION
            best.append(ours["bytes"] / of["zstd"]["bytes"])
            if "pcodec" in of:
                others.append(ours["bytes"] / of["pcodec"]["bytes"])
            encode.append(ours["encode_cpu"] / voxels)
            decoded.append(ours["decode_cpu"] / voxels)
            sizes = [f"{of[name]['bytes']:,}" if name in of else "" for name in names]
            kept = "yes" if ours["kept"] else "NO"
            rows.append([field, *sizes, f"{best[-1]:.3f}", f"{encode[-1]:.2f}", f"{decoded[-1]:.2f}", kept])
        if not rows:
            continue
        title = "without loss" if kind == "exact" else f"{kind} bound of {share:g}"
        header = ["field", *names, "of zstd", "encode s/M", "decode s/M", "kept"]
        text.append(f"## {title}\n\n{markdown(header, rows)}")
        summary.append([
            title, f"{statistics.median(best):.3f}", f"{min(best):.3f}", f"{max(best):.3f}",
            f"{statistics.median(others):.3f}" if others else "", f"{max(others):.3f}" if others else "",
            f"{statistics.median(encode):.2f}", f"{max(encode):.2f}", f"{max(decoded):.2f}",
        ])  # fmt: skip
    head = [
        "bound", "of zstd, median", "least", "most", "of pcodec, median", "most",
        "encode s/M, median", "most", "decode s/M, most",
    ]  # fmt: skip
    return "\n".join(["## All fields\n", markdown(head, summary), *text])


def main(words: list[str] | None = None) -> None:
    """Measure, print the tables, write them beside the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/floor.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the tables anew")
    arguments = parser.parse_args(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    arguments.results.with_suffix(".md").write_text(tables(records.lines))
    print(tables(records.lines))


if __name__ == "__main__":
    main()
