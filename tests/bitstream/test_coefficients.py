"""The section of transform coefficients, against the reference decoder."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr import compiled as compiled_module
from moec_zarr.bitstream.coding_order import present_bands
from moec_zarr.bitstream.coefficients import (
    COEFFICIENTS_PER_BYTE,
    NONZERO_PER_BYTE,
    read_coefficients,
    write_coefficients,
)
from moec_zarr.bitstream.contexts import Context
from moec_zarr.config import config
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.basis import AxisBasis
from moec_zarr.model.coefficients import Coefficients
from tests.conformance import reference_decoder
from tests.support.decoders import as_numbers, assert_same_coefficients
from tests.support.strategies import (
    COSINES,
    FEW,
    GRIDS,
    grid_shapes,
    random_bases,
    random_coefficients,
    random_context,
    seeds,
)


def assert_round_trip(coefficients, context):
    """Through the package and through the reference decoder."""
    data = write_coefficients(coefficients, context)
    result = read_coefficients(data, coefficients.shape)
    assert (result.shape, result.bases) == (coefficients.shape, coefficients.bases)
    assert result.step == coefficients.step
    np.testing.assert_array_equal(result.integers, coefficients.integers)
    reference = reference_decoder.read_coefficients(data, coefficients.shape)
    assert reference.step == coefficients.step
    assert reference.context == as_numbers(context)
    np.testing.assert_array_equal(
        reference.present, present_bands(coefficients.functions, coefficients.integers)
    )
    own = tuple(slice(n) for n in coefficients.integers.shape)
    np.testing.assert_array_equal(reference.integers[own], coefficients.integers)
    assert np.abs(reference.integers).sum() == np.abs(coefficients.integers).sum()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("shape", GRIDS)
def test_compiled_and_plain_decoders_agree(shape, compiled, monkeypatch):
    """Both read the integers that were written, large ones among them."""
    rng = np.random.default_rng(3)
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng, 2**20)
    data = write_coefficients(coefficients, random_context(len(shape), rng))
    monkeypatch.setattr(compiled_module, "_FROM", 0)
    with config.set(compiled=compiled):
        np.testing.assert_array_equal(read_coefficients(data, shape).integers, coefficients.integers)


@pytest.mark.parametrize("largest", [1, 9, 63, 64, 2**15, 2**23 - 1])
@pytest.mark.parametrize("shape", GRIDS)
def test_round_trip(shape, largest):
    rng = np.random.default_rng(largest)
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng, largest)
    assert_round_trip(coefficients, random_context(len(shape), rng))


@FEW
@given(grid_shapes, seeds, st.integers(1, 400))
def test_round_trip_of_any_shape(shape, seed, largest):
    rng = np.random.default_rng(seed)
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng, largest)
    assert_round_trip(coefficients, random_context(len(shape), rng))


@pytest.mark.parametrize("basis", [COSINES, AxisBasis(2), AxisBasis(3, joint=True)])
def test_round_trip_of_a_single_fine_coefficient(basis):
    """The first wavefronts are empty."""
    integers = np.zeros((40, 20), np.int32)
    integers[-1, -1] = -3
    context = random_context(2, np.random.default_rng(0))
    assert_round_trip(Coefficients((40, 20), (basis, basis), 0.5, integers), context)


def test_integers_need_not_fill_the_extent():
    """Fewer functions than their bands hold are extended by zeros."""
    integers = np.zeros((6, 9), np.int32)
    integers[5, 8] = 2  # in the bands of functions 3..6 and 7..14
    context = random_context(2, np.random.default_rng(0))
    data = write_coefficients(Coefficients((20, 20), (COSINES, COSINES), 0.5, integers), context)
    result = read_coefficients(data, (20, 20)).integers
    assert result.shape == (7, 15)
    assert result[5, 8] == 2
    assert np.count_nonzero(result) == 1


def test_too_many_coefficients_for_the_bytes_are_corrupt():
    """Zeros of the narrowest distribution take next to no bytes."""
    shape = (2048, 2048)
    integers = np.zeros(shape, np.int32)
    integers[-1, -1] = 1
    context = Context((0,) * 6, floor=0, rise=0, power=0, offset=0, slope=0)
    data = write_coefficients(Coefficients(shape, (AxisBasis(1), AxisBasis(1)), 0.5, integers), context)
    assert math.prod(shape) > COEFFICIENTS_PER_BYTE * len(data)
    with pytest.raises(CorruptStreamError, match="coefficients in"):
        read_coefficients(data, shape)


@pytest.mark.parametrize("compiled", [True, False])
def test_too_many_for_the_bytes_that_are_not_zero_are_corrupt(compiled, monkeypatch):
    """Ones of the widest distribution take next to no bytes: 8 a byte are read, and no more."""
    shape = (31, 31)
    context = Context((0,) * 6, floor=0, rise=0, power=0, offset=2**13 - 1, slope=0)
    ones = Coefficients(shape, (AxisBasis(), AxisBasis()), 0.5, np.ones(shape, np.int32))
    data = write_coefficients(ones, context)
    assert math.prod(shape) > NONZERO_PER_BYTE * len(data)
    monkeypatch.setattr(compiled_module, "_FROM", 0)
    with config.set(compiled=compiled):
        with pytest.raises(CorruptStreamError, match="not zero"):
            read_coefficients(data, shape)
        enough = data + bytes(math.prod(shape) // NONZERO_PER_BYTE)  # zeros, which a reader takes anyway
        np.testing.assert_array_equal(read_coefficients(enough, shape).integers, 1)


@FEW
@given(st.binary(max_size=50), st.sampled_from([(3,), (2, 12), (4, 3, 2)]))
def test_any_bytes_are_coefficients_or_corrupt(tail, shape):
    """Behind a valid step and valid weights."""
    data = b"\0" * len(shape) + np.float32(0.5).tobytes() + bytes(range(3 * len(shape))) + tail
    assert_same_coefficients(data, shape)


@FEW
@given(st.data(), st.sampled_from([(30,), (9, 12), (4, 3, 10)]))
def test_damaged_bytes_are_coefficients_or_corrupt(data, shape):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    largest = data.draw(st.sampled_from([3, 700]))
    coefficients = random_coefficients(shape, random_bases(shape, rng), rng, largest)
    coded = bytearray(write_coefficients(coefficients, random_context(len(shape), rng)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(coded) - 1))
        coded[at] = data.draw(st.integers(0, 255))
    assert_same_coefficients(bytes(coded[: data.draw(st.integers(0, len(coded)))]), shape)
