"""The codec of this package among the codecs of an array, whatever zarr calls it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import zarr

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.zarr_codec import MoECSerializer

__all__ = ["codec_of", "find_codec"]


def find_codec(codecs: Iterable[object]) -> MoECCodec | None:
    """Find the codec among others of either zarr format, inside shards or not; None if it is not there.

    The twin of format 3 is returned as the codec of format 2, so that both compare.
    """
    for codec in codecs:
        for inner in getattr(codec, "codecs", [codec]):  # a sharding codec holds those of its chunks
            if isinstance(inner, MoECCodec):
                return inner
            if isinstance(inner, MoECSerializer):
                return MoECCodec.from_configuration(inner.configuration())
    return None


def codec_of(array: zarr.Array[Any]) -> MoECCodec | None:
    """Return the codec that a stored array is compressed with; None if it is not this package's."""
    return find_codec(array.compressors if array.metadata.zarr_format == 2 else array.metadata.codecs)
