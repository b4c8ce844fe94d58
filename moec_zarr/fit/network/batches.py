"""Random points of several chunks of one shape, drawn on the device that trains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from moec_zarr.fit.field import Field
from moec_zarr.model.features import NEAR_AND_FAR, feature_count, feature_scales

__all__ = ["DRAWN", "Batch", "Batches"]

DRAWN = 16  # batches drawn at a time


class Batch(NamedTuple):
    """Points of some chunks.

    Attributes
    ----------
    u : float32 tensor, shape (chunks or 1, points, axes)
        Coordinates in [-1, 1]; of all chunks alike where there is one row.
    features : float32 tensor, shape (chunks, points, features), or None
    targets : float32 tensor, shape (chunks, points)
    """

    u: torch.Tensor
    features: torch.Tensor | None
    targets: torch.Tensor


class Batches:
    """An endless supply of batches of some of several chunks.

    Chunks go to the device once, in their own dtype. The points are those of the seed, whatever other
    chunks there are: of chunks without invalid voxels they are the same, of others they are drawn from
    the valid ones by the same random numbers.

    Parameters
    ----------
    fields : sequence of Field
        Of one shape and dtype, all with a transform or all without.
    batch : int
        Points of a batch.
    seed : int
    device : torch.device
    """

    def __init__(self, fields: Sequence[Field], batch: int, seed: int, device: torch.device) -> None:
        self._batch, self._device = batch, device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._shape = fields[0].array.shape
        self._voxels = math.prod(self._shape)
        self._last = torch.tensor(self._shape, device=device) - 1
        self._values = _Values(fields, device)
        self._valid = _Valid(fields, device) if any(field.valid is not None for field in fields) else None
        self._base = _Base(fields, device) if fields[0].base is not None else None
        self._chunks = torch.arange(len(fields), device=device)
        self._left: list[Batch] = []

    def of(self, chunks: Sequence[int]) -> None:
        """Draw batches of these chunks from now on."""
        self._chunks = torch.tensor(chunks, device=self._device)
        self._left = []

    def __call__(self) -> Batch:
        """Return the next batch."""
        if not self._left:
            points = self._draw(self._batch * DRAWN)
            parts = [None if part is None else part.split(self._batch, dim=1) for part in points]
            u, features, targets = (part or [None] * DRAWN for part in parts)
            self._left = [Batch(*each) for each in zip(u, features, targets, strict=True)]
        return self._left.pop()

    def _draw(self, count: int) -> Batch:
        random = torch.rand(1, count, generator=self._generator, device=self._device, dtype=torch.float64)
        if self._valid is None:
            index = (random * self._voxels).long()
        else:
            index = self._valid.at(random, self._chunks)
        axes, rest = [], index
        for length in reversed(self._shape):
            axes.append(rest % length)
            rest = rest // length
        places = torch.stack(axes[::-1], dim=-1)
        u = (2.0 * places.double() / self._last - 1.0).float()
        # Chunks lie one after the other.
        where = index + self._voxels * self._chunks[:, None]
        targets = self._values.at(where, self._chunks)
        if self._base is None:
            return Batch(u, None, targets.float())
        here, features = self._base.at(where, places, self._shape, self._chunks)
        return Batch(u, features, (targets - self._values.octaves[self._chunks] * here).float())


class _Values:
    """Chunks on the device, and what normalises their values."""

    def __init__(self, fields: Sequence[Field], device: torch.device) -> None:
        dtype = fields[0].array.dtype.newbyteorder("=")
        # torch computes little with unsigned integers: their bits go as signed ones.
        self._bits = 8 * dtype.itemsize if dtype.kind == "u" and dtype.itemsize < 8 else 0
        plain = np.dtype(f"i{dtype.itemsize}") if dtype.kind == "u" else dtype
        self._flat = _flat([field.array.astype(dtype, copy=False).view(plain) for field in fields], device)
        normalisations = [field.normalisation for field in fields]
        self._whole = isinstance(normalisations[0].centre, int)
        # As signed 64-bit integers they are subtracted modulo 2^64.
        centres = [
            (int(n.centre) + 2**63) % 2**64 - 2**63 if self._whole else n.centre for n in normalisations
        ]
        exact = torch.int64 if self._whole else torch.float64
        self._centre = torch.tensor(centres, dtype=exact, device=device)[:, None]
        scales = [n.scale * 2.0**-n.shift for n in normalisations]
        self._scale = torch.tensor(scales, dtype=torch.float64, device=device)[:, None]
        self.octaves = torch.tensor([2.0**n.shift for n in normalisations], device=device).double()[:, None]

    def at(self, where: torch.Tensor, chunks: torch.Tensor) -> torch.Tensor:
        """Normalised values, float64; see :meth:`Normalisation.normalise`."""
        values = self._flat[where]
        if self._bits:
            values = values.long() & (2**self._bits - 1)
        if not self._whole:
            values = values.double()
        return (values - self._centre[chunks]).double() / self._scale[chunks]


class _Valid:
    """Valid voxels of each chunk, one after the other."""

    def __init__(self, fields: Sequence[Field], device: torch.device) -> None:
        lists = [
            np.arange(field.array.size) if field.valid is None else np.flatnonzero(field.valid)
            for field in fields
        ]
        counts = torch.tensor([len(each) for each in lists])
        starts = counts.cumsum(0) - counts
        self._index = torch.from_numpy(np.concatenate(lists).astype(np.int32)).to(device)
        self._counts, self._starts = counts.to(device)[:, None], starts.to(device)[:, None]

    def at(self, random: torch.Tensor, chunks: torch.Tensor) -> torch.Tensor:
        """Return the voxels that random numbers in [0, 1) stand for, in chunks each."""
        place = (random * self._counts[chunks]).long() + self._starts[chunks]
        return self._index[place].long()


class _Base:
    """The transforms that networks read and correct."""

    def __init__(self, fields: Sequence[Field], device: torch.device) -> None:
        self._flat = _flat([field.base for field in fields if field.base is not None], device)
        stencils = [field.stencils for field in fields]
        distances = np.array([[stencil.distance for stencil in each] for each in stencils])
        norms = np.array([field.norm for field in fields])
        scales = np.array(
            [
                [feature_scales(stencil, norm) for stencil in each]
                for each, norm in zip(stencils, norms, strict=True)
            ]
        )
        self._offsets = torch.from_numpy(distances[:, :, None] * NEAR_AND_FAR).to(device)
        self._scales = torch.from_numpy(scales).to(device)
        self._norms = torch.from_numpy(norms.astype(np.float32)).to(device)[:, None]

    def at(
        self, where: torch.Tensor, places: torch.Tensor, shape: tuple[int, ...], chunks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the transform at points, and their features; see :mod:`moec_zarr.model.features`."""
        here = self._flat[where]
        features = here.new_empty(*here.shape, feature_count(len(shape)))
        features[..., 0] = here / self._norms[chunks]
        stride = math.prod(shape)
        for axis, length in enumerate(shape):
            stride //= length
            place = places[..., axis, None]
            moved = (place + self._offsets[chunks, axis][:, None]).clamp(0, length - 1) - place
            difference = self._flat[where[..., None] + stride * moved] - here[..., None]
            first = feature_count(axis)
            scale = self._scales[chunks, axis][:, None]
            torch.mul(difference, scale, out=features[..., first : first + len(NEAR_AND_FAR)])
        return here, features


def _flat(arrays: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    """Arrays of one shape on the device, one after the other."""
    if len(arrays) == 1 and device.type == "cpu":  # as they are, where they can be
        array = np.ascontiguousarray(arrays[0]).reshape(-1)
        if array.flags.writeable:
            return torch.from_numpy(array)
    first = arrays[0]
    kind = torch.from_numpy(np.empty(0, first.dtype)).dtype
    flat = torch.empty(len(arrays), first.size, dtype=kind, device=device)
    for row, array in zip(flat, arrays, strict=True):
        row.copy_(torch.from_numpy(np.array(array, order="C").reshape(-1)))
    return flat.reshape(-1)
