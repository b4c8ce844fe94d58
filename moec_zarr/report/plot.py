"""Pictures of an original, what was decoded of it, and the error."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from moec_zarr.errors import MoECError

__all__ = ["plot_comparison"]


def plot_comparison(
    a: Any,
    b: Any,
    path: str | PathLike[str],
    *,
    title: str | None = None,
    ratio: float | None = None,
    psnr: float | None = None,
) -> None:
    """Save a picture of original, decoded and error (decoded less original) side by side.

    Shown is the slice along the last two axes longer than 1, in the middle of the others.

    Parameters
    ----------
    a, b : array-like
        Original and decoded, of one shape. An xarray.DataArray gives the picture its names and units.
    path : str or path-like
        File to write, in the format of its suffix.
    title : str, optional
        By default the name of `a`, where it has one.
    ratio, psnr : float, optional
        Compression ratio and PSNR in dB, for the caption.

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
    x, y = (np.asarray(v[middle]).astype(np.float64) for v in (a, b))
    with np.errstate(invalid="ignore"):  # the difference of two infinities
        error = y - x
    x, y, error = (np.ma.masked_invalid(v) for v in (x, y, error))
    low, high = (float(x.min()), float(x.max())) if x.count() else (0.0, 1.0)
    bound = float(np.abs(error).max()) if error.count() else 0.0

    attributes = getattr(a, "attrs", {})
    units = str(attributes.get("units", ""))
    name = title or str(attributes.get("long_name", getattr(a, "name", None) or ""))
    facts = [
        f"{ratio:.4g} times smaller" if ratio is not None else "",
        f"PSNR {psnr:.1f} dB" if psnr is not None else "",
    ]

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = [
        ("original", x, {"vmin": low, "vmax": high, "cmap": "viridis"}),
        ("decoded", y, {"vmin": low, "vmax": high, "cmap": "viridis"}),
        # An exact copy has no error to scale by; any bound shows it as zero.
        ("decoded - original", error, {"vmin": -(bound or 1.0), "vmax": bound or 1.0, "cmap": "RdBu_r"}),
    ]
    for axes, (label, image, style) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.set_facecolor("0.8")  # shows through where there is no value
        drawn = axes.imshow(image, origin="lower", aspect="auto", interpolation="nearest", **style)
        axes.set_title(label)
        if dims := getattr(a, "dims", None):
            axes.set_ylabel(str(dims[plane[0]]))
            axes.set_xlabel(str(dims[plane[1]]))
        figure.colorbar(drawn, ax=axes, label=units)
    figure.suptitle("   ".join(part for part in [name, *facts] if part))
    figure.savefig(path, dpi=110)
