"""A report as one HTML page that needs nothing beside it.

The page is one template, ``page.html``. All that comes from a store is untrusted, and the template escapes
it; charts alone are let through as they are. The page's own policy (CSP) allows no script but ours, and
nothing from a network.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

from moec_zarr.report.comparison.labels import bytes_text, figure_text
from moec_zarr.report.comparison.pictures import error_limits, field_limits
from moec_zarr.report.comparison.spectra import Spectrum
from moec_zarr.report.page import charts
from moec_zarr.report.page.findings import Lossless, Profile, Report, SliceView, Variable

__all__ = ["render"]

_ROWS = 200  # of a table of figures at most
_KINDS = {
    "transform": "transform",
    "model": "network",
    "both": "transform and network",
    "constant": "constant",
    "lossless": "without loss",
}


def render(report: Report) -> str:
    """Write the whole page, HTML in UTF-8."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page, style, script = (
        files("moec_zarr.report.page").joinpath(f"page.{kind}").read_text("utf-8")
        for kind in ("html", "css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )

    def drawn(chart: Any) -> Any:
        return lambda *arguments: Markup(chart(*arguments))

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"figure": _figure, "decibel": _decibel, "size": _size, "number": figure_text}
    environment.globals |= {"kept": _kept, "most_rows": _ROWS, "of_range": _of_range, "psnr_of": _psnr_of}
    environment.globals |= {
        name: drawn(getattr(charts, name))
        for name in ("expert_chart", "histogram_chart", "profile_chart", "spectrum_chart")
    }
    environment.globals["times"] = _times
    variables = [_shown(f"v{i}", each, Markup) for i, each in enumerate(report.variables)]
    everything: list[Variable | Lossless] = [*report.variables, *report.lossless]
    bounded = sum(each.bound == 0 for each in report.variables)
    return environment.from_string(page).render(
        report=report, policy=policy, style=Markup(style), script=Markup(script),
        version=version("moec_zarr"), variables=variables,
        before=sum(each.bytes_in for each in everything), after=sum(each.bytes_out for each in everything),
        worst=_worst(report), lowest=_lowest(report),
        exact=bounded + sum(each.exact for each in report.lossless),
        all_exact=all(each.exact for each in report.lossless),
        summary_rows=[
            (
                Markup('<a href="#{}">{}</a>').format(each.key, each.name),
                Markup("<code>{}</code>").format(each.codec),
                *_figures(own),
            )
            for each, own in zip(variables, report.variables, strict=True)
        ],
        lossless_rows=[(x.name, x.reason, _size(x.bytes_in), _size(x.bytes_out)) for x in report.lossless],
    )  # fmt: skip


# ------------------------------------------------------------------------------- words


def _figure(value: float | None, units: str = "", digits: int = 3) -> str:
    return f"{figure_text(value, digits)} {units}".strip()


def _decibel(value: float | None) -> str:
    if value is None:
        return "–"
    return "exact" if value == math.inf else f"{value:.1f} dB".replace("-", "−")


def _size(count: int) -> str:
    return bytes_text(count).replace(" ", "\u00a0")


def _times(bytes_in: int, bytes_out: int) -> str:
    """Write how many times smaller the second is."""
    return f"{bytes_in / bytes_out:.3g}×" if bytes_out else "–"


def _psnr_of(each: Variable) -> float | None:
    """Return the PSNR of the whole variable, or else the lowest that any chunk has."""
    return each.psnr if each.psnr is not None else each.psnr_lowest


def _of_range(each: Variable) -> str:
    """Write the largest error as a share of the range of the original; empty if that is not known."""
    return f"{100 * each.max_error / each.spread:.2g} % of the range" if each.spread else ""


def _kept(each: Variable) -> str:
    """Write the bound that a variable keeps."""
    if each.bound == 0:
        return "kept exactly, every value"
    whole = f", by the {each.streams} streams that were looked at" if each.sampled else ""
    return f"kept: no value further off than {_figure(each.bound, each.units, 6)}{whole}"


def _say_where_apart(found: Spectrum, spacing: tuple[float, str] | None) -> str:
    """Write where the spectra part."""
    if found.parting is None:
        return "The spectra stay within a factor of two of each other at all wavenumbers."
    length = 1 / found.parting
    far = f" ({figure_text(length * spacing[0])} {spacing[1]})" if spacing else ""
    return (
        f"The spectra part at wavenumber {figure_text(found.parting)} cycles per voxel, a wavelength of "
        f"{figure_text(length)} voxels{far}: there one power is more than twice the other."
    )


# ------------------------------------------------------------------------------- summary


def _worst(report: Report) -> Variable | None:
    """Return the variable with the largest error over its range."""
    if len(report.variables) == 1:
        return report.variables[0]
    relative = [each for each in report.variables if each.spread]
    return max(relative, key=lambda each: each.max_error / (each.spread or 1), default=None)


def _lowest(report: Report) -> Variable | None:
    """Return the variable of the lowest PSNR."""
    known = [each for each in report.variables if _psnr_of(each) is not None]
    return min(known, key=lambda each: _psnr_of(each) or 0, default=None)


def _figures(each: Variable) -> tuple[str, ...]:
    return (
        _size(each.bytes_in),
        _size(each.bytes_out),
        _times(each.bytes_in, each.bytes_out),
        _decibel(_psnr_of(each)),
        _figure(each.max_error, each.units),
        _figure(each.bound, each.units) if each.bound is not None else "–",
    )


