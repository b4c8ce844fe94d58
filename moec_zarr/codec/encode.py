"""Array to stream: a target in bytes, dB or largest error, met by the smallest loss or the fewest bytes."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import FRAME
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.codec.bounded import (
    add_bound,
    encode_bounded,
    encode_closest,
    encode_exactly,
    encode_to_psnr,
)
from moec_zarr.codec.budget import explain_budget
from moec_zarr.codec.decode import decode_tiles
from moec_zarr.codec.fidelity import (
    Encoded,
    Fidelity,
    measure_tile,
    measure_values,
    merge_tiles,
    write_fitted,
)
from moec_zarr.codec.fills import refuse_fills
from moec_zarr.codec.indexing import select
from moec_zarr.codec.lossless import encode_lossless, encode_lossless_within
from moec_zarr.codec.prepare import Prepared, as_sentinel, keep_exactly, prepare
from moec_zarr.codec.repeated import is_better, race_repeated
from moec_zarr.codec.scaling import put_on_scale
from moec_zarr.config import config
from moec_zarr.errors import BudgetError, MoECError
from moec_zarr.fit.advice import read_advice
from moec_zarr.fit.network.group import join_group
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.runtime import fit_slot, group_size, name_extras, progress
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from moec_zarr.fit.candidates import Candidate

__all__ = ["encode"]

_log = logging.getLogger(__name__)
_SMALL = 1 << 15  # voxels up to which a chunk is encoded with and without its dictionary
_FIRST = 1 << 12  # values that tell at once that there are others
_PSNR_FITS = 8  # at most, on the way to a PSNR
_PSNR_MARGIN = 0.005  # dB that rounding to the dtype may take
_OVERSHOOT = 0.5  # dB above the target PSNR that are not worth another fit
_FEWER = 0.9  # of the bytes of a transform alone: a network is tried with so many first
_SINGLE_PRECISION = 100.0  # dB from which decoders in single precision add to the error what can be seen
_SINGLE_NOISE = 130.0  # dB from which what single precision leaves of a transform is most of the error
_BOUND_BYTES = 14  # of the section of a bound without corrections
_USED = 0.9  # of a limit: what leaves more is looked at again
_PEAK_ERROR = 2.0  # times the root mean square of the error: about the largest, of what is bounded
_ROUNDED = 0.9  # of the error that was fitted: rounding to the dtype makes it smaller
_HALF_OFF_BY_ONE = 0.7  # root mean square error of integers of which about half are wrong
_NEARLY_EXACT = 1.3  # times a limit: what is estimated below it may fit


def encode(array: Array, settings: Settings, *, fill_value: Any = None) -> bytes:
    """Encode an array as a stream.

    Parameters
    ----------
    array : integer or float array of 0 to 5 axes
        Of any byte order, memory order and strides; never written to.
    settings : Settings
        Target and effort.
    fill_value : scalar, optional
        What the array's store holds where nothing was written. Kept exactly as `missing` is
        where it stands further from all other values than these do from each other.

    Returns
    -------
    bytes
        At most ``array.nbytes / ratio`` of them where a ratio is asked for. If `config` budget is "keep", and
        that cannot be reached, what is kept exactly, such as the places of NaN, takes its bytes beside them,
        so that the values are as close as those of other chunks.

    Raises
    ------
    UnsupportedArrayError
        If the dtype or the rank cannot be encoded, or `missing` is no value of the dtype.
    BudgetError
        If the target cannot be met.
    MoECError
        If values that would be fitted are a known fill value, which only `missing` keeps.
        If ``config refit`` is "raise", and a lossy stream decoded to values of the chunk.
    """
    # A chunk takes memory from here on, hence it waits for its core first.
    with name_extras(settings), fit_slot():
        return _encode_chunk(array, settings, fill_value, reachable=config.get("budget") == "keep")


def _encode_chunk(array: Array, settings: Settings, fill_value: Any, reachable: bool) -> bytes:
    chunk = replace(prepare(array, settings.missing, fill_value), dictionary=settings.shared)
    if read_advice(settings.shared).networks_lost and settings.model == "auto" and settings.experts is None:
        settings = replace(settings, effort="fast")
    limit = int(array.nbytes / settings.ratio) if settings.ratio is not None and array.size else None
    if settings.is_lossless and not chunk.is_constant:
        return encode_lossless(chunk)
    exact = [as_sentinel(value, chunk.header.dtype, "exact") for value in settings.exact_values]
    if settings.scale == "log" or (settings.max_relative_error and not settings.max_error):
        exact.append(chunk.header.dtype.type(0))
    if chunk.is_constant or _has_all(chunk, exact):
        for value in () if chunk.is_constant else exact:
            chunk = keep_exactly(chunk, value)
        stream = chunk.write(chunk.kept())
        if limit is not None and len(stream) > limit and not reachable:
            raise explain_budget(chunk, settings, len(stream))
        return stream
    for value in settings.exact_values:
        chunk = keep_exactly(chunk, value)
    if chunk.header.refit:
        _tell_of_refit(array.shape)
    stream = _encode_values(chunk, settings, limit, reachable)
    shared = settings.shared
    if shared is None or settings.has_networks or chunk.array.size > _SMALL:
        return stream
    if read_advice(shared).no_search:  # while a dictionary is trained
        return stream
    # Little is gained by a dictionary where all is fast, and much may be lost.
    own = replace(chunk, dictionary=None), replace(settings, dictionary=None)
    try:
        other = _encode_values(*own, limit, reachable)
    except BudgetError:
        return stream
    kept = limit is None or len(other) <= max(limit, len(stream))
    return other if kept and is_better(other, stream, limit) else stream


def _encode_values(chunk: Prepared, settings: Settings, limit: int | None, reachable: bool) -> bytes:
    if settings.scale == "log":
        chunk = put_on_scale(chunk)
    if settings.is_bounded:
        refuse_fills(chunk)
        with _beside_others(chunk, settings):
            return encode_bounded(chunk, settings)

    def encode_one(chunk: Prepared, settings: Settings = settings) -> bytes:
        if limit is not None:
            return _encode_ratio(chunk, settings, limit, reachable)
        refuse_fills(chunk)
        with _beside_others(chunk, settings):
            return _encode_psnr(chunk, settings)

    if settings.scale == "log" or settings.model == "network" or settings.experts is not None:
        return encode_one(chunk)
    # Transforms alone say what is best kept exactly: networks take too long.
    fast = replace(settings, effort="fast")
    raced = race_repeated(chunk, lambda other: encode_one(other, fast), limit=limit, psnr=settings.psnr)
    stored = raced.stored
    if stored is not None and raced.decided:
        return stored
    fitted = encode_one(raced.chunk) if raced.fitted is None or settings.has_networks else raced.fitted
    return stored if stored is not None and is_better(stored, fitted, limit) else fitted


def _has_all(chunk: Prepared, exact: Sequence[Any]) -> bool:
    """Say whether a few values are all that a chunk has."""
    values = chunk.valid_values
    return bool(exact) and bool(np.isin(values[:_FIRST], exact).all() and np.isin(values, exact).all())


def _encode_ratio(chunk: Prepared, settings: Settings, limit: int, reachable: bool) -> bytes:
    """Return the stream of at most so many bytes whose error is the smallest of those found.

    If `reachable`, a limit that cannot be met is raised.
    """
    from moec_zarr.fit.select import may_take_entries, smallest_fit

    if (exact := encode_lossless_within(chunk, limit)) is not None:
        return exact
    refuse_fills(chunk)
    shape = chunk.field.array.shape
    smallest = smallest_fit(shape, settings)
    plain = len(chunk.write(chunk.kept()))
    needed = plain + 1 + len(write_varint(smallest)) + smallest
    if limit < needed:
        if not reachable:
            raise explain_budget(chunk, settings, needed)
        limit = max(needed, plain + FRAME + limit)
        if (exact := encode_lossless_within(chunk, limit)) is not None:
            return exact
    spare = chunk.reserve() - plain if may_take_entries(settings.shared, shape) else 0
    room = limit - plain - spare - FRAME
    if room < smallest:  # there is no room for an entry of the dictionary
        room, spare, settings = max(room + spare, smallest), 0, replace(settings, dictionary=None)
    try:
        with _beside_others(chunk, settings):
            fitted, best = _fit_within(chunk, settings, room, spare=spare)
    except DoesNotFit:
        if reachable:
            return encode_lossless(chunk)
        raise explain_budget(chunk, settings, limit + smallest) from None
    if fitted.network is not None:
        return best.stream
    if (len(best.stream) < _USED * limit or best.psnr > _SINGLE_NOISE) and best.quality.max_error > 0:
        best = _choose_better(best, encode_closest(chunk, limit, best.quality.max_error))
    if best.quality.max_error > 0 and _may_be_exact(chunk, best, limit):
        best = encode_exactly(chunk, limit) or best
    rounded = (best.quality.rmse / chunk.field.normalisation.scale) ** 2 / _share_fitted(chunk)
    if 0 < rounded < _ROUNDED * fitted.error:
        best = _fit_fewer(chunk, settings, room, best)
    return best.stream


def _share_fitted(chunk: Prepared) -> float:
    """Return the share of the values whose errors count that are fitted: others are kept exactly."""
    if chunk.scaled is not None or not chunk.exact or chunk.fitted is None:
        return 1.0
    count = chunk.array.size if chunk.valid is None else np.count_nonzero(chunk.valid)
    return float(np.count_nonzero(chunk.fitted) / count)


def _may_be_exact(chunk: Prepared, best: Encoded, limit: int) -> bool:
    """Say whether integers are so close that corrections may keep them exactly in so many bytes."""
    if (
        chunk.scaled is not None
        or chunk.header.dtype.kind not in "iu"
        or best.quality.rmse > _HALF_OFF_BY_ONE
    ):
        return False
    share = best.quality.rmse**2  # of the values are off by one, if no more
    bits = share - share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return len(best.stream) + chunk.array.size * bits / 8 < _NEARLY_EXACT * limit


def _fit_fewer(chunk: Prepared, settings: Settings, room: int, best: Encoded) -> Encoded:
    """Look among transforms of half of the bytes, and so on, while they are closer.

    Where rounding to the dtype makes a fit better, few bytes lead to the values before they were rounded,
    from which a decoder rounds alike; more are spent on what rounding did to them.
    """
    from moec_zarr.fit.select import smallest_fit

    settings = replace(settings, effort="fast")
    smallest = smallest_fit(chunk.field.array.shape, settings)
    while best.quality.max_error > 0 and (room := room // 2) >= smallest:
        fewer = _fit(chunk, settings, room, 1.0)
        if _choose_better(best, fewer) is best:
            break
        best = fewer
    return best


def _choose_better(one: Encoded, other: Encoded | None) -> Encoded:
    return one if other is None or one.quality.rmse <= other.quality.rmse else other


def _tell_of_refit(shape: tuple[int, ...]) -> None:
    """Warn of values that are compressed again, or raise: ``config refit``."""
    choice = config.get("refit")
    if choice not in ("warn", "raise", "allow"):
        raise MoECError(f"config refit must be 'warn', 'raise' or 'allow', got {choice!r}")
    text = (
        f"a chunk of shape {shape} holds values that a lossy stream decoded to: they lose accuracy again, "
        "and the target holds over them, not over the original. A write of a part of a chunk does this. "
        "Write whole chunks, or whole shards, or let moec-zarr convert --append add them from the source; "
        "moec_zarr.config 'refit' may be 'raise' or 'allow'"
    )
    if choice == "raise":
        raise MoECError(text)
    if choice == "warn":
        warnings.warn(text, stacklevel=2)


def _beside_others(chunk: Prepared, settings: Settings) -> AbstractContextManager[None]:
    """Networks of this chunk are trained together with those of others that are encoded now."""
    if not settings.has_networks:
        return nullcontext()
    return join_group((chunk.header.shape, chunk.header.dtype, settings), group_size(chunk.array.size))


def _fit(chunk: Prepared, settings: Settings, room: int, share: float) -> Encoded:
    """Return a stream whose fitted sections take at most `room` bytes, by a share of the effort's steps."""
    return _fit_within(chunk, settings, room, share)[1]


