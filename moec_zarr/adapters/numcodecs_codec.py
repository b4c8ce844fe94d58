"""The codec for zarr format 2 and for every other user of numcodecs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numcodecs.abc import Codec  # type: ignore[import-untyped]
from numcodecs.compat import (  # type: ignore[import-untyped]
    ensure_bytes,
    ensure_ndarray,
    ndarray_copy,
)
from numpy.typing import NDArray

from moec_zarr.bitstream.container import read_stream
from moec_zarr.bitstream.stream import check_size
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.errors import MoECError, UnsupportedArrayError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from moec_zarr.adapters.zarr_codec import MoECSerializer

__all__ = ["MoECCodec"]


def _is_untyped(buf: Any) -> bool:
    """Whether a buffer is a mere run of bytes."""
    try:
        view = memoryview(buf)
    except TypeError:  # no buffer at all
        return False
    return view.ndim == 1 and view.format in ("B", "b", "c")


@dataclass(frozen=True, kw_only=True, repr=False)
class MoECCodec(Settings, Codec):  # type: ignore[misc]  # numcodecs is not typed
    """Lossy codec for scientific arrays: a transform, a mixture-of-experts network, or both, per chunk.

    In zarr format 2 it is the compressor of an array. Use no filter before it: one that flattens the
    chunk hides which voxels are neighbours. In zarr format 3 use `serializer`, or `moec_zarr.open`,
    which does so itself.

    Parameters
    ----------
    ratio : float, optional
        Bytes of a chunk divided by bytes of its stream, at least; from 1 to 1e9. Give exactly one of
        `ratio`, `psnr` and a bound: `max_error`, `max_relative_error`, or both.
    psnr : float, optional
        Peak signal-to-noise ratio of a decoded chunk in dB, at least; from 0 to 400. The peak is the
        range of the chunk's valid values.
    max_error : float, optional
        Largest absolute error of any valid value of a decoded chunk, in units of the data. Every
        decoder that follows the format keeps it, for whole chunks and parts of them. 0 is lossless.
    max_relative_error : float, optional
        Largest error of any valid value over its magnitude, below 1: ``|y - x| <= r |x|``. So zeros stay
        zeros, and signs stay. With `max_error` beside it a value may be off by the larger of the two,
        ``|y - x| <= max(a, r |x|)``: magnitudes up to `max_error` may become zero. Kept as `max_error` is.
    scale : {"linear", "log"}
        What `ratio` minimises and `psnr` measures: errors of the values, or of the logarithms of their
        magnitudes, which are relative errors. The peak of the PSNR is then the range of the logarithms;
        zeros and signs are kept exactly.
    exact : number or sequence of numbers, optional
        Up to four values, such as 0, that are kept exactly wherever they stand, whatever it costs. Without
        it a value that occurs often may be kept so, where the rest is closer or smaller for it.
    missing : int or float, optional
        A value that marks missing data. It is kept exactly, and does not take part in the fit. NaN
        and infinities are always treated so.
    effort : {"balanced", "fast", "best"}
        How long a fit may take. "fast" fits a transform only, where the chunk can have one, and needs
        no torch. "balanced" also fits networks where short fits promise a gain. "best" fits all that
        "balanced" does, then more and longer.
    model : {"auto", "transform", "network"}
        What may be fitted. "auto" keeps whichever has the smallest error: a transform, a network, or
        a transform that a network corrects. "network" is the mixture of experts alone.
    experts : int, optional
        Number of experts of a network, from 1 to 256. If given, a network is fitted at any effort. By
        default the encoder derives it from the bytes that are available.
    seed : int
        Seed of everything random in a fit.
    dictionary : str, optional
        What the chunks of a variable share, as `train_dictionary` makes it: text in base64 of at most
        64 KiB. Streams that take entries of it are read with it alone.

    Raises
    ------
    MoECError
        If a parameter is out of range, or not exactly one target is given.
    """

    codec_id = "moec"

    def encode(self, buf: Any) -> bytes:
        """Compress an array.

        Parameters
        ----------
        buf : array_like
            Array of integers or floats with at most 5 axes, in any memory order and byte order. It is
            not changed.

        Returns
        -------
        bytes
            The stream. It decodes by itself, without these settings; but for a dictionary, which it names.

        Raises
        ------
        UnsupportedArrayError
            If `buf` has no shape and dtype (bytes and other untyped buffers), or if its dtype, rank or
            values cannot be encoded.
        MoECError
            If `buf` has more bytes than `largest` in `moec_zarr.config`, which a reader would refuse.
        BudgetError
            If the target cannot be met.
        """
        if not hasattr(buf, "dtype") and _is_untyped(buf):
            raise UnsupportedArrayError(
                f"got {type(buf).__name__}, which has no shape and no dtype; pass the array itself, "
                "and in zarr let no filter come before this codec"
            )
        array = ensure_ndarray(buf)
        check_size(array.shape, array.dtype)
        return encode(array, self)

    def decode(self, buf: Any, out: Any = None) -> NDArray[Any]:
        """Decompress a stream.

        Parameters
        ----------
        buf : bytes_like
            A stream as `encode` returns it.
        out : array_like, optional
            Where to write the values: a writable array of the encoded shape and dtype, or a flat
            buffer of as many bytes.

        Returns
        -------
        ndarray
            `out` if given. Otherwise a new array with the shape, dtype, byte order and memory order
            that were encoded.

        Raises
        ------
        CorruptStreamError
            If `buf` is not a complete, undamaged stream.
        DictionaryError
            If it takes entries of another dictionary than the codec has.
        UnsupportedVersionError
            If a newer version of this package wrote it.
        MoECError
            If `out` is read-only or does not match what was encoded (checked before decoding), or if there
            is no `out` and the stream declares more bytes than `largest` in `moec_zarr.config`.
        """
        data = ensure_bytes(buf)
        if out is None:
            return decode(data, dictionary=self.shared)
        target = ensure_ndarray(out)
        if not target.flags.writeable:
            raise MoECError("out is read-only; pass a writable array, or no out")
        header, _ = read_stream(data)
        is_alike = (target.shape, target.dtype) == (header.shape, header.dtype)
        nbytes = math.prod(header.shape) * header.dtype.itemsize
        if not is_alike and (target.ndim != 1 or target.itemsize != 1 or target.nbytes != nbytes):
            raise MoECError(
                f"out has shape {target.shape} and dtype {target.dtype}, but the stream holds "
                f"{header.shape} and {header.dtype}; pass an array like that, or no out"
            )
        array = decode(data, shape=header.shape, dictionary=self.shared)
        if is_alike:
            np.copyto(target, array)
        else:
            ndarray_copy(array, target)
        return out  # type: ignore[no-any-return]

    def get_config(self) -> dict[str, Any]:
        """Return the codec's entry in zarr metadata: ``id``, and the parameters that are no defaults."""
        return {"id": self.codec_id, **self.configuration()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create the codec from what `get_config` returns, with or without ``id``.

        Raises
        ------
        MoECError
            If `config` has a key that this version does not know, or a value out of range.
        """
        return cls.from_configuration({key: value for key, value in config.items() if key != "id"})

    def serializer(self) -> MoECSerializer:
        """Return the same codec for zarr format 3: ``serializer=codec.serializer(), compressors=None``."""
        from moec_zarr.adapters.zarr_codec import MoECSerializer

        return MoECSerializer.from_configuration(self.configuration())
