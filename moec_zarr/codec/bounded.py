"""Chunks that keep an absolute error: what is fitted, and corrections wherever it is further off.

Corrections also serve a ratio or a PSNR that lies beyond what a transform can be as close as.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moec_zarr.bitstream.container import Section, write_stream
from moec_zarr.codec.lossless import encode_lossless, encode_lossless_within
from moec_zarr.codec.prepare import Prepared
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.model.basis import DOUBLE
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.residual import NETWORK_TOLERANCE, TOLERANCE, Residual
from moec_zarr.quality import Quality, keeps, measure, merge
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from moec_zarr.fit.candidates import Candidate

__all__ = ["Encoded", "add_bound", "encode_bounded", "encode_closest", "encode_exactly", "encode_to_psnr"]

_log = logging.getLogger(__name__)
_ANY_ERROR = 8.0  # of half the range: no value is so far off
_NETWORK_RATIOS = 2000.0, 500.0, 125.0  # at which networks are fitted where no transform says how many bytes
_TRIALS = 8  # bounds that are tried on the way to bytes or a PSNR
_FIRST_OCTAVES = 2.0  # to the next bound that is tried on the way to bytes
_CLOSE_BYTES, _CLOSE_PSNR = 0.06, 0.2  # of a limit, and in dB: near enough
_SAME_BOUND = 0.1  # octaves between two bounds: nothing lies between them
_LEAST_BOUND = 5.0  # times the tolerance of decoders: about the smallest bound
_HIGHEST_PSNR = 1000.0  # in place of that of exact values
_WIDEST = 1023.0  # octaves: the largest double
_OCTAVE = 20 * math.log10(2)  # dB of a bound that is twice as wide


class Encoded(NamedTuple):
    """A stream, with the quality of what is decoded of it."""

    stream: bytes
    quality: Quality

    @property
    def psnr(self) -> float:
        """Its PSNR, in dB."""
        return self.quality.psnr


def encode_bounded(chunk: Prepared, settings: Settings) -> bytes:
    """Find the smallest stream in which no valid value is further off than ``settings.max_error``."""
    assert settings.max_error is not None
    allowed = _allowed(chunk, settings.max_error)
    best: bytes | None = None
    if allowed > 2 * TOLERANCE:
        for fitted in _candidates(chunk, settings, allowed):
            encoded = _correct(chunk, fitted, settings.max_error, allowed)
            if encoded is not None and (best is None or len(encoded.stream) < len(best)):
                best = encoded.stream
    if best is None:
        _log.info("an error of %g takes a lossless stream", settings.max_error)
        return encode_lossless(chunk)
    return encode_lossless_within(chunk, len(best)) or best


def encode_closest(chunk: Prepared, limit: int, start: float) -> Encoded | None:
    """Keep the closest bound that a transform and its corrections keep in so many bytes; None if none fits.

    Parameters
    ----------
    chunk : Prepared
    limit : int
        Bytes of the stream, at most.
    start : float
        Bound at which the search starts.
    """

    def slack(encoded: Encoded) -> float:
        return 1 - len(encoded.stream) / limit

    def octaves(slack: float) -> float:  # a bit of each voxel is an octave of noise; smooth fields take less
        step = 8 * abs(slack) * limit / chunk.array.size
        return -math.copysign(max(_FIRST_OCTAVES, step), slack)

    def prefer(one: Encoded, other: Encoded) -> Encoded:
        return one if one.quality.rmse <= other.quality.rmse else other

    return _search_bound(chunk, start, slack, _CLOSE_BYTES, octaves, prefer)


def encode_exactly(chunk: Prepared, limit: int) -> Encoded | None:
    """Keep integers exactly by corrections; None if that takes more bytes than a limit."""
    encoded = _encode_transform(chunk, _least_bound(chunk))
    exact = encoded is not None and encoded.quality.max_error == 0 and len(encoded.stream) <= limit
    return encoded if exact else None


def encode_to_psnr(chunk: Prepared, psnr: float, start: float) -> Encoded | None:
    """Keep the widest bound that reaches a PSNR; None if none does. The search starts at a bound."""

    def slack(encoded: Encoded) -> float:
        return min(encoded.psnr, _HIGHEST_PSNR) - psnr

    def prefer(one: Encoded, other: Encoded) -> Encoded:
        return one if len(one.stream) <= len(other.stream) else other

    return _search_bound(chunk, start, slack, _CLOSE_PSNR, lambda slack: slack / _OCTAVE, prefer)


def _allowed(chunk: Prepared, bound: float) -> float:
    """Error of a fitted value, in units of half the range, that keeps the bound once it is rounded."""
    dtype = chunk.header.dtype.newbyteorder("=")
    low, high = chunk.header.low, chunk.header.high
    # A value that would be the sentinel within the range takes its other neighbour: that is a step further.
    step = chunk.missing is not None
    if dtype.kind in "iu":
        error = math.floor(bound) + (0.0 if step and bound >= 1 else 0.5)
    else:
        # A value takes its nearest neighbour in the dtype: half their distance away, or itself.
        # Of the largest number there is none above: the one below it is as far away.
        below = np.nextafter(np.finfo(dtype).max, dtype.type(0))
        distance = float(np.spacing(min(max(abs(low), abs(high)), below)))
        error = max(bound - (distance if step else distance / 2), bound / 2)
        error *= 1 - 2 * float(np.finfo(dtype).eps)  # differences are taken in the dtype
    return min(error / chunk.field.normalisation.scale, _ANY_ERROR)


def _candidates(chunk: Prepared, settings: Settings, allowed: float) -> Iterator[Candidate | None]:
    """Fit what may be corrected: a transform, networks if the effort has them; None is nothing at all."""
    from moec_zarr.fit.candidates import Candidate
    from moec_zarr.fit.select import fit
    from moec_zarr.fit.transform.bound import fit_transform_to_bound

    field = chunk.field
    rooms = [field.array.nbytes / ratio for ratio in _NETWORK_RATIOS]
    if settings.model == "network" or settings.experts is not None:
        pass
    else:
        transform = fit_transform_to_bound(field.normalised(), field.valid, allowed - TOLERANCE)
        yield None if transform is None else Candidate(None, transform, math.nan)
        rooms = [] if transform is None else [len(transform.payload)]
    if not settings.has_networks or allowed < 2 * NETWORK_TOLERANCE:
        return
    for room in rooms:
        try:
            best = fit(field, settings, int(room))
        except DoesNotFit:
            continue
        if best.network is not None:
            yield best


def add_bound(chunk: Prepared, fitted: Candidate) -> Encoded:
    """Return the stream of a transform with the bound that it keeps anyhow, and no corrections.

    A decoder evaluates it in double precision for that: the figures of an error that single precision would
    add to are then those that every decoder gives.
    """
    assert fitted.transform is not None
    source, low, high = chunk.field, chunk.header.low, chunk.header.high
    array, valid = source.array, source.valid
    field = CoefficientField(fitted.transform.coefficients, DOUBLE)
    parts: list[Quality] = []
    bound = 0.0
    for tile, values in evaluate(None, field, array.shape, [range(n) for n in array.shape]):
        for shift in (-TOLERANCE, TOLERANCE, 0.0):
            restored = source.normalisation.restore(values + shift, array.dtype, low, high)
            quality = measure(array[tile], restored, None if valid is None else valid[tile])
            bound = max(bound, quality.max_error)
        parts.append(quality)
    residual = Residual(bound, _round_up(bound / source.normalisation.scale), None)
    return _assemble(chunk, fitted, residual, merge(parts))


def _correct(chunk: Prepared, fitted: Candidate | None, bound: float, allowed: float) -> Encoded | None:
    """Return the stream of what is fitted and its corrections; None where they do not keep the bound."""
    from moec_zarr.fit.transform.bound import find_corrections

    network = None if fitted is None else fitted.network
    tolerance = TOLERANCE if network is None else NETWORK_TOLERANCE
    spacing = _round_down(2 * (allowed - tolerance))
    source = chunk.field
    array, valid, normalisation = source.array, source.valid, source.normalisation
    field = None
    if fitted is not None and fitted.transform is not None:
        field = CoefficientField(fitted.transform.coefficients, DOUBLE)
    corrections = np.zeros(array.shape, np.int32)
    parts: list[Quality] = []
    for tile, values in evaluate(network, field, array.shape, [range(n) for n in array.shape]):
        original, inner = array[tile], None if valid is None else valid[tile]
        own = find_corrections(normalisation.normalise(original), values, inner, spacing / 2)
        corrections[tile] = own
        corrected = values + spacing * own
        # Restored values rise with fitted ones: no decoder is further off than at either end.
        for shift in (-tolerance, tolerance, 0.0):
            restored: Any = normalisation.restore(corrected + shift, original.dtype, *chunk.limits)
            if not keeps(original, restored, inner, bound):
                _log.debug("the corrections of %s do not keep %g", array.shape, bound)
                return None
        parts.append(measure(original, restored, inner))
    residual = Residual(bound, spacing, corrections if corrections.any() else None)
    count = int(np.count_nonzero(corrections))
    try:
        encoded = _assemble(chunk, fitted, residual, merge(parts))
    except DoesNotFit:
        return None
    _log.info("%d of %d values corrected, %.2f dB", count, array.size, encoded.psnr)
    return encoded


def _assemble(chunk: Prepared, fitted: Candidate | None, residual: Residual, quality: Quality) -> Encoded:
    from moec_zarr.fit.transform.bound import encode_residual

    sections = chunk.sections | {Section.RESIDUAL: encode_residual(residual)}
    header = replace(chunk.header, psnr=quality.psnr, max_error=quality.relative_max_error)
    return Encoded(write_stream(header, sections | ({} if fitted is None else fitted.sections())), quality)


def _search_bound(
    chunk: Prepared,
    start: float,
    slack: Callable[[Encoded], float],
    close: float,
    octaves: Callable[[float], float],
    prefer: Callable[[Encoded, Encoded], Encoded],
) -> Encoded | None:
    """Search for the bound that leaves the least slack of a target, but keeps it.

    Parameters
    ----------
    slack : callable
        What a stream leaves of the target; below 0 where it does not meet it.
    close : float
        Slack that is small enough.
    octaves : callable
        By how much a bound is to be wider, about, for so much slack.
    prefer : callable
        Returns the better one of two streams that meet the target.
    """
    best: Encoded | None = None
    least = math.log2(_least_bound(chunk))
    x = min(max(math.log2(start), least), _WIDEST) if start > 0 else least
    met, missed = math.nan, math.nan  # logarithms of bounds
    met_by = missed_by = 0.0
    for _ in range(_TRIALS):
        encoded = _encode_transform(chunk, 2.0**x)
        own = -math.inf if encoded is None else slack(encoded)
        _log.debug("a bound of %g leaves %.3g", 2.0**x, own)
        if encoded is not None and own >= 0:
            met, met_by = x, own
            best = encoded if best is None else prefer(best, encoded)
        else:
            missed, missed_by = x, own
        if 0 <= own < close or abs(met - missed) < _SAME_BOUND:
            break
        if met < math.inf and missed < math.inf:
            share = (met_by - close / 2) / (met_by - missed_by) if missed_by > -math.inf else 0.5
            following = met + min(max(share, 0.1), 0.9) * (missed - met)
        else:
            following = x + (octaves(own) if own > -math.inf else 1.0)
        following = min(max(following, least), _WIDEST)
        if following == x:
            break
        x = following
    return best


def _encode_transform(chunk: Prepared, bound: float) -> Encoded | None:
    """Return the smallest stream of a transform and corrections that keep a bound; None where none does."""
    from moec_zarr.fit.candidates import Candidate
    from moec_zarr.fit.transform.bound import fit_transform_to_bound

    allowed = _allowed(chunk, bound)
    if allowed <= 2 * TOLERANCE:
        return None
    transform = fit_transform_to_bound(chunk.field.normalised(), chunk.field.valid, allowed - TOLERANCE)
    return _correct(chunk, transform and Candidate(None, transform, math.nan), bound, allowed)


def _least_bound(chunk: Prepared) -> float:
    """Return about the smallest bound that corrections keep."""
    header = chunk.header
    if header.dtype.kind in "iu":
        rounding = 0.5
    else:
        largest = np.maximum(np.abs(header.low), np.abs(header.high))
        rounding = float(largest - np.nextafter(largest, largest.dtype.type(0))) / 2
    return max(rounding, _LEAST_BOUND * TOLERANCE * chunk.field.normalisation.scale)


def _round_up(value: float) -> float:
    """Return the smallest float32 above 0 that is not below."""
    result = np.float32(min(value, float(np.finfo(np.float32).max)))
    return float(np.nextafter(result, np.float32(np.inf)) if float(result) < value or not result else result)


def _round_down(value: float) -> float:
    """Return the largest float32 that is not above."""
    result = np.float32(min(value, float(np.finfo(np.float32).max)))
    return float(result if float(result) <= value else np.nextafter(result, np.float32(0)))
