"""Array to stream and back: the one place where format, entropy coding and network meet."""

from __future__ import annotations

import logging
import math
import os
import threading
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from moec_zarr.bitstream.container import (
    DTYPES,
    FRAME,
    MAX_RANK,
    MAX_SIZE,
    Header,
    Section,
    is_storable,
    read_stream,
    write_stream,
)
from moec_zarr.bitstream.range_coder import write_varint
from moec_zarr.bitstream.values import (
    Special,
    find_box,
    find_special,
    write_box,
    write_latents,
    write_lossless,
    write_model,
    write_special,
)
from moec_zarr.codec.decode import Stream, decode, evaluated_tiles, middle_half, open_stream, short_axes
from moec_zarr.codec.indexing import select
from moec_zarr.errors import BudgetError, UnsupportedArrayError
from moec_zarr.fit.runtime import progress
from moec_zarr.model.coefficients import Latents
from moec_zarr.model.network import Model
from moec_zarr.settings import Settings

__all__ = ["Stream", "check_dtype", "decode", "encode", "open_stream"]

Array = NDArray[Any]

_log = logging.getLogger(__name__)
# A fit is fastest on a core of its own, so that as many run at a time as there are cores.
_fits = threading.BoundedSemaphore(os.cpu_count() or 1)
_LEAST_MODEL = 110  # bytes of a model section that the smallest network fits into
_SEARCH = 8  # fits at most on the way to a PSNR
_OVERSHOOT = 0.5  # dB above the target PSNR that are not worth another fit


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype, where it can be encoded.

    Raises
    ------
    UnsupportedArrayError
        If it is not an integer or float dtype of 8 to 64 bits.
    """
    dtype = np.dtype(dtype)
    if dtype.str[1:] in DTYPES:
        return dtype
    remedy = {
        "b": "store it as uint8 with a lossless codec",
        "c": "store its real and imaginary parts as two float arrays",
        "M": "store it with a lossless codec, as xarray does with time coordinates",
        "m": "store it with a lossless codec, as xarray does with time coordinates",
        "f": "convert it to float64",
        "V": "store each field as an array of its own",
    }.get(dtype.kind, "store it with a lossless codec")
    raise UnsupportedArrayError(
        f"cannot encode dtype {dtype}; expected an integer or float dtype of 8 to 64 bits. Remedy: {remedy}"
    )


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
    dtype = check_dtype(array.dtype)
    if not is_storable(array.shape):
        raise UnsupportedArrayError(
            f"cannot encode an array of shape {array.shape}; expected at most "
            f"{MAX_RANK} axes and {MAX_SIZE} elements. Remedy: merge axes, or write smaller chunks"
        )
    missing = _sentinel(settings.missing, dtype)
    limit = int(array.nbytes / settings.ratio) if settings.ratio is not None and array.size else None
    order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    box = find_box(array)
    inner = array if box is None else array[tuple(slice(n) for n in box.shape)]
    special = find_special(inner, missing)
    if missing is None and (fill := _isolated_fill(inner, _valid(special), fill_value)) is not None:
        special = find_special(inner, fill)
    valid = _valid(special)
    low, high = _range(inner, valid)
    header = Header(
        dtype=dtype, order=order, shape=array.shape, low=low, high=high, psnr=math.inf, max_error=0.0
    )
    sections = {}
    if box is not None:
        sections[Section.BOX] = write_box(box, dtype)
    if special:
        sections[Section.MASK] = write_special(special, dtype)
    if low == high:
        return _within(write_stream(header, sections), limit, array, settings)
    exact = _exact(inner, header, sections, limit)
    if exact is not None and limit is not None:
        return exact
    parts = _Parts(header, sections, inner, valid)
    if limit is None:
        return _encode_psnr(parts, settings, exact)
    room = limit - len(write_stream(header, sections)) - FRAME
    least = _least_model(inner, settings.experts)
    if room < least:
        raise _too_small(array, settings, limit - room + least)
    return _within(_fit(parts, settings, room, 1.0), limit, array, settings)


def _least_model(array: Array, experts: int | None) -> int:
    """Bytes of a model section that the smallest network fits into: its gate has whole weights."""
    gate = 0 if experts in (None, 1) else 8 + experts * (array.ndim + 1.5)
    return _LEAST_MODEL + math.ceil(gate)


def _sentinel(missing: Any, dtype: np.dtype[Any]) -> Any:
    """`missing` as a value of the dtype."""
    if missing is None:
        return None
    if dtype.kind == "f":
        if abs(missing) > float(np.finfo(dtype).max):
            raise UnsupportedArrayError(
                f"missing={missing!r} is no value of dtype {dtype}; expected at most "
                f"{np.finfo(dtype).max}. Remedy: name the sentinel that the array holds, or none"
            )
        return dtype.newbyteorder("=").type(missing)
    if missing != int(missing) or not np.iinfo(dtype).min <= missing <= np.iinfo(dtype).max:
        raise UnsupportedArrayError(
            f"missing={missing!r} is no value of dtype {dtype}; expected a whole number in "
            f"[{np.iinfo(dtype).min}, {np.iinfo(dtype).max}]. Remedy: name the sentinel that the array "
            "holds, or none"
        )
    return dtype.newbyteorder("=").type(int(missing))


def _isolated_fill(array: Array, valid: NDArray[np.bool_] | None, fill_value: Any) -> Any:
    """`fill_value` where it occurs among the valid values and stands apart from the others."""
    if fill_value is None or not np.isfinite(fill_value):
        return None
    fill = array.dtype.type(fill_value)
    stands = array == fill
    if not stands.any():
        return None
    others = ~stands if valid is None else valid & ~stands
    if not others.any():
        return None
    low, high = (float(end) for end in _range(array, others))
    return fill if min(abs(low - float(fill)), abs(high - float(fill))) > high - low else None


def _valid(special: list[Special]) -> NDArray[np.bool_] | None:
    """Which voxels hold no special value; None where none does."""
    return ~np.logical_or.reduce([each.mask for each in special]) if special else None


def _range(array: Array, valid: NDArray[np.bool_] | None) -> tuple[Any, Any]:
    """Least and largest valid value, native byte order; zeros where there is none."""
    dtype = array.dtype.newbyteorder("=")
    if array.size == 0 or (valid is not None and not valid.any()):
        return dtype.type(0), dtype.type(0)
    if valid is None:
        return dtype.type(array.min()), dtype.type(array.max())
    top, bottom = (np.inf, -np.inf) if dtype.kind == "f" else (np.iinfo(dtype).max, np.iinfo(dtype).min)
    return dtype.type(array.min(where=valid, initial=top)), dtype.type(array.max(where=valid, initial=bottom))


def _within(stream: bytes, limit: int | None, array: Array, settings: Settings) -> bytes:
    if limit is not None and len(stream) > limit:
        raise _too_small(array, settings, len(stream))
    return stream


def _too_small(array: Array, settings: Settings, needed: int) -> BudgetError:
    assert settings.ratio is not None
    shape, least = array.shape, needed
    while True:  # longer axes take more bytes of the header
        voxels = math.ceil(least * settings.ratio / array.itemsize)
        grow = (voxels / array.size) ** (1 / max(array.ndim, 1))
        shape = tuple(math.ceil(n * grow) for n in array.shape)
        more = sum(len(write_varint(n)) for n in shape) - sum(len(write_varint(n)) for n in array.shape)
        if needed + more <= least:
            break
        least = needed + more
    return BudgetError(
        f"a chunk of shape {array.shape} and dtype {array.dtype} has {array.nbytes} bytes, at ratio "
        f"{settings.ratio:g} {int(array.nbytes / settings.ratio)} for its stream; at least {least} are "
        f"needed. The smallest chunk that would do has {voxels} elements, for example {shape}: "
        "write larger chunks or ask for a smaller ratio"
    )


@dataclass(frozen=True)
class _Parts:
    """A chunk made ready for its fit."""

    header: Header
    sections: dict[Section, bytes]
    array: Array
    valid: NDArray[np.bool_] | None


def _exact(array: Array, header: Header, sections: dict[Section, bytes], limit: int | None) -> bytes | None:
    """The lossless stream; None where a ratio is asked for that it cannot meet."""
    if limit is not None:
        # A sample that deflates far less than needed spares deflating the whole chunk.
        sample = array[tuple(slice(min(n, 32)) for n in array.shape)]
        if (
            array.size > sample.size
            and len(write_lossless(sample)) > 4 * limit * sample.size / array.size + 64
        ):
            return None
    stream = write_stream(header, sections | {Section.LOSSLESS: write_lossless(array)})
    return stream if limit is None or len(stream) <= limit else None


def _fit(parts: _Parts, settings: Settings, room: int, share: float) -> bytes:
    """A stream whose model section takes at most `room` bytes, fitted with a share of the steps."""
    try:
        from moec_zarr.fit.select import Sizes, fit
    except ModuleNotFoundError as absent:
        raise ImportError(
            f"writing needs {absent.name}, which is not installed (reading does not). "
            "Install what fits need: pip install 'moec_zarr[encode]'"
        ) from absent
    axes = short_axes(parts.array.shape)
    array, valid = parts.array.squeeze(axes), None if parts.valid is None else parts.valid.squeeze(axes)
    middle, half = middle_half(parts.header.low, parts.header.high)
    with _fits, progress("MoEC fit") as report:
        sizes = Sizes(lambda m: len(write_model(m)), lambda c: len(write_latents(c)))
        found = fit(array, valid, middle, half, settings, sizes, room, share=share, progress=report)
    psnr, error = _quality(parts.header, found.model, found.latents, parts.array, parts.valid)
    _log.info("fitted %s %s: %.2f dB", array.shape, array.dtype, psnr)
    sections = dict(parts.sections)
    if found.model is not None:
        sections[Section.MODEL] = write_model(found.model)
    if found.latents is not None:
        sections[Section.LATENTS] = write_latents(found.latents)
    return write_stream(replace(parts.header, psnr=psnr, max_error=error), sections)


def _quality(
    header: Header,
    model: Model | None,
    latents: Latents | None,
    array: Array,
    valid: NDArray[np.bool_] | None,
) -> tuple[float, float]:
    """PSNR in dB at data-range peak and largest error over the range, of what is decoded."""
    half = float(header.high) / 2 - float(header.low) / 2 or math.ulp(0.0)
    squares, largest, count = 0.0, 0.0, 0
    for tile, values in evaluated_tiles(header, model, latents, array.shape, select(None, array.shape)):
        # The range itself may exceed the largest double, half of it does not.
        error = (values.astype(np.float64) / half - array[tile].astype(np.float64) / half) / 2
        if valid is not None:
            error = error[valid[tile]]
        squares += float(np.square(error).sum())
        largest = max(largest, float(np.abs(error).max(initial=0)))
        count += error.size
    mean = squares / count
    return (-10 * math.log10(mean) if mean else math.inf), largest


def _encode_psnr(parts: _Parts, settings: Settings, exact: bytes | None) -> bytes:
    """The smallest stream found that reaches the PSNR.

    Short fits bracket the bytes needed, on a logarithmic scale; a full fit, which does better,
    then takes the place of the best of them.
    """
    target = settings.psnr
    assert target is not None
    assert exact is not None
    best = exact
    least = _least_model(parts.array, settings.experts)
    room, share = max(4.0 * least, parts.array.nbytes / 4000), 0.25
    low, high = float(least), float(len(exact))
    reached = -math.inf
    for _ in range(_SEARCH):
        if not low <= room < high:
            break
        stream = _fit(parts, settings, int(room), share)
        psnr = read_stream(stream)[0].psnr
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
            "no network below the %d bytes of a lossless stream reaches %.2f dB (best %.2f); stored exactly",
            len(exact), target, reached,
        )  # fmt: skip
    return best
