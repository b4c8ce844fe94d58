"""Evaluation tile by tile: of a network, a transform and their sum, on grids and at points."""

import math
import tracemalloc

import numpy as np
import pytest

from moec_zarr.bitstream.coefficients import write_coefficients
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.features import feature_count
from moec_zarr.model.network import Network
from moec_zarr.model.tiles import tiled
from tests.conformance import reference_decoder
from tests.support.strategies import (
    random_bases,
    random_coefficients,
    random_context,
    random_network,
    random_stencils,
)

LENGTHS = {1: (50,), 2: (9, 14), 3: (6, 7, 8), 4: (3, 5, 4, 6), 5: (3, 2, 4, 3, 5)}
TOLERANCE = 1e-5


def assembled(network, field, lengths, indices=None, *, pointwise=False, **options):
    """Values on a grid or at points, put together from the tiles."""
    if indices is None:
        indices = [np.arange(n) for n in lengths]
    out = np.full([len(index) for index in (indices[:1] if pointwise else indices)], np.nan, "f4")
    for tile, values in evaluate(network, field, lengths, indices, pointwise=pointwise, **options):
        assert np.isnan(out[tile]).all()  # tiles do not overlap
        out[tile] = values
    assert np.isfinite(out).all()
    return out


def random_points(lengths, count):
    return [np.random.default_rng(axis).integers(0, n, count) for axis, n in enumerate(lengths)]


def correcting_network(lengths):
    """A transform and a network that reads it."""
    rng = np.random.default_rng(len(lengths))
    field = CoefficientField(random_coefficients(lengths, random_bases(lengths, rng), rng, largest=3))
    network = random_network(len(lengths), feature_count=feature_count(len(lengths)))
    stencils = random_stencils(len(lengths), rng)
    return Network(network.architecture, network.integers, network.codes, stencils), field


@pytest.mark.parametrize("axes", LENGTHS)
def test_points_match_the_grid(axes):
    network, lengths = random_network(axes), LENGTHS[axes]
    grid, index = assembled(network, None, lengths), random_points(lengths, 200)
    points = assembled(network, None, lengths, index, pointwise=True, tile=64)
    np.testing.assert_allclose(points, grid[tuple(index)], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("tile", [1, 7, 40, 64, 10**6])
def test_tiles_do_not_change_values(tile):
    network, lengths = random_network(3), LENGTHS[3]
    whole = assembled(network, None, lengths)
    np.testing.assert_allclose(assembled(network, None, lengths, tile=tile), whole, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("voxels", [1, 7, 40, 64, 10**6])
@pytest.mark.parametrize("lengths", LENGTHS.values())
def test_tiles_cover_the_grid_within_their_size(lengths, voxels):
    covered = np.zeros(lengths, int)
    for tile, indices in tiled([np.arange(n) for n in lengths], pointwise=False, voxels=voxels):
        covered[tile] += 1
        assert math.prod(s.stop - s.start for s in tile) <= voxels
        assert [index.tolist() for index in indices] == [list(range(s.start, s.stop)) for s in tile]
    assert (covered == 1).all()


@pytest.mark.parametrize("axes", LENGTHS)
def test_network_and_transform_add_up_as_in_the_reference(axes):
    lengths = LENGTHS[axes]
    network, field = correcting_network(lengths)
    values = assembled(network, field, lengths)
    context = random_context(axes, np.random.default_rng(0))
    coefficients = reference_decoder.read_coefficients(
        write_coefficients(field.coefficients, context), lengths
    )
    reference = reference_decoder.Network(axes, feature_count(axes), 9, 4, 6, 2)
    reference.integers = dict(zip(reference.shapes(), network.integers.values(), strict=True))
    reference.steps = dict.fromkeys(reference.integers, 2.0**-10)
    features = coefficients.features([stencil.distance + 16 * stencil.gain for stencil in network.stencils])
    expected = coefficients.values() + reference.values(reference_decoder.points(lengths), features)
    np.testing.assert_allclose(values.ravel(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("axes", LENGTHS)
def test_sum_at_points_and_in_tiles_matches_the_grid(axes):
    lengths = LENGTHS[axes]
    network, field = correcting_network(lengths)
    grid, index = assembled(network, field, lengths), random_points(lengths, 99)
    tiles = assembled(network, field, lengths, tile=20)
    np.testing.assert_allclose(tiles, grid, rtol=0, atol=1e-4)
    points = assembled(network, field, lengths, index, pointwise=True, tile=20)
    np.testing.assert_allclose(points, grid[tuple(index)], rtol=0, atol=1e-4)


def test_transform_alone_is_its_field():
    lengths = LENGTHS[3]
    _, field = correcting_network(lengths)
    np.testing.assert_allclose(assembled(None, field, lengths, tile=25), field.whole(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("lengths", "indices", "pointwise"),
    [
        ((200_000,), [np.arange(200_000)], False),
        ((40, 50, 100), [np.arange(40), np.arange(50), np.arange(100)], False),
        ((40, 50, 100), [np.zeros(200_000, int)] * 3, True),
    ],
    ids=["line", "grid", "points"],
)
def test_memory_is_that_of_a_tile(lengths, indices, pointwise):
    network, tile = random_network(len(lengths), experts=3, encoder=32, width=24), 4096
    tracemalloc.start()
    try:
        for _ in evaluate(network, None, lengths, indices, pointwise=pointwise, tile=tile):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < tile * 32 * 8 * 8  # a few tables in double precision; all voxels would be 50 MB


def test_a_network_takes_little_memory_beside_its_values():
    """Its activations are those of a tile: 2 million numbers a layer."""
    network, lengths = random_network(3, experts=2, width=16), (64, 96, 96)
    indices = [range(n) for n in lengths]
    for _ in evaluate(network, None, (4, 4, 4), [range(4)] * 3):
        pass
    tracemalloc.start()
    for _ in evaluate(network, None, lengths, indices):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
