"""Chunk shapes: which part of an array one model describes.

A stream costs a fixed few hundred bytes before its model says anything, so a chunk has to be large
for its ratio: at 1000x a megabyte leaves 1 kB. It also has to be decoded as a whole tile by tile
and fitted in memory, so it should not be larger than tens of megabytes. Between the two,
correlation decides: a model gains from every axis it sees along its whole length, and in a stack
of fields the slowest axis (time) is the one to be read, appended and written in parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from moec_zarr.errors import BudgetError, MoECError
from moec_zarr.model.basis import LONGEST_AXIS
from moec_zarr.settings import Settings

__all__ = ["LEAST_BYTES", "choose_chunks", "choose_image_chunks"]

LEAST_BYTES = 300
"""Bytes of a stream below which a model says next to nothing of its chunk."""

_GOOD_BYTES = 2048  # a target per chunk; equal pieces are at worst half of it, about 1 kB
_TRANSFORM_BYTES = 2**20  # of a chunk: where so many are left, no axis is longer than a transform takes
_IMAGE_VOXELS = 2**22  # of a chunk of an image at most, where the ratio allows it
_LEAST_EXTENT = 8  # voxels an axis keeps while another one can still be split


def choose_chunks(
    shape: Sequence[int],
    dtype: DTypeLike,
    settings: Settings,
    align: Sequence[int | Sequence[int]] | None = None,
    target_bytes: int = 2**25,
) -> tuple[int, ...]:
    """Choose the chunk shape in which an array is best compressed.

    The whole array where it fits in `target_bytes`. Otherwise axes are split in order, the slowest
    first, each into about equal pieces of at least 8 voxels, and only as far as needed: with time
    in front, spatial axes stay whole. Axes too long for a transform are split where a megabyte is left
    of each chunk. Where the ratio would leave a chunk less than 1 kB, chunks
    become larger than `target_bytes`.

    Parameters
    ----------
    shape : sequence of int
        Shape of the array, in voxels.
    dtype : dtype_like
        Dtype of the array; only its size counts.
    settings : Settings
        The target; a ``ratio`` sets the least size of a chunk.
    align : sequence of int, or sequence of sequences of int, optional
        Blocks in which the array is going to be written: a block shape, or the sizes of the blocks
        along each axis as in ``dask.array.Array.chunks``. Every boundary between blocks then lies
        on a boundary between chunks, so that no two blocks write to the same chunk.
    target_bytes : int
        Bytes of a chunk before compression, at most where the ratio and `align` allow it.

    Returns
    -------
    tuple of int
        Chunk shape, in voxels; 1 along an axis without voxels.

    Raises
    ------
    BudgetError
        If `align` allows only chunks to which the ratio leaves less than 300 bytes, while larger
        blocks would do.
    MoECError
        If `align` does not describe blocks of an array of this shape.
    """
    shape = tuple(shape)
    itemsize = np.dtype(dtype).itemsize
    target = max(target_bytes, math.ceil(_GOOD_BYTES * (settings.ratio or 0)))
    steps = [0] * len(shape) if align is None else _steps(shape, align)
    # Only divisors of the step between blocks are allowed along an axis; all of it where it is 0.
    chunk = [step or max(length, 1) for length, step in zip(shape, steps, strict=True)]
    if settings.model != "network":
        short = [_extent(length, step, LONGEST_AXIS) for length, step in zip(chunk, steps, strict=True)]
        least = max(_TRANSFORM_BYTES, _GOOD_BYTES * (settings.ratio or 0))
        chunk = short if math.prod(short) * itemsize >= least else chunk
    for smallest in (_LEAST_EXTENT, 1):
        for axis, (length, step) in enumerate(zip(shape, steps, strict=True)):
            whole = chunk[axis]
            room = max(target * whole // (math.prod(chunk) * itemsize), smallest)
            if room < whole:
                extent = _extent(length, step, room)
                chunk[axis] = extent if extent >= smallest else whole
    if align is not None and settings.ratio is not None:
        free = choose_chunks(shape, dtype, settings, target_bytes=target_bytes)
        left, possible = (math.prod(each) * itemsize / settings.ratio for each in (chunk, free))
        if left < LEAST_BYTES <= possible:
            raise BudgetError(
                f"the blocks allow chunks of shape {tuple(chunk)} at most, to which {settings.ratio:g}x "
                f"leaves {left:.0f} bytes; at least {LEAST_BYTES} are needed: rechunk to {free}, or ask "
                "for a lower ratio"
            )
    return tuple(chunk)


def _extent(length: int, step: int, most: int) -> int:
    """Return the extent of about equal pieces of an axis, or that divides the step between blocks."""
    return _divisor(step, most) if step else math.ceil(length / math.ceil(length / most))


def _divisor(step: int, room: int) -> int:
    """Return the largest divisor of `step` that is at most `room`."""
    return next(extent for extent in range(room, 0, -1) if step % extent == 0)


def _steps(shape: tuple[int, ...], align: Sequence[int | Sequence[int]]) -> list[int]:
    """For each axis the number of which every block boundary is a multiple; 0 with one block."""
    if len(align) != len(shape):
        raise MoECError(f"blocks must have the {len(shape)} axes of the array, got {tuple(align)!r}")
    steps = []
    for length, blocks in zip(shape, align, strict=True):
        if isinstance(blocks, int):
            if blocks < 1:
                raise MoECError(f"a block has at least one voxel along each axis, got {tuple(align)!r}")
            steps.append(blocks if blocks < length else 0)
        else:
            if sum(blocks) != length:
                raise MoECError(
                    f"blocks must add up to the {length} voxels of their axis, got {tuple(blocks)!r}"
                )
            steps.append(math.gcd(*[block for block in blocks if block][:-1]))
    return steps


def choose_image_chunks(
    shape: Sequence[int], types: Sequence[str], dtype: DTypeLike, settings: Settings
) -> tuple[int, ...]:
    """Choose chunks in which viewers read an image: one time and one channel, and a block of space.

    The longest axis of space is halved until a chunk has 4 million voxels, unless the ratio would leave less
    than 1 kB of it. Then it has several times or channels.

    Parameters
    ----------
    shape : sequence of int
        Shape of the image, in voxels.
    types : sequence of str
        Types of its axes; all but "space" count as times and channels. Where none is space, the last two are.
    dtype, settings
        As for `choose_chunks`.
    """
    space = [axis for axis, kind in enumerate(types) if kind == "space"] or list(range(len(shape)))[-2:]
    least = _GOOD_BYTES * (settings.ratio or 0) / np.dtype(dtype).itemsize
    chunk = [max(length, 1) if axis in space else 1 for axis, length in enumerate(shape)]
    while space and (voxels := math.prod(chunk)) > _IMAGE_VOXELS and voxels / 2 >= least:
        longest = max(space, key=lambda axis: chunk[axis])
        chunk[longest] = -(-chunk[longest] // 2)
    for axis in reversed(range(len(shape))):  # what is read together lies last
        if axis not in space and math.prod(chunk) < least:
            chunk[axis] = min(max(shape[axis], 1), math.ceil(least / math.prod(chunk)))
    return tuple(chunk)
