"""The codec for zarr format 3, and `open`, which creates an array of either format with it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin

from moec_zarr.adapters.chunking import choose_chunks
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.bitstream.container import MAX_RANK
from moec_zarr.codec.encode import check_dtype, decode, encode
from moec_zarr.errors import MoECError, UnsupportedArrayError
from moec_zarr.settings import Effort, Settings

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer, NDBuffer

__all__ = ["MoECSerializer", "check_array", "open"]


def check_array(shape: Sequence[int], dtype: DTypeLike) -> None:
    """Refuse, before an array is created, what could not be written to it.

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


@dataclass(frozen=True, init=False, repr=False)
class MoECSerializer(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """Store each chunk as the coded weights of a small neural network fitted to it.

    It is the ``serializer`` of an array of zarr format 3, with ``compressors=None``: only then can
    a part of a chunk be read without evaluating all of it. It takes the parameters of
    `MoECCodec`, its twin for zarr format 2.

    Attributes
    ----------
    settings : Settings
        The parameters, validated.

    Raises
    ------
    MoECError
        If a parameter is out of range, or not exactly one of `ratio` and `psnr` is given.
    """

    is_fixed_size = False
    codec_name = "moec_zarr.moec"
    settings: Settings

    def __init__(
        self,
        *,
        ratio: float | None = None,
        psnr: float | None = None,
        missing: float | None = None,
        effort: Effort = "balanced",
        experts: int | None = None,
        seed: int = 0,
    ) -> None:
        settings = Settings(
            ratio=ratio, psnr=psnr, missing=missing, effort=effort, experts=experts, seed=seed
        )
        object.__setattr__(self, "settings", settings)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.settings.to_dict().items())
        return f"{type(self).__name__}({arguments})"

    def to_dict(self) -> dict[str, Any]:
        """The codec's entry in zarr metadata: its name and all that differs from its default."""
        return {"name": self.codec_name, "configuration": self.settings.to_dict()}

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
                "configuration that holds at least ratio or psnr"
            )
        return cls(**vars(Settings.from_dict(configuration)))

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse, when an array is created, what could not be written to it.

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
        """Refuse what `validate` refuses, which zarr does not call inside shards."""
        check_array(array_spec.shape, array_spec.dtype.to_native_dtype())
        return self

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Not known before the fit.

        Raises
        ------
        NotImplementedError
            If it is called at all.
        """
        raise NotImplementedError("the size of a stream is known only after its fit")

    # zarr calls the methods that end in _sync from its own threads, where it has such a pipeline.

    def _encode_sync(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        stream = encode(chunk_data.as_numpy_array(), self.settings, fill_value=chunk_spec.fill_value)
        return chunk_spec.prototype.buffer.from_bytes(stream)

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec, selection: Any = None) -> NDBuffer:
        # np.asarray: a selection of one voxel comes as a scalar, which is no buffer.
        dtype = chunk_spec.dtype.to_native_dtype()
        array = np.asarray(decode(chunk_data.to_bytes(), selection, shape=chunk_spec.shape, dtype=dtype))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(array)

    def _decode_partial_sync(
        self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        stream = byte_getter.get_sync(prototype=chunk_spec.prototype)
        return None if stream is None else self._decode_sync(stream, chunk_spec, selection)

    # A fit and an evaluation take long: in a thread, so that they never hold up the event loop.

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    async def _decode_partial_single(
        self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        stream = await byte_getter.get(prototype=chunk_spec.prototype)
        if stream is None:  # never written: zarr fills in the fill value
            return None
        return await asyncio.to_thread(self._decode_sync, stream, chunk_spec, selection)


def open(  # noqa: A001  # the namesake of zarr.open
    store: Any,
    mode: Literal["r", "r+", "a", "w", "w-"] = "a",
    *,
    path: str | None = None,
    shape: Sequence[int] | int | None = None,
    chunks: Sequence[int] | int | None = None,
    dtype: DTypeLike | None = None,
    compressor: MoECCodec | None = None,
    zarr_format: Literal[2, 3] | None = None,
    storage_options: dict[str, Any] | None = None,
    config: Any = None,
    **kwargs: Any,
) -> zarr.Array[Any]:
    """Open an array, or create one that is compressed by `compressor`, in either zarr format.

    Parameters
    ----------
    store : StoreLike
        What ``zarr.open`` takes: a path, a URL, a mapping or a zarr store.
    mode : {"r", "r+", "a", "w", "w-"}
        "r" reads and "r+" also writes an existing array; "a" creates it where there is none; "w"
        replaces it; "w-" creates and never replaces.
    path : str, optional
        Path of the array within the store.
    shape : int or sequence of int, optional
        Shape of a new array, in voxels.
    chunks : int or sequence of int, optional
        Chunk shape of a new array, in voxels; `moec_zarr.adapters.chunking.choose_chunks` by default.
    dtype : dtype_like, optional
        Dtype of a new array.
    compressor : MoECCodec, optional
        The codec of a new array. In format 3 it becomes the serializer, and nothing follows it.
    zarr_format : {2, 3}, optional
        Format of a new array; by default zarr's own setting ``default_zarr_format``.
    storage_options : dict, optional
        Options of the fsspec backend of a URL.
    config : dict or ArrayConfig, optional
        Run-time configuration of the array, as in zarr.
    **kwargs
        Whatever else ``zarr.create_array`` takes, such as ``shards`` and ``fill_value``. It only
        serves to create: an existing array keeps what it has.

    Returns
    -------
    zarr.Array
        The array; reading and writing it is zarr's alone.

    Raises
    ------
    MoECError
        If `compressor` is no `MoECCodec`; if a shape, dtype, chunk shape or compressor is given
        that an existing array does not have; if one is missing for a new array; or if `store`
        holds a group.
    UnsupportedArrayError
        If no array of this dtype or rank can be encoded.
    FileNotFoundError
        If there is no array and `mode` creates none.
    """
    if compressor is not None and not isinstance(compressor, MoECCodec):
        raise MoECError(
            f"compressor must be a MoECCodec in either zarr format, got {compressor!r}; "
            "use zarr.open for other codecs"
        )
    shape = (shape,) if isinstance(shape, int) else shape and tuple(shape)
    if isinstance(chunks, int):
        chunks = (chunks,) * len(shape or ())
    if mode not in ("w", "w-"):
        try:
            # "r+" opens as "a" does, and leaves no empty group behind where there is nothing.
            array = zarr.open(
                store,
                mode="r+" if mode == "a" else mode,
                path=path,
                zarr_format=zarr_format,
                storage_options=storage_options,
            )
        except FileNotFoundError:
            if mode in ("r", "r+"):
                raise
        else:
            if isinstance(array, zarr.Group):
                raise MoECError("the store holds a group, not an array; give path=, or use zarr.open_group")
            _check_stored(
                array,
                shape=shape,
                chunks=chunks and tuple(chunks),
                dtype=dtype and np.dtype(dtype),
                compressor=compressor,
            )
            return array if config is None else array.with_config(config)
    if shape is None or dtype is None or compressor is None:
        raise MoECError(
            "to create an array, give shape=, dtype= and compressor=, such as "
            f"compressor=MoECCodec(ratio=1000); got {shape=}, {dtype=}, {compressor=}"
        )
    check_array(shape, dtype)
    shards = kwargs.get("shards")
    if chunks is None and isinstance(shards, Sequence):
        # An array of two shards along each axis: then a chunk divides a shard along each of them.
        chunks = choose_chunks([2 * extent for extent in shards], dtype, compressor.settings, align=shards)
    elif chunks is None:
        chunks = choose_chunks(shape, dtype, compressor.settings)
    zarr_format = zarr_format or zarr.config.get("default_zarr_format")
    codecs: dict[str, Any] = (
        {"compressors": compressor}
        if zarr_format == 2
        else {"serializer": MoECSerializer(**vars(compressor.settings)), "compressors": None}
    )
    return zarr.create_array(
        store,
        name=path,
        shape=shape,
        chunks=tuple(chunks),
        dtype=dtype,
        zarr_format=zarr_format,
        storage_options=storage_options,
        config=config,
        overwrite=mode == "w",
        **codecs,
        **kwargs,
    )


def _check_stored(array: zarr.Array[Any], **asked: Any) -> None:
    """Refuse whatever was `asked` for and contradicts `array`."""
    for name, value in asked.items():
        if value is None:
            continue
        stored = _compressor(array) if name == "compressor" else getattr(array, name)
        if value != stored:
            raise MoECError(
                f"the array exists with {name} {stored!r}, got {value!r}; leave {name}= out to open it as "
                'it is, or give mode="w" to replace it'
            )


def _compressor(array: zarr.Array[Any]) -> MoECCodec | None:
    """The `MoECCodec` that an array is stored with, in either format, inside shards or not."""
    codecs = array.compressors if array.metadata.zarr_format == 2 else array.metadata.codecs
    for codec in codecs:
        for inner in getattr(codec, "codecs", [codec]):  # a sharding codec holds those of its chunks
            if isinstance(inner, MoECCodec):
                return inner
            if isinstance(inner, MoECSerializer):
                return MoECCodec(**vars(inner.settings))
    return None
