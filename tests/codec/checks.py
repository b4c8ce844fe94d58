"""What a stream says of its own quality, checked with NumPy and the reference decoder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.conformance import reference_decoder

FLOOR = 15  # dB that the shortest fits reach on smooth fields


def assert_quality_is_stored(array: NDArray[Any], stream: bytes, decoded: NDArray[Any]) -> None:
    """The quality in the header is what NumPy computes."""
    header = reference_decoder.decode(stream)
    inner = tuple(slice(n) for n in header.bounding_box)
    array, decoded = array[inner], decoded[inner]
    valid = np.isfinite(array)
    for _, mask in header.masked_values:
        valid &= ~mask
    wanted, got = array[valid].astype("f8"), decoded[valid].astype("f8")
    peak = np.ptp(wanted)
    assert (float(header.low), float(header.high)) == (wanted.min(), wanted.max())
    mean = np.mean((wanted - got) ** 2)
    if mean:
        measured = 10 * math.log10(peak**2 / mean)
        assert header.psnr - 1e-3 <= measured <= header.psnr + 0.011
    else:
        assert header.psnr == math.inf
    error = np.abs(wanted - got).max() / peak
    assert error * (1 - 1e-9) <= header.max_error <= error * (1 + 2**-7) + 1e-9
