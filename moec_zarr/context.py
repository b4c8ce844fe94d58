"""The context that latents are coded with, fitted to their magnitudes.

In real numbers the scale of a coefficient's Laplace distribution is ``exp(offset + slope g + power
log(exp(floor + rise g) + sum of exp(weight) |q|))``, g its level and q the integers at its taps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moec_zarr.basis import TAPS
from moec_zarr.latents import Context

__all__ = ["ContextFit"]

_FITTED = 1 << 17  # coefficients at most that the context is fitted to, beside zeros among zeros
_MOST_SCALE = 900.0
_MOST_FLOOR = 15  # its logarithm
_LEAST_SCALE = 0.03
_RIDGE = 1e-4  # keeps the floor of the activity in bounds where it hardly matters
_STEPS = 12  # of its optimiser, in each fit

_Ints = NDArray[np.int64]


class ContextFit:
    """Fits contexts by L-BFGS, each from the one before."""

    def __init__(self, axes: int) -> None:
        self._parameters = _parameters(axes)

    def __call__(self, magnitudes: _Ints, taps: _Ints, levels: _Ints, quiet: _Ints) -> Context:
        """The context with which magnitudes take the fewest bits.

        Parameters
        ----------
        magnitudes, levels : int64 array, shape (n,)
        taps : int64 array, shape (n, axes * TAPS)
            Magnitudes there.
        quiet : int64 array
            How many zeros among zeros each level has beside these.
        """
        p = self._parameters
        # What is zero among zeros differs in its level alone.
        active = np.flatnonzero((magnitudes > 0) | taps.any(axis=1))
        quiet = quiet + np.bincount(levels, minlength=len(quiet))
        quiet -= np.bincount(levels[active], minlength=len(quiet))
        kept = active[:: 1 + len(active) // _FITTED]
        weight = len(active) / max(len(kept), 1)
        parts = (
            np.append(magnitudes[kept], np.zeros_like(quiet)),
            np.append(taps[kept], np.zeros((len(quiet), taps.shape[1]), np.int64), axis=0),
            np.append(levels[kept], np.arange(len(quiet))),
            np.append(np.full(len(kept), weight), quiet) / (weight * len(kept) + quiet.sum()),
        )
        q, t, g, share = (torch.from_numpy(part.astype(np.float32)) for part in parts)
        optimiser = torch.optim.LBFGS(p.values(), max_iter=_STEPS, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            activity = torch.exp(p["floor"] + p["rise"] * g) + t @ torch.exp(p["weights"])
            scale = torch.exp(p["offset"] + p["slope"] * g + p["power"] * torch.log(activity))
            bits = _laplace_bits(q, scale.clamp(_LEAST_SCALE, _MOST_SCALE)) @ share
            bits = bits + _RIDGE * (p["rise"] ** 2 + p["floor"] ** 2)
            optimiser.zero_grad()
            bits.backward()
            return bits

        optimiser.step(loss)
        return _rounded({name: value.detach().numpy().astype(np.float64) for name, value in p.items()})


def _parameters(axes: int) -> dict[str, torch.Tensor]:
    start = {"weights": [-1.0] * (axes * TAPS), "floor": -2.0, "rise": 0.0}
    start |= {"power": 0.9, "offset": 0.0, "slope": 0.0}
    return {name: torch.tensor(value).requires_grad_() for name, value in start.items()}


def _laplace_bits(q: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Bits of magnitude q under a Laplace distribution in bins of unit width."""
    half = 0.5 / scale
    zero = -torch.log(-torch.expm1(-half))
    other = (2 * q - 1) * half - torch.log(-0.5 * torch.expm1(-2 * half))
    return torch.where(q > 0, other, zero) / math.log(2)


def _rounded(p: dict[str, NDArray[np.float64]]) -> Context:
    """The parameters in the units of :class:`Context`."""
    octave = math.log(2)
    # Whole numbers of activity in one of the real ones: as many as weights and floor have room for.
    unit = min(255 / np.exp(p["weights"].max()), 2.0**_MOST_FLOOR / np.exp(p["floor"]))

    def whole(value: Any, low: int, high: int) -> int:
        return int(min(max(round(float(value)), low), high))

    # Both exponential and logarithm run in eighths of an octave, classes in quarters from 2**-5 on.
    floor = 8 * (p["floor"] + np.log(unit)) / octave
    offset = 128 * (4 * (p["offset"] - p["power"] * np.log(unit)) / octave + 20.5)
    return Context(
        weights=tuple(whole(w, 0, 255) for w in np.atleast_1d(unit * np.exp(p["weights"]))),
        floor=whole(floor, -128, 127),
        rise=whole(8 * p["rise"] / octave, -128, 127),
        power=whole(64 * p["power"], 0, 255),
        offset=whole(offset, -(2**15), 2**15 - 1),
        slope=whole(128 * 4 * p["slope"] / octave, -(2**15), 2**15 - 1),
    )
