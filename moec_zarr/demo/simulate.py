"""A small numerical simulation of rotating, stratified flow: data with real structure, made anywhere.

Quasi-geostrophic turbulence on a doubly periodic plane: at each level, potential vorticity is carried by
the flow that it induces itself, and the levels are coupled through the stretching between them
[1]_. A mean wind that grows with height tilts them against each other and feeds the eddies. The same flow
carries temperature, which is drawn towards a meridional contrast and so forms fronts, and a tracer that
leaves a few sources in plumes and filaments. All of it is stepped by the semi-Lagrangian method with cubic
interpolation [2]_, whose own damping at the scale of the grid is the only dissipation of vorticity.

References
----------
.. [1] G. K. Vallis, Atmospheric and Oceanic Fluid Dynamics, 2nd ed., Cambridge University Press 2017,
   sections 5.3 to 5.5 and 9.
.. [2] A. Staniforth and J. Cote, Semi-Lagrangian integration schemes for atmospheric models: a review,
   Monthly Weather Review 119 (1991) 2206-2223.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moec_zarr.arrays import Floats
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["simulate"]

EXTENT = 2.0e6  # m, the longer horizontal side
HEIGHT = 1.0e4  # m, of all levels together
CORIOLIS = 1.0e-4  # 1/s
BETA = 1.6e-11  # 1/(m s), its change with y
BUOYANCY = 1.0e-2  # 1/s, the Brunt-Vaisala frequency
SHEAR = 20.0  # m/s, mean wind at the top less that at the ground
EDDIES = 12.0  # m/s, root mean square of the initial eddies
STEP = 1800.0  # s
OUTPUT = 2  # steps between two outputs
SPIN_UP = 96  # steps before the first output: two days, about ten turnovers of an eddy
CONTRAST = 15.0  # K, amplitude of the temperature that is relaxed to
RELAXATION = 2 * 86400.0  # s
EMISSION = 20.0 / 3600.0  # ug/(m3 s), at the middle of a source
DECAY = 86400.0  # s, of the tracer
MIXING = 0.02  # share of the difference between neighbouring levels that is mixed in a step


def simulate(shape: tuple[int, int, int, int] = (16, 8, 64, 64), *, seed: int = 0) -> xr.Dataset:
    """Simulate a few hours of weather over an island.

    Parameters
    ----------
    shape : tuple of int
        Numbers of times (hourly), levels, rows and columns. 2 million voxels a variable take some
        seconds, in memory about that of the result.
    seed : int
        Seed of the initial state, the coast and the sources. One seed gives one dataset on one machine;
        elsewhere rounding may differ, and turbulence lets such differences grow.

    Returns
    -------
    xarray.Dataset
        Three float32 variables of dimensions (time, level, y, x):

        ``temperature`` in K, with fronts;
        ``tracer`` in ug m-3, zero far from its sources and strong near them;
        ``vorticity`` in s-1, relative, NaN where a level lies inside the island's mountain. The mountain
        is a mask alone: the flow does not feel it.

        Coordinates are ``time`` as datetime64, ``level`` (height), ``y`` and ``x`` in metres.

    Raises
    ------
    MoECError
        If `shape` is not four positive numbers, or a horizontal side is shorter than 8.
    """
    if len(shape) != 4 or min(shape) < 1 or min(shape[2:]) < 8:
        raise MoECError(
            f"shape must be (time, level, y, x) of at least (1, 1, 8, 8), got {shape}; choose a larger one"
        )
    import xarray as xr

    rng = np.random.default_rng(seed)
    times, levels, rows, columns = shape
    spacing = EXTENT / max(rows, columns)
    height = ((np.arange(levels) + 0.5) * HEIGHT / levels).astype(np.float32)
    y, x = np.arange(rows) * spacing, np.arange(columns) * spacing

    terrain = _terrain(rows, columns, rng)
    inside = height[:, None, None] < terrain
    reference = 288.15 - 0.0065 * height[:, None, None]

    out = {name: np.empty(shape, np.float32) for name in ("temperature", "tracer", "vorticity")}
    for i, state in zip(range(times), _run(height, spacing, terrain, rng), strict=False):
        vorticity, anomaly, tracer = state
        out["temperature"][i] = reference + anomaly
        out["tracer"][i] = tracer
        out["vorticity"][i] = np.where(inside, np.float32(np.nan), vorticity)

    attributes = {
        "temperature": {"units": "K", "long_name": "air temperature", "standard_name": "air_temperature"},
        "tracer": {"units": "ug m-3", "long_name": "mass concentration of a tracer"},
        "vorticity": {
            "units": "s-1",
            "long_name": "relative vorticity",
            "standard_name": "atmosphere_relative_vorticity",
        },
    }
    dims = ("time", "level", "y", "x")
    time = np.datetime64("2000-01-01", "ns") + np.arange(times) * np.timedelta64(int(OUTPUT * STEP), "s")
    return xr.Dataset(
        {name: (dims, values, attributes[name]) for name, values in out.items()},
        coords={
            "time": ("time", time, {"standard_name": "time", "long_name": "time"}),
            "level": ("level", height, {"units": "m", "long_name": "height", "positive": "up"}),
            "y": ("y", y, {"units": "m", "long_name": "northward distance"}),
            "x": ("x", x, {"units": "m", "long_name": "eastward distance"}),
        },
        attrs={"title": "Simulated quasi-geostrophic turbulence", "source": "moec_zarr.demo.simulate"},
    )


def _run(
    height: Floats, spacing: float, terrain: Floats, rng: np.random.Generator
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Relative vorticity, temperature anomaly and tracer of each output, without end."""
    levels, (rows, columns) = len(height), terrain.shape
    shape = (levels, rows, columns)
    stretching = _stretching(levels)
    wind = (SHEAR * height / HEIGHT).astype(np.float32)[:, None, None]
    # The mean wind -dPsi/dy has potential vorticity of its own, whose slope the eddies are carried along.
    slope = (BETA - stretching @ wind[:, 0, 0]).astype(np.float32)[:, None, None]

    ky = 2 * np.pi * np.fft.fftfreq(rows, spacing)[:, None]
    kx = 2 * np.pi * np.fft.rfftfreq(columns, spacing)
    laplacian = -(ky**2 + kx**2)
    # q = (laplacian + stretching) psi: in the eigenvectors of `stretching` a division.
    values, modes = np.linalg.eigh(stretching)
    operator = laplacian + values[:, None, None]
    operator[np.abs(operator) < 1e-9 / EXTENT**2] = np.inf  # the mean of psi is free and taken as zero
    inverse = (1 / operator).astype(np.float32)
    modes = modes.astype(np.float32)

    def flow(vorticity: Floats) -> tuple[Floats, Floats]:
        """Velocities (2, level, y, x) in m/s along y and x, and relative vorticity, of the potential one."""
        q = np.fft.rfft2(vorticity)
        psi = np.einsum("lm,m...->l...", modes, inverse * np.einsum("lm,l...->m...", modes, q))
        v, u, zeta = (
            np.fft.irfft2(factor * psi, s=(rows, columns)) for factor in (1j * kx, -1j * ky, laplacian)
        )
        return np.stack([v, u + wind]).astype(np.float32), zeta.astype(np.float32)

    vorticity = _initial(shape, laplacian, stretching, rng)
    equilibrium = (CONTRAST * np.sin(2 * np.pi * np.arange(rows) / rows)).astype(np.float32)[:, None]
    source = _sources(shape, spacing, terrain, rng)
    anomaly = np.broadcast_to(equilibrium, shape).copy()
    tracer = np.zeros(shape, np.float32)

    before = flow(vorticity)[0]
    step = 0
    while True:
        velocity, zeta = flow(vorticity)
        if step >= SPIN_UP and (step - SPIN_UP) % OUTPUT == 0:
            yield zeta, anomaly, tracer
        courant = (1.5 * velocity - 0.5 * before) * np.float32(STEP / spacing)  # at half the step, in voxels
        before = velocity
        vorticity, anomaly, tracer = _advect(np.stack([vorticity, anomaly, tracer]), courant)
        vorticity = vorticity - np.float32(STEP) * slope * velocity[0]
        anomaly = anomaly + np.float32(STEP / RELAXATION) * (equilibrium - anomaly)
        # Cubic interpolation overshoots beside a sharp plume; a concentration is never negative.
        tracer = np.maximum(_mix(tracer), 0) * np.float32(1 - STEP / DECAY) + np.float32(STEP) * source
        step += 1


