"""What a chunk's errors look like, beyond one figure: their bias, distribution, place and scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles
from moec_zarr.quality import absolute_error

__all__ = ["PERCENTILES", "Statistics", "power_by_octave", "statistics", "valid_voxels"]

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
"""Of the absolute error."""

_BLOCK = 2**20  # voxels in double precision at a time
_MOST_INDICES = 10_000  # along the first axis; a record is to stay small
_MOST_SLICES = 4096  # of further axes with it
_SLICE = 2  # last axes, which make a slice
_LEAST_SIDE = 4  # voxels of a slice that has a spectrum
_MOST_SIDE = 1024  # voxels; of larger slices the middle is taken
_SPECTRUM_VOXELS = 2**20  # of all slices that are taken


# What records of older versions lack.
_ADDED_COUNTS = ("zeros", "decoded_zeros", "kept_zeros")
_ADDED = (
    "slices", "bias_by_index", "low_by_index", "high_by_index", "magnitude_by_index", "deviation_by_index",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How the errors of an array are distributed; all are taken over the valid voxels.

    Attributes
    ----------
    bias : float
        Mean of decoded less original, in units of the data.
    percentiles : tuple of float
        Of the absolute error, at `PERCENTILES`, in units of the data.
    zeros, decoded_zeros, kept_zeros : int
        Number of valid voxels that are 0 in the original, in what was decoded, and in both.
    slices : tuple of int
        Lengths of the first axes, by which the next figures go, in C order: all but the last two, fewer where
        they have more than 4096 indices, and of two axes the first. Empty for an array of one axis, and where
        the first has more than 10,000 indices; so are the next ones.
    n_valid_by_index : tuple of int
        Number of valid voxels at each index.
    rmse_by_index, max_error_by_index, bias_by_index : tuple of float
        Root mean square, largest absolute and mean error at each index; these and the next are 0 where no
        voxel is valid.
    low_by_index, high_by_index, magnitude_by_index, deviation_by_index : tuple of float
        Smallest and largest value of the original, mean of its magnitudes and standard deviation.
    wavelengths : tuple of int
        Shortest wavelength of each octave, in voxels: 2, 4, 8 ... Empty without a spectrum.
    power, decoded_power : tuple of float
        Variance in each octave, of the original and of what was decoded, as `power_by_octave` has it.
    """

    bias: float
    percentiles: tuple[float, ...]
    zeros: int = 0
    decoded_zeros: int = 0
    kept_zeros: int = 0
    slices: tuple[int, ...] = ()
    n_valid_by_index: tuple[int, ...] = ()
    rmse_by_index: tuple[float, ...] = ()
    max_error_by_index: tuple[float, ...] = ()
    bias_by_index: tuple[float, ...] = ()
    low_by_index: tuple[float, ...] = ()
    high_by_index: tuple[float, ...] = ()
    magnitude_by_index: tuple[float, ...] = ()
    deviation_by_index: tuple[float, ...] = ()
    wavelengths: tuple[int, ...] = ()
    power: tuple[float, ...] = ()
    decoded_power: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make statistics from plain JSON types.

        Raises
        ------
        ValueError, TypeError
            If a value is absent, unknown, or of another type.
        """
        data = {**dict.fromkeys(_ADDED_COUNTS, 0), **dict.fromkeys(_ADDED, ()), **data}
        values: dict[str, Any] = {"bias": float(data["bias"]) if "bias" in data else None}
        values |= {name: int(data[name]) for name in _ADDED_COUNTS}
        for name in {field.name for field in dataclasses.fields(cls)} - values.keys():
            kind = int if name in ("slices", "n_valid_by_index", "wavelengths") else float
            values[name] = tuple(kind(each) for each in data[name])
        if unknown := data.keys() - values.keys():
            raise ValueError(f"unknown statistics {sorted(unknown)}")
        if values["n_valid_by_index"] and not values["slices"]:
            values["slices"] = (len(values["n_valid_by_index"]),)
        return cls(**values)


def valid_voxels(x: Array, missing: float | None) -> Bools:
    """Return which voxels count: neither NaN, infinite nor the sentinel `missing`."""
    valid: Bools = np.isfinite(x)
    return valid if missing is None else valid & (x != missing)


@np.errstate(over="ignore", invalid="ignore")  # squares of the largest doubles are infinite
def statistics(original: Array, decoded: Array, missing: float | None = None) -> Statistics | None:
    """Compute the distribution of errors; None if no voxel is valid.

    Parameters
    ----------
    original, decoded : array
        Of one shape and dtype, integers or floats.
    missing : float, optional
        A sentinel that is no valid value, as NaN is none.
    """
    x, y = (np.atleast_1d(array) for array in (original, decoded))
    slices = _slices(x.shape)
    a, b = (array.reshape(math.prod(slices) or 1, -1) for array in (x, y))
    rows = max(1, _BLOCK // max(1, a[:1].size))
    errors: list[Array] = []
    found: list[dict[str, Array]] = []
    kept = np.float64 if x.dtype.itemsize > 4 else np.float32  # what holds them all takes memory
    zeros = np.zeros(3, np.int64)
    for start in range(0, len(a), rows):
        block = _Block.of(a[start : start + rows], b[start : start + rows], missing)
        errors.append(block.errors.astype(kept, copy=False))
        found.append(block.figures)
        zeros += block.zeros
    sums = {name: np.concatenate([each[name] for each in found]) for name in found[0]} if found else {}
    n_valid = int(sums["n_valid"].sum()) if sums else 0
    if not n_valid:
        return None
    wavelengths, power, decoded_power = power_by_octave(x, y, missing)
    percentiles = np.percentile(np.concatenate(errors), PERCENTILES, overwrite_input=True)
    return Statistics(
        bias=float(sums["error"].sum()) / n_valid,
        percentiles=_short(percentiles),
        zeros=int(zeros[0]),
        decoded_zeros=int(zeros[1]),
        kept_zeros=int(zeros[2]),
        slices=slices,
        wavelengths=wavelengths,
        power=_short(power),
        decoded_power=_short(decoded_power),
        **(_by_index(sums) if slices else {}),
    )


def _slices(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lengths of the first axes by which errors are recorded."""
    if len(shape) < 2 or shape[0] > _MOST_INDICES:
        return ()
    count = max(len(shape) - _SLICE, 1)
    while count > 1 and math.prod(shape[:count]) > _MOST_SLICES:
        count -= 1
    return shape[:count]


