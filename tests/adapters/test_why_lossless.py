"""One rule for what stays lossless."""

import numpy as np
import pytest

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.adapters.choice import why_lossless
from tests.support.variables import DIMS, RATIO, REASONS, SHAPE, dataset_of_kinds

xr = pytest.importorskip("xarray")

CODEC = MoECCodec(ratio=RATIO)


@pytest.fixture(scope="module")
def ds():
    return dataset_of_kinds()


def test_the_table_has_every_variable(ds):
    assert set(REASONS) == set(ds.variables)


@pytest.mark.parametrize(("name", "reason"), REASONS.items())
def test_reason(ds, name, reason):
    assert why_lossless(ds, name, CODEC) == reason


def test_a_lower_ratio_leaves_less_too_small(ds):
    assert why_lossless(ds, "area", MoECCodec(ratio=40)) == ""
    assert why_lossless(ds, "area", MoECCodec(psnr=40)) == ""
    assert why_lossless(ds, "short", MoECCodec(psnr=40)) == "small"  # 240 bytes of 300


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_encoding_follows_the_rule(ds, zarr_format):
    fields = {name for name, reason in REASONS.items() if not reason}
    assert set(moec_zarr.encoding(ds, CODEC, zarr_format)) == fields


def test_a_mask_is_compressed_where_it_is_named(ds):
    assert list(moec_zarr.encoding(ds, CODEC, variables=["sea"])) == ["sea"]
    assert list(moec_zarr.encoding(ds, {"sea": CODEC})) == ["sea"]


@pytest.mark.parametrize("name", ["sea", "region", "counts"])
def test_lazy_integers_are_sampled_and_little_is_read(ds, name):
    pytest.importorskip("dask.array")
    read = []

    def count(block):
        read.append(block.size)
        return block

    blocks = ds[[name]].chunk(dict(zip(DIMS, (1, 1, 60), strict=True)))
    blocks[name] = blocks[name].copy(
        data=blocks[name].data.map_blocks(count, meta=np.array((), ds[name].dtype))
    )
    assert why_lossless(blocks, name, CODEC) == REASONS[name]
    assert sum(read) <= np.prod(SHAPE)


def test_places_are_spread_over_large_variables():
    """Classes that stand in the first, the last or all places; a field that begins with zeros is one."""
    values = np.zeros((64, 256, 256), "i2")
    whole = xr.Dataset({"a": (DIMS, values)})
    assert why_lossless(whole, "a", CODEC) == "few values: 0"
    values[-1, -1, -1] = 5
    assert why_lossless(whole, "a", CODEC) == "few values: 0, 5"
    values[32:] = np.arange(256)
    assert why_lossless(whole, "a", CODEC) == ""


@pytest.mark.parametrize(("count", "compressed"), [(64, False), (65, True)])
def test_how_many_values_are_few(count, compressed):
    values = (np.arange(np.prod(SHAPE)) % count).reshape(SHAPE)
    assert (why_lossless(xr.Dataset({"a": (DIMS, values)}), "a", CODEC) == "") == compressed


def test_floats_are_not_read(ds):
    pytest.importorskip("dask.array")

    def fail(block):
        raise AssertionError("a field must not be read")

    lazy = ds[["temperature"]].chunk()
    lazy["temperature"] = lazy.temperature.copy(
        data=lazy.temperature.data.map_blocks(fail, meta=np.zeros(0, "f4"))
    )
    assert why_lossless(lazy, "temperature", CODEC) == ""