def _fit_within(
    chunk: Prepared, settings: Settings, room: int, share: float = 1.0, spare: int = 0
) -> tuple[Candidate, Encoded]:
    """Return the same, and what it holds; bytes to spare are those that an entry would take."""
    from moec_zarr.fit.select import fit, smallest_fit

    with progress("MoEC fit") as report:
        fitted = fit(chunk.field, settings, room, spare=spare, share=share, progress=report)
    encoded = _finish(chunk, fitted)
    if not _hangs_on_precision(fitted, encoded):
        return fitted, encoded
    left = room - _BOUND_BYTES
    assert fitted.transform is not None
    if fitted.transform.nbytes > left:
        if left < smallest_fit(chunk.field.array.shape, settings):
            return fitted, encoded
        fitted = fit(chunk.field, replace(settings, effort="fast"), left)
    return fitted, add_bound(chunk, fitted)


def _fit_to_psnr(chunk: Prepared, target: float) -> tuple[Candidate, Encoded]:
    """Return the smallest transform alone that reaches a PSNR, and its stream."""
    from moec_zarr.fit.select import fit_to_error

    # Half the range is 1 in normalised values, its peak 2.
    error = 4 * 10 ** (-(target + _PSNR_MARGIN) / 10) / _share_fitted(chunk)
    fitted = fit_to_error(chunk.field, error, chunk.dictionary)
    encoded = _finish(chunk, fitted)
    return fitted, add_bound(chunk, fitted) if _hangs_on_precision(fitted, encoded) else encoded


