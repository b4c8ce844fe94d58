"""The benchmark of cells: what is known of pictures and segmentations, and lines that go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cells as benchmark
from benchmarks.cells import Scene, dice, entropy, matches, noise, score
from examples.microscope import cells

SHAPE = (12, 48, 48)


@pytest.fixture(scope="module")
def specimen() -> cells.Specimen:
    return cells.simulate(SHAPE)


def test_the_noise_is_that_of_photons_and_the_camera() -> None:
    photons = 50.0
    picture = cells.expose(np.ones((40, 50, 60), "f4"), photons)
    assert picture.dtype == np.uint16
    assert picture.mean() == pytest.approx(100 + 2 * photons, rel=0.001)
    assert picture.var() == pytest.approx(4 * (photons + 1.6**2) + 1 / 12, rel=0.02)
    clean = cells.expect(np.ones(1, "f4"), photons)
    assert noise(clean)[0] == pytest.approx(picture.std(), rel=0.01)
    counts = np.bincount(picture.ravel())
    shares = counts[counts > 0] / picture.size
    assert entropy(clean) == pytest.approx(-np.sum(shares * np.log2(shares)), abs=0.02)


def test_cells_are_where_their_labels_are(specimen: cells.Specimen) -> None:
    nuclei, membranes = specimen.light
    inside = specimen.labels > 0
    assert specimen.labels.max() >= 3
    assert set(np.unique(specimen.labels)) == set(range(specimen.labels.max() + 1))
    assert specimen.light.shape == (2, *SHAPE)
    assert nuclei.max() == membranes.max() == 1
    assert nuclei[inside].mean() > 3 * nuclei[~inside].mean()
    assert membranes[inside].mean() < membranes[~inside].mean()
    again = cells.simulate(SHAPE)
    np.testing.assert_array_equal(again.light, specimen.light)


def test_balls_are_found_and_told_apart() -> None:
    z, y, x = np.indices((24, 64, 64), "f4")
    truth = np.zeros(z.shape, "u2")
    for number, (cy, cx) in enumerate([(16, 16), (16, 32), (46, 40)], 1):  # the first two touch
        truth[((z - 12) * 2) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 8.5**2] = number
    found = cells.segment(np.where(truth > 0, 400, 100).astype("u2"))
    assert found.max() == 3
    assert matches(truth, found) == 3
    assert dice(truth > 0, found > 0) > 0.9


def test_scores_of_known_masks() -> None:
    a, b = np.zeros((2, 4, 8), bool)
    a[:2] = b[1:3] = True
    assert dice(a, b) == 0.5
    labels = np.zeros((4, 8), "u2")
    labels[:2, :4], labels[2:, 4:] = 1, 2
    found = np.zeros((4, 8), "i4")
    found[:2, :4], found[2:, 6:] = 7, 3  # one right, one half of its nucleus
    assert matches(labels, found) == 1
    assert matches(labels, labels) == 2
    assert matches(labels, np.zeros_like(found)) == 0


def test_figures_of_a_picture_without_noise(specimen: cells.Specimen) -> None:
    clean = cells.expect(specimen.light[0], 300)
    picture = cells.expose(specimen.light[0], 300)
    scene = Scene(picture, clean, specimen.labels, cells.segment(picture))
    same = score(scene, picture)
    assert same["error_to_clean"] == same["dice_original"] == 1
    assert same["intensity_error"] == 0
    denoised = score(scene, np.rint(clean).astype("u2"))
    assert denoised["error_to_clean"] < 0.1
    assert denoised["psnr"] == pytest.approx(
        20 * np.log10(np.ptp(picture) / np.sqrt(np.mean(noise(clean) ** 2))), abs=0.3
    )
    brighter = score(scene, picture + np.uint16(10))
    signal = [clean[specimen.labels == each].mean() - 100 for each in range(1, specimen.labels.max() + 1)]
    assert brighter["intensity_error"] == pytest.approx(np.mean(10 / np.array(signal)))


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "warm", lambda effort: None)
    monkeypatch.setattr(benchmark, "RATIOS", (10,))
    monkeypatch.setattr(benchmark, "BOUNDS", (1,))
    path = tmp_path / "cells.jsonl"
    words = ["--photons", "100", "--shape", "12", "48", "48", "--results", str(path)]
    benchmark.main(words)
    lines = [json.loads(each) for each in path.read_text().splitlines()]
    assert [line["codec"] for line in lines] == ["zstd", "blosc", "second picture", "moec_zarr", "moec_zarr"]
    for line in lines:
        assert line["version"]
        assert line["photons"] == 100
        assert line["nuclei"] >= line["matched"]
    benchmark.main(words)
    assert path.read_text().splitlines() == [json.dumps(each) for each in lines]
    ratio, bounded = lines[3:]
    assert ratio["bytes"] <= 12 * 48 * 48 * 2 / 10
    assert bounded["bound"] == pytest.approx(2 * np.sqrt(100 + 1.6**2), abs=0.6)
