"""Rate and distortion of this codec and of others, at the same bytes on the same fields.

``python -m benchmarks.rd [FOLDER]`` measures every field of a folder of ``.npz`` files (array ``data``, NaN
where there is no value), by default the package's simulated fields, at every ratio with every codec. A
measurement is a line in the file of results; what is there already is not measured again, so that a run that
was ended goes on where it stopped. From the lines come the tables (Markdown) and the plots beside them;
``--report`` makes these alone.

A field is one chunk. ``ratio`` is bytes of the array in its own dtype over bytes of the stream; every codec
gets ``floor(nbytes / ratio)`` bytes at most. This codec's streams are counted whole, mask of NaN included;
the peers' masks are free (see ``benchmarks/peers.py``).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.fields import find_fields
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
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.errors import BudgetError
from moec_zarr.settings import EFFORTS, Settings

RATIOS = (100.0, 300.0, 1000.0, 3000.0, 6000.0)
OURS = "moec_zarr"


def measure_ours(array: Array, ratio: float, effort: str) -> tuple[Line, Array]:
    """This codec at a ratio: bytes and seconds, and the array as decoded."""
    settings = Settings(ratio=ratio, effort=effort)  # type: ignore[arg-type]
    begun = time.perf_counter()
    try:
        stream = encode(array, settings)
    except BudgetError as error:
        raise UnreachableError(str(error)) from error
    encoded = time.perf_counter()
    decoded = decode(stream)
    seconds = {"encode_seconds": encoded - begun, "decode_seconds": time.perf_counter() - encoded}
    return {"bytes": len(stream), **seconds}, decoded


def measure_peer(
    name: str, array: Array, ratio: float, seconds: float, gigabytes: float
) -> tuple[Line, Array]:
    """A peer at a ratio, in a process of its own."""
    if versions(PEERS[name].package)[PEERS[name].package] is None:
        raise UnsuitableError(f"{PEERS[name].package} is not installed")
    budget = int(array.nbytes / ratio)
    found: tuple[Line, Array] = isolated(measure, name, array, budget, seconds=seconds, gigabytes=gigabytes)
    return found


def outcome(array: Array, attempt: Any) -> Line:
    """Status, and either what was measured or why it was not."""
    try:
        found, decoded = attempt()
    except (UnreachableError, UnsuitableError, LimitError, RuntimeError) as error:
        status = {UnreachableError: "unreachable", UnsuitableError: "skipped"}.get(type(error), "failed")
        return {"status": status, "reason": str(error)}
    achieved = {"achieved_ratio": array.nbytes / found["bytes"]}
    return {"status": "ok", **found, **achieved, **quality(array, decoded)}


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet."""
    ours, here = arguments.label or codec_version(), origin()
    with config.set(**({"threads": arguments.threads} if arguments.threads else {}), progress=False):
        for field, load in find_fields(arguments.folder, arguments.fields).items():
            array = load()
            for ratio in arguments.ratios:
                common = {
                    "benchmark": "rd",
                    "field": field,
                    "shape": array.shape,
                    "dtype": array.dtype.str,
                    "ratio": ratio,
                }
                for codec in arguments.codecs:
                    for line, attempt in attempts(codec, array, ratio, arguments, ours):
                        line = common | line
                        if line in records:
                            continue
                        line |= outcome(array, attempt) | here
                        records.add(line)
                        print(describe(line), flush=True)


def attempts(
    codec: str, array: Array, ratio: float, arguments: argparse.Namespace, version: str
) -> Iterable[tuple[Line, Any]]:
    """What identifies a measurement, and the call that makes it."""
    if codec != OURS:
        found = versions(PEERS[codec].package, "numpy")
        line = {"codec": codec, "settings": {}, "version": found[PEERS[codec].package]}
        limits = (arguments.timeout, arguments.memory)
        yield line | {"versions": found, "threads": 1}, lambda: measure_peer(codec, array, ratio, *limits)
        return
    import torch  # its loading belongs to no measurement

    for effort in arguments.efforts:
        line = {
            "codec": OURS,
            "settings": {"effort": effort, "device": config.get("device")},
            "version": version,
            "versions": versions("torch", "numpy"),
            "threads": arguments.threads or torch.get_num_threads(),
        }
        yield line, lambda effort=effort: measure_ours(array, ratio, effort)


# ----------------------------------------------------------------------------------- report


def series(line: Line) -> str:
    """The name of a codec with its settings, as tables and plots have it."""
    settings = line["settings"]
    device = settings.get("device", "cpu").replace("cpu", "")
    return " ".join(word for word in (line["codec"], settings.get("effort", ""), device) if word)


def describe(line: Line) -> str:
    if line["status"] == "ok":
        said = f"{line['bytes']} bytes, {_cell(line, 'psnr')} dB, {line['encode_seconds']:.1f} s"
    else:
        said = f"{line['status']}: {line['reason']}"
    return f"{line['field']} {line['ratio']:g}x {series(line)}: {said}"


def _cell(line: Line | None, name: str) -> str:
    if line is None:
        return ""
    if line["status"] != "ok":
        return {"unreachable": "-", "skipped": ""}.get(line["status"], line["status"])
    value = line.get(name)
    if value is None:
        return "exact" if line.get("max_error") == 0 else ""
    return f"{value:.4f}" if name == "ssim" else f"{value:.3g}" if "error" in name else f"{value:.2f}"


