"""A report as one HTML page that needs nothing beside it.

All that comes from a store is untrusted: it passes through `_e` on its way into the page. The page's own
policy (CSP) allows no script but ours, and nothing from a network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from importlib.resources import files

from moec_zarr.report.charts import (
    expert_chart,
    field_chart,
    grid_chart,
    histogram_chart,
    profile_chart,
    spectrum_chart,
)
from moec_zarr.report.findings import Lossless, Profile, Report, SliceView, Variable
from moec_zarr.report.labels import bytes_text, figure_text
from moec_zarr.report.pictures import error_limits, field_limits
from moec_zarr.report.spectra import Spectrum

__all__ = ["page"]

_ROWS = 200  # of a table of figures at most
_BARS, _BAR = "bars", '<span class="bar"'
_KINDS = {
    "transform": "transform",
    "model": "network",
    "both": "transform and network",
    "constant": "constant",
    "lossless": "without loss",
}


def page(report: Report) -> str:
    """The whole page.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        HTML in UTF-8.
    """
    style, script = (
        files("moec_zarr.report").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    sections = "\n".join(_variable(f"v{i}", each) for i, each in enumerate(report.variables))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_e(report.store)}: report</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#variables">Skip to the variables</a>
<header>
<h1>{_e(report.store)}</h1>
<p class="soft">What this archive kept of the data. {_sources(report)}</p>
</header>
<main>
{_summary(report)}
<div id="variables">
{sections}
</div>
{_lossless(report.lossless)}
</main>
<footer class="soft small">
<p>{_e(report.history)}</p>
<p>Report by moec_zarr {_e(version("moec_zarr"))}. PSNR: 20 log<sub>10</sub> of the range of the original over the
root mean square error. Errors are taken over the valid values: neither NaN, infinite, nor a sentinel.</p>
</footer>
<script>{script}</script>
</body>
</html>
"""


def _e(text: object) -> str:
    """Text for HTML, between tags or in a quoted attribute."""
    return html.escape(str(text), quote=True)


def _sources(report: Report) -> str:
    if report.source:
        return f"A few slices were compared with <code>{_e(report.source)}</code>."
    return "All figures are on record in it; no original was given to compare with."


def _figure(value: float | None, units: str = "", digits: int = 3) -> str:
    return _e(f"{figure_text(value, digits)} {units}".strip())


def _decibel(value: float | None) -> str:
    if value is None:
        return "–"
    return "exact" if value == math.inf else f"{value:.1f} dB".replace("-", "−")


def _size(count: int) -> str:
    return _e(bytes_text(count).replace(" ", "\u00a0"))


def _times(bytes_in: int, bytes_out: int) -> str:
    return f"{bytes_in / bytes_out:.3g}×" if bytes_out else "–"


def _card(label: str, value: str, more: str = "") -> str:
    """A figure of the summary; all of it is HTML."""
    return (
        f'<li><span class="label">{label}</span> <span class="value">{value}</span>'
        f' <span class="more">{more}</span></li>'
    )


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, wide: bool = False, text: int = 1
) -> str:
    """A table of HTML cells whose first `text` columns are words; it scrolls by itself where it is wide."""
    rows = list(rows)
    kinds = ["text" if i < text else "" for i in range(len(columns))]
    head = "".join(
        f'<th scope="col" class="{kind}">{column}</th>' for column, kind in zip(columns, kinds, strict=True)
    )
    lines = []
    for row in rows[:_ROWS]:
        first, *others = row
        cells = "".join(
            f'<td class="{_BARS if cell.startswith(_BAR) else kind}">{cell}</td>'
            for cell, kind in zip(others, kinds[1:], strict=True)
        )
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    if len(rows) > _ROWS:
        caption += f" The first {_ROWS} of {len(rows)}."
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f"<table{' class=wide' if wide else ''}><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _bar(share: float) -> str:
    """A cell that shows a share of the whole."""
    return f'{_BAR} style="width:{100 * share:.1f}%"></span>'


