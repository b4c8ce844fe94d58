"""Streams taken apart, the last ones kept: many small reads of one chunk parse it once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from moec_zarr.bitstream.stream import Stream, check_header, open_stream
from moec_zarr.config import config
from moec_zarr.dictionary import Dictionary
from moec_zarr.model.basis import DOUBLE, SINGLE
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.linear_experts import AnyTransform, restore
from moec_zarr.runtime import renew_after_fork

__all__ = ["Opened", "open_cached"]


@dataclass(frozen=True)
class Opened:
    """A stream taken apart, and the field of its transform."""

    stream: Stream
    digest: bytes  # what tells it from others

    @cached_property
    def field(self) -> AnyTransform | None:
        """The transform, restored, made ready to be evaluated: in double precision where a bound is kept."""
        if self.stream.coefficients is None:
            return None
        base = CoefficientField(self.stream.coefficients, SINGLE if self.stream.residual is None else DOUBLE)
        return restore(base, self.stream.linear_experts)

    @cached_property
    def nbytes(self) -> int:
        """Bytes that it takes in memory, about."""
        stream = self.stream
        masks = [each.mask for each in (*stream.masked_values, *stream.exact_values)]
        if stream.scaled is not None and stream.scaled.signs is not None:
            masks.append(stream.scaled.signs)
        total = sum(int((mask if mask.base is None else mask.base).nbytes) for mask in masks)
        total += 0 if stream.values is None else stream.values.nbytes
        # The field holds the coefficients once more, and on joint axes more of them.
        total += 0 if stream.coefficients is None else 4 * stream.coefficients.integers.nbytes
        if stream.residual is not None and stream.residual.corrections is not None:
            total += stream.residual.corrections.nbytes
        total += 0 if stream.network is None else 12 * stream.network.architecture.parameter_count
        return total


_Key = tuple[bytes, int | None]  # the bytes, and the checksum of the dictionary that they are read with
_kept: OrderedDict[_Key, Opened] = OrderedDict()  # the last one used comes last
_lock = threading.Lock()
_MOST_STREAMS = 256  # small ones add up to a search of their own


@renew_after_fork
def _renew() -> None:
    global _lock
    _lock = threading.Lock()
    _kept.clear()


def open_cached(
    data: bytes, shape: tuple[int, ...] | None = None, dictionary: Dictionary | None = None
) -> Opened:
    """Take a stream apart, or return it from memory if it was read before.

    ``config cache`` is the number of bytes that are kept; 0 keeps nothing.

    Raises
    ------
    CorruptStreamError, DictionaryError, UnsupportedVersionError
        As :func:`moec_zarr.bitstream.stream.open_stream` does.
    """
    limit = int(config.get("cache"))
    key = data, None if dictionary is None else dictionary.checksum
    with _lock:
        result = _kept.get(key) if limit else None
        if result is not None:
            _kept.move_to_end(key)
    if result is None:
        result = Opened(open_stream(data, shape, dictionary), data[4:8] + len(data).to_bytes(8, "little"))
        _keep(key, result, limit)
    else:
        check_header(result.stream.header, shape)
    return result


def _keep(key: _Key, result: Opened, limit: int) -> None:
    """Keep a stream in place of those that were used longest ago."""
    own = result.nbytes + len(key[0])
    with _lock:
        if own > limit:
            return
        _kept[key] = result
        total = sum(each.nbytes + len(data) for (data, _), each in _kept.items())
        while total > limit or len(_kept) > _MOST_STREAMS:
            (data, _), dropped = _kept.popitem(last=False)
            total -= dropped.nbytes + len(data)
