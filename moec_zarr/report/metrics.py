"""How far a decoded array is from its original: figures and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from moec_zarr.errors import MoECError, UnsupportedArrayError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Comparison", "compare", "plot_comparison"]

BLOCK = 2**21  # voxels held at a time, unless one stored chunk is larger
WINDOW = 7  # voxels, the side of an SSIM window


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What `compare` found. A *special* voxel is NaN, infinite or `missing`; the others are valid.

    Attributes
    ----------
    psnr : float
        Peak signal-to-noise ratio in dB, the peak being the range of the original's valid voxels;
        infinite where the arrays are equal.
    psnr_dtype : float or None
        The same with the largest number of an integer dtype as the peak, as the literature on neural
        codecs has it. It can be far higher than `psnr`; the two are never comparable. None for floats.
    nrmse : float
        Root mean square error over the range of the original's valid voxels.
    ssim : float or None
        Structural similarity; None where there is no window to take it from.
    max_error : float
        Largest absolute error, in units of the data.
    n : int
        Number of voxels.
    n_valid : int
        Number of voxels that are valid in the original: those that the errors are taken over.
    n_special_mismatch : int
        Number of voxels that are special in either array and do not hold the same value in both.
    """

    psnr: float
    psnr_dtype: float | None
    nrmse: float
    ssim: float | None
    max_error: float
    n: int
    n_valid: int
    n_special_mismatch: int


@overload
def compare(a: xr.Dataset, b: xr.Dataset, *, missing: float | None = None) -> dict[str, Comparison]: ...


@overload
def compare(a: Any, b: Any, *, missing: float | None = None) -> Comparison: ...


def compare(a: Any, b: Any, *, missing: float | None = None) -> Comparison | dict[str, Comparison]:
    """Compare a decoded array or dataset with its original.

    Both are read block by block, along the chunks where they are stored in chunks, and never held whole.

    Errors are taken over the voxels that are valid in the original. A voxel that is valid there and
    special in the decoded array is lost: it counts as a special mismatch, and makes the errors infinite
    and `psnr` minus infinity.

    SSIM is that of Wang et al. (2004, doi:10.1109/TIP.2003.819861) as `skimage.metrics` computes it, on
    the values as they are: windows of 7 x 7 voxels, uniform weights, sample covariance, `data_range` that
    of the original's valid voxels. It is the mean over all windows in all 2D slices along the last two
    axes longer than 1. Windows are left out where they hold a voxel that is special in either array, or
    reach over the border of a block (arrays of more than 2 million voxels only). There is none, hence
    None, where a slice has a side below 7, where the original is constant, and in 1D.

    Parameters
    ----------
    a, b : array-like or xarray.Dataset
        Original and decoded: NumPy or zarr arrays, xarray.DataArray, or two datasets, of which the data
        variables with integer or float values are compared. Coordinates are not.
    missing : float, optional
        A sentinel that counts as special, as NaN does.

    Returns
    -------
    Comparison or dict of str to Comparison
        By variable for datasets.

    Raises
    ------
    MoECError
        If shapes or dimensions differ, only one is a dataset, a variable is absent from `b`, or
        scikit-image is not installed.
    UnsupportedArrayError
        If an array holds neither integers nor floats.
    """
    if hasattr(a, "data_vars") != hasattr(b, "data_vars"):
        raise MoECError(
            f"got {type(a).__name__} and {type(b).__name__}; compare two datasets, or one variable of each"
        )
    if not hasattr(a, "data_vars"):
        return _compare(a, b, missing)
    names = [name for name, variable in a.data_vars.items() if variable.dtype.kind in "iuf"]
    if absent := [name for name in names if name not in b.data_vars]:
        raise MoECError(
            f"{', '.join(map(repr, absent))} of the original not found in the decoded dataset, which has "
            f"{', '.join(map(repr, b.data_vars))}; drop it from the original or compare single variables"
        )
    return {name: _compare(a[name], b[name], missing) for name in names}


