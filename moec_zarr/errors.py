"""The errors of moec_zarr. Each message says what was got, what was expected and what to do."""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "CorruptStreamError",
    "MoECError",
    "UnsupportedArrayError",
    "UnsupportedVersionError",
]


class MoECError(ValueError):
    """Base of every error that moec_zarr raises itself, bad settings included."""


class CorruptStreamError(MoECError):
    """Raised when bytes are not a complete, undamaged MoEC stream.

    Truncation, a failed checksum, a size that contradicts the declared shape and a reserved
    value all end here, before anything of the declared size is allocated.
    """


class UnsupportedVersionError(MoECError):
    """Raised when a stream was written by a newer version of the format than this one reads."""


class UnsupportedArrayError(MoECError, TypeError):
    """Raised, before any fit, when an array cannot be encoded: its dtype, rank or values.

    A `TypeError` too, as which numcodecs and its users expect a dtype to be refused.
    """


class BudgetError(MoECError):
    """Raised when a chunk cannot meet the target that was asked for.

    For ``ratio=`` the message names the smallest chunk that could; for ``psnr=`` the highest
    PSNR reached.
    """
