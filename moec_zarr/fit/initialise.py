"""What the data say before the fit: samples of a field, its frequencies, its partition."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.fft import dctn

from moec_zarr.model import network
from moec_zarr.model.features import LARGEST_LOOK, Look, beside, readings

__all__ = [
    "Field",
    "activity_points",
    "architecture_for",
    "axis_frequencies",
    "draw_waves",
    "gate",
    "initial_weights",
    "looks_along",
    "power_spectrum",
]

_BITS = 6.8  # of a weight, on average
_ENCODER = 1.4  # width of the encoder over the experts'
_CORRECTING = 0.5  # the same where they correct latents
_PROBES = 1 << 17  # voxels at which frequencies are measured
_SPECTRUM = 1 << 21  # voxels that the spectrum is taken of
_WIDEST = 25_000  # weights that evaluate a point, about: more of them are shared out to experts
_MOST_EXPERTS = 1024
_POINTS = 6000  # points that the partition is clustered from
_SHARPNESS = 20.0  # of the softmax over the experts, per squared scaled coordinate


@dataclass(frozen=True)
class Field:
    """A chunk as the fit sees it: valid voxels, affinely mapped, on the axes longer than one.

    Attributes
    ----------
    array : array of any supported dtype, shape of the grid
        Read at the sampled voxels only, in its own dtype.
    valid : bool array of the same shape, or None
        Which voxels are fitted; all of them where None.
    middle, scale : float
        The fit's target is ``(array - middle) / scale``, less what latents add up to.
    base : float32 array of the same shape, or None
        What they add up to, in units of `unit`.
    unit : float
        Of `base`, over `scale`.
    looks : tuple of Look
        How the network looks along each axis of them; none where there are none.
    norm : float
        Root mean square of `base`.
    """

    array: NDArray[Any]
    valid: NDArray[np.bool_] | None
    middle: float
    scale: float
    base: NDArray[np.float32] | None = None
    unit: float = 1.0
    looks: tuple[Look, ...] = ()
    norm: float = 1.0

    def draw(self, count: int, generator: torch.Generator) -> tuple[NDArray[np.int64], ...]:
        """Indices of `count` valid voxels, uniformly and independently drawn, one array an axis."""
        if self.valid is None:
            return self._draw(count, generator)
        parts, found = [], 0
        while found < count:
            index = self._draw(count, generator)
            keep = self.valid[index]
            parts.append([i[keep] for i in index])
            found += int(keep.sum())
        return tuple(np.concatenate(columns)[:count] for columns in zip(*parts, strict=True))

    def _draw(self, count: int, generator: torch.Generator) -> tuple[NDArray[np.int64], ...]:
        return tuple(torch.randint(n, (count,), generator=generator).numpy() for n in self.array.shape)

    def targets(self, where: Any) -> NDArray[np.float32]:
        """The fit's targets at an index as NumPy takes them."""
        values: NDArray[np.float64] = (self.array[where].astype(np.float64) - self.middle) / self.scale
        if self.base is not None:
            values -= self.unit * self.base[where].astype(np.float64)
        return values.astype(np.float32)

    def read(self, index: tuple[NDArray[np.int64], ...]) -> NDArray[np.float32] | None:
        """What the network reads of latents at voxels `index`, shape (n, channels)."""
        if self.base is None:
            return None
        there = []
        for axis, look in enumerate(self.looks):
            places = beside(index[axis], look, self.array.shape[axis])
            there.append(self.base[(*index[:axis], places, *index[axis + 1 :])])
        return readings(self.base[index], there, self.looks, self.norm)

    def steps(self, index: tuple[NDArray[np.int64], ...]) -> list[NDArray[np.float32]]:
        """Difference of the target to the next voxel along each axis; NaN where either is invalid."""
        here = self.targets(index)
        out = []
        for axis, n in enumerate(self.array.shape):
            side = np.where(index[axis] + 1 < n, 1, -1)
            there = (*index[:axis], index[axis] + side, *index[axis + 1 :])
            step = side * (self.targets(there) - here)
            if self.valid is not None:
                step = np.where(self.valid[there], step, np.nan)
            out.append(step.astype(np.float32))
        return out


