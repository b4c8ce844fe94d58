"""Chunks that keep a bound on the error: what is fitted, and corrections wherever it is further off.

A bound is absolute, or relative to the magnitude: then what is fitted lies on a logarithmic scale.

Corrections also serve a ratio or a PSNR that lies beyond what a transform can be as close as.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moec_zarr.arrays import Array, Bools
from moec_zarr.bitstream.container import Section
from moec_zarr.codec.fidelity import Encoded, Fidelity, measure_tile, merge_tiles, write_fitted
from moec_zarr.codec.lossless import encode_rounded, encode_rounded_within, sample_rounded
from moec_zarr.codec.prepare import Prepared
from moec_zarr.codec.scaling import allowed_on_scale, choose_knee, put_on_scale
from moec_zarr.fit.advice import read_advice
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.model.basis import DOUBLE
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.residual import NETWORK_TOLERANCE, TOLERANCE, Residual
from moec_zarr.model.scale import EXPONENTIAL
from moec_zarr.quality import keeps, keeps_relative
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from moec_zarr.fit.candidates import Candidate

__all__ = ["Encoded", "add_bound", "encode_bounded", "encode_closest", "encode_exactly", "encode_to_psnr"]

_log = logging.getLogger(__name__)
_ANY_ERROR = 8.0  # of half the range: no value is so far off
_NETWORK_RATIOS = 2000.0, 500.0, 125.0  # at which networks are fitted where no transform says how many bytes
_MISJUDGED = 1.1  # times what is wanted that a fit may seem to take at first
_UNLIKE = 1.25  # times what samples say that rounded values take: then a fit is looked at again
_CLEARLY = 0.955  # of what samples say that rounded values take: beside a fit of fewer bytes they are not
_TRIALS = 8  # bounds that are tried on the way to bytes or a PSNR
_FIRST_OCTAVES = 2.0  # to the next bound that is tried on the way to bytes
_CLOSE_BYTES, _CLOSE_PSNR = 0.06, 0.2  # of a limit, and in dB: near enough
_SAME_BOUND = 0.1  # octaves between two bounds: nothing lies between them
_NEXT_TO_ONE = 0.99  # by which integers are exact
_LEAST_BOUND = 5.0  # times the tolerance of decoders: about the smallest bound
_HIGHEST_PSNR = 1000.0  # in place of that of exact values
_WIDEST = 1023.0  # octaves: the largest double
_OCTAVE = 20 * math.log10(2)  # dB of a bound that is twice as wide


class _Bound(NamedTuple):
    """How far values may be off: the larger of the two."""

    absolute: float
    relative: float = 0.0

    def keeps(self, original: Array, decoded: Array, valid: Bools | None) -> bool:
        """Say whether no valid value is further off."""
        if self.relative:
            return keeps_relative(original, decoded, valid, self.relative, self.absolute)
        return keeps(original, decoded, valid, self.absolute)


def encode_bounded(chunk: Prepared, settings: Settings) -> bytes:
    """Find the smallest stream in which no valid value is further off than the settings allow.

    Samples say about how many bytes values take that are rounded and stored themselves, and so what a fit
    must be smaller than. Where it is far smaller, they are not stored.
    """
    advice = read_advice(chunk.dictionary)
    bounds = settings.max_error or 0.0, settings.max_relative_error or 0.0
    if advice.fits_lost:
        return encode_rounded(chunk, *bounds)
    sampled = sample_rounded(chunk, *bounds)
    if sampled is None and not advice.fits_won:
        best = encode_rounded(chunk, *bounds)
        return _encode_fits(chunk, settings, best, _MISJUDGED * len(best)) or best
    limit = math.inf if advice.fits_won or sampled is None else sampled
    fitted = _encode_fits(chunk, settings, None, limit)
    if fitted is not None:
        if sampled is not None and len(fitted) < _CLEARLY * sampled:
            return fitted
        return encode_rounded_within(chunk, *bounds, len(fitted)) or fitted
    best = encode_rounded(chunk, *bounds)
    if len(best) < _UNLIKE * limit:
        return best
    return _encode_fits(chunk, settings, best, len(best)) or best


def _encode_fits(chunk: Prepared, settings: Settings, best: bytes | None, limit: float) -> bytes | None:
    """Return the smallest stream of what is fitted that is smaller than the best one; None if none is.

    A fit that is to take more bytes than a limit is given up early.
    """
    chunk, bound = _choose_scale(chunk, settings)
    allowed = _allowed(chunk, bound)
    if allowed <= 2 * _tolerance(chunk, TOLERANCE):
        _log.info("no fit keeps %s", bound)
        return best
    for fitted in _candidates(chunk, settings, allowed, limit):
        encoded = _correct(chunk, fitted, bound, allowed)
        if encoded is not None and (best is None or len(encoded.stream) < len(best)):
            best = encoded.stream
    return best


def _choose_scale(chunk: Prepared, settings: Settings) -> tuple[Prepared, _Bound]:
    """Return a chunk on the scale on which its bound is about the same everywhere, and that bound."""
    absolute, relative = settings.max_error or 0.0, settings.max_relative_error or 0.0
    largest = max(abs(chunk.header.low.item()), abs(chunk.header.high.item()))
    if relative * largest <= absolute:
        return chunk, _Bound(absolute)
    if chunk.header.dtype.kind in "iu" and math.floor(relative * largest) <= math.floor(absolute):
        return chunk, _Bound(max(math.floor(absolute), _NEXT_TO_ONE))
    return put_on_scale(chunk, choose_knee(chunk, relative, absolute)), _Bound(absolute, relative)


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


def _allowed(chunk: Prepared, bound: _Bound) -> float:
    """Error of a fitted value, in units of half the range, that keeps the bound once it is rounded."""
    if chunk.scaled is not None:
        return min(allowed_on_scale(chunk, bound.relative, bound.absolute), _ANY_ERROR)
    dtype = chunk.header.dtype.newbyteorder("=")
    low, high = chunk.header.low, chunk.header.high
    # A value that would be the sentinel within the range takes its other neighbour: that is a step further.
    step = chunk.missing is not None
    if dtype.kind in "iu":
        error = math.floor(bound.absolute) + (0.0 if step and bound.absolute >= 1 else 0.5)
    else:
        # A value takes its nearest neighbour in the dtype: half their distance away, or itself.
        # Of the largest number there is none above: the one below it is as far away.
        below = np.nextafter(np.finfo(dtype).max, dtype.type(0))
        distance = float(np.spacing(min(max(abs(low), abs(high)), below)))
        error = max(bound.absolute - (distance if step else distance / 2), bound.absolute / 2)
        error *= 1 - 2 * float(np.finfo(dtype).eps)  # differences are taken in the dtype
    return min(error / chunk.field.normalisation.scale, _ANY_ERROR)


def _tolerance(chunk: Prepared, own: float) -> float:
    """Return the tolerance of decoders, in units of half the range: their `own`, and of exponentials."""
    return own if chunk.scaled is None else own + EXPONENTIAL / chunk.scaled.scale.half


def _candidates(
    chunk: Prepared, settings: Settings, allowed: float, limit: float
) -> Iterator[Candidate | None]:
    """Fit what may be corrected: a transform, networks if the effort has them; None is nothing at all.

    A transform is of use in fewer bytes than a limit.
    """
    from moec_zarr.fit.candidates import Candidate
    from moec_zarr.fit.select import fit
    from moec_zarr.fit.transform.bound import BOTH_TRIED, fit_transform_to_bound

    field = chunk.field
    rooms = [field.array.nbytes / ratio for ratio in _NETWORK_RATIOS]
    if settings.model == "network" or settings.experts is not None:
        pass
    else:
        left = allowed - _tolerance(chunk, TOLERANCE)
        try:
            transform = fit_transform_to_bound(field.normalised(), field.valid, left, limit, chunk.dictionary)
        except DoesNotFit:
            return
        if transform is not None:
            yield Candidate(None, transform, math.nan)
        if transform is None or field.array.size <= BOTH_TRIED:
            yield None
        rooms = [] if transform is None else [transform.nbytes]
    if not settings.has_networks or allowed < 2 * _tolerance(chunk, NETWORK_TOLERANCE):
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
    own, tolerance = chunk.squeezed, _tolerance(chunk, TOLERANCE)
    field = fitted.transform.field(DOUBLE)
    parts: list[Fidelity] = []
    bound = 0.0
    for tile, values in evaluate(None, field, own.array.shape, [range(n) for n in own.array.shape]):
        for shift in (-tolerance, tolerance, 0.0):
            found = measure_tile(own, tile, own.restore(tile, values + shift))
            bound = max(bound, found.worst())
        parts.append(found)
    residual = Residual(bound, _round_up(bound / chunk.field.normalisation.scale), None)
    return _assemble(chunk, fitted, residual, merge_tiles(parts))


def _correct(chunk: Prepared, fitted: Candidate | None, bound: _Bound, allowed: float) -> Encoded | None:
    """Return the stream of what is fitted and its corrections; None where they do not keep the bound."""
    from moec_zarr.fit.transform.bound import find_corrections

    network = None if fitted is None else fitted.network
    tolerance = _tolerance(chunk, TOLERANCE if network is None else NETWORK_TOLERANCE)
    spacing = _round_down(2 * (allowed - tolerance))
    own, target = chunk.squeezed, chunk.field
    field = None
    if fitted is not None and fitted.transform is not None:
        field = fitted.transform.field(DOUBLE)
    corrections = np.zeros(own.array.shape, np.int32)
    parts: list[Fidelity] = []
    for tile, values in evaluate(network, field, own.array.shape, [range(n) for n in own.array.shape]):
        inner = None if target.valid is None else target.valid[tile]
        needed = find_corrections(
            target.normalisation.normalise(target.array[tile]), values, inner, spacing / 2
        )
        corrections[tile] = needed
        corrected = values + spacing * needed
        # Restored values rise with fitted ones: no decoder is further off than at either end.
        for shift in (-tolerance, tolerance, 0.0):
            restored = own.restore(tile, corrected + shift)
            if not bound.keeps(own.array[tile], restored, None if own.valid is None else own.valid[tile]):
                _log.debug("the corrections of %s do not keep %s", own.array.shape, bound)
                return None
        parts.append(measure_tile(own, tile, restored))
    residual = Residual(bound.relative or bound.absolute, spacing, corrections if corrections.any() else None)
    count = int(np.count_nonzero(corrections))
    try:
        encoded = _assemble(chunk, fitted, residual, merge_tiles(parts))
    except DoesNotFit:
        return None
    _log.info("%d of %d values corrected, %.2f dB", count, own.array.size, encoded.psnr)
    return encoded


def _assemble(chunk: Prepared, fitted: Candidate | None, residual: Residual, fidelity: Fidelity) -> Encoded:
    from moec_zarr.fit.transform.bound import encode_residual

    sections = {Section.RESIDUAL: encode_residual(residual)}
    if fitted is None:
        return write_fitted(chunk, sections, fidelity)
    return write_fitted(chunk, sections | fitted.sections(), fidelity, fitted.taken)


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

    own = _Bound(bound) if chunk.scaled is None else _Bound(0.0, bound)
    allowed, tolerance = _allowed(chunk, own), _tolerance(chunk, TOLERANCE)
    if allowed <= 2 * tolerance:
        return None
    transform = fit_transform_to_bound(
        chunk.field.normalised(), chunk.field.valid, allowed - tolerance, shared=chunk.dictionary
    )
    return _correct(chunk, transform and Candidate(None, transform, math.nan), own, allowed)


def _least_bound(chunk: Prepared) -> float:
    """Return about the smallest bound that corrections keep."""
    header = chunk.header
    if chunk.scaled is not None:
        rounding = 0.0 if header.dtype.kind in "iu" else float(np.finfo(header.dtype).eps)
    elif header.dtype.kind in "iu":
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
