"""Pictures of an original, what was decoded of it, and the error."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from moec_zarr.errors import MoECError
from moec_zarr.report.comparison.labels import (
    axis_of,
    clean,
    figure_text,
    name_of,
    power_of_ten,
    units_of,
    with_units,
)
from moec_zarr.report.comparison.pictures import (
    Slice,
    draw_field,
    draw_spectrum,
    drawing,
    error_limits,
    field_limits,
)
from moec_zarr.report.comparison.spectra import spectrum

__all__ = ["plot_comparison"]

_BLUE, _ORANGE = "#0072b2", "#d55e00"  # of Okabe and Ito's palette, which the colour-blind tell apart


def plot_comparison(
    a: Any,
    b: Any,
    path: str | PathLike[str],
    *,
    title: str | None = None,
    ratio: float | None = None,
    psnr: float | None = None,
) -> None:
    """Save a picture of original, decoded, error (decoded less original) and the spectra of both.

    Shown is the slice along the last two axes longer than 1, in the middle of the others; the title says
    where that is. Colours diverge about zero where a field has both signs. 0.1 % of the voxels at either end
    may lie beyond the colours; an arrow on the colour bar says so.

    Parameters
    ----------
    a, b : array-like
        Original and decoded, of one shape. An xarray.DataArray gives the picture its names, units and
        coordinates.
    path : str or path-like
        File to write, in the format of its suffix.
    title : str, optional
        By default the name of `a`, where it has one.
    ratio, psnr : float, optional
        Compression ratio and PSNR in dB of the whole field, for the caption.

    Raises
    ------
    MoECError
        If shapes differ, or fewer than two axes are longer than 1.
    """
    plane = [axis for axis, size in enumerate(a.shape) if size > 1][-2:]
    if a.shape != b.shape or len(plane) < 2:
        raise MoECError(
            f"got shapes {a.shape} and {b.shape}; "
            "a picture needs arrays of one shape with two axes longer than 1"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    middle = tuple(slice(None) if axis in plane else size // 2 for axis, size in enumerate(a.shape))
    shown = a[middle]
    x, y = (np.asarray(v[middle]).astype(np.float64) for v in (a, b))
    with np.errstate(invalid="ignore"):  # the difference of two infinities
        error = y - x
    units = units_of(a)
    where = [
        axis_of(a, axis).at(size // 2) for axis, size in enumerate(a.shape) if axis not in plane and size > 1
    ]
    name = clean(title) if title else name_of(a)
    facts = [
        f"{figure_text(ratio, 4)} times smaller" if ratio is not None else "",
        f"PSNR {psnr:.1f} dB" if psnr is not None else "",
    ]
    whole = ", ".join(fact for fact in facts if fact)
    finite = error[np.isfinite(error)]
    scale, power = power_of_ten(finite)
    largest = figure_text(float(np.abs(finite).max(initial=0)) / scale)
    rms = figure_text(float(np.sqrt(np.square(finite / scale).mean())) if finite.size else None)

    with drawing():
        figure = Figure(figsize=(12, 9.2), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 2)
        limits = field_limits(x)
        for axes, label, values, its in (
            (panels[0, 0], "original", x, limits),
            (panels[0, 1], "decoded", y, limits),
            (panels[1, 0], "error: decoded − original", error, error_limits(error)),
        ):
            draw_field(axes, Slice.of(shown, values), its, units=units)
            axes.set_title(label)
        panels[1, 0].set_title(
            with_units(
                f"error: decoded − original\nin this slice at most {largest}, rms {rms}",
                f"{power} {units}".strip(),
            ),
            parse_math=False,
        )
        found = spectrum([(x, y, np.isfinite(x) & np.isfinite(y))])
        last = panels[1, 1]
        last.set_title("spectra of this slice")
        if found is None:
            last.set_axis_off()
            last.text(0.5, 0.5, "none: the slice has a side of less than 8 voxels, or no value", ha="center")
        else:
            draw_spectrum(last, found, units=units, colours=(_BLUE, _ORANGE), part="0.4")
            last.grid(alpha=0.25)
        heading = ", ".join(part for part in (name, *where) if part)
        figure.suptitle(
            "\n".join(line for line in (heading, f"whole field: {whole}" if whole else "") if line),
            parse_math=False,
        )
        figure.savefig(path, dpi=110)
