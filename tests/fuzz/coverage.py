"""Streams guided by the coverage of the decoder: ``python -m tests.fuzz.coverage -max_total_time=300``.

Needs atheris (the extra [fuzz]; wheels for Linux). libFuzzer or `tests.fuzz.mutations` changes the body of a
stream; the frame with a matching checksum is put before it. Arguments are libFuzzer's, for example a folder
in which the corpus grows; it starts from the frozen streams.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["moec_zarr"]):
    from moec_zarr import MoECError, config
    from tests.fuzz import run
    from tests.fuzz.mutations import mutated, taken_apart
    from tests.support.streams import with_checksum

from tests.conformance.freeze_streams import FEATURES, paths

BODY = 8  # where a stream's body begins
LONGEST = 1024


def one_input(body: bytes) -> None:
    """A body in the way that its last byte says."""
    run.attempt(with_checksum(body), body[-1] % 8 if body else 4)


def mutate(body: bytes, longest: int, seed: int) -> bytes:
    """Half of the changes are blind, the others know of sections."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        with contextlib.suppress(MoECError):
            return mutated(rng, taken_apart(with_checksum(body)))[BODY:][:longest]
    return bytes(atheris.Mutate(body, longest))


def main() -> None:
    config.set(largest=run.LARGEST, cache=0, compiled=False)
    with tempfile.TemporaryDirectory() as folder:
        for feature in FEATURES:
            (Path(folder) / feature).write_bytes(paths(feature)[0].read_bytes()[BODY:])
        limits = [f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=1500"]
        atheris.Setup([*sys.argv, folder, *limits], one_input, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
