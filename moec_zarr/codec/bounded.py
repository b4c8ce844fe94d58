"""Chunks that keep an absolute error: what is fitted, and corrections wherever it is further off."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.bitstream.container import Section, write_stream
from moec_zarr.codec.lossless import encode_lossless, encode_lossless_within
from moec_zarr.codec.prepare import Prepared
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.model.basis import DOUBLE, LONGEST_AXIS
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.evaluate import evaluate
from moec_zarr.model.residual import NETWORK_TOLERANCE, TOLERANCE, Residual
from moec_zarr.quality import Quality, keeps, measure, merge
from moec_zarr.runtime import is_installed
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from moec_zarr.fit.candidates import Candidate

__all__ = ["encode_bounded"]

_log = logging.getLogger(__name__)
_ANY_ERROR = 8.0  # of half the range: no value is so far off
_NETWORK_RATIOS = 2000.0, 500.0, 125.0  # at which networks are fitted where no transform says how many bytes


def encode_bounded(chunk: Prepared, settings: Settings) -> bytes:
    """Find the smallest stream in which no valid value is further off than ``settings.max_error``."""
    assert settings.max_error is not None
    allowed = _allowed(chunk, settings.max_error)
    best: bytes | None = None
    if allowed > 2 * TOLERANCE:
        for fitted in _candidates(chunk, settings, allowed):
            stream = _correct(chunk, fitted, settings.max_error, allowed)
            if stream is not None and (best is None or len(stream) < len(best)):
                best = stream
    if best is None:
        _log.info("an error of %g takes a lossless stream", settings.max_error)
        return encode_lossless(chunk)
    return encode_lossless_within(chunk, len(best)) or best


def _allowed(chunk: Prepared, bound: float) -> float:
    """Error of a fitted value, in units of half the range, that keeps the bound once it is rounded."""
    dtype = chunk.header.dtype.newbyteorder("=")
    low, high = chunk.header.low, chunk.header.high
    if dtype.kind in "iu":
        error = math.floor(bound) + 0.5
    else:
        # A value takes its nearest neighbour in the dtype: half their distance away, or itself.
        # Of the largest number there is none above: the one below it is as far away.
        below = np.nextafter(np.finfo(dtype).max, dtype.type(0))
        distance = float(np.spacing(min(max(abs(low), abs(high)), below)))
        error = bound - distance / 2 if distance <= bound else bound / 2
        error *= 1 - 2 * float(np.finfo(dtype).eps)  # differences are taken in the dtype
    return min(error / chunk.field.normalisation.scale, _ANY_ERROR)


def _candidates(chunk: Prepared, settings: Settings, allowed: float) -> Iterator[Candidate | None]:
    """Fit what may be corrected: a transform, networks if the effort has them; None is nothing at all."""
    from moec_zarr.fit.candidates import Candidate
    from moec_zarr.fit.select import fit, is_transform_alone
    from moec_zarr.fit.transform.bound import fit_transform_to_bound
    from moec_zarr.fit.transform.rate_control import has_transform

    field = chunk.field
    shape = field.array.shape
    rooms = [field.array.nbytes / ratio for ratio in _NETWORK_RATIOS]
    if settings.model == "network" or settings.experts is not None:
        pass
    elif not has_transform(shape):
        yield None  # corrections alone
    else:
        transform = fit_transform_to_bound(field.normalised(), field.valid, allowed - TOLERANCE)
        yield None if transform is None else Candidate(None, transform, math.nan)
        rooms = [] if transform is None else [len(transform.payload)]
    if is_transform_alone(shape, settings) or allowed < 2 * NETWORK_TOLERANCE:
        return
    if not settings.has_networks and not is_installed("torch"):
        _log.warning(
            "shape %s has an axis too long for a transform, and torch, which fits networks, is "
            "not installed: only corrections are stored; write chunks of at most %d voxels along each axis",
            shape, LONGEST_AXIS,
        )  # fmt: skip
        return
    for room in rooms:
        try:
            best = fit(field, settings, int(room))
        except DoesNotFit:
            continue
        if best.network is not None:
            yield best


def _correct(chunk: Prepared, fitted: Candidate | None, bound: float, allowed: float) -> bytes | None:
    """Return the stream of what is fitted and its corrections; None where they do not keep the bound."""
    from moec_zarr.fit.transform.bound import encode_residual, find_corrections

    network = None if fitted is None else fitted.network
    tolerance = TOLERANCE if network is None else NETWORK_TOLERANCE
    spacing = _round_down(2 * (allowed - tolerance))
    source = chunk.field
    array, valid, normalisation = source.array, source.valid, source.normalisation
    low, high = chunk.header.low, chunk.header.high
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
            restored: Any = normalisation.restore(corrected + shift, original.dtype, low, high)
            if not keeps(original, restored, inner, bound):
                _log.debug("the corrections of %s do not keep %g", array.shape, bound)
                return None
        parts.append(measure(original, restored, inner))
    residual = Residual(bound, spacing, corrections if corrections.any() else None)
    try:
        sections = {Section.RESIDUAL: encode_residual(residual)}
    except DoesNotFit:
        return None
    quality = merge(parts)
    count = int(np.count_nonzero(corrections))
    _log.info("%d of %d values corrected, largest error %g", count, array.size, quality.max_error)
    header = replace(chunk.header, psnr=quality.psnr, max_error=quality.relative_max_error)
    return write_stream(header, chunk.sections | sections | ({} if fitted is None else fitted.sections()))


def _round_down(value: float) -> float:
    """Return the largest float32 that is not above."""
    result = np.float32(min(value, float(np.finfo(np.float32).max)))
    return float(result if float(result) <= value else np.nextafter(result, np.float32(0)))
