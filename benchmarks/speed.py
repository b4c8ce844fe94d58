"""Time, memory and quality of this codec with each effort, and the times of partial reads.

``python -m benchmarks.speed [FOLDER]`` measures each field of a folder of ``.npz`` files (array ``data``), by
default the package's simulated fields, and a phantom of thin shells: CPU and wall seconds a million voxels to
encode and to decode, memory, PSNR at data-range peak, for each effort; and reads of parts of a chunk, by
itself and in a zarr array with and without shards. One thread; each measurement has a process of its own, in
which a small chunk has compiled what there is to compile. ``benchmarks.rd`` compares with other codecs.

A measurement is a line in the file of results; what is there already is not measured again, so that a run
that was ended goes on where it stopped. What matters most comes first. Tables (Markdown) are made from the
lines at the end, or by ``--report`` at any time.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np
import zarr

from benchmarks.fields import find_fields, shells
from benchmarks.isolate import LimitError, isolated
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
    quality,
    series,
)
from moec_zarr import MoECSerializer, inspect
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.settings import EFFORTS, Settings

PHANTOM = "phantom_shells"
RATIOS = (1000.0, 100.0, 30.0, 10.0)
READ_RATIOS = (1000.0, 100.0)  # at which parts of a chunk are read
STORE_RATIO = 100.0  # at which they are read from stores
COLD, WARM = 3, 5  # reads, of which the median counts
ALLOWED_SHARE, ALLOWED_MS = 0.03, 5.0  # of a full decode, and beside it, for a hundredth of the voxels
GIGABYTES = 12.0
LARGE = 5_000_000  # voxels of a field that is measured after the others


# ------------------------------------------------------------------------------- one process


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its CPU seconds and its wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def with_peak(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the most memory that it held beyond what was held before, in MB (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # else it would find room that an earlier call has freed
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    result = function()
    return result, _status("VmHWM") - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def warm(effort: str) -> None:
    """Compile and import what a fit needs, on a chunk of another shape."""
    small = shells((20, 24, 28))
    small[:4, :8] = np.nan
    decode(encode(small, Settings(ratio=60, effort="fast")))
    if effort != "fast":
        encode(small, Settings(ratio=60, effort="fast", experts=1))


def measure_ours(array: Array, ratio: float, effort: str, with_reads: bool) -> Line:
    """This codec, in a process that is warm."""
    with config.set(cache=0, progress=False):
        warm(effort)
        (stream, cpu, wall), peak = with_peak(
            lambda: timed(lambda: encode(array, Settings(ratio=ratio, effort=effort)))  # type: ignore[arg-type]
        )
        line: Line = {"bytes": len(stream), "kind": inspect(stream).kind}
        line |= {"encode_cpu": cpu, "encode_wall": wall, "encode_megabytes": peak}
        decode(stream)
        decoded, peak = with_peak(lambda: decode(stream))
        line |= {"decode_megabytes": peak - decoded.nbytes / 1e6} | quality(array, decoded)
        del decoded
        _, line["decode_cpu"], line["decode_wall"] = timed(lambda: decode(stream))
        with config.set(compiled=False):
            _, line["decode_cpu_numpy"], _ = timed(lambda: decode(stream))
        if with_reads:
            line["reads"] = measure_reads(array.shape, lambda selection: decode(stream, selection))
    return line


def selections(shape: tuple[int, ...]) -> dict[str, Any]:
    """Parts of a chunk that people read; the whole one first."""
    middle = tuple(n // 2 for n in shape)
    return {
        "whole": (slice(None),) * len(shape),
        "first index": (middle[0],),
        "last index": (..., middle[-1]),
        "series at a point": (slice(None), *middle[1:]),
        "one voxel": middle,
        "every 8th voxel": (slice(None, None, 8),) * len(shape),
    }


def measure_reads(shape: tuple[int, ...], read: Callable[[Any], Any]) -> list[Line]:
    """CPU milliseconds of parts of a chunk, cold and warm."""
    lines = []
    for name, selection in selections(shape).items():
        line: Line = {"read": name, "voxels": int(np.asarray(read(selection)).size)}
        for state, size, times in (("cold", 0, COLD), ("warm", 1 << 30, WARM)):
            with config.set(cache=size):
                read(selection)
                seconds = [timed(lambda s=selection: read(s))[1] for _ in range(times)]
                line[state] = 1e3 * statistics.median(seconds)
        lines.append(line)
    return lines


def measure_stores(array: Array, ratio: float, effort: str) -> Line:
    """Reads of a zarr array of format 3 of two chunks, which stand alone or in one shard."""
    with config.set(progress=False):
        warm(effort)
        chunks = (-(-array.shape[0] // 2), *array.shape[1:])
        whole = (2 * chunks[0], *array.shape[1:])
        results = {}
        for name, shards in (("chunks", None), ("shards", whole)):
            stored = zarr.create_array(
                zarr.storage.MemoryStore(),
                shape=array.shape, dtype=array.dtype, chunks=chunks, shards=shards,
                serializer=MoECSerializer(ratio=ratio, effort=effort), compressors=None, filters=None,
            )  # fmt: skip
            stored[...] = array
            results[name] = measure_reads(array.shape, lambda selection, stored=stored: stored[selection])
    return {"stores": results}


# --------------------------------------------------------------------------------------- run


def jobs(arguments: argparse.Namespace, loaders: dict[str, Any]) -> Iterator[tuple[Line, Callable[..., Any]]]:
    """What identifies each measurement, and the call that makes it; what matters most comes first.

    Small fields come before large ones.
    """
    fields = {name: (load().shape, load().dtype.str, load().nbytes) for name, load in loaders.items()}
    names = sorted(fields, key=lambda name: (fields[name][2], name))
    ours = codec_version()

    def line(benchmark: str, name: str, ratio: float, effort: str) -> Line:
        shape, dtype, _ = fields[name]
        place = {"benchmark": benchmark, "field": name, "shape": shape, "dtype": dtype, "ratio": ratio}
        return place | {"codec": OURS, "settings": {"effort": effort}, "version": ours}

    def own(effort: str, ratios: Any, some: list[str]) -> Iterator[tuple[Line, Callable[..., Any]]]:
        for ratio in ratios if effort in arguments.efforts else ():
            for name in some:
                with_reads = ratio in READ_RATIOS and fields[name][2] < 2e7
                yield (
                    line("speed", name, ratio, effort),
                    lambda n=name, r=ratio, w=with_reads: (measure_ours, loaders[n](), r, effort, w),
                )

    def stores(effort: str, ratio: float, some: list[str]) -> Iterator[tuple[Line, Callable[..., Any]]]:
        for name in some if effort in arguments.efforts else ():
            yield (
                line("speed-stores", name, ratio, effort),
                lambda n=name: (measure_stores, loaders[n](), ratio, effort),
            )

    highest, lower = arguments.ratios[:1], arguments.ratios[1:]
    small = [name for name in names if math.prod(fields[name][0]) < LARGE]
    large = [name for name in names if name not in small]
    yield from own("fast", arguments.ratios, small)
    yield from stores("fast", STORE_RATIO, names[:3])
    yield from own("fast", arguments.ratios, large)
    yield from own("balanced", highest, small)
    yield from stores("balanced", highest[0], [name for name in names if name == PHANTOM])
    yield from own("best", highest, small[:3])
    yield from own("balanced", highest, large)
    yield from own("balanced", lower, names)
    yield from own("best", highest, names[3:])


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet, one after the other."""
    loaders: dict[str, Any] = dict(find_fields(arguments.folder, arguments.fields))
    if not arguments.fields:
        loaders[PHANTOM] = shells
    begun, here = time.monotonic(), origin()
    for line, call in jobs(arguments, loaders):
        if line in records:
            continue
        if time.monotonic() - begun > 60 * arguments.minutes:
            print(f"{arguments.minutes:g} minutes are over; --minutes more to go on", flush=True)
            return
        line["load"] = os.getloadavg()[0]
        try:
            line |= isolated(*call(), seconds=arguments.timeout, gigabytes=GIGABYTES)
        except (LimitError, RuntimeError) as error:
            line["reason"] = str(error)
        records.add(line | here)
        print(describe(line), flush=True)


