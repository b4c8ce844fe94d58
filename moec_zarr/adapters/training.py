"""Dictionaries trained on chunks that are spread over a variable, and kept where they help others of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from moec_zarr.adapters.meaning import part_of, stored_values
from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import Section, read_stream
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.codec.trials import OCTAVE, measure_cost, try_encode
from moec_zarr.config import config
from moec_zarr.dictionary import Dictionary
from moec_zarr.fit.advice import Advice, read_advice
from moec_zarr.settings import Settings
from moec_zarr.statistics import valid_voxels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import xarray as xr

__all__ = [
    "HELD_OUT",
    "LEAST",
    "MOST",
    "Trained",
    "choose_regions",
    "parts_to_train",
    "train_codec",
    "train_on",
]

_Codec = TypeVar("_Codec", bound=Settings)

LEAST, MOST = 4, 8
"""Number of chunks that a dictionary is trained on."""

HELD_OUT = 2
"""Number of chunks beside these, on which it is tried."""

_LOOKED_AT = 2  # times as many chunks, until enough of them say something
_VALID = 0.2  # share of the voxels of a chunk that says something
_WORSE = 0.005  # octaves of bytes, or of the error, that a dictionary may lose: it saves time


def choose_regions(
    shape: tuple[int, ...], chunks: tuple[int, ...], count: int = MOST
) -> Iterator[tuple[slice, ...]]:
    """Give whole chunks of an array from which `train_codec` takes `count`, in that order.

    The first few of them lie as far from one another as those of Halton's sequence. Along an axis that is
    shorter than a chunk, they are as long as that.
    """
    whole = tuple(n // side * side or n for n, side in zip(shape, chunks, strict=True))
    grid = ChunkGrid(whole, chunks)
    bases = iter((2, 3, 5, 7, 11, 13, 17, 19))
    axes = [(count, next(bases) if count > 1 else 2) for count in grid.counts]
    # Of a small grid, places repeat, and some do not come.
    numbers = range(1, 16 * len(grid) + 1)
    places = (tuple(int(n * _mirror(number, base)) for n, base in axes) for number in numbers)
    seen: set[tuple[int, ...]] = set()
    for place in places:
        if len(seen) == _LOOKED_AT * (count + HELD_OUT):
            return
        if place not in seen:
            seen.add(place)
            yield grid.region(place)


def _mirror(number: int, base: int) -> float:
    """Return a number between 0 and 1 with the digits of a whole number behind the point, backwards."""
    result, scale = 0.0, 1.0
    while number:
        number, digit = divmod(number, base)
        scale /= base
        result += digit * scale
    return result


def parts_to_train(
    var: xr.Variable, chunks: tuple[int, ...], encoding: Mapping[str, Any], count: int
) -> tuple[xr.Variable, ...]:
    """Return the chunks of a variable from which `train_on` takes `count`; nothing is read yet."""
    return tuple(part_of(var, region, encoding) for region in choose_regions(var.shape, chunks, count))


class Trained(NamedTuple, Generic[_Codec]):
    """What came of a training.

    Attributes
    ----------
    codec : MoECCodec or MoECSerializer
        With a dictionary, or without one.
    chunks : int
        Number of chunks that were taken.
    told : str
        What was found, in words.
    """

    codec: _Codec
    chunks: int
    told: str


def train_on(codec: _Codec, parts: Iterable[xr.Variable], name: str, count: int = MOST) -> Trained[_Codec]:
    """Train a dictionary on some parts of a variable, as `train_codec` does.

    Parts are read one after the other, and no more than are needed.
    """
    return train_codec(codec, (stored_values(part, name) for part in parts), count)


def train_codec(codec: _Codec, blocks: Iterable[Array], count: int = MOST) -> Trained[_Codec]:
    """Train a dictionary on `count` chunks, and keep it where two others do not get worse by it.

    Where neither takes an entry, its advice alone is kept, with which every chunk is read by itself. Chunks
    that are constant or mostly missing are not counted. With fewer than six there is no dictionary. Times
    decide about nothing: the result is the same for the same chunks.

    Parameters
    ----------
    codec : MoECCodec or MoECSerializer
    blocks : iterable of array
        Chunks in the order in which they are taken.
    count : int
    """
    from moec_zarr.codec.train import train_dictionary  # late: few need it

    plain = replace(codec, dictionary=None)
    chosen = list(islice((block for block in blocks if _says_something(block, codec)), count + HELD_OUT))
    if len(chosen) < LEAST + HELD_OUT:
        told = f"no dictionary is trained: {len(chosen)} chunks that were looked at hold enough values"
        return Trained(plain, len(chosen), f"{told}, and {LEAST + HELD_OUT} are needed")
    # The first lie the farthest from one another: they are for the training.
    used, others = chosen[:-HELD_OUT], chosen[-HELD_OUT:]
    with config.set(progress=False, budget="fail"):
        begun = time.perf_counter()
        trained = train_dictionary(plain, used)
        seconds = time.perf_counter() - begun
        if trained.shared is None:
            return Trained(plain, len(chosen), f"no dictionary is made: {len(used)} chunks share nothing")
        tried = _try(others, plain, trained)
        if not tried.taken:
            trained = replace(codec, dictionary=_advice_alone(trained.shared))
    if tried.lost > _WORSE:
        trained = plain
    change = f"{-tried.lost * OCTAVE:+.2f} dB" if codec.ratio else f"{2**tried.lost - 1:+.1%} bytes"
    told = (
        f"trained on {len(used)} chunks in {seconds:.3g} s; others come out with {change}, in "
        f"{tried.share:.0%} of the time"
    )
    kept = "no dictionary" if trained.shared is None else f"a dictionary of {trained.shared.nbytes} bytes"
    return Trained(trained, len(chosen), f"{kept}, {told}")


def _advice_alone(shared: Dictionary) -> str | None:
    """Return a dictionary without entries, which no chunk takes; None where it would say nothing."""
    return None if read_advice(shared) == Advice() else Dictionary.make([], shared.advice).text


def _says_something(block: Array, codec: Settings) -> bool:
    """Say whether a chunk holds different values, and enough of them."""
    valid = block[valid_voxels(block, codec.missing)]
    return valid.size > _VALID * block.size and bool(valid.min() < valid.max())


class _Tried(NamedTuple):
    """What a dictionary does for chunks that it was not trained on.

    Attributes
    ----------
    lost : float
        Octaves of the error, or of the bytes, in the mean.
    share : float
        Of the time that they take without it.
    taken : bool
        Whether a stream takes an entry.
    """

    lost: float
    share: float
    taken: bool


def _try(blocks: Iterable[Array], plain: Settings, trained: Settings) -> _Tried:
    """Encode chunks with and without a dictionary."""
    lost, seconds, taken = [], {plain: 0.0, trained: 0.0}, False
    for block in blocks:
        costs = []
        for codec in seconds:
            begun = time.process_time()
            stream = try_encode(block, codec)
            seconds[codec] += time.process_time() - begun
            if stream is not None:
                costs.append(measure_cost(block, stream, codec))
                taken |= Section.SHARED in read_stream(stream)[1]
        if len(costs) == len(seconds):
            lost.append(costs[1] - costs[0])
    return _Tried(sum(lost) / max(len(lost), 1), seconds[trained] / max(seconds[plain], 1e-9), taken)
