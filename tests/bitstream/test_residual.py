"""The section of corrections, against the reference decoder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr import compiled as compiled_module
from moec_zarr.bitstream.residual import read_residual, write_residual
from moec_zarr.config import config
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.folding import fold, folded_shape
from moec_zarr.model.residual import Residual
from tests.conformance import reference_decoder
from tests.support.decoders import assert_same_residual
from tests.support.strategies import FEW, GRIDS, grid_shapes, random_context, seeds


def random_residual(shape, rng, largest=3, share=0.1):
    corrections = rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < share)
    corrections.flat[rng.integers(corrections.size)] = largest
    return Residual(float(rng.random()), float(np.float32(rng.random())), corrections.astype(np.int32))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("shape", [*GRIDS, (2049,), (3, 4100)])
def test_round_trip(shape, compiled, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(compiled_module, "_FROM", 0)
    for largest in 1, 200, 2**20:
        residual = random_residual(shape, rng, largest)
        data = write_residual(residual, random_context(len(folded_shape(shape)), rng))
        with config.set(compiled=compiled):
            result = read_residual(data, shape)
        reference = reference_decoder.read_residual(data, shape)
        for each in result, reference:
            assert (each.bound, each.spacing) == (residual.bound, residual.spacing)
            np.testing.assert_array_equal(each.corrections, residual.corrections)


def test_no_corrections():
    data = write_residual(Residual(0.5, 0.25, None), None)
    assert len(data) == 12
    assert read_residual(data, (3, 4)) == Residual(0.5, 0.25, None)
    assert read_residual(data, ()) == Residual(0.5, 0.25, None)


@pytest.mark.parametrize("n", [1, 2, 2048, 2049, 5000, 2**21, 2**22 + 1, 2**32 - 1])
def test_folded_axes_are_short_and_hold_all_voxels(n):
    shape = folded_shape((n, 7))
    assert shape == (*reference_decoder.fold(n), 7)
    assert max(shape) <= 2048
    assert n <= np.prod(shape[:-1], dtype=np.int64) < n * 1.001 + 1


def test_folding_keeps_the_order():
    array = np.arange(3 * 4100).reshape(3, 4100)
    inner = fold(array)
    assert inner.shape == (3, 3, 1367)
    np.testing.assert_array_equal(inner.reshape(3, -1)[:, :4100], array)


@FEW
@given(grid_shapes, seeds, st.data())
def test_damaged_bytes_are_corrections_or_corrupt(shape, seed, data):
    rng = np.random.default_rng(seed)
    coded = bytearray(write_residual(random_residual(shape, rng), random_context(len(shape), rng)))
    for _ in range(data.draw(st.integers(0, 3))):
        coded[data.draw(st.integers(0, len(coded) - 1))] = data.draw(st.integers(0, 255))
    assert_same_residual(bytes(coded[: data.draw(st.integers(0, len(coded)))]), shape)


@pytest.mark.parametrize("head", [(-1.0, 1.0), (np.nan, 1.0), (np.inf, 1.0), (1.0, 0.0), (1.0, np.inf)])
def test_heads_out_of_bounds_are_corrupt(head):
    with pytest.raises(CorruptStreamError, match="bound"):
        read_residual(write_residual(Residual(*head, None), None), (3, 4))


def test_corrections_of_a_single_voxel_are_corrupt():
    data = write_residual(Residual(1.0, 1.0, None), None) + bytes(9)
    with pytest.raises(CorruptStreamError, match="single voxel"):
        read_residual(data, ())
    with pytest.raises(reference_decoder.CorruptError):
        reference_decoder.read_residual(data, ())


def test_corrections_take_the_smallest_dtype():
    rng = np.random.default_rng(0)
    for largest, dtype in (3, np.int8), (127, np.int8), (200, np.int16), (2**20, np.int32):
        data = write_residual(random_residual((9, 8), rng, largest), random_context(2, rng))
        assert read_residual(data, (9, 8)).corrections.dtype == dtype
