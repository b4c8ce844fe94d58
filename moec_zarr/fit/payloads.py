"""Sections as the encoder writes them, with the best distributions, or the reason why they do not fit."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Bools, Doubles
from moec_zarr.bitstream.coding_order import extent_of, present_bands
from moec_zarr.bitstream.coefficients import (
    COEFFICIENTS_PER_BYTE,
    NONZERO_PER_BYTE,
    write_bases,
    write_coefficients,
    write_context,
)
from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.contexts import MAX_COEFFICIENT, Context
from moec_zarr.bitstream.network import fits, write_network
from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE, TAILS, WIDTHS, frequencies
from moec_zarr.bitstream.shared import find_entry
from moec_zarr.dictionary import Dictionary
from moec_zarr.model.coefficients import Coefficients
from moec_zarr.model.network import Network

__all__ = [
    "DoesNotFit",
    "choose_distribution",
    "encode_after_entry",
    "encode_any_network",
    "encode_coefficients",
    "encode_network",
]

_SEARCH_BITS = 9  # of the magnitudes among which the best distribution is searched


class DoesNotFit(Exception):  # noqa: N818  # control flow within a fit, never seen outside
    """Raised when integers are too large to be coded, or no quantisation meets the byte budget.

    A network whose training diverges has none either.
    """


def encode_coefficients(coefficients: Coefficients, context: Context) -> bytes:
    """Encode the section of transform coefficients.

    Raises
    ------
    DoesNotFit
        As :func:`encode_after_entry` does.
    """
    return encode_after_entry(coefficients, context, None)[0]


def encode_after_entry(
    coefficients: Coefficients, context: Context, shared: Dictionary | None
) -> tuple[bytes, int | None]:
    """Encode the section of transform coefficients, but for what a dictionary holds of it.

    Returns
    -------
    data : bytes
    entry : int or None
        Number of the dictionary's entry that comes before them.

    Raises
    ------
    DoesNotFit
        If an integer is too large, or a decoder would refuse so many coefficients in so few bytes.
    """
    integers, functions = coefficients.integers, coefficients.functions
    largest = max(int(integers.max(initial=0)), -int(integers.min(initial=0)))
    if largest > MAX_COEFFICIENT:
        raise DoesNotFit(f"coefficient of {largest} steps, at most {MAX_COEFFICIENT} can be coded")
    present = present_bands(functions, integers)
    data, entry = _write_shared(coefficients, context, present, shared)
    extent = extent_of(functions, present)
    if math.prod(extent) > COEFFICIENTS_PER_BYTE * len(data):
        raise DoesNotFit(f"{extent} coefficients are too many for {len(data)} bytes")
    if (nonzero := np.count_nonzero(integers)) > NONZERO_PER_BYTE * len(data):
        raise DoesNotFit(f"{nonzero} coefficients that are not zero are too many for {len(data)} bytes")
    return data, entry


def _write_shared(
    coefficients: Coefficients, context: Context, present: Bools, shared: Dictionary | None
) -> tuple[bytes, int | None]:
    head = write_bases(coefficients.bases) + write_context(context)
    if find_entry(shared, Section.TRANSFORM, head) is None:
        return write_coefficients(coefficients, context, present=present), None
    data = write_coefficients(coefficients, context, step_last=True, present=present)
    found = find_entry(shared, Section.TRANSFORM, data)
    assert found is not None
    number, length = found
    return data[length:], number


def encode_network(network: Network) -> bytes:
    """Encode the section of a network, each tensor with the distribution that suits it best.

    Raises
    ------
    DoesNotFit
        If an integer is too large, or a decoder would refuse so many weights in so few bytes.
    """
    data = encode_any_network(network)
    if not fits(network.architecture, len(data)):
        raise DoesNotFit(f"{network.architecture} is too large for {len(data)} bytes")
    return data


def encode_any_network(network: Network) -> bytes:
    """Encode the same, whether or not a decoder takes so many weights in so few bytes.

    Raises
    ------
    DoesNotFit
        If an integer is too large.
    """
    return write_network(network, {name: choose_distribution(t) for name, t in network.integers.items()})


def choose_distribution(integers: NDArray[np.integer[Any]]) -> int:
    """Find the code of the cheapest distribution, downhill from the Gaussian of the integers' own width.

    See :func:`moec_zarr.bitstream.range_coder.frequencies`.

    Raises
    ------
    DoesNotFit
        If an integer is larger than can be coded.
    """
    magnitudes = np.abs(np.asarray(integers, np.int64).ravel())
    largest = int(magnitudes.max(initial=0))
    if largest > MAX_MAGNITUDE:
        raise DoesNotFit(f"integer of magnitude {largest}, at most {MAX_MAGNITUDE} can be coded")
    if not largest:
        return 0
    # A code's width is relative, hence large values can be scaled down: the search stays fast.
    shift = max(0, largest.bit_length() - _SEARCH_BITS)
    magnitudes, largest = magnitudes >> shift, largest >> shift
    counts = np.bincount(magnitudes, minlength=largest + 1)

    def cost(code: int) -> float:
        return float(counts @ _magnitude_bits(largest, code))

    narrow = -2 * np.log2(np.sqrt(np.mean(np.square(magnitudes + 0.5))) / (largest + 1))
    code = 6 * WIDTHS + int(np.clip(4 * narrow, 0, WIDTHS - 1))
    costs = {code: cost(code)}
    while True:
        tail, width = divmod(code, WIDTHS)
        for t, w in ((tail - 1, width), (tail + 1, width), (tail, width - 1), (tail, width + 1)):
            if 0 <= t < TAILS and 0 <= w < WIDTHS and t * WIDTHS + w not in costs:
                costs[t * WIDTHS + w] = cost(t * WIDTHS + w)
        best = min(costs, key=lambda c: (costs[c], c))
        if best == code:
            return code
        code = best


@lru_cache(maxsize=4096)
def _magnitude_bits(largest: int, code: int) -> Doubles:
    """Bits of each magnitude up to `largest`, which a fit asks for again and again."""
    bits: Doubles = -np.log2(frequencies(largest, code))
    bits.setflags(write=False)
    return bits
