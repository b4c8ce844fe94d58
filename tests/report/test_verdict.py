"""Verdicts: what is planted is found, what is not measured is not kept, and limits are those asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import moec_zarr
from moec_zarr.errors import MoECError
from moec_zarr.report.verdict.criteria import CRITERIA, check_criteria, limits_of, read_criteria
from moec_zarr.report.verdict.dssim import dssim
from moec_zarr.report.verdict.pairs import measure_pair
from moec_zarr.report.verdict.verdict import Judgement, Verdict, reach_verdict

LEVELS = [100_000.0, 50_000, 10_000, 7_000, 5_000]


def waves(shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    """A smooth field of mean 0 and deviation 1 in every slice."""
    noise = np.random.default_rng(seed).normal(size=shape)
    wavenumber = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1])[None])
    wavenumber[0, 0] = 1
    field = np.fft.irfft2(np.fft.rfft2(noise) / wavenumber**2, s=shape[-2:])
    field -= field.mean((-2, -1), keepdims=True)
    return np.asarray(field / field.std((-2, -1), keepdims=True))


def humidity() -> xr.DataArray:
    """Specific humidity over pressure levels: four decades from the lowest to the highest."""
    means = 10.0 ** np.array([-2, -3, -5, -5.7, -6])
    values = means[:, None, None] * np.exp(0.3 * waves((2, len(LEVELS), 16, 24)))
    coords = {
        "time": np.array(["2020-01-01", "2020-01-02"], "M8[ns]"),
        "level": ("level", LEVELS, {"units": "Pa"}),
    }
    return xr.DataArray(values.astype("f4"), coords, ("time", "level", "lat", "lon"), "q")


def rain() -> xr.DataArray:
    """Rain of which about two thirds are exact zeros."""
    values = np.maximum(8 * waves((3, 20, 30), 1) - 4, 0).astype("f4")
    return xr.DataArray(values, dims=("time", "lat", "lon"), name="pr", attrs={"units": "mm/day"})


def found(verdict: Verdict, criterion: str) -> Judgement:
    return next(each for each in verdict.judgements if each.criterion == criterion)


def test_levels_where_the_error_is_large_are_named() -> None:
    q = humidity()
    noise = np.random.default_rng(2).normal(0, 1.5e-6, q.shape)
    verdict = moec_zarr.judge(q, q + noise)
    rmse = np.sqrt((noise**2).mean((0, 2, 3)))
    share = rmse / np.sqrt((q.astype("f8") ** 2).mean(("time", "lat", "lon"))).values
    assert (share > 0.05).tolist() == [False, False, True, True, True]
    levels = found(verdict, "levels")
    assert levels.kept is False
    assert levels.value == pytest.approx(share.max(), rel=1e-3)
    assert levels.title == "levels 10000, 7000, 5000 Pa"
    assert str(verdict).startswith(
        f"q: does not keep levels 10000, 7000, 5000 Pa (error {100 * share.max():.3g} %"
    )
    exceeding = np.sqrt((noise**2).mean((2, 3))) > q.astype("f8").std(("lat", "lon")).values
    assert len(verdict.exceeding) == exceeding.sum() >= 2
    assert "time 2020-01-02, level 5000 Pa" in verdict.exceeding


@pytest.mark.parametrize(
    ("target", "kept"),
    [({"psnr": 70}, False), ({"max_relative_error": 0.01}, True)],
    ids=["psnr", "relative"],
)
def test_humidity_is_kept_by_a_relative_bound_and_not_by_a_psnr(target: dict[str, float], kept: bool) -> None:
    q = humidity()[:1]
    codec = moec_zarr.MoECCodec(**target, effort="fast")
    decoded = q.copy(data=codec.decode(codec.encode(q.values)).reshape(q.shape))
    levels = found(moec_zarr.judge(q, decoded), "levels")
    assert levels.kept is kept
    assert ("5000 Pa" in levels.title) is not kept


def test_a_third_of_the_zeros_that_go_is_said_plainly() -> None:
    pr = rain()
    decoded = pr.values.copy()
    zeros = np.flatnonzero(decoded == 0)
    changed = zeros[: round(0.29 * zeros.size)]
    decoded.flat[changed] = 1e-3
    verdict = moec_zarr.judge(pr, pr.copy(data=decoded))
    judgement = found(verdict, "zeros")
    assert judgement.kept is False
    assert judgement.value == pytest.approx(1 - changed.size / zeros.size)
    assert str(verdict).startswith("pr: does not keep zeros (71 % of them remain")
    assert found(verdict, "negative").kept


def test_no_share_is_rounded_to_all() -> None:
    values = np.zeros((200, 300), "f4")
    values[0] = 1
    decoded = values.copy()
    decoded[5, 5] = 1e-9
    judgement = found(moec_zarr.judge(values, decoded), "zeros")
    assert judgement.kept is False
    assert judgement.measured.startswith("99.99 % of them remain")


def test_zeros_that_are_few_are_no_criterion() -> None:
    values = waves((30, 40))
    values[0, 0] = 0
    judgement = found(moec_zarr.judge(values, values), "zeros")
    assert (judgement.status, judgement.kept, judgement.value) == ("does not apply", None, None)


@pytest.mark.parametrize(("shift", "kept"), [(0.0009, True), (0.0011, False), (-0.0011, False)])
def test_a_planted_bias_is_measured(shift: float, kept: bool) -> None:
    values = 10 + 2 * waves((4, 16, 16))  # the deviation, 2, is smaller than the mean
    judgement = found(moec_zarr.judge(values, values + 2 * shift), "bias")
    assert judgement.value == pytest.approx(abs(shift), rel=1e-6)
    assert judgement.kept is kept
    assert ("too high" if shift > 0 else "too low") in judgement.measured


def test_days_of_rain_are_counted() -> None:
    pr = rain()
    decoded = pr.values.copy()
    wet = np.flatnonzero(decoded >= 1)
    decoded.flat[wet[: wet.size // 10]] = 0.5
    judgement = found(moec_zarr.judge(pr, pr.copy(data=decoded)), "shares")
    before, after = (pr.values >= 1).sum(), (decoded >= 1).sum()
    assert judgement.measured.startswith("from 1 mm a day on: ")
    assert judgement.value == pytest.approx(1 - after / before)
    # Rain in kg m-2 s-1 is the same rain.
    flux = pr.copy(data=pr.values.astype("f8") / 86_400)
    flux.attrs = {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"}
    same = found(moec_zarr.judge(flux, flux.copy(data=decoded.astype("f8") / 86_400)), "shares")
    assert same.value == pytest.approx(judgement.value, abs=1e-3)


def test_thresholds_are_those_asked_for() -> None:
    values = np.arange(1000.0).reshape(20, 50)
    decoded = np.where(values >= 990, 980.0, values)
    judgement = found(moec_zarr.judge(values, decoded, criteria={"thresholds": [990]}), "shares")
    assert judgement.value == 1
    assert judgement.measured == "from 990 on: 1 % before, 0 % after"


def test_values_beyond_a_threshold_that_none_was_beyond_are_not_kept() -> None:
    original = np.linspace(0, 1, 300).reshape(3, 10, 10)
    asked = {"thresholds": [0.5, 1.2]}
    assert found(moec_zarr.judge(original, original, criteria=asked), "shares").kept
    decoded = np.where(original > 0.99, 1.3, original)
    judgement = found(moec_zarr.judge(original, decoded, criteria=asked), "shares")
    assert judgement.kept is False
    assert judgement.measured == "from 1.2 on: 0 % before, 1 % after"


def test_values_that_fall_below_zero_are_counted() -> None:
    pr = rain()
    decoded = pr.values.copy()
    decoded.flat[np.flatnonzero(decoded == 0)[:7]] = -0.01
    judgement = found(moec_zarr.judge(pr, pr.copy(data=decoded)), "negative")
    assert (judgement.kept, judgement.value) == (False, 7)
    assert found(moec_zarr.judge(waves((9, 9)), waves((9, 9))), "negative").status == "does not apply"


def test_missing_values_must_stand_where_they_stood() -> None:
    values = waves((12, 12))
    values[:3] = np.nan
    decoded = values.copy()
    assert found(moec_zarr.judge(values, decoded), "missing").kept
    decoded[0, :2], decoded[5, 5] = 1.0, np.nan
    judgement = found(moec_zarr.judge(values, decoded), "missing")
    assert (judgement.kept, judgement.value) == (False, 3)


def test_extremes_percentiles_correlation_and_largest_are_those_of_numpy() -> None:
    x = waves((4, 24, 24))
    y = x + np.random.default_rng(3).normal(0, 0.05, x.shape)
    verdict = moec_zarr.judge(x, y)
    assert found(verdict, "correlation").value == pytest.approx(
        np.corrcoef(x.ravel(), y.ravel())[0, 1], abs=1e-12
    )
    assert found(verdict, "largest").value == pytest.approx(abs(y - x).max() / np.ptp(x))
    ends = max(abs(y.min() - x.min()), abs(y.max() - x.max())) / np.ptp(x)
    assert found(verdict, "extremes").value == pytest.approx(ends)
    parts = np.percentile(x, [1, 10, 50, 90, 99]), np.percentile(y, [1, 10, 50, 90, 99])
    spread = parts[0][-1] - parts[0][0]
    assert found(verdict, "percentiles").value == pytest.approx(abs(parts[1] - parts[0]).max() / spread)
    rmse = np.sqrt(((y - x) ** 2).mean((1, 2)))
    assert found(verdict, "signal").value == pytest.approx((rmse / x.std((1, 2))).max())


def test_equal_arrays_keep_all_that_applies() -> None:
    verdict = moec_zarr.judge(humidity(), humidity())
    assert verdict.kept
    assert not verdict.of("not kept")
    assert not verdict.of("not measured")
    assert found(verdict, "dssim").value == 1


def test_places_are_named_along_the_axis_where_the_fewest_fail() -> None:
    x = 10 + waves((4, 3, 12, 12))
    y = x.copy()
    y[:, 1] += np.random.default_rng(5).normal(0, 4, y[:, 1].shape)  # so that every time fails as well
    verdict = moec_zarr.judge(xr.DataArray(x, dims=("time", "channel", "y", "x")), y)
    assert found(verdict, "levels").title == "channel index 1"
    assert found(verdict, "signal").title == "signal at channel index 1"
    y += np.random.default_rng(5).normal(0, 4, y.shape)
    assert found(moec_zarr.judge(x, y), "levels").title == "axis 0 index 0, 1, 2, 3"


def test_a_relative_bound_keeps_the_relative_error_of_sparse_values() -> None:
    """Of a dry day with one shower the error is many times the bound, over the mean magnitude."""
    original = np.zeros((5, 20, 30))
    original[:, 3, 4] = [1e-9, 1, 30, 0.1, 2]
    original[2] += 1e-6
    verdict = moec_zarr.judge(original, original * 1.02)
    assert found(verdict, "levels").value == pytest.approx(0.02)
    assert found(verdict, "levels").kept


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e150, 1e160, 1e200])
def test_what_cannot_be_computed_in_doubles_is_not_kept(scale: float) -> None:
    original = scale * (2 + np.broadcast_to(waves((4, 12, 12)) / 9, (4, 12, 12)))
    verdict = moec_zarr.judge(original, original * 1.5)
    assert {each.criterion for each in verdict.of("kept")} <= {"missing", "negative", "correlation"}
    correlation = found(verdict, "correlation").value
    assert correlation is None or correlation == pytest.approx(1, abs=1e-3)


def test_a_field_of_one_value_has_no_spectrum_that_could_be_kept() -> None:
    same = np.full((3, 12, 12), 0.1)
    assert found(moec_zarr.judge(same, same), "spectrum").kept is None
    noise = np.random.default_rng(0).normal(0, 1e-3, same.shape)
    assert found(moec_zarr.judge(same, same + noise), "spectrum").kept is False


def test_values_of_both_signs_are_held_against_their_deviation_alone() -> None:
    verdict = moec_zarr.judge(waves((3, 12, 12)), 1.01 * waves((3, 12, 12)))
    assert found(verdict, "levels").status == "does not apply"
    assert found(verdict, "signal").value == pytest.approx(0.01)


def dssim_by_windows(a: NDArray[Any], b: NDArray[Any], valid: NDArray[Any]) -> float:
    """The mean over all 11 x 11 windows, written out from the definition of Baker et al. (2024)."""
    low, high = min(a[valid].min(), b[valid].min()), max(a[valid].max(), b[valid].max())
    a, b = (np.round((each - low) / (high - low) * 255) / 255 for each in (a, b))
    place = np.arange(-5, 6)
    weights = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    gauss = weights
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            if not valid[i + 5, j + 5]:
                continue
            weights = gauss * valid[i : i + 11, j : j + 11]
            weights /= weights.sum()
            x, y = (each[i : i + 11, j : j + 11] for each in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * x * x).sum() - mx**2, (weights * y * y).sum() - my**2
            xy = (weights * x * y).sum() - mx * my
            first = (2 * mx * my + 1e-8) / (mx**2 + my**2 + 1e-8)
            values.append(first * (2 * xy + 1e-8) / (vx + vy + 1e-8))
    return float(np.mean(values))


@pytest.mark.parametrize("noise", [1e-3, 0.03, 0.5])
def test_dssim_is_that_of_its_definition(noise: float) -> None:
    x = 280 + waves((17, 21))
    y = x + np.random.default_rng(4).normal(0, noise, x.shape)
    valid = np.ones(x.shape, bool)
    assert dssim(x, y, valid) == pytest.approx(dssim_by_windows(x, y, valid), abs=1e-9)
    valid[3:9, 4:12] = False
    assert dssim(x, y, valid) == pytest.approx(dssim_by_windows(x, y, valid), abs=1e-9)


def test_dssim_leaves_out_what_is_not_valid() -> None:
    x = waves((16, 20))
    valid = np.ones(x.shape, bool)
    valid[:8] = False
    spoiled = np.where(valid, x, 1e30)
    assert dssim(spoiled, np.where(valid, x, -5.0), valid) == pytest.approx(1)
    assert dssim(x[:10], x[:10], valid[8:][:, :20].repeat(2, 0)[:10]) is None  # no window fits


def test_dssim_is_for_maps_alone() -> None:
    judgement = found(moec_zarr.judge(waves((20, 20)), waves((20, 20))), "dssim")
    assert judgement.status == "does not apply"
    assert "latitude" in judgement.measured


def test_what_is_not_measured_is_not_kept() -> None:
    verdict = reach_verdict("v", None, None, limits_of("v"))
    assert {each.status for each in verdict.judgements} == {"not measured"}
    assert all(each.measured for each in verdict.judgements)
    assert not verdict.kept
    empty = moec_zarr.judge(np.full((12, 12), np.nan), np.full((12, 12), np.nan))
    assert not empty.of("kept")


def test_without_values_of_both_only_records_are_judged() -> None:
    recorded, _ = measure_pair(rain(), rain())
    verdict = reach_verdict("pr", recorded, None, limits_of("pr"))
    by_status = {
        status: {each.criterion for each in verdict.of(status)} for status in ("kept", "not measured")
    }
    assert by_status["kept"] >= {"levels", "signal", "zeros", "bias", "largest"}
    assert by_status["not measured"] == {
        "missing",
        "shares",
        "extremes",
        "percentiles",
        "correlation",
        "dssim",
    }


def test_of_large_arrays_some_slices_are_judged_and_it_is_said() -> None:
    x = waves((6, 4, 16, 16))
    recorded, values = measure_pair(x, x, voxels=8 * 256)
    assert recorded.origin == "8 of 24 slices, compared with the source"
    assert recorded.slices is not None
    assert recorded.slices.indices == ((0, 5), (0, 1, 2, 3))
    assert values is not None
    assert values.n == 8 * 256
    middle, _ = measure_pair(x[0, 0], x[0, 0], voxels=64)
    assert middle.n_valid == 64
    assert "the middle 8 x 8 voxels" in middle.origin


def test_every_criterion_says_where_its_limit_comes_from() -> None:
    assert all(each.source and each.meaning for each in CRITERIA.values())
    verdict = moec_zarr.judge(rain(), rain(), criteria={"bias": 0.5})
    assert found(verdict, "bias").source == "as asked for"
    assert found(verdict, "dssim").source == CRITERIA["dssim"].source


def test_limits_of_a_variable_go_before_those_of_a_pattern_and_of_all() -> None:
    criteria = {
        "bias": 0.1,
        "dssim": False,
        "points": True,
        "variables": {"pr": {"bias": 0.3}, "p*": {"bias": 0.2, "thresholds": [1, 2]}},
    }
    assert limits_of("pr", criteria).limits["bias"] == 0.3
    assert limits_of("pr", criteria).thresholds == (1, 2)
    assert limits_of("ps", criteria).limits["bias"] == 0.2
    other = limits_of("t", criteria)
    assert (other.limits["bias"], other.thresholds) == (0.1, None)
    assert "dssim" not in other.limits
    assert other.limits["points"] == CRITERIA["points"].limit
    assert "points" not in limits_of("t").limits


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"bais": 1}, "no criterion 'bais'; there are levels \\(relative error\\), signal"),
        ({"bias": -1}, "at least 0"),
        ({"correlation": 99.9}, "1 at most"),
        ({"mean": 0.1}, r"bias \(mean\)"),
        ({"bias": "small"}, "got 'small'"),
        ({"bias": float("nan")}, "got nan"),
        ({"thresholds": ["a"]}, "finite numbers"),
        ({"thresholds": []}, "finite numbers"),
        ({"variables": 3}, "a table for each variable"),
        ({"variables": {"pr": 3}}, "variable 'pr'"),
        ({"variables": {"pr": {"x": 3}}}, "variable 'pr': there is no criterion 'x'"),
        ({"variables": {"q": {"bias": 1}}}, "no variable 'q'; there are 'pr'"),
        ([], "expected a mapping"),
    ],
)
def test_criteria_that_cannot_be_are_refused(criteria: Any, message: str) -> None:
    with pytest.raises(MoECError, match=message):
        check_criteria(criteria, ["pr"])


def test_criteria_are_read_from_a_file(tmp_path: Any) -> None:
    file = tmp_path / "c.toml"
    file.write_text('bias = 0.01\ndssim = false\n[variables."p*"]\nthresholds = [1, 5]\n')
    assert read_criteria(file) == {"bias": 0.01, "dssim": False, "variables": {"p*": {"thresholds": [1, 5]}}}
    file.write_text("bias = ")
    with pytest.raises(MoECError, match="no TOML file"):
        read_criteria(file)
    file.write_text("biass = 1")
    with pytest.raises(MoECError, match=r"c\.toml: there is no criterion 'biass'"):
        read_criteria(file)
    with pytest.raises(MoECError, match="cannot be read"):
        read_criteria(tmp_path / "absent.toml")


def test_datasets_are_judged_by_variable() -> None:
    ds = xr.Dataset({"pr": rain(), "twice": 2 * rain()})
    verdicts = moec_zarr.judge(ds, ds, criteria={"variables": {"twice": {"zeros": False}}})
    assert list(verdicts) == ["pr", "twice"]
    assert "zeros" not in {each.criterion for each in verdicts["twice"].judgements}
    with pytest.raises(MoECError, match="no variable 'q'"):
        moec_zarr.judge(ds, ds, criteria={"variables": {"q": {}}})
