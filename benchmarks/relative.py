"""Bytes at a bound on the relative error, beside bit rounding, pcodec, SZ3 and SPERR; a fuzz of the bound.

``python -m benchmarks.relative FOLDER`` measures each field of a folder of ``.npz`` files (array ``data``) at
bounds of so much of each value. Of each codec: bytes, the largest relative error that its decoded array
really has, how many values are beyond the bound, CPU seconds to encode and to decode, on one thread, each in
a process of its own.

- *BitRound* keeps the fewest bits of the mantissa whose largest relative error is within the bound
  (numcodecs), then shuffle and zstd at level 19. *pcodec* gets the same rounded values.
- *SZ3* (pysz) and *SPERR* (imagecodecs) get the logarithms of magnitudes with the widest absolute bound that
  keeps the relative one, in every layout of the axes that they take; the smallest stream counts. NaN and
  zeros are filled in with the nearest value, or zeros with one below all others, whichever takes fewer bytes.
  Masks of zeros and of signs, packed and through zstd, count as bytes; that of NaN does not. A stream beyond
  the bound counts too: look at the last table.

``python -m benchmarks.relative --fuzz 400`` encodes so many random arrays of every dtype, over decades, with
zeros, signs, NaN and infinities, and counts the values that are beyond their bound, in exact arithmetic.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np
from numpy.typing import NDArray

from benchmarks.fields import find_fields
from benchmarks.forms import Layout, UnsuitableError, filled, layouts
from benchmarks.isolate import LimitError, isolated
from benchmarks.peers import sperr, sz3, unsperr, unsz3
from benchmarks.records import (
    OURS,
    Array,
    Line,
    Records,
    codec_version,
    latest,
    markdown,
    million,
    nbytes,
    origin,
    series,
    versions,
)
from benchmarks.speed import GIGABYTES, warm
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.errors import MoECError
from moec_zarr.settings import EFFORTS, Settings

BOUNDS = (5e-2, 1e-2, 1e-3)
LEVEL = 19  # of zstd
ALMOST = 1 - 1e-5  # of a bound on logarithms: what rounding to the dtype takes of it


# --------------------------------------------------------------------------------- codecs


def measure_ours(array: Array, relative: float, effort: str) -> Line:
    """This codec, in a process that is warm."""
    warm(effort)
    with config.set(cache=0, progress=False):
        encode(_warming(), Settings(max_relative_error=relative, effort=effort))
        begun = time.process_time()
        stream = encode(array, Settings(max_relative_error=relative, effort=effort))
        encoded = time.process_time()
        decoded = decode(stream)
        done = time.process_time()
    times = {"encode_cpu": encoded - begun, "decode_cpu": done - encoded}
    return {"bytes": len(stream)} | times | errors(array, decoded, relative)


def _warming() -> Array:
    walk = np.cumsum(np.random.default_rng(0).normal(size=(12, 20, 24)), axis=1)
    return np.exp(walk / 3).astype("f4")


def round_bits(array: Array, relative: float) -> Array:
    """Values with the fewest bits of the mantissa whose largest relative error is within a bound."""
    from numcodecs import BitRound

    given = (
        array if array.dtype.kind == "f" else array.astype(np.float64 if array.itemsize > 2 else np.float32)
    )
    for bits in range(1, np.finfo(given.dtype).nmant + 1):
        codec = BitRound(keepbits=bits)
        rounded = codec.decode(codec.encode(given.reshape(-1))).view(given.dtype).reshape(given.shape)
        if array.dtype.kind != "f":  # which may be rounded beyond their largest number
            ends = np.iinfo(array.dtype)
            largest = math.nextafter(float(ends.max) + 1, 0)
            rounded = np.clip(rounded.astype(np.float64), float(ends.min), largest)
        rounded = rounded.astype(array.dtype)
        if not errors(array, rounded, relative)["beyond"]:
            return np.asarray(rounded)
    return array


def measure_bit_rounding(array: Array, relative: float, effort: str) -> Line:
    """Bit rounding with shuffle and zstd."""
    from numcodecs import Shuffle, Zstd

    begun = time.process_time()
    rounded = round_bits(array, relative)
    shuffle, zstd = Shuffle(elementsize=array.itemsize), Zstd(level=LEVEL)
    stream = zstd.encode(shuffle.encode(np.ascontiguousarray(rounded)))
    encoded = time.process_time()
    decoded = np.frombuffer(shuffle.decode(zstd.decode(stream)), array.dtype).reshape(array.shape)
    times = {"encode_cpu": encoded - begun, "decode_cpu": time.process_time() - encoded}
    return {"bytes": len(stream)} | times | errors(array, decoded, relative)


def measure_pcodec(array: Array, relative: float, effort: str) -> Line:
    """The same rounded values by pcodec, at its highest level."""
    from pcodec import ChunkConfig, standalone

    begun = time.process_time()
    flat = np.ascontiguousarray(round_bits(array, relative)).reshape(-1)
    stream = standalone.simple_compress(flat, ChunkConfig(compression_level=12))
    encoded = time.process_time()
    decoded = standalone.simple_decompress(stream).reshape(array.shape)
    times = {"encode_cpu": encoded - begun, "decode_cpu": time.process_time() - encoded}
    return {"bytes": len(stream)} | times | errors(array, decoded, relative)


def _sz3(layout: Layout, bound: float) -> tuple[bytes, Callable[[], Array]]:
    stream = sz3(layout.array, bound)
    return stream, lambda: unsz3(stream, layout.array)


def _sperr(layout: Layout, bound: float) -> tuple[bytes, Callable[[], Array]]:
    stream = sperr(layout.array, bound, "pwe")
    return stream, lambda: unsperr(stream)


AXES = {"SZ3": (_sz3, 1, 4), "SPERR": (_sperr, 2, 3)}


def measure_on_logarithms(array: Array, relative: float, peer: str) -> Line:
    """A peer on the logarithms of magnitudes, in the layout in which it takes the fewest bytes."""
    from numcodecs import Zstd

    function, least, most = AXES[peer]
    valid = np.isfinite(array)
    zeros, negative = array == 0, array < 0
    dtype = np.dtype(np.float64 if array.itemsize == 8 else np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.abs(array.astype(np.float64)))
    known = valid & ~zeros
    lowest = float(logs[known].min())
    bound = math.log1p(relative) * ALMOST
    if dtype == np.float32:  # which rounds logarithms
        bound -= float(np.spacing(np.float32(np.abs(logs[known]).max())))

    def masked(*masks: NDArray[np.bool_]) -> int:
        return sum(len(Zstd(level=LEVEL).encode(np.packbits(mask))) for mask in masks if mask.any())

    signs = masked(negative) if negative.any() and not negative[known].all() else 0
    near = filled(logs, known).astype(dtype)
    given = {"masked": (near, signs + masked(zeros))}
    if zeros.any():  # far enough below all others that they are told by their own values
        below = np.where(zeros, lowest - 4 * bound, filled(logs, valid)).astype(dtype)
        given["below"] = below, signs
    best: Line = {}
    for (name, (values, extra)), number in itertools.product(given.items(), range(9)):
        layout = next(itertools.islice(layouts(values, least, most), number, None), None)
        if layout is None:
            continue
        begun = time.process_time()
        stream, decoder = function(layout, bound)
        encoded = time.process_time()
        if best and len(stream) + extra >= best["bytes"]:
            continue
        back = layout.restore(np.asarray(decoder())).reshape(array.shape).astype(np.float64)
        gone = zeros if name == "masked" else back < lowest - 2 * bound
        back = np.where(gone, 0, np.where(negative, -np.exp(back), np.exp(back)))
        back = np.where(valid, back if array.dtype.kind == "f" else np.rint(back), array).astype(array.dtype)
        times = {"encode_cpu": encoded - begun, "decode_cpu": time.process_time() - encoded}
        size = len(stream) + extra
        best = {"bytes": size, "form": f"{name}, {layout.name}"} | times | errors(array, back, relative)
    return best


def errors(original: Array, decoded: Array, relative: float) -> Line:
    """Largest relative error, how many values there are, and how many are beyond the bound."""
    valid = np.isfinite(original)
    x, y = (values[valid].astype(np.float64) for values in (original, decoded))
    error = np.abs(x - y)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error > 0, error / np.abs(x), 0)
    return {
        "largest": float(share.max(initial=0)),
        "values": int(valid.sum()),
        "beyond": int(np.count_nonzero(error > relative * np.abs(x))),
    }


PEERS: dict[str, tuple[Callable[..., Line], str]] = {
    "BitRound": (measure_bit_rounding, "numcodecs"),
    "pcodec": (measure_pcodec, "pcodec"),
    "SZ3": (measure_on_logarithms, "pysz"),
    "SPERR": (measure_on_logarithms, "imagecodecs"),
}


def codecs(arguments: argparse.Namespace) -> list[tuple[Line, Callable[..., Line], str]]:
    """What identifies each codec, the function that measures it, and which effort or peer that gets."""
    found: list[tuple[Line, Callable[..., Line], str]] = []
    for effort in arguments.efforts:
        own = {"codec": OURS, "settings": {"effort": effort}, "version": codec_version()}
        found.append((own, measure_ours, effort))
    for peer in arguments.peers:
        function, package = PEERS[peer]
        version = versions(package)[package]
        found.append(({"codec": peer, "settings": {}, "version": version}, function, peer))
    return found


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet, one after the other."""
    used, here = codecs(arguments), origin()
    for field, load in find_fields(arguments.folder, arguments.fields).items():
        array = load()
        place: Line = {
            "benchmark": "relative",
            "field": field,
            "shape": array.shape,
            "dtype": array.dtype.str,
        }
        for share, (codec, function, which) in itertools.product(arguments.bounds, used):
            line = place | {"share": share} | codec
            if line in records:
                continue
            line |= {"load": os.getloadavg()[0]}
            limits = {"seconds": arguments.timeout, "gigabytes": GIGABYTES}
            try:
                line |= isolated(function, array, share, which, **limits)
            except (UnsuitableError, LimitError, RuntimeError) as error:
                line["reason"] = str(error)
            records.add(line | here)
            print(describe(line), flush=True)


