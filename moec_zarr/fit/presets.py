"""How a fit is run at each effort: data, not code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = ["PRESETS", "Preset", "Start", "scaled"]

_PRESET_VOXELS = 1 << 21  # voxels that a preset's steps are meant for


class Start(NamedTuple):
    """How an encoder starts.

    Attributes
    ----------
    spectral : float
        Share of its rows that are drawn from the field's power spectrum.
    scale : float
        Factor on the data's frequencies, the standard deviation of the normal that the other
        rows are drawn from.
    omega : float
        In place of both, where it is not zero: the largest phase, in radians per unit of u, of rows
        that are uniform and alike on all axes, as in SIREN (Sitzmann et al., arXiv 2006.09661,
        section 3.2).
    """

    spectral: float = 0.0
    scale: float = 0.0
    omega: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How a fit is run.

    Attributes
    ----------
    steps, batch : int
        Optimisation steps of a network on its own, and voxels in each.
    starts : tuple of Start
        How the encoder may start; all are tried, the best is kept.
    shorter : tuple of float
        Shares of `steps` in which a network alone is fitted as well: a long fit may end up worse.
    trial : float
        Share of `steps` that each trial takes.
    rate : float
        Learning rate at its peak, after `warm_up` steps; it falls along a half cosine.
    gate_rate : float
        Factor on the learning rate of the gate.
    balance : float
        Weight of the balance loss, relative to the error's.
    quantised : float
        Share of the steps, the last ones, that train quantised weights with a frozen gate.
    allocations : int
        How often, in the first three quarters of those, the quantisation steps are set anew.
    alternations : int
        How often the transform and a network that corrects it are fitted in turn.
    correction_steps : int
        Steps of that network in each alternation but the last.
    final_steps : int
        Its steps in the last alternation.
    """

    steps: int
    batch: int = 2048
    starts: tuple[Start, ...] = (
        *(Start(0.5, 0.35), Start(0.25, 0.6), Start(0.25, 1.0)),
        *(Start(omega=omega) for omega in (10.0, 20.0, 40.0)),
    )
    shorter: tuple[float, ...] = ()
    trial: float = 0.05
    rate: float = 2e-2
    warm_up: int = 50
    gate_rate: float = 0.05
    balance: float = 0.01
    quantised: float = 0.3
    allocations: int = 8
    alternations: int = 6
    correction_steps: int = 1000
    final_steps: int = 3000


PRESETS = {
    "fast": Preset(
        steps=2500,
        starts=(Start(0.5, 0.35), Start(0.25, 1.0), Start(omega=20.0)),
        trial=0.05,
        allocations=3,
        alternations=2,
        correction_steps=800,
        final_steps=800,
    ),
    "balanced": Preset(steps=8_000),
    "best": Preset(
        steps=50_000,
        starts=(
            *(Start(spectral, scale) for spectral in (0.25, 0.5) for scale in (0.35, 0.6, 1.0)),
            *(Start(omega=omega) for omega in (10.0, 20.0, 40.0, 80.0)),
        ),
        shorter=(0.16,),
        trial=0.015,
        alternations=16,
        correction_steps=2500,
        final_steps=20_000,
    ),
}


def scaled(preset: Preset, voxels: int, share: float) -> Preset:
    """The preset for a chunk of so many voxels, with a share of its steps: small ones need fewer."""
    share *= min(1.0, voxels / _PRESET_VOXELS) ** 0.4
    minimum = 2 * preset.warm_up
    return replace(
        preset,
        steps=max(minimum, round(preset.steps * share)),
        correction_steps=max(minimum, round(preset.correction_steps * share)),
        final_steps=max(minimum, round(preset.final_steps * share)),
        batch=min(preset.batch, max(256, voxels // 24)),
    )
