"""The section of a network: sizes, step codes, then all integers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from moec_zarr.bitstream.primitives import read_varint, write_varint
from moec_zarr.bitstream.range_coder import decode_groups, encode_groups
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.features import Stencil, feature_count
from moec_zarr.model.network import (
    GATE_LARGEST,
    GATE_LARGEST_BIAS,
    MOST_ACTIVE_WEIGHTS,
    MOST_EXPERTS,
    Architecture,
    Network,
)

__all__ = ["WEIGHTS_PER_BYTE", "fits", "read_network", "write_network"]

WEIGHTS_PER_BYTE = 16  # of a network, at most

# Of the encoder, of the number of experts, of a layer, and of the number of layers.
_LARGEST_SIZES = 1024, MOST_EXPERTS, 1024, 16


def fits(architecture: Architecture, length: int) -> bool:
    """Say whether a section of `length` bytes may hold such a network."""
    return (
        architecture.parameter_count <= WEIGHTS_PER_BYTE * length
        and architecture.active_count <= MOST_ACTIVE_WEIGHTS
    )


def write_network(network: Network, distributions: Mapping[str, int]) -> bytes:
    """Write the section's bytes.

    Parameters
    ----------
    network : Network
        Integers of at most ``MAX_MAGNITUDE``.
    distributions : mapping of str to int
        For each tensor, the code of the distribution that its integers are coded with.
    """
    a = network.architecture
    head = bytes(stencil.gain << 4 | stencil.distance for stencil in network.stencils)
    head += b"".join(write_varint(n) for n in (a.encoder, a.experts, a.width, a.layers))
    steps = bytes(network.codes[name] for name in a.shapes() if name in network.codes)
    groups = [network.integers[name] for name in a.shapes()]
    return head + steps + encode_groups(groups, [distributions[name] for name in a.shapes()])


def read_network(data: bytes, axes: int, reads_transform: bool, *, taken: int = 0) -> Network:
    """Read the network of a chunk.

    Parameters
    ----------
    data : bytes
        The section's payload.
    axes : int
        Axes longer than one.
    reads_transform : bool
        Whether the stream holds a transform too, which the network then reads.
    taken : int
        How many of the bytes are a dictionary's: they allow for no weights.

    Raises
    ------
    CorruptStreamError
        If a size is reserved, the bytes cannot hold so many weights, or they end early.
    """
    count = axes * reads_transform
    stencils = tuple(Stencil(byte & 15, byte >> 4) for byte in data[:count])
    if len(stencils) < count or any(stencil.distance == 0 for stencil in stencils):
        raise CorruptStreamError(f"stencils {stencils} along {axes} axes; the stream is damaged")
    sizes, offset = [], len(stencils)
    for limit in _LARGEST_SIZES:
        size, offset = read_varint(data, offset)
        if not 1 <= size <= limit:
            raise CorruptStreamError(
                f"a network of size {size}, expected 1 to {limit}; the stream is damaged"
            )
        sizes.append(size)
    encoder, experts, width, layers = sizes
    features = feature_count(axes) if reads_transform else 0
    architecture = Architecture(axes, encoder, experts, width, layers, features)
    if axes < 1 or not fits(architecture, len(data) - taken):
        raise CorruptStreamError(
            f"{architecture.parameter_count} weights in {len(data) - taken} bytes on {axes} axes, "
            f"{architecture.active_count} of them for each voxel; the stream is damaged"
        )
    shapes = architecture.shapes()
    stepped = [name for name in shapes if not name.startswith("gate")]
    codes = dict(zip(stepped, data[offset:], strict=False))
    if len(codes) != len(stepped):
        raise CorruptStreamError("the stream ends inside the step codes; it is truncated, fetch it again")
    groups = decode_groups(data[offset + len(codes) :], [math.prod(shape) for shape in shapes.values()])
    integers = {name: group.reshape(shapes[name]) for name, group in zip(shapes, groups, strict=True)}
    for name, limit in (("gate.weight", GATE_LARGEST), ("gate.bias", GATE_LARGEST_BIAS)):
        if name in integers and np.abs(integers[name]).max() > limit:
            raise CorruptStreamError(f"{name} exceeds {limit}; the stream is damaged")
    return Network(architecture, integers, codes, stencils)
