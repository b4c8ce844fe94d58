"""Chunks whose values are stored as integers: exactly, or rounded as far as a bound allows."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from moec_zarr.arrays import Array, Bools, Integers
from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.exact import write_exact, write_planes, write_predicted, write_table
from moec_zarr.bitstream.lattice import arrange, neighbours
from moec_zarr.bitstream.prediction import Predictor
from moec_zarr.bitstream.values import write_lossless
from moec_zarr.codec.prepare import Prepared
from moec_zarr.codec.rounding import Rounded, distinct_values, round_within
from moec_zarr.fit.advice import read_advice
from moec_zarr.fit.prediction import Seen, adapt_predictor, choose_predictor, draw_seen, rank_predictors
from moec_zarr.quality import measure

__all__ = [
    "Layout",
    "encode_alike",
    "encode_best",
    "encode_lossless",
    "encode_lossless_within",
    "encode_rounded",
    "encode_rounded_within",
    "may_take",
    "sample_rounded",
]

_log = logging.getLogger(__name__)
# Number of the runs of values that are deflated as a sample: first a few in a moment, then all. Where a
# dictionary says that chunks like this one are fitted, the few suffice.
_FEW_RUNS, _RUNS = 8, 32
_RUN = 1 << 10  # values
# Times as much as its sample at most, about, an array may be deflated, and as a few of its runs.
_DEFLATED_MORE, _DEFLATED_MORE_THAN_FEW = 5.0, 10.0
_SPARSE = (
    1.5  # integers in the range of those that occur, for each of them, from which a table is worth while
)
_SMALL = 1 << 16  # bytes that deflated byte planes are tried on
_QUICK, _THOROUGH, _TRIED = 3, 19, 2  # levels of zstd, and on how many candidates the latter is tried
# Of the bytes of the quick level at least, about, the thorough one takes: of large arrays, and of small ones.
_LESS_THOROUGHLY = 0.88, 0.75
_SAMPLED, _SAMPLE = 1 << 16, 1 << 15  # arrays of so many voxels are sampled first; and of how many values
_PER_NUMBER = 8  # times as many values as elsewhere, for each that differs, are to be sampled of a few
_UNLIKE = 0.55  # of what such samples take at least, about, an array takes
_HOPELESS = 2.0  # times the bytes of the best way by the quick level: another way is no better
_MISJUDGED = 0.6  # of the estimated bytes at least, about, integers take


def encode_lossless(chunk: Prepared) -> bytes:
    """Encode without loss."""
    return encode_rounded(chunk, 0.0, 0.0)


def encode_lossless_within(chunk: Prepared, limit: int) -> bytes | None:
    """Encode without loss; return None if that takes more bytes than a limit."""
    array = chunk.array
    if array.size > max(_RUNS * _RUN, _SAMPLED):
        # A sample that deflates far less than needed spares coding the whole chunk.
        fitted = read_advice(chunk.dictionary).fitted
        more = _DEFLATED_MORE if fitted else _DEFLATED_MORE_THAN_FEW
        if _deflates_less(array, _FEW_RUNS, more * limit, quick=True) or (
            not fitted and _deflates_less(array, _RUNS, _DEFLATED_MORE * limit, quick=False)
        ):
            return None
    return _encode(chunk, 0.0, 0.0, limit) if may_take(chunk, 0.0, limit) else None


def _deflates_less(array: Array, runs: int, limit: float, *, quick: bool) -> bool:
    """Say whether a sample of an array says that all of it deflates to more than a limit."""
    starts = np.linspace(0, array.size - _RUN, runs).astype(np.int64)
    sample = array.reshape(-1)[starts[:, None] + np.arange(_RUN)]
    return bool(len(write_lossless(sample, quick=quick)) > limit * sample.size / array.size + 64)


def encode_rounded(chunk: Prepared, max_error: float, max_relative_error: float) -> bytes:
    """Encode values rounded as far as a bound allows, but those that the chunk keeps exactly."""
    stream = _encode(chunk, max_error, max_relative_error, None)
    assert stream is not None
    return stream


def encode_rounded_within(
    chunk: Prepared, max_error: float, max_relative_error: float, limit: int
) -> bytes | None:
    """Encode the same; return None if that takes more bytes than a limit."""
    return _encode(chunk, max_error, max_relative_error, limit)


def may_take(chunk: Prepared, max_error: float, limit: int) -> bool:
    """Say by samples whether rounded values may take so few bytes."""
    expected = sample_rounded(chunk, max_error, 0.0)
    return expected is None or _UNLIKE * expected <= limit - len(chunk.write(chunk.sections))


class Layout(NamedTuple):
    """How integers are laid out in a stream.

    Attributes
    ----------
    has_table : bool
        Whether they are numbers of those that occur.
    predictor : Predictor or None
        None for byte planes.
    """

    has_table: bool
    predictor: Predictor | None


class _Candidate(NamedTuple):
    rounded: Rounded
    table: bytes | None
    integers: Integers  # of the valid voxels, numbers of the table where there is one
    predictors: list[Predictor]  # the best one by a sample first; none where they are not predicted
    predicted: float  # bytes with the best one of these, estimated
    planes: int  # bytes of the quick level


def _encode(chunk: Prepared, max_error: float, max_relative_error: float, limit: int | None) -> bytes | None:
    array, values = chunk.array, chunk.valid_values
    exact = [(each.value, values == each.value) for each in chunk.exact]
    ways = [
        each
        for each in round_within(values, max_error, max_relative_error, avoid=chunk.missing)
        if all((each.values[where] == value).all() for value, where in exact)
    ]
    found = encode_best(chunk, ways, (max_error, max_relative_error), limit)
    if found is None:
        return None
    stream = found[0]
    if array.nbytes <= _SMALL:
        deflated = chunk.write(chunk.sections | {Section.LOSSLESS: write_lossless(array)})
        stream = min(stream, deflated, key=len)
    return stream if limit is None or len(stream) <= limit else None


def encode_best(
    chunk: Prepared, ways: list[Rounded], bounds: tuple[float, float], limit: int | None = None
) -> tuple[bytes, Layout] | None:
    """Encode values in the smallest of some ways.

    Parameters
    ----------
    chunk : Prepared
    ways : list of Rounded
        Its valid values.
    bounds : tuple of float
        That the stream states: `max_error` and `max_relative_error`.
    limit : int, optional
        Bytes: what takes clearly more is not tried.

    Returns
    -------
    tuple of bytes and Layout, or None
        The stream, which may take more than the limit all the same.
    """
    room = np.inf if limit is None else limit - len(chunk.write(chunk.sections))
    candidates = list(_candidates(chunk, ways))
    best: tuple[bytes, Rounded, Layout] | None = None
    least = min(candidates, key=lambda each: each.predicted)
    if _MISJUDGED * least.predicted <= room:
        integers = _on_box(least.integers, chunk)
        predictor = choose_predictor(*arrange(integers, chunk.valid), least.predictors)
        coded = write_predicted(integers, chunk.valid, predictor)
        if coded is not None:
            payload = write_exact(least.rounded.levels, least.table, coded, *bounds)
            best = payload, least.rounded, Layout(least.table is not None, predictor)
    less = _LESS_THOROUGHLY[chunk.array.size < _SAMPLED]
    for each in sorted(candidates, key=lambda each: each.planes)[:_TRIED]:
        if less * each.planes > min(room, np.inf if best is None else len(best[0])):
            break
        coded = write_planes(each.integers, _THOROUGH)
        payload = write_exact(each.rounded.levels, each.table, coded, *bounds)
        if best is None or len(payload) < len(best[0]):
            best = payload, each.rounded, Layout(each.table is not None, None)
    return None if best is None else (_write(chunk, best[1], best[0]), best[2])


def encode_alike(
    chunk: Prepared, rounded: Rounded, bounds: tuple[float, float], layout: Layout
) -> bytes | None:
    """Encode values as others of the chunk were, rounded a little closer or less; None if that cannot be."""
    integers, table = rounded.integers, None
    if layout.has_table:
        distinct = distinct_values(integers)
        if distinct.size < 2:
            return None
        integers, table = np.searchsorted(distinct, integers), write_table(distinct)
    if layout.predictor is None:
        coded: bytes | None = write_planes(integers, _THOROUGH)
    else:
        predictor = adapt_predictor(layout.predictor, integers)
        coded = write_predicted(_on_box(integers, chunk), chunk.valid, predictor)
    if coded is None:
        return None
    return _write(chunk, rounded, write_exact(rounded.levels, table, coded, *bounds))


def _write(chunk: Prepared, rounded: Rounded, payload: bytes) -> bytes:
    quality = measure(chunk.valid_values, rounded.values)
    header = replace(chunk.header, psnr=quality.psnr, max_error=quality.relative_max_error)
    stream = chunk.write(chunk.sections | {Section.INTEGERS: payload}, header)
    _log.debug("%s as %s: %d bytes", chunk.array.shape, rounded.levels, len(stream))
    return stream


def sample_rounded(chunk: Prepared, max_error: float, max_relative_error: float) -> float | None:
    """Estimate from some voxels and their neighbours in how many bytes a chunk's values are stored.

    None where that says nothing.
    """
    array, valid = chunk.array, chunk.valid
    if array.size < _SAMPLED:
        return None
    axes = sorted((axis for axis, n in enumerate(array.shape) if n > 1), key=lambda axis: array.shape[axis])
    taps = neighbours(len(axes))
    offsets = np.zeros((1 + len(taps), array.ndim), np.int64)  # the first one is the voxel itself
    offsets[1:, axes] = taps
    count = array.size if valid is None else int(np.count_nonzero(valid))
    drawn = np.random.default_rng(0).integers(0, array.size, _SAMPLE // len(offsets) * array.size // count)
    around = np.stack(np.unravel_index(drawn, array.shape), axis=1)[:, None] + offsets
    there: Bools = np.asarray(((around >= 0) & (around < array.shape)).all(axis=2))
    places = tuple(np.moveaxis(np.where(there[..., None], around, 0), 2, 0))
    if valid is not None:
        there &= valid[places]
        known = there[:, 0]
        there, places = there[known], tuple(index[known] for index in places)
    if len(there) < 2:
        return None
    ways = []
    for rounded in round_within(array[places][there], max_error, max_relative_error):
        for numbers in _numbered(rounded.integers):
            integers = np.zeros(there.shape, np.int64)
            integers[there] = numbers
            ways.append(integers)
    # The best one is that whose integers differ least from the nearest ones.
    least = min(ways, key=lambda each: np.log2(1.0 + np.abs(each[:, 0] - each[:, 1])).sum())
    seen = Seen(least[:, 0], least[:, 1:], there[:, 1:])
    return rank_predictors(seen)[1] * count / 8


def _numbered(integers: Integers) -> Iterator[Integers]:
    """Iterate over integers, and the numbers of those that occur where these are far fewer."""
    yield integers
    distinct = distinct_values(integers)
    if _is_sparse(distinct, integers.size // _PER_NUMBER):
        yield np.searchsorted(distinct, integers)


def _is_sparse(distinct: Integers, size: int) -> bool:
    """Say whether a table of the integers that occur may be worth while."""
    span = int(distinct[-1]) - int(distinct[0]) + 1
    return 2 <= distinct.size <= size // 4 and span >= _SPARSE * distinct.size


def _candidates(chunk: Prepared, ways: list[Rounded]) -> Iterator[_Candidate]:
    """Iterate over ways to store rounded values, with about how many bytes each takes."""
    quick = [len(write_planes(each.integers, _QUICK)) for each in ways]
    for rounded, planes in zip(ways, quick, strict=True):
        own, table = rounded.integers, None
        distinct = distinct_values(own)
        if _is_sparse(distinct, own.size):
            # What comes back from afar zstd finds in the values themselves.
            yield _Candidate(rounded, None, own, [], math.inf, planes)
            own, table = np.searchsorted(distinct, own), write_table(distinct)
            planes = len(write_planes(own, _QUICK)) + len(table)
        elif planes > _HOPELESS * min(quick):
            continue
        predictors, bits = rank_predictors(draw_seen(*arrange(_on_box(own, chunk), chunk.valid)))
        more = 0 if table is None else len(table)
        yield _Candidate(rounded, table, own, predictors, bits * own.size / 8 + more, planes)


def _on_box(integers: Integers, chunk: Prepared) -> Integers:
    """Return integers of valid voxels in the box's shape; 0 elsewhere."""
    if chunk.valid is None:
        return integers.reshape(chunk.array.shape)
    result = np.zeros(chunk.array.shape, np.int64)
    result[chunk.valid] = integers
    return result
