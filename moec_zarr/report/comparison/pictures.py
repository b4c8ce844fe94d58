"""Panels of pictures: a slice as a map on its coordinates, and spectra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from moec_zarr.arrays import Array, Doubles
from moec_zarr.report.comparison.labels import Axis, axis_of, power_of_ten, with_units
from moec_zarr.report.comparison.spectra import Spectrum

__all__ = [
    "Limits",
    "Slice",
    "draw_field",
    "draw_spectrum",
    "drawing",
    "error_limits",
    "even_places",
    "field_limits",
]

_SIGNED = 0.2  # of the larger side that the smaller side of a signed field has at least
_CLIPPED = 0.1  # percent of the voxels beyond the colour bar, at either end
_LONGEST_SIDE = 4.0  # times the shorter one, in a picture whose voxels are drawn as squares
_TICKS = 5


@contextmanager
def drawing(**settings: Any) -> Iterator[None]:
    """Set matplotlib up for a picture; text that a font lacks is no reason for a warning."""
    import warnings

    import matplotlib as mpl

    with mpl.rc_context(dict[Any, Any](settings)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The two ends of a colour bar, and its colours.

    Attributes
    ----------
    low, high : float
    signed : bool
        Whether the colours diverge about zero.
    """

    low: float
    high: float
    signed: bool

    @property
    def colours(self) -> str:
        """A colour map that the colour-blind read: viridis, or red to blue."""
        return "RdBu_r" if self.signed else "viridis"

    def arrows(self, values: Array) -> str:
        """Return which ends of the colour bar values reach beyond, as matplotlib's `extend` does."""
        finite = values[np.isfinite(values)]
        below, above = bool((finite < self.low).any()), bool((finite > self.high).any())
        return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(
            (below, above), "both"
        )


def field_limits(values: Array) -> Limits:
    """Choose limits that leave out 0.1 % of the values at either end.

    Where a field has values of both signs, and the smaller side is at least a fifth of the larger, the
    limits lie evenly about zero.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return Limits(low=0.0, high=1.0, signed=False)
    low, high = map(float, np.percentile(finite, (_CLIPPED, 100 - _CLIPPED)))
    if low < 0 < high and min(-low, high) >= _SIGNED * max(-low, high):
        bound = max(-low, high)
        return Limits(low=-bound, high=bound, signed=True)
    if low == high:  # constant but for what is clipped
        low, high = float(finite.min()), float(finite.max())
    return Limits(low=low, high=high, signed=False)


def error_limits(error: Array) -> Limits:
    """Choose limits evenly about zero that leave out 0.1 % of the largest errors."""
    finite = np.abs(error[np.isfinite(error)]).astype(np.float64)
    bound = float(np.percentile(finite, 100 - _CLIPPED)) if finite.size else 0.0
    bound = bound or float(finite.max(initial=0)) or 1.0  # an exact copy has no error to scale by
    return Limits(low=-bound, high=bound, signed=True)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Values on two axes.

    Attributes
    ----------
    values : array of float64, shape (y, x)
        NaN where there is no value.
    y, x : Axis
    """

    values: Doubles
    y: Axis
    x: Axis

    @property
    def first_row_on_top(self) -> bool:
        """Whether rows go down, as those of images do, of falling coordinates, and of depths."""
        if self.y.values is None:
            return self.x.values is None
        step = self.y.step
        return (step is not None and step < 0) != self.y.downward

    @classmethod
    def of(cls, array: Any, values: Doubles) -> Slice:
        """Take the values of an array of two axes, on its coordinates."""
        return cls(values=values, y=axis_of(array, 0), x=axis_of(array, 1))


