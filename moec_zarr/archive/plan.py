"""What a store is to hold, variable by variable, and in which chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.pyramid import Method
from moec_zarr.adapters.training import HELD_OUT
from moec_zarr.adapters.xarray_encoding import codec_entry
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.settings import Effort, Settings

__all__ = ["Plan", "PlannedVariable", "Rebuilt"]

# The cost model, on one core. A transform takes some seconds a chunk, whatever its size, and so many a
# million voxels, by ratio (between them, interpolated in the ratio's logarithm); a network so many seconds
# in a chunk of 2 million voxels, fewer in smaller ones. A PSNR takes a transform two and a half times as
# long as a ratio, and a network three fits; a bound is taken for one of some thousandths of the range.
# Checking a chunk decodes it. Reading is not counted, nor that a GPU is faster: the first tasks tell more.
# To train a dictionary, each of some chunks is fitted by itself and then with the bases of each other; it
# is tried on others, which are fitted with and without it.
_CHUNK_SECONDS = 0.035
_TRANSFORM_SECONDS = {5.0: 1.2, 10.0: 0.55, 100.0: 0.22, 1000.0: 0.14}
_PSNR_AS_RATIO = 100.0
_PSNR_SECONDS = 2.5  # times those of that ratio
_BOUND_SECONDS = 0.8
_NETWORK_SECONDS: dict[Effort, float] = {"fast": 20.0, "balanced": 75.0, "best": 400.0}
_PROBE_SECONDS = 0.8  # of a network that tells whether others are worth a fit: most often none is
_NETWORK_VOXELS = 2_000_000
_DECODED = 20_000_000  # voxels per second
_FITS_FOR_PSNR = 3
_GIVEN_BASES = 0.5  # of the time of a transform whose bases are searched for


def _seconds_per_chunk(settings: Settings, voxels: int) -> tuple[float, float]:
    """Time of a chunk on one core, by the cost model: of a transform, and of all else."""
    ratios = np.log(list(_TRANSFORM_SECONDS))
    seconds = list(_TRANSFORM_SECONDS.values())
    each = float(np.interp(math.log(settings.ratio or _PSNR_AS_RATIO), ratios, seconds))
    if settings.psnr is not None:
        each *= _PSNR_SECONDS
    elif settings.is_bounded:
        each = _BOUND_SECONDS
    transform = _CHUNK_SECONDS + each * voxels / 1e6
    network = 0.0
    if settings.has_networks:
        size = voxels / _NETWORK_VOXELS
        network = _NETWORK_SECONDS[settings.effort] * max(size**0.4, size)
        network *= 1 if settings.psnr is None else _FITS_FOR_PSNR
        if settings.effort == "balanced" and settings.model == "auto" and settings.experts is None:
            network = _PROBE_SECONDS * max(size**0.4, size)
    return transform, network + voxels / _DECODED


Index = tuple[int, ...]


class Rebuilt(NamedTuple):
    """How a level of an image is made again.

    Attributes
    ----------
    finest : str
        Name of the level that it is made of, as that is decoded.
    method : {"mean", "nearest"}
        How a voxel is made of a block.
    """

    finest: str
    method: Method


@dataclass(frozen=True, kw_only=True)
class PlannedVariable:
    """What will be done with one variable.

    Attributes
    ----------
    name : str
        Its name.
    dims : tuple of str
        Its dimensions.
    shape : tuple of int
        Its shape, in voxels.
    dtype : numpy.dtype
        The dtype of its values in the source, once unpacked.
    codec : MoECCodec or None
        Its codec; None if it stays lossless.
    reason : str
        Why it stays lossless; empty if it is compressed.
    chunks : tuple of int or None
        Shape of its chunks, in voxels; None if it is written whole, together with the metadata.
    shards : tuple of int or None
        Shape of its shards, in voxels; None if it has none.
    encoding : dict
        The encoding with which xarray creates it.
    rebuilt : Rebuilt or None
        How its values are made, where they are not those of the source.
    training : int
        Number of chunks on which a dictionary is trained before the work begins; 0 where none is.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: MoECCodec | None
    reason: str
    chunks: tuple[int, ...] | None
    shards: tuple[int, ...] | None
    encoding: dict[str, Any]
    rebuilt: Rebuilt | None = None
    training: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes before compression; those of text are not known."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def block(self) -> tuple[int, ...] | None:
        """Shape of what one task writes: a shard, or a chunk where there are no shards."""
        return self.shards or self.chunks

    @property
    def grid(self) -> ChunkGrid:
        """The blocks that tasks write, one each; a variable without tasks is one block."""
        return ChunkGrid(self.shape, self.block or self.shape)

    @property
    def tasks(self) -> int:
        """Number of tasks: one for each chunk, or shard."""
        return 0 if self.block is None else len(self.grid)

    @property
    def stored_bytes(self) -> int | None:
        """Bytes at most, of streams and of the shards' indexes; None where no ratio sets them."""
        if self.codec is None or self.codec.ratio is None or self.chunks is None:
            return None
        chunks = len(ChunkGrid(self.shape, self.chunks))
        streams = int(chunks * math.prod(self.chunks) * self.dtype.itemsize / self.codec.ratio)
        return streams + self.index_bytes

    @property
    def index_bytes(self) -> int:
        """Bytes of the shards' indexes, beyond the ratio: 16 for each chunk, and a checksum of 4."""
        if self.shards is None or self.chunks is None:
            return 0
        return self.tasks * (16 * math.prod(self.shards) // math.prod(self.chunks) + 4)

    @property
    def seconds(self) -> float:
        """Time of all tasks on one core, by the cost model; that of lossless variables is not counted."""
        if self.codec is None or self.chunks is None:
            return 0.0
        chunks = len(ChunkGrid(self.shape, self.chunks))
        return chunks * sum(_seconds_per_chunk(self.codec, math.prod(self.chunks)))

    @property
    def training_seconds(self) -> float:
        """Time of the training on one core, by the cost model."""
        if self.codec is None or self.chunks is None or not self.training:
            return 0.0
        transform, rest = _seconds_per_chunk(self.codec, math.prod(self.chunks))
        tried = 2 * HELD_OUT * (transform + rest)
        return self.training * (transform + rest + self.training * _GIVEN_BASES * transform) + tried

    @property
    def dictionary_bytes(self) -> int:
        """Bytes of the codec's dictionary; 0 without one."""
        return 0 if self.codec is None else self.codec.dictionary_bytes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a conversion will do.

    Attributes
    ----------
    variables : tuple of PlannedVariable
        All variables of the source, coordinates included, in its order.
    zarr_format : {2, 3}
        Format of the destination.
    consolidated : bool
        Whether it has consolidated metadata.
    """

    variables: tuple[PlannedVariable, ...]
    zarr_format: Literal[2, 3]
    consolidated: bool = True

    @property
    def compressed(self) -> tuple[PlannedVariable, ...]:
        """The variables that are compressed."""
        return tuple(variable for variable in self.variables if variable.codec is not None)

    @property
    def has_networks(self) -> bool:
        """Whether workers may have to fit networks, which takes torch."""
        return any(each.codec.has_networks for each in self.compressed if each.codec is not None)

    def phases(self, wanted: Mapping[str, Sequence[Index]]) -> Iterator[dict[str, Sequence[Index]]]:
        """Give those of some tasks that can be done side by side, then those that need what these made."""
        for rebuilt in (False, True):
            names = [each.name for each in self.variables if (each.rebuilt is not None) == rebuilt]
            part = {name: wanted[name] for name in names if wanted.get(name)}
            if part:
                yield part

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return sum(variable.tasks for variable in self.variables)

    def with_codecs(self, codecs: Mapping[str, MoECCodec]) -> Plan:
        """Return the plan with other codecs for some variables, after which nothing is left to be trained."""
        return replace(
            self,
            variables=tuple(
                replace(
                    each,
                    training=0,
                    codec=codecs[each.name],
                    encoding=each.encoding | codec_entry(codecs[each.name], self.zarr_format),
                )
                if each.name in codecs
                else replace(each, training=0)
                for each in self.variables
            ),
        )

    @property
    def read_bytes(self) -> int:
        """Bytes to read, as values in memory."""
        return sum(variable.nbytes for variable in self.variables)

    @property
    def seconds(self) -> float:
        """Time of all tasks on one core, by the cost model."""
        return sum(variable.seconds for variable in self.variables)

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides what is stored, in plain JSON types."""
        return ({} if self.consolidated else {"consolidated": False}) | {
            "zarr_format": self.zarr_format,
            "variables": {
                each.name: {
                    "dims": list(each.dims),
                    "shape": list(each.shape),
                    "dtype": each.dtype.str,
                    "chunks": each.chunks and list(each.chunks),
                    "shards": each.shards and list(each.shards),
                    "codec": each.codec and each.codec.configuration(),
                    **({} if each.rebuilt is None else {"rebuilt": each.rebuilt._asdict()}),
                }
                for each in self.variables
            },
        }
