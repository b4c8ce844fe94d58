"""From trained weights to integers: the gate, the steps, and the byte budget that they share.

With small steps a tensor of n weights with step s adds ``n h s^2 / 12`` to the mean square error,
h being the mean square derivative of a value by one of its weights, and costs ``-n log2 s`` bits
more. The least error at given bytes has ``h s^2`` alike in all tensors, so that one number
sets all steps.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from moec_zarr.bitstream.range_coder import MAX_MAGNITUDE
from moec_zarr.fit.network.stack import Weights
from moec_zarr.fit.payloads import DoesNotFit, encode_any_network
from moec_zarr.model.network import (
    GATE_LARGEST,
    GATE_LARGEST_BIAS,
    Architecture,
    Network,
)
from moec_zarr.model.steps import STEP_SIZES, step_size

__all__ = ["DECODER", "StepAllocator", "freeze_gate", "quantise", "round_through", "unshifted"]

Gate = dict[str, NDArray[np.int32]]

DECODER = "decoder.weight", "decoder.bias"

_PRECISION = 0.04  # octaves of error that a search leaves open; step codes are an eighth apart
_FINEST, _COARSEST = -24.0, 40.0  # octaves of error that a search begins and ends at
_FARTHEST = 4.0  # octaves that it goes at once


def freeze_gate(weights: Weights) -> Gate:
    """Return the gate as the integers it is evaluated with; empty where there is one expert."""
    if "gate.weight" not in weights:
        return {}
    weight = weights["gate.weight"].detach().cpu().numpy().astype(np.float64)
    bias = weights["gate.bias"].detach().cpu().numpy().astype(np.float64)
    # What is added to all experts alike changes no decision: centred, the integers are smallest.
    weight -= (weight.max(axis=1, keepdims=True) + weight.min(axis=1, keepdims=True)) / 2
    bias -= (bias.max() + bias.min()) / 2
    unit = max(
        np.abs(weight).max() / GATE_LARGEST,
        np.abs(bias).max() / GATE_LARGEST_BIAS,
        np.finfo(np.float32).tiny,
    )
    return {
        "gate.weight": np.rint(weight / unit).astype(np.int32),
        "gate.bias": np.rint(bias / unit).astype(np.int32),
    }


def round_through(weights: Weights, steps: Weights) -> Weights:
    """Round weights to their steps, with the gradient of the unrounded (straight-through)."""
    return {
        name: weight + (torch.round(weight / steps[name]) * steps[name] - weight).detach()
        for name, weight in weights.items()
    }


def quantise(architecture: Architecture, weights: Weights, codes: dict[str, int], gate: Gate) -> Network:
    """Return the network of integers nearest to `weights`."""
    integers = dict(gate)
    for name, weight in weights.items():
        scaled = weight.detach().cpu().numpy().astype(np.float64) / step_size(codes[name])
        integers[name] = np.rint(scaled).astype(np.int32)
    return Network(architecture, {name: integers[name] for name in architecture.shapes()}, codes)


def unshifted(network: Network, shift: int) -> Network:
    """Return the network for targets that are smaller by so many octaves: its decoder's steps are smaller."""
    codes = {name: code - 8 * shift * (name in DECODER) for name, code in network.codes.items()}
    return replace(network, codes=codes)


class StepAllocator:
    """Finds the steps with which a network meets a byte budget.

    Parameters
    ----------
    architecture : Architecture
    gate : dict of int32 arrays
        The frozen gate.
    budget : int
        Bytes that the network's section may take.
    shift : int
        Octaves that are taken off the decoder's steps in the end: they are no finer than allows it.
    """

    def __init__(self, architecture: Architecture, gate: Gate, budget: int, shift: int) -> None:
        self._architecture, self._gate, self._budget = architecture, gate, budget
        self._finest = dict.fromkeys(DECODER, 8 * shift)
        self._last: float | None = None

    def __call__(self, weights: Weights, sensitivity: dict[str, float]) -> dict[str, int]:
        """Step codes for `weights`, the finest in proportion that stay within the budget.

        Raises
        ------
        DoesNotFit
            If none do.
        """
        low, high = _FINEST, math.inf  # too many bytes, and few enough
        now = 0.0 if self._last is None else self._last
        octave = sum(weight.numel() for weight in weights.values()) / 8  # bytes that it saves, of fine steps
        while high - low > _PRECISION:
            size = self.size(weights, self._codes(weights, sensitivity, now))
            if size <= self._budget:
                high = now
            elif now > _COARSEST:
                raise DoesNotFit(f"no quantisation fits into {self._budget} bytes")
            else:
                low = now
            over = min((size - self._budget) / octave, _FARTHEST)
            if -_PRECISION < over <= 0:
                break
            # By the bytes that an octave saves, or into the middle where that leads out of the bracket.
            now = now + over if low < now + over < high else (low + high) / 2
        self._last = high
        return self._codes(weights, sensitivity, high)

    def fits(self, weights: Weights, codes: dict[str, int]) -> bool:
        """Say whether the quantised weights stay within the budget."""
        return self.size(weights, codes) <= self._budget

    def size(self, weights: Weights, codes: dict[str, int]) -> float:
        """Count the bytes of the quantised weights; infinite if they cannot be coded."""
        try:
            return len(encode_any_network(quantise(self._architecture, weights, codes, self._gate)))
        except DoesNotFit:
            return math.inf

    def _codes(self, weights: Weights, sensitivity: dict[str, float], log2_error: float) -> dict[str, int]:
        codes = {}
        for name, weight in weights.items():
            step = 2.0**log2_error / math.sqrt(max(sensitivity[name], 1e-24))
            # No larger than rounds all to zero, no finer than the largest integer that is coded.
            largest = float(weight.detach().abs().max())
            step = max(min(step, 4 * largest + 1e-6), 1.2 * largest / MAX_MAGNITUDE)
            code = int(np.abs(np.log2(STEP_SIZES) - math.log2(step)).argmin())
            codes[name] = max(code, self._finest.get(name, 0))
        return codes
