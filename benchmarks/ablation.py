"""Neural codecs at the same bytes: MoEC, the networks it is compared with, and MoEC without its parts.

``python -m benchmarks.ablation [FOLDER]`` fits every variant (``benchmarks/variants.py``) to every field at
every ratio, with the same steps, batch, seed and bytes, one JSON line each, and makes one Markdown table of
them. It resumes as ``benchmarks.rd`` does.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks import variants
from benchmarks.fields import find_fields
from benchmarks.records import (
    Array,
    Line,
    Records,
    codec_version,
    latest,
    markdown,
    origin,
    quality,
    versions,
)
from benchmarks.variants import VARIANTS, Network, Variant, Weights, features, forward, sized
from moec_zarr.bitstream.range_coder import encode_groups
from moec_zarr.bitstream.values import write_masked_values
from moec_zarr.codec.prepare import find_masked_values
from moec_zarr.fit.field import Field
from moec_zarr.fit.network import initialise
from moec_zarr.fit.network.optimiser import Optimiser
from moec_zarr.fit.network.quantise import Gate, StepAllocator, freeze_gate, quantise, round_through
from moec_zarr.fit.payloads import DoesNotFit, choose_distribution
from moec_zarr.fit.presets import PRESETS
from moec_zarr.model import network
from moec_zarr.model.normalisation import Normalisation
from moec_zarr.model.steps import step_size
from moec_zarr.model.tiles import tiled

RATIOS = (100.0, 300.0, 1000.0)
PRESET = PRESETS["balanced"][-1]
HEADER = 40  # bytes, of a stream around its model
MARGIN = 0.997  # of the budget while training goes on
STARTS = {"either": 8}  # of these features; of all others four
MEASURED = 16  # batches that losses and sensitivities are measured on
TILE = 1 << 16  # points evaluated at a time


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The training that all variants get.

    The rate is Muon's; Adam alone does better with half of it, and gets that.
    """

    steps: int = PRESET.steps
    batch: int = PRESET.batch
    seed: int = 0
    trial: float = 0.05  # of the steps, for each start
    rate: float = PRESET.rate
    warm_up: int = PRESET.warm_up
    gate_rate: float = PRESET.gate_rate
    balance: float = PRESET.balance
    quantised: float = PRESET.quantised
    allocations: int = PRESET.allocations


# ------------------------------------------------------------------------------------ start


class Start:
    """Fresh weights of a variant for a field: some starts, of which trials find the best."""

    def __init__(self, sizes: Network, field: Field, seed: int) -> None:
        self._sizes, self._generator = sizes, torch.Generator().manual_seed(seed)
        sample = field.draw(1 << 14, self._generator)
        self._mean = float(field.targets(sample).mean())
        self._frequencies = initialise.axis_frequencies(field, self._generator)
        if sizes.variant.features in ("data", "either"):
            self._spectrum = initialise.power_spectrum(field, self._frequencies)
        self._gate: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._points = u_of(field, sample)
        if sizes.variant.routing in ("gate", "features") and sizes.variant.gate_start:
            self._gate = initialise.gate(field, self._frequencies, sizes.leaves, self._generator)

    def __call__(self, number: int) -> tuple[Weights, Weights]:
        """Weights to train, and those that stay as they are; `number` counts the starts."""
        sizes = self._sizes
        waves = self._waves(number)
        weights: Weights = {}
        for name, shape in sizes.shapes().items():
            kind = name.split(".")
            if kind[0] == "gate":
                weights[name] = self._uniform(shape, 1 / math.sqrt(sizes.shapes()["gate.weight"][0]))
            elif kind[:2] == ["encoder", "weight"]:
                weights[name] = torch.from_numpy(waves[:, int(kind[2])].reshape(shape).astype(np.float32))
            elif name == "encoder.bias":
                weights[name] = self._uniform(shape, math.pi)
            elif kind[:2] == ["expert", "weight"]:
                weights[name] = self._uniform(shape, math.sqrt(6 / shape[-1]))
            elif name == "decoder.weight":
                weights[name] = self._uniform(shape, 0.05)
            else:
                weights[name] = torch.full(shape, self._mean if name == "decoder.bias" else 0.0)
        fixed: Weights = {}
        if sizes.variant.features == "fourier":
            fixed["waves"] = torch.from_numpy(waves.astype(np.float32))
        if self._gate is not None:
            self._set_gate(weights)
        return weights, fixed

    def _waves(self, number: int) -> NDArray[np.float64]:
        """Wave vectors in radians per unit of u, one row for each feature of each encoder."""
        sizes, generator = self._sizes, self._generator
        shape = (sizes.encoder * sizes.sets(0), sizes.axes)
        if sizes.variant.features == "isotropic" or number >= 4:
            return (10.0, 20.0, 40.0, 80.0)[number % 4] / sizes.axes * _uniform(shape, generator)
        normal = torch.randn(shape, generator=generator, dtype=torch.float64).numpy()
        if sizes.variant.features == "fourier":
            # Coordinates of the paper run over one unit where u runs over two.
            return np.asarray((1.0, 2.0, 4.0, 8.0)[number] * np.pi * normal)
        spectral, scale = ((0.5, 0.35), (0.5, 0.35), (0.25, 0.6), (0.25, 1.0))[number]
        waves = normal * self._frequencies * scale
        drawn = torch.randperm(len(waves), generator=generator)[: round(spectral * len(waves))].numpy()
        waves[drawn] = initialise.draw_waves(self._spectrum, len(drawn), generator)
        if sizes.variant.routing == "blocks":  # in a block of half the length, half as fast
            waves = waves / 2.0 ** np.bincount(sizes.halvings, minlength=sizes.axes)
        return np.asarray(waves)

    def _set_gate(self, weights: Weights) -> None:
        """The package's partition; from features, the linear gate nearest to it by least squares."""
        assert self._gate is not None
        weight, bias = (torch.from_numpy(part.astype(np.float32)) for part in self._gate)
        if self._sizes.variant.routing == "features":
            hidden = features(self._sizes, weights, self._points, None)
            inputs = torch.cat([hidden, torch.ones(len(hidden), 1)], dim=1)
            solved = torch.linalg.lstsq(inputs, self._points @ weight + bias, driver="gelsd").solution
            weight, bias = solved[:-1].contiguous(), solved[-1]
        weights |= {"gate.weight": weight, "gate.bias": bias}

    def _uniform(self, shape: tuple[int, ...], bound: float) -> torch.Tensor:
        return bound * torch.from_numpy(_uniform(shape, self._generator).astype(np.float32))


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> NDArray[np.float64]:
    return torch.rand(shape, generator=generator, dtype=torch.float64).numpy() * 2 - 1


