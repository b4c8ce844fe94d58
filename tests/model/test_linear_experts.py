"""What linear experts make of a transform, against the formula voxel by voxel."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from moec_zarr import config
from moec_zarr.bitstream import kernels  # noqa: F401  # with it, compiled code takes few numbers too
from moec_zarr.model.basis import DOUBLE, SINGLE, AxisBasis
from moec_zarr.model.coefficients import CoefficientField, Coefficients
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.features import feature_count
from moec_zarr.model.linear_experts import RestoredField, restore
from moec_zarr.model.network import Network
from tests.support.strategies import (
    random_bases,
    random_coefficients,
    random_linear_experts,
    random_network,
    random_stencils,
)

LENGTHS = {1: (40,), 2: (9, 14), 3: (2, 7, 11), 4: (3, 5, 4, 6), 5: (3, 2, 4, 3, 5)}
GATES = [(0, 0), (3, 0), (0, 2), (1, 1)]  # ramps of steepness and of the value


def step(code):
    return (8 + code % 8) * 2.0 ** (code // 8 - 27)


def by_formula(z, experts):
    """Restored values, in plain loops."""
    tap, constant = map(step, experts.units)
    shift = math.copysign(step(abs(experts.shift)), experts.shift) if experts.shift else 0.0
    steep_knots = [0.0, *map(step, experts.steepness)]
    value_knots = [knot / 128 for knot in experts.value]

    def heights(value, knots):
        return [1.0] + [min(max((value - a) / (b - a), 0.0), 1.0) for a, b in itertools.pairwise(knots)]

    result = np.empty(z.shape)
    for voxel in np.ndindex(*z.shape):

        def near(axis, k, voxel=voxel):
            moved = list(voxel)
            moved[axis] = min(max(moved[axis] + k, 0), z.shape[axis] - 1)
            return float(z[tuple(moved)])

        here = float(z[voxel])
        steepness = sum(abs(near(axis, 1) - near(axis, -1)) for axis in range(z.ndim))
        steep, level = heights(steepness, steep_knots), heights(here, value_knots)
        total = here + shift
        for t, height in enumerate(steep + level[1:]):
            for axis, k in itertools.product(range(z.ndim), (1, 2)):
                bend = near(axis, k) + near(axis, -k) - 2 * here
                total += height * tap * int(experts.taps[t, axis, k - 1]) * bend
        for (j, s), (k, v) in itertools.product(enumerate(steep), enumerate(level)):
            total += constant * int(experts.constants[j, k]) * s * v
        result[voxel] = total
    return result


def field(axes, precision=DOUBLE, steep=3, level=2, shift=0):
    shape, rng = LENGTHS[axes], np.random.default_rng(axes)
    coefficients = replace(random_coefficients(shape, random_bases(shape, rng), rng), step=2.0**-5)
    experts = random_linear_experts(axes, steep, level, shift, seed=axes)
    return RestoredField(CoefficientField(coefficients, precision), experts)


@pytest.fixture(params=[True, False], ids=["compiled", "numpy"])
def compiled(request):
    with config.set(compiled=request.param):
        yield request.param


@pytest.mark.parametrize(("precision", "tolerance"), [(SINGLE, 1e-5), (DOUBLE, 1e-12)])
@pytest.mark.parametrize(
    ("axes", "gates"), [(axes, (3, 2)) for axes in LENGTHS] + [(2, gates) for gates in GATES]
)
def test_values_are_those_of_the_formula(axes, precision, tolerance, gates, compiled):
    restored = field(axes, precision, *gates, shift=-118)
    z = CoefficientField(restored.base.coefficients, DOUBLE).whole()
    expected = by_formula(z, restored.experts)
    assert np.abs(expected - z).max() > 0.01
    values = restored.whole()
    assert values.dtype == precision
    np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)


def selections(shape):
    rng = np.random.default_rng(1)
    yield [np.arange(n)[::-1] for n in shape]
    yield [np.arange(n)[::2] for n in shape]
    yield [np.arange(n // 3, n) for n in shape]
    yield [np.arange(0, n, 3)[::-1] for n in shape]
    yield [rng.integers(0, n, 4) for n in shape]
    yield [np.array([n - 1]) for n in shape]


@pytest.mark.parametrize("axes", LENGTHS)
def test_parts_and_points_are_those_of_the_whole(axes, compiled):
    restored = field(axes)
    whole = by_formula(restored.base.whole(), restored.experts)
    for indices in selections(restored.shape):
        values = restored.values(indices)
        np.testing.assert_allclose(values, whole[np.ix_(*indices)], rtol=0, atol=1e-12)
    slices = [slice(1, None)] * axes
    np.testing.assert_allclose(restored.values(slices), whole[tuple(slices)], rtol=0, atol=1e-12)
    points = [np.random.default_rng(axis).integers(0, n, 50) for axis, n in enumerate(restored.shape)]
    np.testing.assert_allclose(restored.values(points, True), whole[tuple(points)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", LENGTHS)
def test_tiles_leave_no_seams(axes, compiled):
    restored = field(axes)
    expected = by_formula(restored.base.whole(), restored.experts)
    out = np.full(restored.shape, np.nan)
    wanted = [range(n) for n in restored.shape]
    for tile, values in evaluate(None, restored, restored.shape, wanted, tile=7):
        out[tile] = values
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-12)


def test_more_rows_than_are_restored_together(compiled):
    shape = (100, 100, 2)
    rng = np.random.default_rng(0)
    coefficients = Coefficients(shape, (AxisBasis(),) * 3, 0.5, rng.integers(-9, 10, (6, 5, 2), np.int32))
    restored = RestoredField(CoefficientField(coefficients, DOUBLE), random_linear_experts(3))
    z = restored.base.whole()
    np.testing.assert_allclose(restored.whole(), by_formula(z, restored.experts), rtol=0, atol=1e-12)


def test_neighbours_are_those_of_an_axis_as_it_is_not_folded(compiled):
    """Voxels 1049 and 1050 stand on rows apart of the folded axes."""
    shape, folded = (2100, 3), (2, 1050, 3)
    rng = np.random.default_rng(0)
    integers = np.zeros(folded, np.int32)
    integers[:, :9] = rng.integers(-9, 10, (2, 9, 3))
    bases = AxisBasis(1), AxisBasis(), AxisBasis()
    restored = RestoredField(
        CoefficientField(Coefficients(shape, bases, 0.5, integers), DOUBLE), random_linear_experts(2)
    )
    z = restored.base.whole()
    assert z.shape == shape
    expected = by_formula(z, restored.experts)
    np.testing.assert_allclose(restored.whole(), expected, rtol=0, atol=1e-12)
    part = restored.values([np.arange(1048, 1053), np.arange(3)])
    np.testing.assert_allclose(part, expected[1048:1053], rtol=0, atol=1e-12)


def test_a_network_reads_restored_values(compiled):
    """Its features are those of the restored field, in units of the norm of the transform."""
    restored = field(3, SINGLE)
    network = random_network(3, 2, feature_count=feature_count(3))
    stencils = random_stencils(3, np.random.default_rng(0))
    network = Network(network.architecture, network.integers, network.codes, stencils)
    known = restored.whole()

    class Known:
        shape, norm = restored.shape, restored.base.norm

        def values(self, indices, pointwise=False):
            return known[tuple(indices) if pointwise else np.ix_(*indices)]

    wanted = [range(n) for n in restored.shape]

    def whole(own):
        out = np.empty(restored.shape)
        for tile, values in evaluate(network, own, restored.shape, wanted):
            out[tile] = values
        return out

    np.testing.assert_allclose(whole(restored), whole(Known()), rtol=0, atol=1e-4)
    assert np.abs(whole(restored) - whole(restored.base)).max() > 0.01


def test_without_experts_a_field_is_itself():
    base = field(2).base
    assert restore(base, None) is base
    experts = random_linear_experts(2)
    assert restore(base, experts) == RestoredField(base, experts)


@pytest.mark.torch
@pytest.mark.parametrize("precision", [SINGLE, DOUBLE])
@pytest.mark.parametrize("axes", LENGTHS)
def test_devices_restore_alike(axes, precision, device):
    pytest.importorskip("torch")
    from moec_zarr.model.decode_torch import evaluate_on
    from moec_zarr.model.device_torch import on_device

    restored = field(axes, precision, shift=-118)
    whole = by_formula(CoefficientField(restored.base.coefficients, DOUBLE).whole(), restored.experts)
    own = {"dtype": np.dtype("f8"), "limits": (np.float64(-64), np.float64(64))}
    half, tolerance = 64, 1e-5 if precision == SINGLE else 1e-12
    for indices in selections(restored.shape):
        for tile in None, 20:
            with on_device(device) as where:
                values = evaluate_on(where, None, restored, restored.shape, indices, tile=tile, **own)
            expected = np.clip(whole[np.ix_(*indices)], -1, 1)
            np.testing.assert_allclose(values / half, expected, rtol=0, atol=tolerance)
    points = [np.random.default_rng(axis).integers(0, n, 50) for axis, n in enumerate(restored.shape)]
    with on_device(device) as where:
        values = evaluate_on(where, None, restored, restored.shape, points, pointwise=True, **own)
    expected = np.clip(whole[tuple(points)], -1, 1)
    np.testing.assert_allclose(values / half, expected, rtol=0, atol=tolerance)
