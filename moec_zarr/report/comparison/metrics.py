"""How far a decoded array is from its original, in figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import zarr

from moec_zarr.adapters.tree import datasets_of, flatten
from moec_zarr.archive.stored import stored_dataset
from moec_zarr.arrays import Array, Bools
from moec_zarr.errors import MoECError, UnsupportedArrayError
from moec_zarr.quality import decibel, half_range, measure, merge
from moec_zarr.report.comparison.alignment import align

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["BLOCK", "Comparison", "Groups", "compare", "match_arrays", "match_variables"]

BLOCK = 2**21  # voxels held at a time, unless one stored chunk is larger
_WINDOW = 7  # voxels, the side of an SSIM window


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
    left_out : tuple of str
        What was not compared, since the coordinates of one array lack it, in words.
    """

    psnr: float
    psnr_dtype: float | None
    nrmse: float
    ssim: float | None
    max_error: float
    n: int
    n_valid: int
    n_special_mismatch: int
    left_out: tuple[str, ...] = ()


Groups: TypeAlias = "xr.Dataset | xr.DataTree | zarr.Group"


@overload
def compare(a: Groups, b: Groups, *, missing: float | None = None) -> dict[str, Comparison]: ...


@overload
def compare(a: Any, b: Any, *, missing: float | None = None) -> Comparison: ...


def compare(a: Any, b: Any, *, missing: float | None = None) -> Comparison | dict[str, Comparison]:
    """Compare a decoded array, dataset or tree with its original.

    Both are read block by block, along the chunks where they are stored in chunks, and never held whole.

    Arrays of xarray are aligned by the coordinates of their dimensions first: they may be of different
    extent, order and units of time, and what one of them lacks is named in `Comparison.left_out`. A
    dimension without a coordinate in both must have one length.

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
    a, b : array-like, xarray.Dataset, xarray.DataTree or zarr.Group
        Original and decoded: NumPy or zarr arrays, xarray.DataArray, or two datasets or trees, of which the
        data variables with integer or float values are compared. Coordinates are not.
    missing : float, optional
        A sentinel that counts as special, as NaN does.

    Returns
    -------
    Comparison or dict of str to Comparison
        By variable, or its path, for datasets and trees.

    Raises
    ------
    MoECError
        If shapes or dimensions differ, coordinates have nothing in common, only one is a dataset, a
        variable is absent from `b`, or scikit-image is not installed.
    UnsupportedArrayError
        If an array holds neither integers nor floats.
    """
    pairs = match_variables(a, b)
    if "" in pairs:
        return _compare(*pairs[""], missing)
    return {name: _compare(x, y, missing) for name, (x, y) in pairs.items()}