def _chart(svg: str, alt: str, caption: str = "", *, small: bool = False) -> str:
    """A chart, its text for those who do not see it, and a caption; `alt` is text, `caption` HTML."""
    shown = f"<figcaption>{caption}</figcaption>" if caption else ""
    kind = ' class="small-chart"' if small else ""
    return f'<figure{kind}><div role="img" aria-label="{_e(alt)}">{svg}</div>{shown}</figure>'


def _as_table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    return f"<details><summary>As a table</summary>{_table(columns, rows, caption)}</details>"


# ------------------------------------------------------------------------------- summary


def _summary(report: Report) -> str:
    variables = report.variables
    before = sum(each.bytes_in for each in (*variables, *report.lossless))
    after = sum(each.bytes_out for each in (*variables, *report.lossless))
    cards = [
        _card(
            "Size",
            f"{_size(before)} → {_size(after)}",
            f"{_times(before, after)} smaller, all variables together",
        )
    ]
    if variables:
        relative = [each for each in variables if each.spread]
        if len(variables) == 1:
            (one,) = variables
            cards.append(_card("Largest error", _figure(one.max_error, one.units), _of_range(one)))
        elif relative:
            worst = max(relative, key=lambda each: each.max_error / (each.spread or 1))
            cards.append(
                _card(
                    "Largest error",
                    _figure(worst.max_error, worst.units),
                    f"{_e(worst.name)}; {_of_range(worst)}",
                )
            )
        known = [each for each in variables if _psnr(each) is not None]
        if known:
            lowest = min(known, key=lambda each: _psnr(each) or 0)
            cards.append(_card("Lowest PSNR", _decibel(_psnr(lowest)), _e(lowest.name)))
    exact = len(report.lossless) + sum(each.bound == 0 for each in variables)
    cards.append(
        _card(
            "Stored exactly",
            f"{exact} of {len(variables) + len(report.lossless)}",
            'variables; <a href="#lossless">which, and why</a>' if report.lossless else "variables",
        )
    )
    kept = "".join(
        f'<p class="kept">{_e(each.name)}: {_kept(each)}</p>' for each in variables if each.bound is not None
    )
    rows = [
        (
            f'<a href="#v{i}">{_e(each.name)}</a>',
            f"<code>{_e(each.codec)}</code>",
            _size(each.bytes_in),
            _size(each.bytes_out),
            _times(each.bytes_in, each.bytes_out),
            _decibel(_psnr(each)),
            _figure(each.max_error, each.units),
            _figure(each.bound, each.units) if each.bound is not None else "–",
        )
        for i, each in enumerate(variables)
    ]
    notes = "".join(
        f'<p class="note" role="note">{_e(each.name)}: {_e(text)}</p>'
        for each in variables
        for text in each.notes[:1]
    )
    columns = ("variable", "asked for", "before", "after", "smaller", "PSNR", "largest error", "kept bound")
    table = _table(columns, rows, "Variables that were compressed with loss", wide=True, text=2)
    return (
        f'<section aria-labelledby="summary"><h2 id="summary">Summary</h2><ul class="cards">{"".join(cards)}</ul>'
        f"{kept}{notes}{table}</section>"
    )


def _psnr(each: Variable) -> float | None:
    """Of the whole variable, or else the lowest that any chunk has."""
    return each.psnr if each.psnr is not None else each.psnr_lowest


def _of_range(each: Variable) -> str:
    return f"{100 * each.max_error / each.spread:.2g} % of the range" if each.spread else ""


def _kept(each: Variable) -> str:
    if each.bound == 0:
        return "kept exactly, every value"
    whole = "" if each.streams == each.streams_all else f", by the {each.streams} streams that were looked at"
    return f"kept: no value further off than {_figure(each.bound, each.units, 6)}{whole}"


