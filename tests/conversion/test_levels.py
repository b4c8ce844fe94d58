"""Levels of an image: those of the source, or made again of the finest one as it is decoded."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec, MoECError, convert, verify
from moec_zarr.adapters.pyramid import coarsen, find_factors
from moec_zarr.conversion.plan.source import open_source
from tests.conversion.conversions import plan, stored
from tests.conversion.test_trees import arrays
from tests.support.fields import smooth
from tests.support.trees import write_image

xr = pytest.importorskip("xarray")

LOSSY = MoECCodec(max_error=3, effort="fast")
SHAPE = (2, 4, 17, 22)


def write_means(path):
    """Make the coarser level of an image that of the means of two by two voxels."""
    write_image(path, shape=SHAPE, levels=3)
    for level, factor in (("1", 2), ("2", 4)):
        fine = zarr.open_array(path / "0")[:]
        zarr.open_array(path / level, mode="r+")[:] = means(fine, factor)
    return path


def means(fine, factor):
    """Means of blocks along the last two axes, one voxel after the other."""
    *_, height, width = fine.shape
    rows = [
        [
            fine[..., y : y + factor, x : x + factor].astype("f8").mean((-2, -1))
            for x in range(0, width, factor)
        ]
        for y in range(0, height, factor)
    ]
    return np.rint(np.array(rows).transpose(2, 3, 0, 1)).astype(fine.dtype)


@pytest.mark.parametrize("how", ["mean", "nearest"])
def test_levels_are_made_again_of_the_decoded_finest(tmp_path, client, how):
    source = tmp_path / "a.zarr"
    write_means(source) if how == "mean" else write_image(source, shape=SHAPE, levels=3)
    dst = tmp_path / "b.zarr"
    convert(source, dst, {"0": LOSSY}, client=client, rebuild_levels=True)
    new = arrays(dst)
    finest = new["0"][:]
    assert (finest != arrays(source)["0"][:]).any()
    for level, factor in (("1", 2), ("2", 4)):
        expected = means(finest, factor) if how == "mean" else finest[..., ::factor, ::factor]
        np.testing.assert_array_equal(new[level][:], expected)
        assert new[level].attrs["moec_zarr_rebuilt_from"] == f"0, {how}"
    np.testing.assert_array_equal(new["labels/cells/1"][:], arrays(source)["labels/cells/1"][:])
    assert verify(dst, source).ok
    whole = stored(dst)
    for key in ("0/c/0/0/0/0", "1/c/1/0/0/0"):
        (dst / key).write_bytes(b"damaged")
    assert verify(dst, source, repair=True, client=client).ok
    assert stored(dst) == whole


def test_levels_that_are_compressed_are_within_the_bound_of_what_is_decoded(tmp_path, client):
    source, dst = write_means(tmp_path / "a.zarr"), tmp_path / "b.zarr"
    convert(source, dst, LOSSY, client=client, rebuild_levels=True)
    new = arrays(dst)
    error = new["1"][:].astype("i8") - means(new["0"][:], 2)
    assert 0 < np.abs(error).max() <= 3
    assert verify(dst, source).ok


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_grows_at_all_levels(tmp_path, client, version, rebuild):
    first, more, whole = (tmp_path / name for name in ("first", "more", "whole"))
    write_image(first, version, labels=False)
    write_image(more, version, labels=False)
    write_image(whole, version, shape=(4, 4, 16, 20), labels=False)
    for level in "01":
        parts = [zarr.open_array(path / level)[:] for path in (first, more)]
        zarr.open_array(whole / level, mode="r+")[:] = np.concatenate(parts)
    dst = tmp_path / "d.zarr"
    convert(first, dst, {"0": LOSSY}, client=client, rebuild_levels=rebuild)
    convert(more, dst, append="c", client=client)
    new = arrays(dst)
    assert [new[level].shape[0] for level in "01"] == [4, 4]
    finest = new["0"][:]
    assert np.abs(finest.astype("i8") - zarr.open_array(whole / "0")[:]).max() <= 3
    expected = finest[..., ::2, ::2] if rebuild else zarr.open_array(whole / "1")[:]
    np.testing.assert_array_equal(new["1"][:], expected)
    assert verify(dst, whole).ok


def test_levels_that_cannot_be_made_again_are_refused(tmp_path):
    source = write_image(tmp_path / "a.zarr")
    arrays_ = zarr.open_group(source, mode="r+")
    del arrays_["1"]
    arrays_.create_array("1", shape=(2, 4, 7, 10), dtype="u2", chunks=(1, 4, 7, 10))
    with open_source(source) as ds:
        with pytest.raises(MoECError, match=r"'1' cannot be made again of '0'.*\(2, 4, 7, 10\)"):
            plan(ds, {"0": LOSSY}, rebuild_levels=True)
        with pytest.raises(MoECError, match="no image of several levels that is compressed"):
            plan(ds, {"1": LOSSY}, rebuild_levels=True)


def test_factors_and_blocks():
    assert find_factors((2, 17, 20), (2, 9, 10)) == (1, 2, 2)
    assert find_factors((17, 20), (8, 5)) == (2, 4)
    assert find_factors((17, 100, 99), (5, 33, 33)) == (4, 3, 3)
    values = smooth((17, 22))
    whole = coarsen(values, (2, 4), "mean")
    assert whole.shape == (9, 6)
    np.testing.assert_allclose(whole[3, 2], values[6:8, 8:12].mean(), rtol=1e-6)
    np.testing.assert_allclose(whole[8, 5], values[16:, 20:].mean(), rtol=1e-6)
    np.testing.assert_array_equal(coarsen(values, (2, 4), "nearest"), values[::2, ::4])
    # Halves go to even, and large integers do not overflow.
    assert coarsen(np.array([2**31 - 1, 2**31 - 1, 1, 2], "i4"), (2,), "mean").tolist() == [2**31 - 1, 2]


def test_parts_of_a_level_are_those_of_the_whole(tmp_path, monkeypatch):
    from moec_zarr.adapters import lazy_values

    array = zarr.create_array(tmp_path / "a", data=smooth((6, 17, 22)), chunks=(2, 5, 22))
    expected = coarsen(array[:], (1, 2, 2), "mean")
    monkeypatch.setattr(lazy_values, "_AT_ONCE", 40)
    var = xr.Variable(tuple("zyx"), lazy_values.as_coarse(array, (6, 9, 11), "mean"))
    for key in (np.s_[:], np.s_[1:3, 2:9, ::3], np.s_[4, :, 5], np.s_[2:2], np.s_[::-1, 8:2:-2]):
        np.testing.assert_array_equal(var[key].values, expected[key])


def test_verify_says_what_rebuilt_levels_are_compared_with(tmp_path, client):
    source, dst = write_image(tmp_path / "a.zarr", labels=False), tmp_path / "b.zarr"
    convert(source, dst, LOSSY, client=client, rebuild_levels=True)
    found = verify(dst, source)
    assert {name: each.rebuilt for name, each in found.variables.items()} == {"0": "", "1": "0"}
