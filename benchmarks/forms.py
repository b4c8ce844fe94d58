"""Ways of using another codec, and the search for the settings that fill a number of bytes.

Each is used in the form that suits it best, so that a comparison errs in its favour. In particular

- values that are not finite, which they fail on or spoil, are filled in with the nearest valid value, and put
  back exactly after decoding. **The bytes of that mask are not charged**;
- arrays with more axes than a codec takes have their leading axes merged, the first two both ways round.
  Codecs that take four axes get all layouts. Axes of length one are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

Array = NDArray[Any]

NEAR = 0.995  # of the bytes asked for: close enough
STEPS = 14  # of a search at most


class UnreachableError(Exception):
    """A peer cannot make its stream as small as asked."""


class UnsuitableError(Exception):
    """A peer does not take such an array at all."""


@dataclass(frozen=True)
class Form:
    """One way of using a codec.

    Attributes
    ----------
    encode : callable
        From x, 0 for the finest to 1 for the coarsest, to a stream.
    decode : callable
        From a stream to an array in the axes of the original, those of length one apart.
    """

    name: str
    encode: Callable[[float], bytes]
    decode: Callable[[bytes], Array]


def bisect(
    encode: Callable[[float], bytes], budget: int, *, near: float = NEAR, steps: int = STEPS
) -> tuple[float, bytes]:
    """The largest stream found that fits into `budget` bytes, and the x it was made with.

    Parameters
    ----------
    encode : callable
        Stream at x in [0, 1]; the larger x, the smaller it is, by and large.
    near : float
        Share of the budget that a stream must fill to end the search before `steps`. Once a stream on
        each side is known, x is interpolated, since sizes fall about exponentially; every third step halves.

    Raises
    ------
    UnreachableError
        If the coarsest stream does not fit.
    """
    best_x, best = 1.0, encode(1.0)
    if len(best) > budget:
        raise UnreachableError(f"takes at least {len(best)} bytes")
    fine, coarse = 0.0, 1.0
    over, under = 0.0, math.log(len(best))  # logarithms of sizes on either side; none is known of finer ones
    aim = math.log(budget * math.sqrt(near))
    for step in range(steps):
        if len(best) >= near * budget:
            break
        share = 0.5
        if over > under and step % 3 != 2:
            share = min(max((over - aim) / (over - under), 0.02), 0.98)
        x = fine + share * (coarse - fine)
        stream = encode(x)
        if len(stream) > budget:
            fine, over = x, math.log(len(stream))
            continue
        coarse, under = x, math.log(len(stream))
        if len(stream) >= len(best):
            best_x, best = x, stream
    return best_x, best


def filled(array: Array, valid: NDArray[np.bool_]) -> Array:
    """The array with the nearest valid value wherever it is not valid."""
    if valid.all():
        return array
    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return np.asarray(array[tuple(nearest)])


def restored(decoded: Array, array: Array) -> Array:
    """What a peer decoded, as the dtype and shape of the original."""
    decoded = decoded.reshape(array.shape)
    if array.dtype.kind == "f":
        return decoded.astype(array.dtype)
    ends = np.iinfo(array.dtype)
    # The largest float64 below the end of a 64-bit range, for the end itself may be rounded up.
    high = float(ends.max) if ends.bits < 64 else math.nextafter(float(ends.max), 0)
    return np.clip(np.rint(decoded.astype(np.float64)), float(ends.min), high).astype(array.dtype)


@dataclass(frozen=True)
class Layout:
    """An array in other axes, and the way back.

    Attributes
    ----------
    array : array
        As a codec is given it.
    order : tuple of int
        The axes longer than one in the order in which they were merged.
    shape : tuple of int
        Lengths of those axes, in their own order.
    """

    array: Array
    order: tuple[int, ...]
    shape: tuple[int, ...]

    def restore(self, decoded: Array) -> Array:
        """What was decoded, in the order of the original's axes."""
        permuted = decoded.reshape([self.shape[axis] for axis in self.order])
        return np.asarray(permuted.transpose(np.argsort(self.order)))

    @property
    def name(self) -> str:
        """Number of axes, and the order of those merged where it is not the array's."""
        swapped = self.order != tuple(sorted(self.order))
        return f"{self.array.ndim}-D" + (" from " + ",".join(map(str, self.order)) if swapped else "")


def layouts(array: Array, least: int, most: int) -> Iterator[Layout]:
    """The array with `least` to `most` axes: as it is, and with all leading ones merged into three.

    The first two are merged both ways round: which of time and level should vary faster differs by field.
    """
    shape = tuple(n for n in array.shape if n > 1)
    orders = [tuple(range(len(shape)))]
    for axes in sorted({min(len(shape), most), min(len(shape), 3)}, reverse=True):
        merged = len(shape) - axes + 1
        if merged > 1:
            orders = [orders[0], (1, 0, *orders[0][2:])]
        for order in orders:
            permuted = array.reshape(shape).transpose(order)
            lengths = permuted.shape
            target = (math.prod(lengths[:merged]), *lengths[merged:])
            target = (1,) * (least - len(target)) + target
            yield Layout(np.ascontiguousarray(permuted.reshape(target)), order, shape)
