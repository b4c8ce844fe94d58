# /// script
# requires-python = ">=3.11"
# dependencies = ["moec-zarr[all]", "ome-zarr>=0.18"]
#
# [tool.uv.sources]
# moec-zarr = { path = "..", editable = true }
# ///
"""An OME-Zarr image with labels, 50 times smaller: ``python examples/ome_zarr_image.py [FOLDER]``.

Nuclei and membranes of simulated cells, with the noise of a camera, in four levels. The image is converted
with the command line, and opened with ome-zarr-py before and after: names, axes, scales, channels and labels
are the same. Nuclei are then found in both. Writes ``cells.png``.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from microscope import cells, image

RATIO = 50
PHOTONS = 200  # of the brightest voxel

Found = dict[str, image.Node]


def convert(source: Path, result: Path) -> None:
    words = ["convert", source, result, "--ratio", RATIO, "--effort", "fast", "--workers", 2, "--overwrite"]
    print("$ moec-zarr", *words, flush=True)
    subprocess.run([sys.executable, "-m", "moec_zarr.cli", *map(str, words)], check=True)


def check(before: Found, after: Found) -> None:
    """What ome-zarr-py shows is the same, and labels are the same to the bit."""
    assert list(before) == list(after) == [".", "labels", "labels/nuclei"]
    for name, node in before.items():
        assert node.metadata == after[name].metadata
        for key, value in node.zarr.root_attrs.items():  # multiscales, omero, image-label
            assert after[name].zarr.root_attrs[key] == value
        for level, again in zip(node.data, after[name].data, strict=True):
            assert (level.shape, level.dtype) == (again.shape, again.dtype)
    for level, again in zip(before["labels/nuclei"].data, after["labels/nuclei"].data, strict=True):
        assert np.array_equal(level.compute(), again.compute())


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def size(array: Path) -> int:
    """Bytes of a stored array, without the records of the conversion."""
    paths = [path for path in array.rglob("*") if ".moec_zarr" not in path.parts]
    return sum(path.stat().st_size for path in paths if path.is_file())


def colours(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A colour for each nucleus that was found, that of the true one beneath it; neighbours differ."""
    numbers = [0, *(np.bincount(truth[found == each]).argmax() for each in range(1, found.max() + 1))]
    return np.ma.masked_array(np.array(numbers) * 37 % 101, np.arange(len(numbers)) == 0)[found]


def draw(pictures: list[np.ndarray], found: list[np.ndarray], truth: np.ndarray, path: Path) -> None:
    """A row for each channel: before, after, the difference; beside them the nuclei before and after."""
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    grid = figure.subplots(2, 4, subplot_kw={"xticks": [], "yticks": []})
    z, when = len(truth) // 2, ("original", "decoded")
    for row, (axes, channel) in enumerate(zip(grid, image.COLOURS, strict=True)):
        before, after = (each[row, z].astype("f4") for each in pictures)
        low, high = np.percentile(before, [1, 99.8])
        for axis, counts, name in zip(axes[:2], (before, after), when, strict=True):
            shown = axis.imshow(counts, cmap="gray", vmin=low, vmax=high)
            axis.set_title(f"{channel}, {name}")
        figure.colorbar(shown, ax=axes[:2], label="counts", shrink=0.8)
        limit = np.percentile(np.abs(after - before), 99.8)
        shown = axes[2].imshow(after - before, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes[2].set_title("decoded less original")
        figure.colorbar(shown, ax=axes[2], label="counts", shrink=0.8)
        axes[3].imshow(colours(found[row], truth)[z], cmap="hsv", vmin=0, vmax=101, interpolation="nearest")
        axes[3].set_title(f"{found[row].max()} nuclei found, {when[row]}")
        axes[3].set_facecolor("black")
    figure.suptitle(f"Simulated cells, {PHOTONS} photons at the brightest voxel; {RATIO}x")
    figure.savefig(path, dpi=100)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source, result = folder / "in.ome.zarr", folder / "out.ome.zarr"
    specimen = cells.simulate((32, 128, 128))
    image.write(source, cells.expose(specimen.light, PHOTONS), specimen.labels, cells.VOXEL)

    convert(source, result)

    nodes, again = image.read(source), image.read(result)
    check(nodes, again)
    print("ome-zarr-py reads", ", ".join(again), "with the metadata of the source")
    before, after = (each["."].data[0].compute() for each in (nodes, again))
    kept, lossless = (before.nbytes / size(each / "s0") for each in (result, source))
    print(f"the largest level is {kept:.0f} times smaller, without loss it was {lossless:.1f}")

    found = [cells.segment(each[0]) for each in (before, after)]
    truth = specimen.labels
    for name, each in zip(("original", "decoded"), found, strict=True):
        print(f"{each.max()} of {truth.max()} nuclei, Dice {dice(truth > 0, each > 0):.3f}: {name}")
    draw([before, after], found, truth, folder / "cells.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "ome_zarr_image"))
