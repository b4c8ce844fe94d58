"""Decode mutated streams under limits: ``python -m tests.fuzz.run --count 1000000``.

Whatever comes of a stream but an array or an error of this package is a failure: its bytes are written to
a file, and the exit code is 1. It is 1 too where a stream takes more than `CPU_SECONDS`; one that needs more
than `MEMORY` fails with a MemoryError. An interrupt ends the run with what it has found. Compiled code is
checked for indices out of bounds where ``NUMBA_BOUNDSCHECK=1`` is set.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from moec_zarr import MoECCodec, MoECError, compiled, config, inspect
from moec_zarr.bitstream.container import read_stream
from moec_zarr.codec.decode import decode
from tests.conformance.freeze_streams import DICTIONARIES, FEATURES, paths
from tests.fuzz.mutations import mutated

LARGEST = 1 << 16  # bytes that a stream may declare
CPU_SECONDS = 2.0  # that one stream may take
MEMORY = 512 << 20  # bytes by which the process may grow, in address space
_DICTIONARY = DICTIONARIES["shared"]
_CODEC = MoECCodec(ratio=10, dictionary=_DICTIONARY.text)


@dataclass
class Summary:
    """What came of the streams."""

    streams: int = 0
    arrays: int = 0
    refused: int = 0
    failures: int = 0
    cpu_seconds: float = 0.0
    worst_cpu_seconds: float = 0.0
    worst_stream: str = ""
    memory_bytes: int = 0


def attempt(stream: bytes, way: int) -> bool:
    """Whether a stream decodes, in one of several ways; raises what is not an error of this package."""
    try:
        if way == 0:
            inspect(stream)
        elif way == 1:
            header, _ = read_stream(stream)
            decode(stream, tuple(slice(n // 3, None, 2) for n in header.shape), dictionary=_DICTIONARY)
        elif way == 2:
            header, _ = read_stream(stream)
            some = all(header.shape) and bool(header.shape)
            points = tuple(np.array([n // 2, 0]) for n in header.shape) if some else None
            decode(stream, points, dictionary=_DICTIONARY)
        elif way == 3:
            _CODEC.decode(stream, out=bytearray(2880))
        else:
            decode(stream, dictionary=_DICTIONARY)
    except MoECError:
        return False
    return True


def fuzz(count: int, seed: int, folder: Path | None = None) -> Summary:
    """Decode so many mutated streams; failures are written to `folder`, or raised."""
    rng, summary = random.Random(seed), Summary()
    warnings.simplefilter("error")
    with config.set(largest=LARGEST, cache=0):
        compiled._FROM = 0
        for is_compiled in True, False:  # so that both are loaded before anything is measured
            with config.set(compiled=is_compiled):
                assert all(attempt(paths(feature)[0].read_bytes(), 4) for feature in FEATURES)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _limit_memory()
        with contextlib.suppress(KeyboardInterrupt):
            for _ in range(count):
                stream, way = mutated(rng), rng.randrange(12)
                config.set(compiled=rng.random() < 0.5)
                start = time.process_time()
                try:
                    decoded = attempt(stream, way)
                except Exception:
                    if folder is None:
                        raise
                    summary.failures += 1
                    _record(folder, stream, traceback.format_exc())
                    continue
                finally:
                    took = time.process_time() - start
                    if took > CPU_SECONDS:  # rare forms are compiled when they first occur
                        start = time.process_time()
                        with contextlib.suppress(Exception):  # it is in the summary already
                            attempt(stream, way)
                        took = time.process_time() - start
                    summary.streams += 1
                    summary.cpu_seconds += took
                    if took > summary.worst_cpu_seconds:
                        summary.worst_cpu_seconds, summary.worst_stream = took, stream.hex()
                summary.arrays += decoded
                summary.refused += not decoded
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        summary.memory_bytes = (after - before) * (1 if sys.platform == "darwin" else 1024)
    return summary


def _limit_memory() -> None:
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _record(folder: Path, stream: bytes, trace: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{hash(stream) & 0xFFFFFFFF:08x}"
    (folder / f"{stem}.moec").write_bytes(stream)
    (folder / f"{stem}.txt").write_text(trace)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    summary = fuzz(asked.count, asked.seed, asked.failures)
    print(json.dumps(asdict(summary), indent=1))
    return int(summary.failures > 0 or summary.worst_cpu_seconds > CPU_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