def looks_along(base: NDArray[np.float32], norm: float) -> tuple[Look, ...]:
    """How a network shall look along each axis of what latents add up to.

    As far as the first difference is larger than the second: where that is, what is new begins.
    """
    looks = []
    for axis, length in enumerate(base.shape):
        ahead = np.diff(base, axis=axis)
        first, second = _rms(ahead), _rms(np.diff(ahead, axis=axis)) if length > 2 else 0.0
        most = min(max((length - 1) // 4, 1), LARGEST_LOOK)
        distance = min(max(round(first / second), 1), most) if second else 1
        if distance > 1:
            index = np.arange(length - distance)
            ahead = base.take(index + distance, axis) - base.take(index, axis)
        octaves = math.log2(norm / difference) if (difference := _rms(ahead)) else 0.0
        looks.append(Look(distance, min(max(round(octaves), 0), LARGEST_LOOK)))
    return tuple(looks)


def _rms(values: NDArray[np.float32]) -> float:
    return math.sqrt(np.square(values).mean(dtype=np.float64))


def architecture_for(axes: int, budget: int, experts: int | None, channels: int = 0) -> network.Architecture:
    """Sizes of the network that a byte budget pays for.

    One expert, wide enough, does best; at many bytes experts are added rather than widened, so that
    a fit and a decoder do not slow down with the bytes.

    Parameters
    ----------
    axes : int
        Coordinates of a point.
    budget : int
        Bytes of the model's section.
    experts : int, optional
        Their number, where it is given.
    channels : int
        What they read of latents: with them, fewer waves are needed.
    """
    ratio = _CORRECTING if channels else _ENCODER
    tensors = axes + 9
    weights = max((budget - 4 * tensors) * 8 / _BITS, 1)
    if experts is None:
        experts = min(max(1, round(weights / _WIDEST)), _MOST_EXPERTS)
    layers = 3 if experts == 1 and not channels else 2
    best = network.Architecture(axes, 4, experts, 3, 1, channels)
    width = 3
    while True:
        width += 1
        sizes = network.Architecture(axes, max(4, round(width * ratio)), experts, width, layers, channels)
        if sizes.weights > weights or width > 512:
            return best
        best = sizes


def axis_frequencies(field: Field, generator: torch.Generator) -> NDArray[np.float64]:
    """RMS of the derivative along each axis over the standard deviation; u in [-1, 1].

    Returns
    -------
    array, shape (axes,)
        Radians per unit of u of a wave that would have the same derivative.
    """
    index = field.draw(_PROBES, generator)
    deviation = float(field.targets(index).std(dtype=np.float64)) or 1.0
    lengths = np.array(field.array.shape)
    rms = [math.sqrt(np.nanmean(np.square(step, dtype=np.float64))) if np.isfinite(step).any() else 0.0
           for step in field.steps(index)]  # fmt: skip
    # A field that does not change along an axis still gets a slow wave: weights start off zero.
    found: NDArray[np.float64] = np.array(rms) / deviation * (lengths - 1) / 2
    return np.maximum(found, 0.1)


def power_spectrum(field: Field, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squares of the field's discrete cosine transform, zero at the mean.

    Parameters
    ----------
    frequencies : array, shape (axes,)
        Those of :func:`axis_frequencies`: the field is averaged where it is smoothest.

    Returns
    -------
    array of at most two million modes
    """
    power: NDArray[np.float64] = np.square(dctn(_coarse(field, frequencies), norm="ortho"), dtype=np.float64)
    power.flat[0] = 0.0
    return power


def draw_waves(power: NDArray[np.float64], count: int, generator: torch.Generator) -> NDArray[np.float64]:
    """Wave vectors drawn from a power spectrum.

    The spectrum is that of the discrete cosine transform, which sees no jump at the edges; its
    mode k along an axis is a wave of ``pi k / 2`` radians per unit of u. Fields have spectra so
    heavy-tailed that a normal distribution with the same mean square misses both the long waves
    that hold their variance and the lines, such as a daily cycle, that stand out of it.

    Returns
    -------
    array, shape (count, axes)
        Radians per unit of u; signs are drawn independently.
    """
    edges = np.cumsum(power)
    drawn = torch.rand(count, generator=generator, dtype=torch.float64).numpy() * edges[-1]
    modes = np.stack(
        np.unravel_index(np.minimum(np.searchsorted(edges, drawn), power.size - 1), power.shape), 1
    )
    signs = torch.randint(2, modes.shape, generator=generator).numpy() * 2 - 1
    jitter = 0.5 * torch.randn(modes.shape, generator=generator, dtype=torch.float64).numpy()
    return np.asarray(signs * modes * np.pi / 2 + jitter)


def _coarse(field: Field, frequencies: NDArray[np.float64]) -> NDArray[np.float32]:
    """The field's targets less their mean, averaged to at most ``_SPECTRUM`` voxels.

    Voxels are averaged along the axes on which neighbours differ least. Invalid ones are zero.
    """
    lengths = np.array(field.array.shape)
    factors = np.ones(len(lengths), np.int64)
    while np.prod(lengths // factors) > _SPECTRUM:
        change = np.where(lengths // factors > 1, frequencies * factors / lengths, np.inf)
        factors[change.argmin()] *= 2
    kept = tuple(int(n) for n in lengths // factors)
    total, count = np.zeros(kept, np.float32), np.zeros(kept, np.float32)
    for offset in np.ndindex(*factors):
        part = tuple(slice(o, o + n * f, f) for o, n, f in zip(offset, kept, map(int, factors), strict=True))
        values = field.targets(part)
        good = np.ones((), bool) if field.valid is None else field.valid[part]
        total += np.where(good, values, 0)
        count += good
    mean = total.sum(dtype=np.float64) / count.sum(dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1) - mean, 0).astype(np.float32)


def activity_points(field: Field, count: int, generator: torch.Generator) -> NDArray[np.float64]:
    """Points in [-1, 1]^d, denser where the field changes more from voxel to voxel; (count, axes)."""
    index = field.draw(8 * count, generator)
    activity = np.nansum(np.abs(field.steps(index)), axis=0)
    weight = activity + 0.5 * activity.mean() + 1e-12
    chosen = torch.multinomial(torch.from_numpy(weight), count, replacement=True, generator=generator).numpy()
    u = [network.coordinates(i[chosen], n) for i, n in zip(index, field.array.shape, strict=True)]
    return np.stack(u, axis=1)


def gate(
    field: Field, frequencies: NDArray[np.float64], experts: int, generator: torch.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A linear gate whose experts partition the field by nearest centre.

    The centres come from k-means over :func:`activity_points`, each coordinate scaled by its
    frequency, so that every expert starts with a like share of what there is to learn. With
    ``|u - c|^2`` expanded, the nearest centre is the largest of ``2 c u - |c|^2``.

    Returns
    -------
    weight : array, shape (axes, experts)
    bias : array, shape (experts,)
    """
    scale = frequencies / frequencies.max()
    points = activity_points(field, max(_POINTS, 32 * experts), generator) * scale
    seed = int(torch.randint(2**31, (), generator=generator))
    centres, _ = kmeans2(points, experts, minit="++", rng=np.random.default_rng(seed))
    return 2 * _SHARPNESS * (centres * scale).T, -_SHARPNESS * (centres**2).sum(axis=1)


def initial_weights(
    architecture: network.Architecture,
    waves: NDArray[np.float64],
    mean: float,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Weights before the fit, all but the gate's.

    Encoder: the rows of `waves`, shape (encoder, axes), phases uniform; sine layers
    U(+-sqrt(6 / inputs)) as in SIREN (arXiv 2006.09661, section 3.2) without its factor omega,
    for the frequencies are in the encoder already; the decoder starts near the field's mean.
    """

    def uniform(shape: tuple[int, ...], bound: float) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) * bound

    weights = {}
    for name, shape in architecture.shapes().items():
        kind = name.split(".")
        if kind[0] == "gate":
            continue
        if kind[:2] == ["encoder", "weight"]:
            weights[name] = torch.from_numpy(waves[:, int(kind[2])].astype(np.float32))
        elif name == "encoder.bias":
            weights[name] = uniform(shape, math.pi)
        elif kind[:2] == ["expert", "weight"]:
            weights[name] = uniform(shape, math.sqrt(6 / shape[-1]))
        elif name == "decoder.weight":
            weights[name] = uniform(shape, 0.05)
        else:
            weights[name] = torch.full(shape, mean if name == "decoder.bias" else 0.0)
    return weights
