# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""A volume of a light microscope, in 16-bit integers: ``python examples/microscopy_volume.py [FOLDER]``.

Bright cells on a dark background, with the noise of counted photons. The codec keeps the cells and drops
most of the noise: the decoded volume is closer to the clean one than the noisy original is. Writes
``volume.png``.
"""

import sys
from pathlib import Path

import numpy as np

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.report.comparison.plot import plot_comparison

RATIO = 100


def volume(shape: tuple[int, int, int] = (32, 96, 96), cells: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts of photons, and the counts that a camera has."""
    rng = np.random.default_rng(0)
    grid = np.indices(shape, dtype="f4")
    clean = np.full(shape, 20, "f4")
    for _ in range(cells):
        centre = rng.uniform(0, 1, 3) * shape
        radius, brightness = rng.uniform(3, 7), rng.uniform(200, 800)
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
        clean += brightness / (1 + np.exp(1.5 * (distance - radius)))
    return clean, rng.poisson(clean).astype("u2")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    clean, counts = volume()
    array = moec_zarr.open(
        folder / "volume.zarr",
        mode="w",
        shape=counts.shape,
        chunks=counts.shape,
        dtype=counts.dtype,
        compressor=MoECCodec(ratio=RATIO, effort="fast"),
    )
    array[:] = counts
    decoded = array[:]

    before, after = (np.sqrt(np.mean((each - clean) ** 2)) for each in (counts, decoded))
    print(f"{counts.nbytes / array.nbytes_stored():.0f} times smaller, with metadata")
    print(f"distance from the clean volume: {before:.1f} photons measured, {after:.1f} decoded")
    psnr = moec_zarr.compare(counts, decoded).psnr
    plot_comparison(counts, decoded, folder / "volume.png", title="photons", ratio=RATIO, psnr=psnr)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "microscopy_volume"))
