"""The header: its size, the rounding of its quality, and what comes before it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr.bitstream.container import MAX_SIZE, read_stream, write_stream
from moec_zarr.codec.decode import decode
from moec_zarr.errors import CorruptStreamError, MoECError, UnsupportedVersionError
from tests.conformance import reference_decoder
from tests.support.streams import header, with_checksum


@pytest.mark.parametrize(
    "shape",
    [
        (2**32 - 1,),
        (128, 128, 128, 128, 15),
        (2**14, 2**14, 15, 1, 1),
        (2**28, 1, 1, 1, 15),
    ],
)
def test_no_header_exceeds_40_bytes(shape):
    assert np.prod(shape, dtype=object) <= MAX_SIZE
    stream = write_stream(header(shape=shape), {})
    assert len(stream) <= 40
    assert read_stream(stream)[0].shape == shape


@given(st.floats(0, 1.0), st.floats(0, 400))
def test_quality_is_rounded_to_the_safe_side(error, decibels):
    stored = reference_decoder.decode(write_stream(header("f4", (3,), max_error=error, psnr=decibels), {}))
    assert error <= stored.max_error <= error * (1 + 2**-7) + 1e-37
    assert decibels - 0.0101 <= stored.psnr <= decibels + 1e-9


def test_magic_version_and_checksum():
    stream = write_stream(header("u1", (2, 3)), {})
    assert decode(stream).tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(CorruptStreamError, match="not a MoEC stream"):
        decode(b"MoX" + stream[3:])
    with pytest.raises(UnsupportedVersionError, match=r"version 9.*version 1; .*newer release"):
        decode(with_checksum(stream[8:], version=9))
    with pytest.raises(UnsupportedVersionError, match=r"version 0.*development version .*store anew"):
        decode(with_checksum(stream[8:], version=0))
    with pytest.raises(CorruptStreamError, match="checksum"):
        decode(stream[:-1] + bytes([stream[-1] ^ 1]))
    for length in range(len(stream)):
        with pytest.raises(MoECError):
            decode(stream[:length])
