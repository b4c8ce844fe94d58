"""The criteria of a verdict: what each measures, its limit, and where that limit comes from."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

from moec_zarr.adapters.tree import select
from moec_zarr.errors import MoECError

__all__ = ["CRITERIA", "Criteria", "Criterion", "Limits", "check_criteria", "limits_of", "read_criteria"]

Criteria: TypeAlias = Mapping[str, Any]
"""Limits by criterion, ``False`` for one that is not asked for, ``thresholds``, and ``variables``: the same
by variable or pattern."""

_OWN = "own choice"
_LDCPY = "Baker et al. 2017, doi:10.1007/978-3-319-67630-2_3, as ldcpy 'check_metrics' has it"
_PRESS = "ClimateBenchPress"
_VARIABLES, _THRESHOLDS = "variables", "thresholds"


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One property of the data that is kept, or is not.

    Attributes
    ----------
    title : str
        What is kept, in a word or two.
    meaning : str
        What is measured.
    limit : float
        The default.
    least : bool
        Whether what is measured is to be at least the limit; else it is to be at most that.
    source : str
        Where the default comes from.
    asked : bool
        Whether it is asked for unless named.
    """

    title: str
    meaning: str
    limit: float
    source: str
    least: bool = False
    asked: bool = True


CRITERIA: Mapping[str, Criterion] = {
    "levels": Criterion(
        title="relative error",
        meaning="root mean square error over the root mean square of the values, at each place along each "
        "axis that is no side of a slice; of values of one sign",
        limit=0.05,
        source=_OWN,
    ),
    "signal": Criterion(
        title="signal",
        meaning="root mean square error over the standard deviation within slices, at each such place; "
        "above 1 the error exceeds the signal",
        limit=0.1,
        source=_OWN,
    ),
    "zeros": Criterion(
        title="zeros",
        meaning="share of the exact zeros that remain zero, where at least 1 % of the values are zero",
        limit=1.0,
        least=True,
        source=f"{_PRESS}, test ErrorBound: under a relative bound zeros match",
    ),
    "missing": Criterion(
        title="missing values",
        meaning="number of values that are missing in one of both alone",
        limit=0.0,
        source=f"{_PRESS}, test ErrorBound: NaN stand at the same places",
    ),
    "negative": Criterion(
        title="sign",
        meaning="number of values below 0 where the original has none",
        limit=0.0,
        source=_OWN,
    ),
    "bias": Criterion(
        title="mean",
        meaning="mean error over the mean magnitude, or over the standard deviation within slices where "
        "that is smaller",
        limit=0.001,
        source=_OWN,
    ),
    "shares": Criterion(
        title="shares beyond thresholds",
        meaning="change of the number of values beyond each threshold over that number; thresholds are 1, 10 "
        "and 20 mm a day for rain (wet days, R10mm and R20mm of ETCCDI), else the 1st and 99th percentile of "
        "the original",
        limit=0.01,
        source=_OWN,
    ),
    "extremes": Criterion(
        title="extremes",
        meaning="change of the smallest and the largest value over the range of the original",
        limit=0.01,
        source=f"{_PRESS}: widest bound where no ensemble gives one, a hundredth of the range",
    ),
    "percentiles": Criterion(
        title="percentiles",
        meaning="largest change of the 1st, 10th, 50th, 90th and 99th percentile over the distance of the "
        "first from the last, or the standard deviation where that is larger",
        limit=0.01,
        source=_OWN,
    ),
    "largest": Criterion(
        title="single values",
        meaning="largest error over the range of the original",
        limit=0.01,
        source=f"{_PRESS}: widest bound where no ensemble gives one, a hundredth of the range",
    ),
    "spectrum": Criterion(
        title="spectrum",
        meaning="longest wavelength, in voxels, at which one power is more than twice the other",
        limit=7.0,
        source=f"{_OWN}: what models resolve, after Skamarock 2004, doi:10.1175/MWR2830.1",
    ),
    "correlation": Criterion(
        title="correlation",
        meaning="correlation of Pearson",
        limit=0.99999,
        least=True,
        source=f"{_LDCPY}; {_PRESS}, test R2, asks it of its square",
    ),
    "dssim": Criterion(
        title="structure",
        meaning="lowest DSSIM of a slice, of maps of latitude and longitude",
        limit=0.995,
        least=True,
        source="ldcpy 'check_metrics'; defined by Baker et al. 2024, IEEE TVCG 30(9), arXiv 2202.02616",
    ),
    "points": Criterion(
        title="points",
        meaning="share of the values with an error above 0.0001 of their magnitude",
        limit=0.05,
        source=f"{_LDCPY}; {_PRESS}, test SRE",
        asked=False,
    ),
}
"""By name, the gravest first."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is asked of one variable.

    Attributes
    ----------
    limits : mapping of str to float
        By criterion; those that are not asked for are left out.
    thresholds : tuple of float or None
        Of the shares; None for the default ones.
    """

    limits: Mapping[str, float]
    thresholds: tuple[float, ...] | None = None