def _lossless(found: Sequence[Lossless]) -> str:
    if not found:
        return ""
    rows = [(_e(each.name), _e(each.reason), _size(each.bytes_in), _size(each.bytes_out)) for each in found]
    table = _table(
        ("variable", "why", "before", "after"), rows, "Variables that come back bit for bit", text=2
    )
    return f'<section aria-labelledby="lossless"><h2 id="lossless">Stored exactly</h2>{table}</section>'


# ------------------------------------------------------------------------------- a variable


def _variable(key: str, each: Variable) -> str:
    shape = " × ".join(f"{n} {dim}" for n, dim in zip(each.shape, each.dims, strict=True))
    title = f" – {_e(each.title)}" if each.title and each.title != each.name else ""
    cards = [
        _card(
            "Size",
            f"{_size(each.bytes_in)} → {_size(each.bytes_out)}",
            f"{_times(each.bytes_in, each.bytes_out)} smaller",
        ),
        _card("Largest error", _figure(each.max_error, each.units), _of_range(each)),
        _card(
            "PSNR" if each.psnr is not None else f"PSNR of the worst {_e(each.cell_name)}",
            _decibel(_psnr(each)),
            f"{_decibel(each.psnr_lowest)} in the worst {_e(each.cell_name)}"
            if each.psnr is not None
            else "",
        ),
    ]
    if each.percentiles:
        (share, value), *_ = list(each.percentiles.items())[2:3] or list(each.percentiles.items())[:1]
        cards.append(_card(f"{_e(share)} of the errors", _figure(value, each.units), "or less, in every "
                           f"{_e(each.cell_name)}"))  # fmt: skip
    kinds = ", ".join(f"{_KINDS.get(kind, kind)} {count}" for kind, count in each.kinds.items())
    facts = (
        ("shape", _e(shape)),
        ("chunks", _e(" × ".join(map(str, each.chunks)))),
        ("codec", f"<code>{_e(each.codec)}</code>"),
        ("figures", _e(each.origin)),
        ("streams", _e(f"{each.streams} of {each.streams_all} looked at: {kinds}")),
    )
    notes = "".join(f'<p class="note" role="note">{_e(text)}</p>' for text in each.notes)
    kept = f'<p class="kept">{_kept(each)[0].upper()}{_kept(each)[1:]}.</p>' if each.bound is not None else ""
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f'<section class="variable" id="{key}" aria-labelledby="{key}-title">'
        f'<h2 id="{key}-title">{_e(each.name)}<span class="soft">{title}</span></h2>'
        f'<ul class="cards">{"".join(cards)}</ul>{kept}{notes}<dl class="facts">{listed}</dl>'
        f'{_slices(key, each)}<div class="pair">{_errors(each)}{_spectra(each)}{_profiles(each)}</div>'
        f'{_grid(each)}<div class="pair">{_bytes(each)}{_experts(each)}</div></section>'
    )


def _slices(key: str, each: Variable) -> str:
    if not each.slices:
        return ""
    choosers = "".join(
        f'<label for="{key}-c{i}">{_e(choice.title)} <select id="{key}-c{i}">'
        + "".join(f'<option value="{j}">{_e(place)}</option>' for j, place in enumerate(choice.places))
        + "</select></label>"
        for i, choice in enumerate(each.choices)
    )
    first = each.slices[0].key
    views = "".join(_view(each, view, hidden=view.key != first) for view in each.slices)
    what = "Original, decoded, and the error" if each.slices[0].original is not None else "Slices as decoded"
    return (
        f'<h3>{what}</h3><div data-slices><div class="choose" role="group" aria-label="Choose a slice">{choosers}'
        f'</div>{views}<p class="small soft" role="status" aria-live="polite"></p></div>'
    )


