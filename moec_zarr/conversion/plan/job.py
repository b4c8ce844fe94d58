"""What a conversion, or an append, will do: the plan of it and the part of the source that it takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.archive.manifest import Manifest
from moec_zarr.archive.plan import Plan
from moec_zarr.archive.storage import StorageOptions, store_at
from moec_zarr.archive.stored import Destination
from moec_zarr.conversion.plan.append import Growth, Incomplete, plan_append, whole_chunks
from moec_zarr.conversion.plan.planning import Sizes, plan
from moec_zarr.conversion.plan.source import Source, fingerprint
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Job", "plan_job"]


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
        return {} if self.growth is None else {self.growth.dim: self.growth.offset}

    def manifest(self, src: Source, options: StorageOptions | None) -> Manifest:
        """What the destination will say that it was made by."""
        source = fingerprint(src, self.ds, options)
        if self.growth is None:
            return Manifest(plan=self.plan.to_dict(), source=source)
        return Manifest(
            plan=self.plan.to_dict(),
            source=source,
            created=True,
            along=self.growth.dim,
            earlier=self.growth.earlier,
        )


def plan_job(
    ds: xr.Dataset,
    dst: Destination,
    codec: MoECCodec | Mapping[Any, MoECCodec | None] | None,
    *,
    variables: Iterable[Hashable] | None = None,
    chunks: Literal["auto"] | Sizes = "auto",
    shards: Sizes | None = None,
    zarr_format: Literal[2, 3] = 3,
    append: str | None = None,
    incomplete: Incomplete | None = None,
    resume: bool = True,
    storage_options: StorageOptions | None = None,
) -> Job:
    """Plan what `convert` does; its parameters. Nothing is written."""
    if incomplete is not None and append is None:
        raise MoECError("incomplete= (--incomplete) belongs to an append; name the dimension")
    if append is not None and not resume:
        raise MoECError(
            "an append keeps what is there, and --overwrite (resume=False) replaces it; choose one"
        )
    if append is not None:
        growth = plan_append(ds, store_at(dst, storage_options), append, incomplete)
        if growth is not None:
            if codec is not None or variables is not None or chunks != "auto" or shards is not None:
                raise MoECError(
                    "an append takes codec, variables, chunks and shards from the store; leave them out"
                )
            return Job(plan=growth.plan, ds=growth.ds, growth=growth, held=growth.held)
    if codec is None:
        raise MoECError(
            f"no finished conversion is at {dst} to append to; give a codec (--ratio or --psnr) to make one"
        )
    planned = plan(ds, codec, variables=variables, chunks=chunks, shards=shards, zarr_format=zarr_format)
    if incomplete != "hold" or append is None:
        return Job(plan=planned, ds=ds)
    if chunks == "auto" or append not in chunks:
        raise MoECError(
            f"give the size of chunks along {append!r} (--chunks {append}=N), so that it does not depend on "
            "how many steps there are when the store is made"
        )
    whole = whole_chunks(planned, append)
    if not whole:
        raise MoECError(f"the source does not fill one chunk along {append!r}, so nothing would be stored")
    part = ds.isel({append: slice(whole)})
    planned = plan(part, codec, variables=variables, chunks=chunks, shards=shards, zarr_format=zarr_format)
    return Job(plan=planned, ds=part, held=ds.sizes[append] - whole)
