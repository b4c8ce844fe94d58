"""Array to stream: a target in bytes, dB or largest error, met by the smallest loss or the fewest bytes."""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import FRAME, write_stream
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.codec.bounded import encode_bounded
from moec_zarr.codec.decode import decode_tiles
from moec_zarr.codec.indexing import select
from moec_zarr.codec.lossless import encode_lossless, encode_lossless_within
from moec_zarr.codec.prepare import Prepared, prepare
from moec_zarr.errors import BudgetError, MoECError
from moec_zarr.fills import find_suspect, remedy
from moec_zarr.fit.network.group import join_group
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.network import Network
from moec_zarr.quality import Quality, measure, merge
from moec_zarr.runtime import fit_slot, group_size, name_extras, progress
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from moec_zarr.fit.candidates import Candidate

__all__ = ["encode"]

_log = logging.getLogger(__name__)
_SMALLEST_NETWORK = 110  # bytes of the section that the smallest network fits into
_PSNR_FITS = 8  # at most, on the way to a PSNR
_PSNR_MARGIN = 0.005  # dB that rounding to the dtype may take
_OVERSHOOT = 0.5  # dB above the target PSNR that are not worth another fit


class _Encoded(NamedTuple):
    stream: bytes
    psnr: float


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
        At most ``array.nbytes / ratio`` of them where a ratio is asked for.

    Raises
    ------
    UnsupportedArrayError
        If the dtype or the rank cannot be encoded, or `missing` is no value of the dtype.
    BudgetError
        If the target cannot be met.
    MoECError
        If values that would be fitted are a known fill value, which only `missing` keeps.
    """
    # A chunk takes memory from here on, hence it waits for its core first.
    with name_extras(settings), fit_slot():
        return _encode(array, settings, fill_value)


def _encode(array: Array, settings: Settings, fill_value: Any) -> bytes:
    chunk = prepare(array, settings.missing, fill_value)
    limit = int(array.nbytes / settings.ratio) if settings.ratio is not None and array.size else None
    plain = write_stream(chunk.header, chunk.sections)
    if chunk.is_constant:
        return _within_limit(plain, limit, array, settings)
    if limit is None:
        if settings.max_error != 0:
            _look_for_fills(chunk)
        with _beside_others(chunk, settings):
            return (_encode_psnr if settings.max_error is None else encode_bounded)(chunk, settings)
    if (exact := encode_lossless_within(chunk, limit)) is not None:
        return exact
    _look_for_fills(chunk)
    room = limit - len(plain) - FRAME
    smallest = _smallest_network(chunk.array, settings.experts)
    if room < smallest:
        raise _too_small(array, settings, limit - room + smallest)
    try:
        with _beside_others(chunk, settings):
            stream = _fit(chunk, settings, room, 1.0).stream
    except DoesNotFit:
        raise _too_small(array, settings, limit + smallest) from None
    return _within_limit(stream, limit, array, settings)


def _look_for_fills(chunk: Prepared) -> None:
    """Refuse a known fill value that nobody declared; warn of what may be one.

    Raises
    ------
    MoECError
        If there is one.
    """
    suspect = find_suspect(chunk.array if chunk.valid is None else chunk.array[chunk.valid])
    if suspect is None:
        return
    if suspect.is_known:
        raise MoECError(f"chunk of shape {chunk.array.shape}: {suspect}. {remedy(suspect)}")
    _warn_of_fill(str(suspect.value))


@lru_cache(maxsize=64)  # once in a process: a variable has many chunks
def _warn_of_fill(value: str) -> None:
    _log.warning(
        "%s stands far from all other values of a chunk, and spoils the fit of these; if it stands for "
        "missing values, say so: missing=%s",
        value, value,
    )  # fmt: skip


def _beside_others(chunk: Prepared, settings: Settings) -> AbstractContextManager[None]:
    """Networks of this chunk are trained together with those of others that are encoded now."""
    if _is_transform_alone(chunk, settings):
        return nullcontext()
    return join_group((chunk.header.shape, chunk.header.dtype, settings), group_size(chunk.array.size))


def _smallest_network(array: Array, experts: int | None) -> int:
    """Bytes of a network's section that the smallest one fits into: its gate has whole weights."""
    gate = 0 if experts in (None, 1) else 8 + experts * (array.ndim + 1.5)
    return _SMALLEST_NETWORK + math.ceil(gate)


def _within_limit(stream: bytes, limit: int | None, array: Array, settings: Settings) -> bytes:
    if limit is not None and len(stream) > limit:
        raise _too_small(array, settings, len(stream))
    return stream


