"""Values that a conversion would spoil, found in samples before it starts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from moec_zarr.adapters.samples import sample
from moec_zarr.archive.plan import Plan
from moec_zarr.conversion.plan.joining import files_behind
from moec_zarr.conversion.plan.source import reading
from moec_zarr.errors import MoECError
from moec_zarr.fills import find_suspect, remedy

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_values"]

_log = logging.getLogger(__name__)


def check_values(planned: Plan, ds: xr.Dataset) -> None:
    """Look for fill values that nobody declared, in a sample of each variable to compress.

    What may be one is logged. Chunks are looked at once more, as a whole, when they are encoded.

    Raises
    ------
    MoECError
        If a sample holds a known fill value that is not declared.
    SourceError
        If the source cannot be read.
    """
    for each in planned.compressed:
        assert each.codec is not None
        if each.codec.is_lossless:
            continue
        var = ds.variables[each.name]
        whole = tuple(slice(0, n) for n in var.shape)
        with reading(files_behind(ds, each.dims, whole)):
            parts = [block.ravel() for block in sample(var)]
        suspect = find_suspect(np.concatenate(parts), each.codec.missing) if parts else None
        if suspect is None:
            continue
        if suspect.is_known:
            raise MoECError(f"variable {each.name!r}: in a sample, {suspect}. {remedy(suspect, each.name)}")
        _log.warning(
            "variable %r: in a sample, %s; if that stands for missing values, say so: --var %s:missing=%s",
            each.name, suspect, each.name, suspect.value,
        )  # fmt: skip
