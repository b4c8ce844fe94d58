"""The section of linear experts, against the reference decoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moec_zarr.bitstream.linear_experts import MOST_RAMPS, read_linear_experts, write_linear_experts
from moec_zarr.errors import CorruptStreamError
from tests.conformance import reference_decoder
from tests.support.strategies import random_linear_experts


@pytest.mark.parametrize("shift", [0, 1, -1, 127, -127])
@pytest.mark.parametrize(("steep", "level"), [(0, 0), (1, 0), (0, 1), (3, 2), (MOST_RAMPS, MOST_RAMPS)])
@pytest.mark.parametrize("axes", [1, 3, 5])
def test_round_trip(axes, steep, level, shift):
    experts = random_linear_experts(axes, level=level, shift=shift)
    experts = replace(
        experts,
        steepness=tuple(range(100, 100 + steep)),
        taps=np.resize(experts.taps, (1 + steep + level, axes, 2)),
        constants=np.resize(experts.constants, (1 + steep, 1 + level)),
    )
    data = write_linear_experts(experts, (16, 200))
    result, reference = read_linear_experts(data, axes), reference_decoder.read_linear_experts(data, axes)
    for name in "steepness", "value", "units", "shift":
        assert getattr(result, name) == getattr(experts, name)
        assert tuple(np.ravel(getattr(reference, name))) == tuple(np.ravel(getattr(experts, name)))
    for name in "taps", "constants":
        np.testing.assert_array_equal(getattr(result, name), getattr(experts, name))
        np.testing.assert_array_equal(getattr(reference, name), getattr(experts, name))


def test_what_the_section_begins_with():
    """Numbers of ramps in a byte, then a byte each for knots, units and shift."""
    experts = replace(random_linear_experts(2), value=(-128, 0, 127), shift=-5)
    data = write_linear_experts(experts, (16, 16))
    assert data[:10] == bytes([3 | 2 << 4, *experts.steepness, 128, 0, 127, *experts.units, 251])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steepness": (170, 170, 188)}, "rise"),
        ({"steepness": (179, 170, 188)}, "rise"),
        ({"value": (0, 0, 9)}, "rise"),
        ({"value": (9, 3, 20)}, "rise"),
        ({"shift": -128}, "reserved"),
        ({"units": (224, 130)}, "weight"),
        ({"units": (150, 224)}, "weight"),
    ],
    ids=str,
)
def test_what_no_encoder_writes_is_corrupt(changes, message):
    data = write_linear_experts(replace(random_linear_experts(2), **changes), (16, 16))
    with pytest.raises(CorruptStreamError, match=message):
        read_linear_experts(data, 2)
    with pytest.raises(reference_decoder.CorruptError):
        reference_decoder.read_linear_experts(data, 2)


def test_truncated_sections_are_corrupt():
    data = write_linear_experts(random_linear_experts(2), (16, 16))
    for length in range(10 + 4):  # behind them follow words, whose end is not known
        with pytest.raises(CorruptStreamError, match=r"empty|truncated|ends"):
            read_linear_experts(data[:length], 2)
