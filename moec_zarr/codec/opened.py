"""Streams taken apart, the last ones kept: many small reads of one chunk parse it once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from moec_zarr.bitstream.stream import Stream, open_stream
from moec_zarr.config import config
from moec_zarr.errors import CorruptStreamError
from moec_zarr.model.coefficients import CoefficientField

__all__ = ["Opened", "opened"]


@dataclass(frozen=True)
class Opened:
    """A stream taken apart, and the field of its transform."""

    stream: Stream

    @cached_property
    def field(self) -> CoefficientField | None:
        """The transform, made ready to be evaluated."""
        return None if self.stream.coefficients is None else CoefficientField(self.stream.coefficients)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory, about."""
        stream = self.stream
        total = sum(
            each.mask.base.nbytes if each.mask.base is not None else each.mask.nbytes
            for each in stream.masked_values
        )
        total += 0 if stream.values is None else stream.values.nbytes
        # The field holds the coefficients once more, and on joint axes more of them.
        total += 0 if stream.coefficients is None else 4 * stream.coefficients.integers.nbytes
        total += 0 if stream.network is None else 12 * stream.network.architecture.parameter_count
        return total


_kept: OrderedDict[bytes, Opened] = OrderedDict()  # the last one used comes last
_lock = threading.Lock()


def opened(data: bytes, shape: tuple[int, ...] | None = None) -> Opened:
    """A stream taken apart, from memory where it was read before.

    ``config cache`` is the number of bytes that are kept; 0 keeps nothing.

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        As :func:`moec_zarr.bitstream.stream.open_stream` does.
    """
    limit = int(config.get("cache"))
    with _lock:
        result = _kept.get(data)
        if result is not None:
            _kept.move_to_end(data)
    if result is None:
        result = Opened(open_stream(data, shape))
    elif shape is not None and tuple(shape) != result.stream.header.shape:
        raise CorruptStreamError(
            f"the stream holds shape {result.stream.header.shape}, expected {tuple(shape)}"
        )
    with _lock:
        _kept[data] = result
        while _kept and sum(each.nbytes + len(key) for key, each in _kept.items()) > limit:
            _kept.popitem(last=False)
    return result
