"""Compiled loops of the rate-distortion optimised quantisation; what an encoder needs of numba.

*Candidates* are the coefficients that may be other than zero. *Rows* are these, first and in the same
order, and all other coefficients that have one of them as a context neighbour; whatever is no row is zero
with a zero context, and its bits follow from its octave alone. *Links* lead from each candidate to the rows
whose neighbour it is.
"""

from __future__ import annotations

import numpy as np

from moec_zarr.arrays import Array
from moec_zarr.bitstream.contexts import EXACT_LOGARITHMS, MAX_NEIGHBOUR
from moec_zarr.compiled import compiled

__all__ = [
    "activities",
    "bits_of",
    "class_of",
    "find_large",
    "find_links",
    "follow",
    "loss",
    "neighbour_magnitudes",
    "quantise",
    "row_bits",
    "seen",
]

_CLEAR = 2.5  # bits of a smaller magnitude over those of the nearest one, that others do not outweigh


@compiled()
def find_large(coefficients: Array, threshold: float) -> Array:
    """Find the flat positions of the coefficients whose magnitude exceeds a threshold."""
    count = 0
    for value in coefficients:
        if abs(value) > threshold:
            count += 1
    result = np.empty(count, np.int32)
    count = 0
    for place in range(coefficients.size):
        if abs(coefficients[place]) > threshold:
            result[count] = place
            count += 1
    return result


@compiled()
def bands_of(places: Array, strides: Array, bands: Array, band_strides: Array) -> Array:
    """Return the number of each coefficient's band, in C order of all bands."""
    result = np.empty(places.size, np.int32)
    for i in range(places.size):
        rest, number = places[i], 0
        for axis in range(strides.size):
            index = rest // strides[axis]
            rest -= index * strides[axis]
            number += bands[axis, index] * band_strides[axis]
        result[i] = number
    return result