def describe(line: Line) -> str:
    """A line of progress."""
    head = f"{line['field']} {line['share']:g} {series(line)}"
    if "reason" in line:
        return f"{head}: {line['reason']}"
    speed = line["encode_cpu"] / million(line)
    return f"{head}: {nbytes(line) / line['bytes']:.2f}x, {line['beyond']} beyond, {speed:.2f} s/M to encode"


def tabulate(lines: list[Line]) -> str:
    """Markdown: the ratio of each field at each bound, and that of the best peer; then bytes beside its."""
    found: dict[tuple[str, float], dict[bool, list[Line]]] = {}
    for line in lines:
        if "bytes" in line:
            place = found.setdefault((line["field"], line["share"]), {True: [], False: []})
            place[line["codec"] == OURS].append(line)
    rows, shares = [], sorted({share for _, share in found}, reverse=True)
    relations: dict[float, list[float]] = {share: [] for share in shares}
    for field in dict.fromkeys(field for field, _ in found):
        cells = []
        for share in shares:
            own, peers = (found[field, share][ours] for ours in (True, False))
            peer = min(peers, key=lambda line: int(line["bytes"]))
            relations[share].append(own[0]["bytes"] / peer["bytes"])
            ratios = (nbytes(line) / line["bytes"] for line in (own[0], peer))
            cells.append("{:.1f}x ({:.1f}x, {})".format(*ratios, peer["codec"]))
        rows.append((field, *cells))
    for name, choose in ("median", statistics.median), ("most", max):
        values = (f"{choose(each):.2f} of the bytes" for each in relations.values())
        rows.append((f"**{name}**", *values))
    return markdown(("field", *(f"{100 * share:g} %" for share in shares)), rows)


