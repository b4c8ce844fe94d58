"""The metadata of a group or an array, in the terms of the other zarr format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

import zarr
from zarr.abc.store import Store
from zarr.buffer import default_buffer_prototype

from moec_zarr.adapters.find import codec_of
from moec_zarr.adapters.zarr_core import ArrayV2Metadata, ArrayV3Metadata, sync
from moec_zarr.archive.attributes import strict_attributes
from moec_zarr.bitstream.container import read_stream
from moec_zarr.errors import MoECError

__all__ = ["Node", "chunk_keys", "to_v2", "to_v3"]

Node = zarr.Array[Any] | zarr.Group

_DIMENSIONS = "_ARRAY_DIMENSIONS"  # xarray's attribute in format 2
_FILL = "_FillValue"
_SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")  # of blosc, as format 2 counts them


# ------------------------------------------------------------------------------- 2 to 3


def to_v3(path: str, node: Node) -> dict[str, bytes]:
    """Return the objects that hold a node's metadata in format 3."""
    attributes = strict_attributes(node.metadata.attributes)
    if isinstance(node, zarr.Group):
        return {"zarr.json": _json({"attributes": attributes, "zarr_format": 3, "node_type": "group"})}
    old = cast("ArrayV2Metadata", node.metadata)
    dtype = old.dtype
    fill = dtype.default_scalar() if old.fill_value is None else old.fill_value
    dimensions = attributes.pop(_DIMENSIONS, None)
    if dimensions is not None and old.fill_value is not None:
        # xarray takes the fill value of format 2 for a missing value, and has an attribute in format 3.
        attributes[_FILL] = _fill_coder().encode(old.fill_value, dtype.to_native_dtype())
    return _metadata(
        path,
        ArrayV3Metadata.from_dict,
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(old.shape),
            "data_type": dtype.to_json(zarr_format=3),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(old.chunks)}},
            "chunk_key_encoding": {"name": "v2", "configuration": {"separator": old.dimension_separator}},
            "fill_value": dtype.to_json_scalar(fill, zarr_format=3),
            "codecs": list(_codecs_v3(path, node)),
            "attributes": attributes,
            "dimension_names": dimensions,
        },
    )


def _codecs_v3(path: str, array: zarr.Array[Any]) -> Iterator[dict[str, Any]]:
    old = cast("ArrayV2Metadata", array.metadata)
    filters = [each.get_config() for each in old.filters or ()]
    moec = codec_of(array)
    if moec is not None:
        if filters:
            raise _refusal(path, f"has the filter {filters[0]['id']!r} before its codec")
        yield moec.serializer().to_dict()
        return
    if old.order == "F" and len(old.shape) > 1:
        yield {"name": "transpose", "configuration": {"order": list(reversed(range(len(old.shape))))}}
    text = [each["id"] for each in filters if each["id"] in ("vlen-utf8", "vlen-bytes")]
    if len(text) != len(filters):
        raise _refusal(path, f"has the filter {filters[0]['id']!r}, which format 3 has not")
    if text:
        yield {"name": text[0], "configuration": {}}
    else:
        order = {"<": "little", ">": "big"}.get(old.dtype.to_native_dtype().str[0])
        yield {"name": "bytes", "configuration": {"endian": order}} if order else {"name": "bytes"}
    if old.compressor is None:
        return
    config = dict(old.compressor.get_config())
    name = config.pop("id")
    if name == "blosc":
        itemsize = old.dtype.to_native_dtype().itemsize
        # -1 shuffles bits of single bytes, and bytes of all else.
        shuffle = config["shuffle"] if config["shuffle"] >= 0 else 2 if itemsize == 1 else 1
        config["shuffle"] = _SHUFFLES[shuffle]
        config["typesize"] = max(itemsize, 1)
    elif name not in ("zstd", "gzip"):
        raise _refusal(path, f"is compressed with {name!r}, which format 3 has not")
    yield {"name": name, "configuration": config}


# ------------------------------------------------------------------------------- 3 to 2


def to_v2(path: str, node: Node) -> dict[str, bytes]:
    """Return the objects that hold a node's metadata in format 2."""
    attributes = strict_attributes(node.metadata.attributes)
    if isinstance(node, zarr.Group):
        return {".zgroup": _json({"zarr_format": 2}), ".zattrs": _json(attributes)}
    old = cast("ArrayV3Metadata", node.metadata)
    codecs = [each.to_dict() for each in old.codecs]
    order, endian, filters, compressor = _codecs_v2(path, node, codecs)
    spelt: Any = old.dtype.to_json(zarr_format=2)
    dtype = spelt["name"]
    if endian == "big" and isinstance(dtype, str):
        dtype = dtype.replace("<", ">")
    fill = old.fill_value
    if old.dimension_names is not None or (path and not old.shape):  # a scalar has no names to tell it by
        attributes[_DIMENSIONS] = list(old.dimension_names or ())
        fill = _fill_v2(path, node, attributes)
    return _metadata(
        path,
        ArrayV2Metadata.from_dict,
        {
            "zarr_format": 2,
            "shape": list(old.shape),
            "chunks": list(node.chunks),
            "dtype": dtype,
            "compressor": compressor,
            "filters": filters,
            "order": order,
            "fill_value": None if fill is None else old.dtype.to_json_scalar(fill, zarr_format=2),
            "dimension_separator": cast("Any", old.chunk_key_encoding).separator,
            "attributes": attributes,
        },
    )


