"""A report as one HTML page that needs nothing beside it.

All that comes from a store is untrusted: it passes through `escape` on its way into the page. The page's own
policy (CSP) allows no script but ours, and nothing from a network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files

from moec_zarr.report.page.findings import Lossless, Report, Variable
from moec_zarr.report.page.markup import card, decibel, escape, figure, size, table, times
from moec_zarr.report.page.sections import kept, of_range, psnr_of, variable_section

__all__ = ["page"]


def page(report: Report) -> str:
    """Return the whole page.

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
    sections = "\n".join(variable_section(f"v{i}", each) for i, each in enumerate(report.variables))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(report.store)}: report</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#variables">Skip to the variables</a>
<header>
<h1>{escape(report.store)}</h1>
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
<p>{escape(report.history)}</p>
<p>Report by moec_zarr {escape(version("moec_zarr"))}. PSNR: 20 log<sub>10</sub> of the range of the
original over the root mean square error. Errors are taken over the valid values: neither NaN, infinite, nor
a sentinel.</p>
</footer>
<script>{script}</script>
</body>
</html>
"""


def _sources(report: Report) -> str:
    if report.source:
        return f"A few slices were compared with <code>{escape(report.source)}</code>."
    return "All figures are on record in it; no original was given to compare with."


# ------------------------------------------------------------------------------- summary


def _summary(report: Report) -> str:
    variables = report.variables
    everything: list[Variable | Lossless] = [*variables, *report.lossless]
    before = sum(each.bytes_in for each in everything)
    after = sum(each.bytes_out for each in everything)
    cards = [
        card(
            "Size",
            f"{size(before)} → {size(after)}",
            f"{times(before, after)} smaller, all variables together",
        )
    ]
    if variables:
        relative = [each for each in variables if each.spread]
        if len(variables) == 1:
            (one,) = variables
            cards.append(card("Largest error", figure(one.max_error, one.units), of_range(one)))
        elif relative:
            worst = max(relative, key=lambda each: each.max_error / (each.spread or 1))
            cards.append(
                card(
                    "Largest error",
                    figure(worst.max_error, worst.units),
                    f"{escape(worst.name)}; {of_range(worst)}",
                )
            )
        known = [each for each in variables if psnr_of(each) is not None]
        if known:
            lowest = min(known, key=lambda each: psnr_of(each) or 0)
            cards.append(card("Lowest PSNR", decibel(psnr_of(lowest)), escape(lowest.name)))
    exact = sum(each.exact for each in report.lossless) + sum(each.bound == 0 for each in variables)
    cards.append(
        card(
            "Stored exactly",
            f"{exact} of {len(variables) + len(report.lossless)}",
            'variables; <a href="#lossless">which, and why</a>' if report.lossless else "variables",
        )
    )
    promises = "".join(
        f'<p class="kept">{escape(each.name)}: {kept(each)}</p>'
        for each in variables
        if each.bound is not None
    )
    rows = [
        (
            f'<a href="#v{i}">{escape(each.name)}</a>',
            f"<code>{escape(each.codec)}</code>",
            size(each.bytes_in),
            size(each.bytes_out),
            times(each.bytes_in, each.bytes_out),
            decibel(psnr_of(each)),
            figure(each.max_error, each.units),
            figure(each.bound, each.units) if each.bound is not None else "–",
        )
        for i, each in enumerate(variables)
    ]
    notes = "".join(
        f'<p class="note" role="note">{escape(each.name)}: {escape(text)}</p>'
        for each in variables
        for text in each.notes[:1]
    )
    columns = ("variable", "asked for", "before", "after", "smaller", "PSNR", "largest error", "kept bound")
    listed = table(columns, rows, "Variables that were compressed with loss", wide=True, text=2)
    return (
        f'<section aria-labelledby="summary"><h2 id="summary">Summary</h2>'
        f'<ul class="cards">{"".join(cards)}</ul>{promises}{notes}{listed}</section>'
    )


def _lossless(found: Sequence[Lossless]) -> str:
    if not found:
        return ""
    rows = [
        (escape(each.name), escape(each.reason), size(each.bytes_in), size(each.bytes_out)) for each in found
    ]
    title = "Stored exactly" if all(each.exact for each in found) else "Other variables"
    listed = table(("variable", "why", "before", "after"), rows, "Variables as they are stored", text=2)
    return f'<section aria-labelledby="lossless"><h2 id="lossless">{title}</h2>{listed}</section>'
