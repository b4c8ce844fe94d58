"""Order, octaves and context neighbours of coefficients, against the reference decoder."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr.bitstream.coding_order import (
    band_counts,
    bands_at,
    exponential,
    extent_of,
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
    random_context,
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
    return reference_decoder.Coefficients(axes, 1.0, np.zeros(0, bool), (), nothing)


@FEW
@given(grid_shapes, seeds)
def test_wavefronts_match_the_reference(shape, seed):
    rng = np.random.default_rng(seed)
    bases = random_bases(shape, rng)
    functions, reference = functions_of(bases, shape), reference_coefficients(bases, shape)
    present = rng.random(band_counts(functions)) < 0.5
    present.flat[rng.integers(present.size)] = True
    order = wavefronts(functions, present)
    held = present[np.ix_(*(each.bands for each in reference.bases))]
    expected = sorted((tuple(map(int, at)) for at in np.argwhere(held)), key=lambda at: (sum(at), at))
    indices = list(zip(*(i.tolist() for i in np.unravel_index(order.where, order.extent)), strict=True))
    assert indices == expected
    sums = [sum(index) for index in indices]
    assert order.starts[0] == 0
    assert order.starts[-1] == len(indices)
    for t, (first, last) in enumerate(zip(order.starts[:-1], order.starts[1:], strict=True)):
        assert set(sums[first:last]) <= {t}
    for place in rng.permutation(len(indices))[:40]:
        index = indices[place]
        assert order.octaves()[place] == reference.octave(index)
        for axis in range(len(shape)):
            neighbours = [
                -1 if at is None else int(np.ravel_multi_index(at, order.extent))
                for at in reference.context_neighbours(axis, index)
            ]
            own = order.neighbours[place, axis * AXIS_NEIGHBOURS : (axis + 1) * AXIS_NEIGHBOURS]
            assert np.where(own == math.prod(order.extent), -1, own).tolist() == neighbours


@FEW
@given(grid_shapes, seeds)
def test_context_neighbours_are_on_earlier_wavefronts(shape, seed):
    rng = np.random.default_rng(seed)
    functions = functions_of(random_bases(shape, rng), shape)
    order = wavefronts(functions, np.ones(band_counts(functions), bool))
    sums = np.append(sum(np.unravel_index(np.arange(math.prod(shape)), shape)), -1)
    assert (sums[order.neighbours] < sums[order.where][:, None]).all()


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
    assert [int(band[0]) + 1 for band in bands_at(functions, index)] == list(present.shape)


@pytest.mark.parametrize("basis", [COSINES, AxisBasis(2), AxisBasis(3, joint=True)])
def test_wavefronts_of_a_single_fine_band_may_be_empty(basis):
    functions = functions_of((basis, basis), (40, 20))
    present = np.zeros(band_counts(functions), bool)
    present[-1, -1] = True
    order = wavefronts(functions, present)
    assert order.starts[0] == order.starts[1] == 0
    assert len(order.where) == np.prod([(each.bands == each.bands[-1]).sum() for each in functions])


@FEW
@given(st.integers(1, 5), seeds)
def test_classes_match_the_formula_of_the_page(axes, seed):
    rng = np.random.default_rng(seed)
    context = random_context(axes, rng)
    magnitudes = rng.integers(0, 2 ** rng.integers(1, 16), (50, axes * AXIS_NEIGHBOURS))
    magnitudes[rng.random(magnitudes.shape) < 0.5] = 0
    octaves = rng.integers(0, 30, 50)
    classes = context.classes(magnitudes, octaves)
    for own, g, number in zip(magnitudes.tolist(), octaves.tolist(), classes.tolist(), strict=True):
        v = reference_decoder.exponential(min(max(context.floor + context.rise * g, 0), 127))
        v += sum(weight * q for weight, q in zip(context.neighbour_weights, own, strict=True))
        fine = context.power * reference_decoder.logarithm(v) + context.offset + context.slope * g
        assert number == min(max(fine // 128, 0), 63)


def test_exponential_is_within_an_eighth_octave():
    code = np.arange(128)
    value = exponential(code)
    assert [reference_decoder.exponential(k) for k in code.tolist()] == value.tolist()
    assert (np.abs(np.log2(value[24:]) - code[24:] / 8) < 1 / 8).all()
    assert (np.diff(value) >= 0).all()