def by_place(lines: Iterable[Line]) -> dict[tuple[str, float], dict[str, Line]]:
    """Lines by field and ratio, then by codec; the newest of each."""
    places: dict[tuple[str, float], dict[str, Line]] = {}
    for line in latest(lines):
        if line["benchmark"] == "rd":
            places.setdefault((line["field"], line["ratio"]), {})[series(line)] = line
    return dict(sorted(places.items()))


def gains(lines: Iterable[Line]) -> dict[tuple[float, str], dict[str, float]]:
    """PSNR above the best peer, in dB, of each field that a peer reaches; by ratio and effort."""
    found: dict[tuple[float, str], dict[str, float]] = {}
    for (field, ratio), codecs in by_place(lines).items():
        good = {name: line for name, line in codecs.items() if line.get("psnr") is not None}
        peers = [line["psnr"] for line in good.values() if line["codec"] != OURS]
        for name, line in good.items():
            if line["codec"] == OURS and peers:
                found.setdefault((ratio, name), {})[field] = line["psnr"] - max(peers)
    return dict(sorted(found.items()))


def tables(lines: list[Line]) -> str:
    """All tables, Markdown."""
    places = by_place(lines)
    names = list(dict.fromkeys(name for codecs in places.values() for name in codecs))
    names.sort(key=lambda name: (not name.startswith(OURS), name not in PEERS))
    parts = [
        ("PSNR above the best peer, dB", _gain_table(lines)),
        *(
            (title, _table(places, names, quantity))
            for title, quantity in (
                ("PSNR, dB; the peak is the range of the valid data", "psnr"),
                ("PSNR, dB; the peak is the dtype's largest number (integers only)", "psnr_dtype"),
                ("SSIM", "ssim"),
                ("Largest error, in units of the data", "max_error"),
                ("Seconds to encode", "encode_seconds"),
                ("Seconds to decode", "decode_seconds"),
            )
        ),
    ]
    return "\n".join(f"### {title}\n\n{table}" for title, table in parts if table)


def _table(places: dict[tuple[str, float], dict[str, Line]], names: list[str], quantity: str) -> str:
    rows = []
    for (field, ratio), codecs in places.items():
        if any(line.get(quantity) is not None for line in codecs.values()):
            cells = [_cell(codecs.get(name), quantity) for name in names]
            rows.append([field, f"{ratio:g}x", *cells])
    return markdown(["field", "ratio", *names], rows) if rows else ""


def _gain_table(lines: list[Line]) -> str:
    rows = []
    for (ratio, name), fields in gains(lines).items():
        worst = min(fields, key=fields.__getitem__)
        above = sum(gain > 0 for gain in fields.values())
        rows.append([
            name, f"{ratio:g}x", f"{statistics.median(fields.values()):+.2f}",
            f"{fields[worst]:+.2f} ({worst})", f"{above} of {len(fields)}",
        ])  # fmt: skip
    header = ["codec", "ratio", "median", "least", "fields above"]
    return markdown(header, rows) if rows else ""


def plot(field: str, lines: Iterable[Line], path: Path) -> None:
    """PSNR over ratio of one field, a curve for each codec."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for (name, _), codecs in by_place(lines).items():
        for label, line in codecs.items():
            if name == field and line.get("psnr") is not None:
                curves.setdefault(label, []).append((line["achieved_ratio"], line["psnr"]))
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label in sorted(curves, key=lambda label: (not label.startswith(OURS), label)):
        ratios, decibels = np.array(sorted(curves[label])).T
        style = "-o" if label.startswith(OURS) else "--."
        axes.plot(ratios, decibels, style, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("compression ratio")
    axes.set_ylabel("PSNR, dB (peak: range of the data)")
    axes.set_title(field)
    axes.grid(alpha=0.3, which="both")
    if curves:
        axes.legend()
    figure.savefig(path, dpi=110)


def report(lines: list[Line], results: Path) -> None:
    """Tables and plots beside the file of results."""
    results.with_suffix(".md").write_text(tables(lines))
    for field in sorted({field for field, _ in by_place(lines)}):
        plot(field, lines, results.with_name(f"{results.stem}_{field}.png"))
    print(f"{results.with_suffix('.md')} and plots written", flush=True)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; simulated fields without it")
    parser.add_argument("--fields", nargs="+", default=(), help="names of some of them")
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--codecs", nargs="+", choices=[OURS, *PEERS], default=[OURS, *PEERS])
    parser.add_argument("--efforts", nargs="+", choices=EFFORTS, default=EFFORTS)
    parser.add_argument("--label", help="this codec's version on record; a digest of its sources without it")
    parser.add_argument("--threads", type=int, help="of this codec's fits; torch's own number without it")
    parser.add_argument(
        "--timeout", type=float, default=1800, help="seconds for one peer, its search included"
    )
    parser.add_argument("--memory", type=float, default=6, help="GB for one peer")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/rd.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make tables and plots anew")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parse(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    report(records.lines, arguments.results)


if __name__ == "__main__":
    main()
