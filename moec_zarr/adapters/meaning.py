"""What the numbers of a CF variable mean: sentinels of missing values, packed values, their limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moec_zarr.arrays import Array
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "FLAGS",
    "LIMITS",
    "PACKING",
    "WRITTEN",
    "exact_encoding",
    "has_one_sentinel",
    "is_packed",
    "one_sentinel",
    "part_of",
    "sentinel_of",
    "stored_dtype",
    "stored_values",
    "unpack_limits",
    "without_storage",
]

PACKING = ("scale_factor", "add_offset")
"""Attributes of packed values."""

FLAGS = ("flag_values", "flag_meanings", "flag_masks")
"""Attributes of values that stand for something else."""

LIMITS = ("valid_min", "valid_max", "valid_range")
"""Attributes of the values that are valid."""

_SENTINELS = ("_FillValue", "missing_value")
WRITTEN = ("dtype", "_Unsigned", *PACKING, *_SENTINELS)
"""What of a variable's encoding says by which numbers its values are written."""

_STORAGE = frozenset(  # what an encoding says of how zarr stores values
    (
        "chunks",
        "shards",
        "preferred_chunks",
        "compressor",
        "compressors",
        "filters",
        "serializer",
        "fill_value",
    )
)
_RESOLVED = 1 / 16  # of a step of packed values, which rounding to float32 may take


def is_packed(var: xr.Variable) -> bool:
    """Say whether the file has integers that were unpacked when it was opened."""
    return not var.encoding.keys().isdisjoint(PACKING)


