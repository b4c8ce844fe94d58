"""Chunks that are stored exactly."""

from __future__ import annotations

import numpy as np

from moec_zarr.bitstream.container import Section, write_stream
from moec_zarr.bitstream.values import write_lossless
from moec_zarr.codec.prepare import Prepared

__all__ = ["encode_lossless", "encode_lossless_within"]

_RUNS, _RUN = 32, 1 << 11  # number and length of the runs of values that are deflated as a sample
_DEFLATED_MORE = 1.5  # times as much as its sample at most, about, an array may be deflated


def encode_lossless_within(chunk: Prepared, limit: int) -> bytes | None:
    """Encode without loss; return None if that takes more bytes than a limit."""
    array = chunk.array
    if array.size > _RUNS * _RUN:
        # A sample that deflates far less than needed spares deflating the whole chunk.
        starts = np.linspace(0, array.size - _RUN, _RUNS).astype(np.int64)
        sample = array.reshape(-1)[starts[:, None] + np.arange(_RUN)]
        if len(write_lossless(sample)) > _DEFLATED_MORE * limit * sample.size / array.size + 64:
            return None
    stream = encode_lossless(chunk)
    return stream if len(stream) <= limit else None


def encode_lossless(chunk: Prepared) -> bytes:
    """Encode without loss."""
    return write_stream(chunk.header, chunk.sections | {Section.LOSSLESS: write_lossless(chunk.array)})
