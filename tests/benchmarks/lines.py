"""Measurements whose tables are known."""

from __future__ import annotations

from typing import Any

SHAPE = (12, 24, 20)


def line(**others: Any) -> dict[str, Any]:
    """A finished measurement: a million voxels, 1.5 CPU seconds to encode, a quarter to decode."""
    return {
        "benchmark": "rd", "field": "a", "shape": [100, 10_000], "dtype": "<u2", "codec": "SPERR",
        "settings": {}, "ratio": 100.0, "version": "1", "bytes": 20_000, "psnr": 30.0, "largest": 2.0,
        "encode_cpu": 1.5, "decode_cpu": 0.25,
    } | others  # fmt: skip


def ours(**others: Any) -> dict[str, Any]:
    return line(codec="moec_zarr", settings={"effort": "fast"}, **others)


def missed(**others: Any) -> dict[str, Any]:
    """A peer that takes more bytes than there are."""
    figures = ("bytes", "psnr", "largest", "encode_cpu", "decode_cpu")
    found = {name: value for name, value in line(**others).items() if name not in figures}
    return found | {"reason": "takes at least 9 bytes"}


LINES = [
    line(psnr=20.0, version="0"),  # an older version of the next
    line(),
    line(codec="x265", psnr=36.0, encode_cpu=0.75),
    ours(psnr=31.0, encode_cpu=6.0, decode_cpu=0.5),
    line(field="b", psnr=40.0),
    ours(field="b", psnr=39.0, encode_cpu=3.0, decode_cpu=0.5),
    missed(ratio=1000.0),
    ours(ratio=1000.0, psnr=22.0),
]
AT_A_BOUND = {"ratio": None, "share": 0.01, "bound": 3.0}
BOUNDED = [
    {name: value for name, value in each.items() if value is not None}
    for each in (
        line(**AT_A_BOUND, bytes=40_000), line(codec="SZ3", **AT_A_BOUND, bytes=25_000), ours(**AT_A_BOUND)
    )
]  # fmt: skip
