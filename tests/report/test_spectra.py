"""Spectra of slices, against waves whose wavenumber and variance are known."""

from __future__ import annotations

import numpy as np
import pytest

from moec_zarr.report.comparison.spectra import spectrum

SIDE = 64
Y, X = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
EVERYWHERE = np.ones((SIDE, SIDE), bool)


def wave(cycles_y: int, cycles_x: int, amplitude: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * (cycles_y * Y + cycles_x * X) / SIDE)


@pytest.mark.parametrize(("cycles_y", "cycles_x"), [(0, 8), (8, 0), (6, 8), (-12, 5)])
def test_the_variance_of_a_wave_stands_at_its_wavenumber(cycles_y: int, cycles_x: int) -> None:
    field = wave(cycles_y, cycles_x, 3.0)
    found = spectrum([(field, field / 2, EVERYWHERE)])
    assert found is not None
    expected = np.hypot(cycles_y, cycles_x) / SIDE
    peak = found.wavenumber[found.original.argmax()]
    assert peak == pytest.approx(expected, abs=0.51 / SIDE)
    near = abs(found.wavenumber - expected) < 2.6 / SIDE  # the window spreads a wave over its neighbours
    assert found.original[near].sum() == pytest.approx(3.0**2 / 2, rel=0.02)
    np.testing.assert_allclose(found.decoded, found.original / 4, rtol=1e-9)


def test_spectra_part_where_short_waves_are_lost() -> None:
    rng = np.random.default_rng(0)
    field = rng.standard_normal((SIDE, SIDE))
    waves = np.fft.fft2(field)
    k = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None, :])
    smooth = np.fft.ifft2(np.where(k <= 0.25, waves, 0)).real
    found = spectrum([(field, smooth, EVERYWHERE)])
    assert found is not None
    assert found.parting == pytest.approx(0.25, abs=2 / SIDE)
    same = spectrum([(field, field, EVERYWHERE)])
    assert same is not None
    assert same.parting is None


def test_slices_count_alike_and_masked_voxels_do_not() -> None:
    both = spectrum([(wave(0, 8), wave(0, 8), EVERYWHERE), (wave(0, 16), wave(0, 16), EVERYWHERE)])
    assert both is not None
    assert both.original[7] == pytest.approx(both.original[15], rel=1e-3)
    masked = EVERYWHERE.copy()
    masked[20:30, 20:30] = False
    field = np.where(masked, wave(0, 8), np.nan)
    found = spectrum([(field, field, masked)])
    assert found is not None
    assert np.isfinite(found.original).all()
    assert found.wavenumber[found.original.argmax()] == pytest.approx(8 / SIDE)


def test_none_where_there_is_nothing_to_see() -> None:
    assert spectrum([]) is None
    assert spectrum([(np.zeros((7, 90)), np.zeros((7, 90)), np.ones((7, 90), bool))]) is None
    assert spectrum([(wave(1, 1), wave(1, 1), ~EVERYWHERE)]) is None
    assert spectrum([(np.ones((9, 9)), np.ones((9, 9)), np.ones((9, 9), bool))]) is None


def test_none_where_squares_overflow() -> None:
    assert spectrum([(wave(1, 1, 1e200), wave(1, 1, 1e200), EVERYWHERE)]) is None
