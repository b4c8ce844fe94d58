"""Restores a transform by linear experts: those of a dictionary, or a chunk's own, or none."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Bools, Doubles, Floats
from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.linear_experts import OWN_SHIFTS, SHARED_SHIFTS, read_linear_experts, write_shift
from moec_zarr.dictionary import Dictionary
from moec_zarr.errors import CorruptStreamError
from moec_zarr.fit.advice import read_advice
from moec_zarr.fit.transform.expert_fit import NEPER, NOTHING, Restoration, fit_experts, worth_of, write
from moec_zarr.fit.transform.expert_sample import draw_sample
from moec_zarr.fit.transform.straighten import measure_clipped, small_bias
from moec_zarr.model.linear_experts import restore_read, restore_whole
from moec_zarr.model.steps import STEP_SIZES, nearest_code

__all__ = ["Restored", "choose_experts", "experts_of", "may_restore", "restore_within"]

_COMPARED = 1 << 12  # voxels by which sets of a dictionary are compared
_LOOKED_AT = 1 << 13  # voxels by which the shift is expected
_SHIFTS = 3  # on the way to the mean, of which clipping leaves a part
_LEFT = 0.1  # of a shift, by which it may miss the mean
_ENOUGH, _LITTLE = 0.8, 0.02  # of what experts of chunks' own gain, and dB less: then a chunk fits none


class Restored(NamedTuple):
    """What restores a transform, the mean square error that is left, and the values."""

    restoration: Restoration
    error: float
    values: Floats


def restore_within(
    values: Floats,
    target: Floats,
    valid: Bools | None,
    zero: float,
    nbytes: int,
    limit: float = math.inf,
    shared: Dictionary | None = None,
    known: Restoration | None = None,
    advised: bool = True,
) -> Restored | None:
    """Restore a transform by experts; None where that is not worth their bytes.

    Parameters
    ----------
    values, target, valid, nbytes, limit, shared, known, advised
        As for :func:`choose_experts`.
    zero : float
        The target of zero, as :func:`moec_zarr.fit.transform.straighten.straighten` takes it.
    """
    found = choose_experts(values, target, valid, nbytes, limit, shared, known, advised)
    if found is None:
        return None
    before = measure_clipped(values, target, valid)
    if not before.error:
        return None
    small = max(abs(before.bias), small_bias(target, valid, zero))
    # A chunk's own experts are fitted to be right in the mean of a sample already.
    shift = _expect_shift(found, values, target, valid, before.bias, small) if found.is_shared else 0
    if shift:
        found = _shift(found, shift)
    own = _distance(shift)
    restored, distance = restore_whole(values, found.experts), own
    left = measure_clipped(restored, target, valid)
    for _ in range(_SHIFTS):
        if abs(left.bias) <= small:
            break
        # What is clipped does not move.
        count = target.size if valid is None else int(np.count_nonzero(valid))
        shift = _nearest_shift(found, distance - left.bias * count / max(1, left.inside))
        distance = _distance(shift)
        left = measure_clipped(restored, target, valid, distance - own)
    if abs(left.bias) > max(small, _LEFT * abs(distance)):
        return None
    if distance != own:
        found = _shift(found, shift)
    worth = worth_of(nbytes, values.size) * found.nbytes
    if math.log(max(left.error, NOTHING * before.error) / before.error) > -worth:
        return None
    if distance != own:
        # With the shift among the weights, as a decoder adds it: the values are the same bits.
        restored = restore_whole(values, found.experts)
    return Restored(found, left.error, restored)


def _expect_shift(
    found: Restoration, values: Floats, target: Floats, valid: Bools | None, bias: float, small: float
) -> int:
    """Return the shift that makes restored values right in the mean, about, by a sample; 0 if none is needed.

    A sample says little of the mean error, but much of how far experts move it from the one before.
    """
    sample = draw_sample(values, target, valid, _LOOKED_AT)
    if sample is None:
        return 0
    restored = restore_read(found.experts, sample.values, sample.bends, sample.steepness)
    total, shift = float(sample.weights.sum()), 0
    bias -= float(sample.weights @ np.clip(sample.values, -1, 1)) / total
    for _ in range(_SHIFTS):
        moved = restored + _distance(shift)
        left = bias + float(sample.weights @ np.clip(moved, -1, 1)) / total
        if abs(left) <= small:
            break
        inside = float(sample.weights @ (np.abs(moved) < 1)) / total
        shift = _nearest_shift(found, _distance(shift) - left / max(inside, 1 / total))
    return shift


def _nearest_shift(found: Restoration, distance: float) -> int:
    """Return the shift nearest to a distance that is not 0."""
    least, largest = SHARED_SHIFTS if found.is_shared else OWN_SHIFTS
    return int(math.copysign(min(max(nearest_code(abs(distance)), least), largest), distance))


def _distance(shift: int) -> float:
    return math.copysign(STEP_SIZES[abs(shift)], shift) if shift else 0.0


def _shift(found: Restoration, shift: int) -> Restoration:
    experts = replace(found.experts, shift=shift)
    if found.is_shared:
        return found._replace(experts=experts, payload=write_shift(shift))
    return write(experts)._replace(net=found.net)


def choose_experts(
    values: Floats,
    target: Floats,
    valid: Bools | None,
    nbytes: int,
    limit: float = math.inf,
    shared: Dictionary | None = None,
    known: Restoration | None = None,
    advised: bool = True,
) -> Restoration | None:
    """Choose the experts that restore a transform; None where none are worth their bytes.

    Parameters
    ----------
    values, target, valid, nbytes, limit
        As for :func:`moec_zarr.fit.transform.expert_fit.fit_experts`.
    shared : Dictionary, optional
        Whose experts are taken where they do better than a chunk's own. These are not fitted where they are
        not likely to gain more.
    known : Restoration, optional
        What was chosen for nearly the same values: taken where they are shared, else fitted again with the
        same knots.
    advised : bool
        Whether what chunks' own experts gained elsewhere says what they gain here.
    """
    if known is not None and known.is_shared:
        return known if known.nbytes <= limit else None
    sets = [each for each in experts_of(shared, values.ndim) if each.nbytes <= limit]
    best = _choose_shared(sets, values, target, valid, nbytes) if sets and known is None else None
    if known is None and advised and not _may_fit(shared, 0.0 if best is None else -NEPER * best.net):
        return best
    own = fit_experts(values, target, valid, nbytes, limit, None if known is None else known.experts)
    return own if best is None or (own is not None and own.net < best.net) else best


def may_restore(shared: Dictionary | None, axes: int) -> bool:
    """Say whether experts may restore transforms of a grid of so many axes."""
    return bool(experts_of(shared, axes)) or _may_fit(shared, 0.0)


def _may_fit(shared: Dictionary | None, gain: float) -> bool:
    """Say whether a chunk's own experts are likely to gain more than so many dB."""
    expected = read_advice(shared).own_experts
    return expected is None or _ENOUGH * expected - _LITTLE > gain