@compiled()
def find_links(
    places: Array, present: Array, strides: Array, bands: Array, band_strides: Array,
    slots: Array, moves: Array, turns: Array, depth: Array, parent_weight: int, parents: Array, size: int,
    first: Array,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Find where candidates add to the activity.

    Parameters
    ----------
    places : int32 array
        Positions of the candidates.
    present : bool array
        Which bands are coded, flat.
    strides, band_strides : int64 array, shape (axes,)
    bands : int32 array, shape (axes, longest axis)
        Band of each function of an axis.
    slots, depth, parent_weight
        Those of `ContextTables`.
    moves, turns : int32 array
        What its `reach` adds to a position, and to the number of a band.
    parents : int32 array
        Position of the parent of each coefficient of a joint basis; empty in others.
    size : int
        Number of all coefficients.
    first : int array, shape (candidates + 1,)
        Where the first link of each candidate is written to.

    Returns
    -------
    link_rows, link_weights : int32 and uint8 array
        The row and the weight of each link.
    row_bands : int32 array
        Band of each row.
    """
    axes, count = strides.size, places.size
    rows_at = np.full(size, -1, np.int32)  # the row of each coefficient
    for i in range(count):
        rows_at[places[i]] = i
    children = np.zeros(count if parent_weight >= 0 else 0, np.int32)
    if parent_weight >= 0:
        for place in range(parents.size):
            parent = parents[place]
            if parent >= 0 and rows_at[parent] >= 0:
                children[rows_at[parent]] += 1
    room = count * slots.shape[0] + int(children.sum())
    link_rows = np.empty(room, np.int32)
    link_weights = np.empty(room, np.uint8)
    row_bands = np.empty(count + room, np.int32)
    rows, used = count, 0
    index = np.zeros(axes, np.int64)
    last, length = axes - 1, strides[axes - 2] if axes > 1 else size
    row_number, row_depth = 0, 0  # those of all axes but the last one
    for i in range(count):
        place = places[i]
        moved = place - places[i - 1] if i else size
        if index[last] + moved < length:  # on the same row
            index[last] += moved
        else:
            rest, row_number, row_depth = place, 0, 1 << 30
            for axis in range(axes):
                index[axis] = rest // strides[axis]
                rest -= index[axis] * strides[axis]
                if axis < last:
                    row_number += bands[axis, index[axis]] * band_strides[axis]
                    row_depth = min(row_depth, depth[axis, index[axis]])
        number = row_number + bands[last, index[last]] * band_strides[last]
        deep = min(row_depth, depth[last, index[last]])
        row_bands[i] = number
        first[i] = used
        for slot in range(slots.shape[0]):
            at = index[slots[slot, 0]]
            move = moves[slot, deep, at]
            if move == 0:
                continue
            row = rows_at[place + move]
            if row < 0:  # all rows are in bands that are coded
                band = number + turns[slot, deep, at]
                if not present[band]:
                    continue
                row = rows
                rows_at[place + move] = row
                row_bands[row] = band
                rows += 1
            link_rows[used] = row
            link_weights[used] = slots[slot, 1]
            used += 1
        if parent_weight >= 0:
            used += children[i]
    first[count] = used
    if parent_weight >= 0:
        for place in range(parents.size):
            parent = parents[place]
            if parent < 0 or rows_at[parent] < 0 or rows_at[parent] >= count:
                continue
            i = rows_at[parent]
            row = rows_at[place]
            if row < 0:
                number, rest = 0, place
                for axis in range(axes):
                    here = rest // strides[axis]
                    rest -= here * strides[axis]
                    number += bands[axis, here] * band_strides[axis]
                if present[number]:
                    row = rows
                    rows_at[place] = row
                    row_bands[row] = number
                    rows += 1
            link = first[i + 1] - children[i]
            link_rows[link] = row  # -1: of no band that is coded
            link_weights[link] = parent_weight
            children[i] -= 1
    # Views: memory that nothing was written to is not taken from the machine.
    return link_rows[:used], link_weights[:used], row_bands[:rows]


@compiled()
def activities(
    magnitudes: Array, first: Array, link_rows: Array, link_weights: Array, weights: Array, ground: Array,
    octaves: Array,
) -> Array:  # fmt: skip
    """Compute the activity of each row; `ground` is that of a zero context in each octave."""
    result = np.empty(octaves.size, np.int32)
    for row in range(octaves.size):
        result[row] = ground[octaves[row]]
    for i in range(magnitudes.size):
        if magnitudes[i]:
            for link in range(first[i], first[i + 1]):
                if link_rows[link] >= 0:
                    result[link_rows[link]] += weights[link_weights[link]] * seen(magnitudes[i])
    return result


@compiled()
def class_of(activity: int, base: int, power: int, logarithms: Array) -> int:
    """Return the class of an activity in an octave of this `base`."""
    at = activity if activity < EXACT_LOGARITHMS else EXACT_LOGARITHMS + (activity >> 8)
    fine = (power * logarithms[at] + base) >> 7
    return int(min(max(fine, 0), 63))


@compiled()
def bits_of(table: Array, number: int, magnitude: int) -> float:
    """Return the bits of a magnitude, signed: the last one of the table has its excess behind it."""
    last = table.shape[1] - 1
    if magnitude < last:
        return float(table[number, magnitude])
    order = max(number // 4 - 5, 0)
    rest, length = (magnitude - last + (1 << order)) >> order, 0
    while rest > 1:
        rest, length = rest >> 1, length + 1
    return float(table[number, last]) + 2 * length + 1 + order


@compiled()
def seen(magnitude: int) -> int:
    """Return what a magnitude counts beside others."""
    return min(magnitude, MAX_NEIGHBOUR)


@compiled()
def quantise(
    scaled: Array, magnitudes: Array, activity: Array, base: Array, octaves: Array, first: Array,
    link_rows: Array, link_weights: Array, weights: Array, power: int, logarithms: Array, table: Array,
    rate: float,
) -> int:  # fmt: skip
    """Give each candidate in turn the magnitude that costs least while all others stay; count the changes.

    The integer next to it, the one below, or zero. The bits of a choice are its own and those of the rows
    whose neighbour it is. `magnitudes` and `activity` are changed in place.
    """
    count, changed = magnitudes.size, 0
    zeros = table[:, 0].copy()
    for i in range(count):
        size, now = scaled[i], magnitudes[i]
        nearest = int(size + np.float32(0.5))
        if nearest == 0 and now == 0:
            continue
        # One step less takes up to 1 in units of the error, and zero 4 where it is two steps away: more than
        # bits are worth where it lies further.
        lower = nearest - 1 if size < nearest else nearest
        zero = 0 if nearest <= 2 else lower
        best = nearest
        if lower < nearest or zero < lower:
            own = class_of(activity[i], base[octaves[i]], power, logarithms)
            cost = (size - nearest) ** 2 + rate * bits_of(table, own, nearest)
            lower_cost = zero_cost = np.inf
            if lower < nearest:
                lower_cost = (size - lower) ** 2 + rate * bits_of(table, own, lower)
            if zero < lower:
                zero_cost = size**2 + rate * zeros[own]
            clear = min(lower_cost, zero_cost) > cost + _CLEAR * rate
            change = seen(nearest) - seen(now)
            lower_change, zero_change = seen(lower) - seen(now), -seen(now)
            for link in range(first[i], first[i] if clear else first[i + 1]):
                row = link_rows[link]
                if row < 0:
                    continue
                weight, ground, beside = weights[link_weights[link]], activity[row], base[octaves[row]]
                if weight == 0:
                    continue
                number = class_of(ground + weight * change, beside, power, logarithms)
                lower_number, zero_number = number, number
                if lower < nearest:
                    lower_number = class_of(ground + weight * lower_change, beside, power, logarithms)
                if zero < lower:
                    zero_number = class_of(ground + weight * zero_change, beside, power, logarithms)
                if number == lower_number and number == zero_number:
                    continue  # it makes no difference
                magnitude = magnitudes[row] if row < count else 0
                if magnitude == 0:
                    cost += rate * zeros[number]
                    lower_cost += rate * zeros[lower_number]
                    zero_cost += rate * zeros[zero_number]
                else:
                    cost += rate * bits_of(table, number, magnitude)
                    lower_cost += rate * bits_of(table, lower_number, magnitude)
                    zero_cost += rate * bits_of(table, zero_number, magnitude)
            if lower_cost <= cost:
                cost, best = lower_cost, lower
            if zero_cost <= cost:
                best = 0
        if best != now:
            changed += 1
            change = seen(best) - seen(now)
            magnitudes[i] = best
            for link in range(first[i], first[i + 1]):
                if link_rows[link] >= 0:
                    activity[link_rows[link]] += weights[link_weights[link]] * change
    return changed


@compiled()
def follow(places: Array, scaled: Array, last_places: Array, last_magnitudes: Array, ratio: float) -> Array:
    """Round candidates as they were at another step: to the nearest integer, to the one below, or to zero.

    Parameters
    ----------
    places, last_places : int32 array
        Rising positions of the candidates, and of those of the other step.
    scaled : float32 array
        Magnitudes of the candidates in steps.
    last_magnitudes : int32 array
        Integers of the other step.
    ratio : float
        Of this step to the other one.
    """
    result = np.empty(places.size, np.int32)
    there = 0
    for i in range(places.size):
        while there < last_places.size and last_places[there] < places[i]:
            there += 1
        known = there < last_places.size and last_places[there] == places[i]
        last = last_magnitudes[there] if known else 0
        nearest = int(scaled[i] + 0.5)
        if last == 0:
            nearest = 0 if nearest < 2 else nearest
        elif last < int(scaled[i] * ratio + 0.5):
            nearest = max(nearest - 1, 1)
        result[i] = nearest
    return result


@compiled()
def row_bits(
    magnitudes: Array,
    activity: Array,
    base: Array,
    octaves: Array,
    power: int,
    logarithms: Array,
    table: Array,
) -> float:
    """Compute the bits of all rows."""
    result = 0.0
    for row in range(activity.size):
        magnitude = magnitudes[row] if row < magnitudes.size else 0
        result += bits_of(table, class_of(activity[row], base[octaves[row]], power, logarithms), magnitude)
    return result


@compiled()
def loss(sizes: Array, magnitudes: Array, step: float) -> float:
    """Compute the squared error in steps, less that of zeros."""
    total = 0.0
    for i in range(sizes.size):
        total += magnitudes[i] * (magnitudes[i] - 2.0 * (sizes[i] / step))
    return total


@compiled()
def neighbour_magnitudes(
    magnitudes: Array,
    first: Array,
    link_rows: Array,
    link_weights: Array,
    sample_size: int,
    neighbours: int,
    rows: int,
) -> tuple[Array, Array, Array]:
    """Choose some of the rows that are not zero or whose context is not, and return their context.

    At most about `sample_size`, half of them not zero where there are so many.

    Returns
    -------
    chosen : int64 array, shape (n,)
        Which rows.
    repeats : int64 array, shape (n,)
        How many rows each stands for.
    beside : float32 array, shape (n, neighbours)
        Magnitudes of the neighbours of each weight.
    """
    active = np.zeros(rows, np.bool_)
    for i in range(magnitudes.size):
        if magnitudes[i]:
            active[i] = True
            for link in range(first[i], first[i + 1]):
                if link_rows[link] >= 0:
                    active[link_rows[link]] = True
    total = np.zeros(2, np.int64)
    for row in range(rows):
        if active[row]:
            total[1 if row < magnitudes.size and magnitudes[row] else 0] += 1
    steps = 1 + total // (sample_size // 2)
    place = np.full(rows, -1, np.int32)
    chosen = np.empty(total[0] // steps[0] + total[1] // steps[1] + 2, np.int64)
    repeats = np.empty_like(chosen)
    count, seen = 0, np.zeros(2, np.int64)
    for row in range(rows):
        if active[row]:
            kind = 1 if row < magnitudes.size and magnitudes[row] else 0
            if seen[kind] % steps[kind] == 0:
                place[row] = count
                chosen[count] = row
                repeats[count] = steps[kind]
                count += 1
            seen[kind] += 1
    beside = np.zeros((count, neighbours), np.float32)
    for i in range(magnitudes.size):
        if magnitudes[i]:
            for link in range(first[i], first[i + 1]):
                if link_rows[link] >= 0 and place[link_rows[link]] >= 0:
                    beside[place[link_rows[link]], link_weights[link]] = magnitudes[i]
    return chosen[:count], repeats[:count], beside