def _too_small(array: Array, settings: Settings, needed: int) -> BudgetError:
    assert settings.ratio is not None
    total, sides = needed, array.shape or (1,)  # a 0-d array has no axis that could be longer
    while True:  # longer axes take more bytes of the header
        voxels = math.ceil(total * settings.ratio / array.itemsize)
        grow = (voxels / array.size) ** (1 / len(sides))
        shape = tuple(math.ceil(n * grow) for n in sides)
        more = sum(len(write_varint(n)) for n in shape) - sum(len(write_varint(n)) for n in array.shape)
        if needed + more <= total:
            break
        total = needed + more
    return BudgetError(
        f"a chunk of shape {array.shape} and dtype {array.dtype} has {array.nbytes} bytes, at ratio "
        f"{settings.ratio:g} {int(array.nbytes / settings.ratio)} for its stream; at least {total} are "
        f"needed. The smallest chunk that would do has {voxels} elements, for example {shape}: "
        "write larger chunks or ask for a smaller ratio"
    )


def _fit(chunk: Prepared, settings: Settings, room: int, share: float) -> _Encoded:
    """Return a stream whose fitted sections take at most `room` bytes, by a share of the effort's steps."""
    from moec_zarr.fit.select import fit

    with progress("MoEC fit") as report:
        return _finish(chunk, fit(chunk.field, settings, room, share=share, progress=report))


def _fit_to_psnr(chunk: Prepared, target: float) -> _Encoded:
    """Return the smallest stream of a transform alone that reaches a PSNR."""
    from moec_zarr.fit.select import fit_to_error

    # Half the range is 1 in normalised values, its peak 2.
    error = 4 * 10 ** (-(target + _PSNR_MARGIN) / 10)
    return _finish(chunk, fit_to_error(chunk.field, error))


def _finish(chunk: Prepared, best: Candidate) -> _Encoded:
    """Return the stream of a candidate, with the quality of what is decoded of it."""
    field = None if best.transform is None else CoefficientField(best.transform.coefficients)
    quality = _quality(chunk, best.network, field)
    _log.info("fitted %s %s: %.2f dB", chunk.array.shape, chunk.header.dtype, quality.psnr)
    header = replace(chunk.header, psnr=quality.psnr, max_error=quality.relative_max_error)
    return _Encoded(write_stream(header, chunk.sections | best.sections()), quality.psnr)


def _quality(chunk: Prepared, network: Network | None, field: CoefficientField | None) -> Quality:
    """Return the quality of what is decoded."""
    shape, parts = chunk.array.shape, []
    for tile, values in decode_tiles(chunk.header, network, field, None, shape, select(None, shape)):
        original = chunk.array[tile]
        valid = None if chunk.valid is None else chunk.valid[tile]
        parts.append(measure(original, np.broadcast_to(values, original.shape), valid))
    return merge(parts)


def _encode_psnr(chunk: Prepared, settings: Settings) -> bytes:
    """Return the smallest stream found that reaches the PSNR.

    Short fits bracket the bytes needed, on a logarithmic scale; a full fit, which does better,
    then takes the place of the best of them.
    """
    target = settings.psnr
    assert target is not None
    if _is_transform_alone(chunk, settings):
        return _transform_psnr(chunk, target)
    best = exact = encode_lossless(chunk)
    smallest = _smallest_network(chunk.array, settings.experts)
    room, share = max(4.0 * smallest, chunk.array.nbytes / 4000), 0.25
    low, high = float(smallest), float(len(exact))
    reached = -math.inf
    for _ in range(_PSNR_FITS):
        if not low <= room < high:
            break
        try:
            stream, psnr = _fit(chunk, settings, int(room), share)
        except DoesNotFit:  # so few bytes hold no network
            low = max(low, room)
            room = min(2 * room, 0.98 * high)
            continue
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
    if best is exact:
        _log.debug(
            "no fit below the %d bytes of a lossless stream reached %.2f dB (best %.2f); stored exactly",
            len(exact), target, reached,
        )  # fmt: skip
    return best


def _is_transform_alone(chunk: Prepared, settings: Settings) -> bool:
    from moec_zarr.fit.select import is_transform_alone

    return is_transform_alone(chunk.field.array.shape, settings)


def _transform_psnr(chunk: Prepared, target: float) -> bytes:
    """Fit the smallest transform that reaches the PSNR; return the exact stream if that is smaller.

    Rounding to an integer dtype adds an error that a transform does not see: then it aims higher.
    """
    aim, reached = target, -math.inf
    for _ in range(_PSNR_FITS):
        try:
            stream, reached = _fit_to_psnr(chunk, aim)
        except DoesNotFit:
            break
        if (exact := encode_lossless_within(chunk, len(stream))) is not None:
            return exact
        if reached >= target:
            return stream
        if reached == -math.inf:  # squares of errors exceed the largest double
            break
        aim += max(1.5 * (target - reached), 0.02)
    exact = encode_lossless(chunk)
    _log.info("%.2f dB takes the %d bytes of a lossless stream (best %.2f)", target, len(exact), reached)
    return exact
