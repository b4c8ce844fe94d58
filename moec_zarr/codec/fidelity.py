"""How close to a chunk its decoded values are, in what is fitted and in units of the data; and its stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import Section, write_stream
from moec_zarr.codec.prepare import Prepared
from moec_zarr.model.scale import to_scale
from moec_zarr.quality import Quality, measure, merge, relative_error

__all__ = ["Encoded", "Fidelity", "measure_tile", "merge_tiles", "write_fitted"]


class Encoded(NamedTuple):
    """A stream, with the quality of what is decoded of it, on the scale of what was fitted."""

    stream: bytes
    quality: Quality

    @property
    def psnr(self) -> float:
        """Its PSNR, in dB."""
        return self.quality.psnr


class Fidelity(NamedTuple):
    """How close decoded values are.

    Attributes
    ----------
    quality : Quality
        On the scale of what was fitted, over the values that were.
    plain : Quality
        In units of the data, over all valid values.
    relative : float
        Largest error over the magnitude, or over the knee of the scale where that is larger; 0 without one.
    """

    quality: Quality
    plain: Quality
    relative: float = 0.0

    def worst(self) -> float:
        """Return the smallest bound that is kept: a relative one on a logarithmic scale."""
        return self.relative or self.plain.max_error


def measure_tile(chunk: Prepared, tile: tuple[slice, ...], decoded: Array) -> Fidelity:
    """Measure the decoded values of a tile of a chunk."""
    original = chunk.array[tile]
    plain = measure(original, decoded, None if chunk.valid is None else chunk.valid[tile])
    if chunk.scaled is None:
        return Fidelity(plain, plain)
    knee = chunk.scaled.scale.knee
    fitted = None if chunk.fitted is None else chunk.fitted[tile]
    quality = measure(to_scale(original, knee), to_scale(decoded, knee), fitted)
    return Fidelity(quality, plain, relative_error(original, decoded, fitted, knee))


def merge_tiles(parts: Iterable[Fidelity]) -> Fidelity:
    """Merge what was measured of the tiles of a chunk."""
    parts = list(parts)
    quality = merge(each.quality for each in parts)
    plain = (
        quality if all(each.plain is each.quality for each in parts) else merge(each.plain for each in parts)
    )
    return Fidelity(quality, plain, max((each.relative for each in parts), default=0.0))


def write_fitted(chunk: Prepared, sections: Mapping[Section, bytes], fidelity: Fidelity) -> Encoded:
    """Write the stream of what was fitted, with how close that is."""
    plain = fidelity.plain
    header = replace(chunk.header, psnr=plain.psnr, max_error=plain.relative_max_error)
    kept = chunk.kept(fidelity.quality.psnr, fidelity.relative)
    return Encoded(write_stream(header, kept | dict(sections)), fidelity.quality)
