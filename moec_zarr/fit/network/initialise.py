"""A network before its fit: its sizes, and weights that follow from the data."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.fft import dctn

from moec_zarr.arrays import Doubles, Floats
from moec_zarr.fit.field import Field, activity_points
from moec_zarr.model.features import LARGEST_STENCIL, Stencil
from moec_zarr.model.network import MOST_ACTIVE_WEIGHTS, MOST_EXPERTS, Architecture

__all__ = [
    "architecture_for",
    "axis_frequencies",
    "draw_waves",
    "gate",
    "initial_weights",
    "power_spectrum",
    "stencils_for",
]

_BITS_PER_WEIGHT = 6.8  # of a weight, on average
_ENCODER = 1.4  # width of the encoder over the experts'
_CORRECTION_ENCODER = 0.5  # the same where they correct the transform
_FREQUENCY_SAMPLES = 1 << 17  # voxels at which frequencies are measured
_SPECTRUM = 1 << 21  # voxels that the spectrum is taken of
_WIDEST = 60_000  # weights that evaluate a point, about: sharper surfaces lose decibels to fewer
_CLUSTERED_POINTS = 6000  # points that the partition is clustered from
_SHARPNESS = 20.0  # of the softmax over the experts, per squared scaled coordinate


def stencils_for(base: Floats, norm: float) -> tuple[Stencil, ...]:
    """Choose stencils with which a network reads the transform `base` along each axis.

    Their distance is the ratio of the root mean squares of first and second differences, about the
    length over which the field changes its slope.
    """
    stencils = []
    for axis, length in enumerate(base.shape):
        ahead = np.diff(base, axis=axis)
        first, second = _rms(ahead), _rms(np.diff(ahead, axis=axis)) if length > 2 else 0.0
        maximum = min(max((length - 1) // 4, 1), LARGEST_STENCIL)
        distance = min(max(round(first / second), 1), maximum) if second else 1
        if distance > 1:
            index = np.arange(length - distance)
            ahead = base.take(index + distance, axis) - base.take(index, axis)
        octaves = math.log2(norm / difference) if (difference := _rms(ahead)) else 0.0
        stencils.append(Stencil(distance, min(max(round(octaves), 0), LARGEST_STENCIL)))
    return tuple(stencils)


def _rms(values: Floats) -> float:
    return math.sqrt(np.square(values).mean(dtype=np.float64))


def architecture_for(axes: int, budget: int, experts: int | None, features: int = 0) -> Architecture:
    """Choose the sizes of the network that a byte budget pays for.

    One expert, wide enough, does best; at many bytes experts are added rather than widened, so that
    a fit and a decoder do not slow down with the bytes.

    Parameters
    ----------
    axes : int
        Coordinates of a point.
    budget : int
        Bytes of the network's section.
    experts : int, optional
        Their number, where it is given.
    features : int
        Features of the transform that they read: with them, fewer waves are needed.
    """
    ratio = _CORRECTION_ENCODER if features else _ENCODER
    tensors = axes + 9
    weights = max((budget - 4 * tensors) * 8 / _BITS_PER_WEIGHT, 1)
    if experts is None:
        experts = min(max(1, round(weights / _WIDEST)), MOST_EXPERTS)
    layers = 3 if experts == 1 and not features else 2
    best = Architecture(axes, 4, experts, 3, 1, features)
    width = 3
    while True:
        width += 1
        sizes = Architecture(axes, max(4, round(width * ratio)), experts, width, layers, features)
        if sizes.parameter_count > weights or sizes.active_count > MOST_ACTIVE_WEIGHTS:
            return best
        best = sizes


def axis_frequencies(field: Field, generator: torch.Generator) -> Doubles:
    """Estimate RMS of the derivative along each axis over the standard deviation; u in [-1, 1].

    Returns
    -------
    array, shape (axes,)
        Radians per unit of u of a wave that would have the same derivative.
    """
    index = field.draw(_FREQUENCY_SAMPLES, generator)
    deviation = float(field.targets(index).std(dtype=np.float64)) or 1.0
    lengths = np.array(field.array.shape)
    rms = [math.sqrt(np.nanmean(np.square(step, dtype=np.float64))) if np.isfinite(step).any() else 0.0
           for step in field.differences(index)]  # fmt: skip
    # A field that does not change along an axis still gets a slow wave: weights start off zero.
    frequencies: Doubles = np.array(rms) / deviation * (lengths - 1) / 2
    return np.maximum(frequencies, 0.1)


def power_spectrum(field: Field, frequencies: Doubles) -> Doubles:
    """Compute squares of the field's discrete cosine transform, zero at the mean.

    Parameters
    ----------
    frequencies : array, shape (axes,)
        Those of :func:`axis_frequencies`: the field is averaged where it is smoothest.

    Returns
    -------
    array of at most two million modes
    """
    power: Doubles = np.square(dctn(_coarse(field, frequencies), norm="ortho"), dtype=np.float64)
    power.flat[0] = 0.0
    return power


def draw_waves(power: Doubles, count: int, generator: torch.Generator) -> Doubles:
    """Draw wave vectors from a power spectrum.

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


def _coarse(field: Field, frequencies: Doubles) -> Floats:
    """Return the field's targets less their mean, averaged to at most ``_SPECTRUM`` voxels.

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


def gate(
    field: Field, frequencies: Doubles, experts: int, generator: torch.Generator
) -> tuple[Doubles, Doubles]:
    """Return a linear gate whose experts partition the field by nearest centre.

    The centres come from k-means over :func:`activity_points`, each coordinate scaled by its
    frequency, so that every expert starts with a like share of what there is to learn. With
    ``|u - c|^2`` expanded, the nearest centre is the largest of ``2 c u - |c|^2``.

    Returns
    -------
    weight : array, shape (axes, experts)
    bias : array, shape (experts,)
    """
    scale = frequencies / frequencies.max()
    points = activity_points(field, max(_CLUSTERED_POINTS, 32 * experts), generator) * scale
    seed = int(torch.randint(2**31, (), generator=generator))
    centres, _ = kmeans2(points, experts, minit="++", rng=np.random.default_rng(seed))
    return 2 * _SHARPNESS * (centres * scale).T, -_SHARPNESS * (centres**2).sum(axis=1)


def initial_weights(
    architecture: Architecture,
    waves: Doubles,
    mean: float,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Draw the weights before the fit, all but the gate's.

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
