"""Write the frozen streams anew: ``python -m tests.conformance.freeze_streams``, an explicit act.

Each feature of the format has one stream in ``tests/streams``, beside what it decodes to. That is
taken from the original data where the stream is exact, and from the decoder of
``tests/reference_decoder.py`` where a network or latents are in it, never from the code under test.

With ``experts`` and the effort "fast" the encoder makes a network alone; without, it measures what
is best, which may differ where rounding does.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from moec_zarr.bitstream.container import VERSION
from moec_zarr.codec.encode import encode
from moec_zarr.demo.simulate import simulate
from moec_zarr.fit.presets import RECIPES
from moec_zarr.model.basis import Kind
from moec_zarr.settings import Settings

try:
    from tests import stranger
    from tests.fields import smooth
except ImportError:  # as a test imports this module: from within the folder
    import stranger  # type: ignore[no-redef]
    from fields import smooth  # type: ignore[no-redef]

FOLDER = Path(__file__).parent / "streams"


SHAPE = (8, 9, 10)


def _rough(shape: tuple[int, ...], dtype: str = "f4") -> NDArray[Any]:
    return (smooth(shape) + np.random.default_rng(0).normal(0, 3, shape)).astype(dtype)


def _with_specials(data: NDArray[Any]) -> NDArray[Any]:
    data[2:5, 3:7, 4:8] = np.nan
    data[6:, 7:, 8] = np.inf
    data[0, 0, :3] = -np.inf
    return data


def _with_missing() -> NDArray[Any]:
    data = smooth(SHAPE, "i2", scale=3000)
    data[:, :3, 6:] = -999
    return data


def _padded() -> NDArray[Any]:
    data = np.full((10, 9, 13), np.nan, "f4")
    data[:8, :, :10] = smooth(SHAPE)
    return data


def _thin() -> NDArray[Any]:
    data = smooth((6000,), "u1")
    data[300:2000], data[-1] = 255, 9
    return data


def _simulated(name: str) -> NDArray[Any]:
    return np.ascontiguousarray(simulate((4, 1, 24, 20), seed=1)[name].values[:, 0])


def settings(array: NDArray[Any], stream_bytes: int = 230, **others: Any) -> dict[str, Any]:
    """Settings for a stream of about so many bytes."""
    return {"ratio": array.nbytes / stream_bytes, "effort": "fast"} | others


# What each stream is to show: the data, and what the settings say beside their ratio.
FEATURES: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "one_expert": (smooth(SHAPE), {"experts": 1}),
    "experts": (smooth(SHAPE), {"experts": 3, "stream_bytes": 260}),
    "latents": (_simulated("temperature"), {"stream_bytes": 500}),
    "latents_nested": (_simulated("vorticity"), {"stream_bytes": 500}),
    "latents_bent": (_simulated("temperature"), {"stream_bytes": 500}),
    "latents_and_experts": (_simulated("tracer"), {"stream_bytes": 600, "experts": 2}),
    "latents_rank_1": (_rough((700,)), {}),
    "latents_rank_5": (_rough((4, 5, 1, 6, 5), "f8"), {}),
    "latents_mask": (_with_specials(_rough(SHAPE)), {"stream_bytes": 300}),
    "mask": (_with_specials(smooth(SHAPE)), {"stream_bytes": 300, "experts": 1}),
    "mask_packed": (_thin(), {"missing": 255}),
    "missing": (_with_missing(), {"missing": -999}),
    "box": (_padded(), {}),
    "lossless": (np.repeat(np.arange(4, dtype="i4"), 500).reshape(4, 20, 25), {}),
    "constant": (np.full((3, 4), 2.5), {"stream_bytes": 96}),
    "big_endian_f_order": (np.asfortranarray(smooth(SHAPE, ">f4")), {"experts": 1}),
    "int16": (smooth(SHAPE, "i2", scale=3000) - np.int16(500), {}),
    "uint64": (smooth(SHAPE, "u8", scale=1e19) + np.uint64(10**18), {"experts": 1}),
    "rank_1": (smooth((700,)), {"experts": 1}),
    "rank_5": (smooth((4, 5, 1, 6, 5), "f8"), {"experts": 1}),
}


# Bases of those that show them, where the encoder has others to choose from.
KINDS = {
    "latents": (Kind(), Kind(1), Kind(2)),
    "latents_nested": (Kind(), Kind(1, nested=True), Kind(2, nested=True)),
    "latents_bent": (Kind(weights=(9, 4, 7)), Kind(), Kind()),
}


def names(feature: str) -> tuple[Path, Path]:
    """A feature's stream, and what it decodes to."""
    stem = f"v{VERSION}_{feature}"
    return FOLDER / f"{stem}.moec", FOLDER / f"{stem}.npz"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for feature, (data, others) in FEATURES.items():
        # Three tenths of the bytes for a network that corrects latents, where one is asked for.
        rounds = int(feature == "latents_and_experts")
        with ExitStack() as stack:
            stack.enter_context(patch.dict(RECIPES, fast=replace(RECIPES["fast"], rounds=rounds)))
            stack.enter_context(patch("moec_zarr.fit.select._CORRECTING", 0.3))
            stack.enter_context(patch("moec_zarr.fit.select._LEAST_CORRECTION", 150))
            if feature in KINDS:
                stack.enter_context(patch("moec_zarr.fit.rdoq.promising", return_value=[KINDS[feature]]))
            stream = encode(data, Settings(**settings(data, **others)))
        decoded = reference_decoder.decode(stream)
        expected = decoded.array if decoded.network or decoded.latents else data
        if not np.array_equal(decoded.array, expected, equal_nan=data.dtype.kind == "f"):
            sys.exit(f"{feature}: the stranger's decoder does not return the data; its stream is not written")
        path, beside = names(feature)
        path.write_bytes(stream)
        np.savez_compressed(beside, expected=expected)
        print(f"{path.name}: {len(stream)} bytes; {beside.name}: {beside.stat().st_size} bytes")


if __name__ == "__main__":
    main()