def match_variables(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Return the arrays to compare, by variable; those of two arrays under an empty name.

    Raises
    ------
    MoECError
        If only one is a dataset, or a variable is absent from `b`.
    """
    a, b = _flatten(a), _flatten(b)
    if hasattr(a, "data_vars") != hasattr(b, "data_vars"):
        raise MoECError(
            f"got {type(a).__name__} and {type(b).__name__}; compare two datasets, or one variable of each"
        )
    if not hasattr(a, "data_vars"):
        return {"": (a, b)}
    names = [name for name, variable in a.data_vars.items() if variable.dtype.kind in "iuf"]
    if absent := [name for name in names if name not in b.data_vars]:
        raise MoECError(
            f"{', '.join(map(repr, absent))} of the original not found in the decoded dataset, which has "
            f"{', '.join(map(repr, b.data_vars))}; drop it from the original or compare single variables"
        )
    return {str(name): (a[name], b[name]) for name in names}


def _flatten(data: Any) -> Any:
    """Return the groups of a tree as one dataset; all else as it is."""
    if isinstance(data, zarr.Group):
        return stored_dataset(data)
    return flatten(datasets_of(data)) if hasattr(data, "subtree") else data


def match_arrays(a: Any, b: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """Align two arrays where both are xarray's, and refuse those that cannot be compared.

    Returns
    -------
    a, b : array
        Of one shape, integers or floats.
    left_out : tuple of str
        What one of them lacks, in words.
    """
    left_out: tuple[str, ...] = ()
    if all(hasattr(array, "indexes") for array in (a, b)):
        a, b, left_out = align(a, b)
    if a.shape != b.shape or len({array.dims for array in (a, b) if hasattr(array, "dims")}) > 1:
        raise MoECError(f"got {_shape_text(a)} and {_shape_text(b)}; compare arrays of one shape")
    for array in (a, b):
        if array.dtype.kind not in "iuf":
            raise UnsupportedArrayError(
                f"got an array of dtype {array.dtype}, expected integers or floats; convert it with astype"
            )
    return a, b, left_out


def _compare(a: Any, b: Any, missing: float | None) -> Comparison:
    a, b, left_out = match_arrays(a, b)
    blocks = list(_blocks(a.shape, _stored_chunks(b) or _stored_chunks(a)))
    low, high, n_valid = _extent(a, blocks, missing)
    span = 2 * half_range(high, low)
    # The last two axes longer than 1 span a slice; where there are none, so is the SSIM.
    plane = [axis for axis, size in enumerate(a.shape) if size > 1][-2:]

    parts = []
    lost = False
    n_special_mismatch = 0
    similarity, windows = 0.0, 0
    for block in blocks:
        x, y = np.asarray(a[block]), np.asarray(b[block])
        special_x, special_y = _special(x, missing), _special(y, missing)
        both = ~(special_x | special_y)
        same = (x == y) | ((x != x) & (y != y))
        n_special_mismatch += int(np.count_nonzero(~both & ~same))
        lost |= bool(np.any(special_y & ~special_x))
        parts.append(measure(x, y, both))
        if len(plane) == 2 and span > 0:
            sides = tuple(x.shape[axis] for axis in plane)
            stack = (-1, *sides)
            s, w = _similarity(x.reshape(stack), y.reshape(stack), both.reshape(stack), low, span)
            similarity, windows = similarity + s, windows + w

    quality = merge(parts)
    rmse = math.inf if lost else quality.rmse
    integer = a.dtype.kind in "iu"
    return Comparison(
        psnr=decibel(high, low, rmse) if rmse else math.inf,
        psnr_dtype=(decibel(int(np.iinfo(a.dtype).max), 0, rmse) if rmse else math.inf) if integer else None,
        nrmse=0.0 if rmse == 0 else rmse / span if span else math.inf,
        ssim=similarity / windows if windows else None,
        max_error=math.inf if lost else quality.max_error,
        n=math.prod(a.shape),
        n_valid=n_valid,
        n_special_mismatch=n_special_mismatch,
        left_out=left_out,
    )


def _shape_text(array: Any) -> str:
    return f"shape {array.shape}" + (f" of {array.dims}" if hasattr(array, "dims") else "")


def _stored_chunks(array: Any) -> tuple[int, ...] | None:
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


def _special(x: Array, missing: float | None) -> Bools:
    special: Bools = ~np.isfinite(x)
    return special if missing is None else special | np.equal(x, missing)


def _extent(a: Any, blocks: list[tuple[slice, ...]], missing: float | None) -> tuple[Any, Any, int]:
    """Smallest and largest valid value, and the number of valid voxels; zeros where there are none."""
    parts = []
    for block in blocks:
        x = np.asarray(a[block])
        parts.append(measure(x, x, ~_special(x, missing)))
    whole = merge(parts)
    return (whole.low or 0, whole.high or 0, whole.n_valid)


def _similarity(x: Array, y: Array, both: Bools, low: float, span: float) -> tuple[float, int]:
    """Sum of SSIM over the windows of a stack of slices (slice, y, x) that are valid, and their number."""
    try:
        from scipy.ndimage import minimum_filter
        from skimage.metrics import structural_similarity
    except ModuleNotFoundError as error:
        raise MoECError(
            f"compare needs {error.name}, which the extra moec-zarr[all] brings; install it"
        ) from error
    if min(x.shape[1:]) < _WINDOW:
        return 0.0, 0
    total, count = 0.0, 0
    inner = slice(_WINDOW // 2, -(_WINDOW // 2))
    for p, q, valid in zip(x, y, both, strict=True):
        whole = minimum_filter(valid, _WINDOW)[inner, inner]
        # Neither image is looked at where a voxel is special; a fill within the data keeps sums accurate.
        images = (np.where(valid, v, low).astype(np.float64) for v in (p, q))
        _, local = structural_similarity(*images, win_size=_WINDOW, data_range=span, full=True)
        total += float(local[inner, inner][whole].sum())
        count += int(np.count_nonzero(whole))
    return total, count