def one_sentinel(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return the encoding of a decoded variable with one sentinel, which is all that xarray writes.

    Decoded values do not tell sentinels apart: all of them are NaN. ``_FillValue`` is kept, else the first
    number of ``missing_value``; the other goes where it is not the same.
    """
    kept = dict(encoding)
    missing = _numbers(kept.get("missing_value"))
    if kept.get("_FillValue") is not None:
        same = len(missing) == 1 and np.array_equal(missing[0], kept["_FillValue"], equal_nan=True)
        if "missing_value" in kept and not same:
            del kept["missing_value"]
    elif "missing_value" in kept and (len(missing) != 1 or np.ndim(kept["missing_value"])):
        del kept["missing_value"]
        if missing:
            kept["missing_value"] = missing[0]
    return kept


def exact_encoding(var: xr.Variable) -> dict[str, Any]:
    """Return the encoding with which the values of a decoded variable are written without loss.

    Integers that were unpacked to doubles are packed again. Other packed values are not: rounding would
    change them, and JSON makes a double of a scale in single precision.
    """
    encoding = one_sentinel(var.encoding)
    packed = np.dtype(encoding.get("dtype") or var.dtype)
    if not is_packed(var) or (packed.kind in "iu" and packed.itemsize < 8 and var.dtype == np.float64):
        return encoding
    return {key: value for key, value in encoding.items() if key not in WRITTEN}


def has_one_sentinel(encoding: Mapping[str, Any]) -> bool:
    """Say whether xarray can write a decoded variable with its sentinels as they are."""
    return one_sentinel(encoding).get("missing_value") is encoding.get("missing_value")


def sentinel_of(var: xr.Variable) -> float | int | None:
    """Return the number that stands for missing values once a variable is written; None without one.

    Raises
    ------
    MoECError
        If the values were not decoded, and several numbers stand for missing ones.
    """
    stored = np.dtype(var.encoding.get("dtype", var.dtype))
    if is_packed(var) or stored.kind != var.dtype.kind:
        return None  # it belongs to the packed values
    decoded = one_sentinel(var.encoding)
    meaning = decoded if any(key in decoded for key in _SENTINELS) else var.attrs
    numbers = [number for key in _SENTINELS for number in _numbers(meaning.get(key))]
    values = {value.item() for value in np.asarray(numbers).astype(var.dtype) if np.isfinite(value)}
    if len(values) > 1:
        raise MoECError(
            f"{', '.join(f'{value:g}' for value in sorted(values))} all stand for missing values, and the "
            "codec keeps one; decode the dataset, ds = xr.decode_cf(ds), so that they are NaN"
        )
    return values.pop() if values else None


def _numbers(sentinel: Any) -> list[Any]:
    """Return what a sentinel consists of, as far as it is numbers."""
    values = np.ravel([] if sentinel is None else sentinel)
    return list(values) if values.dtype.kind in "iuf" else []


def stored_dtype(var: xr.Variable, *, bounded: bool) -> np.dtype[Any]:
    """Return the dtype in which decoded values are to be stored.

    Packed integers whose scale is a double are unpacked to float64. float32 takes half of that, and is
    chosen where it tells all packed values apart, off by at most 1/16 of a step. A bound holds for the
    values as they were given: then they stay float64.
    """
    dtype: np.dtype[Any] = np.dtype(var.dtype)
    packed = np.dtype(var.encoding.get("dtype") or dtype)
    if bounded or not is_packed(var) or dtype != np.float64 or packed.kind not in "iu" or packed.itemsize > 2:
        return dtype
    scale, offset = _packing(var)
    integers = np.arange(np.iinfo(packed).min, np.iinfo(packed).max + 1)
    exact = _unsigned(integers.astype(packed), var).astype(np.float64) * scale + offset
    with np.errstate(over="ignore"):
        error = np.abs(exact.astype(np.float32) - exact).max()
    return np.dtype(np.float32) if error <= _RESOLVED * abs(scale) else dtype


def unpack_limits(var: xr.Variable) -> dict[str, Any]:
    """Return the attributes of a decoded variable, with limits such as ``valid_range`` of unpacked values.

    In a file they have the type of the packed values, in whose units they are then (CF 1.12, section 2.5.1);
    limits of another type are of unpacked values already.
    """
    packed = np.dtype(var.encoding.get("dtype") or var.dtype)
    attrs = dict(var.attrs)
    if not is_packed(var):
        return attrs
    scale, offset = _packing(var)
    for key in LIMITS:
        limits = np.asarray(var.attrs.get(key, []))
        if not limits.size or limits.dtype.kind not in ("f" if packed.kind == "f" else "iu"):
            continue
        unpacked = _unsigned(limits, var).astype(np.float64) * scale + offset
        if attrs.get(key) is var.attrs[key]:
            del attrs[key]
        swapped = {"valid_min": "valid_max", "valid_max": "valid_min"}.get(key, key) if scale < 0 else key
        attrs[swapped] = sorted(unpacked.tolist()) if limits.ndim else unpacked.item()
    return attrs


def _packing(var: xr.Variable) -> tuple[float, float]:
    """Return scale and offset of packed values."""
    scale, offset = (
        np.ravel(var.encoding.get(key, default)) for key, default in zip(PACKING, (1, 0), strict=True)
    )
    return float(scale[0]), float(offset[0])


def _unsigned(values: Array, var: xr.Variable) -> Array:
    """Return signed integers as the unsigned ones that they stand for where ``_Unsigned`` says so."""
    if str(var.encoding.get("_Unsigned", "")).lower() == "true" and values.dtype.kind == "i":
        packed = np.dtype(var.encoding.get("dtype") or values.dtype)
        return values.astype(f"i{packed.itemsize}").view(f"u{packed.itemsize}")
    return values


def without_storage(encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a variable's encoding says of the meaning of its values, without how zarr stores them."""
    return {key: value for key, value in encoding.items() if key not in _STORAGE}


def part_of(var: xr.Variable, region: tuple[slice, ...], encoding: Mapping[str, Any]) -> xr.Variable:
    """Return a region of a variable, of which nothing is read yet, with the encoding of its values alone."""
    part = var[region].to_base_variable()
    if part.chunks is not None:
        from dask.base import optimize

        # Only what the region needs travels to a worker, not the graph of the whole variable.
        (part,) = optimize(part)
    part = part.copy(deep=False)
    part.attrs, part.encoding = {}, without_storage(encoding)
    return part


def stored_values(part: xr.Variable, name: str) -> Array:
    """Read a part of a variable, and return its values as they are to be stored."""
    from xarray.conventions import encode_cf_variable

    # dask would otherwise send pieces of it around the cluster.
    values = part.compute(scheduler="synchronous")
    return np.asarray(encode_cf_variable(values, name=name).values)