def _hangs_on_precision(fitted: Candidate, encoded: Encoded) -> bool:
    """Say whether decoders in single precision differ by what can be seen beside the error of the fit."""
    return fitted.network is None and _SINGLE_PRECISION < encoded.psnr < math.inf


def _finish(chunk: Prepared, best: Candidate) -> Encoded:
    """Return the stream of a candidate, with the quality of what is decoded of it."""
    encoded = write_fitted(chunk, best.sections(), _measure(chunk, best), best.taken)
    _log.info("fitted %s %s: %.2f dB", chunk.array.shape, chunk.header.dtype, encoded.psnr)
    return encoded


def _measure(chunk: Prepared, best: Candidate) -> Fidelity:
    """Return how close is what is decoded, of its values where a fit has evaluated them."""
    if best.values is not None:
        return measure_values(chunk, best.values)
    field = None if best.transform is None else best.transform.field()
    shape, parts = chunk.array.shape, []
    for tile, values in decode_tiles(
        chunk.header.dtype, chunk.limits, best.network, field, None, shape, select(None, shape)
    ):
        decoded = np.broadcast_to(values, chunk.array[tile].shape)
        parts.append(measure_tile(chunk, tile, chunk.complete(tile, decoded)))
    return merge_tiles(parts)


def _encode_psnr(chunk: Prepared, settings: Settings) -> bytes:
    """Return the smallest stream found that reaches the PSNR.

    Short fits bracket the bytes needed, on a logarithmic scale; a full fit, which does better,
    then takes the place of the best of them.
    """
    target = settings.psnr
    assert target is not None
    from moec_zarr.fit.select import may_gain, smallest_network

    smallest = smallest_network(chunk.array.ndim, settings.experts)
    if settings.model == "network" or settings.experts is not None:
        best = encode_lossless(chunk)
        room = max(4.0 * smallest, chunk.array.nbytes / 4000)
    else:
        best, transform = _transform_psnr(chunk, target)
        if not settings.has_networks or transform is None:
            return best
        room = _FEWER * len(best)
        if room < smallest or not may_gain(chunk.field, settings, len(best), transform):
            return best
    low, high, share = float(smallest), float(len(best)), 0.25
    reached = -math.inf
    for _ in range(_PSNR_FITS):
        if not low <= room < high:
            break
        try:
            encoded = _fit(chunk, settings, int(room), share)
        except DoesNotFit:  # so few bytes hold no network
            low = max(low, room)
            room = min(2 * room, 0.98 * high)
            continue
        stream, psnr = encoded.stream, encoded.psnr
        reached = max(reached, psnr)
        _log.info("%d bytes reach %.2f dB of %.2f with %g of the steps", len(stream), psnr, target, share)
        if psnr >= target:
            if len(stream) < len(best):
                best = stream
            high = min(high, room)
            if share == 1 and psnr <= target + _OVERSHOOT:
                break
            share = 1.0
        elif share == 1:
            low = max(low, room)
        # About 4 dB are won by doubling the bytes; a bracket that exists is never left.
        room = min(room * 2 ** max(-3.0, min(3.0, (target + 0.5 * _OVERSHOOT - psnr) / 4)), 0.98 * high)
        room = max(room, 1.02 * low)
    _log.debug("%d bytes; fits reached %.2f dB of %.2f", len(best), reached, target)
    return best


