"""A verdict on arrays and datasets, without a report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from moec_zarr.report.comparison.metrics import match_arrays, match_variables
from moec_zarr.report.verdict.criteria import Criteria, check_criteria, limits_of
from moec_zarr.report.verdict.pairs import measure_pair
from moec_zarr.report.verdict.verdict import Verdict, reach_verdict

if TYPE_CHECKING:
    from moec_zarr.report.comparison.metrics import Groups

__all__ = ["judge"]


@overload
def judge(
    a: Groups, b: Groups, *, criteria: Criteria | None = None, missing: float | None = None
) -> dict[str, Verdict]: ...


@overload
def judge(a: Any, b: Any, *, criteria: Criteria | None = None, missing: float | None = None) -> Verdict: ...


def judge(
    a: Any, b: Any, *, criteria: Criteria | None = None, missing: float | None = None
) -> Verdict | dict[str, Verdict]:
    """Judge what a decoded array, dataset or tree keeps of its original, criterion by criterion.

    At most 4 million voxels of an array are read: of larger ones some slices, spread evenly; each judgement
    says so in its `origin`. Arrays of xarray are aligned as `compare` does it.

    Parameters
    ----------
    a, b : array-like, xarray.Dataset, xarray.DataTree or zarr.Group
        Original and decoded, as `compare` takes them.
    criteria : mapping, optional
        Limits by criterion in place of the defaults, such as ``{"bias": 1e-4, "dssim": False}``;
        ``thresholds`` is a list of values of the data; ``variables`` has a mapping of the same kind for a
        variable, or a pattern of their names.
    missing : float, optional
        A sentinel that is no valid value, as NaN is none.

    Returns
    -------
    Verdict or dict of str to Verdict
        By variable, or its path, for datasets and trees.

    Raises
    ------
    MoECError
        As of `compare`, and if there is no such criterion.
    """
    check_criteria(criteria)
    pairs = match_variables(a, b)
    check_criteria(criteria, pairs if "" not in pairs else None)
    verdicts: dict[str, Verdict] = {}
    for name, pair in pairs.items():
        x, y, _ = match_arrays(*pair)
        limits = limits_of(name, criteria)
        recorded, values = measure_pair(x, y, missing=missing, thresholds=limits.thresholds)
        verdicts[name] = reach_verdict(
            name or str(getattr(x, "name", None) or "array"), recorded, values, limits
        )
    return verdicts.get("", verdicts)
