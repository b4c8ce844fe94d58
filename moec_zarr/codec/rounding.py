"""Values rounded as far as a bound on the error allows, as integers of as few levels as possible."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from moec_zarr.arrays import Array, Doubles, Integers
from moec_zarr.model.levels import MOST_RUNGS, Bits, Grid, Ladder, Levels, as_integers, restore
from moec_zarr.quality import absolute_error

__all__ = ["Rounded", "distinct_values", "keep_mean", "round_to_grid", "round_within"]

_EXACT_DOUBLES = 1 << 52  # integers that doubles hold with room to spare
_WIDE = 1 << 60  # 64-bit integers that are added without a thought
_FEW = 1 << 12  # distinct values among which some are chosen that stand for all
_FEW_INTEGERS = 1 << 16  # of integers, for which relative bounds have no other levels
_LARGEST_RELATIVE = 0.5  # of bounds that a ladder serves
_DECIMALS = range(-3, 9)
_PROBES = 1 << 10  # distinct values that show whether there is a decimal grid
_BIAS = 1e-4  # of the mean magnitude: what rounding may change the mean by
_LEAST_SHARE = 0.25  # of a spacing, from a level: values that may be rounded to the next


class Rounded(NamedTuple):
    """Values rounded to levels.

    Attributes
    ----------
    levels : Levels
    integers : int64 array
        Of the levels.
    values : array
        What these stand for.
    """

    levels: Levels
    integers: Integers
    values: Array


def round_within(
    values: Array, max_error: float = 0.0, max_relative_error: float = 0.0, *, avoid: Any = None
) -> list[Rounded]:
    """Round values to few levels such that each x becomes a y with ``|y - x| <= max(a, r |x|)``.

    Parameters
    ----------
    values : integer or float array, one axis
        All of them finite, and at least one.
    max_error, max_relative_error : float
        The bounds a and r; zero for none. Where both are, values stay as they are, to the bit. Where a is,
        zeros stay and so do signs.
    avoid : scalar, optional
        What no value may become.

    Returns
    -------
    list of Rounded
        Ways to do so; the values themselves are always one.
    """
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    low, high = native.min(), native.max()
    distinct = distinct_values(native)
    found: list[tuple[Levels, Integers]] = []
    if max_error > 0 or max_relative_error > 0:
        absolute, relative = float(max_error), min(float(max_relative_error), _LARGEST_RELATIVE)
        if relative * max(abs(float(low)), abs(float(high))) <= absolute:
            relative = 0.0
        if relative == 0:
            found += _on_grid(native, low, high, absolute, avoid)
        elif native.dtype.kind == "f":
            found += _on_ladder(native, absolute, relative)
            found += _without_last_bits(native, relative)
        few = _FEW_INTEGERS if relative and native.dtype.kind in "iu" else _FEW
        if distinct.size <= min(few, native.size // 4):
            found.append((Bits(0), _on_own_values(native, distinct, absolute, relative)))
    made = [Rounded(levels, k, restore(levels, k, native.dtype, low, high)) for levels, k in found]
    kept = [
        each
        for each in made
        if _keeps(native, each.values, max_error, max_relative_error)
        and (avoid is None or not (each.values == avoid).any())
    ]
    return kept + [Rounded(levels, k, native) for levels, k in _as_they_are(native, distinct, low, high)]


def round_to_grid(values: Array, max_error: float, *, avoid: Any = None) -> Rounded | None:
    """Round values to levels of equal distance, to the nearest; None where there are no such levels."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    low, high = native.min(), native.max()
    for levels, integers in _on_grid(native, low, high, max_error, avoid):
        restored = restore(levels, integers, native.dtype, low, high)
        if avoid is None or not (restored == avoid).any():
            return Rounded(levels, integers, restored)
    return None


