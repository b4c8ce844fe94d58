"""Arrays cut into chunks of one shape."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np

__all__ = ["ChunkGrid"]


@dataclass(frozen=True)
class ChunkGrid:
    """An array cut into chunks of one shape; at the end of an axis they may be shorter.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array, in voxels.
    chunk : tuple of int
        Shape of a whole chunk, in voxels.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]

    @classmethod
    def of_objects(cls, array: Any) -> Self:
        """Return the grid of the objects that a zarr array is stored as: its shards, or its chunks."""
        return cls(array.shape, array.shards or array.chunks)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.chunk, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Iterate over the positions of all chunks, in C order."""
        return product(*map(range, self.counts))

    def within(self, region: tuple[slice, ...]) -> Iterator[tuple[int, ...]]:
        """Iterate over the positions of all chunks that hold a voxel of a region."""
        return product(
            *(
                range(part.start // side, -(-part.stop // side) if part.stop > part.start else 0)
                for part, side in zip(region, self.chunk, strict=True)
            )
        )

    def spread(self, most: int) -> Iterator[tuple[int, ...]]:
        """Iterate over the positions of at most so many chunks, evenly from the first to the last."""
        count = len(self)
        for number in np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)):
            yield self.index(number)

    def index(self, number: Any) -> tuple[int, ...]:
        """Return the position of a chunk by its number in C order."""
        return tuple(int(i) for i in np.unravel_index(number, self.counts)) if self.counts else ()

    def region(self, index: tuple[int, ...]) -> tuple[slice, ...]:
        """Return the voxels of the chunk at a position."""
        return tuple(
            slice(i * side, min((i + 1) * side, n))
            for i, side, n in zip(index, self.chunk, self.shape, strict=True)
        )
