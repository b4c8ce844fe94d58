"""How a fit is run at each effort: data, not code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = ["PRESETS", "Preset", "Start", "scale_preset"]

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
    trial_steps : int
        Steps that each start is tried for.
    probe_steps : int
        Further steps of the better ones, from which the error of the whole fit is extrapolated.
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
        How often the transform and a network that corrects it are fitted in turn, at most.
    correction_steps : int
        Steps of that network in each alternation but the last.
    final_steps : int
        Its steps in the last alternation.
    screening_steps : int
        Steps of a network that is trained to tell whether any is worth a fit; without it, where 0, all are
        fitted.
    """

    steps: int
    batch: int = 2048
    starts: tuple[Start, ...] = (
        Start(0.5, 0.6),
        Start(0.5, 1.0),
        Start(omega=15.0),
    )
    trial_steps: int = 100
    probe_steps: int = 300
    rate: float = 2e-2
    warm_up: int = 50
    gate_rate: float = 0.05
    balance: float = 0.01
    quantised: float = 0.3
    allocations: int = 4
    alternations: int = 3
    correction_steps: int = 400
    final_steps: int = 1000
    screening_steps: int = 0


_FAST = Preset(
    steps=2000,
    starts=(Start(0.5, 0.35), Start(0.25, 1.0), Start(omega=20.0)),
    allocations=3,
    alternations=2,
    correction_steps=800,
    final_steps=800,
)
_BALANCED = Preset(steps=5000)
_BEST = Preset(
    steps=25_000,
    starts=(
        *(Start(spectral, scale) for spectral in (0.25, 0.5) for scale in (0.35, 0.6, 1.0)),
        *(Start(omega=omega) for omega in (10.0, 20.0, 40.0, 80.0)),
    ),
    trial_steps=300,
    probe_steps=1500,
    allocations=8,
    alternations=16,
    correction_steps=2500,
    final_steps=20_000,
)

# What an effort fits in turn: each takes part in the choice, so that none is worse than the one before.
PRESETS: dict[str, tuple[Preset, ...]] = {
    "fast": (_FAST,),
    "balanced": (replace(_BALANCED, screening_steps=200),),
    "best": (_BALANCED, _BEST),
}


def scale_preset(preset: Preset, voxels: int, share: float) -> Preset:
    """Scale a preset to a chunk of so many voxels and a share of its steps: small chunks need fewer."""
    share *= min(1.0, voxels / _PRESET_VOXELS) ** 0.4
    minimum = 2 * preset.warm_up
    return replace(
        preset,
        steps=max(minimum, round(preset.steps * share)),
        trial_steps=max(preset.warm_up, round(preset.trial_steps * share)),
        probe_steps=max(minimum, round(preset.probe_steps * share)),
        correction_steps=max(minimum, round(preset.correction_steps * share)),
        final_steps=max(minimum, round(preset.final_steps * share)),
        screening_steps=round(preset.screening_steps * share),
        batch=min(preset.batch, max(256, voxels // 24)),
    )
