"""The charts of a report, as SVG that takes its colours from the page around it.

matplotlib escapes the text that it writes. No other part of a page is markup that the template does not
escape.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.arrays import Doubles, Integers
from moec_zarr.report.comparison.labels import figure_text, power_of_ten, with_units
from moec_zarr.report.comparison.pictures import (
    Limits,
    Slice,
    draw_field,
    draw_spectrum,
    drawing,
    even_places,
)
from moec_zarr.report.comparison.spectra import Spectrum
from moec_zarr.report.page.findings import Profile, Variable

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = [
    "draw_experts",
    "draw_grid",
    "draw_histogram",
    "draw_map",
    "draw_profile",
    "draw_signal",
    "draw_spectra",
]

# Colours that stand for those of the page; no other colour of a chart is any of them.
_INK, _GRID, _FIRST, _SECOND = "#010203", "#010204", "#010205", "#010206"
_OF_THE_PAGE = {_INK: "currentColor", _GRID: "var(--rule)", _FIRST: "var(--first)", _SECOND: "var(--second)"}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "moec_zarr",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
}
# Of Okabe and Ito, which the colour-blind tell apart and black is read on; without black.
_PALETTE = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#a6cee3", "#bbbbbb"]
_NUMBERED = 16  # experts at most whose numbers are written in
_DECADES = 30.0  # from the smallest position to the largest, from which on their scale is logarithmic
_ANNOTATED = 48  # cells of a grid at most that have their figures written in


def _svg(size: tuple[float, float], draw: Callable[[Any, Any], None], *, right: float = 0.98) -> Markup:
    """Make an inline SVG of a figure of some inches; the page around it says what it shows."""
    from markupsafe import Markup
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

    with drawing(**_STYLE):
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        axes = figure.subplots(gridspec_kw={"left": 0.13, "right": right, "bottom": 0.16, "top": 0.97})
        draw(figure, axes)
        # As wide as asked for, so that neighbours look alike, and as high as needed.
        box = figure.get_tightbbox()
        edges = min(box.x0, 0), box.y0 - 0.03, max(box.x1, size[0]), box.y1 + 0.03
        buffer = io.StringIO()
        inches = Bbox.from_extents(*edges)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None}, bbox_inches=inches)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for pattern in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r'<g id="[^"]*"', r"<!--.*?-->"):
        text = re.sub(pattern, "<g" if pattern.startswith("<g") else "", text, flags=re.DOTALL)
    text = re.sub(
        r'^<svg .*?viewBox="([^"]*)".*?>', r'<svg viewBox="\1" aria-hidden="true">', text, flags=re.DOTALL
    )
    for colour, name in _OF_THE_PAGE.items():
        text = text.replace(colour, name)
    return Markup(text)


def draw_map(field: Slice, limits: Limits, units: str) -> Markup:
    """Draw a slice as a map."""

    def draw(figure: Any, axes: Any) -> None:
        draw_field(axes, field, limits, units=units, smooth="none")

    return _svg((4.6, 3.7), draw, right=0.79)


def draw_spectra(found: Spectrum, units: str) -> Markup:
    """Draw the spectra of original and decoded."""

    def draw(figure: Any, axes: Any) -> None:
        draw_spectrum(axes, found, units=units, colours=(_FIRST, _SECOND), part=_INK)
        axes.grid(visible=True)
        _bare(axes)

    return _svg((5.2, 3.2), draw)


def draw_histogram(counts: Integers, edges: Doubles, units: str) -> Markup:
    """Draw how many voxels have which error."""
    from matplotlib.ticker import MaxNLocator

    scale, name = power_of_ten(edges)

    def draw(figure: Any, axes: Any) -> None:
        axes.set_axisbelow(True)
        axes.stairs(counts, edges / scale, fill=True, color=_FIRST)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        axes.set_xlim(edges[0] / scale, edges[-1] / scale)
        axes.set_xlabel(with_units("decoded − original", f"{name} {units}".strip()), parse_math=False)
        axes.set_ylabel("voxels")
        axes.grid(visible=True, axis="y")
        _bare(axes)

    return _svg((5.2, 3.2), draw)


def draw_profile(profile: Profile, units: str) -> Markup:
    """Draw root mean square and largest error along a dimension."""
    both = np.array([profile.rmse, profile.max_error])
    scale, name = power_of_ten(both)
    places = _positions(profile)
    style = {"marker": "o", "ms": 3.5} if len(places) <= 40 else {}

    def draw(figure: Any, axes: Any) -> None:
        axes.plot(places, both[1] / scale, "--", color=_SECOND, lw=1.6, label="largest", **style)
        axes.plot(places, both[0] / scale, "-", color=_FIRST, lw=2, label="root mean square", **style)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(with_units("error", f"{name} {units}".strip()), parse_math=False)
        _along(axes, profile)

    return _svg((5.2, 3.0), draw)


def draw_signal(profile: Profile) -> Markup:
    """Draw the error as a part of the signal along a dimension, and where it exceeds it."""
    places = _positions(profile)
    style = {"marker": "o", "ms": 3.5} if len(places) <= 40 else {}

    def draw(figure: Any, axes: Any) -> None:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        for (name, shares), dash, colour in zip(
            reversed(profile.signal), ("-", "--"), (_FIRST, _SECOND), strict=False
        ):
            shown = np.array([share if 0 < share < math.inf else math.nan for share in shares])
            axes.plot(places, shown, dash, color=colour, lw=1.8, label=name, **style)
        axes.set_yscale("log")
        axes.axhline(1, lw=1, ls=":", color=_INK)
        for n, row in enumerate(profile.exceeding):
            label = "error exceeds the signal" if n == 0 else None
            axes.axvline(places[row], lw=5, alpha=0.25, color=_SECOND, zorder=0, label=label)
        low, high = axes.get_ylim()
        axes.set_ylim(low, max(high, 1.6))
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes.set_ylabel("root mean square error")
        _along(axes, profile)

    return _svg((5.2, 3.0), draw)


def _positions(profile: Profile) -> Doubles:
    """Return where the rows of a profile are drawn."""
    if profile.positions is not None:
        return np.array(profile.positions)
    return np.arange(len(profile.rmse), dtype=np.float64)


def _along(axes: Any, profile: Profile) -> None:
    """Name the places along the dimension of a profile."""
    axes.set_xlabel(profile.title, parse_math=False)
    ends = (0.0, 0.0) if profile.positions is None else (min(profile.positions), max(profile.positions))
    if 0 < ends[0] * _DECADES <= ends[1]:
        axes.set_xscale("log")  # as of pressures, which stand close together at one end
    if profile.positions is None:
        chosen = even_places(len(profile.places), 5)
        labels = [profile.places[i] for i in chosen]
        turned = {"rotation": 20, "ha": "right"} if max(map(len, labels)) > 10 else {}
        axes.set_xticks(chosen, labels, parse_math=False, **turned)
    axes.grid(visible=True)
    axes.legend(frameon=False, loc="best")
    _bare(axes)


def draw_grid(variable: Variable, which: str) -> Markup:
    """Draw PSNR, or largest error, over the grid of chunks: the worst over all other dimensions.

    Parameters
    ----------
    variable : Variable
        With more than one chunk.
    which : {"psnr", "max_error"}
    """
    several = [axis for axis, count in enumerate(variable.grid) if count > 1][-2:]
    rows, columns = ([1] + [variable.grid[axis] for axis in several])[-2:]
    worst = np.full((rows, columns), np.nan)
    pick = np.fmin if which == "psnr" else np.fmax
    for cell in variable.cells:
        place = tuple(([0] + [cell.index[axis] for axis in several])[-2:])
        worst[place] = pick(worst[place], getattr(cell, which))
    shown = np.where(np.isposinf(worst), np.nan, worst)
    scale, name = (1.0, "") if which == "psnr" else power_of_ten(shown)
    units = "dB" if which == "psnr" else f"{name} {variable.units}".strip()

    def draw(figure: Any, axes: Any) -> None:
        values = np.ma.masked_invalid(shown / scale)
        # The better, the lighter, in both.
        image = axes.imshow(
            values, origin="lower", interpolation="none", aspect="auto",
            cmap="viridis" if which == "psnr" else "viridis_r",
        )  # fmt: skip
        axes.set_facecolor("0.75")
        bar = figure.colorbar(image, ax=axes)
        bar.set_label(units, parse_math=False)
        bar.outline.set_linewidth(0.5)
        if worst.size <= _ANNOTATED and columns <= 10:
            for (y, x), value in np.ndenumerate(worst):
                if math.isnan(value):
                    continue
                red, green, blue, _ = image.cmap(image.norm(shown[y, x] / scale))
                dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
                axes.text(
                    x, y, figure_text(float(value / scale)), ha="center", va="center", fontsize=9,
                    color="white" if dark and math.isfinite(shown[y, x]) else "black",
                )  # fmt: skip
        for name_of_axis, axis in zip(("y", "x")[-len(several) :], several, strict=True):
            getattr(axes, f"set_{name_of_axis}label")(
                f"{variable.cell_name} along {variable.dims[axis]}", parse_math=False
            )
        _whole_ticks(axes, rows, columns)

    return _svg((4.8, max(1.6, min(3.6, 1.2 + 0.4 * rows))), draw)


def draw_experts(found: Integers, first_row_on_top: bool) -> Markup:
    """Draw which expert evaluates each voxel of a slice; each region bears its expert's number."""
    from matplotlib.colors import ListedColormap

    def draw(figure: Any, axes: Any) -> None:
        axes.imshow(
            found % len(_PALETTE), interpolation="none", origin="upper" if first_row_on_top else "lower",
            cmap=ListedColormap(_PALETTE), vmin=-0.5, vmax=len(_PALETTE) - 0.5,
        )  # fmt: skip
        if (experts := np.unique(found)).size <= _NUMBERED:
            for expert in experts.tolist():
                # At the voxel of the region that is nearest to the region's middle.
                places = np.argwhere(found == expert)
                y, x = places[np.square(places - places.mean(axis=0)).sum(axis=1).argmin()]
                axes.text(x, y, str(expert), ha="center", va="center", color="black", weight="bold")
        axes.set_xlabel("voxel")
        axes.set_ylabel("voxel")

    return _svg((4.2, 3.4), draw)


def _bare(axes: Any) -> None:
    """Take away the frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def _whole_ticks(axes: Any, rows: int, columns: int) -> None:
    for ticks, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        chosen = even_places(count, 6)
        ticks.set_ticks(chosen, [str(i) for i in chosen])
    if rows == 1:
        axes.set_yticks([])