def tables(lines: list[Line]) -> str:
    """Markdown: a table of ratios for each bound, then the largest errors and the counts."""
    lines = latest(lines)
    codecs = list(dict.fromkeys(series(line) for line in lines))
    own = next(codec for codec in codecs if codec.startswith(OURS))
    parts = []
    for share in sorted({line["share"] for line in lines}, reverse=True):
        rows, relations, speeds = [], [], []
        for field in dict.fromkeys(line["field"] for line in lines):
            found = {series(x): x for x in lines if (x["field"], x["share"]) == (field, share)}
            sizes = {codec: line["bytes"] for codec, line in found.items() if "bytes" in line}
            rivals = [size for codec, size in sizes.items() if codec != own]
            relations.append(sizes[own] / min(rivals) if rivals and own in sizes else math.nan)
            ours = found[own]
            speeds.append(ours["encode_cpu"] / million(ours) if "encode_cpu" in ours else math.nan)
            cells = [f"{nbytes(ours) / sizes[codec]:.2f}" if codec in sizes else "-" for codec in codecs]
            rows.append((field, *cells, f"{relations[-1]:.3f}", f"{speeds[-1]:.2f}"))
        middle = f"**{statistics.median(relations):.3f}**", f"**{statistics.median(speeds):.2f}**"
        rows.append(("**median**", *[""] * len(codecs), *middle))
        columns = ("field", *codecs, "bytes over the best peer's", "encode, CPU s/M")
        parts.append(f"### {share:g} of each value, ratios\n\n" + markdown(columns, rows))
    rows = []
    for codec in codecs:
        each = [line for line in lines if series(line) == codec and "largest" in line]
        worst = max((line["largest"] / line["share"] for line in each), default=math.nan)
        counts = (sum(line[name] for line in each) for name in ("values", "beyond"))
        rows.append((codec, str(len(each)), *map(str, counts), f"{worst:.7f}"))
    columns = ("codec", "streams", "values checked", "values beyond", "largest error over the bound")
    parts.append("### Largest errors\n\n" + markdown(columns, rows))
    return "\n\n".join(parts) + "\n"