def _codecs_v2(
    path: str, array: zarr.Array[Any], codecs: list[Any]
) -> tuple[str, str | None, list[Any] | None, dict[str, Any] | None]:
    """Memory order, byte order, filters and compressor."""
    names = [each["name"] for each in codecs]
    if "sharding_indexed" in names:
        raise _refusal(path, "has shards, which format 2 has not; write it anew without")
    moec = codec_of(array)
    if moec is not None:
        if len(codecs) > 1:
            raise _refusal(path, f"has the codecs {', '.join(names)}, of which format 2 takes one")
        order, endian = _layout(path, array)
        return order, endian, None, moec.get_config()
    order = "C"
    if names[0] == "transpose":
        axes = list(codecs.pop(0)["configuration"]["order"])
        if axes != list(reversed(range(array.ndim))):
            raise _refusal(path, f"has its axes transposed to {axes}, which format 2 has not")
        order = "F"
    first, *rest = codecs
    config = first.get("configuration", {})
    if first["name"] == "bytes":
        filters = None
    elif first["name"] in ("vlen-utf8", "vlen-bytes"):
        filters = [{"id": first["name"]}]
    else:
        raise _refusal(path, f"has the codec {first['name']!r}, which format 2 has not")
    compressor = None
    if rest:
        name, settings = rest[0]["name"], dict(rest[0].get("configuration", {}))
        if len(rest) > 1 or name not in ("zstd", "blosc", "gzip"):
            raise _refusal(path, f"has the codecs {', '.join(names)}; format 2 has not {rest[-1]['name']!r}")
        if name == "blosc":
            settings["shuffle"] = _SHUFFLES.index(_word(settings["shuffle"]))
            settings["cname"] = _word(settings["cname"])
            settings.pop("typesize")
        compressor = {"id": name, **settings}
    endian = config.get("endian")
    return order, endian and _word(endian), filters, compressor


def _layout(path: str, array: zarr.Array[Any]) -> tuple[str, str]:
    """Memory order and byte order of the arrays that were encoded.

    Format 2 has them in its metadata and goes by these, so that all streams must have the same.
    """

    async def read() -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for key in await chunk_keys(array.store, path, array):
            data = await array.store.get(key, default_buffer_prototype())
            if data is not None:
                header, _ = read_stream(data.to_bytes())
                found.add((header.order, "big" if header.dtype.str[0] == ">" else "little"))
        return found

    layouts = sync(read()) or {("C", "little")}
    if len(layouts) > 1:
        raise _refusal(path, "has chunks of several memory orders, of which format 2 takes one")
    return layouts.pop()


def _word(value: Any) -> str:
    """Return a word as text; zarr may have it as a member of an enumeration."""
    return str(getattr(value, "value", value))


def _fill_v2(path: str, array: zarr.Array[Any], attributes: dict[str, Any]) -> Any:
    """Return the fill value in format 2, which xarray takes for a missing value.

    Chunks that are not stored hold the fill value, so that it can change only where all are.
    """
    old = cast("ArrayV3Metadata", array.metadata)
    native = old.dtype.to_native_dtype()
    stored = old.fill_value
    if _FILL in attributes:
        wanted = _fill_coder().decode(attributes.pop(_FILL), "string" if native.kind in "OT" else native)
    elif native.kind in "fc" and stored != stored:
        return stored  # NaN is missing to xarray in any case
    else:
        wanted = None
    # Where there is no fill value, what is not stored reads as zero.
    effective = old.dtype.default_scalar() if wanted is None else wanted
    same = bool(effective == stored or (effective != effective and stored != stored))
    if not same and array.nchunks_initialized < array.nchunks:
        now, then = str(stored), str(effective)
        raise _refusal(
            path, f"has chunks that are not stored and hold {now}, which xarray would read as {then}"
        )
    return wanted


# ------------------------------------------------------------------------------- both


def _refusal(path: str, why: str) -> MoECError:
    return MoECError(f"the array {path or '/'!r} {why}; nothing was changed")


def _fill_coder() -> Any:
    from xarray.backends.zarr import FillValueCoder

    return FillValueCoder


def _json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, indent=2).encode()


def _metadata(
    path: str, parse: Callable[[dict[str, Any]], ArrayV2Metadata | ArrayV3Metadata], data: dict[str, Any]
) -> dict[str, bytes]:
    """Return the objects of an array's metadata, once zarr has found them sound."""
    try:
        metadata = parse(data)
    except (ValueError, TypeError, KeyError) as error:
        raise _refusal(path, f"cannot be expressed in the other format: {error}") from error
    return {
        name: buffer.to_bytes()
        for name, buffer in metadata.to_buffer_dict(default_buffer_prototype()).items()
        if buffer is not None
    }


async def chunk_keys(store: Store, path: str, array: zarr.Array[Any]) -> list[str]:
    """Return the names of all chunks that are stored, as keys of the store."""
    encoding = cast("Any", array.metadata).chunk_key_encoding
    separator = re.escape(encoding.separator)
    numbers = rf"\d+(?:{separator}\d+)*"
    if encoding.name == "default":
        numbers = rf"c(?:{separator}{numbers})?"
    pattern = re.compile(re.escape(f"{path}/" if path else "") + numbers)
    return [key async for key in store.list_prefix(f"{path}/" if path else "") if pattern.fullmatch(key)]
