"""Random bases, coefficients, contexts and networks: drawn by hypothesis, or from a seeded generator."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from moec_zarr.bitstream.contexts import Context
from moec_zarr.fit.transform.basis_search import choose_edge_weights
from moec_zarr.model.basis import (
    AXIS_NEIGHBOURS,
    LONGEST_GRAPH_AXIS,
    AxisBasis,
    basis_functions,
    maximum_levels,
)
from moec_zarr.model.coefficients import Coefficients
from moec_zarr.model.features import Stencil
from moec_zarr.model.linear_experts import LinearExperts
from moec_zarr.model.network import Architecture, Network

FEW = settings(max_examples=60, deadline=None)  # each example takes milliseconds

COSINES = AxisBasis()
GRIDS = [(2,), (300,), (2, 3), (17, 20), (5, 9, 12), (3, 10, 2, 7), (2, 4, 3, 5, 9)]

seeds = st.integers(0, 2**20)
grid_shapes = (
    st.lists(st.integers(2, 12), min_size=1, max_size=5)
    .map(tuple)
    .map(lambda shape: shape if math.prod(shape) < 2000 else shape[:3])
)
mask_shapes = st.lists(st.integers(0, 6), max_size=5).map(tuple)


def wavelets(length: int) -> AxisBasis:
    """Wavelets of as many levels as leave no more than eight averages."""
    return AxisBasis(max(0, math.ceil(math.log2(length / 8))))


def graph_fourier(length: int, seed: int = 0) -> AxisBasis:
    """A graph Fourier basis whose edges differ at random."""
    rng = np.random.default_rng(seed)
    while not (weights := choose_edge_weights(rng.lognormal(0, 0.7, length - 1))):
        pass
    return AxisBasis(edge_weights=weights)


def random_bases(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[AxisBasis, ...]:
    """A basis of any kind for each axis; some wavelets are joint."""
    bases = []
    for n in shape:
        choice = rng.integers(3)
        levels = int(rng.integers(1, maximum_levels(n) + 1))
        graph = 3 <= n <= LONGEST_GRAPH_AXIS and choice == 1
        bases.append(graph_fourier(n, int(rng.integers(99))) if graph else AxisBasis(levels if choice else 0))
    decomposed = [axis for axis, basis in enumerate(bases) if basis.levels]
    if len(decomposed) > 1 and rng.random() < 0.6:
        for axis in rng.permutation(decomposed)[: rng.integers(2, len(decomposed) + 1)]:
            bases[axis] = replace(bases[axis], joint=True)
    return tuple(bases)


def random_context(axes: int, rng: np.random.Generator) -> Context:
    """A context with any of the values that can be written."""
    return Context(
        neighbour_weights=tuple(rng.integers(0, 256, axes * AXIS_NEIGHBOURS).tolist()),
        floor=int(rng.integers(-128, 128)),
        rise=int(rng.integers(-128, 128)),
        power=int(rng.integers(0, 256)),
        offset=int(rng.integers(-(2**15), 2**15)),
        slope=int(rng.integers(-(2**15), 2**15)),
    )


def random_coefficients(
    shape: tuple[int, ...], bases: tuple[AxisBasis, ...], rng: np.random.Generator, largest: int = 9
) -> Coefficients:
    """Sparse coefficients, up to the highest band that they reach."""
    integers = (rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < 0.2)).astype(np.int32)
    integers.flat[rng.integers(integers.size)] = largest
    functions = [basis_functions(basis, n) for basis, n in zip(bases, shape, strict=True)]
    extent = [
        each.prefix(int(each.bands[max(index)]))
        for each, index in zip(functions, np.nonzero(integers), strict=True)
    ]
    return Coefficients(shape, bases, 0.25, integers[tuple(slice(n) for n in extent)])


def random_stencils(axes: int, rng: np.random.Generator) -> tuple[Stencil, ...]:
    return tuple(Stencil(int(rng.integers(1, 16)), int(rng.integers(4))) for _ in range(axes))


def random_network(
    axes: int,
    experts: int = 4,
    encoder: int = 9,
    width: int = 6,
    layers: int = 2,
    feature_count: int = 0,
    seed: int = 0,
) -> Network:
    """Integers and steps as a fit leaves them, of a size at which rounding shows; no stencils."""
    rng = np.random.default_rng(seed)
    architecture = Architecture(axes, encoder, experts, width, layers, feature_count)
    integers, codes = {}, {}
    for name, shape in architecture.shapes().items():
        if name.startswith("gate"):
            integers[name] = rng.integers(-100, 101, shape, np.int32)
            continue
        deviation = 6.0 if name.startswith("encoder") else 1 / math.sqrt(shape[-1])
        integers[name] = np.rint(rng.normal(size=shape) * deviation * 2**10).astype(np.int32)
        codes[name] = 8 * 14  # steps of 2**-10
    return Network(architecture, integers, codes)


def random_linear_experts(
    axes: int, steep: int = 3, level: int = 2, shift: int = 0, seed: int = 0
) -> LinearExperts:
    """Experts of so many ramps of steepness and of the value, which change values by tenths."""
    rng = np.random.default_rng(seed)
    value = tuple(np.sort(rng.choice(np.arange(-100, 100), level + 1, replace=False)).tolist())
    return LinearExperts(
        tuple(range(170, 170 + 9 * steep, 9)), value if level else (), (150, 130),
        rng.integers(-9, 10, (1 + steep + level, axes, 2), np.int32),
        rng.integers(-9, 10, (1 + steep, 1 + level), np.int32), shift,
    )  # fmt: skip
