import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moec_zarr.bitstream.container import DTYPES
from moec_zarr.bitstream.primitives import inflate, read_value, read_varint, write_value, write_varint
from moec_zarr.errors import CorruptStreamError
from tests.conformance import reference_decoder


@given(st.integers(0, 2**63 - 1), st.binary(max_size=3))
def test_varint_round_trip(value, behind):
    data = write_varint(value)
    assert len(data) == max(1, math.ceil(value.bit_length() / 7))
    assert read_varint(b"x" + data + behind, 1) == (value, 1 + len(data))
    assert reference_decoder.Reader(data).varint() == value
    for length in range(len(data)):
        with pytest.raises(CorruptStreamError):
            read_varint(data[:length], 0)


def test_varint_beyond_63_bits_is_corrupt():
    with pytest.raises(CorruptStreamError, match="63 bits"):
        read_varint(b"\xff" * 9 + b"\1", 0)


@pytest.mark.parametrize("dtype", [order + dtype for dtype in DTYPES for order in "<>"])
def test_value_round_trip(dtype):
    dtype = np.dtype(dtype)
    value = dtype.type(-1.5 if dtype.kind == "f" else 77)
    data = write_value(value, dtype)
    assert data == np.array(value, dtype.newbyteorder("<")).tobytes()
    result, offset = read_value(b"ab" + data + b"c", 2, dtype)
    assert (result, offset) == (value, 2 + dtype.itemsize)
    assert result.dtype.isnative
    with pytest.raises(CorruptStreamError, match="inside a value"):
        read_value(data[:-1], 0, dtype)


def test_inflate_takes_exactly_one_zlib_stream():
    raw = bytes(range(100))
    packed = zlib.compress(raw)
    assert inflate(packed, 100) == raw
    for data, size in ((packed, 99), (packed, 101), (packed[:-1], 100), (packed + b"x", 100), (b"abc", 100)):
        with pytest.raises(CorruptStreamError):
            inflate(data, size)


def test_inflate_stops_at_the_size():
    """Of a stream that would inflate to 64 MiB."""
    with pytest.raises(CorruptStreamError, match="11 bytes inflated, expected 10"):
        inflate(zlib.compress(bytes(1 << 26)), 10)