def _stretching(levels: int) -> NDArray[np.float64]:
    """Return the vertical second difference (f/N)^2 d2/dz2 with free ends, in 1/m^2, symmetric."""
    second = np.diag(np.full(levels - 1, 1.0), 1) + np.diag(np.full(levels - 1, 1.0), -1)
    second -= np.diag(second.sum(axis=1))
    return (CORIOLIS * levels / (BUOYANCY * HEIGHT)) ** 2 * second


def _initial(
    shape: tuple[int, int, int], laplacian: NDArray[Any], stretching: NDArray[Any], rng: np.random.Generator
) -> Floats:
    """Potential vorticity of eddies of random phase, 4 to 8 of them a side, akin from level to level."""
    side = np.sqrt(-laplacian) * EXTENT / (2 * np.pi)
    noise = rng.standard_normal(shape)
    for k in range(1, len(noise)):
        noise[k] = 0.8 * noise[k - 1] + 0.6 * noise[k]
    psi = np.fft.rfft2(noise) * np.exp(-(((side - 6) / 2) ** 2))
    speed = np.sqrt(np.mean(np.fft.irfft2(np.sqrt(-laplacian) * psi, s=shape[1:]) ** 2))
    psi *= EDDIES / speed
    q = laplacian * psi + np.einsum("lm,m...->l...", stretching, psi)
    return np.asarray(np.fft.irfft2(q, s=shape[1:]), dtype=np.float32)


