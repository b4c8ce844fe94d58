"""Time, memory and quality of this codec and of others, at the same bytes in the same run.

``python -m benchmarks.speed [FOLDER]`` measures each field of a folder of ``.npz`` files (array ``data``), by
default the package's simulated fields, and a phantom of thin shells: CPU and wall seconds a million voxels to
encode and to decode, memory, PSNR at data-range peak, for each effort and each peer; and reads of parts of a
chunk, by itself and in a zarr array with and without shards. One thread; each measurement has a process of
its own, in which a small chunk has compiled what there is to compile.

A measurement is a line in the file of results; what is there already is not measured again, so that a run
that was ended goes on where it stopped. What matters most comes first. Tables (Markdown) and a plot are made
from the lines at the end, or by ``--report`` at any time.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np
import zarr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.fields import find_fields, shells
from benchmarks.isolate import LimitError, isolated
from benchmarks.peers import PEERS, UnreachableError, UnsuitableError, measure
from benchmarks.records import (
    Array,
    Line,
    Records,
    codec_version,
    latest,
    markdown,
    origin,
    quality,
    versions,
)
from moec_zarr import MoECSerializer, inspect
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.settings import EFFORTS, Settings

OURS, PHANTOM = "moec_zarr", "phantom_shells"
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


def measure_peer(peer: str, array: Array, budget: int) -> Line:
    """A peer at so many bytes; its search for them is not counted."""
    found, decoded = measure(peer, array, budget)
    times = {"encode_cpu": found["encode_cpu_seconds"], "encode_wall": found["encode_seconds"]}
    times |= {"decode_cpu": found["decode_cpu_seconds"], "decode_wall": found["decode_seconds"]}
    return {"bytes": found["bytes"], "found": found["found"]} | times | quality(array, decoded)


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

    def line(benchmark: str, name: str, codec: str, ratio: float, settings: Line, version: Any) -> Line:
        shape, dtype, _ = fields[name]
        place = {"benchmark": benchmark, "field": name, "shape": shape, "dtype": dtype, "ratio": ratio}
        return place | {"codec": codec, "settings": settings, "version": version}

    def own(effort: str, ratios: Any, some: list[str]) -> Iterator[tuple[Line, Callable[..., Any]]]:
        for ratio in ratios if effort in arguments.efforts else ():
            for name in some:
                with_reads = ratio in READ_RATIOS and fields[name][2] < 2e7
                yield (
                    line("speed", name, OURS, ratio, {"effort": effort}, ours),
                    lambda n=name, r=ratio, w=with_reads: (measure_ours, loaders[n](), r, effort, w),
                )

    def stores(effort: str, ratio: float, some: list[str]) -> Iterator[tuple[Line, Callable[..., Any]]]:
        for name in some if effort in arguments.efforts else ():
            yield (
                line("speed-stores", name, OURS, ratio, {"effort": effort}, ours),
                lambda n=name: (measure_stores, loaders[n](), ratio, effort),
            )

    def peers(ratios: Any, some: list[str]) -> Iterator[tuple[Line, Callable[..., Any]]]:
        for ratio in ratios:
            for peer in arguments.peers:
                version = versions(PEERS[peer].package)[PEERS[peer].package]
                for name in some:
                    budget = int(fields[name][2] / ratio)
                    yield (
                        line("speed", name, peer, ratio, {}, version),
                        lambda p=peer, n=name, b=budget: (measure_peer, p, loaders[n](), b),
                    )

    highest, lower = arguments.ratios[:1], arguments.ratios[1:]
    small = [name for name in names if math.prod(fields[name][0]) < LARGE]
    large = [name for name in names if name not in small]
    yield from own("fast", arguments.ratios, small)
    yield from stores("fast", STORE_RATIO, names[:3])
    yield from own("fast", arguments.ratios, large)
    yield from peers(highest, small)
    yield from own("balanced", highest, small)
    yield from stores("balanced", highest[0], [name for name in names if name == PHANTOM])
    yield from peers(lower, small)
    yield from own("best", highest, small[:3])
    yield from peers(highest, large)
    yield from own("balanced", highest, large)
    yield from peers(lower, large)
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
        except (UnreachableError, UnsuitableError, LimitError, RuntimeError) as error:
            line["reason"] = str(error)
        records.add(line | here)
        print(describe(line), flush=True)


# ------------------------------------------------------------------------------------ report


def series(line: Line) -> str:
    """The codec, with its effort."""
    effort = line["settings"].get("effort")
    return f'{line["codec"]}, "{effort}"' if effort else str(line["codec"])


def million(line: Line) -> float:
    """Voxels of a line's field."""
    return float(np.prod(line["shape"])) / 1e6


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
    """Markdown: a summary, a table for each ratio, then the reads."""
    lines = latest(lines)
    own = [line for line in lines if line["benchmark"] == "speed" and line.get("psnr") is not None]
    parts = ["### Medians\n\n" + summary(own)]
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


def _order(line: Line) -> tuple[str, bool, str, int]:
    effort = line["settings"].get("effort")
    return line["field"], line["codec"] != OURS, line["codec"], EFFORTS.index(effort) if effort else 0


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


