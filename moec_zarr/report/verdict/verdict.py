"""Judgements of what a variable keeps, one for each criterion, and never one number for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from moec_zarr.report.comparison.labels import figure_text
from moec_zarr.report.verdict.criteria import CRITERIA, Limits
from moec_zarr.report.verdict.measures import Recorded, Values
from moec_zarr.report.verdict.rules import OF_RECORDS, OF_VALUES, Finding, bound_negative, percent

__all__ = ["Judgement", "Status", "Verdict", "reach_verdict"]

Status: TypeAlias = Literal["kept", "not kept", "not measured", "does not apply"]

_NUMBERS = {"spectrum", "correlation", "dssim", "missing", "negative"}  # limits that are no shares


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether one criterion is kept.

    Attributes
    ----------
    criterion : str
        Its name, one of `CRITERIA`.
    kept : bool or None
        None where nothing was measured.
    applies : bool
        Whether it says something of these data; else `kept` is None.
    title : str
        What is kept or is not; places are named where it is not kept there alone.
    measured : str
        What was measured, in words; why it was not, or why it does not apply.
    value : float or None
        The same as a number, to compare with the limit; None where nothing was measured.
    limit : float
    wanted : str
        The limit in words.
    source : str
        Where it comes from.
    origin : str
        What was looked at; empty where nothing was.
    """

    criterion: str
    kept: bool | None
    title: str
    measured: str
    value: float | None
    limit: float
    wanted: str
    source: str
    origin: str
    applies: bool = True

    @property
    def status(self) -> Status:
        """What came of it: "kept", "not kept", "not measured" or "does not apply"."""
        if self.kept is None:
            return "not measured" if self.applies else "does not apply"
        return "kept" if self.kept else "not kept"

    def __str__(self) -> str:
        """Say what is kept or not, and by how much or why where it is not kept."""
        return self.title if self.kept else f"{self.title} ({self.measured})"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is kept of one variable.

    Attributes
    ----------
    name : str
    judgements : tuple of Judgement
        One for each criterion that was asked for, the gravest criteria first.
    exceeding : tuple of str
        Slices whose error exceeds their signal: the standard deviation of the original.
    """

    name: str
    judgements: tuple[Judgement, ...]
    exceeding: tuple[str, ...] = ()

    def of(self, status: Status) -> tuple[Judgement, ...]:
        """Return the judgements of one status."""
        return tuple(each for each in self.judgements if each.status == status)

    @property
    def kept(self) -> bool:
        """Whether nothing that was measured is not kept, and something is kept."""
        return not self.of("not kept") and bool(self.of("kept"))

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is not kept, what is, and what was not measured, as far as there is any."""
        words: dict[Status, str] = {
            "not kept": "does not keep",
            "kept": "keeps",
            "not measured": "not measured:",
        }
        found = ((status, start, self.of(status)) for status, start in words.items())
        return tuple(
            f"{start} {', '.join(str(each) if status == 'not kept' else each.title for each in judgements)}"
            for status, start, judgements in found
            if judgements
        )

    def __str__(self) -> str:
        """Return the whole verdict on a line."""
        return f"{self.name}: " + "; ".join(self.sentences or ("nothing was asked for",))


def reach_verdict(name: str, recorded: Recorded | None, values: Values | None, limits: Limits) -> Verdict:
    """Judge a variable by all criteria that are asked for.

    Parameters
    ----------
    name : str
    recorded : Recorded or None
        Errors of all of it, or of slices; None where nothing is known.
    values : Values or None
        Of both, original and decoded; None without an original.
    limits : Limits
        As `limits_of` returns them.
    """
    judgements = []
    for criterion, limit in limits.limits.items():
        what = CRITERIA[criterion]
        if criterion in OF_RECORDS:
            origin = recorded.origin if recorded is not None else ""
            if recorded is not None and criterion == "spectrum":
                origin = recorded.spectrum_origin
            found = (
                Finding(None, "no errors are on record, and no source was given")
                if recorded is None
                else Finding(None, "no value is valid")
                if not recorded.n_valid
                else OF_RECORDS[criterion](recorded, limit)
            )
        elif criterion == "negative" and values is None and recorded is not None:
            origin, found = recorded.origin, bound_negative(recorded)
        else:
            origin = values.origin if values is not None else ""
            found = (
                Finding(None, "takes the source: none was given, or it has no valid value here")
                if values is None
                else OF_VALUES[criterion](values, limit)
            )
        kept: bool | None = None
        if found.value is not None:  # NaN is not kept
            kept = found.value >= limit if what.least else found.value <= limit
        judgements.append(
            Judgement(
                criterion=criterion,
                kept=kept,
                applies=found.applies,
                title=found.title if kept is False and found.title else what.title,
                measured=found.measured,
                value=found.value,
                limit=limit,
                wanted=_word_limit(criterion, limit),
                source=what.source if limit == what.limit else "as asked for",
                origin="" if found.value is None else origin,
            )
        )
    slices = recorded.slices if recorded is not None else None
    exceeding = () if slices is None else tuple(slices.place(place) or "all" for place in slices.exceeding)
    return Verdict(name=name, judgements=tuple(judgements), exceeding=exceeding)


def _word_limit(criterion: str, limit: float) -> str:
    least = CRITERIA[criterion].least
    if limit == 0 and not least:
        return "none"
    shown = figure_text(limit, 6) if criterion in _NUMBERS else percent(limit)
    return f"at {'least' if least else 'most'} {shown}"
