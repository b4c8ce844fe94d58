"""What a conversion, or an append, will do: the plan of it and the part of the source that it takes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import zarr

from moec_zarr.adapters.tree import dims_named
from moec_zarr.archive.attributes import check_attributes
from moec_zarr.archive.manifest import Manifest, read_manifest
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.storage import StorageOptions, store_at, to_read
from moec_zarr.archive.stored import Destination, hide_expected_warnings
from moec_zarr.conversion.plan.append import Growth, plan_append, whole_chunks
from moec_zarr.conversion.plan.checks import check_values
from moec_zarr.conversion.plan.options import ConversionOptions
from moec_zarr.conversion.plan.planning import plan
from moec_zarr.conversion.plan.source import Source, fingerprint
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Job", "plan_job"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a conversion, or an append, will do.

    Attributes
    ----------
    plan : Plan
        Of the whole destination.
    ds : Dataset
        The source.
    growth : Growth or None
        What an append will do; None where the destination is made.
    held : int
        Number of steps at the end that are kept back.
    """

    plan: Plan
    ds: xr.Dataset
    growth: Growth | None = None
    held: int = 0

    @property
    def offsets(self) -> dict[str, int]:
        """Position in the destination of the first voxel of the source, by dimension, where it is not 0."""
        return {} if self.growth is None else dict.fromkeys(self.growth.along, self.growth.offset)

    def manifest(self, src: Source, options: StorageOptions | None) -> Manifest:
        """Return what the destination will say that it was made by."""
        source = fingerprint(src, self.ds, options)
        growth = self.growth
        if growth is None:
            return Manifest(plan=self.plan.to_dict(), source=source.digest, file_bytes=source.file_bytes)
        # Steps that the store has already are counted with it.
        share = growth.added / max(self.ds.sizes[growth.along[0]], 1)
        return Manifest(
            plan=self.plan.to_dict(),
            source=source.digest,
            created=True,
            along=growth.dim,
            earlier=growth.earlier,
            file_bytes=growth.file_bytes + round(share * source.file_bytes) if growth.file_bytes else 0,
        )


def plan_job(ds: xr.Dataset, dst: Destination, options: ConversionOptions) -> Job:
    """Plan what `convert` does, and look at samples of what it would compress. Nothing is written."""
    append = options.append
    if append is not None:
        growth = plan_append(ds, store_at(dst, options.storage_options), append, options.incomplete)
        if growth is not None:
            layout = options.codec, options.variables, options.chunks, options.shards, options.train
            if layout != (None, None, "auto", None, None):
                raise MoECError(
                    "an append takes codec, variables, chunks, shards and dictionaries from the store; leave "
                    "them out, and --train (train=)"
                )
            if growth.added:
                check_values(growth.plan, growth.ds)
            return Job(plan=growth.plan, ds=growth.ds, growth=growth, held=growth.held)
    if options.codec is None:
        raise MoECError(
            f"no finished conversion is at {dst} to append to; give a codec (--ratio or --psnr) to make one"
        )
    check_attributes(ds)
    planned = plan(ds, options)
    check_values(planned, ds)
    if options.incomplete != "hold" or append is None:
        return Job(plan=_keep_dictionaries(planned, dst, options), ds=ds)
    if options.chunks == "auto" or append not in options.chunks:
        raise MoECError(
            f"give the size of chunks along {append!r} (--chunks {append}=N), so that it does not depend on "
            "how many steps there are when the store is made"
        )
    whole = whole_chunks(planned, append)
    if not whole:
        raise MoECError(f"the source does not fill one chunk along {append!r}, so nothing would be stored")
    along = dims_named(ds.dims, append)
    part = ds.isel(dict.fromkeys(along, slice(whole)))
    planned = plan(part, options)
    planned = _keep_dictionaries(planned, dst, options)
    return Job(plan=planned, ds=part, held=ds.sizes[along[0]] - whole)


@hide_expected_warnings()
def _keep_dictionaries(planned: Plan, dst: Destination, options: ConversionOptions) -> Plan:
    """Return the plan with the dictionaries that a destination was begun with, if it was begun.

    What it was begun without gets none: its chunks were made without.
    """
    if not options.resume:
        return planned
    try:
        store = to_read(store_at(dst, options.storage_options))
        manifest = read_manifest(zarr.open_group(store, mode="r", use_consolidated=False))
    except (OSError, ValueError, TypeError):
        return planned  # nothing is there, or what is refused when the work begins
    if manifest is None:
        return planned
    codecs = {}
    for each in planned.compressed:
        begun = None if each.codec is None or options.train is False else manifest.codec(each.name)
        if begun is None:
            continue
        if begun.dictionary is not None and each.codec == replace(begun, dictionary=None):
            codecs[each.name] = begun
        elif begun.dictionary is None and options.train and each.training:
            _log.warning("%s goes on without a dictionary for %r, as it was begun", dst, each.name)
    return planned.with_codecs(codecs)
