"""Compiled loops: the same values as :mod:`moec_zarr.model.linear_experts` computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.compiled import compiled

__all__ = ["restore_rows"]

Array = NDArray[Any]
_LANES = 512  # voxels that each loop runs over: what they take stays in the nearest cache


@compiled(error_model="numpy", fastmath={"contract", "nsz"}, nogil=True)
def restore_rows(
    near: Array,
    rows: Array,
    columns: Array,
    out: Array,
    steep_starts: Array,
    value_starts: Array,
    steep_slopes: Array,
    value_slopes: Array,
    taps: Array,
    constants: Array,
) -> None:
    """Restore rows of a grid.

    Parameters
    ----------
    near : float array, shape (rows, columns)
        The transform.
    rows : int64 array, shape (rows restored, 1 + 4 * other axes)
        In `near`: the row itself, then the four beside it along each other axis.
    columns : int64 array, shape (n + 4,)
        In `near`: two columns before those that are restored, these, and two behind.
    out : float array, shape (rows restored, n)
    """
    n, axes = out.shape[1], (rows.shape[1] - 1) // 4
    dtype = near.dtype
    zero, one, two = dtype.type(0), dtype.type(1), dtype.type(2)
    steep, together = steep_starts.size, max(1, _LANES // n)
    padded = np.empty(n + 4, dtype)
    here, steepness = np.empty(together * n, dtype), np.empty(together * n, dtype)
    ramp, sums = np.empty(together * n, dtype), np.empty(together * n, dtype)
    bends = np.empty((2 * axes + 2, together * n), dtype)
    levels = np.empty((value_starts.size, together * n), dtype)
    first = columns[2]
    for start_row in range(0, out.shape[0], together):
        stop_row = min(start_row + together, out.shape[0])
        lanes = (stop_row - start_row) * n
        for r in range(start_row, stop_row):
            at = (r - start_row) * n
            own = near[rows[r, 0]]
            for x in range(n + 4):
                padded[x] = own[columns[x]]
            # Slices, so that the compiler sees that no index is negative.
            own = padded[2 : n + 2]
            values, steep_own = here[at : at + n], steepness[at : at + n]
            for axis in range(axes + 1):
                next_bend, far_bend = bends[2 * axis, at : at + n], bends[2 * axis + 1, at : at + n]
                if axis < axes:
                    after = near[rows[r, 4 * axis + 1], first : first + n]
                    before = near[rows[r, 4 * axis + 2], first : first + n]
                    far = near[rows[r, 4 * axis + 3], first : first + n]
                    far_before = near[rows[r, 4 * axis + 4], first : first + n]
                else:
                    after, before = padded[3 : n + 3], padded[1 : n + 1]
                    far, far_before = padded[4 : n + 4], padded[0:n]
                if axis == 0:
                    for x in range(n):
                        values[x] = own[x]
                        steep_own[x] = abs(after[x] - before[x])
                else:
                    for x in range(n):
                        steep_own[x] += abs(after[x] - before[x])
                for x in range(n):
                    next_bend[x] = after[x] + before[x] - two * own[x]
                    far_bend[x] = far[x] + far_before[x] - two * own[x]
        for k in range(value_starts.size):
            start, slope = value_starts[k], value_slopes[k]
            level = levels[k]
            for x in range(lanes):
                level[x] = min(max((here[x] - start) * slope, zero), one)
        for t in range(1 + steep + value_starts.size):
            constant = constants[t, 0] if t <= steep else zero
            used = constant != zero
            for x in range(lanes):
                sums[x] = constant
            for f in range(0, 2 * axes + 2, 2):
                near_tap, far_tap = taps[t, f], taps[t, f + 1]
                if near_tap != zero or far_tap != zero:
                    used = True
                    next_, far_ = bends[f], bends[f + 1]
                    for x in range(lanes):
                        sums[x] += near_tap * next_[x] + far_tap * far_[x]
            if t <= steep:
                for k in range(value_starts.size):
                    weight = constants[t, k + 1]
                    if weight != zero:
                        used = True
                        level = levels[k]
                        for x in range(lanes):
                            sums[x] += weight * level[x]
            if not used:
                continue
            if 0 < t <= steep:
                start, slope = steep_starts[t - 1], steep_slopes[t - 1]
                for x in range(lanes):
                    ramp[x] = min(max((steepness[x] - start) * slope, zero), one)
            # What is read next for the voxel itself are the ramps above, hence its sum may stand here.
            if t == 0:
                for x in range(lanes):
                    here[x] += sums[x]
            elif t <= steep:
                for x in range(lanes):
                    here[x] += ramp[x] * sums[x]
            else:
                level = levels[t - 1 - steep]
                for x in range(lanes):
                    here[x] += level[x] * sums[x]
        for r in range(start_row, stop_row):
            at = (r - start_row) * n
            for x in range(n):
                out[r, x] = here[at + x]
