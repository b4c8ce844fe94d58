"""The variables of a store that are stored exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import zarr

from moec_zarr.adapters.choice import why_lossless
from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.tree import sort_key
from moec_zarr.archive.attributes import REBUILT
from moec_zarr.archive.storage import stored_bytes
from moec_zarr.report.comparison.labels import PATH, clean
from moec_zarr.report.page.findings import Lossless

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["list_lossless"]

# Codecs that keep every bit, by their names in either format, with numcodecs' prefix or without.
_EXACT = {
    "bytes", "transpose", "sharding_indexed", "blosc", "zstd", "gzip", "zlib", "lz4", "lzma", "bz2",
    "shuffle", "crc32c", "crc32", "adler32", "fletcher32", "packbits", "vlen-utf8", "vlen-bytes",
    "vlen-array",
}  # fmt: skip
_REASONS = {
    "": "not chosen when the store was made",
    "small": "too small to gain by it",
    "flags": "flags",
    "bounds": "bounds of a coordinate",
    "time": "times",
    "labels": "labels of an image",
}


def list_lossless(
    group: zarr.Group | zarr.Array[Any], ds: xr.Dataset, arrays: Mapping[str, zarr.Array[Any]]
) -> Iterator[Lossless]:
    """List all variables of all groups but those that this package compressed."""
    settings = codec_of(next(iter(arrays.values())))
    assert settings is not None
    members = dict(group.members(max_depth=None)) if isinstance(group, zarr.Group) else {}
    others = {
        name: node for name, node in members.items() if isinstance(node, zarr.Array) and name not in arrays
    }
    reasons = why_lossless(ds, [name for name in others if name in ds.variables], settings)
    for name, array in sorted(others.items(), key=lambda item: sort_key(item[0])):
        reason = reasons.get(name, "")
        if foreign := _foreign_codecs(array):
            reason = f"not by this package, and perhaps not lossless: {', '.join(foreign)}"
        if rebuilt := array.attrs.get(REBUILT):
            reason = f"made again of another level as that is decoded: {rebuilt}"
        yield Lossless(
            name=clean(name, PATH),
            shape=array.shape,
            exact=not foreign and not rebuilt,
            bytes_in=array.nbytes,
            bytes_out=stored_bytes(array),
            reason=clean(_REASONS.get(reason, reason)),
        )


def _foreign_codecs(array: zarr.Array[Any]) -> list[str]:
    """Codecs of an array that are not known to keep every bit."""
    metadata: Any = array.metadata
    if array.metadata.zarr_format == 2:
        names = [c.codec_id for c in (metadata.compressor, *(metadata.filters or ())) if c is not None]
    else:
        names = [codec.to_dict()["name"] for codec in metadata.codecs]
    return [clean(name) for name in names if str(name).removeprefix("numcodecs.") not in _EXACT]
