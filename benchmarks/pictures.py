"""The pictures of the pages: this codec beside peers, each codec in one colour everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.beside import EXACT, FAST, SPERR, encoding, places
from benchmarks.records import Line

# Told apart by those who do not see all colours, after Okabe and Ito.
COLOURS = {
    FAST: "#d55e00",
    SPERR: "#0072b2",
    "SZ3": "#009e73",
    "ZFP": "#cc79a7",
    "JPEG XL": "#e69f00",
    "x265": "#56b4e9",
    "SVT-AV1": "#000000",
}


def plot_quality(lines: Iterable[Line], names: dict[str, str], path: Path) -> None:
    """PSNR against the ratio, a panel for each field."""
    curves: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for fields in places(line for line in lines if "ratio" in line).values():
        for field, codecs in fields.items():
            for codec, line in codecs.items():
                curves.setdefault((field, codec), []).append((line["ratio"], line["psnr"]))
    figure, panels = _panels(list(names.values()))
    for axes, field in zip(panels, names, strict=True):
        for codec, colour in COLOURS.items():
            if points := curves.get((field, codec)):
                style = {"linewidth": 2.5} if codec == FAST else {"linewidth": 1.2, "linestyle": "--"}
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, **style)
        axes.set_xscale("log")
        axes.set_xticks([10, 100, 1000], ["10x", "100x", "1000x"])
        axes.minorticks_off()
    panels[0].set_ylabel("PSNR (dB)")
    _save(figure, path)


def plot_times(lines: Iterable[Line], path: Path) -> None:
    """PSNR above that of SPERR against the time to encode, a panel for each ratio; without exact values."""
    found = places(line for line in lines if "ratio" in line)
    found = {target: each for target, each in found.items() if any(SPERR in of for of in each.values())}
    figure, panels = _panels([f"{target}, a point for each field" for target in found])
    for axes, fields in zip(panels, found.values(), strict=True):
        for codec, colour in COLOURS.items():
            each = [codecs for codecs in fields.values() if codec in codecs and SPERR in codecs]
            each = [codecs for codecs in each if codecs[codec]["psnr"] < EXACT]
            seconds = [encoding(codecs[codec]) for codecs in each]
            gains = [codecs[codec]["psnr"] - codecs[SPERR]["psnr"] for codecs in each]
            axes.scatter(seconds, gains, s=26, color=colour)
        axes.set_xscale("log")
        axes.set_xlabel("CPU seconds a million voxels to encode")
    panels[0].set_ylabel("PSNR above SPERR (dB)")
    _save(figure, path)


def _panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(3.6 * len(titles), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    """Write a picture with one legend for all of its panels."""
    marks = [Line2D([], [], color=colour, marker="o", linestyle="") for colour in COLOURS.values()]
    figure.legend(marks, list(COLOURS), loc="outside lower center", ncols=len(COLOURS), frameon=False)
    figure.savefig(path, dpi=110)
