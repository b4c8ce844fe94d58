"""What the chunks of a variable share, found on some of them."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from moec_zarr.arrays import Array, Doubles
from moec_zarr.bitstream.coefficients import write_bases
from moec_zarr.bitstream.container import Section, read_stream
from moec_zarr.bitstream.shared import ENTRY_BYTES
from moec_zarr.bitstream.stream import Stream, open_stream
from moec_zarr.codec.lossless import encode_rounded
from moec_zarr.codec.prepare import prepare
from moec_zarr.codec.trials import measure_cost, try_encode
from moec_zarr.dictionary import MOST_BYTES, MOST_ENTRIES, Dictionary, Entry
from moec_zarr.errors import MoECError
from moec_zarr.fit.advice import Advice
from moec_zarr.model.basis import AXIS_NEIGHBOURS
from moec_zarr.settings import Settings

__all__ = ["train_dictionary"]

_log = logging.getLogger(__name__)
_Codec = TypeVar("_Codec", bound=Settings)
_MOST_CHUNKS = 16  # that heads are compared on
_MOST_HEADS = 8  # that are tried, and kept
_GAIN = 0.005  # octaves of error, or of bytes, in the mean, for which another head is kept
_LOST = 0.015  # the same, up to which heads may do worse than a search of a chunk's own
_SURE = 3  # chunks on which networks lost, or one side of a race won, to say so
_CLEARLY = 0.8  # of the other side's bytes
_SAME_STEP = 1.5  # between the largest and the smallest step over the bound
_MOST_MASKS = MOST_ENTRIES - 32  # the others are heads, their bases alone, and experts
_KEPT_BYTES = MOST_BYTES // 2 - 2048  # of masks: zarr's metadata are read as a whole


class _Encoded(NamedTuple):
    """A chunk as it was encoded without a dictionary."""

    array: Array
    stream: bytes
    parts: Stream
    sections: dict[Section, bytes]


def train_dictionary(codec: _Codec, chunks: Iterable[Any]) -> _Codec:
    """Return a codec with what some chunks share, which others of the same variable take from it.

    These are bases of transforms with the contexts of their coefficients, linear experts that restore them,
    masks that recur, and which kinds of fits are worth a trial. Streams get smaller by it, and are encoded in
    a fraction of the time. They are read with the codec returned alone, whose metadata hold the dictionary.

    Parameters
    ----------
    codec : MoECCodec or MoECSerializer
        What the chunks will be encoded with. A dictionary that it has is replaced.
    chunks : iterable of array
        Some chunks of the variable, of the shape in which they are stored, from as many places and times as
        the others: four at least, better eight to sixteen. Of more, sixteen are taken, spread evenly.

    Returns
    -------
    codec
        With the parameters of the one given, and the same for the same chunks; without a dictionary where
        nothing is shared.

    Raises
    ------
    MoECError
        If there are fewer than two chunks.
    UnsupportedArrayError
        If one of them cannot be encoded.
    """
    arrays = [np.asarray(chunk) for chunk in chunks]
    if len(arrays) < 2:
        raise MoECError(f"got {len(arrays)} chunks to train on; at least 2 are needed, better 8 to 16")
    if len(arrays) > _MOST_CHUNKS:
        places = np.linspace(0, len(arrays) - 1, _MOST_CHUNKS).round().astype(int)
        arrays = [arrays[place] for place in places]
    plain = replace(codec, dictionary=None)
    # Heads and experts are found one without the other.
    bare = replace(codec, dictionary=Dictionary.make([], Advice(own_experts=0.0).write()).text)
    known = [each for each in (_encode(array, bare) for array in arrays) if each is not None]
    masks = _recurring(known)
    advice = _advise(known, plain)
    heads = [] if advice.fits_lost else _choose_heads(known, plain, masks, advice)
    advice = replace(advice, step=advice.step if heads else None)
    experts: list[Entry] = []
    if not advice.fits_lost:
        from moec_zarr.codec.train_experts import train_experts  # late: a fit says what is not installed

        experts, own = train_experts(((each.array, each.parts) for each in known), plain)
        advice = replace(advice, own_experts=own)
    entries = [*experts, *heads, *masks]
    if not entries and advice == Advice():
        return plain
    _log.info("%d experts, %d heads and %d masks: %s", len(experts), len(heads), len(masks), advice)
    return replace(codec, dictionary=Dictionary.make(entries, advice.write()).text)


def _encode(array: Array, codec: Settings) -> _Encoded | None:
    stream = try_encode(array, codec)
    if stream is None:
        return None
    return _Encoded(array, stream, open_stream(stream, array.shape), read_stream(stream)[1])


def _recurring(known: Sequence[_Encoded]) -> list[Entry]:
    """Return masks that occur more than once, those that save the most bytes first."""
    counts = Counter(
        Entry(section, each.sections[section])
        for each in known
        for section in (Section.MASK, Section.EXACT)
        if section in each.sections
    )
    saved = {entry: (count - 1) * len(entry.data) for entry, count in counts.items() if count > 1}
    result: list[Entry] = []
    room = _KEPT_BYTES
    for entry in sorted(saved, key=lambda entry: (-saved[entry], entry)):
        if len(entry.data) <= room and len(result) < _MOST_MASKS:
            result.append(entry)
            room -= len(entry.data)
    return result


def _advise(known: Sequence[_Encoded], codec: Settings) -> Advice:
    """Return which kinds of fits lost or won on all chunks."""
    fitted = [each for each in known if each.parts.coefficients is not None or each.parts.network is not None]
    networks_lost = codec.has_networks and codec.model == "auto" and len(fitted) >= _SURE
    networks_lost = networks_lost and all(each.parts.network is None for each in fitted)
    if not codec.is_bounded or len(known) < _SURE:
        stored = codec.ratio is not None and all(each.parts.values is not None for each in known)
        return Advice(
            networks_lost=networks_lost,
            fits_lost=stored and len(known) >= _SURE,
            fitted=_SURE <= len(fitted) == len(known),
        )
    shares, steps = [], []
    for each in known:
        chunk = prepare(each.array, codec.missing, None)
        if each.parts.values is not None or chunk.is_constant:
            shares.append(math.inf)
            continue
        rounded = encode_rounded(chunk, codec.max_error or 0.0, codec.max_relative_error or 0.0)
        shares.append(len(each.stream) / len(rounded))
        if each.parts.coefficients is not None and each.parts.residual is not None:
            steps.append(2 * each.parts.coefficients.step / each.parts.residual.spacing)
    alike = len(steps) >= _SURE and max(steps) <= _SAME_STEP * min(steps)
    return Advice(
        networks_lost=networks_lost,
        fits_lost=min(shares) >= 1 and all(each.parts.values is not None for each in known),
        fits_won=max(shares) < _CLEARLY,
        step=float(np.exp(np.mean(np.log(steps)))) if alike else None,
    )


def _choose_heads(
    known: Sequence[_Encoded], codec: Settings, masks: Sequence[Entry], advice: Advice
) -> list[Entry]:
    """Return heads of chunks with which the others do best, one after the other."""
    heads: dict[Entry, set[int]] = {}
    for number, each in enumerate(known):
        if (found := _head_of(each)) is not None:
            heads.setdefault(found, set()).add(number)
    if not heads:
        return []
    tried, fast = list(heads), replace(codec, effort="fast")
    if len(tried) > _MOST_HEADS:
        tried = [tried[place] for place in np.linspace(0, len(tried) - 1, _MOST_HEADS).round().astype(int)]
    costs = np.full((len(tried), len(known)), np.inf)
    own = np.array([measure_cost(each.array, each.stream, codec) for each in known])
    alone = replace(advice, no_search=True, own_experts=0.0).write()
    for row, head in enumerate(tried):
        other = replace(fast, dictionary=Dictionary.make([head, *masks], alone).text)
        for column, each in enumerate(known):
            if heads[head] == {column} and len(known) > 2:
                continue  # what it does for its own chunk says nothing of others
            if each.parts.values is not None:
                costs[row, column] = 0.0  # rounded values win again, whatever is fitted
                continue
            if (encoded := try_encode(each.array, other)) is not None:
                costs[row, column] = measure_cost(each.array, encoded, other) - own[column]
    chosen = [tried[row] for row in _select(costs)]
    # Where a context is fitted anew, edge weights are what is worth an entry.
    axes = max(len(each.parts.coefficients.bases) for each in known if each.parts.coefficients is not None)
    bases = dict.fromkeys(Entry(head.section, head.data[: -(AXIS_NEIGHBOURS * axes + 7)]) for head in chosen)
    return [*chosen, *(each for each in bases if len(each.data) > 2 * ENTRY_BYTES)]


def _select(costs: Doubles) -> list[int]:
    """Select rows greedily, so that the mean over the columns of the least cost falls."""
    chosen: list[int] = []
    best = np.full(costs.shape[1], _LOST + _GAIN)  # else a chunk is searched for bases of its own
    while len(chosen) < min(_MOST_HEADS, len(costs)):
        means = [float(np.minimum(best, row).mean()) for row in costs]
        row = int(np.argmin(means))
        if best.mean() - means[row] < _GAIN:
            break
        chosen.append(row)
        best = np.minimum(best, costs[row])
    return chosen


def _head_of(each: _Encoded) -> Entry | None:
    """Return bases and context of a chunk's transform."""
    if (coefficients := each.parts.coefficients) is None:
        return None
    length = len(write_bases(coefficients.bases)) + 4
    payload, axes = each.sections[Section.TRANSFORM], len(coefficients.bases)
    context = payload[length : length + AXIS_NEIGHBOURS * axes + 7]
    return Entry(Section.TRANSFORM, payload[: length - 4] + context)
