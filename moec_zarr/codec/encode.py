"""Array to stream: a target in bytes or in dB, met by the smallest loss or the fewest bytes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moec_zarr.arrays import Array, Bools
from moec_zarr.bitstream.container import FRAME, Section, write_stream
from moec_zarr.bitstream.primitives import write_varint
from moec_zarr.bitstream.values import write_lossless
from moec_zarr.codec.decode import decoded_tiles, short_axes
from moec_zarr.codec.indexing import select
from moec_zarr.codec.prepare import Prepared, prepare
from moec_zarr.errors import BudgetError
from moec_zarr.fit.payloads import DoesNotFit
from moec_zarr.fit.runtime import fit_slot, progress
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.network import Network
from moec_zarr.model.normalisation import Normalisation
from moec_zarr.quality import Quality, measure, merge
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from moec_zarr.fit.candidates import Candidate

__all__ = ["encode"]

_log = logging.getLogger(__name__)
_SMALLEST_NETWORK = 110  # bytes of the section that the smallest network fits into
_RUNS, _RUN = 32, 1 << 11  # number and length of the runs of values that are deflated as a sample
_DEFLATED_MORE = 1.5  # times as much as its sample at most, about, an array may be deflated
_PSNR_FITS = 8  # at most, on the way to a PSNR
_PSNR_MARGIN = 0.005  # dB that rounding to the dtype may take
_OVERSHOOT = 0.5  # dB above the target PSNR that are not worth another fit


class _Encoded(NamedTuple):
    stream: bytes
    psnr: float


def encode(array: Array, settings: Settings, *, fill_value: Any = None) -> bytes:
    """An array as a stream.

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
    """
    chunk = prepare(array, settings.missing, fill_value)
    limit = int(array.nbytes / settings.ratio) if settings.ratio is not None and array.size else None
    plain = write_stream(chunk.header, chunk.sections)
    if chunk.is_constant:
        return _within_limit(plain, limit, array, settings)
    if limit is None:
        return _encode_psnr(chunk, settings)
    if (exact := _lossless(chunk, limit)) is not None:
        return exact
    room = limit - len(plain) - FRAME
    smallest = _smallest_network(chunk.array, settings.experts)
    if room < smallest:
        raise _too_small(array, settings, limit - room + smallest)
    try:
        stream = _fit(chunk, settings, room, 1.0).stream
    except DoesNotFit:
        raise _too_small(array, settings, limit + smallest) from None
    return _within_limit(stream, limit, array, settings)


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
    shape, total = array.shape, needed
    while True:  # longer axes take more bytes of the header
        voxels = math.ceil(total * settings.ratio / array.itemsize)
        grow = (voxels / array.size) ** (1 / max(array.ndim, 1))
        shape = tuple(math.ceil(n * grow) for n in array.shape)
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


def _lossless(chunk: Prepared, limit: int) -> bytes | None:
    """The lossless stream; None where it takes more bytes than a limit."""
    array = chunk.array
    if array.size > _RUNS * _RUN:
        # A sample that deflates far less than needed spares deflating the whole chunk.
        starts = np.linspace(0, array.size - _RUN, _RUNS).astype(np.int64)
        sample = array.reshape(-1)[starts[:, None] + np.arange(_RUN)]
        if len(write_lossless(sample)) > _DEFLATED_MORE * limit * sample.size / array.size + 64:
            return None
    stream = _exact(chunk)
    return stream if len(stream) <= limit else None


def _exact(chunk: Prepared) -> bytes:
    return write_stream(chunk.header, chunk.sections | {Section.LOSSLESS: write_lossless(chunk.array)})


def _fit(chunk: Prepared, settings: Settings, room: int, share: float) -> _Encoded:
    """A stream whose fitted sections take at most `room` bytes, by a share of the effort's steps."""
    with _importing(), fit_slot(), progress("MoEC fit") as report:
        from moec_zarr.fit.select import fit

        grid = _grid(chunk)
        return _finished(chunk, fit(*grid, settings, room, share=share, progress=report))


