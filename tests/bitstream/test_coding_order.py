"""Order, octaves and context neighbours of coefficients, against the reference decoder."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given

from moec_zarr.bitstream.coding_order import (
    ABSENT,
    band_counts,
    coefficient_octaves,
    context_tables,
    extent_of,
    parents,
    present_bands,
    wavefronts,
)
from moec_zarr.model.basis import AXIS_NEIGHBOURS, AxisBasis, functions_of
from tests.conformance import reference_decoder
from tests.support.strategies import (
    COSINES,
    FEW,
    grid_shapes,
    random_bases,
    random_coefficients,
    seeds,
)


def reference_coefficients(bases, shape):
    """The reference decoder's view of a grid, without integers."""
    axes = []
    for basis, n in zip(bases, shape, strict=True):
        if basis.levels:
            axes.append(reference_decoder.wavelets(n, basis.levels, basis.joint))
        elif basis.edge_weights:
            axes.append(reference_decoder.graph_fourier(basis.edge_weights))
        else:
            axes.append(reference_decoder.cosines(n))
    nothing = np.zeros(shape, np.int64)
    return reference_decoder.Coefficients(tuple(shape), axes, 1.0, np.zeros(0, bool), (), nothing)


@FEW
@given(grid_shapes, seeds)
def test_wavefronts_match_the_reference(shape, seed):
    rng = np.random.default_rng(seed)
    bases = random_bases(shape, rng)
    functions, reference = functions_of(bases, shape), reference_coefficients(bases, shape)
    present = rng.random(band_counts(functions)) < 0.5
    present.flat[rng.integers(present.size)] = True
    octaves = coefficient_octaves(functions, present).whole()
    order, ends = wavefronts(octaves)
    held = present[np.ix_(*(each.bands for each in reference.bases))]
    expected = sorted(
        (tuple(map(int, at)) for at in np.argwhere(held)), key=lambda at: (sum(at), -at[-1], at)
    )
    indices = list(zip(*(i.tolist() for i in np.unravel_index(order, octaves.shape)), strict=True))
    assert indices == expected
    assert ends[-1] == len(indices)
    for first, last in pairwise([0, *ends]):
        assert len({sum(index) for index in indices[first:last]}) == 1
    for place in rng.permutation(len(indices))[:40]:
        assert octaves[indices[place]] == reference.octave(indices[place])
    assert (octaves == ABSENT).sum() == octaves.size - len(indices)


@FEW
@given(grid_shapes, seeds)
def test_context_tables_match_the_reference(shape, seed):
    """Each coefficient adds to those whose context neighbour it is, and to no other."""
    rng = np.random.default_rng(seed)
    bases = random_bases(shape, rng)
    functions, reference = functions_of(bases, shape), reference_coefficients(bases, shape)
    tables, strides = context_tables(functions, shape), context_tables(functions, shape).strides
    links = {}
    for place, index in enumerate(np.ndindex(*shape)):
        depth = min(int(tables.depth[axis, i]) for axis, i in enumerate(index))
        for slot, (axis, weight) in enumerate(tables.slots.tolist()):
            if step := int(tables.reach[slot, depth, index[axis]]):
                links[place + step * int(strides[axis]), weight] = place
    if tables.parent_weight >= 0:
        for place, parent in enumerate(parents(functions, shape).reshape(-1).tolist()):
            if parent >= 0:
                links[place, tables.parent_weight] = parent
    expected = {}
    for place, index in enumerate(np.ndindex(*shape)):
        for axis in range(len(shape)):
            for number, at in enumerate(reference.context_neighbours(axis, index)):
                if at is not None:
                    neighbour = int(np.ravel_multi_index(at, shape))
                    expected[place, axis * AXIS_NEIGHBOURS + number] = neighbour
                    assert sum(at) < sum(index)
    assert links == expected


@FEW
@given(grid_shapes, seeds)
def test_present_bands_and_extent(shape, seed):
    rng = np.random.default_rng(seed)
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng)
    functions, integers = coefficients.functions, coefficients.integers
    present = present_bands(functions, integers)
    expected = {
        tuple(int(each.bands[i]) for each, i in zip(functions, index, strict=True))
        for index in np.argwhere(integers)
    }
    assert {tuple(band) for band in np.argwhere(present).tolist()} == expected
    assert extent_of(functions, present) == integers.shape
    index = [np.array([n - 1]) for n in shape]
    assert [
        int(band[0]) + 1 for band in (each.bands[i] for each, i in zip(functions, index, strict=True))
    ] == list(present.shape)


@pytest.mark.parametrize("basis", [COSINES, AxisBasis(2), AxisBasis(3, joint=True)])
def test_wavefronts_of_a_single_fine_band(basis):
    """Those before it hold nothing, and are not there."""
    functions = functions_of((basis, basis), (40, 20))
    present = np.zeros(band_counts(functions), bool)
    present[-1, -1] = True
    order, ends = wavefronts(coefficient_octaves(functions, present).whole())
    assert ends[0] > 0
    assert len(order) == np.prod([(each.bands == each.bands[-1]).sum() for each in functions])
