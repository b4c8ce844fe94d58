"""Streams of no axis, of no voxels and of few, with any sections: all decoders agree, or all refuse."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moec_zarr import config
from moec_zarr.bitstream.container import DTYPES
from moec_zarr.bitstream.masks import encode_mask
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.bitstream.values import write_lossless
from moec_zarr.codec.decode import decode, decode_group
from moec_zarr.errors import CorruptStreamError
from tests.conformance import reference_decoder
from tests.support.streams import coefficients_section, experts_section, with_checksum

COUNT = 400


def payload(number: int, box: tuple[int, ...], dtype: np.dtype[Any], rng: random.Random) -> bytes:
    """The bytes of a section, sound more often than not."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(12))
    axes = sum(n > 1 for n in box)
    if number == 1:
        return b"".join(map(write_varint, box)) + rng.randbytes(dtype.itemsize)
    if number == 2:
        mask = encode_mask(np.random.default_rng(rng.randrange(99)).random(box) < rng.choice((0, 0.3, 1)))
        return np.array(rng.choice((0, 3, 7))).astype(dtype).tobytes() + write_varint(len(mask)) + mask
    if number == 3:
        return write_lossless(np.full(box, rng.randrange(100), dtype))
    if number == 4:
        sizes = bytes([3, 1, 2, 1]) + bytes([112] * (axes + 5))
        return sizes + bytes([1, 9] * (axes + 5)) + rng.randbytes(6)
    if number == 5:
        return np.float64(1).tobytes() + np.float32(rng.choice((0.25, 3e38))).tobytes()
    if number == 10:
        return experts_section(words=rng.randbytes(9))
    mask = encode_mask(np.ones([1] * axes, bool))
    return coefficients_section(bytes(axes), mask=mask, coded=b"\1" + rng.randbytes(4), axes=axes)


def stream(seed: int) -> tuple[bytes, tuple[int, ...]]:
    """A stream of up to two axes, and its shape."""
    rng = random.Random(seed)
    dtype = np.dtype("<" + rng.choice(DTYPES))
    shape = tuple(rng.choice((0, 1, 2, 3)) for _ in range(rng.choice((0, 0, 1, 2))))
    ends = np.array([0, rng.choice((0, 9))], dtype)
    body = bytes([DTYPES.index(dtype.str[1:]), len(shape)]) + bytes(shape) + ends.tobytes() + bytes(4)
    box = shape
    numbers = sorted(rng.sample(range(1, 7), rng.choice((0, 1, 1, 2, 2, 3))))
    restored = [10] if rng.random() < (0.5 if 6 in numbers else 0.05) else []
    for number in numbers + restored:
        if number == 1:
            box = tuple(max(1, n - rng.randrange(2)) for n in shape)
        section = payload(number, box, dtype, rng)
        body += bytes([number]) + write_varint(len(section)) + section
    return with_checksum(body), shape


def ways(data: bytes, shape: tuple[int, ...]) -> Iterator[Callable[[], NDArray[Any]]]:
    """Call the package's decoder in all its ways."""
    yield lambda: decode(data)
    yield lambda: decode_group([data, data])[1]
    yield lambda: decode(data, tuple(slice(0, n) for n in shape))
    if shape and 0 not in shape:
        yield lambda: decode(data, tuple(i.ravel() for i in np.indices(shape))).reshape(shape)


@pytest.mark.parametrize("decoder", ["numpy", pytest.param("torch", marks=pytest.mark.torch)])
def test_all_decoders_agree_on_small_streams(decoder):
    decoded = 0
    for seed in range(COUNT):
        data, shape = stream(seed)
        try:
            reference = reference_decoder.decode(data)
        except reference_decoder.CorruptError:
            reference = None
        decoded += reference is not None
        expected = nullcontext() if reference else pytest.raises(CorruptStreamError)
        for way in ways(data, shape):
            with config.set(decoder=decoder), expected:
                found = way()
            if reference:
                assert (found.shape, found.dtype) == (reference.array.shape, reference.array.dtype)
                tolerance = 0 if np.array_equal(reference.low, reference.high) else 1e-3
                np.testing.assert_allclose(found, reference.array, atol=tolerance, rtol=0, err_msg=str(seed))
    assert decoded > COUNT / 4


def test_a_bounding_box_of_no_axis():
    """A scalar, of which a box would say that nothing lies beyond it."""
    data = bytes.fromhex("4d6f45012bf414aa04000001a00fcd3d010100")
    for way in ways(data, ()):
        with pytest.raises(CorruptStreamError, match="whole shape"):
            way()
