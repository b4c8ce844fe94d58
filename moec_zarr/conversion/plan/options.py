"""The list of a conversion's parameters: checked once, then handed on as one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.archive.storage import StorageOptions
from moec_zarr.errors import MoECError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["ConversionOptions", "Incomplete", "OnBudget", "Sizes"]

Sizes = Mapping[str, int]
Incomplete = Literal["hold", "refit"]
OnBudget = Literal["keep", "fail"]


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """What a conversion is asked for, beside its source and destination.

    `moec_zarr.conversion.work.run.convert` explains each of them.

    Raises
    ------
    MoECError
        If two of them exclude each other.
    """

    codec: MoECCodec | Mapping[Any, MoECCodec | None] | None = None
    variables: Iterable[Hashable] | None = None
    chunks: Literal["auto"] | Sizes = "auto"
    shards: Sizes | None = None
    zarr_format: Literal[2, 3] | None = None
    append: str | None = None
    incomplete: Incomplete | None = None
    on_budget: OnBudget = "keep"
    rebuild_levels: bool = False
    train: bool | None = None
    client: Client | str | None = None
    workers: int | None = None
    resources: Mapping[str, float] | None = None
    resume: bool = True
    break_lock: bool = False
    storage_options: StorageOptions | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and (self.client is not None or self.workers < 1):
            raise MoECError(
                f"workers= counts those of a cluster that is made here, at least one; got {self.workers!r}"
            )
        if self.on_budget not in ("keep", "fail"):
            raise MoECError(f'on_budget= (--on-budget) is "keep" or "fail", got {self.on_budget!r}')
        if self.incomplete is not None and self.append is None:
            raise MoECError("incomplete= (--incomplete) belongs to an append; name the dimension")
        if self.append is not None and not self.resume:
            raise MoECError(
                "an append keeps what is there, and --overwrite (resume=False) replaces it; choose one"
            )
        if self.shards is not None and self.zarr_format == 2:
            raise MoECError("zarr format 2 has no shards; leave shards= out, or ask for zarr_format=3")
