from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec_zarr import BudgetError, MoECCodec, MoECError, UnsupportedArrayError
from moec_zarr.adapters.chunking import LEAST_BYTES
from moec_zarr.adapters.xarray_encoding import encoding
from tests.conversion.conversions import plan
from tests.support.variables import RATIO, REASONS, dataset_of_kinds

xr = pytest.importorskip("xarray")

DIMS = ("time", "level", "lat", "lon")


def blank(shape, dtype="f4", **attrs):
    """A field without memory of its own."""
    dims = ("time", "lat", "lon") if len(shape) == 3 else DIMS[-len(shape) :]
    return (dims, np.broadcast_to(np.zeros((), dtype), shape), attrs)


def chunked(ds, **sizes):
    """The dataset as if it had been read from a file in such chunks."""
    for var in ds.variables.values():
        var.encoding["preferred_chunks"] = {dim: size for dim, size in sizes.items() if dim in var.dims}
    return ds


shapes = st.lists(st.integers(1, 3000), min_size=1, max_size=4).filter(lambda s: math.prod(s) < 2**34)


@settings(deadline=None)
@given(
    shape=shapes,
    dtype=st.sampled_from(["f4", "f8", "i2", "u1"]),
    ratio=st.sampled_from([1, 20, 1000, 6000]),
    source=st.lists(st.integers(1, 3000), min_size=4, max_size=4),
)
def test_tasks_tile_the_array_and_chunks_meet_the_budget(shape, dtype, ratio, source):
    ds = chunked(xr.Dataset({"a": blank(shape, dtype)}), **dict(zip(DIMS, source, strict=True)))
    if math.prod(shape) * np.dtype(dtype).itemsize < LEAST_BYTES * ratio:
        with pytest.raises(MoECError, match="small"):
            plan(ds, MoECCodec(ratio=ratio))
        return
    (each,) = plan(ds, MoECCodec(ratio=ratio), variables=["a"]).compressed  # zeros are no field of integers
    assert math.prod(each.chunks) * each.dtype.itemsize >= LEAST_BYTES * ratio
    assert each.tasks == math.prod(each.grid.counts)
    # Along each axis the regions follow one another, so that together they hold each voxel once.
    for axis, count in enumerate(each.grid.counts):
        edges = [
            each.grid.region(tuple(i if a == axis else 0 for a in range(len(shape))))[axis]
            for i in range(count)
        ]
        assert edges[0].start == 0
        assert edges[-1].stop == shape[axis]
        assert all(a.stop == b.start for a, b in pairwise(edges))
        assert all(edge.start < edge.stop for edge in edges)


@settings(deadline=None)
@given(
    length=st.integers(100, 20_000),
    source=st.integers(1, 20_000),
    ratio=st.sampled_from([100, 1000]),
)
def test_chunks_meet_the_boundaries_of_the_source(length, source, ratio):
    ds = chunked(xr.Dataset({"a": blank((length, 10, 60, 60))}), time=source)
    (each,) = plan(ds, MoECCodec(ratio=ratio)).compressed
    free = plan(xr.Dataset({"a": blank((length, 10, 60, 60))}), MoECCodec(ratio=ratio)).compressed[0].chunks
    size = each.chunks[0]
    if source < length and source <= free[0] < length:
        assert size % source == 0
        assert size > free[0] / 2
    else:
        assert source % size == 0 or size == free[0]


@settings(deadline=None)
@given(chunk=st.integers(1, 60), count=st.integers(1, 30), length=st.integers(50, 500))
def test_shards_hold_whole_chunks(chunk, count, length):
    ds = xr.Dataset({"a": blank((length, 40, 80))})
    (each,) = plan(
        ds, MoECCodec(ratio=10), chunks={"time": chunk}, shards={"time": chunk * count}
    ).compressed  # fmt: skip
    assert each.block == each.shards
    assert all(outer % inner == 0 for outer, inner in zip(each.shards, each.chunks, strict=True))
    assert each.tasks == math.ceil(length / each.shards[0])


@pytest.fixture
def ds():
    return xr.Dataset(
        {
            "temperature": blank((40, 8, 60, 60), units="K"),
            "packed": (*blank((40, 60, 60)), {"scale_factor": 0.1, "dtype": "i2"}),
            "quality": blank((40, 60, 60), "i1", flag_values=[0, 1]),
            "observed": blank((40, 60, 60), "i8", units="seconds since 1970-01-01"),
            "when": blank((40, 60, 60), "M8[ns]"),
            "land": blank((60, 60), bool),
            "area": blank((60, 60)),
        },
        coords={"time": np.arange(40), "height": (("level", "lat", "lon"), np.zeros((8, 60, 60), "f4"))},
    )


