"""What a stream holds, without decoding it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from moec_zarr.bitstream.container import VERSION
from moec_zarr.codec.encode import Stream, open_stream
from moec_zarr.model.network import expert_load

__all__ = ["StreamInfo", "inspect"]

Kind = Literal["model", "latents", "both", "constant", "lossless"]


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """What a stream says of itself, without decoding it.

    Attributes
    ----------
    shape, dtype, order : tuple of int, numpy.dtype, {"C", "F"}
        Of the array encoded.
    version : int
        Of the format.
    nbytes, stream_bytes : int
        Of the array and of its stream.
    ratio : float
        The first over the second.
    psnr : float
        dB at data-range peak over the valid values, as measured on encoding; inf where exact.
    max_error : float
        Largest absolute error of a valid value, as measured on encoding, rounded up.
    kind : {"model", "latents", "both", "constant", "lossless"}
        How the valid values are stored; both: latents that a network corrects.
    sections : dict of str to int
        Bytes of the header and of each section's payload.
    weights, experts : int
        Of the network; 0 where there is none.
    coefficients : int
        Latents that are not zero.
    load : tuple of float
        Share of the voxels that each expert evaluates.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    version: int
    nbytes: int
    stream_bytes: int
    ratio: float
    psnr: float
    max_error: float
    kind: Kind
    sections: dict[str, int]
    weights: int
    experts: int
    coefficients: int
    load: tuple[float, ...]


def _kind(parts: Stream) -> Kind:
    if parts.values is not None:
        return "lossless"
    if parts.model is not None:
        return "model" if parts.latents is None else "both"
    return "constant" if parts.latents is None else "latents"


def inspect(stream: Any) -> StreamInfo:
    """What a stream of :class:`moec_zarr.MoECCodec` or a chunk of its stores holds.

    Parameters
    ----------
    stream : bytes-like
        A whole stream, for example a chunk's file.

    Raises
    ------
    CorruptStreamError, UnsupportedVersionError
        If it cannot be read.
    """
    data = bytes(stream)
    parts = open_stream(data)
    header, model = parts.header, parts.model
    nbytes = math.prod(header.shape) * header.dtype.itemsize
    return StreamInfo(
        shape=header.shape,
        dtype=header.dtype,
        order=header.order,
        version=VERSION,
        nbytes=nbytes,
        stream_bytes=len(data),
        ratio=nbytes / len(data),
        psnr=header.psnr,
        max_error=header.max_error * (float(header.high) - float(header.low)),
        kind=_kind(parts),
        sections=parts.sections,
        weights=model.architecture.weights if model else 0,
        experts=model.architecture.experts if model else 0,
        coefficients=0 if parts.latents is None else int(np.count_nonzero(parts.latents.integers)),
        load=tuple(expert_load(model, [n for n in parts.shape if n > 1]).tolist()) if model else (),
    )