def _view(each: Variable, view: SliceView, *, hidden: bool) -> str:
    place = ", ".join(
        f"{choice.title} {choice.places[i]}" for choice, i in zip(each.choices, view.key, strict=True)
    )
    pictured = view.decoded if view.original is None else view.original
    limits = field_limits(pictured.values)
    panels = []
    if view.original is not None:
        panels.append(
            _chart(
                field_chart(view.original, limits, each.units),
                f"Map of {each.name}, original, {place}",
                "<b>original</b>",
            )
        )
    panels.append(
        _chart(
            field_chart(view.decoded, limits, each.units),
            f"Map of {each.name}, decoded, {place}",
            "<b>decoded</b>",
        )
    )
    said = f"Shown: {place or 'all of it'}."
    if view.error is not None and view.quality is not None:
        quality = view.quality
        figures = f"largest {figure_text(quality.max_error)}, root mean square {figure_text(quality.rmse)} {each.units}".strip()
        panels.append(
            _chart(
                field_chart(view.error, error_limits(view.error.values), each.units),
                f"Map of the error of {each.name}, {place}: {figures}",
                f"<b>error</b>, decoded − original: {_e(figures)}",
            )
        )
        whole = f"; that of the whole variable is {_decibel(each.psnr)}" if each.psnr is not None else ""
        said += f" PSNR of this slice {_decibel(quality.psnr)}{whole}."
    if (pictured.values.shape[0], pictured.values.shape[1]) != tuple(n for n in each.shape if n > 1)[-2:]:
        said += " Maps show some of the voxels, at even steps; figures are of all of the middle of the slice."
    key = ",".join(map(str, view.key))
    return (
        f'<div class="panels" data-key="{key}" data-said="{_e(said)}"{" hidden" if hidden else ""}>'
        f"{''.join(panels)}</div>"
    )


def _errors(each: Variable) -> str:
    """The distribution of errors: a histogram where a source was given, percentiles on record otherwise."""
    parts = []
    if each.histogram is not None:
        counts, edges = each.histogram
        alt = f"Histogram of the error in {int(counts.sum())} voxels, from {edges[0]:.3g} to {edges[-1]:.3g} {each.units}"
        rows = [
            (_e(f"{figure_text(low)} to {figure_text(high)}"), str(count))
            for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        ]
        parts.append(
            _chart(
                histogram_chart(counts, edges, each.units),
                alt,
                f"Of {int(counts.sum())} voxels in the slices above; the scale is logarithmic from 1 on.",
            )
            + _as_table(
                (_e(f"error, {each.units}" if each.units else "error"), "voxels"), rows, "Voxels by error"
            )
        )
    if each.percentiles:
        rows = [(_e(share), _figure(value, each.units)) for share, value in each.percentiles.items()] + [
            ("all", _figure(each.max_error, each.units))
        ]
        caption = f"Share of the values, and what their error is at most, in every {_e(each.cell_name)}"
        parts.append(_table(("share", "error at most"), rows, caption, wide=True))
    return f"<div><h3>Distribution of the error</h3>{''.join(parts)}</div>" if parts else ""


def _spectra(each: Variable) -> str:
    found = each.spectrum
    if found is None:
        return ""
    apart = _apart(found, each.spacing)
    rows = [
        (
            figure_text(k),
            figure_text(1 / k),
            figure_text(x),
            figure_text(y),
            figure_text(y / x if x else None),
        )
        for k, x, y in zip(
            found.wavenumber.tolist(), found.original.tolist(), found.decoded.tolist(), strict=True
        )
    ]
    columns = ("wavenumber", "wavelength, voxels", "original", "decoded", "ratio")
    return (
        "<div><h3>Spectra</h3>"
        + _chart(
            spectrum_chart(found, each.units),
            f"Variance of original and decoded over the wavenumber. {apart}",
            f"<b>{_e(apart)}</b> Spectra {_e(each.spectrum_origin)}.",
        )
        + _as_table(columns, rows, "Variance by wavenumber, in cycles per voxel")
        + "</div>"
    )


