"""What lies in a store: the bytes of its arrays, and the variables that are stored exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import zarr
from zarr.core.sync import sync

from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.xarray_encoding import why_lossless
from moec_zarr.report.findings import Lossless
from moec_zarr.report.labels import clean

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["lossless_variables", "stored_bytes", "stored_keys"]

# Codecs that keep every bit, by their names in either format, with numcodecs' prefix or without.
_EXACT = {
    *(
        "bytes",
        "transpose",
        "sharding_indexed",
        "blosc",
        "zstd",
        "gzip",
        "zlib",
        "lz4",
        "lzma",
        "bz2",
        "shuffle",
    ),
    *("crc32c", "crc32", "adler32", "fletcher32", "packbits", "vlen-utf8", "vlen-bytes", "vlen-array"),
}
_REASONS = {
    "": "not chosen when the store was made",
    "small": "too small to gain by it",
    "flags": "flags",
    "bounds": "bounds of a coordinate",
    "time": "times",
}


def lossless_variables(
    group: zarr.Group | zarr.Array[Any], ds: xr.Dataset, arrays: Mapping[str, zarr.Array[Any]]
) -> Iterator[Lossless]:
    """All variables but those that this package compressed."""
    settings = codec_of(next(iter(arrays.values())))
    assert settings is not None
    for name, array in sorted(group.arrays()) if isinstance(group, zarr.Group) else ():
        if name in arrays:
            continue
        reason = why_lossless(ds, name, settings) if name in ds.variables else ""
        if foreign := _foreign_codecs(array):
            reason = f"not by this package, and perhaps not lossless: {', '.join(foreign)}"
        yield Lossless(
            name=clean(name),
            exact=not foreign,
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


def stored_keys(array: zarr.Array[Any]) -> list[str]:
    """The keys of all objects that lie within an array: chunks, metadata and records."""

    async def collect() -> list[str]:
        prefix = f"{array.path}/" if array.path else ""
        return [key async for key in array.store.list_prefix(prefix)]

    return sync(collect())


def stored_bytes(array: zarr.Array[Any]) -> int:
    """Bytes of an array's chunks, without metadata and records."""
    prefix = f"{array.path}/" if array.path else ""
    names = ("zarr.json", ".zarray", ".zattrs", ".zmetadata", ".zgroup")
    keys = [
        key
        for key in stored_keys(array)
        if key.removeprefix(prefix) not in names and not key.removeprefix(prefix).startswith(".moec_zarr/")
    ]

    async def sizes() -> list[int]:
        return list(await asyncio.gather(*(array.store.getsize(key) for key in keys)))

    return sum(sync(sizes()))
