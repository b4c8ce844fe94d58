"""Linear experts fitted to what quantisation leaves of a field."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from moec_zarr.bitstream.linear_experts import read_linear_experts
from moec_zarr.fit.transform.expert_fit import fit_experts
from moec_zarr.fit.transform.restoration import restore_within
from moec_zarr.model.basis import DOUBLE, AxisBasis
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.linear_experts import RestoredField
from moec_zarr.model.transform import analyse

SHAPE = (96, 128)  # all voxels of which are looked at
BYTES = 600  # that the transform is said to take


def disc(factor=1.0):
    """A disc with a sharp edge on a slope, cut at both ends of the range."""
    y, x = np.indices(SHAPE)
    rows, columns = SHAPE
    inside = np.hypot(y - 0.46 * rows, x - 0.48 * columns) < 0.31 * rows
    field = np.where(inside, 0.6, -0.4) + 0.2 * x / columns
    return np.clip(factor * field, -1, 1).astype("f4")


def blurred(target, kept=20):
    """Coefficients of low frequencies alone."""
    bases, step = (AxisBasis(), AxisBasis()), 0.05
    integers = np.rint(analyse(target, bases)[:kept, :kept] / step).astype(np.int32)
    return Coefficients(SHAPE, bases, step, integers)


def columns(z, experts):
    """What each weight is multiplied by at each voxel, by slices of a padded field."""
    steepness = [0.0, *(2.0 ** (code // 8 - 27) * (8 + code % 8) for code in experts.steepness)]
    value = [knot / 128 for knot in experts.value]
    wide = np.pad(z, 2, mode="edge")
    up, down, left, right = wide[3:-1, 2:-2], wide[1:-3, 2:-2], wide[2:-2, 1:-3], wide[2:-2, 3:-1]
    bends = [
        up + down - 2 * z, wide[4:, 2:-2] + wide[:-4, 2:-2] - 2 * z,
        left + right - 2 * z, wide[2:-2, 4:] + wide[2:-2, :-4] - 2 * z,
    ]  # fmt: skip
    steep = [np.clip((abs(up - down) + abs(left - right) - a) / (b - a), 0, 1) for a, b in pairs(steepness)]
    level = [np.clip((z - a) / (b - a), 0, 1) for a, b in pairs(value)]
    one = np.ones(z.shape)
    taps = [height * bend for height in [one, *steep, *level] for bend in bends]
    constants = [s * v for s in [one, *steep] for v in [one, *level]]
    return np.stack([*taps, *constants]).reshape(-1, z.size).T


def pairs(knots):
    return itertools.pairwise(knots) if len(knots) > 1 else ()


def test_a_blurred_edge_is_restored_as_far_as_least_squares_can():
    target = disc()
    field = CoefficientField(blurred(target), DOUBLE)
    z = field.whole()
    found = fit_experts(z.astype("f4"), target, None, BYTES)
    assert found is not None
    before = np.square(z - target).sum()
    after = np.square(RestoredField(field, found.experts).whole() - target).sum()
    matrix = columns(z, found.experts)
    weights = np.linalg.lstsq(matrix, (target - z).ravel().astype("f8"))[0]
    least = np.square(matrix @ weights - (target - z).ravel()).sum()
    assert least <= after
    gain, most = 10 * np.log10(before / after), 10 * np.log10(before / least)
    assert gain > 2  # dB
    assert gain > 0.6 * most  # what few bits leave of it
    assert len(found.payload) < BYTES / 5
    read = read_linear_experts(found.payload, 2)
    np.testing.assert_array_equal(read.taps, found.experts.taps)
    np.testing.assert_array_equal(read.constants, found.experts.constants)
    assert replace(read, taps=0, constants=0) == replace(found.experts, taps=0, constants=0)


def test_where_weights_would_be_too_large_others_make_up_for_it(monkeypatch):
    """On a small grid least squares call for weights beyond what can be written."""
    monkeypatch.setattr(f"{__name__}.SHAPE", (64, 64))
    target = disc()
    field = CoefficientField(blurred(target, kept=25), DOUBLE)
    z = field.whole()
    found = fit_experts(z.astype("f4"), target, None, BYTES)
    weights = np.linalg.lstsq(columns(z, found.experts), (target - z).ravel().astype("f8"))[0]
    assert np.abs(weights).max() > 16
    assert max(np.abs(own).max() for own in found.experts.weights()) <= 16
    after = np.square(RestoredField(field, found.experts).whole() - target).sum()
    assert 10 * np.log10(np.square(z - target).sum() / after) > 1


def test_the_same_field_is_restored_alike_again():
    target = disc()
    z = CoefficientField(blurred(target)).whole()
    first, second = (fit_experts(z.copy(), target.copy(), None, BYTES) for _ in range(2))
    assert first.payload == second.payload


@pytest.mark.parametrize("what", ["noise", "nothing", "no valid voxel"])
def test_where_nothing_can_be_restored_there_are_none(what):
    target = disc()
    valid = np.zeros(SHAPE, bool) if what == "no valid voxel" else None
    z = CoefficientField(blurred(target)).whole()
    if what == "nothing":
        target = z
    elif what == "noise":
        z = target + np.random.default_rng(0).choice([-0.05, 0.05], SHAPE).astype("f4")
        target = z + np.random.default_rng(1).normal(0, 0.01, SHAPE).astype("f4")
    assert fit_experts(z, target, valid, BYTES) is None


def test_a_section_stays_within_its_limit():
    target = disc()
    z = CoefficientField(blurred(target)).whole()
    free = fit_experts(z, target, None, BYTES)
    found = fit_experts(z, target, None, BYTES, limit=len(free.payload) - 4)
    assert found is None or len(found.payload) <= len(free.payload) - 4
    assert fit_experts(z, target, None, BYTES, limit=3) is None


def test_values_that_do_not_count_do_not_change_experts():
    target = disc()
    z = CoefficientField(blurred(target)).whole()
    valid = np.ones(SHAPE, bool)
    valid[5:20, 30:50] = False
    other = np.where(valid, target, -0.9).astype("f4")
    assert fit_experts(z, target, valid, BYTES).payload == fit_experts(z, other, valid, BYTES).payload


@pytest.mark.parametrize("factor", [1.0, 2.5])
def test_the_mean_stays_as_right_as_it_was_once_values_are_clipped(factor):
    target = disc(factor)
    coefficients = blurred(target)
    field = CoefficientField(coefficients)
    z = field.whole()
    found = restore_within(z, target, None, -1.0, BYTES)
    assert found is not None
    experts = found.restoration.experts
    error = np.clip(RestoredField(field, experts).whole(), -1, 1).astype("f8") - target
    before = np.clip(z, -1, 1).astype("f8") - target
    assert abs(error.mean()) < max(abs(before.mean()), 1e-3 * np.abs(target + 1).mean()) + 1e-4
    assert found.error == pytest.approx(np.square(error).mean(), rel=1e-2)
    assert found.error < 0.8 * np.square(before).mean()
    if experts.shift:
        unmoved = (
            np.clip(RestoredField(field, replace(experts, shift=0)).whole(), -1, 1).astype("f8") - target
        )
        assert abs(unmoved.mean()) > abs(error.mean())