def summary(own: list[Line]) -> str:
    """Medians and worst fields of each codec at each ratio; the phantom is not counted."""
    rows = []
    for ratio in sorted({line["ratio"] for line in own}, reverse=True):
        at_ratio = [line for line in own if line["ratio"] == ratio and line["field"] != PHANTOM]
        peers: dict[str, float] = {}
        for line in at_ratio:
            if line["codec"] != OURS:
                peers[line["field"]] = max(peers.get(line["field"], 0.0), line["psnr"])
        for name in sorted(
            {series(line) for line in at_ratio}, key=lambda name: (not name.startswith(OURS), name)
        ):
            each = [line for line in at_ratio if series(line) == name]
            encoding = [line["encode_cpu"] / million(line) for line in each]
            decoding = [million(line) / line["decode_cpu"] for line in each]
            gains = [line["psnr"] - peers[line["field"]] for line in each if line["field"] in peers]
            lead = (
                f"{statistics.median(gains):+.2f}, {min(gains):+.2f}"
                if gains and name.startswith(OURS)
                else ""
            )
            rows.append((
                f"{ratio:g}", name, str(len(each)),
                f"{statistics.median(encoding):.3f}", f"{max(encoding):.3f}",
                f"{statistics.median(decoding):.1f}", f"{min(decoding):.1f}", lead,
            ))  # fmt: skip
    header = (
        "ratio", "codec", "fields", "encode, CPU s/M, median", "worst", "decode, M/s, median", "worst",
        "dB above the best peer: median, least",
    )  # fmt: skip
    return markdown(header, rows, text_columns=2)


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


def plot(lines: list[Line], path: Path) -> None:
    """PSNR against encode time, a panel for each ratio."""
    own = [line for line in latest(lines) if line["benchmark"] == "speed" and line.get("psnr") is not None]
    ratios = sorted({line["ratio"] for line in own}, reverse=True)
    if not ratios:
        return
    figure = Figure(figsize=(5 * len(ratios), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, ratio in zip(figure.subplots(1, len(ratios), squeeze=False)[0], ratios, strict=True):
        at_ratio = [line for line in own if line["ratio"] == ratio]
        for name in dict.fromkeys(series(line) for line in sorted(at_ratio, key=_order)):
            each = [line for line in at_ratio if series(line) == name]
            x = [line["encode_cpu"] / million(line) for line in each]
            axes.scatter(x, [line["psnr"] for line in each], s=22, label=name)
        axes.set_xscale("log")
        axes.set_xlabel("CPU seconds a million voxels to encode")
        axes.set_ylabel("PSNR at data-range peak (dB)")
        axes.set_title(f"{ratio:g}x, one point a field")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def plot_quality(lines: list[Line], path: Path, fields: Sequence[str]) -> None:
    """PSNR against the ratio, a panel for each field: effort "fast" beside the peers."""
    own = [line for line in latest(lines) if line["benchmark"] == "speed" and line.get("psnr") is not None]
    own = [line for line in own if line["codec"] != OURS or line["settings"]["effort"] == "fast"]
    fields = list(fields or dict.fromkeys(line["field"] for line in own))
    if not own:
        return
    rows = -(-len(fields) // 4)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, min(4, len(fields)), squeeze=False, sharex=True)
    for axes, field in zip(grid.flat, fields, strict=False):
        for codec in dict.fromkeys(line["codec"] for line in sorted(own, key=_order)):
            each = [line for line in own if (line["field"], line["codec"]) == (field, codec)]
            ratios, values = [line["ratio"] for line in each], [line["psnr"] for line in each]
            order = np.argsort(ratios)
            style = {"linewidth": 2.5} if codec == OURS else {"linewidth": 1.2, "linestyle": "--"}
            axes.plot(
                np.take(ratios, order), np.take(values, order), marker="o", markersize=4, label=codec, **style
            )
        axes.set_xscale("log")
        axes.set_xticks([10, 30, 100, 1000], ["10x", "30x", "100x", "1000x"])
        axes.minorticks_off()
        axes.set_title(field, fontsize="medium")
        axes.grid(alpha=0.3)
    for row in grid:
        row[0].set_ylabel("PSNR (dB)")
    grid[0][0].legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)


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
    parser.add_argument("--peers", nargs="*", default=("SPERR", "SZ3", "ZFP"), choices=list(PEERS))
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a measurement, at most")
    parser.add_argument("--minutes", type=float, default=600.0, help="after which no other one is begun")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/speed.jsonl"))
    parser.add_argument(
        "--pictured", nargs="*", default=(), help="fields in the plot of quality; by default all"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, make tables and plot anew")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure, then make the tables and the plot."""
    arguments = parse(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    arguments.results.with_suffix(".md").write_text(tables(records.lines))
    plot(records.lines, arguments.results.with_suffix(".png"))
    quality_path = arguments.results.with_name(f"{arguments.results.stem}-quality.png")
    plot_quality(records.lines, quality_path, arguments.pictured)
    print(f"{arguments.results.with_suffix('.md')} and the plot written", flush=True)


if __name__ == "__main__":
    main()
