"""Time, memory and quality of this codec and of others, at the same bytes in the same run.

``python -m benchmarks.speed [FOLDER]`` measures each field of a folder of ``.npz`` files (array ``data``), by
default the package's simulated fields, and a phantom of thin shells: CPU seconds a million voxels to encode
and to decode, peak memory beyond the array, PSNR at data-range peak, for each effort and each peer. With
``--reads`` also reads of a part of a chunk, cold and warm. One thread; each measurement has a process of its
own, in which a small chunk has compiled what there is to compile. Lines go to a JSON file, tables and a plot
beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from benchmarks.fields import find_fields, shells  # noqa: E402
from benchmarks.isolate import LimitError, isolated  # noqa: E402
from benchmarks.peers import UnreachableError, UnsuitableError, measure  # noqa: E402
from benchmarks.records import Array, Line, machine, markdown, quality  # noqa: E402
from moec_zarr import inspect  # noqa: E402
from moec_zarr.codec.decode import decode  # noqa: E402
from moec_zarr.codec.encode import encode  # noqa: E402
from moec_zarr.config import config  # noqa: E402
from moec_zarr.settings import Settings  # noqa: E402

EFFORTS = ("fast", "balanced", "best")
PEERS = ("SPERR", "SZ3", "ZFP")


def peak_megabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call returns, its CPU seconds and its wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return result, time.process_time() - cpu, time.perf_counter() - wall


def warm(effort: str) -> None:
    """Compile and import what a fit needs, on a chunk of another shape."""
    small = shells((20, 24, 28))
    small[:4, :8] = np.nan
    decode(encode(small, Settings(ratio=60, effort="fast")))
    if effort != "fast":
        encode(small, Settings(ratio=60, effort="fast", experts=1))


def measure_ours(array: Array, ratio: float, effort: str) -> Line:
    """This codec, in a process that is warm."""
    warm(effort)
    before = peak_megabytes()
    with config.set(cache=0, progress=False):
        stream, encode_cpu, encode_wall = timed(lambda: encode(array, Settings(ratio=ratio, effort=effort)))
        encode_peak = peak_megabytes() - before
        decode(stream)
        decoded, decode_cpu, decode_wall = timed(lambda: decode(stream))
        with config.set(compiled=False):
            _, plain_cpu, _ = timed(lambda: decode(stream))
    times = {"encode_cpu": encode_cpu, "encode_wall": encode_wall, "decode_cpu": decode_cpu}
    times |= {"decode_wall": decode_wall, "decode_cpu_numpy": plain_cpu}
    return {"bytes": len(stream), "encode_megabytes": encode_peak} | times | quality(array, decoded)


def measure_peer(peer: str, array: Array, budget: int) -> Line:
    """A peer at so many bytes; its search for them is not counted."""
    found, decoded = measure(peer, array, budget)
    times = {"encode_cpu": found["encode_cpu_seconds"], "encode_wall": found["encode_seconds"]}
    times |= {"decode_cpu": found["decode_cpu_seconds"], "decode_wall": found["decode_seconds"]}
    return {"bytes": found["bytes"], "found": found["found"]} | times | quality(array, decoded)


def reads(shape: tuple[int, ...]) -> dict[str, Any]:
    """Parts of a chunk that people read."""
    middle = tuple(n // 2 for n in shape)
    return {
        "whole": (slice(None),) * len(shape),
        "first index": (middle[0],),
        "last index": (..., middle[-1]),
        "series at a point": (slice(None), *middle[1:]),
        "one voxel": middle,
        "every 8th voxel": (slice(None, None, 8),) * len(shape),
    }


def measure_reads(array: Array, ratio: float, effort: str) -> list[Line]:
    """CPU seconds of parts of a chunk, cold and warm: the median of five."""
    warm(effort)
    with config.set(progress=False):
        stream = encode(array, Settings(ratio=ratio, effort=effort))
    kind = inspect(stream).kind
    lines = []
    for name, selection in reads(array.shape).items():
        line: Line = {"kind": kind, "read": name, "voxels": int(np.asarray(array[selection]).size)}
        for state, size in (("cold", 0), ("warm", 1 << 30)):
            with config.set(cache=size):
                decode(stream, selection)
                line[state] = statistics.median(
                    timed(lambda s=selection: decode(stream, s))[1] for _ in range(5)
                )
        lines.append(line)
    return lines


def run(arguments: argparse.Namespace) -> list[Line]:
    """All measurements, one after the other."""
    loaders = find_fields(arguments.folder, arguments.fields)
    if not arguments.fields:
        loaders["phantom_shells"] = shells
    lines: list[Line] = []
    for field, load in loaders.items():
        array = load()
        million = array.size / 1e6
        for ratio in arguments.ratios:
            calls = {effort: (measure_ours, array, ratio, effort) for effort in arguments.efforts}
            calls |= {
                peer: (measure_peer, peer, array, int(array.nbytes / ratio)) for peer in arguments.peers
            }
            for name, call in calls.items():
                line = {"field": field, "ratio": ratio, "codec": name, "million": million}
                try:
                    line |= isolated(*call, seconds=arguments.timeout, gigabytes=12)
                except (UnreachableError, UnsuitableError, LimitError, RuntimeError) as error:
                    line["reason"] = str(error)
                lines.append(line)
                print(describe(line), flush=True)
            for effort in arguments.efforts if arguments.reads else ():
                call = measure_reads, array, ratio, effort
                for read in isolated(*call, seconds=arguments.timeout, gigabytes=12):
                    lines.append({"field": field, "ratio": ratio, "million": million} | read)
    return lines


def describe(line: Line) -> str:
    """A line of progress."""
    head = f"{line['field']} {line['ratio']:g}x {line['codec']}"
    if "reason" in line:
        return f"{head}: {line['reason']}"
    encoding, decoding = line["encode_cpu"] / line["million"], line["million"] / line["decode_cpu"]
    return f"{head}: {line['psnr']:.2f} dB, {encoding:.3f} s/M to encode, {decoding:.1f} M/s to decode"


def tables(lines: list[Line]) -> str:
    """Markdown: a table for each ratio, medians, then the reads."""
    parts = []
    for ratio in sorted({line["ratio"] for line in lines}, reverse=True):
        own = [line for line in lines if line["ratio"] == ratio and "encode_cpu" in line]
        rows = [
            (
                line["field"], line["codec"], f"{line['psnr']:.2f}", str(line["bytes"]),
                f"{line['encode_cpu'] / line['million']:.3f}", f"{line['million'] / line['decode_cpu']:.1f}",
                f"{line['million'] / line['decode_cpu_numpy']:.1f}" if "decode_cpu_numpy" in line else "",
                f"{line['encode_megabytes']:.0f}" if "encode_megabytes" in line else "",
            )
            for line in own
        ]  # fmt: skip
        for codec in dict.fromkeys(line["codec"] for line in own):
            each = [line for line in own if line["codec"] == codec]
            encoding = statistics.median(line["encode_cpu"] / line["million"] for line in each)
            decoding = statistics.median(line["million"] / line["decode_cpu"] for line in each)
            rows.append(("**median**", codec, "", "", f"**{encoding:.3f}**", f"**{decoding:.1f}**", "", ""))
        columns = (
            "field",
            "codec",
            "PSNR dB",
            "bytes",
            "encode, CPU s/M",
            "decode, M/s",
            "NumPy alone, M/s",
            "MB",
        )
        parts.append(f"### {ratio:g}x\n\n" + markdown(columns, rows))
    read = [line for line in lines if "read" in line]
    if read:
        rows = [
            (line["field"], f"{line['ratio']:g}", line["kind"], line["read"], str(line["voxels"]),
             f"{1e3 * line['cold']:.1f}", f"{1e3 * line['warm']:.1f}")
            for line in read
        ]  # fmt: skip
        parts.append(
            "### Reads\n\n"
            + markdown(("field", "ratio", "kind", "read", "voxels", "cold, ms", "warm, ms"), rows)
        )
    return "\n\n".join(parts) + "\n"


def plot(lines: list[Line], path: Path) -> None:
    """PSNR against encode time, a panel for each ratio."""
    ratios = sorted({line["ratio"] for line in lines}, reverse=True)
    figure = Figure(figsize=(5 * len(ratios), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, ratio in zip(figure.subplots(1, len(ratios), squeeze=False)[0], ratios, strict=True):
        own = [line for line in lines if line["ratio"] == ratio and "encode_cpu" in line]
        for codec in dict.fromkeys(line["codec"] for line in own):
            each = [line for line in own if line["codec"] == codec]
            x = [line["encode_cpu"] / line["million"] for line in each]
            axes.scatter(x, [line["psnr"] for line in each], s=22, label=codec)
        axes.set_xscale("log")
        axes.set_xlabel("CPU seconds a million voxels to encode")
        axes.set_ylabel("PSNR at data-range peak (dB)")
        axes.set_title(f"{ratio:g}x, one point a field")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print the tables, write them beside the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--ratios", type=float, nargs="+", default=[1000.0, 100.0, 30.0, 10.0])
    parser.add_argument("--efforts", nargs="*", default=list(EFFORTS), choices=EFFORTS)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--reads", action="store_true", help="also reads of parts of a chunk")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a measurement, at most")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()
    lines = run(arguments)
    document = {"machine": machine(), "load_at_start": load, "lines": lines}
    arguments.out.with_suffix(".json").write_text(json.dumps(document, indent=1, default=str))
    arguments.out.with_suffix(".md").write_text(tables(lines))
    plot(lines, arguments.out.with_suffix(".png"))
    print(tables(lines))


if __name__ == "__main__":
    main()