def keep_mean(values: Array, rounded: Rounded) -> Rounded:
    """Round some values to the next but nearest level of a grid, so that the mean is right.

    Many small values that become zero would make it smaller. Those nearest to the middle between two levels
    change sides.
    """
    levels, integers, restored = rounded
    wide = values.astype(np.float64)
    left = wide - restored.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # sums of the largest doubles are none
        total, most = float(left.sum()), float(np.abs(wide).sum())
    if not isinstance(levels, Grid) or not _BIAS * most < abs(total) < math.inf:
        return rounded
    side = int(math.copysign(1, total))
    own, spacing = side * left, float(levels.spacing / levels.divisor)
    some = np.flatnonzero(own > _LEAST_SHARE * spacing)
    count = min(round(abs(total) / spacing), some.size)
    if not count:
        return rounded
    integers = integers.copy()
    integers[some[np.argpartition(own[some], -count)[-count:]]] += side
    return Rounded(levels, integers, restore(levels, integers, restored.dtype, values.min(), values.max()))


def distinct_values(values: Array) -> Array:
    """Return the distinct values, rising; with a minus zero among them, zeros may be either.

    Integers of a small range are looked up. Others are sorted: a table of hashes takes several times as long
    where most of them differ.
    """
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if high - low < values.size and max(abs(low), abs(high)) < _WIDE:
            there = np.zeros(high - low + 1, bool)
            there[values.reshape(-1).astype(np.int64) - low] = True
            return np.asarray(np.flatnonzero(there) + low, values.dtype)
    rising = np.sort(values, axis=None)
    return np.asarray(rising[np.append(True, rising[1:] != rising[:-1])])


def _keeps(x: Array, y: Array, max_error: float, max_relative_error: float) -> bool:
    """Say whether a bound is kept, in exact arithmetic, or rather more than that."""
    allowed = np.full(x.shape, max_error, np.float64)
    if max_relative_error:
        # Rounded down by more than a product in double precision may be rounded up, and a subnormal one.
        magnitude = np.abs(x.astype(np.float64)) * max_relative_error * (1 - 2.0**-50)
        allowed = np.maximum(allowed, np.nextafter(magnitude, 0))
    with np.errstate(over="ignore"):
        own = np.abs(x - y) if x.dtype.kind == "f" else 0.0
        return bool((absolute_error(x, y) <= allowed).all() and (own <= allowed).all())


