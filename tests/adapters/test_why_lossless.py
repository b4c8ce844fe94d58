"""One rule for what stays lossless."""

import pytest

import moec_zarr
from moec_zarr import MoECCodec
from moec_zarr.adapters.xarray_encoding import why_lossless
from tests.support.variables import RATIO, REASONS, dataset_of_kinds

pytest.importorskip("xarray")

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
