"""Variants of the network: each is what its name says, within the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import ablation
from benchmarks.variants import VARIANTS, Network, forward, sized
from moec_zarr.fit.network.forward import forward as package_forward
from moec_zarr.model.network import Architecture
from tests.benchmarks.lines import SHAPE
from tests.support.fields import psnr, smooth


def test_moec_is_the_packages_network() -> None:
    theirs = Architecture(axes=3, encoder=7, experts=4, width=5, layers=2)
    mine = Network(VARIANTS["moec"], axes=3, encoder=7, width=5, layers=2, leaves=4)
    assert mine.weights == theirs.parameter_count
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in theirs.shapes().items()}
    u = 2 * torch.rand((50, 3), generator=generator) - 1
    weights["gate.weight"].requires_grad_()
    shaped = {name: weights[name].view(shape) for name, shape in mine.shapes().items()}
    stack = {name: tensor.detach()[None] for name, tensor in weights.items()}
    stack["gate.weight"].requires_grad_()
    expected, values = package_forward(theirs, stack, u[None]), forward(mine, shaped, u)
    torch.testing.assert_close(values[0], expected[0][0])
    torch.testing.assert_close(values[1], expected[1][0])


def test_blocks_are_networks_of_their_own() -> None:
    sizes = Network(VARIANTS["blocks"], axes=2, encoder=4, width=3, layers=2, leaves=4, halvings=(1, 0))
    alone = Network(VARIANTS["one"], axes=2, encoder=4, width=3, layers=2, leaves=1)
    weights = {name: torch.randn(shape) for name, shape in sizes.shapes().items()}
    u = 2 * torch.rand((40, 2)) - 1
    values, _ = forward(sizes, weights, u)
    upper = u > 0
    block = 2 * upper[:, 1] + upper[:, 0]
    local = 2 * u - torch.where(upper, 1.0, -1.0)
    for i in range(4):
        own = {name: weight[i : i + 1] for name, weight in weights.items()}
        torch.testing.assert_close(values[block == i], forward(alone, own, local[block == i])[0])


def test_octants_share_their_ancestors() -> None:
    sizes = Network(VARIANTS["octree"], 3, 4, 5, 2, leaves=64, halvings=(0, 1, 2) * 2)
    assert [sizes.sets(stage) for stage in range(4)] == [1, 8, 64, 64]
    weights = {name: torch.randn(shape) for name, shape in sizes.shapes().items()}
    u = 2 * torch.rand((200, 3)) - 1
    before, _ = forward(sizes, weights, u)
    weights["expert.weight.0"][5] += 1  # the octant with u_0 > 0, u_1 <= 0, u_2 > 0
    changed = forward(sizes, weights, u)[0] != before
    assert torch.equal(changed, (u[:, 0] > 0) & (u[:, 1] <= 0) & (u[:, 2] > 0))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("budget", [1500, 40_000])
def test_every_variant_spends_the_same_bytes(name: str, budget: int) -> None:
    sizes = sized(VARIANTS[name], (16, 8, 128, 128), budget)
    assert 0.6 * budget < sizes.weights * 6.8 / 8 < budget


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_fits_a_field(name: str) -> None:
    array = smooth(SHAPE, "i2", scale=1000) if name == "blocks" else smooth(SHAPE)
    if array.dtype.kind == "f":
        array[:3, :4, :5] = np.nan
    plan = ablation.Plan(steps=60, batch=256, allocations=1)
    found, decoded = ablation.measure(VARIANTS[name], array, 30.0, plan)
    assert found["bytes"] <= array.nbytes / 30
    assert (decoded.shape, decoded.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(array))
    assert psnr(array, decoded) > 10


def test_ablation_resumes_and_is_tabled(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    results = folder / "ablation.jsonl"
    given = {"moec": 0.01, "siren": 0.1}
    calls = []

    def shifted(variant: Any, array: Any, ratio: float, plan: Any) -> tuple[dict[str, Any], Any]:
        name = next(name for name in given if VARIANTS[name] is variant)
        calls.append(name)
        return {"bytes": 100}, array + np.float32(given[name] * np.ptp(array))

    monkeypatch.setattr(ablation, "measure", shifted)
    words = f"{folder} --ratios 100 --variants moec siren --label one --results {results}".split()
    ablation.main(words)
    ablation.main(words)
    assert calls == ["moec", "siren"]
    text = results.with_suffix(".md").read_text()
    assert "| MoEC | 40.00 |  |  |  |" in text
    assert "| SIREN | 20.00 | -20.00 | -20.00 | -20.00 |" in text
