"""Candidates for a chunk: what may be stored of it, and how close that is."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from moec_zarr.arrays import Floats
from moec_zarr.bitstream.container import Section
from moec_zarr.fit.payloads import encode_network
from moec_zarr.fit.transform.start import Transform
from moec_zarr.model.network import Network

__all__ = ["Candidate", "choose_better"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """What stands for a chunk's valid values, normalised by their range.

    Attributes
    ----------
    network : Network or None
    transform : Transform or None
        One of them at least.
    error : float
        Mean square error.
    values : float32 array, or None
        What a decoder evaluates it to, where that is known.
    """

    network: Network | None
    transform: Transform | None
    error: float
    values: Floats | None = field(default=None, repr=False, compare=False)

    def sections(self) -> dict[Section, bytes]:
        """Return the sections of a stream that it takes, without the entries of the dictionary."""
        result = {}
        if self.network is not None:
            result[Section.MODEL] = encode_network(self.network)
        if self.transform is not None:
            result[Section.TRANSFORM] = self.transform.payload
            if self.transform.restoration is not None and self.transform.restoration.payload:
                result[Section.LINEAR_EXPERTS] = self.transform.restoration.payload
        return result

    @property
    def is_straightened(self) -> bool:
        """Whether it is a transform alone, of which nothing but the mean may have been put right."""
        return self.network is None and self.transform is not None and self.transform.restoration is None

    @property
    def taken(self) -> tuple[int, ...]:
        """Entries of the dictionary that come before them."""
        if self.transform is None:
            return ()
        restoration = self.transform.restoration
        entries = self.transform.entry, None if restoration is None else restoration.entry
        return tuple(entry for entry in entries if entry is not None)

    def log(self) -> Candidate:
        """Log it, and return it."""
        names = {"transform": self.transform, "network": self.network}
        parts = " and ".join(name for name, part in names.items() if part is not None)
        _log.info("%s: mean square error %.4g", parts, self.error)
        return self


def choose_better(one: Candidate | None, other: Candidate | None) -> Candidate | None:
    """Return whichever has the smaller error, of those that there are."""
    if one is None or other is None:
        return one or other
    return one if one.error <= other.error else other
