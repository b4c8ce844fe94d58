"""Groups of chunks on a GPU and on the CPU beside it: chunks a minute, quality, decoding, memory.

``python -m benchmarks.gpu [FOLDER]`` cuts chunks out of a field of a folder of ``.npz`` files (array
``data``), by default out of a phantom of thin shells, encodes them in groups, decodes them together, and fits
one of them for as long as ``--ceiling`` says: what networks reach at these bytes. Without a GPU the CPU alone
is measured.

A measurement has a process of its own, which has fitted a small group before, and is a line in the file of
results; what is there already is not measured again. The table (Markdown) is made of the lines, and printed.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np
import torch

from benchmarks.fields import find_fields, shells
from benchmarks.isolate import isolated
from benchmarks.records import Array, Line, Records, codec_version, latest, markdown, origin, versions
from moec_zarr import inspect
from moec_zarr.codec.decode import decode_group
from moec_zarr.codec.encode import encode
from moec_zarr.codec.prepare import prepare
from moec_zarr.config import config
from moec_zarr.fit.select import fit
from moec_zarr.quality import measure
from moec_zarr.runtime import torch_threads
from moec_zarr.settings import EFFORTS, Settings

GROUPS = (1, 8, 32, 128)
CHUNK = (128, 128, 128)
CHUNKS = 16  # that are encoded at least, and whose PSNR counts
PHANTOM = (192, 192, 192)
RATIO = 1000.0
TRIAL_SHARE = 0.1  # of the steps of "best", from which those of the ceiling are told
GIGABYTES = 100.0  # of address space; CUDA reserves much
HOURS = 3.0

Job: TypeAlias = tuple[Any, ...]  # a function and its arguments


def chunks_of(field: Array, shape: Sequence[int], count: int) -> list[Array]:
    """Chunks at places drawn at random, always the same ones; a field that is too short is repeated."""
    rng = np.random.default_rng(0)
    lead = (0,) * (field.ndim - len(shape))
    field = field[lead]
    wraps = [(0, max(0, side - n)) for side, n in zip(shape, field.shape, strict=True)]
    field = np.pad(field, wraps, mode="wrap")
    corners = [
        [rng.integers(0, n - side + 1) for side, n in zip(shape, field.shape, strict=True)]
        for _ in range(count)
    ]
    return [
        np.ascontiguousarray(field[tuple(slice(c, c + side) for c, side in zip(corner, shape, strict=True))])
        for corner in corners
    ]


def encoded(arrays: Sequence[Array], settings: Settings) -> list[bytes]:
    """Streams of chunks that are encoded at the same time."""
    with ThreadPoolExecutor(len(arrays)) as threads:
        return list(threads.map(lambda array: encode(array, settings), arrays))


def psnr(original: Array, decoded: Array) -> float:
    """Decibels with the range of the valid values as the peak."""
    return measure(original, decoded, np.isfinite(original)).psnr


@contextmanager
def utilisation(device: str) -> Iterator[list[float]]:
    """Shares of time that the device computed, sampled meanwhile; none of a CPU, or without nvidia-smi."""
    samples: list[float] = []
    if device == "cpu" or (tool := shutil.which("nvidia-smi")) is None:
        yield samples
        return
    command = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield samples
        finally:
            process.terminate()
            assert process.stdout is not None
            samples += [float(line) / 100 for line in process.stdout if line.strip().isdigit()]


def measured_group(field: Array, shape: Sequence[int], settings: Settings, group: int, device: str) -> Line:
    """Chunks encoded at the same time, two groups at least, then decoded together.

    The PSNR is that of the first chunks, which are the same whatever the group.
    """
    arrays = chunks_of(field, shape, max(CHUNKS, 2 * group))
    with config.set(device=device, group=group, decoder="auto", cache=0, progress=False):
        warm = replace(settings, ratio=min(settings.ratio or RATIO, 10.0))
        encoded([array[tuple(slice(16) for _ in shape)] for array in arrays[:2]], warm)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        cpu, wall = time.process_time(), time.perf_counter()
        with utilisation(device) as samples:
            streams = encoded(arrays, settings)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
        decode_group(streams[:1])
        start = time.perf_counter()
        decoded = decode_group(streams)
        decode_wall = time.perf_counter() - start
    kinds = [inspect(stream).kind for stream in streams]
    values = [psnr(a, d) for a, d in zip(arrays[:CHUNKS], decoded, strict=False)]
    return {
        "chunks": len(arrays),
        "chunks_per_minute": 60 * len(arrays) / wall,
        "cpu_seconds_per_chunk": cpu / len(arrays),
        "psnr": float(np.mean([value for value in values if math.isfinite(value)] or math.inf)),
        "bytes": float(np.mean([len(stream) for stream in streams])),
        "with_network": sum(kind in ("model", "both") for kind in kinds),
        "decode_gigabytes_per_second": sum(array.nbytes for array in arrays) / decode_wall / 1e9,
        "device_megabytes": peak and peak / 2**20,
        "utilisation": float(np.mean(samples)) if samples else None,
        "cores": os.cpu_count(),
    }


def measured_ceiling(field: Array, shape: Sequence[int], ratio: float, minutes: float, device: str) -> Line:
    """A network alone for one chunk, fitted for about so long."""
    (array,) = chunks_of(field, shape, 1)
    settings = Settings(ratio=ratio, effort="best", model="network")
    chunk = prepare(array, settings.missing, None).field
    room = int(array.nbytes / ratio) - 40

    def fitted(share: float) -> tuple[float, float]:
        start = time.perf_counter()
        error = fit(chunk, settings, room, share=share).error
        # Half the range is 1 in normalised values, its peak 2.
        return time.perf_counter() - start, 10 * math.log10(4 / error)

    with config.set(device=device, progress=False), torch_threads():
        fitted(TRIAL_SHARE)
        (short, _), (longer, _) = fitted(TRIAL_SHARE), fitted(4 * TRIAL_SHARE)
        steps = max(longer - short, 1e-3) / (3 * TRIAL_SHARE)  # seconds of all of them
        fixed = max(short - steps * TRIAL_SHARE, 0.0)
        seconds, reached = fitted(max(60 * minutes - fixed, short) / steps)
    return {"seconds": seconds, "psnr": reached, "bytes": room, "chunks": 1}


def _jobs(field: Array, options: argparse.Namespace) -> Iterator[tuple[Line, Job]]:
    """What identifies each measurement, and the call that makes it."""
    shape = options.chunk
    for device in options.devices:
        for effort in options.efforts:
            settings = Settings(ratio=options.ratio, effort=effort)
            for group in options.groups if settings.has_networks else options.groups[:1]:
                line = {"settings": {"device": device, "effort": effort, "group": group}}
                yield line, (measured_group, field, shape, settings, group, device)
        if options.ceiling:
            line = {"settings": {"device": device, "effort": "best", "minutes": options.ceiling}}
            yield line, (measured_ceiling, field, shape, options.ratio, options.ceiling, device)


def table(lines: Sequence[Line]) -> str:
    """Markdown of the lines."""
    rows = []
    for line in lines:
        settings = line["settings"]
        kind = f"{line['seconds'] / 60:.3g} minutes" if "minutes" in settings else str(settings["group"])
        rows.append([
            line["field"], "x".join(map(str, line["shape"])), settings["device"], settings["effort"], kind,
            _number(line.get("chunks_per_minute")), _number(line.get("cpu_seconds_per_chunk")),
            _number(line["psnr"], 2), _number(line.get("decode_gigabytes_per_second"), 3),
            _number(line.get("device_megabytes"), 0), _number(line.get("utilisation"), 2),
        ])  # fmt: skip
    head = ["field", "chunk", "device", "effort", "group", "chunks a minute", "CPU s a chunk", "PSNR dB",
            "decode, GB/s", "device, MB", "utilisation"]  # fmt: skip
    return markdown(head, rows)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is not measured yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--fields", nargs="*", help="names; by default the first one")
    parser.add_argument("--chunk", nargs="+", type=int, default=CHUNK)
    parser.add_argument("--ratio", type=float, default=RATIO)
    parser.add_argument("--efforts", nargs="*", default=EFFORTS, choices=EFFORTS)
    parser.add_argument("--groups", nargs="*", type=int, default=GROUPS)
    parser.add_argument(
        "--devices", nargs="*", default=["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"]
    )
    parser.add_argument("--ceiling", type=float, default=10.0, help="minutes; 0 for none")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/gpu.jsonl"))
    parser.add_argument("--report", action="store_true", help="only the table")
    options = parser.parse_args(words)
    records = Records(options.results)
    fields = find_fields(options.folder) if options.folder else {"phantom_shells": lambda: shells(PHANTOM)}
    for name in [] if options.report else options.fields or list(fields)[:1]:
        field = fields[name]()
        for settings, job in _jobs(field, options):
            line = settings | {
                "benchmark": "gpu", "field": name, "shape": options.chunk, "dtype": field.dtype.str,
                "codec": "moec_zarr", "ratio": options.ratio, "version": codec_version(),
            }  # fmt: skip
            if line not in records:
                result = isolated(*job, gigabytes=GIGABYTES, seconds=3600 * HOURS)
                records.add(line | result | origin() | {"versions": versions("torch")})
    print(table([line for line in latest(records.lines) if line["benchmark"] == "gpu"]))


if __name__ == "__main__":
    main()
