"""A report as one HTML page that needs nothing beside it.

All that comes from a store is untrusted: the template escapes whatever is written into it. The page's own
policy (CSP) allows no script but ours, and nothing from a network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib.metadata import version

from moec_zarr.adapters.tree import group_of, local_name
from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.labels import bytes_text, decibel_text, figure_text
from moec_zarr.report.comparison.pictures import error_limits, field_limits
from moec_zarr.report.page import charts
from moec_zarr.report.page.findings import Report
from moec_zarr.report.verdict.rules import percent

__all__ = ["render_page"]

_ROWS = 200  # of a table at most


def name_groups(names: Iterable[str]) -> dict[int, str]:
    """Return which group begins at which of some variables; empty where there is one group."""
    groups = [group_of(name) for name in names]
    first = [place for place, group in enumerate(groups) if place == 0 or group != groups[place - 1]]
    return {place: groups[place] or "/" for place in first} if len(set(groups)) > 1 else {}


_FUNCTIONS = (
    bytes_text, decibel_text, figure_text, error_limits, field_limits, local_name, name_groups, percent, zip,
)  # fmt: skip


def render_page(report: Report) -> str:
    """Render the whole page, as HTML in UTF-8.

    Raises
    ------
    MoECError
        If jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MoECError("a report needs jinja2, which the extra moec-zarr[all] brings; install it") from error
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("moec_zarr.report.page", ""),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {function.__name__: function for function in _FUNCTIONS}
    environment.globals |= {name: getattr(charts, name) for name in charts.__all__}
    script = environment.get_template("page.js").render()
    return environment.get_template("page.html").render(
        report=report,
        version=version("moec_zarr"),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        most_rows=_ROWS,
    )