def _fit_to_psnr(chunk: Prepared, settings: Settings, target: float) -> _Encoded:
    """The smallest stream of a transform alone that reaches a PSNR."""
    with _importing(), fit_slot():
        from moec_zarr.fit.select import fit_to_error

        # Half the range is 1 in normalised values, its peak 2.
        error = 4 * 10 ** (-(target + _PSNR_MARGIN) / 10)
        return _finished(chunk, fit_to_error(*_grid(chunk), settings, error))


@contextmanager
def _importing() -> Iterator[None]:
    """Says which extra is missing where a package is."""
    try:
        yield
    except ModuleNotFoundError as absent:
        extra = "networks" if absent.name == "torch" else "encode"
        remedy = ', or ask for effort="fast", which needs none' if absent.name == "torch" else ""
        raise ImportError(
            f"this fit needs {absent.name}, which is not installed (reading does not). "
            f"Install it: pip install 'moec-zarr[{extra}]'{remedy}"
        ) from absent


def _grid(chunk: Prepared) -> tuple[Array, Bools | None, Normalisation]:
    """The chunk's array, its valid voxels and their normalisation, on the axes longer than one."""
    axes, valid = short_axes(chunk.array.shape), chunk.valid
    normalisation = Normalisation.of_range(chunk.header.low, chunk.header.high)
    return chunk.array.squeeze(axes), None if valid is None else valid.squeeze(axes), normalisation


def _finished(chunk: Prepared, best: Candidate) -> _Encoded:
    """The stream of a candidate, with the quality of what is decoded of it."""
    field = None if best.transform is None else CoefficientField(best.transform.coefficients)
    quality = _quality(chunk, best.network, field)
    _log.info("fitted %s %s: %.2f dB", chunk.array.shape, chunk.header.dtype, quality.psnr)
    header = replace(chunk.header, psnr=quality.psnr, max_error=quality.relative_max_error)
    return _Encoded(write_stream(header, chunk.sections | best.sections()), quality.psnr)


def _quality(chunk: Prepared, network: Network | None, field: CoefficientField | None) -> Quality:
    """The quality of what is decoded."""
    shape, parts = chunk.array.shape, []
    for tile, values in decoded_tiles(chunk.header, network, field, shape, select(None, shape)):
        original = chunk.array[tile]
        valid = None if chunk.valid is None else chunk.valid[tile]
        parts.append(measure(original, np.broadcast_to(values, original.shape), valid))
    return merge(parts)


def _encode_psnr(chunk: Prepared, settings: Settings) -> bytes:
    """The smallest stream found that reaches the PSNR.

    Short fits bracket the bytes needed, on a logarithmic scale; a full fit, which does better,
    then takes the place of the best of them.
    """
    target = settings.psnr
    assert target is not None
    if _is_transform_alone(chunk, settings):
        return _transform_psnr(chunk, settings, target)
    best = exact = _exact(chunk)
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
        _log.warning(
            "no stream below the %d bytes of a lossless one reaches %.2f dB (best %.2f); stored exactly",
            len(exact), target, reached,
        )  # fmt: skip
    return best


def _is_transform_alone(chunk: Prepared, settings: Settings) -> bool:
    with _importing():
        from moec_zarr.fit.select import transform_alone
    return transform_alone(_grid(chunk)[0].shape, settings)


def _transform_psnr(chunk: Prepared, settings: Settings, target: float) -> bytes:
    """The smallest stream of a transform that reaches the PSNR, or the exact one where that is smaller.

    Rounding to an integer dtype adds an error that a transform does not see: then it aims higher.
    """
    aim, reached = target, -math.inf
    for _ in range(_PSNR_FITS):
        try:
            stream, reached = _fit_to_psnr(chunk, settings, aim)
        except DoesNotFit:
            break
        if (exact := _lossless(chunk, len(stream))) is not None:
            return exact
        if reached >= target:
            return stream
        aim += max(1.5 * (target - reached), 0.02)
    exact = _exact(chunk)
    _log.info("%.2f dB takes the %d bytes of a lossless stream (best %.2f)", target, len(exact), reached)
    return exact
