"""How close to a chunk its decoded values are, in what is fitted and in units of the data; and its stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from moec_zarr.arrays import Array, Floats
from moec_zarr.bitstream.container import Section
from moec_zarr.codec.prepare import Prepared
from moec_zarr.model.scale import to_scale
from moec_zarr.quality import Quality, keeps_relative, measure, merge, relative_error
from moec_zarr.settings import Settings
from moec_zarr.statistics import valid_voxels

__all__ = [
    "Encoded",
    "Fidelity",
    "find_missed",
    "measure_tile",
    "measure_values",
    "merge_tiles",
    "write_fitted",
]

_PSNR_TOLERANCE = 0.05  # dB below an asked-for PSNR that are owed to rounding and to padding
_BLOCK = 1 << 20  # voxels compared at a time
_PART = 1 << 15  # voxels that are decoded and compared together: what that takes stays in the cache


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


def measure_values(chunk: Prepared, values: Floats) -> Fidelity:
    """Measure what fitted values of a whole chunk, on its axes longer than one, are decoded to."""
    own = chunk.squeezed
    rows = max(1, _PART // max(1, values[:1].size))
    parts = []
    for row in range(0, len(values), rows):
        tile = (slice(row, row + rows), *(slice(None),) * (values.ndim - 1))
        parts.append(measure_tile(own, tile, own.restore(tile, values[tile])))
    return merge_tiles(parts)


def merge_tiles(parts: Iterable[Fidelity]) -> Fidelity:
    """Merge what was measured of the tiles of a chunk."""
    parts = list(parts)
    quality = merge(each.quality for each in parts)
    plain = (
        quality if all(each.plain is each.quality for each in parts) else merge(each.plain for each in parts)
    )
    return Fidelity(quality, plain, max((each.relative for each in parts), default=0.0))


def write_fitted(
    chunk: Prepared, sections: Mapping[Section, bytes], fidelity: Fidelity, taken: Iterable[int] = ()
) -> Encoded:
    """Write the stream of what was fitted, with how close that is; entries `taken` come before it."""
    plain = fidelity.plain
    header = replace(chunk.header, psnr=plain.psnr, max_error=plain.relative_max_error)
    kept = chunk.kept(fidelity.quality.psnr, fidelity.relative)
    return Encoded(chunk.write(kept | dict(sections), header, taken), fidelity.quality)


def find_missed(settings: Settings, original: Array, decoded: Array, quality: Quality) -> str | None:
    """Return what decoded values have in place of the PSNR or the bound asked for; None if they keep it.

    Parameters
    ----------
    settings : Settings
    original, decoded : array
        Of a chunk.
    quality : Quality
        Theirs, in units of the data.
    """
    if settings.psnr is not None:
        psnr = (
            quality.psnr
            if settings.scale == "linear"
            else _measure_logarithms(settings, original, decoded).psnr
        )
        if psnr < settings.psnr - _PSNR_TOLERANCE:
            return f"{psnr:.2f} dB, and {settings.psnr:g} dB were asked for"
    absolute, relative = settings.max_error, settings.max_relative_error
    if relative:
        for x, y in _blocks(original, decoded):
            valid = valid_voxels(x, settings.missing)
            if not keeps_relative(x, y, valid, relative, absolute or 0.0):
                error = relative_error(x, y, valid, (absolute or 0.0) / relative)
                return f"an error of {error:g} of a value, the bound is {relative:g}"
    elif settings.is_bounded and quality.max_error > (absolute or 0.0):
        return f"an error of {quality.max_error:g}, the bound is {absolute or 0.0:g}"
    return None


def _measure_logarithms(settings: Settings, original: Array, decoded: Array) -> Quality:
    """Measure the logarithms of magnitudes, where they are not zero."""
    parts = []
    for x, y in _blocks(original, decoded):
        valid = valid_voxels(x, settings.missing) & (x != 0)
        parts.append(measure(to_scale(x, 0.0), to_scale(y, 0.0), valid))
    return merge(parts)


def _blocks(original: Array, decoded: Array) -> Iterator[tuple[Array, Array]]:
    x, y = original.reshape(-1), decoded.reshape(-1)
    for start in range(0, x.size, _BLOCK):
        yield x[start : start + _BLOCK], y[start : start + _BLOCK]
