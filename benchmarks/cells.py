"""Cells under a microscope before and after: what the codec does to noise, and to a segmentation.

``python -m benchmarks.cells`` simulates cells (``examples/microscope/cells.py``), takes pictures of their
nuclei at several numbers of photons, and encodes each picture at several ratios and within several bounds,
on one thread. Of each decoded picture: its error against the picture and against the image without noise,
the nuclei that a plain segmentation finds in it, and how bright they are. Beside it lossless codecs, whose
decoded picture is the picture itself, and a second picture of the same cells, which shows what noise alone
does to a segmentation.

A measurement is a line in the file of results; what is there already is not measured again.
``python -m benchmarks.tables`` makes the tables of the pages from the lines.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import benchmarks.one_thread  # noqa: F401

# isort: split
import numcodecs
import numpy as np
from scipy import ndimage

from benchmarks.records import OURS, Array, Line, Records, codec_version, origin, quality
from benchmarks.speed import warm
from examples.microscope import cells
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.settings import Settings

SHAPE = (64, 256, 256)
PHOTONS = (10, 30, 100, 1000)  # of the brightest voxel
RATIOS = (5, 10, 20, 50, 100, 300, 1000)
BOUNDS = (0.5, 1, 2, 4)  # over the noise of the brightest voxel
SECOND = "second picture"
LOSSLESS = {
    "zstd": numcodecs.Zstd(level=9),
    "blosc": numcodecs.Blosc("zstd", clevel=9, shuffle=numcodecs.Blosc.BITSHUFFLE),
}


class Scene(NamedTuple):
    """A picture, the counts that it would have without noise, and where nuclei are and were found."""

    picture: Array
    clean: Array
    labels: Array
    found: Array


def noise(clean: Array) -> Array:
    """Standard deviation of the noise of each voxel in counts: shot noise, read noise, rounding."""
    photons = (clean - cells.OFFSET) / cells.GAIN
    return np.sqrt(cells.GAIN**2 * (photons + cells.READ_NOISE**2) + 1 / 12)


def entropy(clean: Array) -> float:
    """Bits a voxel that the noise has: of a normal distribution, log2(sigma sqrt(2 pi e))."""
    return float(np.mean(np.log2(noise(clean.astype("f8"))) + np.log2(2 * np.pi * np.e) / 2))


def dice(a: Array, b: Array) -> float:
    """Twice the voxels of both masks over those of each."""
    return float(2 * np.sum(a & b) / (a.sum() + b.sum()))


def matches(labels: Array, found: Array) -> int:
    """Count the nuclei that share more than half of their union with one that was found."""
    pairs, common = np.unique(labels.astype("i8") << 32 | found, return_counts=True)
    parts = pairs >> 32, pairs & (2**32 - 1)
    sizes = (np.bincount(each.ravel())[part] for each, part in zip((labels, found), parts, strict=True))
    right = (common > (sum(sizes) - common) / 2) & (parts[0] > 0) & (parts[1] > 0)
    return int(right.sum())


def score(scene: Scene, decoded: Array) -> Line:
    """Compare a decoded picture with the picture, with the image without noise, and with the cells."""
    nuclei, found = np.arange(1, scene.labels.max() + 1), cells.segment(decoded)
    before, after, clean = (
        ndimage.mean(each, scene.labels, nuclei) for each in (scene.picture, decoded, scene.clean)
    )
    errors = [np.sqrt(np.mean((each - scene.clean) ** 2)) for each in (decoded, scene.picture)]
    return {
        "psnr": quality(scene.picture, decoded)["psnr"],
        "error_to_clean": float(errors[0] / errors[1]),
        "nuclei": len(nuclei),
        "found": int(found.max()),
        "matched": matches(scene.labels, found),
        "dice_truth": dice(scene.labels > 0, found > 0),
        "dice_original": dice(scene.found > 0, found > 0),
        "intensity_error": float(np.mean(np.abs(after - before) / (clean - cells.OFFSET))),
    }


def measure_ours(scene: Scene, settings: Settings) -> Line:
    """This codec."""
    with config.set(cache=0, progress=False):
        begun = time.process_time()
        stream = encode(scene.picture, settings)
        encoded = time.process_time() - begun
        decoded = decode(stream)
    return {"bytes": len(stream), "encode_cpu": encoded} | score(scene, decoded)


def measure_lossless(scene: Scene, name: str) -> Line:
    """A codec that changes nothing: its figures are those of the picture itself."""
    return {"bytes": len(LOSSLESS[name].encode(scene.picture))} | score(scene, scene.picture)


def work(scene: Scene, light: Array, photons: float) -> Iterator[tuple[Line, Callable[[], Line]]]:
    """What identifies each measurement of a picture, and what makes it."""
    simulation = {"version": codec_version(Path(cells.__file__), Path(__file__))}
    for name in LOSSLESS:
        line = {"codec": name, "settings": LOSSLESS[name].get_config(), "version": numcodecs.__version__}
        yield line, lambda name=name: measure_lossless(scene, name)
    again = {"codec": SECOND, "settings": {}} | simulation
    yield again, lambda: score(scene, cells.expose(light, photons, seed=1))
    ours = {"codec": OURS, "settings": {"effort": "fast"}} | simulation
    for ratio in RATIOS:
        settings = Settings(ratio=ratio, effort="fast")
        yield ours | {"ratio": ratio}, lambda settings=settings: measure_ours(scene, settings)
    for share in BOUNDS:
        bound = round(share * float(noise(scene.clean).max()))
        settings = Settings(max_error=bound, effort="fast")
        yield (
            ours | {"share": share, "bound": bound},
            lambda settings=settings: measure_ours(scene, settings),
        )


def main(words: list[str] | None = None) -> None:
    """Make every measurement that is not on record yet, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photons", type=float, nargs="+", default=list(PHOTONS))
    parser.add_argument("--shape", type=int, nargs=3, default=list(SHAPE))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/cells.jsonl"))
    arguments = parser.parse_args(words)
    records, here = Records(arguments.results), origin()
    specimen = cells.simulate(tuple(arguments.shape))
    light = specimen.light[cells.CHANNELS.index("nuclei")]
    warm("fast")
    for photons in arguments.photons:
        picture = cells.expose(light, photons)
        scene = Scene(picture, cells.expect(light, photons), specimen.labels, cells.segment(picture))
        place = {"benchmark": "cells", "field": f"nuclei_{photons:g}_photons", "shape": picture.shape}
        place |= {"dtype": picture.dtype.str}
        for line, measure in work(scene, light, photons):
            line = place | line
            if line in records:
                continue
            line |= {"photons": photons, "entropy": entropy(scene.clean), "load": os.getloadavg()[0]}
            line |= measure()
            records.add(line | here)
            print({key: line.get(key) for key in ("photons", "codec", "ratio", "bound", "found")}, flush=True)


if __name__ == "__main__":
    main()
