"""Measurements whose tables are known."""

from __future__ import annotations

from typing import Any

SHAPE = (12, 24, 20)


def line(**others: Any) -> dict[str, Any]:
    """A finished measurement."""
    return {
        "benchmark": "rd", "field": "a", "shape": [4, 5], "dtype": "<u2", "codec": "SPERR", "settings": {},
        "ratio": 100.0, "version": "1", "status": "ok", "bytes": 50, "achieved_ratio": 100.0, "psnr": 30.0,
        "psnr_dtype": 40.0, "nrmse": 0.03, "ssim": 0.9, "max_error": 2.0,
        "encode_seconds": 1.5, "decode_seconds": 0.25,
    } | others  # fmt: skip


def ours(effort: str, **others: Any) -> dict[str, Any]:
    return line(codec="moec_zarr", settings={"effort": effort, "device": "cpu"}, **others)


LINES = [
    line(psnr=20.0, version="0"),  # an older version of the next
    line(),
    line(codec="ZFP", psnr=25.0),
    ours("fast", psnr=31.0),
    ours("best", psnr=33.5),
    line(field="b", psnr=40.0),
    ours("fast", field="b", psnr=39.0),
    line(ratio=1000.0, status="unreachable", reason="takes at least 9 bytes", psnr=None, psnr_dtype=None),
    ours("fast", ratio=1000.0, achieved_ratio=1001.0, psnr=22.0),
]
