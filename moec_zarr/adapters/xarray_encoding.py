"""Encodings with which xarray writes a dataset."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numcodecs.abc import Codec  # type: ignore[import-untyped]

from moec_zarr.adapters.chunking import LEAST_BYTES, choose_chunks
from moec_zarr.adapters.find import find_codec
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.zarr_codec import check_array
from moec_zarr.bitstream.container import MAX_RANK
from moec_zarr.errors import BudgetError, MoECError, UnsupportedArrayError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["encoding", "why_lossless"]

_SENTINELS = ("_FillValue", "missing_value")
_PACKING = ("scale_factor", "add_offset")
_FLAGS = ("flag_values", "flag_meanings", "flag_masks")
# What of the encoding of a variable describes values rather than how zarr stores them.
_CF = ("dtype", "units", "calendar", "_Unsigned", *_SENTINELS, *_PACKING)


def encoding(
    ds: xr.Dataset | xr.DataArray,
    codec: MoECCodec | Mapping[Hashable, MoECCodec],
    zarr_format: Literal[2, 3] = 3,
    variables: Iterable[Hashable] | None = None,
) -> dict[Hashable, dict[str, Any]]:
    """The ``encoding`` with which ``to_zarr`` compresses the fields of a dataset.

    ``ds.to_zarr(path, zarr_format=3, encoding=moec_zarr.encoding(ds, MoECCodec(ratio=1000)))``

    By default every data variable of integers or floats is compressed, except those whose values
    are not a field: times, flags (``flag_values``, ``flag_meanings`` or ``flag_masks``), bounds of
    coordinates, and whatever is too small to be compressed so far. They, and all coordinates, are
    left to zarr's lossless default.

    An entry replaces all that a variable remembers of the file it was read from. Hence values are
    stored as they are in `ds`: what was unpacked from scaled integers is not packed again, since
    rounding it first would only make it harder to model. A ``_FillValue`` or ``missing_value`` of
    a variable that was not packed is kept, and becomes the codec's ``missing`` if it names none.

    A variable that stays lossless has an entry only if it was read from a store of the other zarr
    format, whose codecs cannot be written, or with this package's codec, which would silently lose
    accuracy again.

    Parameters
    ----------
    ds : Dataset or DataArray
        What is going to be written, with the dask chunks it is going to be written in. A DataArray
        must have a name.
    codec : MoECCodec or mapping of variable name to MoECCodec
        The codec of all variables, or of each one to compress.
    zarr_format : {2, 3}
        The ``zarr_format`` that ``to_zarr`` is going to be given.
    variables : iterable of str, optional
        Names of the data variables to compress, instead of the choice above.

    Returns
    -------
    dict
        Encoding by variable name.

    Raises
    ------
    MoECError
        If a variable is not in `ds` or has no codec, a DataArray has no name, or `codec` is no
        `MoECCodec`.
    UnsupportedArrayError
        If a variable that is named has a dtype or rank that cannot be encoded.
    BudgetError
        If the dask chunks of a variable are too small for the ratio.
    """
    if not hasattr(ds, "data_vars"):
        if ds.name is None:
            raise MoECError("a DataArray needs a name to be written; give it one by .rename(name)")
        ds = ds.to_dataset()
    ds = cast("xr.Dataset", ds)
    codecs = dict(codec) if isinstance(codec, Mapping) else dict.fromkeys(ds.data_vars, codec)
    for each in codecs.values() if isinstance(codec, Mapping) else [codec]:
        if not isinstance(each, MoECCodec):
            raise MoECError(f"codec must be a MoECCodec in either zarr format, got {each!r}")
    if zarr_format not in (2, 3):
        raise MoECError(f"zarr_format must be 2 or 3, got {zarr_format!r}")
    if variables is None and isinstance(codec, Mapping):
        variables = codec
    if variables is None:
        names = [name for name in ds.data_vars if not why_lossless(ds, name, codecs[name])]
    else:
        names = [variables] if isinstance(variables, str) else list(variables)
        for name in names:
            if name not in ds.data_vars or name not in codecs:
                raise MoECError(
                    f"{name!r} is not a data variable with a codec; the data variables are "
                    f"{', '.join(map(repr, ds.data_vars))}"
                )
    entries = {name: _reset(var) for name, var in ds.variables.items() if _is_stale(var, zarr_format)}
    for name in names:
        entries[name] = _entry(name, ds[name].variable, codecs[name], zarr_format)
    return entries


def why_lossless(ds: xr.Dataset, name: Hashable, settings: Settings) -> str:
    """Why a variable that is not named stays lossless, in a word; empty where it is compressed."""
    var = ds.variables[name]
    known = var.attrs.keys() | var.encoding.keys()
    units = str(var.attrs.get("units", var.encoding.get("units", "")))
    if name in ds.coords:
        return "coordinate"
    if name in {v.attrs.get("bounds", v.encoding.get("bounds")) for v in ds.variables.values()}:
        return "bounds"
    if var.dtype.kind in "mM" or " since " in units:
        return "time"
    if var.dtype.kind not in "iuf" or var.dtype.itemsize > 8:
        return "no number"
    if not known.isdisjoint(_FLAGS):
        return "flags"
    if var.ndim > MAX_RANK:
        return f"more than {MAX_RANK} axes"
    return "small" if var.nbytes < LEAST_BYTES * (settings.ratio or 1) else ""


def _entry(name: Hashable, var: xr.Variable, codec: MoECCodec, zarr_format: Literal[2, 3]) -> dict[str, Any]:
    """The entry of a variable to compress."""
    try:
        check_array(var.shape, var.dtype)
        chunks = choose_chunks(var.shape, var.dtype, codec, align=var.chunks)
    except UnsupportedArrayError as error:
        raise UnsupportedArrayError(f"variable {name!r}: {error}") from error
    except BudgetError as error:
        free = choose_chunks(var.shape, var.dtype, codec)
        remedy = dict(zip(var.dims, free, strict=True))
        raise BudgetError(f"variable {name!r}: {error}, that is ds.chunk({remedy})") from error
    entry: dict[str, Any] = {"chunks": chunks}
    sentinel = _sentinel_of(var)
    if sentinel is not None:
        # xarray writes the sentinel wherever it finds NaN; edge chunks are padded with it as well.
        entry |= {key: var.encoding[key] for key in _SENTINELS if key in var.encoding}
        if zarr_format == 3:
            entry["fill_value"] = sentinel
        if codec.missing is None:
            codec = replace(codec, missing=sentinel)
    if zarr_format == 2:
        return entry | {"compressors": [codec], "filters": None}
    return entry | {"serializer": codec.serializer(), "compressors": None, "filters": None}


def _sentinel_of(var: xr.Variable) -> float | int | None:
    """The number that stands for missing values once the variable is written; None without one."""
    stored = np.dtype(var.encoding.get("dtype", var.dtype))
    if not var.encoding.keys().isdisjoint(_PACKING) or stored.kind != var.dtype.kind:
        return None  # it belongs to the packed values
    for key in _SENTINELS:
        value = np.ravel(var.encoding.get(key, var.attrs.get(key, [])))[:1]
        if value.size and np.isfinite(value[0]):
            return value.astype(var.dtype)[0].item()  # type: ignore[no-any-return]
    return None


def _is_stale(var: xr.Variable, zarr_format: Literal[2, 3]) -> bool:
    """Whether a variable remembers codecs that must not, or cannot, be written again."""
    codecs = [var.encoding.get("serializer")]
    for key in ("compressors", "filters"):
        value = var.encoding.get(key) or ()
        codecs += value if isinstance(value, (list, tuple)) else [value]
    foreign = (isinstance(codec, Codec) == (zarr_format == 3) for codec in codecs if codec is not None)
    return find_codec(codecs) is not None or any(foreign)


def _reset(var: xr.Variable) -> dict[str, Any]:
    """An entry that forgets how a variable was stored, and keeps what its values mean."""
    return {key: var.encoding[key] for key in _CF if key in var.encoding}