def u_of(field: Field, index: tuple[NDArray[np.int64], ...]) -> torch.Tensor:
    """Coordinates of voxels, float32, shape (n, axes)."""
    axes = zip(index, field.array.shape, strict=True)
    return torch.from_numpy(np.stack([network.coordinates(i, n) for i, n in axes], 1).astype(np.float32))


# -------------------------------------------------------------------------------------- fit


class Fit:
    """The training of one variant on one field."""

    def __init__(self, sizes: Network, field: Field, plan: Plan) -> None:
        self.sizes, self._field, self._plan = sizes, field, plan
        self._generator = torch.Generator().manual_seed(plan.seed + 1)
        self._start = Start(sizes, field, plan.seed)

    def run(self, budget: int) -> network.Network:
        """The quantised network, of at most `budget` bytes.

        Raises
        ------
        DoesNotFit
            If no quantisation fits into them.
        """
        plan, sizes = self._plan, self.sizes
        weights, fixed = self._best_start()
        optimiser = self._optimiser(weights)
        turn = plan.steps - round(plan.steps * plan.quantised * sizes.variant.quantised)
        for step in range(turn):
            self._step(weights | fixed, optimiser, step, plan.steps)
        gate = freeze_gate(weights)
        fixed |= {name: torch.from_numpy(values.astype(np.float32)) for name, values in gate.items()}
        free = {name: weight for name, weight in weights.items() if name not in gate}
        allocate = Allocator(sizes, gate, int(budget * MARGIN))
        codes = allocate(free, self._sensitivity(free, fixed))
        span = plan.steps - turn
        every = max(1, math.ceil(0.75 * span / plan.allocations))
        for step in range(turn, plan.steps):
            done = step - turn
            if done and done % every == 0 and done < 0.75 * span:
                codes = allocate(free, self._sensitivity(free, fixed))
            rounding = {name: torch.tensor(step_size(code)) for name, code in codes.items()}
            self._step(round_through(free, rounding) | fixed, optimiser, step, plan.steps)
        last = Allocator(sizes, gate, budget)
        if not last.fits(free, codes):
            codes = last(free, self._sensitivity(free, fixed))
        self._fixed = {name: tensor for name, tensor in fixed.items() if name not in gate}
        return quantise(sizes, free, codes, gate)  # type: ignore[arg-type]

    @torch.no_grad()
    def decode(self, model: network.Network) -> NDArray[np.float32]:
        """The model's values on the whole field, in units of the target."""
        shape = self._field.array.shape
        weights = {name: torch.from_numpy(values) for name, values in model.weights().items()} | self._fixed
        out = np.empty(shape, np.float32)
        for tile, rows in tiled([np.arange(n) for n in shape], pointwise=False, voxels=TILE):
            grids = np.meshgrid(*rows, indexing="ij")
            u = u_of(self._field, tuple(grid.ravel() for grid in grids))
            out[tile] = self._values(weights, u)[0].numpy().reshape(grids[0].shape)
        return out

    def _leaves(self, weights: Weights, fixed: Weights) -> tuple[Weights, Weights]:
        """Weights that want gradients. The package's optimiser gives Muon to matrices of networks alone."""
        muon = self.sizes.variant.muon
        flat = {name: w if w.ndim < 3 else w[None] if muon else w.flatten() for name, w in weights.items()}
        return {name: w.clone().requires_grad_() for name, w in flat.items()}, fixed

    def _values(self, weights: Weights, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        shapes = self.sizes.shapes()
        shaped = {name: w.view(shapes[name]) if name in shapes else w for name, w in weights.items()}
        return forward(self.sizes, shaped, u)

    def _batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        index = self._field.draw(self._plan.batch, self._generator)
        return u_of(self._field, index), torch.from_numpy(self._field.targets(index))

    def _step(self, weights: Weights, optimiser: Optimiser, step: int, of: int) -> None:
        plan = self._plan
        u, target = self._batch()
        values, balance = self._values(weights, u)
        loss = functional.mse_loss(values, target)
        if balance is not None and self.sizes.variant.balance:
            loss = loss + plan.balance * loss.detach() * balance
        loss.backward()
        warm = min(1.0, (step + 1) / plan.warm_up)
        optimiser.step(plan.rate * warm * (0.5 * (1 + math.cos(math.pi * step / of)) + 0.005))

    def _optimiser(self, weights: Weights) -> Optimiser:
        usual = 1.0 if self.sizes.variant.muon else 0.5
        scales = {name: self._plan.gate_rate if name.startswith("gate") else usual for name in weights}
        return Optimiser(weights, scales)

    def _best_start(self) -> tuple[Weights, Weights]:
        count = STARTS.get(self.sizes.variant.features, 4)
        starts, losses = [self._start(number) for number in range(count)], []
        steps = max(1, round(self._plan.steps * self._plan.trial))
        for start in starts:
            weights, fixed = self._leaves(*start)
            optimiser = self._optimiser(weights)
            for step in range(steps):
                self._step(weights | fixed, optimiser, step, steps)
            losses.append(self._loss(weights | fixed))
        return self._leaves(*starts[int(np.argmin(losses))])

    @torch.no_grad()
    def _loss(self, weights: Weights) -> float:
        losses = []
        for _ in range(MEASURED):
            u, target = self._batch()
            losses.append(float(functional.mse_loss(self._values(weights, u)[0], target)))
        return statistics.fmean(losses)

    def _sensitivity(self, free: Weights, fixed: Weights) -> dict[str, float]:
        """Mean square derivative of a value by a weight, by Hutchinson's estimator as in the package."""
        total = dict.fromkeys(free, 0.0)
        for _ in range(MEASURED):
            u, _target = self._batch()
            values, _balance = self._values(free | fixed, u)
            signs = 2.0 * torch.randint(2, (len(u),), generator=self._generator) - 1
            gradients = torch.autograd.grad((values * signs).sum(), list(free.values()))
            for name, gradient in zip(free, gradients, strict=True):
                total[name] += float(gradient.square().mean()) / len(u) / MEASURED
        return total


class Allocator(StepAllocator):
    """The package's search for steps, with the section of a variant in the place of its own network's."""

    def __init__(self, sizes: Network, gate: Gate, budget: int) -> None:
        super().__init__(sizes, gate, budget, 0)  # type: ignore[arg-type]
        self._sizes, self._frozen = sizes, gate

    def size(self, weights: Weights, codes: dict[str, int]) -> float:
        """Bytes of the quantised weights; infinite where they cannot be coded."""
        try:
            return section_size(quantise(self._sizes, weights, codes, self._frozen))  # type: ignore[arg-type]
        except DoesNotFit:
            return math.inf


def section_size(model: network.Network) -> int:
    """Bytes of a network: integers coded as the package codes them, step codes, four sizes.

    Raises
    ------
    DoesNotFit
        If an integer is too large to be coded.
    """
    groups = list(model.integers.values())
    return len(encode_groups(groups, [choose_distribution(group) for group in groups])) + len(model.codes) + 4


# ---------------------------------------------------------------------------------- measure


def measure(variant: Variant, array: Array, ratio: float, plan: Plan) -> tuple[Line, Array]:
    """A variant at a ratio, and the array as decoded.

    Header and mask of the package's format are charged to all variants alike.
    """
    inner = array.squeeze()
    valid = np.isfinite(inner)
    masked = find_masked_values(inner, None)
    around = HEADER + (len(write_masked_values(masked, inner.dtype)) if masked else 0)
    budget = int(array.nbytes / ratio) - around
    values = inner[valid].astype(np.float64)
    low, high = values.min(), values.max()
    centre, scale = (low + high) / 2, values.std() or 1.0
    sizes = sized(variant, inner.shape, budget)
    begun = time.perf_counter()
    fit = Fit(sizes, Field(inner, None if valid.all() else valid, Normalisation(centre, scale)), plan)
    model = fit.run(budget)
    encoded = time.perf_counter()
    decoded = np.clip(centre + scale * fit.decode(model).astype(np.float64), low, high)
    done = time.perf_counter()
    decoded = (np.rint(decoded) if inner.dtype.kind in "iu" else decoded).astype(inner.dtype)
    line = {
        "bytes": section_size(model) + around,
        "weights": sizes.weights,
        "leaves": sizes.leaves,
        "width": sizes.width,
        "encode_seconds": encoded - begun,
        "decode_seconds": done - encoded,
    }
    return line, np.where(valid, decoded, inner).reshape(array.shape)


def run(arguments: argparse.Namespace, records: Records) -> None:
    """Every measurement that is not on record yet."""
    version = arguments.label or codec_version(Path(__file__), Path(variants.__file__))
    here, used = origin(), versions("torch", "numpy")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for field, load in find_fields(arguments.folder, arguments.fields).items():
        array = load()
        for ratio in arguments.ratios:
            for seed in arguments.seeds:
                plan = Plan(steps=arguments.steps, batch=arguments.batch, seed=seed)
                for name in arguments.variants:
                    line: Line = {
                        "benchmark": "ablation",
                        "field": field,
                        "shape": array.shape,
                        "dtype": array.dtype.str,
                        "codec": name,
                        "settings": asdict(plan),
                        "ratio": ratio,
                        "version": version,
                    }
                    if line in records:
                        continue
                    try:
                        found, decoded = measure(VARIANTS[name], array, ratio, plan)
                        line |= {"status": "ok", **found, **quality(array, decoded)}
                    except DoesNotFit as error:
                        line |= {"status": "unreachable", "reason": str(error)}
                    line |= {"versions": used, "threads": torch.get_num_threads()} | here
                    records.add(line)
                    said = f"{line['psnr']:.2f} dB" if line["status"] == "ok" else line["reason"]
                    print(f"{field} {ratio:g}x {VARIANTS[name].title}: {said}", flush=True)


# ----------------------------------------------------------------------------------- report


def table(lines: Iterable[Line]) -> str:
    """Rows are variants; for each ratio, PSNR and its difference to MoEC over fields and seeds."""
    found: dict[tuple[str, float], dict[str, float]] = {}
    for line in latest(lines):
        if line["benchmark"] == "ablation" and line.get("psnr") is not None:
            place = f"{line['field']} {line['settings']}"
            found.setdefault((line["codec"], line["ratio"]), {})[place] = line["psnr"]
    ratios = sorted({ratio for _, ratio in found})
    columns = ("dB", "median", "least", "most")
    header = ["variant", *(f"{ratio:g}x {column}" for ratio in ratios for column in columns)]
    rows = [
        [variant.title, *(cell for ratio in ratios for cell in _cells(found, name, ratio))]
        for name, variant in VARIANTS.items()
        if any((name, ratio) in found for ratio in ratios)
    ]
    return markdown(header, rows)


def _cells(found: dict[tuple[str, float], dict[str, float]], name: str, ratio: float) -> Iterator[str]:
    here, moec = found.get((name, ratio), {}), found.get(("moec", ratio), {})
    yield f"{statistics.median(here.values()):.2f}" if here else ""
    gains = [here[place] - moec[place] for place in here if place in moec]
    for pick in (statistics.median, min, max):
        yield f"{pick(gains):+.2f}" if gains and name != "moec" else ""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of .npz files; simulated fields without it")
    parser.add_argument("--fields", nargs="+", default=(), help="names of some of them")
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--batch", type=int, default=Plan.batch)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--label", help="version on record; a digest of the sources without it")
    parser.add_argument("--threads", type=int, help="torch's own number without it")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/ablation.jsonl"))
    parser.add_argument("--report", action="store_true", help="measure nothing, make the table anew")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    arguments = parse(words)
    records = Records(arguments.results)
    if not arguments.report:
        run(arguments, records)
    path = arguments.results.with_suffix(".md")
    path.write_text(table(records.lines))
    print(f"{path} written", flush=True)


if __name__ == "__main__":
    main()
