"""Simulated cells under a light-sheet microscope, and a plain segmentation of their nuclei.

An example, tests and a benchmark share them. Everything is made with a seed, so that the cells are known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_objects
from skimage.segmentation import watershed

VOXEL = (1.0, 0.5, 0.5)  # micrometres along z, y and x
BLUR = (1.0, 0.25, 0.25)  # standard deviations of the point spread function, in micrometres
OFFSET = 100.0  # counts of the camera in the dark
GAIN = 2.0  # counts of the camera for each photon that it detects
READ_NOISE = 1.6  # standard deviation, in photons
CHANNELS = ("nuclei", "membranes")

Array = NDArray[Any]


class Specimen(NamedTuple):
    """What is under the microscope.

    Attributes
    ----------
    light : ndarray of float32, shape (channels, z, y, x)
        What reaches the camera, blurred, with its background; the brightest voxel of a channel is 1.
    labels : ndarray of uint16, shape (z, y, x)
        The number of the nucleus in each voxel, and 0 between them.
    """

    light: Array
    labels: Array


def simulate(shape: tuple[int, int, int] = (64, 256, 256), seed: int = 0) -> Specimen:
    """Make cells in a block of tissue: a nucleus of 6 to 10 micrometres in every 2,000 cubic ones."""
    rng = np.random.default_rng(seed)
    extent = np.multiply(shape, VOXEL)
    nearest, second = np.full((2, *shape), 9, "f4")  # distances from centres of nuclei, in their radii
    labels = np.zeros(shape, "u2")
    brightness, centres = [0.0], []
    while len(centres) < extent.prod() // 2000:
        centre, radius = rng.uniform(0, 1, 3) * extent, rng.uniform(3, 5)
        if all(np.linalg.norm(centre - other) > 0.9 * (radius + size) for other, size in centres):
            centres.append((centre, radius))
            brightness.append(rng.uniform(0.4, 1))
            _place(centre, radius * rng.uniform(0.85, 1.15, 3), len(centres), rng, (nearest, second, labels))

    chromatin = ndimage.gaussian_filter(rng.standard_normal(shape, "f4"), np.divide(0.8, VOXEL))
    chromatin = np.clip(1 + 0.25 * chromatin / chromatin.std(), 0.2, None)
    nuclei = np.asarray(brightness, "f4")[labels] * chromatin
    # A cell ends at 1.5 radii of its nucleus, or half way to its neighbour. A radius is 4 micrometres.
    distance = 4 * np.minimum(np.abs(nearest - 1.5), np.where(nearest < 1.5, (second - nearest) / 2, np.inf))
    membranes = np.exp(-((distance / 0.4) ** 2) / 2)

    light = np.empty((len(CHANNELS), *shape), "f4")
    for channel, fluorescence in zip(light, (nuclei, membranes), strict=True):
        blurred = ndimage.gaussian_filter(fluorescence, np.divide(BLUR, VOXEL))
        haze = ndimage.gaussian_filter(fluorescence, np.divide(8, VOXEL))
        channel[:] = blurred + 0.15 * haze + 0.02
        channel /= channel.max()
    return Specimen(light, labels)


def _place(centre: Array, radii: Array, number: int, rng: Any, fields: tuple[Array, Array, Array]) -> None:
    """Lay an ellipsoid into the fields: distances from the nearest and second centre, and labels."""
    low, high = (np.rint((centre + sign * 2 * radii.max()) / VOXEL).astype(int) for sign in (-1, 1))
    box = tuple(slice(max(a, 0), min(b, n)) for a, b, n in zip(low, high, fields[2].shape, strict=True))
    rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    places = [np.arange(part.start, part.stop) * step for part, step in zip(box, VOXEL, strict=True)]
    offsets = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1) - centre
    distance = np.linalg.norm(offsets @ rotation / radii, axis=-1)
    nearest, second, labels = (field[box] for field in fields)
    labels[(distance < 1) & (distance < nearest)] = number
    second[:] = np.minimum(second, np.maximum(nearest, distance))
    nearest[:] = np.minimum(nearest, distance)


def expect(light: Array, photons: float) -> Array:
    """Work out the counts without noise, where the brightest voxel sends so many photons."""
    return OFFSET + GAIN * photons * light


def expose(light: Array, photons: float, seed: int = 0) -> Array:
    """Take a picture: photons with shot noise, the camera's read noise, offset and gain, as uint16."""
    rng = np.random.default_rng(seed)
    detected = rng.poisson(photons * light) + READ_NOISE * rng.standard_normal(light.shape, "f4")
    return np.clip(np.rint(OFFSET + GAIN * detected), 0, 65535).astype("u2")


def segment(counts: Array) -> Array:
    """Find nuclei: a Gaussian of 0.7 micrometres, Otsu's threshold, a watershed of the distance transform.

    Returns
    -------
    ndarray of int32
        The number of the nucleus in each voxel, and 0 between them.
    """
    smooth = ndimage.gaussian_filter(counts.astype("f4"), np.divide(0.7, VOXEL))
    mask = remove_small_objects(ndimage.binary_fill_holes(smooth > threshold_otsu(smooth)), max_size=100)
    distance = ndimage.distance_transform_edt(mask, sampling=VOXEL)
    distance = ndimage.gaussian_filter(distance, np.divide(1, VOXEL))
    around = np.ones([2 * int(3 / step) + 1 for step in VOXEL], bool)
    peaks = peak_local_max(distance, footprint=around, labels=mask.astype("u1"), exclude_border=False)
    markers = np.zeros(mask.shape, "i4")
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, markers, mask=mask)