class _Block(NamedTuple):
    """Some slices: the absolute error of each valid voxel, zeros, and sums by slice."""

    errors: Doubles
    zeros: Array
    figures: dict[str, Array]

    @classmethod
    def of(cls, x: Array, y: Array, missing: float | None) -> Self:
        """Look at rows of voxels, one for each slice."""
        valid = valid_voxels(x, missing)
        error = np.zeros(x.shape)
        error[valid] = absolute_error(x[valid], y[valid])
        values = np.where(valid, x, 0).astype(np.float64)
        count = np.count_nonzero(valid, axis=1)
        none, some = count == 0, np.maximum(count, 1)
        mean = values.sum(axis=1) / some
        figures = {
            "n_valid": count,
            "error": np.where(y < x, -error, error).sum(axis=1),
            "squares": np.square(error).sum(axis=1),
            "largest": error.max(axis=1, initial=0.0),
            "low": np.where(none, 0.0, np.where(valid, values, np.inf).min(axis=1, initial=np.inf)),
            "high": np.where(none, 0.0, np.where(valid, values, -np.inf).max(axis=1, initial=-np.inf)),
            "magnitude": np.abs(values).sum(axis=1) / some,
            "deviation": np.sqrt(np.where(valid, np.square(values - mean[:, None]), 0.0).sum(axis=1) / some),
        }
        before, after = valid & (x == 0), valid & (y == 0)
        zeros = np.array([np.count_nonzero(each) for each in (before, after, before & after)])
        return cls(error[valid], zeros, figures)


