"""The part of a report's page that speaks of one variable."""

from __future__ import annotations

import math

from moec_zarr.report.comparison.labels import figure_text
from moec_zarr.report.comparison.pictures import error_limits, field_limits
from moec_zarr.report.comparison.spectra import Spectrum
from moec_zarr.report.page.charts import (
    expert_chart,
    field_chart,
    grid_chart,
    histogram_chart,
    profile_chart,
    spectrum_chart,
)
from moec_zarr.report.page.findings import Profile, SliceView, Variable
from moec_zarr.report.page.markup import (
    as_table,
    bar,
    card,
    chart,
    decibel,
    escape,
    figure,
    size,
    table,
    times,
)

__all__ = ["kept", "of_range", "psnr_of", "variable_section"]

_KINDS = {
    "transform": "transform",
    "model": "network",
    "both": "transform and network",
    "constant": "constant",
    "lossless": "without loss",
}


def psnr_of(each: Variable) -> float | None:
    """Write the PSNR of the whole variable, or else the lowest that any chunk has."""
    return each.psnr if each.psnr is not None else each.psnr_lowest


def of_range(each: Variable) -> str:
    """Return the largest error as a share of the range of the original; empty where that is not known."""
    return f"{100 * each.max_error / each.spread:.2g} % of the range" if each.spread else ""


def kept(each: Variable) -> str:
    """Return the bound that a variable keeps, in words."""
    if each.bound == 0:
        return "kept exactly, every value"
    whole = f", by the {each.streams} streams that were looked at" if each.sampled else ""
    return f"kept: no value further off than {figure(each.bound, each.units, 6)}{whole}"


def variable_section(key: str, each: Variable) -> str:
    """Write all of a variable.

    Parameters
    ----------
    key : str
        Unique on the page; links lead to it.
    each : Variable

    Returns
    -------
    str
        HTML.
    """
    shape = " × ".join(f"{n} {dim}" for n, dim in zip(each.shape, each.dims, strict=True))
    title = f" – {escape(each.title)}" if each.title and each.title != each.name else ""
    cards = [
        card(
            "Size",
            f"{size(each.bytes_in)} → {size(each.bytes_out)}",
            f"{times(each.bytes_in, each.bytes_out)} smaller",
        ),
        card("Largest error", figure(each.max_error, each.units), of_range(each)),
        card(
            "PSNR" if each.psnr is not None else f"PSNR of the worst {escape(each.cell_name)}",
            decibel(psnr_of(each)),
            f"{decibel(each.psnr_lowest)} in the worst {escape(each.cell_name)}"
            if each.psnr is not None and len(each.cells) > 1
            else "",
        ),
    ]
    if each.percentiles:
        (share, value), *_ = list(each.percentiles.items())[2:3] or list(each.percentiles.items())[:1]
        cards.append(card(f"{escape(share)} of the errors", figure(value, each.units), "or less, in every "
                           f"{escape(each.cell_name)}"))  # fmt: skip
    kinds = ", ".join(f"{_KINDS.get(kind, kind)} {count}" for kind, count in each.kinds.items())
    facts = (
        ("shape", escape(shape)),
        ("chunks", escape(" × ".join(map(str, each.chunks)))),
        ("codec", f"<code>{escape(each.codec)}</code>"),
        ("figures", escape(each.origin)),
        ("streams", escape(f"{each.streams} looked at, of {each.streams_all} chunks: {kinds}")),
    )
    notes = "".join(f'<p class="note" role="note">{escape(text)}</p>' for text in each.notes)
    promise = f'<p class="kept">{kept(each)}</p>' if each.bound is not None else ""
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f'<section class="variable" id="{key}" aria-labelledby="{key}-title">'
        f'<h2 id="{key}-title">{escape(each.name)}<span class="soft">{title}</span></h2>'
        f'<ul class="cards">{"".join(cards)}</ul>{promise}{notes}<dl class="facts">{listed}</dl>'
        f'{_slices(key, each)}<div class="pair">{_errors(each)}{_spectra(each)}{_profiles(each)}</div>'
        f'{_grid(each)}<div class="pair">{_bytes(each)}{_experts(each)}</div></section>'
    )


def _slices(key: str, each: Variable) -> str:
    if not each.slices:
        return ""
    choosers = "".join(
        f'<label for="{key}-c{i}">{escape(choice.title)} <select id="{key}-c{i}">'
        + "".join(
            f'<option value="{j}"{" selected" if j == choice.first else ""}>{escape(place)}</option>'
            for j, place in enumerate(choice.places)
        )
        + "</select></label>"
        for i, choice in enumerate(each.choices)
    )
    first = tuple(choice.first for choice in each.choices)
    views = "".join(_view(each, view, hidden=view.key != first) for view in each.slices)
    what = "Original, decoded, and the error" if each.slices[0].original is not None else "Slices as decoded"
    group = (
        f'<div class="choose" role="group" aria-label="Choose a slice">{choosers}</div>' if choosers else ""
    )
    return (
        f"<h3>{what}</h3><div data-slices>"
        f"{group}{views}"
        '<p class="small soft" role="status" aria-live="polite"></p></div>'
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
            chart(
                field_chart(view.original, limits, each.units),
                f"Map of {each.name}, original, {place}",
                "<b>original</b>",
            )
        )
    panels.append(
        chart(
            field_chart(view.decoded, limits, each.units),
            f"Map of {each.name}, decoded, {place}",
            "<b>decoded</b>",
        )
    )
    said = f"Shown: {place or 'all of it'}."
    if view.error is not None and view.quality is not None:
        quality = view.quality
        rms = f"root mean square {figure_text(quality.rmse)} {each.units}".strip()
        figures = f"largest {figure_text(quality.max_error)}, {rms}"
        panels.append(
            chart(
                field_chart(view.error, error_limits(view.error.values), each.units),
                f"Map of the error of {each.name}, {place}: {figures}",
                f"<b>error</b>, decoded − original: {escape(figures)}",
            )
        )
        whole = f"; that of the whole variable is {decibel(each.psnr)}" if each.psnr is not None else ""
        said += f" PSNR of this slice {decibel(quality.psnr)}{whole}."
    if (pictured.values.shape[0], pictured.values.shape[1]) != tuple(n for n in each.shape if n > 1)[-2:]:
        said += " Maps show some of the voxels, at even steps; figures are of all of the middle of the slice."
    key = ",".join(map(str, view.key))
    return (
        f'<div class="panels" data-key="{key}" data-said="{escape(said)}"{" hidden" if hidden else ""}>'
        f"{''.join(panels)}</div>"
    )