def _compare(a: Any, b: Any, missing: float | None) -> Comparison:
    if a.shape != b.shape or len({array.dims for array in (a, b) if hasattr(array, "dims")}) > 1:
        raise MoECError(f"got {_describe(a)} and {_describe(b)}; compare arrays of one shape")
    for array in (a, b):
        if array.dtype.kind not in "iuf":
            raise UnsupportedArrayError(
                f"got an array of dtype {array.dtype}, expected integers or floats; convert it with astype"
            )
    blocks = list(_blocks(a.shape, _chunks(b) or _chunks(a)))
    low, high, n_valid = _extent(a, blocks, missing)
    span = high - low
    # The last two axes longer than 1 span a slice; where there are none, so is the SSIM.
    plane = [axis for axis, size in enumerate(a.shape) if size > 1][-2:]

    squares = worst = 0.0
    n_special_mismatch = 0
    similarity, windows = 0.0, 0
    for block in blocks:
        x, y = np.asarray(a[block]), np.asarray(b[block])
        special_x, special_y = _special(x, missing), _special(y, missing)
        both = ~(special_x | special_y)
        same = (x == y) | ((x != x) & (y != y))
        n_special_mismatch += int(np.count_nonzero(~both & ~same))
        if np.any(special_y & ~special_x):
            squares = worst = math.inf
        error = _distance(x[both], y[both])
        squares += float(np.dot(error, error))
        worst = max(worst, float(np.max(error, initial=0)))
        if len(plane) == 2 and span > 0:
            sides = tuple(x.shape[axis] for axis in plane)
            stack = (-1, *sides)
            s, w = _similarity(x.reshape(stack), y.reshape(stack), both.reshape(stack), low, span)
            similarity, windows = similarity + s, windows + w

    rmse = math.sqrt(squares / n_valid) if n_valid else 0.0
    integer = a.dtype.kind in "iu"
    return Comparison(
        psnr=_decibel(span, rmse),
        psnr_dtype=_decibel(float(np.iinfo(a.dtype).max), rmse) if integer else None,
        nrmse=0.0 if rmse == 0 else rmse / span if span else math.inf,
        ssim=similarity / windows if windows else None,
        max_error=worst,
        n=math.prod(a.shape),
        n_valid=n_valid,
        n_special_mismatch=n_special_mismatch,
    )


def _describe(array: Any) -> str:
    return f"shape {array.shape}" + (f" of {array.dims}" if hasattr(array, "dims") else "")


def _chunks(array: Any) -> tuple[int, ...] | None:
    """Shape of the stored chunks, where there are any: of zarr, dask, and xarray over either."""
    chunks = getattr(array, "chunks", None) or getattr(array, "encoding", {}).get("chunks")
    if not chunks or len(chunks) != len(array.shape):
        return None
    return tuple(side if isinstance(side, int) else max(side) for side in chunks)


def _blocks(shape: tuple[int, ...], chunks: tuple[int, ...] | None) -> Iterator[tuple[slice, ...]]:
    """Blocks of whole chunks that fill `shape`, the last axes taken whole first."""
    sides = [min(c, n) for c, n in zip(chunks or (1,) * len(shape), shape, strict=True)]
    for axis in reversed(range(len(shape))):
        room = BLOCK // max(math.prod(sides), 1)
        sides[axis] = min(sides[axis] * max(room, 1), shape[axis])
        if sides[axis] < shape[axis]:
            break
    ranges = (range(0, n, max(side, 1)) for n, side in zip(shape, sides, strict=True))
    for starts in product(*ranges):
        yield tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _special(x: NDArray[Any], missing: float | None) -> NDArray[np.bool_]:
    special: NDArray[np.bool_] = ~np.isfinite(x)
    return special if missing is None else special | np.equal(x, missing)


def _extent(a: Any, blocks: list[tuple[slice, ...]], missing: float | None) -> tuple[float, float, int]:
    """Least and largest valid value, and the number of valid voxels."""
    low, high, count = math.inf, -math.inf, 0
    for block in blocks:
        x = np.asarray(a[block])
        valid = x[~_special(x, missing)]
        if valid.size:
            low, high = min(low, float(valid.min())), max(high, float(valid.max()))
            count += valid.size
    return (low, high, count) if count else (0.0, 0.0, 0)


def _distance(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """|x - y|, exact for integers of every width."""
    if x.dtype.kind in "iu" and x.dtype == y.dtype:
        # Wrapped to 64 bits without sign, the difference of larger and smaller is exact.
        larger, smaller = np.maximum(x, y).astype(np.uint64), np.minimum(x, y).astype(np.uint64)
        x, y = larger - smaller, np.zeros((), np.uint64)
    difference: NDArray[np.float64] = np.abs(x.astype(np.float64) - y.astype(np.float64))
    return difference


def _similarity(
    x: NDArray[Any], y: NDArray[Any], both: NDArray[np.bool_], low: float, span: float
) -> tuple[float, int]:
    """Sum of SSIM over the windows of a stack of slices (slice, y, x) that are valid, and their number."""
    try:
        from scipy.ndimage import minimum_filter
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise MoECError('compare needs scikit-image; install it with pip install "moec-zarr[all]"') from error
    if min(x.shape[1:]) < WINDOW:
        return 0.0, 0
    total, count = 0.0, 0
    inner = slice(WINDOW // 2, -(WINDOW // 2))
    for p, q, valid in zip(x, y, both, strict=True):
        whole = minimum_filter(valid, WINDOW)[inner, inner]
        # Neither image is looked at where a voxel is special; a fill within the data keeps sums accurate.
        images = (np.where(valid, v, low).astype(np.float64) for v in (p, q))
        _, local = structural_similarity(*images, win_size=WINDOW, data_range=span, full=True)
        total += float(local[inner, inner][whole].sum())
        count += int(np.count_nonzero(whole))
    return total, count


def _decibel(peak: float, rmse: float) -> float:
    if rmse == 0:
        return math.inf
    return 20 * math.log10(peak / rmse) if peak > 0 and rmse < math.inf else -math.inf


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