# ------------------------------------------------------------------------------------ report


def describe(line: Line) -> str:
    """A line of progress."""
    head = f"{line['field']} {line['ratio']:g}x {series(line)}"
    if "reason" in line:
        return f"{head}: {line['reason']}"
    if "psnr" not in line:
        return f"{head}: reads of stores"
    encoding, decoding = line["encode_cpu"] / million(line), million(line) / line["decode_cpu"]
    return f"{head}: {line['psnr']:.2f} dB, {encoding:.3f} s/M to encode, {decoding:.1f} M/s to decode"


_COLUMNS = (
    "field", "codec", "PSNR dB", "bytes", "encode, CPU s/M", "wall s/M", "decode, M/s", "NumPy alone, M/s",
    "encode, MB", "decode, MB",
)  # fmt: skip


def tables(lines: list[Line]) -> str:
    """Markdown: a table for each ratio, then the reads."""
    lines = latest(lines)
    own = [line for line in lines if line["benchmark"] == "speed" and line.get("psnr") is not None]
    parts = []
    for ratio in sorted({line["ratio"] for line in own}, reverse=True):
        rows = [_row(line) for line in sorted(own, key=_order) if line["ratio"] == ratio]
        parts.append(f"### {ratio:g}x\n\n" + markdown(_COLUMNS, rows))
    missing = [line for line in lines if "reason" in line]
    if missing:
        rows = [(line["field"], f"{line['ratio']:g}", series(line), line["reason"]) for line in missing]
        parts.append("### Not reached\n\n" + markdown(("field", "ratio", "codec", "reason"), rows))
    if reads := _reads(lines):
        parts.append("### Reads\n\n" + reads)
    return "\n".join(parts)