# ----------------------------------------------------------------------------------- fuzz

DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def random_array(rng: np.random.Generator) -> Array:
    """An array of any dtype and byte order over decades; some with zeros, signs, NaN and infinities."""
    dtype = np.dtype(rng.choice(["<", ">"]) + rng.choice(DTYPES))
    shape = [(4000,), (60, 70), (12, 20, 18), (5, 8, 9, 11), (3, 4, 5, 6, 11)][rng.integers(5)]
    field = np.zeros(shape)
    for axis, n in enumerate(shape):
        wave = np.sin(np.linspace(0, rng.uniform(1, 9), n) + rng.uniform(0, 6))
        field = field + wave.reshape([-1 if axis == other else 1 for other in range(len(shape))])
    field = field + rng.normal(0, rng.choice([0, 0.01, 0.3, 3]), shape)
    field = (field - field.min()) / (np.ptp(field) or 1)
    if dtype.kind == "f":
        ends = np.finfo(dtype)
        least, most = math.log10(float(ends.smallest_subnormal)), math.log10(float(ends.max)) - 1e-3
        low = rng.choice([least, math.log10(float(ends.tiny)), -3.0, 0.0])
        high = min(most, rng.choice([low + 0.01, low + 1, low + 6, most]))
        array = (10.0 ** (low + field * (high - low))).astype(dtype)
    else:
        whole = np.iinfo(dtype)
        most = math.log10(float(whole.max)) - 1e-9
        array = (10.0 ** (field * rng.choice([1.0, most / 2, most]))).astype(dtype)
        array[0] = array[0] // 2 * 0 + whole.max if rng.random() < 0.2 else array[0]
    if dtype.kind != "u" and rng.random() < 0.5:
        array = np.where(
            field > rng.random() if rng.random() < 0.5 else rng.random(shape) < 0.3, -array, array
        )
        array = array.astype(dtype)
        if dtype.kind == "i" and rng.random() < 0.3:
            array.flat[7] = whole.min
    if rng.random() < 0.5:
        array[field < rng.random() if rng.random() < 0.5 else rng.random(shape) < 0.4] = 0
    if dtype.kind == "f" and rng.random() < 0.4:
        array[rng.random(shape) < 0.05], array.flat[11] = np.nan, -np.inf
    return np.asarray(array, order=rng.choice(["C", "F"]))