def _advect(fields: Floats, courant: Floats) -> Floats:
    """Carry `fields` for a step: each voxel takes the value at the point that the flow brings to it.

    Parameters
    ----------
    fields : ndarray of shape (field, level, y, x)
    courant : ndarray of shape (2, level, y, x)
        Displacement in a step, in voxels, along y and x.

    Returns
    -------
    ndarray of shape (field, level, y, x)
    """
    rows, columns = courant.shape[-2:]
    y, x = np.arange(rows, dtype=np.float32)[:, None], np.arange(columns, dtype=np.float32)
    middle = _interpolate(courant, y - courant[0] / 2, x - courant[1] / 2, _linear)
    return _interpolate(fields, y - middle[0], x - middle[1], _cubic)


def _interpolate(
    fields: Floats, y: Floats, x: Floats, weights: Callable[[Floats], tuple[Floats, ...]]
) -> Floats:
    """Values of periodic `fields` (field, level, y, x) at positions in voxels, each in its own level."""
    count, levels, rows, columns = fields.shape
    flat = fields.reshape(count, -1)
    below, left = np.floor(y), np.floor(x)
    along_y, along_x = weights(y - below), weights(x - left)
    row, column = below.astype(np.intp), left.astype(np.intp)
    first = 1 - len(along_y) // 2
    starts = (np.arange(levels) * rows * columns)[:, None, None]
    columns_at = [(column + first + j) % columns for j in range(len(along_x))]
    result = np.zeros_like(fields)
    for i, weight_y in enumerate(along_y):
        row_at = starts + (row + first + i) % rows * columns
        for weight_x, column_at in zip(along_x, columns_at, strict=True):
            weight, at = weight_y * weight_x, row_at + column_at
            for k in range(count):
                result[k] += weight * flat[k].take(at)
    return result


def _linear(t: Floats) -> tuple[Floats, ...]:
    return 1 - t, t


def _cubic(t: Floats) -> tuple[Floats, ...]:
    """Lagrange weights of the points -1, 0, 1, 2 at `t` in [0, 1]."""
    a, b, c = t + 1, t - 1, t - 2
    half, sixth = np.float32(1 / 2), np.float32(1 / 6)
    return -sixth * t * b * c, half * a * b * c, -half * a * t * c, sixth * a * t * b


def _mix(tracer: Floats) -> Floats:
    """Exchange between neighbouring levels; none leaves at top or bottom."""
    flux = np.float32(MIXING) * np.diff(tracer, axis=0)
    mixed = tracer.copy()
    mixed[:-1] += flux
    mixed[1:] -= flux
    return mixed


def _terrain(rows: int, columns: int, rng: np.random.Generator) -> Floats:
    """Height of the ground (y, x) in m: an island with a ragged coast, its top above the middle level."""
    y, x = np.arange(rows)[:, None] / rows, np.arange(columns) / columns
    wavenumber = np.hypot(np.fft.fftfreq(rows, 1 / rows)[:, None], np.fft.rfftfreq(columns, 1 / columns))
    rough = np.fft.irfft2(
        np.fft.rfft2(rng.standard_normal((rows, columns))) / (1 + wavenumber) ** 2, s=(rows, columns)
    )
    hill = np.exp(-(((y - 0.6) / 0.13) ** 2) - ((x - 0.35) / 0.2) ** 2)
    ground = hill * (1 + 0.5 * rough / np.std(rough))
    return np.asarray(0.7 * HEIGHT * np.maximum(ground - 0.15, 0) / (ground.max() - 0.15), dtype=np.float32)


def _sources(
    shape: tuple[int, int, int], spacing: float, terrain: Floats, rng: np.random.Generator
) -> Floats:
    """Emission (level, y, x) in ug/(m3 s): at the mountain's top and at three places of the lowest level."""
    levels, rows, columns = shape
    summit = np.unravel_index(np.argmax(terrain), terrain.shape)
    top = min(int(terrain.max() / HEIGHT * levels), levels - 1)
    places = [(top, *summit), *((0, *place) for place in rng.integers(0, (rows, columns), (3, 2)))]
    radius = max(60e3 / spacing, 1.0)
    source = np.zeros(shape, np.float32)
    for level, row, column in places:
        dy = (np.arange(rows) - row + rows / 2) % rows - rows / 2
        dx = (np.arange(columns) - column + columns / 2) % columns - columns / 2
        source[level] += EMISSION * np.exp(-(dy[:, None] ** 2 + dx**2) / (2 * radius**2))
    return source
