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

from moec_zarr.bitstream.container import FRAME
from moec_zarr.config import config
from moec_zarr.errors import MoECError
from moec_zarr.fit.initialise import Field, architecture_for, looks_along
from moec_zarr.fit.presets import RECIPES, Recipe, scaled
from moec_zarr.fit.rdoq import fit_latents, has_bases, squared_error
from moec_zarr.fit.train import fit_field
from moec_zarr.model import network
from moec_zarr.model.coefficients import Latents
from moec_zarr.model.features import Synthesis, channels
from moec_zarr.model.network import Architecture, Model
from moec_zarr.settings import Settings

__all__ = ["Fitted", "Sizes", "fit"]

_log = logging.getLogger(__name__)
_MOST_SHIFT = 10  # octaves between half the range of the data and the scale they are fitted at
_SAMPLE = 1 << 16  # voxels that the deviation is measured on
_CORRECTING = 0.05  # of the bytes are for a network that corrects latents
_LEAST_CORRECTION = 200  # bytes that it has at least
_LONGER = 0.6  # of the error of a shorter fit: what a longer one may hope to reach
_PATIENCE = 2  # rounds without gain, after which the last one is made


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
    progress : callable
        Called with the share done, about: half of it is for latents, half for a network alone.

    Raises
    ------
    MoECError
        If ``moec_zarr.config`` asks for a device that is not there.
    """
    voxels = array.size if valid is None else int(valid.sum())
    recipe = scaled(RECIPES[settings.effort], voxels, share)
    device = _device(config.get("device"))
    task = _Task(Field(array, valid, middle, half), recipe, settings, sizes, budget, device)

    def second_half(done: float) -> None:
        progress((1 + done) / 2)

    with _threads(config.get("threads")):
        chosen = None
        if has_bases(array.shape):
            chosen = _with_latents(task, lambda done: progress(done / 2))
        for part in (*recipe.shorter, 1.0):
            least = math.inf if chosen is None else chosen.error
            shorter = replace(recipe, steps=round(part * recipe.steps), trial=recipe.trial / part)
            told = second_half if part == 1.0 else lambda done: None
            found = _alone(replace(task, recipe=shorter), least, told)
            chosen = _better(chosen, found)
            if found is None or _LONGER * found.error > least:
                break
    assert chosen is not None  # a network is given up for something better alone
    return chosen


@dataclass(frozen=True)
class _Task:
    """What all candidates are fitted to, and how."""

    field: Field
    recipe: Recipe
    settings: Settings
    sizes: Sizes
    budget: int
    device: str

    def error(self, values: NDArray[np.float32], target: NDArray[np.float32]) -> float:
        """Mean square error of values, which a decoder clips to the range of the data."""
        valid = self.field.valid
        voxels = target.size if valid is None else int(valid.sum())
        return squared_error(np.clip(values, -1, 1), target, valid) / voxels


def _told(found: Fitted) -> Fitted:
    """The same, logged."""
    names = {"latents": found.latents, "network": found.model}
    parts = " and ".join(name for name, part in names.items() if part is not None)
    _log.info("%s: mean square error %.4g", parts, found.error)
    return found


def _better(one: Fitted | None, other: Fitted | None) -> Fitted | None:
    """Whichever has the lesser error, of those that there are."""
    if one is None or other is None:
        return one or other
    return one if one.error <= other.error else other


def _with_latents(task: _Task, progress: Callable[[float], None]) -> Fitted | None:
    """Latents alone or with a network that corrects them; None where the bytes suffice for neither."""
    field = task.field
    target = np.empty(field.array.shape, np.float32)
    for row in range(len(target)):  # at most a row in double precision
        target[row] = field.targets(row)
    if field.valid is not None:
        target[~field.valid] = 0
    alone = None
    if task.settings.experts is None:  # else a network is asked for
        latents = fit_latents(target, field.valid, task.sizes.latents, task.budget, tries=task.recipe.tries)
        if latents is not None:
            alone = _told(Fitted(None, latents, task.error(Synthesis(latents).whole(), target)))
    return _better(alone, _corrected(task, target, alone.latents if alone else None, progress))


def _corrected(
    task: _Task, target: NDArray[np.float32], like: Latents | None, progress: Callable[[float], None]
) -> Fitted | None:
    """Latents and a network that corrects them, each fitted in turn to what the other leaves.

    Of the rounds the best. Where values may lie beyond the range of the data, because a decoder clips
    them, or at invalid voxels, latents are left as they are.
    """
    valid, recipe = task.field.valid, task.recipe
    correcting = max(int(_CORRECTING * task.budget), _LEAST_CORRECTION)
    rounds = recipe.rounds if correcting <= task.budget // 3 else 0
    best: Fitted | None = None
    latents, model, aim, since, turn = like, None, target, 0, 0
    while turn < rounds:
        room = task.budget - correcting
        latents = fit_latents(
            aim, None if turn else valid, task.sizes.latents, room, latents, tries=recipe.tries
        )
        if latents is None:
            break
        synthesis = Synthesis(latents)
        base = synthesis.whole()
        steps = recipe.correcting if turn + 1 < rounds else recipe.polishing
        quick = replace(task, recipe=replace(recipe, steps=steps, starts=recipe.starts[:1]))
        room = task.budget - task.sizes.latents(latents) - FRAME - base.ndim
        try:
            model = _correction(quick, base, synthesis.norm, room, turn, model)
        except OverflowError:
            break
        values = np.clip(_evaluated(model, Synthesis(latents, model.looks)), -1, 1)
        better = _better(best, _told(Fitted(model, latents, task.error(values, target))))
        since = 0 if better is not best else since + 1
        best = better
        turn = max(turn + 1, rounds - 1 if since == _PATIENCE else 0)
        progress(turn / rounds)
        aim = base + (target - values)
        if valid is not None:
            aim[~valid] = base[~valid]
    return best


def _correction(
    task: _Task, base: NDArray[np.float32], norm: float, budget: int, turn: int, initial: Model | None
) -> Model:
    """A network that reads latents, which add up to `base`, and corrects them; from `initial`, if any."""
    if initial is None:
        looks = looks_along(base, norm)
        architecture = architecture_for(base.ndim, budget, task.settings.experts, channels(len(looks)))
    else:
        looks, architecture = initial.looks, initial.architecture
    seen = replace(task, field=replace(task.field, base=base, looks=looks, norm=norm))
    found = _network(seen, architecture, budget, turn, initial)
    assert found is not None  # no error is too large to go on
    return replace(found[0], looks=looks)


def _alone(task: _Task, least: float, progress: Callable[[float], None]) -> Fitted | None:
    """A network alone; None where it would not come near `least`."""
    architecture = architecture_for(task.field.array.ndim, task.budget, task.settings.experts)
    try:
        found = _network(task, architecture, task.budget, 0, None, least, progress)
    except OverflowError:
        if least == math.inf:
            raise
        return None
    return None if found is None else _told(Fitted(found[0], None, found[1]))


def _network(
    task: _Task,
    architecture: Architecture,
    budget: int,
    turn: int,
    initial: Model | None,
    least: float = math.inf,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Model, float] | None:
    """A network for what latents leave of a field, and its mean square error."""
    field, seed = task.field, task.settings.seed + turn
    generator = torch.Generator().manual_seed(seed)
    deviation = float(field.targets(field.draw(_SAMPLE, generator)).std(dtype=np.float64))
    # Fitted at the scale of their deviation, rounded to a power of two of their range, the data
    # suit the learning rate, and the decoder's step codes alone undo it.
    shift = min(max(round(-math.log2(deviation)), 0), _MOST_SHIFT) if deviation else 0
    unit = 2.0**shift
    found = fit_field(
        replace(field, scale=field.scale / unit, unit=unit), architecture, task.recipe, task.sizes.model,
        budget, initial=initial, shift=shift, seed=seed, device=task.device, least=least * unit**2,
        progress=progress,
    )  # fmt: skip
    return None if found is None else (found[0], found[1] / unit**2)


def _evaluated(model: Model, synthesis: Synthesis) -> NDArray[np.float32]:
    """What latents and a network that reads them add up to on the whole grid."""
    architecture, shape = model.architecture, synthesis.shape
    out = np.empty(shape, np.float32)
    tiles = network.evaluate(
        architecture, model.weights(), shape, [np.arange(n) for n in shape],
        pointwise=False, voxels=architecture.tile, synthesis=synthesis,
    )  # fmt: skip
    for tile, values in tiles:
        out[tile] = values
    return out


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
