"""What candidates for a chunk are fitted to, and what they reach."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from moec_zarr.arrays import Array, Bools, Floats
from moec_zarr.bitstream.container import Section
from moec_zarr.fit.payloads import network_payload
from moec_zarr.fit.presets import Preset
from moec_zarr.fit.transform.rate_control import Transform, mean_error
from moec_zarr.model.network import Network
from moec_zarr.model.normalisation import Normalisation
from moec_zarr.settings import Settings

__all__ = ["Candidate", "Task", "better", "normalised"]

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
    """

    network: Network | None
    transform: Transform | None
    error: float

    def sections(self) -> dict[Section, bytes]:
        """The sections of a stream that it takes."""
        result = {}
        if self.network is not None:
            result[Section.MODEL] = network_payload(self.network)
        if self.transform is not None:
            result[Section.TRANSFORM] = self.transform.payload
        return result

    def logged(self) -> Candidate:
        """The same, logged."""
        names = {"transform": self.transform, "network": self.network}
        parts = " and ".join(name for name, part in names.items() if part is not None)
        _log.info("%s: mean square error %.4g", parts, self.error)
        return self


@dataclass(frozen=True)
class Task:
    """What all candidates are fitted to, and how.

    Attributes
    ----------
    array : array, every axis longer than one
        Never written to.
    valid : bool array of the same shape, or None
        Which voxels are fitted; all where None.
    normalisation : Normalisation
        That of the valid values' range.
    preset : Preset
    settings : Settings
    budget : int
        Bytes that the sections may take; kept.
    """

    array: Array
    valid: Bools | None
    normalisation: Normalisation
    preset: Preset
    settings: Settings
    budget: int

    def target(self) -> Floats:
        """The normalised array; zero at invalid voxels."""
        return normalised(self.array, self.valid, self.normalisation)

    def error(self, values: Floats, target: Floats) -> float:
        """Mean square error of values, which a decoder clips to the range of the data."""
        return mean_error(values, target, self.valid)


def normalised(array: Array, valid: Bools | None, normalisation: Normalisation) -> Floats:
    """An array as fitted values; zero at invalid voxels."""
    target = np.empty(array.shape, np.float32)
    with np.errstate(over="ignore"):  # of what is not valid
        for row in range(len(target)):  # at most a row in double precision
            target[row : row + 1] = normalisation.normalise(array[row : row + 1])
    if valid is not None:
        target[~valid] = 0
    return target


def better(one: Candidate | None, other: Candidate | None) -> Candidate | None:
    """Whichever has the smaller error, of those that there are."""
    if one is None or other is None:
        return one or other
    return one if one.error <= other.error else other
