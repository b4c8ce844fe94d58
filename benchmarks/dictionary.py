"""Bytes, quality and CPU time of chunks with and without a dictionary, beside SPERR.

``python -m benchmarks.dictionary FOLDER`` cuts each field of a folder of ``.npz`` files (array ``data``) into
chunks, once in eighths and once in small ones of about 64^3 voxels: a dictionary is trained on every other
one, and encodes some of the rest. What is written of a target is summed or averaged over the chunks tested:

- *bytes* at equal quality: of a ratio the dictionary's stream is made at a second one too, and its bytes are
  interpolated (octaves of the ratio over dB) to where it has the PSNR of the stream without; of bounds they
  are the bytes themselves;
- *dB* at equal bytes, of a ratio: the mean, and the least of any chunk;
- CPU seconds per million voxels on one thread, both in the same run, one after the other;
- SPERR at the bytes of the stream without a dictionary, in dB, or at the same bound, in bytes, as
  ``benchmarks/peers.py`` measures it.

A measurement is a line in the file of results; what is there already is not measured again. Tables are
printed at the end, or by ``--report`` alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np

from benchmarks.fields import find_fields
from benchmarks.forms import UnreachableError
from benchmarks.peers import measure as measure_peer
from benchmarks.records import Array, Line, Records, codec_version, latest, markdown, origin
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.codec.train import train_dictionary
from moec_zarr.config import config
from moec_zarr.quality import measure
from moec_zarr.settings import Settings

RATIOS = (1000.0, 100.0, 10.0)
BOUNDS = (1e-2, 1e-3)  # of the range
EIGHTHS = "eighths"
CUTS = (EIGHTHS, "small")
# Voxels of an axis of a small chunk; by default those of 64^3 voxels or fewer.
SMALL = {
    "globcurrent_u_nan_3d": (61, 41, 81),
    "era5_t2m_3d": (93, 33, 49),
    "gems_co2_3d": (31, 40, 80),
    "um_xwind_4d": (15, 5, 36, 48),
    "glosea4_sst_ens_4d": (13, 6, 48, 48),
    "cmip6_siconc_nan_3d": (12, 97, 90),
    "turbulence_wmag_3d": (45, 45, 45),
    "vorticity_3d": (41, 42, 42),
}
MOST_TRAINED, MOST_TESTED = 8, 4
FURTHER = 1.1  # times the ratio: the second one


def chunk_shape(name: str, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Half of the three longest axes, or the shape of small chunks."""
    if kind != EIGHTHS:
        return SMALL.get(name, tuple(min(n, 64) for n in shape))
    halved = sorted(range(len(shape)), key=lambda axis: -shape[axis])[:3]
    return tuple(n // 2 if axis in halved else n for axis, n in enumerate(shape))


def cut(array: Array, shape: tuple[int, ...]) -> list[Array]:
    """Whole chunks, but those of a single value and those of which most is missing."""
    chunks = []
    for place in product(*(range(n // side) for n, side in zip(array.shape, shape, strict=True))):
        part = array[tuple(slice(i * n, i * n + n) for i, n in zip(place, shape, strict=True))]
        valid = np.isfinite(part)
        if valid.mean() > 0.2 and np.ptp(part[valid]) > 0:
            chunks.append(np.ascontiguousarray(part))
    return chunks


def _timed(array: Array, settings: Settings) -> tuple[bytes, float, float, float]:
    """The stream, dB, and CPU seconds per million voxels to encode and to decode."""
    begun = time.process_time()
    stream = encode(array, settings)
    encoded = time.process_time()
    decoded = decode(stream, dictionary=settings.shared)
    seconds = np.diff([begun, encoded, time.process_time()]) / array.size * 1e6
    valid = np.isfinite(array) if array.dtype.kind == "f" else None
    return stream, min(measure(array, decoded, valid).psnr, 200.0), float(seconds[0]), float(seconds[1])


def measure_chunks(chunks: list[Array], settings: Settings) -> Line:
    """Train on some chunks, and compare on others."""
    trained_on, tested = chunks[::2][:MOST_TRAINED], chunks[1::2][:MOST_TESTED]
    encode(tested[0], settings)  # what is compiled is loaded
    begun = time.process_time()
    trained = train_dictionary(settings, trained_on)
    seconds = (time.process_time() - begun) / (len(trained_on) * tested[0].size) * 1e6
    encode(tested[0], trained)
    rows = []
    for array in tested:
        plain, plain_db, plain_encode, plain_decode = _timed(array, settings)
        own, db, own_encode, own_decode = _timed(array, trained)
        equal = float(len(own))
        if settings.ratio is not None:
            less, less_db, _, _ = _timed(array, replace(trained, ratio=FURTHER * settings.ratio))
            octaves = np.log2(len(own) / len(less))
            equal *= 2 ** ((plain_db - db) / max((db - less_db) / octaves, 0.5) if octaves else 0.0)
        peer = _sperr(array, settings, len(plain))
        seconds_of_ours = plain_encode, own_encode, plain_decode, own_decode
        rows.append((len(plain), len(own), equal, plain_db, db, *seconds_of_ours, *peer))
    plain_bytes, own_bytes, equal, plain_db, db, *rest = np.array(rows).T
    before, after, read, own_read, sperr, write, peer_read = rest
    return {
        "trained": len(trained_on), "tested": len(tested), "chunk": list(tested[0].shape),
        "dictionary_bytes": 0 if trained.dictionary is None else len(trained.dictionary) * 3 // 4,
        "train_cpu_per_million": seconds,
        "bytes": float(plain_bytes.sum()), "dictionary_stream_bytes": float(own_bytes.sum()),
        "bytes_at_equal_quality": float(np.exp(np.mean(np.log(equal / plain_bytes)))),
        "db": float(plain_db.mean()), "gain_db": float(np.mean(db - plain_db)),
        "median_gain_db": float(np.median(db - plain_db)), "least_gain_db": float(np.min(db - plain_db)),
        "cpu_per_million": float(np.median(before)), "dictionary_cpu_per_million": float(np.median(after)),
        "cpu_share": float(np.median(after / before)),
        "decode_cpu_per_million": float(np.median(read)),
        "dictionary_decode_cpu_per_million": float(np.median(own_read)),
        "sperr": float(sperr.sum() if settings.is_bounded else sperr.mean()),
        "sperr_cpu_per_million": float(np.median(write)),
        "sperr_decode_cpu_per_million": float(np.median(peer_read)),
    }  # fmt: skip


def _sperr(array: Array, settings: Settings, budget: int) -> tuple[float, float, float]:
    """SPERR's dB at so many bytes, or its bytes at the bound; and its CPU seconds per million voxels."""
    bound = settings.max_error
    try:
        line, decoded = measure_peer(
            "SPERR", array, budget=None if bound is not None else budget, bound=bound
        )
    except UnreachableError:
        return 0.0, 0.0, 0.0
    valid = np.isfinite(array) if array.dtype.kind == "f" else None
    value = measure(array, decoded, valid).psnr if bound is None else float(line["bytes"])
    return value, *(line[f"{name}_cpu"] / array.size * 1e6 for name in ("encode", "decode"))


def table(lines: list[Line]) -> str:
    """Tabulate what a dictionary brings to each field at each target, beside SPERR."""
    rows = []
    for line in _ordered(lines):
        share, target = line["bytes_at_equal_quality"] - 1, line["settings"]
        gain = f"{line['median_gain_db']:+.2f}, {line['least_gain_db']:+.2f}" if "ratio" in target else ""
        peer = f"{line['sperr']:.0f} bytes, ours {line['dictionary_stream_bytes']:.0f}"
        if "ratio" in target:
            peer = f"{line['sperr']:.2f} dB, ours {line['db'] + line['gain_db']:.2f}"
        seconds = [line[f"{name}cpu_per_million"] for name in ("", "dictionary_", "sperr_")]
        rows.append([
            _cut(line), line["field"], _target(line), f"{100 * share:+.1f}", gain,
            *(f"{s:.2f}" for s in seconds[:2]),
            *((peer, f"{seconds[2]:.3f}") if line["sperr"] else ("none fits", "")),
        ])  # fmt: skip
    header = (
        "chunks", "field", "target", "bytes, %", "dB: median, least", "CPU without", "with", "SPERR",
        "its CPU",
    )  # fmt: skip
    return markdown(header, rows, text_columns=3)


def medians(lines: list[Line]) -> str:
    """Tabulate chunks with and without a dictionary beside SPERR, in the median over fields."""
    ordered = _ordered(lines)
    rows = []
    for kind, target in dict.fromkeys((_cut(line), _target(line)) for line in ordered):
        each = [line for line in ordered if (_cut(line), _target(line)) == (kind, target) and line["sperr"]]
        if not each:
            continue
        if "x" in target:
            beside = [line["db"] + line["gain_db"] - line["sperr"] for line in each]
            quality = f"{statistics.median(beside):+.2f} dB"
        else:
            shares = [100 * line["dictionary_stream_bytes"] / line["sperr"] for line in each]
            quality = f"{statistics.median(shares):.0f} % of bytes"
        seconds = [f"{statistics.median(line['sperr_cpu_per_million'] for line in each):.3f}"]
        for name in ("", "dictionary_", "decode_", "dictionary_decode_"):
            seconds.append(_times_sperr(each, name))
        rows.append([kind, target, str(len(each)), quality, *seconds])
    header = (
        "chunks", "target", "fields", "with, beside SPERR", "SPERR, s/M", "encode without", "with",
        "decode without", "with",
    )  # fmt: skip
    return markdown(header, rows, text_columns=2)


def _times_sperr(lines: list[Line], name: str) -> str:
    """CPU time over SPERR's, in the median; nothing where it was not measured."""
    peer = "sperr_decode_" if "decode" in name else "sperr_"
    shares = [
        line[f"{name}cpu_per_million"] / line[f"{peer}cpu_per_million"]
        for line in lines
        if f"{name}cpu_per_million" in line
    ]
    return f"{statistics.median(shares):.1f}" if shares else ""


def _target(line: Line) -> str:
    target = line["settings"]
    return f"{target['ratio']:g}x" if "ratio" in target else f"bound {target['bound']:g} of the range"


def _cut(line: Line) -> str:
    return str(line["settings"].get("cut", "small"))


def _ordered(lines: list[Line]) -> list[Line]:
    """By the size of chunks, by target, high ratios first and then wide bounds, and by field."""
    return sorted(
        latest(lines),
        key=lambda line: (
            CUTS.index(_cut(line)),
            -line["settings"].get("ratio", 0),
            -line["settings"].get("bound", 0),
            line["field"],
        ),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--cuts", nargs="*", choices=CUTS, default=CUTS)
    parser.add_argument("--ratios", nargs="*", type=float, default=RATIOS)
    parser.add_argument("--bounds", nargs="*", type=float, default=BOUNDS)
    default = Path(__file__).parent / "results" / "dictionary.jsonl"
    parser.add_argument("--results", type=Path, default=default)
    parser.add_argument("--report", action="store_true", help="measure nothing, print the tables")
    options = parser.parse_args(arguments)
    records = Records(options.results)
    if not options.report:
        run(options, records)
    print(medians(records.lines), table(records.lines), sep="\n")


def run(options: argparse.Namespace, records: Records) -> None:
    """Measure what is not there yet."""
    targets: list[dict[str, Any]] = [{"ratio": ratio} for ratio in options.ratios]
    targets += [{"bound": bound} for bound in options.bounds]
    fields = find_fields(options.folder, options.fields)
    for kind, (name, load), target in product(options.cuts, fields.items(), targets):
        array = load()
        chunks = cut(array, chunk_shape(name, array.shape, kind))
        if "bound" in target:
            valid = array[np.isfinite(array)]
            settings = Settings(max_error=target["bound"] * float(np.ptp(valid)), effort="fast")
        else:
            settings = Settings(ratio=target["ratio"], effort="fast")
        line = {
            "benchmark": "dictionary",
            "field": name,
            "shape": list(array.shape),
            "dtype": str(array.dtype),
        }
        kept = target | ({} if kind == "small" else {"cut": kind})
        line |= {"codec": "moec_zarr", "settings": kept, "version": codec_version()}
        if line in records or len(chunks) < 4:
            continue
        with config.set(cache=0, progress=False, refit="allow", budget="keep"):
            line |= measure_chunks(chunks, settings)
        records.add(line | origin())
        print(name, kept, {key: round(value, 3) for key, value in line.items() if isinstance(value, float)})


if __name__ == "__main__":
    main()