# ------------------------------------------------------------------------------- a variable


def _shown(key: str, each: Variable, safe: Any) -> SimpleNamespace:
    """Return the fields of a variable, with the rows of its tables, its panels and its charts."""
    shown = {field.name: getattr(each, field.name) for field in fields(each)}
    lines = [f"{_KINDS.get(kind, kind)} {count}" for kind, count in each.kinds.items()]
    shown |= {
        "key": key,
        "lengths": " × ".join(f"{n} {dim}" for n, dim in zip(each.shape, each.dims, strict=True)),
        "kinds_said": ", ".join(lines),
        "views": [_view(each, view, safe) for view in each.slices],
        "shown_profiles": [known for profile in each.profiles if (known := _profile(each, profile))],
        "grids": [
            (safe(svg), what, worst)
            for which, what, worst in (("psnr", "PSNR", "lowest"), ("max_error", "largest error", "largest"))
            if (svg := charts.grid_chart(each, which)) is not None
        ],
        "cell_rows": [
            (cell.place, _decibel(cell.psnr), _figure(cell.max_error, each.units), f"{cell.ratio:.3g}×")
            for cell in sorted(each.cells, key=lambda cell: -cell.max_error)
        ],
        "section_rows": list(_section_rows(each)),
    }
    if each.percentiles:
        items = list(each.percentiles.items())
        shown["percentile"] = (items[2:3] or items)[0]
        shown["percentile_rows"] = [(share, _figure(value, each.units)) for share, value in items] + [
            ("all", _figure(each.max_error, each.units))
        ]
    if each.histogram is not None:
        counts, edges = (part.tolist() for part in each.histogram)
        shown["histogram_rows"] = [
            (f"{figure_text(low)} to {figure_text(high)}", str(count))
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    if (found := each.spectrum) is not None:
        shown["apart"] = _say_where_apart(found, each.spacing)
        shown["spectrum_rows"] = [
            tuple(map(figure_text, (k, 1 / k, x, y, y / x if x else None)))
            for k, x, y in zip(
                found.wavenumber.tolist(), found.original.tolist(), found.decoded.tolist(), strict=True
            )
        ]
    if each.experts is not None:
        loads = enumerate(each.experts.load)
        shown["expert_rows"] = [(str(i), f"{100 * share:.1f} %", float(share)) for i, share in loads]
    return SimpleNamespace(**shown)


def _section_rows(each: Variable) -> Iterator[tuple[str, str, str, float]]:
    """Iterate over the sections of the streams, with their bytes and a bar of their share."""
    total = sum(each.sections.values())
    for name, count in sorted(each.sections.items(), key=lambda item: -item[1]) if total else ():
        yield name, _size(count), f"{100 * count / total:.1f} %", count / total


def _view(each: Variable, view: SliceView, safe: Any) -> dict[str, Any]:
    """Return the panels of a slice, and what is said of it."""
    places = zip(each.choices, view.key, strict=True)
    place = ", ".join(f"{choice.title} {choice.places[i]}" for choice, i in places)
    pictured = view.decoded if view.original is None else view.original
    limits = field_limits(pictured.values)
    panels = [
        {
            "name": name,
            "more": "",
            "svg": safe(charts.field_chart(shown, limits, each.units)),
            "alt": f"Map of {each.name}, {name}, {place}",
        }
        for name, shown in (("original", view.original), ("decoded", view.decoded))
        if shown is not None
    ]
    said = f"Shown: {place or 'all of it'}."
    if view.error is not None and view.quality is not None:
        quality = view.quality
        rms = f"root mean square {figure_text(quality.rmse)} {each.units}".strip()
        figures = f"largest {figure_text(quality.max_error)}, {rms}"
        panels.append(
            {
                "name": "error",
                "more": f", decoded − original: {figures}",
                "svg": safe(charts.field_chart(view.error, error_limits(view.error.values), each.units)),
                "alt": f"Map of the error of {each.name}, {place}: {figures}",
            }
        )
        whole = f"; that of the whole variable is {_decibel(each.psnr)}" if each.psnr is not None else ""
        said += f" PSNR of this slice {_decibel(quality.psnr)}{whole}."
    if tuple(pictured.values.shape[:2]) != tuple(n for n in each.shape if n > 1)[-2:]:
        said += " Maps show some of the voxels, at even steps; figures are of all of the middle of the slice."
    hidden = view.key != tuple(choice.first for choice in each.choices)
    return {"key": ",".join(map(str, view.key)), "said": said, "hidden": hidden, "panels": panels}


def _profile(each: Variable, profile: Profile) -> dict[str, Any] | None:
    """Return a profile with its caption and rows; None if nothing of it is known."""
    largest = [value for value in profile.max_error if not math.isnan(value)]
    if not largest:
        return None
    worst = profile.places[profile.max_error.index(max(largest))]
    caption = f"The largest error, {figure_text(max(largest))} {each.units}, is at {worst}. {profile.origin}"
    return {
        "profile": profile,
        "title": profile.title,
        "caption": caption,
        "rows": [
            (place, figure_text(rmse), figure_text(value))
            for place, rmse, value in zip(profile.places, profile.rmse, profile.max_error, strict=True)
        ],
    }
