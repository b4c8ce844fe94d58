"""The errors of moec_zarr. Each message says what was got, what was expected and what to do."""

from __future__ import annotations

__all__ = [
    "BudgetError",
    "CorruptStreamError",
    "DictionaryError",
    "MoECError",
    "UnsupportedArrayError",
    "UnsupportedVersionError",
]


class MoECError(ValueError):
    """Base of every error that moec_zarr raises itself, bad settings included."""


class CorruptStreamError(MoECError):
    """Raised when bytes are not a complete, undamaged stream.

    The stream is truncated, its checksum does not match, a size contradicts the declared shape, or it
    holds a reserved value. The error is raised before memory of the declared size is allocated.
    """


class DictionaryError(MoECError):
    """Raised when a stream takes entries of a dictionary that its reader has not.

    The dictionary stands in the metadata of the codec that wrote the stream, hence in its
    store's. The message names the checksums of both.
    """


class UnsupportedVersionError(MoECError):
    """Raised when a stream has another version of the format than this package reads.

    The same holds for a section, a type or a rank that only a newer release knows.
    """


class UnsupportedArrayError(MoECError, TypeError):
    """Raised, before any fit, when the dtype, rank or values of an array cannot be encoded.

    It is also a `TypeError`, which numcodecs and its users expect for a dtype.
    """


class BudgetError(MoECError):
    """Raised when a chunk cannot meet its target.

    The message names the ratio that the chunk reaches and the smallest chunk that would do.

    Attributes
    ----------
    needed_bytes : int or None
        Bytes of the smallest stream of the chunk, where one was refused.
    reachable_ratio : float or None
        Bytes of the chunk over those: the largest ratio that it reaches.
    """

    def __init__(
        self, message: str, *, needed_bytes: int | None = None, reachable_ratio: float | None = None
    ) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.reachable_ratio = reachable_ratio
