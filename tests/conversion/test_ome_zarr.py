"""A converted OME-Zarr opens with ome-zarr-py: the same metadata and labels, almost the same picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec
from moec_zarr.adapters.find import codec_of
from moec_zarr.conversion.work.run import convert

pytest.importorskip("ome_zarr")

from examples.microscope import cells, image

SHAPE = (16, 64, 64)
RATIO = 20


@pytest.fixture(scope="module")
def specimen() -> cells.Specimen:
    return cells.simulate(SHAPE)


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def images(
    request: pytest.FixtureRequest, specimen: cells.Specimen, tmp_path_factory: Any, client: Any
) -> tuple[Path, Path]:
    """An image in each version of OME-Zarr, and what a conversion makes of it."""
    folder = tmp_path_factory.mktemp("images")
    source, result = folder / "in.ome.zarr", folder / "out.ome.zarr"
    image.write(source, cells.expose(specimen.light, 200), specimen.labels, cells.VOXEL, request.param)
    convert(str(source), str(result), MoECCodec(ratio=RATIO, effort="fast"), client=client)
    return source, result


def test_the_image_is_compressed_and_labels_are_not(images: tuple[Path, Path]) -> None:
    before, after = (zarr.open_group(path, mode="r") for path in images)
    assert codec_of(after["s0"]) is not None
    assert codec_of(after["labels/nuclei/s0"]) is None
    assert after.metadata.zarr_format == before.metadata.zarr_format
    assert after["s0"].nchunks == 2  # one for each channel
    stored = [path for path in (images[1] / "s0").rglob("*") if ".moec_zarr" not in path.parts]
    size = sum(path.stat().st_size for path in stored if path.is_file() and path.name.isdigit())
    assert 0 < size <= before["s0"].nbytes / RATIO


def test_ome_zarr_py_shows_the_same_metadata(images: tuple[Path, Path]) -> None:
    before, after = (image.read(path) for path in images)
    assert list(before) == list(after) == [".", "labels", "labels/nuclei"]
    for name, node in before.items():
        again = after[name]
        assert [type(spec) for spec in node.specs] == [type(spec) for spec in again.specs]
        assert node.metadata == again.metadata
        assert node.zarr.version == again.zarr.version
        # The source's attributes as they were; the package may add its own beside them.
        kept = {key: again.zarr.root_attrs.get(key) for key in node.zarr.root_attrs}
        assert kept == node.zarr.root_attrs
    assert after["."].metadata["channel_names"] == ["nuclei", "membranes"]
    assert after["."].metadata["coordinateTransformations"][1][0]["scale"] == [1.0, 1.0, 1.0, 1.0]
    assert len(after["labels/nuclei"].metadata["color"]) == int(after["labels/nuclei"].data[0].max())


def test_every_level_is_there(images: tuple[Path, Path]) -> None:
    before, after = (image.read(path)["."].data for path in images)
    assert [level.shape for level in after] == [
        (2, 16, 64, 64),
        (2, 16, 32, 32),
        (2, 8, 16, 16),
        (2, 4, 8, 8),
    ]
    for level, again in zip(before, after, strict=True):
        assert again.dtype == level.dtype == np.uint16
        signal = level.compute().astype("f8")
        assert np.corrcoef(signal.ravel(), again.compute().ravel())[0, 1] > 0.9


def test_labels_are_the_same(images: tuple[Path, Path], specimen: cells.Specimen) -> None:
    before, after = (image.read(path)["labels/nuclei"].data for path in images)
    np.testing.assert_array_equal(after[0].compute(), specimen.labels)
    for level, again in zip(before, after, strict=True):
        np.testing.assert_array_equal(again.compute(), level.compute())


def render(path: Path) -> np.ndarray:
    """Draw the middle slice as a viewer does: limits and a colour for each channel, all added up."""
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 2), dpi=100)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    node = image.read(path)["."]
    shown = np.zeros((*SHAPE[1:], 3))
    for channel, (low, high), (_, colour) in zip(
        node.data[0], node.metadata["contrast_limits"], node.metadata["colormap"], strict=True
    ):
        counts = channel[SHAPE[0] // 2].compute().astype("f8")
        shown += np.clip((counts - low) / (high - low), 0, 1)[..., None] * colour
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.clip(shown, 0, 1), interpolation="nearest")
    axes.set_axis_off()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def test_a_slice_renders_as_before(images: tuple[Path, Path]) -> None:
    before, after = (render(path) for path in images)
    assert after.shape == before.shape == (200, 200, 3)
    assert after.std() > 0.1  # neither blank nor of one colour
    assert np.ptp(after, axis=(0, 1)).min() > 0.5
    error = np.abs(after - before).mean()
    assert error < 0.08
    # It shows these cells, and not just any: another slice is far off.
    assert error < np.abs(after - before[::-1]).mean() / 2