def draw_field(axes: Any, field: Slice, limits: Limits, *, units: str, smooth: str = "nearest") -> None:
    """Draw a slice with a colour bar, its coordinates along the axes.

    Voxels are squares where both coordinates are even and in the same units. The colour bar ends in an
    arrow where values lie beyond it.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    field : Slice
    limits : Limits
    units : str
        For the colour bar.
    smooth : str
        matplotlib's interpolation: "none" keeps one pixel a voxel in a vector picture.
    """
    from matplotlib.ticker import MaxNLocator

    scale, name = power_of_ten(np.array([limits.low, limits.high]))
    axes.set_facecolor("0.75")  # shows through where there is no value
    extents: list[float] = []
    names = []
    for axis in (field.x, field.y):
        first, step = 0.0, axis.step or 1.0  # uneven ones by their order
        if axis.step is not None:
            first = float(axis.start if axis.values is None else axis.values[0])
        ends = np.array([first - step / 2, first + (axis.length - 0.5) * step])
        # Voxels on a square grid stay square: both axes are in one power of ten where they compare.
        extents += ends.tolist()
    powers = [power_of_ten(np.array(extents[:2])), power_of_ten(np.array(extents[2:]))]
    if field.y.comparable(field.x):
        powers = [power_of_ten(np.array(extents))] * 2
    for axis, (_, its_name) in zip((field.x, field.y), powers, strict=True):
        names.append(with_units(axis.title, f"{its_name} {axis.units}".strip()) if its_name else axis.name)
    extents = [end / powers[i // 2][0] for i, end in enumerate(extents)]
    drawn = axes.imshow(
        np.ma.masked_invalid(field.values / scale),
        origin="lower", extent=extents, interpolation=smooth, aspect="auto",
        vmin=limits.low / scale, vmax=limits.high / scale, cmap=limits.colours,
    )  # fmt: skip
    for which, axis, label in zip(("x", "y"), (field.x, field.y), names, strict=True):
        getattr(axes, f"set_{which}label")(label, parse_math=False)
        ticks = getattr(axes, f"{which}axis")
        if axis.step is not None:
            ticks.set_major_locator(MaxNLocator(_TICKS))
            ticks.set_major_formatter(_plain_numbers())
        else:
            chosen = even_places(axis.length, _TICKS)
            places = [axis.place(i).removesuffix(f" {axis.units}") for i in chosen]
            turned = {"rotation": 30, "ha": "right"} if which == "x" and max(map(len, places)) > 7 else {}
            ticks.set_ticks(chosen, places, parse_math=False, **turned)
    axes.set_xlim(*sorted(extents[:2]))
    axes.set_ylim(*(extents[:1:-1] if field.first_row_on_top else extents[2:]))
    height, width = (abs(extents[3] - extents[2]), abs(extents[1] - extents[0]))
    if field.y.comparable(field.x) and 1 / _LONGEST_SIDE <= height / width <= _LONGEST_SIDE:
        axes.set_aspect("equal")
    # Within the axes, so that it is as high as the picture is.
    beside = axes.inset_axes((1.03, 0, 0.045, 1))
    bar = axes.figure.colorbar(drawn, cax=beside, extend=limits.arrows(field.values))
    bar.set_label(" ".join(part for part in (name, units) if part), parse_math=False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(6))
    bar.ax.yaxis.set_major_formatter(_plain_numbers())
    bar.outline.set_linewidth(0.5)


def even_places(length: int, most: int) -> list[int]:
    """Return the first of so many indices and others at even steps, `most` of them or a few less."""
    step = max(1, -(-(length - 1) // max(most - 1, 1)))
    return list(range(0, length, step))


def _plain_numbers() -> Any:
    """Tick labels without an offset or a power of ten: that stands beside the units."""
    from matplotlib.ticker import ScalarFormatter

    formatter = ScalarFormatter(useOffset=False)
    formatter.set_scientific(False)
    return formatter


def draw_spectrum(axes: Any, found: Spectrum, *, units: str, colours: tuple[str, str], part: str) -> None:
    """Draw both spectra over the wavenumber, and a line where they part.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    found : Spectrum
    units : str
        Of the data.
    colours : tuple of str
        Of original and decoded.
    part : str
        Colour of the line where they part.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    lines = ((found.original, "original", "-", 2.4), (found.decoded, "decoded", "--", 1.6))
    for (power, label, style, width), colour in zip(lines, colours, strict=True):
        shown = np.where((power > 0) & np.isfinite(power), power, np.nan)
        axes.plot(found.wavenumber, shown, style, lw=width, color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xlim(found.wavenumber[0] / 1.05, found.wavenumber[-1] * 1.05)
    if (found.original > 0).any() or (found.decoded > 0).any():
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        if high > 30 * low:  # else the minor ticks have labels
            axes.yaxis.set_major_locator(LogLocator(numticks=6))
            axes.yaxis.set_minor_locator(NullLocator())
    octaves = 2.0 ** -np.arange(1, 20)
    axes.xaxis.set_major_locator(FixedLocator(octaves[octaves >= found.wavenumber[0] / 1.05].tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"1/{1 / value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("wavenumber (cycles per voxel)")
    axes.set_ylabel(with_units("variance", f"{units}, squared" if units else ""), parse_math=False)
    if (parting := found.parting) is not None:
        axes.axvline(parting, lw=1, ls=":", color=part, label=f"apart from wavelength {1 / parting:.3g} on")
    axes.legend(frameon=False, loc="best")
