"""A chunk's network, its latents, or both: whichever loses least in the bytes that there are.

Latents alone win where the field is smooth or periodic, a network alone where few bytes meet much
structure, and a small network that corrects latents in between. What they reach is measured.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moec_zarr import network
from moec_zarr.config import config
from moec_zarr.errors import MoECError
from moec_zarr.fit import RECIPES, Recipe, fit_field, scaled
from moec_zarr.format import FRAME
from moec_zarr.init import Field, architecture_for
from moec_zarr.latents import CHANNELS, Latents, Synthesis
from moec_zarr.network import Model
from moec_zarr.rdo import fit_latents, has_bases, squared_error
from moec_zarr.settings import Settings

__all__ = ["Fitted", "Sizes", "fit"]

_log = logging.getLogger(__name__)
_MOST_SHIFT = 10  # octaves between half the range of the data and the scale they are fitted at
_SAMPLE = 1 << 16  # voxels that the deviation is measured on
_LEAST_CORRECTION = 120  # bytes of a network that corrects anything
_TILE = 1 << 20  # voxels that latents are evaluated at together


@dataclass(frozen=True)
class Sizes:
    """How many bytes the sections of a model and of latents take."""

    model: Callable[[Model], int]
    latents: Callable[[Latents], int]


@dataclass(frozen=True)
class Fitted:
    """What stands for a chunk's valid values, in units of half their range around its middle.

    Attributes
    ----------
    model : Model or None
    latents : Latents or None
        One of them at least.
    error : float
        Mean square error.
    """

    model: Model | None
    latents: Latents | None
    error: float


def fit(
    array: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    middle: float,
    half: float,
    settings: Settings,
    sizes: Sizes,
    budget: int,
    *,
    share: float = 1.0,
    progress: Callable[[float], None] = lambda share: None,
) -> Fitted:
    """Fit what a chunk and a byte budget call for.

    Parameters
    ----------
    array : array, every axis longer than one
        Never written to. Latents need some copies of it in single precision.
    valid : bool array of the same shape, or None
        Which voxels are fitted; all where None.
    middle, half : float
        Centre and half the width of the valid values' range: what is returned yields
        ``(array - middle) / half``.
    sizes : Sizes
    budget : int
        Bytes that the sections may take; kept.
    share : float
        Of the effort's steps that are taken.

    Raises
    ------
    MoECError
        If ``moec_zarr.config`` asks for a device that is not there.
    """
    device = _device(config.get("device"))
    voxels = array.size if valid is None else int(valid.sum())
    recipe = scaled(RECIPES[settings.effort], voxels, share)
    field = Field(array, valid, middle, half)
    chosen: Fitted | None = None
    with _threads(config.get("threads")):
        if has_bases(array.shape):
            for part in (0.0, *recipe.corrections):
                found = _with_latents(field, recipe, settings, sizes, budget, part, device)
                chosen = _better(chosen, found)
        for part in (*recipe.shorter, 1.0):
            least = math.inf if chosen is None else chosen.error
            shorter = replace(recipe, steps=round(part * recipe.steps), trial=recipe.trial / part)
            told = progress if part == 1.0 else lambda share: None
            alone = _fitted(field, shorter, settings, sizes, budget, least, device, 0, told)
            chosen = _better(chosen, alone)
    assert chosen is not None  # a network is given up for something better alone
    return chosen


def _better(one: Fitted | None, other: Fitted | None) -> Fitted | None:
    """Whichever has the lesser error, of those that there are."""
    if other is not None:
        names = {"latents": other.latents, "network": other.model}
        parts = " and ".join(name for name, part in names.items() if part is not None)
        _log.info("%s: mean square error %.4g", parts, other.error)
    if one is None or other is None:
        return one or other
    return one if one.error <= other.error else other


def _with_latents(
    field: Field, recipe: Recipe, settings: Settings, sizes: Sizes, budget: int, part: float, device: str
) -> Fitted | None:
    """Latents, with a network that has `part` of the bytes; None where the bytes do not suffice."""
    correcting = int(part * budget)
    if part and correcting < _LEAST_CORRECTION:
        return None
    if not part and settings.experts is not None:
        return None  # experts were asked for
    target = np.empty(field.array.shape, np.float32)
    for row in range(len(target)):  # at most a row in double precision
        target[row] = field.targets(row)
    if field.valid is not None:
        target[~field.valid] = 0
    latents = fit_latents(target, field.valid, sizes.latents, budget - correcting)
    if latents is None:
        return None
    if not part:
        voxels = target.size if field.valid is None else int(field.valid.sum())
        error = squared_error(Synthesis(latents).whole(), target, field.valid)
        return Fitted(None, latents, error / voxels)
    del target
    base, channels = _evaluated(latents)
    field = replace(field, base=base, channels=channels)
    room = budget - sizes.latents(latents) - FRAME
    recipe = replace(recipe, steps=recipe.correcting, starts=recipe.starts[:1])
    found = _fitted(field, recipe, settings, sizes, room, math.inf, device, CHANNELS)
    return None if found is None else replace(found, latents=latents)


def _fitted(
    field: Field,
    recipe: Recipe,
    settings: Settings,
    sizes: Sizes,
    budget: int,
    least: float,
    device: str,
    channels: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Fitted | None:
    """A network for what latents leave of a field; None where it would not come near `least`."""
    generator = torch.Generator().manual_seed(settings.seed)
    deviation = float(field.targets(field.draw(_SAMPLE, generator)).std(dtype=np.float64))
    # Fitted at the scale of their deviation, rounded to a power of two of their range, the data
    # suit the learning rate, and the decoder's step codes alone undo it.
    shift = min(max(round(-math.log2(deviation)), 0), _MOST_SHIFT) if deviation else 0
    architecture = architecture_for(field.array.ndim, budget, settings.experts, channels)
    unit = 2.0**shift
    try:
        found = fit_field(
            replace(field, scale=field.scale / unit, unit=unit), architecture, recipe, sizes.model, budget,
            shift=shift, seed=settings.seed, device=device, least=least * unit**2, progress=progress,
        )  # fmt: skip
    except OverflowError:
        if least == math.inf and not channels:
            raise
        return None
    return None if found is None else Fitted(found[0], None, found[1] / unit**2)


def _evaluated(latents: Latents) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What latents add up to on the whole grid, and what a network reads of them."""
    synthesis = Synthesis(latents)
    indices = [np.arange(n) for n in latents.shape]
    base = np.empty(latents.shape, np.float32)
    channels = np.empty((*latents.shape, CHANNELS), np.float32)
    for tile, rows in network.tiled(indices, pointwise=False, voxels=_TILE):
        base[tile], read = synthesis.at(rows, False)
        channels[tile] = read.reshape(*base[tile].shape, CHANNELS)
    return base, channels.reshape(-1, CHANNELS)


def _device(name: object) -> str:
    if name == "cpu" or (name == "cuda" and torch.cuda.is_available()):
        return str(name)
    raise MoECError(
        f"config device is {name!r}, expected 'cpu', or 'cuda' where torch finds a GPU (it finds "
        f"{torch.cuda.device_count()}); set moec_zarr.config or MOEC_ZARR_DEVICE"
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Torch with so many threads, and as it was once no fit is running any more."""
    with _running.lock:
        if not _running.fits:
            _running.before = torch.get_num_threads()
        _running.fits += 1
    torch.set_num_threads(count)
    try:
        yield
    finally:
        with _running.lock:
            _running.fits -= 1
            if not _running.fits:
                torch.set_num_threads(_running.before)


@dataclass
class _Running:
    """How many fits run in this process, and torch's threads before the first of them."""

    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    fits: int = 0
    before: int = 1


_running = _Running()
