"""Spectra of slices by wavenumber, and where that of the decoded field leaves that of the original."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from moec_zarr.arrays import Array, Bools, Doubles

__all__ = ["Spectrum", "spectrum"]

_LEAST_SIDE = 8  # voxels of a slice that has a spectrum
_PART = 2.0  # spectra part where one power is more than so many times the other
_NOTHING = 1e-14  # of the largest power: rounding, where no ratio means anything


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Variance by wavenumber.

    Attributes
    ----------
    wavenumber : array of float64, shape (n,)
        Middle of each ring of wavenumbers, in cycles a voxel, rising.
    original, decoded : array of float64, shape (n,)
        Variance in each, in units of the data squared.
    """

    wavenumber: Doubles
    original: Doubles
    decoded: Doubles

    @property
    def parting(self) -> float | None:
        """The smallest wavenumber at which one power is more than twice the other; None without one."""
        most = max(float(self.original.max(initial=0)), float(self.decoded.max(initial=0)))
        known = np.maximum(self.original, self.decoded) > _NOTHING * most
        apart = (self.original > _PART * self.decoded) | (self.decoded > _PART * self.original)
        found = np.flatnonzero(known & apart)
        return float(self.wavenumber[found[0]]) if found.size else None


@np.errstate(over="ignore", invalid="ignore")  # squares of the largest doubles are infinite
def spectrum(slices: Iterable[tuple[Array, Array, Bools]]) -> Spectrum | None:
    """Compute isotropic spectra of an original and a decoded field, means over slices of one shape.

    Each slice is taken less the mean of its valid voxels, the others are set to zero in both alike, and a
    Hann window on both axes keeps the borders from leaking into short waves (Harris 1978,
    doi:10.1109/PROC.1978.10837). The power of all waves whose wavenumber, the length of the vector in cycles
    a voxel, rounds to one multiple of 1 / (shorter side) is added up; waves shorter than two voxels, which a
    diagonal can have, are left out.

    Parameters
    ----------
    slices : iterable of (original, decoded, valid)
        2D arrays of one shape; voxels that are not valid do not count.

    Returns
    -------
    Spectrum or None
        None where a side is shorter than 8 voxels, no voxel is valid, all slices of both are constant, or
        powers overflow or vanish.
    """
    sums: list[Doubles] = []
    taken, side, varies = 0, 0, False
    for original, decoded, valid in slices:
        ny, nx = original.shape
        side = min(ny, nx)
        if side < _LEAST_SIDE or not valid.any():
            continue
        window = np.outer(np.hanning(ny + 2)[1:-1], np.hanning(nx + 2)[1:-1])
        wavenumber = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.fftfreq(nx)[None, :])
        ring = np.rint(wavenumber * side).astype(int).ravel()
        both = []
        for field in (original, decoded):
            values = np.where(valid, field, 0).astype(np.float64)
            varies |= bool(np.ptp(values[valid]))
            values -= values[valid].mean()
            waves = np.fft.fft2(np.where(valid, values, 0.0) * window)
            power = np.square(waves.real) + np.square(waves.imag)
            both.append(np.bincount(ring, power.ravel()) / (ny * nx * np.square(window).sum()))
        sums = [old + new for old, new in zip(sums, both, strict=True)] if sums else both
        taken += 1
    if not varies:
        return None
    rings = np.arange(1, side // 2 + 1)
    powers = [total[rings] / taken for total in sums]
    if not np.isfinite(powers).all() or not np.any(powers):
        return None
    return Spectrum(wavenumber=rings / side, original=powers[0], decoded=powers[1])
