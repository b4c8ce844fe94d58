"""A network to be fitted: its data, sizes and bytes, and the weights that it starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from moec_zarr.fit.field import Field
from moec_zarr.fit.network.initialise import (
    axis_frequencies,
    draw_waves,
    gate,
    initial_weights,
    power_spectrum,
)
from moec_zarr.fit.network.quantise import DECODER
from moec_zarr.fit.network.stack import Weights
from moec_zarr.fit.presets import Preset, Start
from moec_zarr.model.network import Architecture, Network

__all__ = ["NetworkFit", "float_weights", "prepare_fit"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkFit:
    """A network to be fitted.

    Attributes
    ----------
    field : Field
        The valid voxels and their targets.
    architecture : Architecture
    preset : Preset
    budget : int
        Bytes that the network's section may take; kept.
    seed : int
        Of everything random. Threads, device and the other networks of a group change results by
        rounding alone.
    starts : list of dict of tensors
        Weights to start from; more than one are tried.
    target_error : float
        Mean square error that is worth having, of normalised values without the field's shift. The fit
        is given up where a short one shows that it stays out of reach.
    progress : callable
        Called with the share of steps done.
    """

    field: Field
    architecture: Architecture
    preset: Preset
    budget: int
    seed: int
    starts: list[Weights]
    target_error: float = math.inf
    progress: Callable[[float], None] = lambda share: None

    @property
    def is_raced(self) -> bool:
        """Whether it begins with short fits."""
        return len(self.starts) > 1 or self.target_error < math.inf

    @cached_property
    def kind(self) -> Hashable:
        """What fits have in common that are trained together."""
        array, a = self.field.array, self.architecture
        # The narrowest layers are too small for the optimiser of matrices.
        sizes = a.layers, a.feature_count, a.experts > 1, min(a.encoder, a.width) > 3
        race = len(self.starts), self.target_error < math.inf
        return array.shape, array.dtype.newbyteorder("="), self.preset, self.seed, sizes, race


def prepare_fit(
    field: Field,
    architecture: Architecture,
    preset: Preset,
    budget: int,
    *,
    initial: Network | None = None,
    seed: int = 0,
    target_error: float = math.inf,
    progress: Callable[[float], None] = lambda share: None,
) -> NetworkFit:
    """Return a network to be fitted, with the weights that it starts from.

    Parameters
    ----------
    initial : Network, optional
        One of this architecture to start from, instead of the preset's starts. Its gate is not taken
        over: with experts, the fit starts as without it.

    The others are those of `NetworkFit`.
    """
    if initial is not None and architecture.experts == 1:
        starts = [float_weights(initial, field.normalisation.shift)]
    else:
        raced = target_error < math.inf or len(preset.starts) > 1
        starts = _starts(field, architecture, preset.starts if raced else preset.starts[:1], seed)
    return NetworkFit(
        field=field, architecture=architecture, preset=preset, budget=budget, seed=seed,
        starts=starts, target_error=target_error, progress=progress,
    )  # fmt: skip


def _starts(field: Field, architecture: Architecture, starts: Sequence[Start], seed: int) -> list[Weights]:
    """Weights that a fit starts from, after one look at what the field says of them."""
    generator = torch.Generator().manual_seed(seed)
    frequencies = axis_frequencies(field, generator)
    mean = float(field.targets(field.draw(1 << 14, generator)).mean())
    partition: Weights = {}
    if architecture.experts > 1:
        weight, bias = (
            torch.from_numpy(part.astype(np.float32))
            for part in gate(field, frequencies, architecture.experts, generator)
        )
        partition = {"gate.weight": weight, "gate.bias": bias}
    spectrum = power_spectrum(field, frequencies)

    def drawn(start: Start) -> Weights:
        shape = architecture.encoder, architecture.axes
        if start.omega:
            uniform = 2 * torch.rand(shape, generator=generator, dtype=torch.float64).numpy() - 1
            waves = start.omega / architecture.axes * uniform
        else:
            normal = torch.randn(shape, generator=generator, dtype=torch.float64).numpy()
            waves = normal * frequencies * start.scale
            spectral = round(start.spectral * len(waves))
            waves[:spectral] = draw_waves(spectrum, spectral, generator)
        return partition | initial_weights(architecture, waves, mean, generator)

    return [drawn(start) for start in starts]


def float_weights(network: Network, shift: int) -> Weights:
    """Return a network's weights in the units of a fit, whose targets are shifted."""
    weights = {name: torch.from_numpy(weight.copy()) for name, weight in network.weights().items()}
    for name in DECODER:
        weights[name] *= 2.0**shift
    return weights