def read_criteria(file: Path) -> dict[str, Any]:
    """Read criteria from a TOML file: limits at its top, and those of variables in ``[variables.NAME]``.

    Raises
    ------
    MoECError
        If it cannot be read, or says what `check_criteria` refuses.
    """
    try:
        with file.open("rb") as stream:
            data = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MoECError(f"{file} is no TOML file: {error}") from error
    except OSError as error:
        raise MoECError(f"criteria cannot be read from {file}: {error.strerror}") from error
    check_criteria(data, where=str(file))
    return data


def check_criteria(
    criteria: Criteria | None, names: Iterable[str] | None = None, *, where: str = "criteria"
) -> None:
    """Refuse criteria that do not exist, limits that are none, and variables that there are not.

    Parameters
    ----------
    criteria : mapping or None
        As `limits_of` takes them.
    names : iterable of str, optional
        The variables that there are.
    where : str
        What the criteria come from, for the message.

    Raises
    ------
    MoECError
    """
    if criteria is None:
        return
    if not isinstance(criteria, Mapping):
        raise MoECError(f"{where}: expected a mapping of criteria to limits, got {criteria!r}")
    _check_limits({key: value for key, value in criteria.items() if key != _VARIABLES}, where)
    variables = criteria.get(_VARIABLES, {})
    if not isinstance(variables, Mapping):
        raise MoECError(f"{where}: '{_VARIABLES}' holds a table for each variable, got {variables!r}")
    for name, limits in variables.items():
        if not isinstance(limits, Mapping):
            raise MoECError(f"{where}, variable {name!r}: expected limits by criterion, got {limits!r}")
        _check_limits(limits, f"{where}, variable {name!r}")
    if names is not None:
        select(variables, names)


def _check_limits(limits: Mapping[str, Any], where: str) -> None:
    for name, value in limits.items():
        if name == _THRESHOLDS:
            numbers = value if isinstance(value, (list, tuple)) else [value]
            if not numbers or not all(map(_is_number, numbers)):
                raise MoECError(f"{where}: {name} takes a list of finite numbers, got {value!r}")
        elif name not in CRITERIA:
            known = ", ".join(f"{key} ({each.title})" for key, each in CRITERIA.items())
            raise MoECError(f"{where}: there is no criterion {name!r}; there are {known}, and {_THRESHOLDS}")
        elif not isinstance(value, bool) and not (_is_number(value) and value >= 0):
            raise MoECError(f"{where}: {name} takes a limit of at least 0, or false, got {value!r}")
        elif CRITERIA[name].least and value > 1:
            raise MoECError(f"{where}: {name} is 1 at most, got a limit of {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def limits_of(name: str, criteria: Criteria | None = None) -> Limits:
    """Return what is asked of a variable.

    Parameters
    ----------
    name : str
        Its path.
    criteria : mapping, optional
        Limits by criterion, in place of the defaults; ``False`` where one is not asked for, and ``True`` for
        its default. ``thresholds`` lists values of the data. ``variables`` has a mapping of the same kind
        for a variable, or for a pattern such as ``*/pr``; of several that match, the later ones count, and
        the name itself more than all patterns.
    """
    criteria = criteria or {}
    asked = {key: value for key, value in criteria.items() if key != _VARIABLES}
    own = criteria.get(_VARIABLES, {})
    for pattern in sorted(own, key=lambda pattern: pattern.removeprefix("/") == name):
        if fnmatchcase(name, pattern.removeprefix("/")) or pattern.removeprefix("/") == name:
            asked |= own[pattern]
    thresholds = asked.pop(_THRESHOLDS, None)
    limits: dict[str, float] = {}
    for key, criterion in CRITERIA.items():
        value = asked.get(key, criterion.asked)
        if value is not False:
            limits[key] = criterion.limit if value is True else float(value)
    if thresholds is not None:
        thresholds = tuple(map(float, thresholds if isinstance(thresholds, (list, tuple)) else [thresholds]))
    return Limits(limits=limits, thresholds=thresholds)
