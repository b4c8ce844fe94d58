"""The codec for zarr format 3."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin

from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import MAX_RANK
from moec_zarr.codec.decode import decode, decode_group
from moec_zarr.codec.encode import encode
from moec_zarr.codec.prepare import check_dtype
from moec_zarr.errors import MoECError, UnsupportedArrayError
from moec_zarr.runtime import fitting_threads
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, NDBuffer

    from moec_zarr.adapters.zarr_core import ArraySpec

__all__ = ["MoECSerializer", "check_array"]


def check_array(shape: Sequence[int], dtype: DTypeLike) -> None:
    """Check, before an array is created, that it can be written.

    Raises
    ------
    UnsupportedArrayError
        If no array of this dtype or rank can be encoded.
    """
    check_dtype(dtype)
    if len(shape) > MAX_RANK:
        raise UnsupportedArrayError(
            f"got {len(shape)} axes, at most {MAX_RANK} can be modelled; merge the slowest axes, or store "
            "one array for each step along them"
        )


def _check_chunk(array: Array, spec: ArraySpec) -> None:
    """Check that a chunk is what the array declares, hence what a reader expects.

    Raises
    ------
    UnsupportedArrayError
        If a filter before the codec gave it another shape or dtype.
    """
    dtype = spec.dtype.to_native_dtype()
    if array.shape != spec.shape or array.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise UnsupportedArrayError(
            f"got a chunk of shape {array.shape} and dtype {array.dtype}, but readers expect shape "
            f"{spec.shape} and dtype {dtype}: a filter before the codec changed it. Create the array "
            "without filters=; instead of rounding or scaling give the codec max_error= or psnr="
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class MoECSerializer(Settings, ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """The codec for zarr format 3, with the parameters of `MoECCodec`, which is the one for format 2.

    Pass it as the ``serializer`` of an array, together with ``compressors=None``. Only then can a part
    of a chunk be read without decoding the whole chunk.

    Raises
    ------
    MoECError
        If a parameter is out of range, or not exactly one target is given.
    """

    is_fixed_size = False
    codec_name = "moec_zarr.moec"

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's entry in zarr metadata: its name, and the parameters that are no defaults."""
        return {"name": self.codec_name, "configuration": self.configuration()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Create the codec from its entry in zarr metadata.

        Raises
        ------
        MoECError
            If the entry has no configuration, another codec's name, a key that this version does
            not know, or a value out of range.
        """
        configuration = data.get("configuration")
        if data.get("name") != cls.codec_name or not isinstance(configuration, Mapping):
            raise MoECError(
                f"got {dict(data)!r} as a codec's metadata; expected the name {cls.codec_name!r} and a "
                "configuration that holds ratio, psnr, max_error or max_relative_error"
            )
        return cls.from_configuration(configuration)

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Check, when an array is created, that it can be written.

        Parameters
        ----------
        shape : tuple of int
            Shape of the array.
        dtype : zarr data type
            Data type of the array.
        chunk_grid : zarr chunk grid
            Not used: a chunk of any shape can be encoded.

        Raises
        ------
        UnsupportedArrayError
            If no array of this dtype or rank can be encoded.
        """
        check_array(shape, dtype.to_native_dtype())

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """Check what `validate` checks; inside shards zarr does not call that."""
        check_array(array_spec.shape, array_spec.dtype.to_native_dtype())
        return self

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Raise: the size is known only after the fit.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("the size of a stream is known only after its fit")

    # zarr calls the methods that end in _sync from its own threads, where it has such a pipeline.

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        array = chunk_data.as_numpy_array()
        _check_chunk(array, chunk_spec)
        stream = encode(array, self, fill_value=chunk_spec.fill_value)
        return chunk_spec.prototype.buffer.from_bytes(stream)

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec, selection: Any = None) -> NDBuffer:
        # np.asarray: a selection of one voxel comes as a scalar, which is no buffer.
        dtype = chunk_spec.dtype.to_native_dtype()
        array = decode(
            chunk_data.to_bytes(), selection, shape=chunk_spec.shape, dtype=dtype, dictionary=self.shared
        )
        array = np.asarray(array)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(array)

    def _decode_partial_sync(
        self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        stream = byte_getter.get_sync(prototype=chunk_spec.prototype)
        return None if stream is None else self._decode_sync(stream, chunk_spec, selection)

    # A fit and an evaluation take long: in a thread, so that they never hold up the event loop.

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        # The threads of a group wait for each other: zarr's own may be fewer.
        threads, loop = fitting_threads(math.prod(chunk_spec.shape)), asyncio.get_running_loop()
        return await loop.run_in_executor(threads, self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def decode_partial(
        self, batch_info: Iterable[tuple[Any, Any, ArraySpec]]
    ) -> Iterable[NDBuffer | None]:
        """Decode parts of several chunks at once, as many as zarr hands over: ``codec_pipeline.batch_size``.

        Parameters
        ----------
        batch_info : iterable of tuple
            For each chunk what reads its bytes, the selection, and the spec of the chunk.

        Returns
        -------
        iterable of buffer or None
            None where a chunk was never written.
        """
        batch = list(batch_info)
        if len({spec.shape for _, _, spec in batch}) != 1 or len(batch) == 1:
            return await super().decode_partial(batch)
        buffers = await asyncio.gather(*(getter.get(prototype=spec.prototype) for getter, _, spec in batch))
        return await asyncio.to_thread(self._decode_parts, buffers, batch)

    def _decode_parts(
        self, buffers: Sequence[Buffer | None], batch: Sequence[tuple[Any, Any, ArraySpec]]
    ) -> list[NDBuffer | None]:
        spec = batch[0][2]
        there = [buffer is not None for buffer in buffers]
        arrays = iter(
            decode_group(
                [buffer.to_bytes() for buffer in buffers if buffer is not None],
                [selection for (_, selection, _), has_bytes in zip(batch, there, strict=True) if has_bytes],
                shape=spec.shape,
                dtype=spec.dtype.to_native_dtype(),
                dictionary=self.shared,
            )
        )
        from_numpy = spec.prototype.nd_buffer.from_numpy_array
        return [from_numpy(np.asarray(next(arrays))) if has_bytes else None for has_bytes in there]

    async def _decode_partial_single(
        self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        stream = await byte_getter.get(prototype=chunk_spec.prototype)
        if stream is None:  # never written: zarr fills in the fill value
            return None
        return await asyncio.to_thread(self._decode_sync, stream, chunk_spec, selection)
