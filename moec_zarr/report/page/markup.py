"""Pieces of HTML. Whatever comes from a store goes through `escape` first, or is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from moec_zarr.report.comparison.labels import bytes_text, figure_text

__all__ = ["as_table", "bar", "card", "chart", "decibel", "escape", "figure", "size", "table", "times"]

_ROWS = 200  # of a table of figures at most
_BARS, _BAR = "bars", '<span class="bar"'


def escape(text: object) -> str:
    """Escape text for HTML, between tags or in a quoted attribute."""
    return html.escape(str(text), quote=True)


def figure(value: float | None, units: str = "", digits: int = 3) -> str:
    """Return a figure and its units."""
    return escape(f"{figure_text(value, digits)} {units}".strip())


def decibel(value: float | None) -> str:
    """Return a PSNR."""
    if value is None:
        return "–"
    return "exact" if value == math.inf else f"{value:.1f} dB".replace("-", "−")


def size(count: int) -> str:
    """Write bytes in one word."""
    return escape(bytes_text(count).replace(" ", "\u00a0"))


def times(bytes_in: int, bytes_out: int) -> str:
    """Write how many times smaller the second is."""
    return f"{bytes_in / bytes_out:.3g}×" if bytes_out else "–"


def card(label: str, value: str, more: str = "") -> str:
    """Return a figure of the summary; all of it is HTML."""
    return (
        f'<li><span class="label">{label}</span> <span class="value">{value}</span>'
        f' <span class="more">{more}</span></li>'
    )


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, wide: bool = False, text: int = 1
) -> str:
    """Make a table of HTML cells whose first `text` columns are words; it scrolls by itself if it is wide."""
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


def bar(share: float) -> str:
    """Return a cell that shows a share of the whole."""
    return f'{_BAR} style="width:{100 * share:.1f}%"></span>'


def chart(svg: str, alt: str, caption: str = "", *, small: bool = False) -> str:
    """Return a chart, its text for those who do not see it, and a caption; `alt` is text, `caption` HTML."""
    shown = f"<figcaption>{caption}</figcaption>" if caption else ""
    kind = ' class="small-chart"' if small else ""
    return f'<figure{kind}><div role="img" aria-label="{escape(alt)}">{svg}</div>{shown}</figure>'


def as_table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return a table that is folded away: the figures of a chart, for all who do not see it."""
    return f"<details><summary>As a table</summary>{table(columns, rows, caption)}</details>"