def _as_they_are(values: Array, distinct: Array, low: Any, high: Any) -> list[tuple[Levels, Integers]]:
    integers = as_integers(values)
    own = as_integers(distinct)
    bits = int(np.bitwise_or.reduce(np.where(own < 0, ~own, own) if values.dtype.kind == "f" else own))
    shift = (bits & -bits).bit_length() - 1 if bits else 0
    found: list[tuple[Levels, Integers]] = [(Bits(shift), integers >> shift)]
    if values.dtype.kind == "f":
        grid = _find_decimals(values, distinct, low, high)
        if grid is not None:
            found.append(grid)
    elif distinct.size > 1 and max(abs(int(low)), abs(int(high))) < _WIDE:
        spacing = int(np.gcd.reduce(np.diff(own)))
        if spacing > 1 << shift:
            found.append((Grid(spacing, 1, int(low)), (values.astype(np.int64) - int(low)) // spacing))
    return found


def _find_decimals(values: Array, distinct: Array, low: Any, high: Any) -> tuple[Levels, Integers] | None:
    """Find the decimals that floats are; None if they are none, or if a zero among them is negative."""
    probes = distinct[:: max(distinct.size // _PROBES, 1)]
    for digits in _DECIMALS:
        grid = Grid(1.0, 10.0**digits, 0.0) if digits >= 0 else Grid(10.0**-digits, 1.0, 0.0)
        if all(_on_levels(grid, some, low, high) is not None for some in (probes, values)):
            integers = _on_levels(grid, values, low, high)
            return None if integers is None else (grid, integers)
    return None


def _on_levels(grid: Grid, values: Array, low: Any, high: Any) -> Integers | None:
    """Return the integers of a grid that values lie on to the bit; None if one does not."""
    with np.errstate(over="ignore"):
        places = values.astype(np.float64) * grid.divisor / grid.spacing
    if not np.abs(places).max() < _EXACT_DOUBLES:
        return None
    integers = np.rint(places).astype(np.int64)
    restored = restore(grid, integers, values.dtype, low, high)
    same = restored.view(f"u{values.itemsize}") == values.view(f"u{values.itemsize}")
    return integers if same.all() else None


def _on_grid(values: Array, low: Any, high: Any, bound: float, avoid: Any) -> list[tuple[Levels, Integers]]:
    if values.dtype.kind in "iu":
        largest = max(abs(int(low)), abs(int(high)))
        half = math.floor(min(bound, float(2 * largest + 1)))
        if half < 1 or largest >= _WIDE:
            return []
        origin = 0 if avoid is None else int(avoid) + half
        whole = (values.astype(np.int64) - (origin - half)) // (2 * half + 1)
        return [(Grid(2 * half + 1, 1, origin), whole)]
    most = max(abs(float(low)), abs(float(high)))
    below = np.nextafter(np.finfo(values.dtype).max, values.dtype.type(0))
    rounding = float(np.spacing(min(values.dtype.type(most), below))) / 2
    spacing = 2 * min((bound - rounding) * (1 - 2 * float(np.finfo(values.dtype).eps)), most)
    if not spacing > 0:
        return []
    first = 0.0 if avoid is None else float(avoid) + spacing / 2
    with np.errstate(over="ignore", invalid="ignore"):  # next to the largest double
        places = (values.astype(np.float64) - first) / spacing
    if not np.abs(places).max() < _EXACT_DOUBLES:
        return []
    return [(Grid(spacing, 1.0, first), np.rint(places).astype(np.int64))]


def _on_ladder(values: Array, absolute: float, relative: float) -> list[tuple[Levels, Integers]]:
    magnitude = np.abs(values.astype(np.float64))
    largest = float(magnitude.max())
    own = (relative - float(np.finfo(values.dtype).eps) / 2) * (1 - 2.0**-40)
    bound = absolute * (1 - 2.0**-40)
    if own <= 0 or largest <= bound:
        return []
    ratio = (1 + own) / (1 - own)
    first = 2 * bound if bound else float(magnitude[magnitude > 0].min())
    if ratio <= 1 or first * ratio == first:
        return []
    count = math.ceil(max(math.log(largest) - math.log(first), 0) / math.log(ratio)) + 2
    if count > MOST_RUNGS // 2:
        return []
    ladder = Ladder(first, 2 * bound, ratio)
    with np.errstate(over="ignore"):
        rungs = ladder.rungs(count)
        ends = np.maximum(rungs + bound, rungs / (1 - own))
    number = np.minimum(np.searchsorted(ends, magnitude), count - 1) + 1
    number[magnitude <= bound] = 0
    return [(ladder, np.where(values < 0, -number, number))]


def _without_last_bits(values: Array, relative: float) -> list[tuple[Levels, Integers]]:
    """Round mantissas to the fewest bits: what is left of them is half a unit off at most."""
    dropped = np.finfo(values.dtype).nmant - max(math.ceil(-math.log2(relative)) - 1, 0)
    if dropped < 1:
        return []
    integers = as_integers(values)
    magnitude = np.where(integers < 0, ~integers, integers)
    magnitude = (magnitude + (1 << dropped - 1)) >> dropped
    return [(Bits(dropped), np.where(integers < 0, ~magnitude, magnitude))]


def _on_own_values(values: Array, distinct: Array, absolute: float, relative: float) -> Integers:
    """Let some of the values that occur stand for those beside them."""
    chosen = np.empty_like(distinct)
    signs = np.sign(distinct)
    # With a relative bound neither zero nor the other sign stands for a value.
    for sign in (-1, 0, 1) if relative else (None,):
        own = np.flatnonzero(signs == sign) if sign is not None else np.arange(distinct.size)
        if own.size:
            chosen[own] = _stand_ins(distinct[own], absolute, relative)
    return as_integers(chosen)[np.searchsorted(distinct, values)]


@np.errstate(over="ignore")  # beyond the largest double nothing lies nearer
def _stand_ins(rising: Array, absolute: float, relative: float) -> Array:
    """Return, for each of rising values, the one that stands for it."""
    x = rising.astype(np.float64)
    allowed: Doubles = np.maximum(absolute, relative * np.abs(x)) * (1 - 2.0**-40)
    reach = np.maximum.accumulate(x - allowed)  # the lowest value that may stand for it
    result = np.empty_like(rising)
    first = 0
    while first < x.size:
        middle = max(int(np.searchsorted(x, x[first] + allowed[first], "right")) - 1, first)
        end = max(int(np.searchsorted(reach, x[middle], "right")), middle + 1)
        result[first:end] = rising[middle]
        first = end
    return result
