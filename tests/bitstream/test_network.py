"""The section of a network, against the reference decoder."""

from dataclasses import replace

import numpy as np
import pytest

from moec_zarr.bitstream.network import read_network, write_network
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.features import feature_count
from tests.conformance import reference_decoder
from tests.support.strategies import random_network, random_stencils


def written(network, distribution=192):
    return write_network(network, dict.fromkeys(network.integers, distribution))


@pytest.mark.parametrize("reads_transform", [False, True])
@pytest.mark.parametrize("experts", [1, 3])
@pytest.mark.parametrize("axes", [1, 3, 5])
def test_round_trip(axes, experts, reads_transform):
    network = random_network(axes, experts, feature_count=feature_count(axes) if reads_transform else 0)
    if reads_transform:
        network = replace(network, stencils=random_stencils(axes, np.random.default_rng(0)))
    data = written(network)
    result = read_network(data, axes, reads_transform)
    assert result.architecture == network.architecture
    assert result.stencils == network.stencils
    assert result.codes == network.codes
    reference = reference_decoder.read_network(data, axes, reads_transform)
    assert reference.stencils == [stencil.distance + 16 * stencil.gain for stencil in network.stencils]
    for (name, integers), title in zip(network.integers.items(), reference.integers, strict=True):
        np.testing.assert_array_equal(result.integers[name], integers)
        np.testing.assert_array_equal(reference.integers[title], integers)
        if name in network.codes:
            np.testing.assert_array_equal(reference.weight(title), network.weights()[name])


@pytest.mark.parametrize(("name", "limit"), [("gate.weight", 127), ("gate.bias", 511)])
def test_gate_beyond_its_limit_is_corrupt(name, limit):
    network = random_network(2, experts=3)
    network.integers[name].flat[0] = -limit
    read_network(written(network), 2, False)
    network.integers[name].flat[0] = limit + 1
    with pytest.raises(CorruptStreamError, match=f"{name} exceeds {limit}"):
        read_network(written(network), 2, False)
    with pytest.raises(reference_decoder.CorruptError):
        reference_decoder.read_network(written(network), 2, False)


def test_more_weights_than_bytes_allow_is_corrupt():
    """16 weights a byte at most: refused before anything of this size is allocated."""
    head = b"\x80\x08\1\x80\x08\x10"  # 1024 wide, 16 layers
    with pytest.raises(CorruptStreamError, match=r"\d{8} weights in 56 bytes"):
        read_network(head + bytes(50), 3, False)


def test_truncated_section_is_corrupt_or_another_network():
    network = random_network(2, experts=2, encoder=4, width=4)
    data = written(network)
    for length in range(len(data) - 1):
        try:
            result = read_network(data[:length], 2, False)
        except CorruptStreamError:
            continue
        same = [np.array_equal(result.integers[name], i) for name, i in network.integers.items()]
        assert not all(same)
