"""A few chunks fitted at several targets, to decide by before a long conversion; nothing is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from moec_zarr.adapters.meaning import part_of, stored_values
from moec_zarr.adapters.numcodecs_codec import MoECCodec
from moec_zarr.adapters.training import choose_regions, train_codec
from moec_zarr.archive.plan import Plan, PlannedVariable
from moec_zarr.arrays import Array
from moec_zarr.chunk_grid import ChunkGrid
from moec_zarr.codec.decode import decode
from moec_zarr.codec.encode import encode
from moec_zarr.config import config
from moec_zarr.conversion.plan.checks import check_values
from moec_zarr.conversion.plan.options import ConversionOptions, Sizes
from moec_zarr.conversion.plan.planning import plan
from moec_zarr.conversion.plan.source import Source, open_source
from moec_zarr.errors import BudgetError, MoECError
from moec_zarr.quality import Quality, measure, merge
from moec_zarr.statistics import valid_voxels

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Trial", "trial", "try_plan"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Some chunks of a variable, fitted at one target.

    Attributes
    ----------
    variable : str
        Name of the variable.
    codec : MoECCodec
        The codec, with the target that was tried.
    chunks : int
        Number of chunks that were fitted.
    seconds : float
        Time of all fits, without reading.
    bytes_in, bytes_out : int
        Bytes of the chunks, and of their streams.
    quality : Quality
        How far the decoded chunks are from the source.
    whole : int
        Number of such chunks in the whole variable.
    training : float
        Seconds that the codec's dictionary took to train; 0 where it has none, or had it before.
    error : str
        Why a chunk cannot meet the target; empty if all do. If not empty, the other figures are those of the
        chunks before it.
    """

    variable: str
    codec: MoECCodec
    chunks: int
    seconds: float
    bytes_in: int
    bytes_out: int
    quality: Quality
    whole: int
    training: float = 0.0
    error: str = ""

    @property
    def ratio(self) -> float | None:
        """Bytes before divided by bytes after; None if nothing was fitted."""
        return self.bytes_in / self.bytes_out if self.bytes_out else None

    @property
    def whole_seconds(self) -> float | None:
        """Estimated time of all chunks of the variable on one core; None if nothing was fitted."""
        return self.seconds / self.chunks * self.whole if self.chunks else None

    @property
    def whole_bytes(self) -> float | None:
        """Estimated bytes of all streams of the variable; None if nothing was fitted."""
        return self.bytes_out / self.chunks * self.whole if self.chunks else None


def trial(
    src: Source,
    codec: MoECCodec | Mapping[Any, MoECCodec | None],
    count: int = 3,
    *,
    variables: Iterable[str] | None = None,
    chunks: Literal["auto"] | Sizes = "auto",
    train: bool | None = None,
) -> list[Trial]:
    """Fit a few chunks of each variable at several targets, in this process, one after the other.

    The chunks have the shapes that `convert` would use, and are spread evenly over the variable. Each is
    fitted at its target, at an easier one and at a harder one: half and double a ratio or a bound, 6 dB to
    either side of a PSNR. Where `convert` would train a dictionary, it is trained here, on other chunks, and
    these are fitted with it as well. Nothing is written.

    Parameters
    ----------
    src, codec, variables, chunks, train
        As `convert` takes them.
    count : int
        Number of chunks of each variable.

    Returns
    -------
    list of Trial
        One for each variable and target, and one for each dictionary.

    Raises
    ------
    MoECError
        As `convert` does before any work is done, or if `count` is not positive.
    """
    options = ConversionOptions(codec=codec, variables=variables, chunks=chunks, train=train)
    with open_source(src) as ds:
        planned = plan(ds, options)
        check_values(planned, ds)
        return list(try_plan(planned, ds, count))


