"""What keeps fits in tests short: small streams, and no chunk fitted twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from numpy.typing import NDArray

from moec_zarr.adapters import numcodecs_codec, zarr_codec
from moec_zarr.codec.encode import encode
from moec_zarr.codec.lossless import encode_lossless
from moec_zarr.codec.prepare import Prepared
from moec_zarr.settings import Settings

_streams: dict[Any, bytes] = {}


class _Longest(bytes):
    """A stream that any other is shorter than."""

    def __len__(self) -> int:
        return 1 << 40


def as_integers_at_last(chunk: Prepared, *bounds: float) -> bytes:
    """In place of `encode_rounded`: what is fitted is stored, even if integers take fewer bytes."""
    return _Longest(encode_lossless(chunk))


def fast(array: NDArray[Any], stream_bytes: int = 230, **others: Any) -> dict[str, Any]:
    """Parameters of a codec for a stream of at most so many bytes, whatever the dtype."""
    return {"ratio": array.nbytes / stream_bytes, "effort": "fast"} | others


def _encode_once(array: NDArray[Any], settings: Settings, *, fill_value: Any = None) -> bytes:
    plain = Settings.from_configuration(settings.configuration())
    flags = array.flags.c_contiguous, array.flags.f_contiguous
    key = (array.tobytes(), array.dtype.str, array.shape, flags, plain, repr(fill_value))
    if key not in _streams:
        _streams[key] = encode(array, settings, fill_value=fill_value)
    return _streams[key]


@contextmanager
def fitted_once() -> Iterator[None]:
    """Both codecs encode a chunk that they have encoded before to the same stream, without a fit.

    For tests of what stands around a fit: encoding is a function of the chunk and the settings, which
    `tests.codec` tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        for adapter in (numcodecs_codec, zarr_codec):
            patch.setattr(adapter, "encode", _encode_once)
        yield