def _by_index(sums: Mapping[str, Array]) -> dict[str, Any]:
    """Return the figures of each slice."""
    some = np.maximum(sums["n_valid"], 1)
    return {
        "n_valid_by_index": tuple(sums["n_valid"].tolist()),
        "rmse_by_index": _short(np.sqrt(sums["squares"] / some)),
        "max_error_by_index": _short(sums["largest"]),
        "bias_by_index": _short(sums["error"] / some),
        **{f"{name}_by_index": _short(sums[name]) for name in ("low", "high", "magnitude", "deviation")},
    }


def _short(values: Doubles) -> tuple[float, ...]:
    """Figures of six digits: a record holds many."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())


def power_by_octave(
    original: Array, decoded: Array, missing: float | None = None
) -> tuple[tuple[int, ...], Doubles, Doubles]:
    """Compute the variance by octave of the wavenumber, in slices along the last two axes.

    Each slice is taken less the mean of its valid voxels; the others are set to zero, in both arrays alike.
    A Hann window on both axes keeps the borders, where a field is not periodic, from leaking into short
    waves (Harris 1978, doi:10.1109/PROC.1978.10837). The wavenumber of a wave is the length of its vector in
    cycles a voxel. Octave j holds the wavelengths from 2^j to 2^(j+1) voxels; shorter ones, which a diagonal
    wave can have, count to the first. Masked voxels and the window mix neighbouring octaves, in the same way
    for both arrays, so that the ratio of both is that of the fields as far as the mask leaves them.

    Slices are spread evenly where they have more than 2^20 voxels together, and cut to their middle
    1024 x 1024 voxels. Those without a valid voxel are left out.

    Parameters
    ----------
    original, decoded : array
        Of one shape, integers or floats.
    missing : float, optional
        A sentinel that is no valid value, as NaN is none.

    Returns
    -------
    wavelengths : tuple of int
        Shortest wavelength of each octave, in voxels; empty where a slice has a side of less than 4 voxels.
    power, decoded_power : array of float64
        Mean over all slices, in units of the data squared. They add up to the variance of a slice, within
        what the window changes.
    """
    if original.ndim < 2 or min(original.shape[-2:]) < _LEAST_SIDE or not original.size:
        return (), np.zeros(0), np.zeros(0)
    middle = tuple(_middle(side) for side in original.shape[-2:])
    x, y = original[..., middle[0], middle[1]], decoded[..., middle[0], middle[1]]
    ny, nx = x.shape[-2:]
    window = np.outer(np.hanning(ny + 2)[1:-1], np.hanning(nx + 2)[1:-1])
    wavenumber = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :])
    wavenumber[0, 0] = 1.0  # the mean, which counts nowhere
    # The small factor leaves a wave on the border of two octaves, such as 1/8, in the longer one.
    octave = np.maximum(np.floor(-np.log2(wavenumber * (1 - 1e-12))).astype(int), 1)
    twice = np.full(wavenumber.shape, 2.0)  # a real field's other half
    twice[:, 0] = 1.0
    if nx % 2 == 0:
        twice[:, -1] = 1.0
    twice[0, 0] = 0.0
    last = int(octave.max())
    scale = ny * nx * np.square(window).sum()
    stack = x.shape[:-2]
    slices = int(np.prod(stack))
    count = min(slices, max(1, _SPECTRUM_VOXELS // (ny * nx)))
    sums = np.zeros((2, last + 1))
    taken = 0
    for i in np.unique(np.linspace(0, slices - 1, count).round().astype(int)):
        place = np.unravel_index(i, stack)
        valid = valid_voxels(x[place], missing)
        if not valid.any():
            continue
        taken += 1
        for total, field in zip(sums, (x[place], y[place]), strict=True):
            values = np.where(valid, field, 0).astype(np.float64)
            values -= values[valid].mean()
            spectrum = np.fft.rfft2(np.where(valid, values, 0.0) * window)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            total += np.bincount(octave.ravel(), (power * twice).ravel(), minlength=last + 1) / scale
    power, decoded_power = sums[:, 1:] / max(taken, 1)
    return tuple(2**j for j in range(1, last + 1)), power, decoded_power


def _middle(side: int) -> slice:
    start = max(0, side - _MOST_SIDE) // 2
    return slice(start, start + min(side, _MOST_SIDE))