@lru_cache(maxsize=64)
def experts_of(dictionary: Dictionary | None, axes: int) -> tuple[Restoration, ...]:
    """Return the experts of a dictionary that a grid of so many axes can have."""
    result = []
    for number, entry in enumerate(() if dictionary is None else dictionary.entries):
        if entry.section == Section.LINEAR_EXPERTS:
            try:
                experts = read_linear_experts(entry.data, axes)
            except CorruptStreamError:
                continue
            # Those for chunks of other axes may be read too, but take other bytes. A shift is a stream's.
            if write(experts).payload == entry.data and not experts.shift:
                result.append(Restoration(experts, b"", entry=number))
    return tuple(result)


def _choose_shared(
    known: list[Restoration], values: Floats, target: Floats, valid: Bools | None, nbytes: int
) -> Restoration | None:
    """Return those that bring a sample closest; None where none bring it closer."""
    sample = draw_sample(values, target, valid, _COMPARED)
    if sample is None:
        return None

    def error(restored: Doubles) -> float:
        return float(sample.weights @ np.square(np.clip(restored, -1, 1) - sample.wanted))

    before = error(sample.values)
    if not before:
        return None
    worth, found = worth_of(nbytes, values.size), []
    for each in known:
        left = error(restore_read(each.experts, sample.values, sample.bends, sample.steepness))
        found.append(each._replace(net=math.log(max(left / before, NOTHING)) + worth * each.nbytes))
    best = min(found, key=lambda each: each.net)
    return best if best.net < 0 else None
