"""Compiled loops: a matrix with few numbers in each row, such as one of wavelets, applied along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.compiled import compiled

__all__ = ["apply_sparse", "list_nonzero"]

Array = NDArray[Any]
_LANES = (
    512  # numbers that rows are added up in together: those that a matrix meets stay in the nearest cache
)
_OPTIONS: Any = {"error_model": "numpy", "fastmath": {"contract", "nsz"}, "nogil": True}


@compiled(**_OPTIONS)
def list_nonzero(matrix: Array, most: int) -> tuple[Array, Array]:
    """List the columns and the numbers of each row that are not zero, padded by zeros to a multiple of four.

    Both have no columns where a row has more than `most` numbers.
    """
    new, old = matrix.shape
    longest = 0
    for row in range(new):
        count = 0
        for column in range(old):
            count += matrix[row, column] != 0
        longest = max(longest, count)
    width = 0 if longest > most else (longest + 3) // 4 * 4
    columns, numbers = np.zeros((new, width), np.int64), np.zeros((new, width), matrix.dtype)
    for row in range(new if width else 0):
        count = 0
        for column in range(old):
            if matrix[row, column] != 0:
                columns[row, count], numbers[row, count] = column, matrix[row, column]
                count += 1
    return columns, numbers


@compiled(**_OPTIONS)
def _add_rows(rows: Array, start: int, columns: Array, numbers: Array, out: Array) -> None:
    """Write the sum of rows times numbers, from a lane on."""
    stop = start + out.size
    for k in range(0, numbers.size, 4):
        one, two, three, four = numbers[k], numbers[k + 1], numbers[k + 2], numbers[k + 3]
        first, second = rows[columns[k], start:stop], rows[columns[k + 1], start:stop]
        third, fourth = rows[columns[k + 2], start:stop], rows[columns[k + 3], start:stop]
        if k:
            for x in range(out.size):
                out[x] += one * first[x] + two * second[x] + three * third[x] + four * fourth[x]
        else:
            for x in range(out.size):
                out[x] = one * first[x] + two * second[x] + three * third[x] + four * fourth[x]


@compiled(**_OPTIONS)
def apply_sparse(array: Array, columns: Array, numbers: Array, out: Array) -> None:
    """Apply a matrix along the axis in the middle.

    Parameters
    ----------
    array : float array, shape (before, old, after)
    columns, numbers
        Those of :func:`list_nonzero`.
    out : float array, shape (before, new, after)
    """
    after = array.shape[2]
    for before in range(array.shape[0]):
        rows = array[before]
        for start in range(0, after, _LANES):
            stop = min(start + _LANES, after)
            for row in range(out.shape[1]):
                _add_rows(rows, start, columns[row], numbers[row], out[before, row, start:stop])
