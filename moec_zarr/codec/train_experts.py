"""Linear experts that the chunks of a variable share, found on some of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from moec_zarr.arrays import Array
from moec_zarr.bitstream.container import Section
from moec_zarr.bitstream.stream import Stream
from moec_zarr.codec.prepare import prepare
from moec_zarr.dictionary import Entry
from moec_zarr.fit.transform.expert_fit import NEPER, worth_of
from moec_zarr.fit.transform.expert_sample import Sample, draw_sample
from moec_zarr.fit.transform.restoration import restore_within
from moec_zarr.fit.transform.shared_experts import fit_shared_experts
from moec_zarr.fit.transform.straighten import measure_clipped
from moec_zarr.model.coefficients import CoefficientField
from moec_zarr.model.folding import folded_shape
from moec_zarr.settings import Settings

__all__ = ["TrainedExperts", "train_experts"]

_WORTH = 0.02  # dB in the mean, for which experts are kept


class TrainedExperts(NamedTuple):
    """What was found.

    Attributes
    ----------
    entries : list of Entry
    own : float or None
        dB that experts of chunks' own gain in the mean, net of their bytes; not known where None.
    """

    entries: list[Entry]
    own: float | None


def train_experts(known: Iterable[tuple[Array, Stream]], codec: Settings) -> TrainedExperts:
    """Fit experts to what transforms leave of chunks.

    Parameters
    ----------
    known : iterable of array and Stream
        Chunks, and their streams without experts.
    codec : Settings
    """
    samples: dict[int, list[Sample]] = {}
    gains = []
    for array, parts in known:
        if (coefficients := parts.coefficients) is None or parts.network is not None:
            continue
        if folded_shape(coefficients.shape) != coefficients.shape:
            continue
        chunk = replace(
            prepare(array, codec.missing, None), exact=tuple(parts.exact_values), scaled=parts.scaled
        )
        field = chunk.field
        values, target = CoefficientField(coefficients).whole(), field.normalised()
        if (sample := draw_sample(values, target, field.valid)) is None:
            continue
        samples.setdefault(values.ndim, []).append(sample)
        nbytes = parts.sections[Section.TRANSFORM.name.lower()]
        restored, gain = restore_within(values, target, field.valid, field.zero, nbytes), 0.0
        if restored is not None:
            error = measure_clipped(values, target, field.valid).error
            gain = math.log(error / restored.error) if restored.error else math.inf
            gain -= worth_of(nbytes, values.size) * restored.restoration.nbytes
        gains.append(max(gain, 0.0))
    if not gains:
        return TrainedExperts([], None)
    axes = max(samples, key=lambda axes: len(samples[axes]))
    sets, gain = fit_shared_experts(samples[axes], axes)
    entries = [Entry(Section.LINEAR_EXPERTS, each.payload) for each in sets] if gain >= _WORTH else []
    return TrainedExperts(list(dict.fromkeys(entries)), NEPER * sum(gains) / len(gains))