def _apart(found: Spectrum, spacing: tuple[float, str] | None) -> str:
    """In words, where the spectra part."""
    if found.parting is None:
        return "The spectra stay within a factor of two of each other at all wavenumbers."
    length = 1 / found.parting
    far = f" ({figure_text(length * spacing[0])} {spacing[1]})" if spacing else ""
    return (
        f"The spectra part at wavenumber {figure_text(found.parting)} cycles per voxel, a wavelength of "
        f"{figure_text(length)} voxels{far}: there one power is more than twice the other."
    )


def _profiles(each: Variable) -> str:
    return "".join(_profile(each, profile) for profile in each.profiles)


def _profile(each: Variable, profile: Profile) -> str:
    largest = [value for value in profile.max_error if not math.isnan(value)]
    if not largest:
        return ""
    worst = profile.places[profile.max_error.index(max(largest))]
    caption = f"The largest error, {figure_text(max(largest))} {each.units}, is at {worst}. {profile.origin}"
    rows = [
        (_e(place), figure_text(rmse), figure_text(value))
        for place, rmse, value in zip(profile.places, profile.rmse, profile.max_error, strict=True)
    ]
    title = f"Error by {profile.title}"
    return (
        f"<div><h3>{_e(title)}</h3>"
        + _chart(profile_chart(profile, each.units), f"{title}. {caption}", _e(caption))
        + _as_table((_e(profile.title), "root mean square", "largest"), rows, _e(title))
        + "</div>"
    )


def _grid(each: Variable) -> str:
    charts = []
    for which, what in (("psnr", "PSNR"), ("max_error", "largest error")):
        if (svg := grid_chart(each, which)) is not None:
            worst = "lowest" if which == "psnr" else "largest"
            alt = f"{what} over the grid of {each.cell_name}s, the {worst} along all other dimensions"
            charts.append(
                _chart(svg, alt, f"<b>{what}</b>, the {worst} along all other dimensions", small=True)
            )
    if not charts:
        return ""
    ordered = sorted(each.cells, key=lambda cell: -cell.max_error)
    rows = [
        (_e(cell.place), _decibel(cell.psnr), _figure(cell.max_error, each.units), f"{cell.ratio:.3g}×")
        for cell in ordered
    ]
    table = _as_table(
        (_e(each.cell_name), "PSNR", "largest error", "smaller"),
        rows,
        f"All {_e(each.cell_name)}s, the worst first.",
    )
    return (
        f"<h3>Over the grid of {_e(each.cell_name)}s</h3>"
        f'<p class="small soft">The peak of a PSNR here is the range of the {_e(each.cell_name)} itself.</p>'
        f'<div class="pair">{"".join(charts)}</div>{table}'
    )


def _bytes(each: Variable) -> str:
    total = sum(each.sections.values())
    if not total:
        return ""
    rows = [
        (
            _e(name),
            _size(count),
            f"{100 * count / total:.1f} %",
            _bar(count / total),
        )
        for name, count in sorted(each.sections.items(), key=lambda item: -item[1])
    ]
    body = _table(("section", "bytes", "share", "&nbsp;"), rows, "Bytes of the streams by section", wide=True)
    return f"<div><h3>Where the bytes go</h3>{body}</div>"


def _experts(each: Variable) -> str:
    found = each.experts
    if found is None:
        return ""
    rows = [(str(i), f"{100 * share:.1f} %", _bar(share)) for i, share in enumerate(found.load)]
    body = _table(
        ("expert", "load", "&nbsp;"), rows, "Share of the voxels that each expert evaluates", wide=True
    )
    caption = f"Which of {len(found.load)} experts evaluates a voxel, in the middle slice of one chunk: {found.chunk}"
    return (
        "<div><h3>Experts of the network</h3>"
        + _chart(expert_chart(found.map), caption, _e(caption), small=True)
        + body
        + "</div>"
    )
