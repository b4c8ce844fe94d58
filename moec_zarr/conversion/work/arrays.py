"""Arrays without a dataset, created like those of the source: other programs find what they look for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import zarr
from zarr.abc.store import Store

from moec_zarr.adapters.find import codec_of
from moec_zarr.archive.plan import PlannedVariable
from moec_zarr.archive.storage import key_of, read, write_json

__all__ = ["create_array"]


def create_array(
    store: Store, each: PlannedVariable, like: zarr.Array[Any], attrs: Mapping[str, Any]
) -> None:
    """Create an array with the metadata of another, but for attributes, and for the codec if it gets one.

    Parameters
    ----------
    store : zarr Store
        The destination.
    each : PlannedVariable
        What to create.
    like : zarr.Array
        The source.
    attrs : mapping
        Attributes.
    """
    if each.codec is None and codec_of(like) is None:
        _copy_metadata(store, each.name, like, attrs)
        return
    old: Any = like.metadata
    options: dict[str, Any] = {}
    if old.zarr_format == 2:
        options["chunk_key_encoding"] = {"name": "v2", "separator": old.dimension_separator}
    else:
        options["chunk_key_encoding"] = old.chunk_key_encoding
        options["dimension_names"] = old.dimension_names
    if each.codec is not None:
        options |= {
            key: each.encoding[key]
            for key in ("serializer", "compressors", "filters")
            if key in each.encoding
        }
        options["shards"] = each.shards
    zarr.create_array(
        store,
        name=each.name,
        shape=each.shape,
        dtype=like.dtype,
        chunks=each.chunks or like.chunks,
        fill_value=like.fill_value,
        attributes=dict(attrs),
        zarr_format=old.zarr_format,
        **options,
    )


def _copy_metadata(store: Store, name: str, like: zarr.Array[Any], attrs: Mapping[str, Any]) -> None:
    """Write the metadata of an array as it is, with other attributes."""
    if like.metadata.zarr_format == 2:
        write_json(store, f"{name}/.zarray", json.loads(read(like.store, key_of(like, ".zarray")) or b""))
        write_json(store, f"{name}/.zattrs", dict(attrs))
    else:
        document = json.loads(read(like.store, key_of(like, "zarr.json")) or b"")
        write_json(store, f"{name}/zarr.json", document | {"attributes": dict(attrs)})
