import math
import tracemalloc

import numpy as np
import pytest
from tests.conformance import reference_decoder

from moec_zarr.model import network
from moec_zarr.model.network import Architecture, Model

LENGTHS = {1: (50,), 2: (9, 14), 3: (6, 7, 8), 4: (3, 5, 4, 6), 5: (3, 2, 4, 3, 5)}
TOLERANCE = 1e-5


def random_model(axes, experts=4, encoder=9, width=6, layers=2, seed=0):
    """Integers and codes as a fit leaves them; weights of a size at which rounding shows."""
    rng = np.random.default_rng(seed)
    architecture = Architecture(axes, encoder, experts, width, layers)
    integers, codes = {}, {}
    for name, shape in architecture.shapes().items():
        if name.startswith("gate"):
            integers[name] = rng.integers(-100, 101, shape)
            continue
        deviation = 6.0 if name.startswith("encoder") else 1 / math.sqrt(shape[-1])
        integers[name] = np.rint(rng.normal(size=shape) * deviation * 2**10).astype(np.int32)
        codes[name] = 8 * 14  # steps of 2**-10
    return Model(architecture, integers, codes)


def by_hand(model, u):
    """Expert and value of one point, loop by loop, in double precision; the page's formulae."""
    a, n = model.architecture, model.integers

    def weight(name):
        step = (8 + model.codes[name] % 8) * 2.0 ** (model.codes[name] // 8 - 27)
        return n[name].astype("f8") * step

    expert = 0
    if a.experts > 1:
        logits = []
        for k in range(a.experts):
            units = [round(4096 * float(x)) for x in u]  # to the even one, as rint
            logits.append(
                4096 * int(n["gate.bias"][k])
                + sum(int(n["gate.weight"][axis, k]) * units[axis] for axis in range(a.axes))
            )
        expert = logits.index(max(logits))
    h = []
    for i in range(a.encoder):
        phase = weight("encoder.bias")[i]
        for axis in range(a.axes):
            phase += u[axis] * weight(f"encoder.weight.{axis}")[i]
        h.append(math.sin(phase))
    for layer in range(a.layers):
        w, b = weight(f"expert.weight.{layer}")[expert], weight(f"expert.bias.{layer}")[expert]
        h = [math.sin(sum(w[i, j] * h[j] for j in range(len(h))) + b[i]) for i in range(a.width)]
    y = sum(x * w for x, w in zip(h, weight("decoder.weight"), strict=True)) + weight("decoder.bias")[0]
    return expert, y


def evaluated(model, lengths, indices=None, *, evaluate=network.evaluate, pointwise=False, voxels=1 << 15):
    """Values at a grid or at points, put together from the tiles."""
    if indices is None:
        indices = [np.arange(n) for n in lengths]
    shape = [len(index) for index in (indices[:1] if pointwise else indices)]
    out = np.full(shape, np.nan, "f4")
    for tile, values in evaluate(
        model.architecture, model.weights(), lengths, indices, pointwise=pointwise, voxels=voxels
    ):
        assert np.isnan(out[tile]).all()  # tiles do not overlap
        out[tile] = values
    return out


@pytest.mark.parametrize("experts", [1, 5])
@pytest.mark.parametrize("axes", LENGTHS)
def test_a_grid_is_what_the_formulae_say(axes, experts):
    model, lengths = random_model(axes, experts), LENGTHS[axes]
    values = evaluated(model, lengths)
    for index in list(np.ndindex(lengths))[::3]:
        u = [2 * i / (n - 1) - 1 for i, n in zip(index, lengths, strict=True)]
        assert abs(values[index] - by_hand(model, u)[1]) < TOLERANCE
    other = reference_decoder.Network(axes, 0, 9, experts, 6, 2)
    other.integers = dict(zip(other.shapes(), model.integers.values(), strict=True))
    other.steps = dict.fromkeys(other.integers, 2.0**-10)
    points = reference_decoder.points(lengths)
    expected = other.values(points, np.empty((len(points), 0)))
    np.testing.assert_allclose(values.ravel(), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("axes", LENGTHS)
def test_points_are_those_of_the_grid(axes):
    model, lengths = random_model(axes), LENGTHS[axes]
    grid = evaluated(model, lengths)
    index = [np.random.default_rng(axis).integers(0, n, 200) for axis, n in enumerate(lengths)]
    points = evaluated(model, lengths, index, pointwise=True, voxels=64)
    np.testing.assert_allclose(points, grid[tuple(index)], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("voxels", [1, 7, 40, 64, 10**6])
def test_tiles_do_not_matter(voxels):
    model, lengths = random_model(3), LENGTHS[3]
    tiles = list(network.tiles(lengths, voxels))
    sizes = [math.prod(s.stop - s.start for s in tile) for tile in tiles]
    assert max(sizes) <= voxels
    assert sum(sizes) == math.prod(lengths)
    np.testing.assert_allclose(
        evaluated(model, lengths, voxels=voxels), evaluated(model, lengths), rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("experts", [1, 5])
def test_torch_agrees(experts):
    evaluate = pytest.importorskip("moec_zarr.model.network_torch").evaluate
    for axes, lengths in LENGTHS.items():
        model = random_model(axes, experts)
        numpy = evaluated(model, lengths)
        np.testing.assert_allclose(
            evaluated(model, lengths, evaluate=evaluate, voxels=50), numpy, rtol=0, atol=TOLERANCE
        )
        index = [np.random.default_rng(axis).integers(0, n, 99) for axis, n in enumerate(lengths)]
        np.testing.assert_allclose(
            evaluated(model, lengths, index, evaluate=evaluate, pointwise=True, voxels=50),
            numpy[tuple(index)], rtol=0, atol=TOLERANCE,
        )  # fmt: skip


@pytest.mark.parametrize("axes", [1, 3, 5])
def test_the_gate_decides_exactly(axes):
    """Experts that are constants of their own say which of them a point was given to."""
    model, lengths = random_model(axes, experts=7), LENGTHS[axes]
    for name, values in model.integers.items():
        if not name.startswith("gate"):
            model.integers[name] = np.zeros_like(values)
    for k in range(7):
        model.integers["expert.bias.1"][k, 0] = 100 * k
    model.integers["decoder.weight"][0] = 1024
    values = evaluated(model, lengths)
    found = np.rint(np.arcsin(values.astype("f8")) / (100 / 1024)).astype(int)
    for index in np.ndindex(lengths):
        u = [2 * i / (n - 1) - 1 for i, n in zip(index, lengths, strict=True)]
        assert found[index] == by_hand(model, u)[0]
    assert len(np.unique(found)) > 1


def test_ties_go_to_the_lowest_expert():
    model = random_model(2, experts=3)
    model.integers["gate.weight"][:] = 5
    model.integers["gate.bias"][:] = -2, 7, 7
    np.testing.assert_array_equal(network.expert_load(model, (9, 9)), [0, 1, 0])


def test_load_is_the_share_of_voxels():
    model, lengths = random_model(3), LENGTHS[3]
    expected = np.zeros(4)
    for index in np.ndindex(lengths):
        u = [2 * i / (n - 1) - 1 for i, n in zip(index, lengths, strict=True)]
        expected[by_hand(model, u)[0]] += 1
    np.testing.assert_allclose(network.expert_load(model, lengths), expected / math.prod(lengths))


def test_the_largest_gate_is_exact_in_single_precision():
    model = random_model(5, experts=2)
    model.integers["gate.weight"][:] = 127
    model.integers["gate.bias"][:] = 511, 510
    part = network.tables(model.weights(), (2,) * 5, [np.array([1])] * 5)
    total = sum(part.logits[1:], part.logits[0])
    assert total.dtype == np.float32
    assert total.astype(int).tolist() == [[(5 * 127 + 511) * 4096, (5 * 127 + 510) * 4096]]


@pytest.mark.parametrize("code", [0, 7, 8, 100, 216, 255])
def test_steps(code):
    step = network.step_size(code)
    assert step == (8 + code % 8) * 2.0 ** (code // 8 - 27)
    assert np.float32(step) * np.float32(32767) == step * 32767  # exact in single precision
    if code:
        assert 1.06 < step / network.step_size(code - 1) < 1.13


@pytest.mark.parametrize(
    ("lengths", "indices", "pointwise"),
    [
        ((200_000,), [np.arange(200_000)], False),
        ((40, 50, 100), [np.arange(40), np.arange(50), np.arange(100)], False),
        ((40, 50, 100), [np.zeros(200_000, int)] * 3, True),
    ],
    ids=["line", "grid", "points"],
)
def test_memory_is_that_of_a_tile(lengths, indices, pointwise):
    model = random_model(len(lengths), experts=3, encoder=32, width=24)
    weights, voxels = model.weights(), 4096
    tracemalloc.start()
    try:
        for _ in network.evaluate(
            model.architecture, weights, lengths, indices, pointwise=pointwise, voxels=voxels
        ):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < voxels * 32 * 8 * 8  # a few tables in double precision; all voxels would be 50 MB
