from __future__ import annotations

import json
import warnings
from dataclasses import asdict

import numpy as np
import pytest

from moec_zarr.statistics import PERCENTILES, Statistics, power_by_octave, statistics


def pair(dtype="f4", shape=(6, 40, 50)):
    rng = np.random.default_rng(0)
    x = rng.normal(100, 30, shape)
    return x.astype(dtype), (x + rng.normal(0.5, 2, shape)).astype(dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1", ">i4"])
@pytest.mark.parametrize("block", [1000, 2**20])
def test_figures_are_those_of_numpy(dtype, block, monkeypatch):
    monkeypatch.setattr("moec_zarr.statistics._BLOCK", block)
    x, y = pair(dtype)
    found = statistics(x, y)
    error = y.astype("f8") - x.astype("f8")
    assert found.bias == pytest.approx(error.mean())
    np.testing.assert_allclose(found.percentiles, np.percentile(abs(error), PERCENTILES), rtol=1e-5)
    np.testing.assert_allclose(found.rmse_by_index, np.sqrt((error**2).mean((1, 2))), rtol=1e-5)
    np.testing.assert_allclose(found.max_error_by_index, abs(error).max((1, 2)), rtol=1e-5)
    assert found.n_valid_by_index == (2000,) * 6


def test_masked_voxels_do_not_count():
    x, y = pair()
    x[1], x[2, :7], x[3, 0, :5] = np.nan, np.inf, -9
    y[:] = np.where((x == -9) | ~np.isfinite(x), x, y)
    found = statistics(x, y, missing=-9)
    valid = np.isfinite(x) & (x != -9)
    error = y[valid].astype("f8") - x[valid]
    assert found.bias == pytest.approx(error.mean())
    np.testing.assert_allclose(found.percentiles, np.percentile(abs(error), PERCENTILES), rtol=1e-5)
    assert found.n_valid_by_index == tuple(valid.sum((1, 2)))
    assert found.rmse_by_index[1] == 0
    assert np.isfinite(found.power).all()
    assert statistics(np.full((2, 8, 8), np.nan), np.full((2, 8, 8), np.nan)) is None


def test_large_integers_are_subtracted_exactly():
    x = np.array([[2**63 - 1, 0], [5, 7]], "i8")
    found = statistics(x, x + np.array([[-3, 1], [0, 0]]))
    assert found.bias == -0.5
    assert found.max_error_by_index == (3, 0)


def test_large_doubles_do_not_stop_a_task():
    found = statistics(np.full((2, 8, 8), -1e200), np.full((2, 8, 8), 1e200))
    assert found.percentiles == (2e200,) * 4
    assert found.max_error_by_index == (2e200, 2e200)
    assert found.rmse_by_index == (np.inf, np.inf)
    again = Statistics.from_dict(json.loads(json.dumps(asdict(found))))
    np.testing.assert_equal(asdict(again), asdict(found))


def waves(amplitudes, shape=(96, 128)):
    """Waves of 24 and 6 voxels, in the middle of their octaves, of given amplitudes."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 300 + amplitudes[0] * np.sin(2 * np.pi * x / 24) + amplitudes[1] * np.cos(2 * np.pi * y / 6)


def test_a_sinusoid_has_its_power_in_its_octave():
    x, y = (np.stack([waves(each)] * 3) for each in ((1, 1), (1, 0.5)))
    wavelengths, power, decoded = power_by_octave(x, y + 7)  # a bias is no wave
    assert wavelengths == (2, 4, 8, 16, 32, 64, 128)
    # A wave of amplitude 1 has the variance 1/2.
    assert power[[1, 3]] == pytest.approx([0.5, 0.5], rel=0.05)
    assert power.sum() == pytest.approx(1, rel=0.01)
    assert decoded[[1, 3]] / power[[1, 3]] == pytest.approx([0.25, 1], rel=1e-3)


def test_the_wavenumber_of_a_diagonal_wave_is_the_length_of_its_vector():
    y, x = np.mgrid[:96, :96]
    field = np.sin(2 * np.pi * (x + y) / 8)  # 8 voxels along each axis, 8 / sqrt(2) across
    wavelengths, power, _ = power_by_octave(field, field)
    assert power[wavelengths.index(4)] > 0.95 * power.sum()


def test_white_noise_has_equal_power_at_each_wavenumber():
    noise = np.random.default_rng(0).standard_normal((64, 64, 64))
    wavelengths, power, _ = power_by_octave(noise, noise)
    # Between two circles lies three times the area of the next smaller octave; the corners beyond the largest
    # circle are the square's, of side 1 cycle a voxel.
    quarter = np.pi * 0.25**2
    expected = {2: 1 - quarter, 4: quarter * 3 / 4, 8: quarter * 3 / 16}
    for wavelength, share in expected.items():
        assert power[wavelengths.index(wavelength)] / power.sum() == pytest.approx(share, rel=0.1)
    assert power.sum() == pytest.approx(1, rel=0.02)


def test_a_mask_leaves_the_ratio_of_octaves():
    x, y = waves((1, 1)), waves((0.5, 0.5)) + 3
    x[20:40, 30:60] = y[20:40, 30:60] = np.nan
    _, power, decoded = power_by_octave(x, y)
    assert (decoded / power)[[1, 3]] == pytest.approx([0.25, 0.25], rel=1e-6)


def test_slices_of_a_large_array_are_spread(monkeypatch):
    monkeypatch.setattr("moec_zarr.statistics._SPECTRUM_VOXELS", 2 * 96 * 128)
    x = np.stack([waves((i, 0)) for i in range(5)])
    _, power, _ = power_by_octave(x, x)
    assert power[3] == pytest.approx(np.mean([0, 16]) / 2, rel=0.05)  # the first and the last slice
    monkeypatch.setattr("moec_zarr.statistics._MOST_SIDE", 48)
    assert power_by_octave(x, x)[0][-1] == 32


@pytest.mark.parametrize("shape", [(100,), (100, 3), (4, 3, 100), ()])
def test_no_spectrum_without_a_plane(shape):
    x = np.ones(shape)
    assert power_by_octave(x, x)[0] == ()
    found = statistics(x, x + 1)
    assert found.bias == 1
    assert found.wavelengths == ()
    assert bool(found.rmse_by_index) == (len(shape) > 1)


def test_statistics_survive_json():
    found = statistics(*pair())
    assert Statistics.from_dict(json.loads(json.dumps(asdict(found)))) == found
    with pytest.raises(ValueError, match="unknown"):
        Statistics.from_dict(asdict(found) | {"skew": 0})


def test_figures_of_slices_are_those_of_numpy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 5, 6)).astype("f4") * np.array([1, 10, 100, 1000])[:, None, None].astype(
        "f4"
    )
    x[1, 2, :, :2] = np.nan
    x[2, 1] = np.nan
    x[0, 0, 0, :3] = 0
    y = x + rng.standard_normal(x.shape).astype("f4")
    y[0, 0, 0, 1:5] = 0
    found = statistics(x, y)
    assert found.slices == (3, 4)
    assert (found.zeros, found.decoded_zeros, found.kept_zeros) == (3, 4, 2)
    error = y.astype("f8") - x
    empty = np.isnan(x).all((2, 3))
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "n_valid": np.isfinite(x).sum((2, 3)),
            "rmse": np.sqrt(np.nanmean(error**2, (2, 3))),
            "max_error": np.nanmax(abs(error), (2, 3)),
            "bias": np.nanmean(error, (2, 3)),
            "low": np.nanmin(x, (2, 3)),
            "high": np.nanmax(x, (2, 3)),
            "magnitude": np.nanmean(abs(x.astype("f8")), (2, 3)),
            "deviation": np.nanstd(x.astype("f8"), (2, 3)),
        }
    for name, values in expected.items():
        figures = np.reshape(getattr(found, f"{name}_by_index"), (3, 4))
        np.testing.assert_allclose(figures, np.where(empty, 0, values), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "slices"),
    [
        ((7,), ()),
        ((7, 3), (7,)),
        ((7, 3, 2), (7,)),
        ((7, 5, 3, 2), (7, 5)),
        ((99, 99, 2, 2), (99,)),
        ((2, 3, 4, 5, 6), (2, 3, 4)),
    ],
)
def test_slices_are_of_the_last_two_axes_where_they_are_few(shape, slices):
    x = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    found = statistics(x, x + 1)
    assert found.slices == slices
    assert len(found.rmse_by_index) == (np.prod(slices) if slices else 0)


def test_records_of_older_versions_are_read():
    data = asdict(statistics(*pair()))
    old = {key: value for key, value in data.items() if key in OLD}
    found = Statistics.from_dict(json.loads(json.dumps(old)))
    assert found.slices == (len(found.rmse_by_index),)
    assert (found.zeros, found.low_by_index) == (0, ())


OLD = {
    "bias", "percentiles", "n_valid_by_index", "rmse_by_index", "max_error_by_index", "wavelengths", "power",
    "decoded_power",
}  # fmt: skip