def test_the_plan_follows_the_rule_of_the_encoding():
    """Of each kind of variable, the plan has the same answer and the same reason as `encoding`."""
    kinds, codec = dataset_of_kinds(), MoECCodec(ratio=RATIO)
    planned = plan(kinds, codec)
    assert {each.name: each.reason for each in planned.variables} == REASONS
    assert [each.name for each in planned.compressed] == list(encoding(kinds, codec))
    for each in planned.variables:
        assert (each.codec == codec) == (each.reason == "")
        assert each.codec in (None, codec)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_codec_of_each_variable_is_planned(ds, zarr_format):
    ds["packed"].encoding.pop("scale_factor", None)
    ds["temperature"].encoding["_FillValue"] = np.float32(-99)
    codecs = {"temperature": MoECCodec(ratio=50, seed=2), "packed": MoECCodec(psnr=40)}
    planned = plan(ds, codecs, zarr_format=zarr_format)
    found = {each.name: each.codec for each in planned.compressed}
    assert found == {"temperature": MoECCodec(ratio=50, seed=2, missing=-99), "packed": MoECCodec(psnr=40)}


def test_names_replace_the_choice(ds):
    planned = plan(ds, MoECCodec(ratio=100), variables=["quality"])
    assert [each.name for each in planned.compressed] == ["quality"]
    assert {each.reason for each in planned.variables} == {"", "not named", "coordinate"}
    by_name = plan(ds, {"temperature": MoECCodec(psnr=50)})
    assert [each.codec.psnr for each in by_name.compressed] == [50]


def test_large_lossless_variables_have_tasks(ds):
    ds["large"] = (("time", "y", "x"), np.broadcast_to(np.int32(0), (40, 600, 600)), {"flag_masks": [1]})
    large = next(each for each in plan(ds, MoECCodec(ratio=100)).variables if each.name == "large")
    assert large.codec is None
    assert large.tasks > 1


def test_nothing_is_read_of_floats_without_levels(ds):
    da = pytest.importorskip("dask.array")

    def fail(block):
        raise AssertionError("a plan must not read")

    ds = ds.rename(level="member").chunk(time=1)
    ds["temperature"] = ds.temperature.copy(data=da.zeros(ds.temperature.shape).map_blocks(fail, dtype="f4"))
    planned = plan(ds, MoECCodec(ratio=100))
    assert planned.read_bytes > 0
    assert planned.seconds > 0
    # Chunks of one hour are joined, whatever dask's are.
    assert planned.compressed[0].chunks[0] > 1


def test_the_index_of_a_shard_is_planned(ds):
    sizes = {"chunks": {"time": 5}, "shards": {"time": 20}}
    streams, sharded = (
        plan(ds, MoECCodec(ratio=10), variables=["temperature"], **options).compressed[0]
        for options in ({"chunks": {"time": 5}}, sizes)
    )
    # Two shards of four chunks: 16 bytes a chunk, and 4 for a checksum.
    assert sharded.stored_bytes - streams.stored_bytes == 2 * (4 * 16 + 4)


def test_it_is_a_function_of_its_arguments(ds):
    first, second = (plan(ds, MoECCodec(ratio=100)) for _ in range(2))
    assert json.loads(json.dumps(first.to_dict())) == second.to_dict()
    assert plan(ds, MoECCodec(ratio=100, seed=1)).to_dict() != first.to_dict()


def test_estimates(ds):
    fast, best = (plan(ds, MoECCodec(ratio=100, effort=effort)) for effort in ("fast", "best"))
    assert best.seconds > 2 * fast.seconds
    for each in fast.compressed:
        assert each.stored_bytes == pytest.approx(each.nbytes / 100, rel=0.2)
    assert plan(ds, MoECCodec(psnr=40)).compressed[0].stored_bytes is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"chunks": {"tim": 3}}, MoECError, "'tim'.*the source has 'time'"),
        ({"chunks": {"time": 0}}, MoECError, "along 'time'.*got 0"),
        ({"chunks": (1, 2, 3)}, MoECError, "a size by dimension"),
        ({"chunks": {"time": 1, "level": 1, "lat": 10}}, BudgetError, "'temperature'.*at least|needs 300"),
        ({"shards": {"time": 3}, "chunks": {"time": 2}}, MoECError, "whole chunks of 2"),
        ({"shards": {"time": 8}, "zarr_format": 2}, MoECError, "format 2 has no shards"),
        ({"variables": ["nope"]}, MoECError, "'nope' is not a data variable"),
        ({"variables": ["land"]}, UnsupportedArrayError, "bool"),
        ({"variables": ["area"]}, BudgetError, "at most"),
        ({"variables": []}, MoECError, "nothing to compress"),
        ({"zarr_format": 4}, MoECError, "2 or 3"),
    ],
)
def test_what_cannot_be_done_is_refused(ds, arguments, error, message):
    with pytest.raises(error, match=message):
        plan(ds, MoECCodec(ratio=100), **arguments)
