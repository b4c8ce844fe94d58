"""Evaluation on a device, against the same in NumPy, which other tests compare with the formulas."""

import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from moec_zarr.bitstream.container import DTYPES
from moec_zarr.model.basis import DOUBLE, SINGLE
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.features import feature_count
from moec_zarr.model.network import Network, chosen_experts
from moec_zarr.model.normalisation import Normalisation
from moec_zarr.model.residual import Residual
from tests.support.strategies import (
    random_bases,
    random_coefficients,
    random_network,
    random_stencils,
)

torch = pytest.importorskip("torch")

from moec_zarr.model.decode_torch import evaluate_on, restored  # noqa: E402
from moec_zarr.model.device_torch import Device, on_device  # noqa: E402

LENGTHS = {1: (50,), 2: (9, 14), 3: (6, 7, 8), 4: (3, 5, 4, 6), 5: (3, 2, 4, 3, 5)}
TOLERANCE = 1e-5


def model(axes, experts, parts):
    """A network, a transform and corrections, as far as they are asked for."""
    lengths, rng = LENGTHS[axes], np.random.default_rng(axes)
    network = field = residual = None
    if "transform" in parts:
        coefficients = random_coefficients(lengths, random_bases(lengths, rng), rng, largest=3)
        if "residual" in parts:  # few values beyond the range, where they are clipped
            field = CoefficientField(replace(coefficients, step=2.0**-5), DOUBLE)
        else:
            field = CoefficientField(coefficients, SINGLE)
    if "network" in parts:
        features = feature_count(axes) if field else 0
        network = random_network(axes, experts, feature_count=features)
        if field:
            stencils = random_stencils(axes, rng)
            network = Network(network.architecture, network.integers, network.codes, stencils)
    if "residual" in parts:
        residual = Residual(0.1, 0.25, rng.integers(-3, 4, lengths).astype(np.int8))
    return network, field, residual


def in_numpy(network, field, residual, lengths, indices, pointwise=False):
    out = np.full([len(index) for index in (indices[:1] if pointwise else indices)], np.nan)
    parts = evaluate(network, field, lengths, indices, residual=residual, pointwise=pointwise)
    for tile, values in parts:
        out[tile] = values
    assert np.isfinite(out).all()
    return out


def on(device, network, field, residual, lengths, indices, **options):
    with on_device(device) as own:
        return evaluate_on(own, network, field, lengths, indices, residual=residual, **options)