def _order(line: Line) -> tuple[str, int]:
    return line["field"], EFFORTS.index(line["settings"]["effort"])


def _row(line: Line) -> list[str]:
    def cell(name: str, form: str, by: float = 1.0) -> str:
        return format(line[name] / by, form) if name in line else ""

    size = million(line)
    plain = f"{size / line['decode_cpu_numpy']:.1f}" if "decode_cpu_numpy" in line else ""
    return [
        line["field"], series(line), f"{line['psnr']:.2f}", str(line["bytes"]),
        cell("encode_cpu", ".3f", size), cell("encode_wall", ".3f", size), f"{size / line['decode_cpu']:.1f}",
        plain, cell("encode_megabytes", ".0f"), cell("decode_megabytes", ".0f"),
    ]  # fmt: skip


def _reads(lines: list[Line]) -> str:
    """For each kind of read the median over fields, and the slowest warm one beside what is allowed."""
    found: dict[tuple[str, ...], list[tuple[float, float, float, float]]] = {}
    for line in lines:
        places = dict(line.get("stores", {}))
        if "reads" in line:
            places["chunk"] = line["reads"]
        for place, reads in places.items():
            whole = reads[0]
            for read in reads:
                percent = 100 * read["voxels"] / whole["voxels"]
                allowed = max(1.0, percent) * (ALLOWED_SHARE * whole["cold"] + ALLOWED_MS)
                key = f"{line['ratio']:g}", series(line), place, read["read"]
                figures = read["cold"], read["warm"], read["warm"] / allowed, percent
                found.setdefault(key, []).append(figures)
    rows = []
    for key, each in found.items():
        cold, warm_, share, percent = zip(*each, strict=True)
        rows.append((
            *key, str(len(each)), f"{statistics.median(percent):.3g}", f"{statistics.median(cold):.1f}",
            f"{statistics.median(warm_):.1f}", f"{max(share):.2f}",
        ))  # fmt: skip
    header = (
        "ratio", "codec", "from", "read", "fields", "% of voxels", "cold, ms", "warm, ms",
        "warm over allowed, most",
    )  # fmt: skip
    return markdown(header, rows, text_columns=4) if rows else ""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=(), help="names of some; the phantom is left out then")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS, help="best at the first one alone")
    parser.add_argument("--efforts", nargs="*", default=EFFORTS, choices=EFFORTS)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a measurement, at most")
    parser.add_argument("--minutes", type=float, default=600.0, help="after which no other one is begun")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/speed.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the tables anew")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure, then make the tables."""
    arguments = parse(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    arguments.results.with_suffix(".md").write_text(tables(records.lines))
    print(f"{arguments.results.with_suffix('.md')} written", flush=True)


if __name__ == "__main__":
    main()
