"""What each criterion comes to, by what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from moec_zarr.report.comparison.labels import figure_text
from moec_zarr.report.verdict.measures import Beyond, Recorded, Slices, Values

__all__ = ["OF_RECORDS", "OF_VALUES", "Finding", "bound_negative", "percent"]

_LISTED = 4  # places that are named one by one
_COUNTED = {"channel", "depth", "height", "layer", "level", "member", "pressure", "slice", "time"}
_TOO_LARGE = "sums of these values are larger than a double holds"
_ZEROS = 0.01  # share of the values that zeros are asked for from


def percent(share: float, digits: int = 2) -> str:
    """Write a share in percent, of so many digits, and of four where it is nearly all."""
    return f"{figure_text(100 * share, 4 if 0.995 <= abs(share) < 1 else 3 if abs(share) >= 1 else digits)} %"


def _part(share: float, what: str) -> str:
    """Write an error as a part of something: ``error 78 % of standard deviation``."""
    if share == math.inf:
        return f"error where the {what} is 0"
    return (
        f"error {figure_text(share, 2)} times the {what}"
        if share >= 10
        else f"error {percent(share)} of {what}"
    )


class Finding(NamedTuple):
    """What one criterion comes to: a value to compare, or why there is none."""

    value: float | None
    measured: str
    title: str = ""
    applies: bool = True


# ------------------------------------------------------------------ by place


def _levels(recorded: Recorded, limit: float) -> Finding:
    if recorded.low is not None and recorded.high is not None and recorded.low < 0 < recorded.high:
        return Finding(
            None, "values have both signs; the signal is what their error is held against", "", False
        )
    return _by_place(recorded, limit, lambda slices: slices.of_size, "root mean square value")


def _signal(recorded: Recorded, limit: float) -> Finding:
    if recorded.low == recorded.high:
        return Finding(None, "all values are the same", "", False)
    found = _by_place(recorded, limit, lambda slices: slices.of_deviation, "standard deviation")
    return found._replace(title=f"signal at {found.title}") if found.title else found


def _by_place(recorded: Recorded, limit: float, share: Callable[[Slices], Any], of_what: str) -> Finding:
    """Judge along each axis; named are the places along that axis where the fewest fail."""
    if recorded.slices is None:
        return Finding(None, "an older conversion did not record it by slice")
    views = [recorded.slices.along(i) for i in range(len(recorded.slices.axes))] or [recorded.slices]
    some = recorded.slices.n_valid > 0
    if not np.isfinite([recorded.slices.rmse[some], recorded.slices.deviation[some]]).all():
        return Finding(None, _TOO_LARGE)
    shares = [np.atleast_1d(share(view)) for view in views]
    failing = [np.flatnonzero(each > limit) for each in shares]
    worst = max(float(np.nanmax(each, initial=0.0)) for each in shares)
    if not any(places.size for places in failing):
        return Finding(worst, _part(worst, of_what))
    i = min(
        (i for i, places in enumerate(failing) if places.size), key=lambda i: failing[i].size / shares[i].size
    )
    named = _name_places(views[i], failing[i].tolist(), int(np.nanargmax(shares[i])))
    return Finding(worst, _part(float(np.nanmax(shares[i])), of_what), named)


def _name_places(view: Slices, failing: list[int], worst: int) -> str:
    """Name the places along one axis: ``levels 5000, 7000 Pa``, or how many they are and the worst."""
    if not view.axes:
        return ""
    (axis,), (indices,) = view.axes, view.indices
    counted = axis.title.rpartition(" ")[2].lower() in _COUNTED
    if len(failing) > _LISTED:
        things = f"{axis.title}s" if counted else f"places along {axis.title}"
        return f"{len(failing)} of {len(indices)} {things}, the worst {axis.place(indices[worst])}"
    title = axis.title + "s" * (counted and len(failing) > 1)
    places = [axis.place(indices[i]) for i in failing]
    if axis.values is None:
        return (
            f"{axis.title} {', '.join([places[0], *(place.removeprefix('index ') for place in places[1:])])}"
        )
    if axis.units and all(place.endswith(f" {axis.units}") for place in places):
        places[:-1] = [place.removesuffix(f" {axis.units}") for place in places[:-1]]
    return f"{title} {', '.join(places)}"


# ------------------------------------------------------------------ of all values


def _zeros(recorded: Recorded, limit: float) -> Finding:
    if recorded.zeros is None:
        return Finding(None, "an older conversion did not count them")
    before, after, kept = recorded.zeros
    if before < _ZEROS * recorded.n_valid:
        return Finding(None, f"{percent(before / recorded.n_valid)} of the values are zero", "", False)
    part = kept / before
    shares = " of the values before, ".join(percent(each / recorded.n_valid) for each in (before, after))
    if kept < before:  # never rounded to all of them
        return Finding(part, f"{percent(min(part, 0.9999))} of them remain; {shares} after")
    return Finding(1.0, f"all remain; {shares} after")


def _bias(recorded: Recorded, limit: float) -> Finding:
    if math.isnan(recorded.bias) and recorded.slices is None:
        return Finding(None, "an older conversion did not record it")
    if recorded.bias == 0:
        return Finding(0.0, "no bias")
    if recorded.slices is None:
        return Finding(None, "an older conversion did not record the size of the values")
    whole = recorded.slices.along()
    magnitude, deviation = float(whole.magnitude), float(whole.deviation)
    if not all(map(math.isfinite, (recorded.bias, magnitude, deviation))):
        return Finding(None, _TOO_LARGE)
    small, what = min((magnitude, "mean magnitude"), (deviation or math.inf, "standard deviation"))
    share = abs(recorded.bias) / small if small else math.inf
    return Finding(
        share, f"mean {'too high' if recorded.bias > 0 else 'too low'} by {percent(share)} of {what}"
    )


def _largest(recorded: Recorded, limit: float) -> Finding:
    if recorded.low is None or recorded.high is None:
        return Finding(None, "no range is on record")
    span = recorded.high / 2 - recorded.low / 2
    share = 0.0 if recorded.max_error == 0 else recorded.max_error / 2 / span if span else math.inf
    return Finding(share, f"largest error {percent(share)} of the range")


def _spectrum(recorded: Recorded, limit: float) -> Finding:
    if recorded.spectrum is None:
        return Finding(None, "slices have no spectrum: they have too few voxels, or no variance")
    parting = recorded.spectrum.parting
    if parting is None:
        return Finding(0.0, "both stay within a factor of two at all wavelengths")
    return Finding(1 / parting, f"parts at a wavelength of {figure_text(1 / parting)} voxels")


def bound_negative(recorded: Recorded) -> Finding:
    """Judge by records alone, as far as they say enough."""
    if recorded.low is None or recorded.low < 0:
        return Finding(None, "the original has values below 0", "", False)
    if recorded.low >= recorded.max_error:
        return Finding(0.0, "no error is as large as the smallest value")
    return Finding(None, "takes the source, which was not given")


# ------------------------------------------------------------------ of values of both


def _missing(values: Values, limit: float) -> Finding:
    return Finding(float(values.differ), f"{values.differ} are missing in one of both alone")


def _negative(values: Values, limit: float) -> Finding:
    if values.low[0] < 0:
        return Finding(None, "the original has values below 0", "", False)
    share = percent(values.negative / values.n)
    text = f"{values.negative} values below 0, {share}; the lowest is {figure_text(values.low[1])}"
    return Finding(float(values.negative), text if values.negative else "none is below 0")


def _shares(values: Values, limit: float) -> Finding:
    known = [each for each in values.beyond if each.before or each.after]
    if not known:
        return Finding(None, "no value of either is beyond a threshold")

    def change(each: Beyond) -> float:
        return abs(each.after / each.before - 1) if each.before else math.inf

    worst = max(known, key=change)
    text = ", ".join(
        f"{'up to' if each.lower else 'from'} {each.name}{' on' * (not each.lower)}: "
        f"{percent(each.before / values.n, 3)} before, {percent(each.after / values.n, 3)} after"
        for each in ([worst] if change(worst) > limit else known)
    )
    return Finding(change(worst), text)


def _extremes(values: Values, limit: float) -> Finding:
    (low, low_after), (high, high_after) = values.low, values.high
    # Half of each: no difference of two doubles is infinite then.
    change = max(abs(low_after / 2 - low / 2), abs(high_after / 2 - high / 2))
    share = 0.0 if change == 0 else change / (high / 2 - low / 2) if high > low else math.inf
    text = (
        f"smallest {figure_text(low, 4)} before, {figure_text(low_after, 4)} after; "
        f"largest {figure_text(high, 4)} before, {figure_text(high_after, 4)} after"
    )
    return Finding(share, text)


def _percentiles(values: Values, limit: float) -> Finding:
    if not np.isfinite([values.deviation, *map(sum, values.percentiles.values())]).all():
        return Finding(None, _TOO_LARGE)
    part, (before, after) = max(values.percentiles.items(), key=lambda item: abs(item[1][1] - item[1][0]))
    change = abs(after - before)
    low, high = (values.percentiles[part][0] for part in (min(values.percentiles), max(values.percentiles)))
    spread = max(high - low, values.deviation)
    share = 0.0 if change == 0 else change / spread if spread else math.inf
    text = (
        f"{part:g} % of the values are up to {figure_text(before, 4)} before, {figure_text(after, 4)} after"
    )
    return Finding(share, text if change else "none has moved")


def _correlation(values: Values, limit: float) -> Finding:
    if values.correlation is None:
        return Finding(None, "the original or the decoded is constant", "", False)
    if not math.isfinite(values.correlation):
        return Finding(None, _TOO_LARGE)
    return Finding(values.correlation, _near_one(values.correlation))


def _dssim(values: Values, limit: float) -> Finding:
    if values.dssim is None:
        return Finding(None, values.no_dssim, "", False)
    return Finding(values.dssim, f"DSSIM {_near_one(values.dssim)}")


def _points(values: Values, limit: float) -> Finding:
    share = values.points / values.n
    return Finding(share, f"{percent(share)} of the values are further off")


def _near_one(value: float) -> str:
    """Write a number that is at most 1 with as many digits as tell it from 1."""
    digits = min(12, max(3, 2 - math.floor(math.log10(1 - value)))) if value < 1 else 3
    return f"{value:.{digits}f}".replace("-", "−")


OF_RECORDS: Mapping[str, Callable[[Recorded, float], Finding]] = {
    "levels": _levels,
    "signal": _signal,
    "zeros": _zeros,
    "bias": _bias,
    "largest": _largest,
    "spectrum": _spectrum,
}
OF_VALUES: Mapping[str, Callable[[Values, float], Finding]] = {
    "missing": _missing,
    "negative": _negative,
    "shares": _shares,
    "extremes": _extremes,
    "percentiles": _percentiles,
    "correlation": _correlation,
    "dssim": _dssim,
    "points": _points,
}
