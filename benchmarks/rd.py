"""Bytes, quality and CPU time of this codec and of native peers, in one run on one thread.

``python -m benchmarks.rd [FOLDER]`` measures each field of a folder of ``.npz`` files (array ``data``, NaN
where there is no value), by default the package's simulated fields, at ratios and at bounds on the error of
so many times the range of the valid values: this codec with effort "fast", then SPERR, SZ3, ZFP and JPEG XL,
on integers x265 and SVT-AV1 too. A field is one chunk. Of a field of more than 2.2 million voxels as many
slices as these hold are taken, in the middle of the first axis.

- ``ratio`` is bytes of the array in its own dtype over bytes of the stream; every codec gets
  ``floor(nbytes / ratio)`` bytes at most. This codec's streams are counted whole, mask of NaN included; the
  peers' masks are free, and the search for their settings takes no time (see ``benchmarks/peers.py``).
- PSNR has the range of the data as its peak. Seconds are CPU seconds for a million voxels, the fastest of two
  in a process that is warm; nothing of a stream that is decoded is in a cache.

A measurement is a line in the file of results; what is there already is not measured again, so that a run
that was ended goes on where it stopped. Peers are measured anew beside each version of this codec, with the
settings of the first search.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

import benchmarks.one_thread  # noqa: F401

# isort: split
import numpy as np

from benchmarks.beside import medians, of_integers, target_of
from benchmarks.fields import cropped, find_fields
from benchmarks.forms import UnreachableError, UnsuitableError
from benchmarks.peers import PEERS, REPEATS, measure, peer_version
from benchmarks.records import OURS, Array, Line, Records, codec_version, million, origin
from benchmarks.speed import warm
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.errors import BudgetError
from moec_zarr.quality import absolute_error
from moec_zarr.quality import measure as quality
from moec_zarr.settings import EFFORTS, Settings

RATIOS = (1000.0, 100.0, 10.0)
BOUNDS = (1e-2, 1e-3)  # of the range


def measure_ours(array: Array, settings: Settings) -> tuple[Line, Array]:
    """This codec: bytes and CPU seconds, and the array as decoded."""
    encoding, decoding = [], []
    with config.set(cache=0, progress=False):
        for _ in range(REPEATS):
            begun = time.process_time()
            try:
                stream = encode(array, settings)
            except BudgetError as error:
                raise UnreachableError(str(error)) from error
            encoded = time.process_time()
            decoded = decode(stream)
            decoding.append(time.process_time() - encoded)
            encoding.append(encoded - begun)
    return {"bytes": len(stream), "encode_cpu": min(encoding), "decode_cpu": min(decoding)}, decoded


def errors(original: Array, decoded: Array) -> Line:
    """PSNR at data-range peak, the largest error, and how many values there are."""
    valid = np.isfinite(original)
    found = quality(original, decoded, valid)
    largest = float(absolute_error(original[valid], decoded[valid]).max())
    return {"psnr": found.psnr, "largest": largest, "values": found.n_valid}


def attempt(array: Array, line: Line, found: Line | None) -> Line:
    """What a codec makes of an array at the target of a line, or why it makes nothing."""
    budget = int(array.nbytes / line["ratio"]) if "ratio" in line else None
    try:
        if line["codec"] == OURS:
            target = {"max_error": line["bound"]} if budget is None else {"ratio": line["ratio"]}
            figures, decoded = measure_ours(array, Settings(**target, **line["settings"]))
        else:
            figures, decoded = measure(
                line["codec"], array, budget=budget, bound=line.get("bound"), found=found
            )
    except (UnreachableError, UnsuitableError) as error:
        return {"reason": str(error)}
    return figures | errors(array, decoded)


def lines_of(name: str, array: Array, arguments: argparse.Namespace, version: str) -> Iterator[Line]:
    """What identifies each measurement of a field, target after target, this codec before the peers."""
    valid = np.isfinite(array)
    span = float(array[valid].max()) - float(array[valid].min())
    place = {"benchmark": "rd", "field": name, "shape": array.shape, "dtype": array.dtype.str}
    integers = array.dtype.kind in "iu"
    targets: list[Line] = [{"ratio": ratio} for ratio in arguments.ratios]
    targets += [{"share": share, "bound": share * span} for share in arguments.bounds]
    for target in targets:
        for effort in arguments.efforts:
            yield place | target | {"codec": OURS, "settings": {"effort": effort}, "version": version}
        for peer in arguments.peers:
            if ("share" in target and not PEERS[peer].bounded) or (PEERS[peer].integers and not integers):
                continue
            own = {"codec": peer, "settings": {}, "version": peer_version(peer), "beside": version}
            yield place | target | own


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet, one after the other."""
    here, version = origin(), arguments.label or codec_version()
    for effort in arguments.efforts:
        warm(effort)
    for name, load in find_fields(arguments.folder, arguments.fields).items():
        array = cropped(load())
        for line in lines_of(name, array, arguments, version):
            if line in records:
                continue
            found = next((each["found"] for each in records.earlier(line) if "found" in each), None)
            line |= {"load": os.getloadavg()[0]}
            line |= attempt(array, line, found)
            records.add(line | here)
            print(describe(line), flush=True)


def describe(line: Line) -> str:
    """A line of progress."""
    head = f"{line['field']} {target_of(line)} {line['codec']}"
    if "reason" in line:
        return f"{head}: {line['reason']}"
    return (
        f"{head}: {line['bytes']} bytes, {line['psnr']:.2f} dB, {line['encode_cpu'] / million(line):.3f} s/M "
        f"to encode, {line['decode_cpu'] / million(line):.3f} to decode"
    )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; simulated fields without it")
    parser.add_argument("--fields", nargs="+", default=(), help="names of some of them")
    parser.add_argument("--ratios", nargs="*", type=float, default=RATIOS)
    parser.add_argument("--bounds", nargs="*", type=float, default=BOUNDS, help="over the range")
    parser.add_argument("--efforts", nargs="+", choices=EFFORTS, default=["fast"])
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--label", help="this codec's version on record; a digest of its sources without it")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/rd.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the tables anew")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure, and print the tables."""
    arguments = parse(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    print(medians(records.lines), of_integers(records.lines), sep="\n")


if __name__ == "__main__":
    main()
