"""What a chunk's errors look like, beyond one figure: their bias, distribution, place and scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles
from moec_zarr.quality import absolute_error

__all__ = ["PERCENTILES", "Statistics", "power_by_octave", "statistics", "valid_voxels"]

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
"""Of the absolute error."""

_BLOCK = 2**20  # voxels in double precision at a time
_MOST_INDICES = 10_000  # along the first axis; a record is to stay small
_LEAST_SIDE = 4  # voxels of a slice that has a spectrum
_MOST_SIDE = 1024  # voxels; of larger slices the middle is taken
_SPECTRUM_VOXELS = 2**20  # of all slices that are taken


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """How the errors of an array are distributed; all are taken over the valid voxels.

    Attributes
    ----------
    bias : float
        Mean of decoded less original, in units of the data.
    percentiles : tuple of float
        Of the absolute error, at `PERCENTILES`, in units of the data.
    n_valid_by_index : tuple of int
        Number of valid voxels at each index along the first axis. Empty for an array of one axis, and where
        there are more than 10,000 indices; so are the next two.
    rmse_by_index, max_error_by_index : tuple of float
        Root mean square and largest absolute error at each index; 0 where no voxel is valid.
    wavelengths : tuple of int
        Shortest wavelength of each octave, in voxels: 2, 4, 8 ... Empty without a spectrum.
    power, decoded_power : tuple of float
        Variance in each octave, of the original and of what was decoded, as `power_by_octave` has it.
    """

    bias: float
    percentiles: tuple[float, ...]
    n_valid_by_index: tuple[int, ...] = ()
    rmse_by_index: tuple[float, ...] = ()
    max_error_by_index: tuple[float, ...] = ()
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
        values: dict[str, Any] = {"bias": float(data["bias"]) if "bias" in data else None}
        for name in {field.name for field in dataclasses.fields(cls)} - {"bias"}:
            kind = int if name in ("n_valid_by_index", "wavelengths") else float
            values[name] = tuple(kind(each) for each in data[name])
        if unknown := data.keys() - values.keys():
            raise ValueError(f"unknown statistics {sorted(unknown)}")
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
    rows = max(1, _BLOCK // max(1, x[:1].size))
    errors: list[Array] = []
    kept = np.float64 if x.dtype.itemsize > 4 else np.float32  # what holds them all takes memory
    total, counts, squares, largest = 0.0, [], [], []
    for start in range(0, len(x), rows):
        a, b = x[start : start + rows], y[start : start + rows]
        valid = valid_voxels(a, missing)
        error = np.zeros(a.shape)
        error[valid] = absolute_error(a[valid], b[valid])
        errors.append(error[valid].astype(kept, copy=False))
        total += float(np.where(b < a, -error, error).sum())
        axes = tuple(range(1, a.ndim))
        counts.append(np.count_nonzero(valid, axis=axes))
        squares.append(np.square(error).sum(axis=axes))
        largest.append(error.max(axis=axes))
    count = np.concatenate(counts) if counts else np.zeros(0, int)
    n_valid = int(count.sum())
    if not n_valid:
        return None
    by_index: dict[str, Any] = {}
    if x.ndim > 1 and len(x) <= _MOST_INDICES:
        rmse = np.sqrt(np.concatenate(squares) / np.maximum(count, 1))
        by_index = {
            "n_valid_by_index": tuple(count.tolist()),
            "rmse_by_index": _short(rmse),
            "max_error_by_index": _short(np.concatenate(largest)),
        }
    wavelengths, power, decoded_power = power_by_octave(x, y, missing)
    found = np.percentile(np.concatenate(errors), PERCENTILES, overwrite_input=True)
    return Statistics(
        bias=total / n_valid,
        percentiles=_short(found),
        wavelengths=wavelengths,
        power=_short(power),
        decoded_power=_short(decoded_power),
        **by_index,
    )


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
