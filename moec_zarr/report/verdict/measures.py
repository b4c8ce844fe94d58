"""What a verdict is made of: figures of slices, and of values of the original beside those decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Doubles
from moec_zarr.report.comparison.labels import Axis
from moec_zarr.report.comparison.spectra import Spectrum

__all__ = ["Beyond", "Recorded", "Slices", "Values"]


@dataclass(frozen=True, kw_only=True)
class Slices:
    """Figures of slices, or of all slices at a place, along axes that are no side of one.

    Attributes
    ----------
    axes : tuple of Axis
    indices : tuple of tuple of int
        Along each, which the figures belong to.
    n_valid, rmse, max_error, magnitude, deviation, size : array of float64
        Number of valid values, root mean square and largest error; of the original the mean magnitude, the
        standard deviation within slices, and the root mean square. What belongs to no valid value is not to
        be looked at.
    """

    axes: tuple[Axis, ...]
    indices: tuple[tuple[int, ...], ...]
    n_valid: Doubles
    rmse: Doubles
    max_error: Doubles
    magnitude: Doubles
    deviation: Doubles
    size: Doubles

    @np.errstate(invalid="ignore")  # an error may be infinite
    def along(self, *kept: int) -> Slices:
        """Return the figures along some of the axes, over all others; over all axes where none is given."""
        over = tuple(axis for axis in range(len(self.axes)) if axis not in kept)
        count = np.asarray(self.n_valid.sum(axis=over))

        def mean(values: Doubles) -> Doubles:
            total = (self.n_valid * np.where(self.n_valid > 0, values, 0)).sum(axis=over)
            return np.asarray(total / np.maximum(count, 1))

        def root(values: Doubles) -> Doubles:
            # No square is infinite then.
            largest = float(values.max(initial=0, where=self.n_valid > 0)) or 1.0
            return np.asarray(np.sqrt(mean(np.square(values / largest))) * largest)

        return Slices(
            axes=tuple(self.axes[axis] for axis in kept),
            indices=tuple(self.indices[axis] for axis in kept),
            n_valid=count,
            rmse=root(self.rmse),
            max_error=np.where(self.n_valid > 0, self.max_error, 0).max(axis=over, initial=0.0),
            magnitude=mean(self.magnitude),
            deviation=root(self.deviation),
            size=root(self.size),
        )

    @property
    def of_size(self) -> Doubles:
        """The error over the root mean square; NaN where no value is valid.

        It is never above a relative bound that all values keep; over the mean magnitude it is where few
        values are much larger than the others.
        """
        return self._share(self.size)

    @property
    def of_deviation(self) -> Doubles:
        """The error over the standard deviation, NaN where no value is valid; above 1 it exceeds it."""
        return self._share(self.deviation)

    def _share(self, signal: Doubles) -> Doubles:
        """Divide; no error is no share of nothing."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(self.rmse == 0, 0.0, self.rmse / signal)
        return np.where(self.n_valid > 0, share, np.nan)

    def place(self, position: tuple[int, ...]) -> str:
        """Say which slice stands at a position among the others."""
        each = zip(self.axes, self.indices, position, strict=True)
        return ", ".join(axis.at(indices[i]) for axis, indices, i in each)

    @property
    def exceeding(self) -> list[tuple[int, ...]]:
        """The positions where the error exceeds the signal."""
        return [tuple(place) for place in np.argwhere(self.of_deviation > 1).tolist()]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Errors and what they are errors of, of a whole variable or of some of its slices.

    Attributes
    ----------
    origin : str
        What they were measured on.
    n_valid : int
    low, high : float or None
        Smallest and largest valid value of the original.
    max_error, bias : float
        Of the valid values; NaN where not known.
    zeros : tuple of three int, or None
        Valid values that are 0, that are 0 once decoded, and that are 0 in both; None where not known.
    slices : Slices or None
    spectrum : Spectrum or None
    spectrum_origin : str
        What it was measured on.
    """

    origin: str
    n_valid: int
    low: float | None = None
    high: float | None = None
    max_error: float = math.nan
    bias: float = math.nan
    zeros: tuple[int, int, int] | None = None
    slices: Slices | None = None
    spectrum: Spectrum | None = None
    spectrum_origin: str = ""


class Beyond(NamedTuple):
    """The values beyond a threshold: at least as large, or at most where it is a lower one."""

    threshold: float
    lower: bool
    name: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Values:
    """What takes the values of both, original and decoded, at the voxels that are valid in both.

    Attributes
    ----------
    origin : str
        What was compared.
    n : int
        Voxels that are valid in both.
    differ : int
        Voxels that are valid in one alone.
    low, high : tuple of two float
        Smallest and largest value of the original, and of the decoded.
    negative : int
        Decoded values below 0.
    percentiles : mapping of float to two float
        Of the original, and of the decoded.
    beyond : tuple of Beyond
    deviation : float
        Standard deviation of the original.
    correlation : float or None
        None where one of both is constant, and NaN where sums are infinite.
    points : int
        Values with an error above 0.0001 of their magnitude.
    dssim : float or None
        The lowest of any slice; None where there is none.
    no_dssim : str
        Why.
    """

    origin: str
    n: int
    differ: int
    low: tuple[float, float]
    high: tuple[float, float]
    negative: int
    percentiles: Mapping[float, tuple[float, float]]
    beyond: tuple[Beyond, ...]
    deviation: float
    correlation: float | None
    points: int
    dssim: float | None
    no_dssim: str = ""
