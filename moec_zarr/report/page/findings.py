"""What a report says of a store, as plain figures: gathered in one place, and shown by another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from moec_zarr.arrays import Doubles, Integers
from moec_zarr.quality import Quality
from moec_zarr.report.comparison.labels import Axis
from moec_zarr.report.comparison.pictures import Slice
from moec_zarr.report.comparison.spectra import Spectrum
from moec_zarr.report.verdict.measures import Slices
from moec_zarr.report.verdict.verdict import Verdict

__all__ = [
    "Cell",
    "Choice",
    "Experts",
    "Image",
    "Lossless",
    "Profile",
    "Report",
    "Sample",
    "Scaled",
    "SliceView",
    "Variable",
]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A dimension along which the reader chooses among a few places.

    Attributes
    ----------
    title : str
    places : tuple of str
        What the reader chooses from.
    first : int
        Which of them is shown before anything is chosen.
    """

    title: str
    places: tuple[str, ...]
    first: int


@dataclass(frozen=True, kw_only=True)
class SliceView:
    """One slice that a report embeds.

    Attributes
    ----------
    key : tuple of int
        The place chosen along each `Choice`.
    decoded : Slice
    original, error : Slice or None
        None without a source. The error is decoded less original.
    quality : Quality or None
        Of this slice at full resolution; None without a source.
    deviation : float or None
        Standard deviation of the original in this slice; None without one.
    """

    key: tuple[int, ...]
    decoded: Slice
    original: Slice | None = None
    error: Slice | None = None
    quality: Quality | None = None
    deviation: float | None = None

    @property
    def exceeding(self) -> bool:
        """Whether the error exceeds the signal."""
        return self.quality is not None and self.deviation is not None and self.quality.rmse > self.deviation


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The slices that a report embeds, and what they have in common.

    Attributes
    ----------
    choices : tuple of Choice
    views : tuple of SliceView
    differ : int
        Voxels that are valid in one of both arrays alone.
    measured : Quality or None
        Over all slices; None without an original, and so is the next one.
    histogram : tuple of two arrays or None
        Voxels in each bin, and the edges of the bins, of decoded less original.
    """

    choices: tuple[Choice, ...] = ()
    views: tuple[SliceView, ...] = ()
    differ: int = 0
    measured: Quality | None = None
    histogram: tuple[Integers, Doubles] | None = None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Errors along a dimension.

    Attributes
    ----------
    title : str
        Of the dimension, with units.
    places : tuple of str
        Where each row lies.
    positions : tuple of float or None
        The coordinate of each row, where it is a number; else rows are drawn by their order.
    rmse, max_error : tuple of float
        NaN where no voxel is valid.
    of_size, of_deviation : tuple of float or None
        Root mean square error over the root mean square of the original, which is None where values have both
        signs, and over the standard deviation within slices; None where they are not known.
    origin : str
        Where the figures come from, as a sentence.
    """

    title: str
    places: tuple[str, ...]
    positions: tuple[float, ...] | None
    rmse: tuple[float, ...]
    max_error: tuple[float, ...]
    origin: str
    of_size: tuple[float, ...] | None = None
    of_deviation: tuple[float, ...] | None = None

    @classmethod
    def of(cls, axis: Axis, parts: Sequence[slice], qualities: Sequence[Quality], origin: str) -> Self:
        """Make a profile of the quality of parts of an axis."""
        rmse = (each.rmse if each.n_valid else math.nan for each in qualities)
        largest = (each.max_error if each.n_valid else math.nan for each in qualities)
        return cls._at(axis, parts, rmse, largest, origin)

    @classmethod
    def of_slices(cls, slices: Slices, origin: str, *, signed: bool) -> Self:
        """Make a profile of figures along one axis; `signed` says whether values have both signs."""
        (axis,), (indices,) = slices.axes, slices.indices
        none = slices.n_valid == 0
        found = cls._at(
            axis,
            [slice(i, i + 1) for i in indices],
            np.where(none, np.nan, slices.rmse).tolist(),
            np.where(none, np.nan, slices.max_error).tolist(),
            origin,
        )
        return replace(
            found,
            of_size=None if signed else tuple(slices.of_size.tolist()),
            of_deviation=tuple(slices.of_deviation.tolist()),
        )

    @classmethod
    def _at(
        cls, axis: Axis, parts: Sequence[slice], rmse: Iterable[float], largest: Iterable[float], origin: str
    ) -> Self:
        single = all(part.stop - part.start == 1 for part in parts)
        values = (
            axis.values if single and axis.values is not None and axis.values.dtype.kind in "iuf" else None
        )
        return cls(
            title=axis.name,
            places=tuple(map(axis.span, parts)),
            positions=None if values is None else tuple(float(values[part.start]) for part in parts),
            rmse=tuple(rmse),
            max_error=tuple(largest),
            origin=origin,
        )

    @property
    def worst(self) -> int | None:
        """The row with the largest error; None where no row has a valid voxel."""
        known = [row for row, error in enumerate(self.max_error) if not math.isnan(error)]
        return max(known, key=lambda row: self.max_error[row], default=None)

    @property
    def exceeding(self) -> tuple[int, ...]:
        """The rows where the error exceeds the signal, the standard deviation within slices."""
        return tuple(row for row, share in enumerate(self.of_deviation or ()) if share > 1)

    @property
    def signal(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """What is known of the error as a part of the signal, with names."""
        both = (("of root mean square value", self.of_size), ("of standard deviation", self.of_deviation))
        return tuple((name, shares) for name, shares in both if shares is not None)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A chunk, or a shard, among the others.

    Attributes
    ----------
    index : tuple of int
        Its position along each dimension.
    place : str
        What it covers.
    psnr, max_error : float
        The peak is the range of this cell's own values.
    ratio : float
    """

    index: tuple[int, ...]
    place: str
    psnr: float
    max_error: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The experts of a network, or those that restore a transform, in one chunk.

    Attributes
    ----------
    chunk : str
        Which one it is.
    map : int64 array, shape (y, x)
        The expert of each voxel, in the chunk's middle slice.
    load : tuple of float
        Share of the chunk's voxels that each expert evaluates; of linear ones, of the slice's.
    of_network : bool
        Whether they are a network's.
    """

    chunk: str
    map: Integers
    load: tuple[float, ...]
    of_network: bool = True


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """What streams say of relative errors: the largest, and the lowest PSNR, of those that say something.

    Attributes
    ----------
    bound : float or None
        No value is further off than this part of its magnitude, by what each stream keeps.
    knee : float
        Magnitude below which errors are held against itself; 0 without one.
    max_error, psnr : float or None
        The largest relative error, and the PSNR of logarithms, as measured on encoding.
    """

    bound: float | None
    knee: float
    max_error: float | None
    psnr: float | None


@dataclass(frozen=True, kw_only=True)
class Variable:
    """All that is known of a compressed variable.

    Attributes
    ----------
    name, title, units, codec : str
    dims : tuple of str
    shape, chunks : tuple of int
    bytes_in, bytes_out : int
        Before compression, and stored.
    psnr, psnr_lowest : float or None
        dB, of the whole variable, where the conversion recorded what that takes; and of the worst chunk.
    max_error : float
        Largest absolute error in units of the data.
    spread : float or None
        Range of the valid values of the original.
    bound : float or None
        No value is further off than this, by what each stream keeps; 0 where all are exact.
    scaled : Scaled or None
        What streams say of relative errors, where some of them do.
    origin : str
        Where these figures come from.
    cell_name : str
        "chunk" or "shard": what a cell is.
    cells : tuple of Cell
    grid : tuple of int
        Number of cells along each dimension.
    streams, streams_all : int
        Streams that were looked at, and chunks that the variable has; those of fill alone are not stored.
    sampled : bool
        Whether there are more streams than were looked at.
    kinds, sections : mapping of str to int
        Streams by what stands for their values; bytes by section, of those that were looked at.
    percentiles : mapping of str to float
        Of the absolute error, the largest of any cell.
    sample : Sample
    spectrum : Spectrum or None
    spectrum_origin : str
        What it was measured on.
    spacing : tuple of float and str, or None
        The length of a voxel and its units, where it is known.
    profiles : tuple of Profile
    experts : Experts or None
    notes : tuple of str
        What a reader must know before trusting the figures.
    verdict : Verdict or None
        None where nothing was asked for.
    full : bool
        Whether it has a part of the page of its own; the others are in tables alone.
    """

    name: str
    title: str
    units: str
    codec: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    bytes_in: int
    bytes_out: int
    psnr: float | None
    psnr_lowest: float | None
    max_error: float
    spread: float | None
    bound: float | None
    scaled: Scaled | None
    origin: str
    cell_name: str
    cells: tuple[Cell, ...]
    grid: tuple[int, ...]
    streams: int
    streams_all: int
    sampled: bool
    kinds: Mapping[str, int]
    sections: Mapping[str, int]
    percentiles: Mapping[str, float] = field(default_factory=dict)
    sample: Sample = Sample()
    spectrum: Spectrum | None = None
    spectrum_origin: str = ""
    spacing: tuple[float, str] | None = None
    profiles: tuple[Profile, ...] = ()
    experts: Experts | None = None
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None
    full: bool = True

    @property
    def known_psnr(self) -> float | None:
        """That of the whole variable, or else the lowest that any chunk has."""
        return self.psnr if self.psnr is not None else self.psnr_lowest

    @property
    def relative_error(self) -> float:
        """The largest error as a share of the range of the original; 0 where that is not known."""
        return self.max_error / self.spread if self.spread else 0.0


@dataclass(frozen=True, kw_only=True)
class Lossless:
    """A variable that this package did not compress.

    Attributes
    ----------
    name : str
    shape : tuple of int
    exact : bool
        Whether its codecs are known to keep every bit.
    bytes_in, bytes_out : int
    reason : str
        Why it is stored as it is.
    """

    name: str
    shape: tuple[int, ...]
    exact: bool
    bytes_in: int
    bytes_out: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image of several levels, and the labels that belong to it.

    Attributes
    ----------
    name : str
        Its path, and what it is called.
    levels : tuple of Variable or Lossless
        The finest first, then those of its labels.
    """

    name: str
    levels: tuple[Variable | Lossless, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page shows.

    Attributes
    ----------
    store, source : str
        What was looked at; `source` is empty without one.
    history : str
        What the store says of its own making.
    file_bytes : int
        Of the files that it was made from; 0 where that is not known.
    stored_bytes : int
        Of all files of the store.
    variables : tuple of Variable
    lossless : tuple of Lossless
    images : tuple of Image
        Of the same variables, those that are levels of images.
    """

    store: str
    source: str
    history: str
    file_bytes: int
    stored_bytes: int
    variables: tuple[Variable, ...]
    lossless: tuple[Lossless, ...]
    images: tuple[Image, ...] = ()

    @property
    def levels(self) -> set[str]:
        """The names of all that are levels of images."""
        return {level.name for image in self.images for level in image.levels}

    @property
    def apart(self) -> tuple[Variable, ...]:
        """The compressed variables that are no levels of images."""
        levels = self.levels
        return tuple(each for each in self.variables if each.name not in levels)