def count_beyond(array: Array, decoded: Array, relative: float, absolute: float) -> tuple[int, int]:
    """Count the values further off than ``max(absolute, relative |x|)``, and those looked at in fractions.

    Double precision decides where it is certain: what is clear by 1 in 10^12 and far from subnormal doubles.
    """
    same = (array == decoded) | (np.isnan(array) & np.isnan(decoded) if array.dtype.kind == "f" else False)
    x, y = array[~same], decoded[~same]
    with np.errstate(over="ignore", invalid="ignore"):
        magnitude, error = np.abs(x.astype(np.float64)), np.abs(x.astype(np.float64) - y.astype(np.float64))
        allowed = np.maximum(absolute, relative * magnitude)
        clear = (error < allowed * (1 - 1e-12)) & (error > 1e-290) & (magnitude < 2.0**52)
    beyond = sum(
        not math.isfinite(a)
        or abs(Fraction(a) - Fraction(b)) > max(Fraction(absolute), Fraction(relative) * abs(Fraction(a)))
        for a, b in zip(x[~clear].tolist(), y[~clear].tolist(), strict=True)
    )
    return beyond, int(np.count_nonzero(~clear))


def fuzz(count: int, seed: int) -> Line:
    """Encode random arrays, decode them in several ways, and count what is beyond its bound."""
    from moec_zarr.runtime import is_installed

    rng = np.random.default_rng(seed)
    total: Line = {
        "arrays": 0,
        "refused": 0,
        "fitted": 0,
        "values": 0,
        "in fractions": 0,
        "beyond": 0,
        "signs or zeros": 0,
    }
    for _ in range(count):
        array = random_array(rng)
        relative = float(rng.choice([0.7, 0.1, 0.05, 1e-2, 1e-3, 1e-4, 1e-6]))
        absolute = 0.0
        if rng.random() < 0.3:
            magnitudes = np.abs(array[np.isfinite(array)].astype(np.float64))
            absolute = float(np.quantile(magnitudes, rng.random())) * relative if magnitudes.size else 0.0
        asked = Settings(max_relative_error=relative, max_error=absolute or None, effort="fast")
        try:
            with config.set(refit="allow"):
                stream = encode(array, asked)
        except MoECError:  # values that look like fill values nobody declared
            total["refused"] += 1
            continue
        total["fitted"] += len(stream) > 8 and _is_fitted(stream)
        total["arrays"] += 1
        for decoded, original in _decodings(stream, array, is_installed("torch")):
            beyond, exactly = count_beyond(original, decoded, relative, absolute)
            total["values"] += original.size
            total["beyond"] += beyond
            total["in fractions"] += exactly
            if not absolute:
                total["signs or zeros"] += int(np.count_nonzero(_signs(original) != _signs(decoded)))
    return total


def _is_fitted(stream: bytes) -> bool:
    from moec_zarr import inspect

    return inspect(stream).kind not in ("lossless", "constant")


def _signs(array: Array) -> NDArray[Any]:
    return np.sign(np.where(np.isnan(array), 0, array) if array.dtype.kind == "f" else array)


def _decodings(stream: bytes, array: Array, has_torch: bool) -> Iterator[tuple[Array, Array]]:
    """A stream as every decoder decodes it, beside the original."""
    with config.set(cache=0, decoder="numpy"):
        yield decode(stream), array
        part = tuple(slice(n // 3, None, 2) for n in array.shape)
        yield decode(stream, part), array[part]
        with config.set(compiled=False):
            yield decode(stream), array
    if has_torch:
        with config.set(cache=0, decoder="torch"):
            yield decode(stream), array


def main(words: list[str] | None = None) -> None:
    """Measure, print the tables, write them beside the lines; or fuzz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; the simulated fields by default")
    parser.add_argument("--fields", nargs="*", default=())
    parser.add_argument("--bounds", type=float, nargs="+", default=list(BOUNDS), help="of each value")
    parser.add_argument("--efforts", nargs="+", default=["fast"], choices=EFFORTS)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds of a measurement, at most")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/relative.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the tables anew")
    parser.add_argument("--fuzz", type=int, metavar="COUNT", help="encode so many random arrays instead")
    parser.add_argument("--seed", type=int, default=0, help="of the random arrays")
    arguments = parser.parse_args(words)
    if arguments.fuzz is not None:
        found = fuzz(arguments.fuzz, arguments.seed)
        print(", ".join(f"{name} {value}" for name, value in found.items()))
        raise SystemExit(bool(found["beyond"] or found["signs or zeros"]))
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    text = tables([line for line in records.lines if line["benchmark"] == "relative"])
    arguments.results.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
