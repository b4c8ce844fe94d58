"""A small field, a codec that suits its chunks, and the layouts it is stored in."""

from __future__ import annotations

from typing import Any

from moec_zarr import MoECCodec
from tests.support.fields import rough

CODEC = MoECCodec(ratio=12, effort="fast")
SHAPE, CHUNKS = (6, 12, 20), (4, 12, 16)  # whole chunks and edge chunks
SHARDS = (8, 12, 32)
DATA = rough(SHAPE)
CHUNK = rough(CHUNKS)

LAYOUTS: dict[str, dict[str, Any]] = {
    "v2": {"zarr_format": 2, "chunks": CHUNKS},
    "v3": {"zarr_format": 3, "chunks": CHUNKS},
    "sharded": {"zarr_format": 3, "chunks": CHUNKS, "shards": SHARDS},
}
