"""What to say of a chunk whose smallest stream takes more bytes than its ratio allows."""

from __future__ import annotations

import math

from moec_zarr.bitstream.container import MAX_SIZE, Section
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.codec.lossless import encode_lossless_within
from moec_zarr.codec.prepare import Prepared
from moec_zarr.errors import BudgetError
from moec_zarr.settings import Settings

__all__ = ["explain_budget"]


def explain_budget(chunk: Prepared, settings: Settings, needed: int) -> BudgetError:
    """Return the error of a chunk whose smallest stream takes so many bytes."""
    assert settings.ratio is not None
    shape, itemsize = chunk.header.shape, chunk.header.dtype.itemsize
    size = math.prod(shape)
    nbytes = size * itemsize
    if chunk.valid_values.size and (exact := encode_lossless_within(chunk, needed)) is not None:
        needed = len(exact)
    masks = sum(
        len(chunk.kept().get(section, b"")) for section in (Section.MASK, Section.SCALE, Section.EXACT)
    )
    message = (
        f"a chunk of shape {shape} and dtype {chunk.header.dtype} has {nbytes} bytes, at ratio "
        f"{settings.ratio:g} {int(nbytes / settings.ratio)} for its stream; at least {needed} are needed"
    )
    if masks:
        kept = "NaN, infinities or missing values" + (
            ", exact values and signs" if chunk.scaled is not None or chunk.exact else ""
        )
        message += f", {masks} of them for where {kept} stand"
    reaches = math.floor(100 * nbytes / needed) / 100
    remedy = f"ask for a ratio of at most {reaches:g}, which this chunk reaches" if reaches >= 1 else ""
    larger = _larger_chunk(shape, itemsize / settings.ratio, needed - masks, masks / size)
    if larger is None:
        message += f". Those grow with the chunk, so no larger one would do: {remedy or 'store it exactly'}"
    else:
        voxels, example = larger
        message += f". The smallest chunk that would do has {voxels} elements, for example {example}: write "
        message += f"larger chunks{remedy and ', or ' + remedy}"
    return BudgetError(message, needed_bytes=needed, reachable_ratio=nbytes / needed)


def _larger_chunk(
    shape: tuple[int, ...], allowed: float, needed: int, growing: float
) -> tuple[int, tuple[int, ...]] | None:
    """Return elements and shape of the smallest chunk that has the bytes it needs; None if none has.

    Parameters
    ----------
    shape : tuple of int
        Of a chunk that has not.
    allowed, growing : float
        Bytes that a chunk may take for each element, and that its masks do take.
    needed : int
        Bytes that a chunk takes whatever its size.
    """
    if (left := allowed - growing) <= 0:
        return None
    total, sides, size = needed, shape or (1,), math.prod(shape)  # a 0-d array has no axis to be longer
    while True:  # longer axes take more bytes of the header
        voxels = math.ceil(total / left)
        grow = (voxels / size) ** (1 / len(sides))
        larger = tuple(math.ceil(n * grow) for n in sides)
        more = sum(len(write_varint(n)) for n in larger) - sum(len(write_varint(n)) for n in shape)
        if needed + more <= total:
            return (voxels, larger) if voxels <= MAX_SIZE else None
        total = needed + more
