# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""A simulation that writes while it runs: ``python examples/running_simulation.py [FOLDER]``.

Steps are collected until they fill a chunk, and only then appended: each chunk is fitted once, on exact
values. The store can be read at any time. Writes ``waves.png``.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.report.comparison.plot import plot_comparison

STEPS = 8  # of a chunk


def simulation(steps: int, n: int = 64) -> Iterator[np.ndarray]:
    """Waves on a membrane that is held at its edges, by leapfrog steps."""
    y, x = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")
    now = np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.01)
    before = now.copy()
    for _ in range(steps):
        for _ in range(4):
            curvature = np.zeros_like(now)
            curvature[1:-1, 1:-1] = (
                now[:-2, 1:-1] + now[2:, 1:-1] + now[1:-1, :-2] + now[1:-1, 2:] - 4 * now[1:-1, 1:-1]
            )
            now, before = 2 * now - before + 0.25 * curvature, now
        yield now.astype("f4")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    array = moec_zarr.open(
        folder / "waves.zarr",
        mode="w",
        shape=(0, 64, 64),
        chunks=(STEPS, 64, 64),
        dtype="f4",
        compressor=MoECCodec(psnr=45, effort="fast"),
    )
    waiting: list[np.ndarray] = []
    computed: list[np.ndarray] = []  # only to compare with at the end
    for step in simulation(4 * STEPS):
        waiting.append(step)
        if len(waiting) == STEPS:
            array.append(np.stack(waiting))
            computed += waiting
            waiting.clear()
            print(f"{array.shape[0]} steps in {array.nbytes_stored()} bytes")

    original = np.stack(computed)
    psnr = moec_zarr.compare(original, array).psnr
    ratio = array.nbytes / array.nbytes_stored()
    print(f"{psnr:.1f} dB, {ratio:.0f} times smaller with metadata")
    plot_comparison(original, array[:], folder / "waves.png", title="waves", ratio=ratio, psnr=psnr)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "running_simulation"))