def _errors(each: Variable) -> str:
    """Show the distribution of errors: a histogram if a source was given, else percentiles on record."""
    parts = []
    if each.histogram is not None:
        counts, edges = each.histogram
        ends = f"from {figure_text(edges[0])} to {figure_text(edges[-1])} {each.units}".strip()
        alt = f"Histogram of the error in {int(counts.sum())} voxels, {ends}"
        rows = [
            (escape(f"{figure_text(low)} to {figure_text(high)}"), str(count))
            for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        ]
        parts.append(
            chart(
                histogram_chart(counts, edges, each.units),
                alt,
                f"Of {int(counts.sum())} voxels in the slices above; the scale is logarithmic from 1 on.",
            )
            + as_table(
                (escape(f"error, {each.units}" if each.units else "error"), "voxels"), rows, "Voxels by error"
            )
        )
    if each.percentiles:
        rows = [(escape(share), figure(value, each.units)) for share, value in each.percentiles.items()] + [
            ("all", figure(each.max_error, each.units))
        ]
        caption = f"Share of the values, and what their error is at most, in every {escape(each.cell_name)}"
        parts.append(table(("share", "error at most"), rows, caption, wide=True))
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
        + chart(
            spectrum_chart(found, each.units),
            f"Variance of original and decoded over the wavenumber. {apart}",
            f"<b>{escape(apart)}</b> Spectra {escape(each.spectrum_origin)}.",
        )
        + as_table(columns, rows, "Variance by wavenumber, in cycles per voxel")
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
        (escape(place), figure_text(rmse), figure_text(value))
        for place, rmse, value in zip(profile.places, profile.rmse, profile.max_error, strict=True)
    ]
    title = f"Error by {profile.title}"
    return (
        f"<div><h3>{escape(title)}</h3>"
        + chart(profile_chart(profile, each.units), f"{title}. {caption}", escape(caption))
        + as_table((escape(profile.title), "root mean square", "largest"), rows, escape(title))
        + "</div>"
    )


def _grid(each: Variable) -> str:
    charts = []
    for which, what in (("psnr", "PSNR"), ("max_error", "largest error")):
        if (svg := grid_chart(each, which)) is not None:
            worst = "lowest" if which == "psnr" else "largest"
            alt = f"{what} over the grid of {each.cell_name}s, the {worst} along all other dimensions"
            charts.append(
                chart(svg, alt, f"<b>{what}</b>, the {worst} along all other dimensions", small=True)
            )
    if not charts:
        return ""
    ordered = sorted(each.cells, key=lambda cell: -cell.max_error)
    rows = [
        (escape(cell.place), decibel(cell.psnr), figure(cell.max_error, each.units), f"{cell.ratio:.3g}×")
        for cell in ordered
    ]
    table = as_table(
        (escape(each.cell_name), "PSNR", "largest error", "smaller"),
        rows,
        f"All {escape(each.cell_name)}s, the worst first.",
    )
    return (
        f"<h3>Over the grid of {escape(each.cell_name)}s</h3>"
        f'<p class="small soft">The peak of a PSNR here is the range of the {each.cell_name} itself.</p>'
        f'<div class="pair">{"".join(charts)}</div>{table}'
    )


def _bytes(each: Variable) -> str:
    total = sum(each.sections.values())
    if not total:
        return ""
    rows = [
        (
            escape(name),
            size(count),
            f"{100 * count / total:.1f} %",
            bar(count / total),
        )
        for name, count in sorted(each.sections.items(), key=lambda item: -item[1])
    ]
    body = table(("section", "bytes", "share", "&nbsp;"), rows, "Bytes of the streams by section", wide=True)
    return f"<div><h3>Where the bytes go</h3>{body}</div>"


def _experts(each: Variable) -> str:
    found = each.experts
    if found is None:
        return ""
    rows = [(str(i), f"{100 * share:.1f} %", bar(share)) for i, share in enumerate(found.load)]
    body = table(
        ("expert", "load", "&nbsp;"), rows, "Share of the voxels that each expert evaluates", wide=True
    )
    on_top = bool(each.slices) and each.slices[0].decoded.first_row_on_top
    where = f"in the middle slice of one chunk: {found.chunk}"
    caption = f"Which of {len(found.load)} experts evaluates a voxel, {where}"
    return (
        "<div><h3>Experts of the network</h3>"
        + chart(expert_chart(found.map, on_top), caption, escape(caption), small=True)
        + body
        + "</div>"
    )
