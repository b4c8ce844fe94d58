from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from moec_zarr.demo.simulate import _advect, _mix, _stretching, simulate
from moec_zarr.errors import MoECError


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    return simulate((6, 4, 48, 40), seed=3)


def test_is_a_described_float32_dataset(weather: xr.Dataset) -> None:
    assert set(weather.data_vars) == {"temperature", "tracer", "vorticity"}
    for variable in weather.data_vars.values():
        assert variable.dims == ("time", "level", "y", "x")
        assert variable.shape == (6, 4, 48, 40)
        assert variable.dtype == np.float32
        assert variable.attrs["units"]
        assert variable.attrs["long_name"]
    assert [weather[name].units for name in ("level", "y", "x")] == ["m"] * 3
    np.testing.assert_array_equal(np.diff(weather.time), np.timedelta64(1, "h"))
    np.testing.assert_allclose(np.diff(weather.x), np.diff(weather.y)[0])
    assert weather.x.max() < 2000e3


def test_a_seed_gives_one_dataset() -> None:
    shape = (2, 2, 16, 16)
    xr.testing.assert_identical(simulate(shape, seed=5), simulate(shape, seed=5))
    assert not simulate(shape, seed=5).equals(simulate(shape, seed=6))


def test_the_first_hours_do_not_depend_on_the_number_of_hours() -> None:
    xr.testing.assert_identical(simulate((1, 2, 16, 16)), simulate((3, 2, 16, 16)).isel(time=[0]))


def test_nan_is_where_the_mountain_is(weather: xr.Dataset) -> None:
    assert not weather.temperature.isnull().any()
    assert not weather.tracer.isnull().any()
    inside = weather.vorticity.isnull()
    assert (inside == inside.isel(time=0)).all()
    area = inside.isel(time=0).sum(["y", "x"])
    assert area[0] > 0
    assert (area.diff("level") <= 0).all()


def test_values_are_those_of_an_atmosphere(weather: xr.Dataset) -> None:
    assert 200 < weather.temperature.min() < weather.temperature.max() < 310
    lapse = weather.temperature.mean(["time", "y", "x"]).differentiate("level")
    np.testing.assert_allclose(lapse, -0.0065, atol=2e-4)
    assert weather.tracer.min() >= 0
    assert weather.tracer.max() > 1
    # On a periodic plane the circulation around the edge, hence the mean vorticity, vanishes.
    free = weather.vorticity.isel(level=-1)
    assert abs(free.mean()) < 1e-3 * free.std()
    assert 1e-5 < free.std() < 1e-3


def test_hours_are_akin_and_gradients_are_sharp(weather: xr.Dataset) -> None:
    free = weather.vorticity.isel(level=-1)
    after = [float(xr.corr(free.isel(time=0), free.isel(time=hour))) for hour in (1, 5)]
    assert after[0] > 0.6
    assert after[1] < after[0] - 0.2
    # Fronts make gradients rare and strong; sums of many sines have a kurtosis of 3.
    slope = np.diff(weather.temperature.values, axis=-1)
    assert np.mean(slope**4) / np.mean(slope**2) ** 2 > 4


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 1, 9, 30), (1, 3, 33, 12)])
def test_every_shape(shape: tuple[int, int, int, int]) -> None:
    ds = simulate(shape)
    assert ds.vorticity.shape == shape
    assert ds.vorticity.isnull().any()
    assert np.isfinite(ds.temperature).all()


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (1, 1, 8), (1, 1, 7, 8), (1, 1, 8, 8, 8)])
def test_refuses_other_shapes(shape: tuple[int, int, int, int]) -> None:
    with pytest.raises(MoECError, match="shape must be"):
        simulate(shape)


def test_advection_by_whole_voxels_is_a_shift() -> None:
    fields = np.random.default_rng(0).standard_normal((2, 3, 9, 10)).astype("f4")
    courant = np.empty((2, 3, 9, 10), "f4")
    courant[0], courant[1] = 3, -12
    np.testing.assert_allclose(_advect(fields, courant), np.roll(fields, (3, -12), (2, 3)), atol=1e-6)


def test_advection_follows_a_wave_to_fourth_order() -> None:
    def error(n: int) -> float:
        phase = 2 * np.pi * np.arange(n) / n
        wave = np.sin(phase)[:, None] + np.cos(phase)
        courant = np.full((2, 1, n, n), 0.4, "f4")
        moved = np.sin(phase - 2 * np.pi * 0.4 / n)[:, None] + np.cos(phase - 2 * np.pi * 0.4 / n)
        return float(np.abs(_advect(wave.astype("f4")[None, None], courant)[0, 0] - moved).max())

    assert error(8) < 0.02
    assert 12 < error(8) / error(16) < 20


def test_advection_turns_a_body_of_fluid_round() -> None:
    n, turn = 64, 2 * np.pi / 50
    y, x = np.meshgrid(np.arange(n) - n / 2, np.arange(n) - n / 2, indexing="ij")
    courant = (turn * np.stack([x, -y])[:, None]).astype("f4")
    blob = np.exp(-((x - 10) ** 2 + y**2) / 18).astype("f4")
    moved = blob[None, None]
    for _ in range(50):
        moved = _advect(moved, courant)
    assert np.abs(moved[0, 0] - blob).max() < 0.08


def test_levels_are_coupled_by_a_second_difference() -> None:
    matrix = _stretching(5)
    spacing = 1e4 / 5
    parabola = (np.arange(5) * spacing) ** 2 / 2
    # (f/N)^2 = 1e-4 of the second derivative, which is 1; nothing passes the ends.
    np.testing.assert_allclose((matrix @ parabola)[1:-1], 1e-4, rtol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=0), 0, atol=1e-20)
    np.testing.assert_array_equal(_stretching(1), 0)


def test_mixing_keeps_the_mass() -> None:
    tracer = np.random.default_rng(1).random((4, 8, 8)).astype("f4")
    mixed = _mix(tracer)
    np.testing.assert_allclose(mixed.sum(axis=0), tracer.sum(axis=0), rtol=1e-6)
    assert np.ptp(mixed, axis=0).mean() < np.ptp(tracer, axis=0).mean()
