"""A dataset to convert, quick conversions of it, and what they leave behind."""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moec_zarr import MoECCodec
from moec_zarr.archive.plan import Plan
from moec_zarr.conversion.plan import planning
from moec_zarr.conversion.plan.options import ConversionOptions
from moec_zarr.conversion.work import worker
from moec_zarr.conversion.work.run import convert
from tests.support.fields import smooth, steps

SHAPE = (5, 12, 16)
DIMS = ("time", "lat", "lon")
QUICK = MoECCodec(ratio=2, effort="fast")  # variable a meets it without a fit
FAST = MoECCodec(ratio=5, effort="fast")


def plan(ds: Any, codec: Any, **options: Any) -> Plan:
    """What a conversion with these options will do."""
    return planning.plan(ds, ConversionOptions(codec=codec, **options))


def dataset() -> Any:
    """Two fields and all kinds of things that are to come back as they were."""
    import xarray as xr

    noisy = smooth(SHAPE) + np.random.default_rng(0).standard_normal(SHAPE).astype("f4")
    noisy[2:4, 3:6, 5:9] = np.nan
    flags = (smooth(SHAPE) > 50).astype("i1")
    hours = np.datetime64("2026-01-01", "ns") + np.arange(SHAPE[0]) * np.timedelta64(1, "h")
    ds = xr.Dataset(
        {
            "a": (DIMS, steps(SHAPE), {"units": "K", "long_name": "a field"}),
            "b": (DIMS, noisy, {"units": "m"}),
            "quality": (DIMS, flags, {"flag_values": np.array([0, 1], "i1"), "flag_meanings": "bad good"}),
            "station": ("lat", np.array([f"s{i}" for i in range(SHAPE[1])])),
        },
        coords={
            "time": ("time", hours, {"standard_name": "time"}),
            "lat": np.linspace(-60, 60, SHAPE[1]),
            "lon": np.linspace(0, 31, SHAPE[2]),
            "height": (("lat", "lon"), smooth(SHAPE[1:]), {"units": "m"}),
        },
        attrs={"title": "test", "history": "made"},
    )
    ds.time.encoding = {"units": "hours since 2000-01-01 12:00", "dtype": "i4"}
    ds.a.encoding = {"_FillValue": np.float32(-999)}
    return ds


def quick(source: Any, dst: Any, client: Any, **options: Any) -> Any:
    """Convert variable a, in three chunks and without a fit."""
    options = {"variables": ["a"], "chunks": {"time": 2}} | options
    return convert(source, dst, QUICK, client=client, **options)


def release_files(client: Any) -> None:
    """Wait until no worker holds a task, and with it the handle of a file; half a second at most.

    xarray opens a NetCDF file without its lock: where a worker of this process closed another one at the
    same time, the library, which is not thread-safe, could crash.
    """
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        gc.collect()
        if not any(client.run(lambda dask_worker: len(dask_worker.state.tasks)).values()):
            return
        time.sleep(0.02)


def stored(dst: Path) -> dict[str, bytes]:
    """Bytes of every chunk."""
    return {
        str(path.relative_to(dst)): path.read_bytes()
        for path in sorted(dst.rglob("*"))
        if path.is_file() and ".moec_zarr" not in path.parts and not path.name.startswith((".z", "zarr.json"))
    }


def records(dst: Path) -> dict[Path, int]:
    """When the record of each finished task was written."""
    return {path: path.stat().st_mtime_ns for path in dst.glob("*/.moec_zarr/*.*.json")}


def fail_to_read(patch: pytest.MonkeyPatch, errors: list[Exception]) -> list[Exception]:
    """Let the reading of chunk (1, 0, 0) raise one error after the other; those that are left."""
    read = worker._stored_values
    left = list(errors)

    def fails(task: worker.Task) -> Any:
        if task.index == (1, 0, 0) and left:
            raise left.pop(0)
        return read(task)

    patch.setattr(worker, "_stored_values", fails)
    return left
