"""What linear experts add to a transform: PSNR at ratios with and without them, and what they cost.

``python -m benchmarks.experts FOLDER`` measures each field of a folder of ``.npz`` files (array ``data``), at
effort "fast", and integers beside x265 and SVT-AV1 at the same bytes (``benchmarks/video.py``). PSNR is over
the range of the array; times are CPU seconds of one thread, in a process that is warm, one after the other.
Of large fields the middle is taken, as ``benchmarks.rd`` does.

A measurement is a line in the file of results; what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from unittest.mock import patch

import benchmarks.one_thread  # noqa: F401

# isort: split
from benchmarks.fields import cropped, find_fields
from benchmarks.forms import UnreachableError, UnsuitableError
from benchmarks.isolate import LimitError, isolated
from benchmarks.peers import PEERS
from benchmarks.peers import measure as measure_peer
from benchmarks.records import Array, Line, Records, codec_version, latest, markdown, million, origin
from benchmarks.speed import GIGABYTES, warm
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.quality import measure
from moec_zarr.settings import Settings
from moec_zarr.statistics import valid_voxels

RATIOS = (1000.0, 300.0, 100.0, 30.0)
VIDEO = [name for name, peer in PEERS.items() if peer.integers]
DECODES = 3  # of which the fastest counts


def measure_both(array: Array, ratio: float) -> Line:
    """Measure the codec as it is, then without linear experts."""
    warm("fast")
    line: Line = {}
    settings = Settings(ratio=ratio, effort="fast")
    with config.set(cache=0, progress=False):
        line |= _measured(array, settings, "with")
        with patch("moec_zarr.fit.select.choose_experts", lambda *_, **__: None):
            line |= _measured(array, settings, "without")
    for codec in VIDEO if array.dtype.kind in "iu" else ():
        line |= _video(array, ratio, codec)
    return line


def _video(array: Array, ratio: float, codec: str) -> Line:
    try:
        found, decoded = measure_peer(codec, array, budget=int(array.nbytes / ratio))
    except (UnreachableError, UnsuitableError) as error:
        return {f"reason_{codec}": str(error)}
    own = {f"{name}_{codec}": found[name] for name in ("bytes", "encode_cpu", "decode_cpu")}
    return own | {f"psnr_{codec}": measure(array, decoded, None).psnr}


def _measured(array: Array, settings: Settings, name: str) -> Line:
    begun = time.process_time()
    stream = encode(array, settings)
    encoded, times = time.process_time() - begun, []
    for _ in range(DECODES):
        begun = time.process_time()
        decoded = decode(stream)
        times.append(time.process_time() - begun)
    from moec_zarr.bitstream.stream import open_stream

    return {
        f"psnr_{name}": measure(array, decoded, valid_voxels(array, None)).psnr,
        f"bytes_{name}": len(stream),
        f"experts_{name}": open_stream(stream, array.shape).sections.get("linear_experts", 0),
        f"encode_cpu_{name}": encoded,
        f"decode_cpu_{name}": min(times),
    }


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Measure what is not there yet."""
    here = origin()
    for field, load in find_fields(arguments.folder, arguments.fields).items():
        array = cropped(load())
        for ratio in arguments.ratios:
            line = {
                "benchmark": "experts", "field": field, "shape": array.shape, "dtype": array.dtype.str,
                "ratio": ratio, "codec": "moec_zarr", "settings": {"effort": "fast"},
                "version": codec_version(),
            }  # fmt: skip
            if line in records:
                continue
            line |= {"load": os.getloadavg()[0]}
            try:
                line |= isolated(measure_both, array, ratio, seconds=arguments.timeout, gigabytes=GIGABYTES)
            except LimitError as error:
                line["reason"] = str(error)
            records.add(line | here)
            gain = line.get("psnr_with", 0.0) - line.get("psnr_without", 0.0)
            print(f"{field} {ratio:g}x: {gain:+.3f} dB {line.get('reason', '')}", flush=True)


def beside_video(lines: list[Line], names: dict[str, str] | None = None) -> str:
    """Tabulate integers with and without experts beside video codecs: dB, and CPU s/M to encode."""
    columns = {"with experts": "with", "without": "without"} | {codec: codec for codec in VIDEO}
    rows = []
    for line in sorted(latest(lines), key=lambda line: (line["field"], -line["ratio"])):
        if any(f"psnr_{codec}" in line or f"reason_{codec}" in line for codec in VIDEO):
            cells = [
                f"{line[f'psnr_{name}']:.2f} ({line[f'encode_cpu_{name}'] / million(line):.2f})"
                if f"psnr_{name}" in line
                else "-"
                for name in columns.values()
            ]
            rows.append([(names or {}).get(line["field"], line["field"]), f"{line['ratio']:g}x", *cells])
    return markdown(["field", "ratio", *columns], rows, text_columns=2)


def table(lines: list[Line], names: dict[str, str] | None = None) -> str:
    """Tabulate what experts add in dB at each ratio, with their bytes, and the times in the median."""
    lines = [line for line in latest(lines) if "psnr_with" in line]
    ratios = sorted({line["ratio"] for line in lines}, reverse=True)
    rows, fields = [], len({line["field"] for line in lines})
    for field in dict.fromkeys(line["field"] for line in lines):
        found = {line["ratio"]: line for line in lines if line["field"] == field}
        text = (names or {}).get(field, field)
        rows.append([text, *(_cell(found[ratio]) if ratio in found else "-" for ratio in ratios)])
    for name, figure in (
        ("median, dB", lambda x: f"{statistics.median(a['psnr_with'] - a['psnr_without'] for a in x):+.3f}"),
        ("encode, CPU s/M more, median", lambda x: f"{statistics.median(map(_more, x)):+.2f}"),
        (
            "decode, times, median",
            lambda x: f"{statistics.median(a['decode_cpu_with'] / a['decode_cpu_without'] for a in x):.2f}",
        ),
    ):
        by_ratio = [[line for line in lines if line["ratio"] == ratio] for ratio in ratios]
        # A median of some of the fields says nothing.
        rows.append([name, *(figure(own) if len(own) == fields else "-" for own in by_ratio)])
    return markdown(["field", *(f"{ratio:g}x" for ratio in ratios)], rows)


def _cell(line: Line) -> str:
    gain = line["psnr_with"] - line["psnr_without"]
    return f"{gain:+.2f} ({line['experts_with']} B)" if line["experts_with"] else f"{gain:+.2f}"


def _more(line: Line) -> float:
    return float((line["encode_cpu_with"] - line["encode_cpu_without"]) / million(line))


def main(words: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--ratios", nargs="*", type=float, default=RATIOS)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds of a measurement")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/experts.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the table anew")
    arguments = parser.parse_args(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    print(table(records.lines), beside_video(records.lines), sep="\n")


if __name__ == "__main__":
    main()
