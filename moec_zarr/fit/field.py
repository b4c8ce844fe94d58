"""A chunk as its fit sees it, from the codec down to the batches of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles, Floats, Integers
from moec_zarr.model.features import Stencil
from moec_zarr.model.network import coordinates
from moec_zarr.model.normalisation import Normalisation

if TYPE_CHECKING:
    import torch

__all__ = ["Field", "activity_points"]

_ROW = 1 << 16  # voxels that are normalised together


@dataclass(frozen=True)
class Field:
    """A chunk as its fit sees it: valid voxels, affinely mapped, on the axes longer than one.

    Attributes
    ----------
    array : array of any supported dtype, shape of the grid
        Never written to; a network reads it at the sampled voxels only, in its own dtype.
    valid : bool array of the same shape, or None
        Which voxels are fitted; all of them where None.
    normalisation : Normalisation
        Gives the targets from the array.
    base : float32 array of the same shape, or None
        The transform that a network corrects, normalised without the shift: the targets are what it
        leaves.
    stencils : tuple of Stencil
        How the network reads the transform along each axis; empty where there is none.
    norm : float
        Root mean square of `base`.
    """

    array: Array
    valid: Bools | None
    normalisation: Normalisation
    base: Floats | None = None
    stencils: tuple[Stencil, ...] = ()
    norm: float = 1.0

    @property
    def zero(self) -> float:
        """The target of zero; far beyond -1 and 1 where the range is far from it."""
        return float(-self.normalisation.centre / self.normalisation.scale)

    def normalised(self) -> Floats:
        """Return the targets of a transform: all values, zero at invalid voxels."""
        target = np.empty(self.array.shape, np.float32)
        count = max(1, _ROW // max(1, self.array[:1].size))
        with np.errstate(over="ignore"):  # of what is not valid
            for row in range(0, len(target), count):  # at most some rows in double precision
                target[row : row + count] = self.normalisation.normalise(self.array[row : row + count])
        if self.valid is not None:
            target[~self.valid] = 0
        return target

    def draw(self, count: int, generator: torch.Generator) -> tuple[Integers, ...]:
        """Draw indices of `count` valid voxels, uniformly and independently; one array an axis."""
        if self.valid is None:
            return self._draw(count, generator)
        parts, drawn = [], 0
        while drawn < count:
            index = self._draw(count, generator)
            keep = self.valid[index]
            parts.append([i[keep] for i in index])
            drawn += int(keep.sum())
        return tuple(np.concatenate(columns)[:count] for columns in zip(*parts, strict=True))

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Integers, ...]:
        import torch

        return tuple(torch.randint(n, (count,), generator=generator).numpy() for n in self.array.shape)

    def targets(self, where: Any) -> Floats:
        """Return the fit's targets at an index as NumPy takes them."""
        values = self.normalisation.normalise(self.array[where])
        if self.base is not None:
            values -= 2.0**self.normalisation.shift * self.base[where].astype(np.float64)
        return values.astype(np.float32)

    def differences(self, index: tuple[Integers, ...]) -> list[Floats]:
        """Subtract the target from that of the next voxel along each axis; NaN where either is invalid."""
        here = self.targets(index)
        out = []
        for axis, n in enumerate(self.array.shape):
            side = np.where(index[axis] + 1 < n, 1, -1)
            there = (*index[:axis], index[axis] + side, *index[axis + 1 :])
            difference = side * (self.targets(there) - here)
            if self.valid is not None:
                difference = np.where(self.valid[there], difference, np.nan)
            out.append(difference.astype(np.float32))
        return out


def activity_points(field: Field, count: int, generator: torch.Generator) -> Doubles:
    """Draw points in [-1, 1]^d, denser where the field changes more from voxel to voxel; (count, axes)."""
    import torch

    index = field.draw(8 * count, generator)
    activity = np.nansum(np.abs(field.differences(index)), axis=0)
    weight = activity + 0.5 * activity.mean() + 1e-12
    chosen = torch.multinomial(torch.from_numpy(weight), count, replacement=True, generator=generator).numpy()
    u = [coordinates(i[chosen], n) for i, n in zip(index, field.array.shape, strict=True)]
    return np.stack(u, axis=1)
