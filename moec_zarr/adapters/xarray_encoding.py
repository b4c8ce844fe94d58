"""Encodings with which xarray writes a dataset."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from numcodecs.abc import Codec  # type: ignore[import-untyped]

from moec_zarr.adapters.choice import choose
from moec_zarr.adapters.chunking import choose_chunks
from moec_zarr.adapters.find import find_codec
from moec_zarr.adapters.meaning import (
    WRITTEN,
    has_one_sentinel,
    one_sentinel,
    sentinel_of,
    stored_dtype,
    unpack_limits,
)
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.training import MOST, parts_to_train, train_on
from moec_zarr.adapters.tree import datasets_of, flatten, group_of, local_name, split
from moec_zarr.adapters.uneven import describe_uneven, find_uneven_axis, weighs_alike
from moec_zarr.adapters.zarr_codec import check_array
from moec_zarr.codec.prepare import as_sentinel
from moec_zarr.errors import BudgetError, MoECError, UnsupportedArrayError
from moec_zarr.settings import Settings

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["codec_entry", "encoding", "make_entries", "related"]

_log = logging.getLogger(__name__)
# What of the encoding of a variable describes values rather than how zarr stores them.
_CF = ("units", "calendar", *WRITTEN)
# Attributes that name other variables: xarray moves them into the encoding where it decodes them, and out of
# it where it writes. It writes ``coordinates`` before it looks at an entry, which must not have them.
_RELATED = (
    "bounds", "grid_mapping", "climatology", "geometry", "node_coordinates", "node_count", "part_node_count",
    "interior_ring", "cell_measures", "formula_terms",
)  # fmt: skip


def encoding(
    ds: xr.Dataset | xr.DataArray | xr.DataTree,
    codec: MoECCodec | Mapping[Any, MoECCodec | None],
    zarr_format: Literal[2, 3] = 3,
    variables: Iterable[Hashable] | None = None,
    *,
    train: bool = False,
) -> dict[Hashable, dict[Any, Any]]:
    """Make the ``encoding`` argument of ``to_zarr`` that compresses the fields of a dataset or tree.

    ``ds.to_zarr(path, encoding=moec_zarr.encoding(ds, MoECCodec(ratio=1000)))``

    By default every data variable of integers or floats is compressed, except those that do not hold
    a field: times, flags (``flag_values``, ``flag_meanings`` or ``flag_masks``), bounds of
    coordinates, integers of few values such as masks, and variables too small for the ratio. These,
    and all coordinates, keep zarr's lossless default.

    Integers count as few values if a sample shows at most 64 different ones. The sample has 16 places
    of 16,384 voxels each; for most fields the first is enough. Floats are sampled only if a name of
    the variable contains "mask" or "flag". No value of other variables is read.

    An entry replaces the encoding that a variable has from the file it was read from. So values are
    stored as they are in `ds`: those unpacked from scaled integers are not packed again, because
    rounding would make them harder to compress. If a variable was not packed, its ``_FillValue`` or
    ``missing_value`` is kept, and becomes the codec's ``missing`` unless the codec has one. So are the names
    of related variables, such as ``grid_mapping``, ``bounds`` and ``cell_measures``.

    A variable that stays lossless has an entry in two cases: it was read from a store of the other
    zarr format, whose codecs cannot be written, or from one with this package's codec, which would
    lose accuracy again.

    Parameters
    ----------
    ds : Dataset, DataArray or DataTree
        The data to be written, chunked by dask as it will be written. A DataArray must have a name.
    codec : MoECCodec or mapping of variable name to MoECCodec or None
        The codec of all variables, or of each one to compress. In a mapping, ``"*"`` stands for all
        other fields, and None for lossless. In a tree a variable's name is its path, such as
        ``"/ocean/temperature"``.
    zarr_format : {3, 2}
        The ``zarr_format`` that you pass to ``to_zarr``.
    variables : iterable of str, optional
        Names of the data variables to compress, instead of the default choice.
    train : bool
        Train a dictionary for each of these variables, as `train_dictionary` does, on chunks of `ds` that
        are spread over it: eight at most, which are read, and two on which it is tried. It is left out
        where these get worse by it, where fewer than six chunks hold different values, and where the codec
        has one already.

    Returns
    -------
    dict
        Encoding by variable name. For a tree, such a dict by path of the group.

    Raises
    ------
    MoECError
        If a variable is not in `ds` or has no codec, a DataArray has no name, or `codec` is not a
        `MoECCodec`; if a name is none that zarr can have, or a coordinate is a multi-index.
    UnsupportedArrayError
        If a variable that is named has a dtype or rank that cannot be encoded, or any variable has values
        that zarr cannot hold.
    BudgetError
        If the dask chunks of a variable are too small for the ratio.
    """
    if hasattr(ds, "subtree"):
        return _tree_encoding(cast("xr.DataTree", ds), codec, zarr_format, variables, train)
    if not hasattr(ds, "data_vars"):
        if ds.name is None:
            raise MoECError("a DataArray needs a name to be written; give it one by .rename(name)")
        ds = ds.to_dataset()
    ds = cast("xr.Dataset", ds)
    codecs, _ = choose(ds, codec, variables)
    for name in codecs:
        var = ds[name].variable
        if stale := [key for key, value in unpack_limits(var).items() if var.attrs.get(key) is not value]:
            _log.warning(
                "variable %r is stored unpacked, and its attributes %s are of packed values; unpack them: "
                "multiply by scale_factor and add add_offset, both in ds[%r].encoding",
                name, ", ".join(stale), name,
            )  # fmt: skip
    entries = make_entries(ds, codecs, zarr_format)
    groups = split(ds, inherit=True)
    for name, codec_ in codecs.items():
        _warn_of_levels(groups[group_of(name)], name, codec_, entries[name]["chunks"])
        if train and codec_.dictionary is None and not codec_.is_lossless:
            _train(str(name), ds[name].variable, entries[name], zarr_format)
    return entries


def _train(name: str, var: xr.Variable, entry: dict[str, Any], zarr_format: Literal[2, 3]) -> None:
    """Put a dictionary into the entry of a variable."""
    codec = find_codec([entry.get("serializer"), *(entry["compressors"] or ())])
    assert codec is not None
    trained = train_on(codec, parts_to_train(var, entry["chunks"], entry, MOST), name)
    _log.info("variable %r: %s", name, trained.told)
    entry |= codec_entry(trained.codec, zarr_format)


def _warn_of_levels(ds: xr.Dataset, path: Hashable, settings: Settings, chunks: tuple[int, ...]) -> None:
    """Say in the log where a chunk holds levels of very different range, and a target weighs them alike."""
    if not weighs_alike(settings):
        return
    var = ds.variables[local_name(path)]
    uneven = find_uneven_axis(ds, var)
    if uneven is not None and chunks[uneven.axis] > 1:
        dim = str(var.dims[uneven.axis])
        _log.warning(
            "%s: the smaller of them are spoilt; ds.chunk({%r: 1}) makes a chunk of each",
            describe_uneven(ds, path, dim, uneven), dim,
        )  # fmt: skip


def make_entries(
    ds: xr.Dataset, codecs: Mapping[Hashable, MoECCodec], zarr_format: Literal[2, 3]
) -> dict[Hashable, dict[Any, Any]]:
    """Make the entries of the variables to compress, and of those that must forget their codecs.

    It raises what `encoding` does.
    """
    if zarr_format not in (2, 3):
        raise MoECError(f"zarr_format must be 2 or 3, got {zarr_format!r}")
    entries = {
        name: _reset(var)
        for name, var in ds.variables.items()
        if _is_stale(var, zarr_format) or not has_one_sentinel(var.encoding)
    }
    for name, each in codecs.items():
        entries[name] = _entry(name, ds[name].variable, each, zarr_format)
    return entries


def _tree_encoding(
    tree: xr.DataTree,
    codec: MoECCodec | Mapping[Any, MoECCodec | None],
    zarr_format: Literal[2, 3],
    variables: Iterable[Hashable] | None,
    train: bool,
) -> dict[Hashable, dict[Any, Any]]:
    """Return the entries of each group of a tree that has some, by path."""
    found: dict[Hashable, dict[Any, Any]] = {}
    flat = flatten(datasets_of(tree))
    for name, entry in encoding(flat, codec, zarr_format, variables, train=train).items():
        found.setdefault(f"/{group_of(name)}", {})[local_name(name)] = entry
    return found


def _entry(name: Hashable, var: xr.Variable, codec: MoECCodec, zarr_format: Literal[2, 3]) -> dict[str, Any]:
    """Return the entry of a variable to compress."""
    dtype = stored_dtype(var, bounded=codec.is_bounded)
    try:
        check_array(var.shape, dtype)
        as_sentinel(codec.missing, dtype)
        chunks = choose_chunks(var.shape, dtype, codec, align=var.chunks)
        sentinel = sentinel_of(var)
    except UnsupportedArrayError as error:
        raise UnsupportedArrayError(f"variable {name!r}: {error}") from error
    except BudgetError as error:
        free = choose_chunks(var.shape, dtype, codec)
        remedy = dict(zip(var.dims, free, strict=True))
        raise BudgetError(f"variable {name!r}: {error}, that is ds.chunk({remedy})") from error
    except MoECError as error:
        raise MoECError(f"variable {name!r}: {error}") from error
    entry: dict[str, Any] = {"chunks": chunks} | related(var)
    if dtype != var.dtype:
        entry["dtype"] = dtype
    if sentinel is not None:
        # xarray writes the sentinel wherever it finds NaN; edge chunks are padded with it as well.
        meaning = one_sentinel(var.encoding)
        entry |= {key: meaning[key] for key in ("_FillValue", "missing_value") if key in meaning}
        if zarr_format == 3:
            entry["fill_value"] = sentinel
        if codec.missing is None:
            codec = replace(codec, missing=sentinel)
    return entry | codec_entry(codec, zarr_format)


def codec_entry(codec: MoECCodec, zarr_format: Literal[2, 3]) -> dict[str, Any]:
    """Return what the entry of a variable says of its codec."""
    if zarr_format == 2:
        return {"compressors": [codec], "filters": None}
    return {"serializer": codec.serializer(), "compressors": None, "filters": None}


def _is_stale(var: xr.Variable, zarr_format: Literal[2, 3]) -> bool:
    """Whether a variable remembers codecs that must not, or cannot, be written again."""
    codecs = [var.encoding.get("serializer")]
    for key in ("compressors", "filters"):
        value = var.encoding.get(key) or ()
        codecs += value if isinstance(value, (list, tuple)) else [value]
    foreign = (isinstance(codec, Codec) == (zarr_format == 3) for codec in codecs if codec is not None)
    return find_codec(codecs) is not None or any(foreign)


def _reset(var: xr.Variable) -> dict[str, Any]:
    """Return an entry that forgets how a variable was stored, and keeps what its values mean."""
    return {key: value for key, value in one_sentinel(var.encoding).items() if key in _CF} | related(var)


def related(var: xr.Variable) -> dict[str, Any]:
    """Return what the encoding of a variable says of related variables, as far as its attributes do not."""
    return {key: var.encoding[key] for key in _RELATED if key in var.encoding and key not in var.attrs}