def selections(lengths):
    """Voxels along each axis: all, backwards in steps, scattered with repetitions, a single one."""
    rng = np.random.default_rng(1)
    return [
        [range(n) for n in lengths],
        [range(n - 1, -1, -2) for n in lengths],
        [rng.integers(0, n, 4) for n in lengths],
        [np.array([n // 2]) for n in lengths],
    ]


@pytest.mark.parametrize("parts", ["network", "transform", "network transform"])
@pytest.mark.parametrize("experts", [1, 5])
@pytest.mark.parametrize("axes", LENGTHS)
def test_grids_and_points_match_numpy(axes, experts, parts, device):
    fitted, lengths = model(axes, experts, parts), LENGTHS[axes]
    tolerance = 1e-4 if parts == "network transform" else TOLERANCE  # stencils amplify differences
    for indices in selections(lengths):
        expected = in_numpy(*fitted, lengths, indices)
        for options in {}, {"tile": 7}, {"tile": 20}:
            values = on(device, *fitted, lengths, indices, **options)
            np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)
            assert values.dtype == np.float32
    points = [np.random.default_rng(axis).integers(0, n, 99) for axis, n in enumerate(lengths)]
    expected = in_numpy(*fitted, lengths, points, pointwise=True)
    for tile in None, 7:
        values = on(device, *fitted, lengths, points, pointwise=True, tile=tile)
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("parts", ["residual", "residual transform", "residual network transform"])
@pytest.mark.parametrize("axes", LENGTHS)
def test_corrections_are_added_in_double_precision(axes, parts, device):
    fitted, lengths = model(axes, 2, parts), LENGTHS[axes]
    tolerance = 1e-4 if "network" in parts else 1e-12
    for indices in selections(lengths):
        expected = np.clip(in_numpy(*fitted, lengths, indices), -1, 1)
        values = on(
            device, *fitted, lengths, indices, tile=11,
            dtype=np.dtype("f8"), limits=(np.float64(-1e3), np.float64(1e3)),
        )  # fmt: skip
        np.testing.assert_allclose(values, 1e3 * expected, rtol=0, atol=1e3 * tolerance)
    points = [np.random.default_rng(axis).integers(0, n, 30) for axis, n in enumerate(lengths)]
    values = on(
        device, *fitted, lengths, points, pointwise=True,
        dtype=np.dtype("f8"), limits=(np.float64(-1e3), np.float64(1e3)),
    )  # fmt: skip
    expected = np.clip(in_numpy(*fitted, lengths, points, pointwise=True), -1, 1)
    np.testing.assert_allclose(values, 1e3 * expected, rtol=0, atol=1e3 * tolerance)


def test_many_points_are_read_from_grids(device):
    """More points than coefficients, of which the grid of their indices is less work."""
    rng = np.random.default_rng(0)
    lengths = (40, 30, 20)
    field = CoefficientField(random_coefficients(lengths, random_bases(lengths, rng), rng))
    points = [rng.integers(0, n, 3000) for n in lengths]
    values = on(device, None, field, None, lengths, points, pointwise=True)
    np.testing.assert_allclose(values, field.whole()[tuple(points)], rtol=0, atol=2e-5)


def test_nothing_is_nothing(device):
    network, field, _ = model(3, 1, "network transform")
    values = on(device, network, field, None, LENGTHS[3], [range(0), range(7), range(8)])
    assert (values.shape, values.dtype) == ((0, 7, 8), np.float32)
    empty = [np.array([], int)] * 3
    assert on(device, network, field, None, LENGTHS[3], empty, pointwise=True).shape == (0,)


@pytest.mark.parametrize(
    ("axes", "lengths"), [(1, (8193,)), (2, (8193, 3)), (3, (257, 129, 33)), (5, (3, 9, 5, 17, 7))]
)
def test_the_gate_decides_as_in_numpy(axes, lengths, device):
    """Coordinates halfway between two integers of the gate, ties of logits, the largest weights."""
    network = random_network(axes, experts=7)
    for name, integers in network.integers.items():
        if not name.startswith("gate"):
            network.integers[name] = np.zeros_like(integers)
    network.integers["gate.weight"][:] = np.random.default_rng(0).integers(-127, 128, (axes, 7))
    network.integers["gate.weight"][:, 3] = network.integers["gate.weight"][:, 5]
    network.integers["gate.bias"][:] = np.random.default_rng(1).integers(-40, 41, 7)
    network.integers["gate.bias"][[3, 5]] = 40
    for k in range(7):
        network.integers["expert.bias.1"][k, 0] = 100 * k
    network.integers["decoder.weight"][0] = 1024
    indices = [range(n) for n in lengths]
    values = on(device, network, None, None, lengths, indices, tile=5000)
    chosen = np.rint(np.arcsin(values.astype("f8")) / (100 / 1024)).astype(int)
    expected = chosen_experts(network, lengths, [np.arange(n) for n in lengths])
    np.testing.assert_array_equal(chosen, expected)
    assert {3} < set(np.unique(chosen).tolist()) <= {0, 1, 2, 3, 4, 6}


@pytest.mark.parametrize(("experts", "width"), [(256, 6), (3, 200)])
def test_many_and_wide_experts(experts, width, device):
    network, lengths = random_network(2, experts, width=width), (40, 50)
    indices = [range(n) for n in lengths]
    expected = in_numpy(network, None, None, lengths, indices)
    for tile in None, 3, 1500:
        values = on(device, network, None, None, lengths, indices, tile=tile)
        np.testing.assert_allclose(values, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("dtype", DTYPES)
def test_restored_as_in_numpy(dtype, byte_order, device):
    """Every value to the same bits: also beyond the range, at its ends, and halfway between two numbers."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=3000), np.linspace(-1, 1, 513), [2, -2, 1e38, -1e38, 0]])
    own = np.dtype(byte_order + dtype)
    if own.kind == "f":
        ranges = [(-3, 41), (0.001, 0.0011), (-np.finfo(dtype).max, np.finfo(dtype).max), (1, 1)]
        ranges += [(0, 2.0**-20), (2048, 4096)]
    else:
        info = np.iinfo(dtype)
        ranges = [
            (info.min, info.max),
            (info.min, info.min + 100),
            (info.max - 99, info.max),
            (7, 7),
            (3, 100),
        ]
    for low, high in ranges:
        limits = np.array([low, high], dtype)
        for precision in "f4", "f8":
            fitted = values.astype(precision)
            normalisation = Normalisation.of_range(*limits)
            with warnings.catch_warnings(action="ignore"):  # NumPy's, of values beyond the dtype
                expected = normalisation.restore(fitted, own, *limits)
            sent = torch.from_numpy(fitted).to(device)
            found = restored(sent, own, *limits).cpu().numpy().view(own)
            np.testing.assert_array_equal(found, expected)


def test_half_precision_is_rounded_once(device):
    """Next to the middle of two numbers of float16, closer than float32 resolves."""
    middle = 1 + 2.0**-11
    values = torch.tensor([middle - 2.0**-40, middle, middle + 2.0**-40], dtype=torch.float64, device=device)
    limits = np.float16(-2), np.float16(2)
    found = restored(values / 2, np.dtype("f2"), *limits).cpu().numpy().view("f2")
    assert found.tolist() == [1, 1, 1 + 2.0**-10]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_have_full_precision(precision, device):
    """Whatever the process has chosen, which is as it was afterwards."""
    rng = np.random.default_rng(0)
    lengths = (60, 70)
    field = CoefficientField(random_coefficients(lengths, random_bases(lengths, rng), rng))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast(device, dtype=torch.bfloat16):
            values = on(device, None, field, None, lengths, [range(n) for n in lengths])
            with on_device(device), on_device(device):
                assert torch.get_float32_matmul_precision() == "highest"
                assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_allclose(values, field.whole(), rtol=0, atol=1e-5)


def test_precision_is_put_back_after_an_error(device):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ZeroDivisionError), on_device(device):
            _ = 1 / 0
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


class _Stream:
    """A stream of a GPU that only writes down what it is told, for machines without one."""

    def __init__(self, log):
        self.log, self.copies = log, 0

    def wait_stream(self, other):
        self.log.append("copies wait for values")

    def record_event(self):
        self.copies += 1
        number = self.copies
        return type("Event", (), {"wait": lambda _: self.log.append(f"values wait for copy {number}")})()

    def synchronize(self):
        self.log.append("host waits")


def test_two_tiles_are_on_their_way(monkeypatch):
    """The third waits on the device for the first to have left; the host waits once, in the end."""
    log = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: _Stream(log))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    device, memory = Device("cuda"), torch.zeros(16, dtype=torch.uint8)
    for first in range(0, 16, 4):
        device.send(torch.full((4,), first, dtype=torch.uint8), memory[first : first + 4])
    device.finish()
    assert memory.tolist() == np.repeat([0, 4, 8, 12], 4).tolist()
    sent = ["copies wait for values"]
    assert log == [*sent * 2, "values wait for copy 1", *sent, "values wait for copy 2", *sent, "host waits"]