def _transform_psnr(chunk: Prepared, target: float) -> tuple[bytes, Candidate | None]:
    """Fit the smallest transform that reaches the PSNR; return the stream and the transform.

    None in place of the transform where the stream is exact, since that is smaller, or takes corrections.

    Rounding to an integer dtype adds an error that a transform does not see: then it aims higher. Where no
    transform is so close, corrections are.
    """
    aim, best, fitted = target, None, None
    for _ in range(_PSNR_FITS):
        try:
            fitted, last = _fit_to_psnr(chunk, aim)
        except DoesNotFit:
            break
        if last.psnr >= target:
            best = last
            break
        if last.psnr == -math.inf:  # squares of errors exceed the largest double
            return encode_lossless(chunk), None
        aim += max(1.5 * (target - last.psnr), 0.02)
    if best is None:
        best, fitted = encode_to_psnr(chunk, target, _error_at(chunk, target)), None
    if best is None:
        exact = encode_lossless(chunk)
        _log.info("%.2f dB takes the %d bytes of a lossless stream", target, len(exact))
        return exact, None
    if (smaller := encode_lossless_within(chunk, len(best.stream))) is not None:
        return smaller, None
    return best.stream, fitted


def _error_at(chunk: Prepared, psnr: float) -> float:
    """Return about the largest error of a PSNR."""
    return 2 * _PEAK_ERROR * 10 ** (-psnr / 20) * chunk.field.normalisation.scale