def try_plan(planned: Plan, ds: xr.Dataset, count: int) -> Iterator[Trial]:
    """Do as `trial` for a plan and the dataset that it is of, and give each result when it is there."""
    if count < 1:
        raise MoECError(f"a trial takes at least one chunk of each variable, got {count}")
    for variable in planned.compressed:
        regions = list(_regions(variable, count))
        values = [_values(variable, ds, region) for region in regions]
        for codec in _nearby(variable.codec):
            yield _try(variable, codec, values)
        begun = time.perf_counter()
        other = _with_or_without(variable, ds, regions)
        seconds = time.perf_counter() - begun if variable.training else 0.0
        if other is not None:
            yield replace(_try(variable, other, values), training=seconds)


def _with_or_without(
    variable: PlannedVariable, ds: xr.Dataset, regions: list[tuple[slice, ...]]
) -> MoECCodec | None:
    """Return the codec with a dictionary that is trained now, or without the one that it has; else None.

    It is trained on other regions than those given.
    """
    codec = variable.codec
    if codec is None or codec.dictionary is not None:
        return None if codec is None else replace(codec, dictionary=None)
    if not variable.training or variable.chunks is None:
        return None
    chosen = choose_regions(variable.shape, variable.chunks, variable.training)
    blocks = (_values(variable, ds, region) for region in chosen if region not in regions)
    trained = train_codec(codec, blocks, variable.training)
    _log.info("variable %r: %s", variable.name, trained.told)
    return trained.codec if trained.codec.dictionary is not None else None


def _nearby(codec: MoECCodec | None) -> list[MoECCodec]:
    """Return the codec between two whose targets are easier and harder to meet."""
    if codec is None:
        return []
    if codec.psnr is not None:
        values: dict[str, list[Any]] = {"psnr": [codec.psnr + step for step in (6, 0, -6)]}
    else:
        # Whatever else sets a target is a factor or a distance.
        factors = "ratio", "max_relative_error", "max_error"
        name = next(each for each in factors if getattr(codec, each, None) is not None)
        values = {name: [getattr(codec, name) * factor for factor in (0.5, 1, 2)]}
    ((name, tried),) = values.items()
    codecs = []
    for value in tried:
        target: dict[str, Any] = {name: value}
        try:
            codecs.append(replace(codec, **target))
        except MoECError:
            continue  # half a ratio of 1 is none
    return codecs


def _regions(variable: PlannedVariable, count: int) -> Iterator[tuple[slice, ...]]:
    """Whole chunks, spread evenly; of a variable that is smaller than one, all of it."""
    chunks = variable.chunks or variable.shape
    # Without the shorter chunks at the ends.
    whole = tuple(n // side * side or n for n, side in zip(variable.shape, chunks, strict=True))
    grid = ChunkGrid(whole, chunks)
    # The middle of as many equal parts.
    for i in sorted({int((2 * part + 1) * len(grid) / (2 * count)) for part in range(count)}):
        yield grid.region(grid.index(i))


def _values(variable: PlannedVariable, ds: xr.Dataset, region: tuple[slice, ...]) -> Array:
    """Return the values of a region as they would be stored."""
    return stored_values(part_of(ds.variables[variable.name], region, variable.encoding), variable.name)


def _try(variable: PlannedVariable, codec: MoECCodec, values: list[Array]) -> Trial:
    seconds, sizes, parts, error = 0.0, [], [], ""
    with config.set(progress=False):
        for array in values:
            start = time.perf_counter()
            try:
                stream = encode(array, codec)
            except BudgetError as refused:
                error = " ".join(str(refused).split())
                break
            seconds += time.perf_counter() - start
            sizes.append(len(stream))
            parts.append(
                measure(array, decode(stream, dictionary=codec.shared), valid_voxels(array, codec.missing))
            )
    return Trial(
        variable=variable.name,
        codec=codec,
        chunks=len(parts),
        seconds=seconds,
        bytes_in=sum(array.nbytes for array in values[: len(parts)]),
        bytes_out=sum(sizes),
        quality=merge(parts),
        whole=len(ChunkGrid(variable.shape, variable.chunks or variable.shape)),
        error=error,
    )
