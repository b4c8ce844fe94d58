"""Names, types and attributes of a source are those of its archive, or are refused before any work."""

from __future__ import annotations

import numpy as np
import pytest

from moec_zarr import UnsupportedArrayError, convert, verify
from moec_zarr.archive.stored import hide_expected_warnings
from tests.conversion.conversions import FAST
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")

SHAPE = (4, 12, 16)
DIMS = ("time", "lat", "lon")


def dataset(**variables):
    ds = xr.Dataset({"t": (DIMS, smooth(SHAPE)), **variables})
    return ds.assign_coords(time=np.arange(4), lat=np.linspace(-60, 60, 12))


def converted(source, dst, client, **options):
    convert(source, dst, FAST, client=client, **{"chunks": {"time": 2}} | options)
    return xr.open_zarr(dst, consolidated=False)


def test_a_dataset_that_cannot_be_stored_leaves_nothing_behind(tmp_path, client):
    ds = dataset(o=("lat", np.array([1, "a", 2.5] * 4, dtype=object)))
    with pytest.raises(UnsupportedArrayError, match="float, int, str"):
        converted(ds, tmp_path / "d.zarr", client)
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
@hide_expected_warnings()
def test_text_of_any_length_is_verified_and_appended_to(tmp_path, client, zarr_format):
    text = np.array(["", "é", "a long one", "b"], dtype=np.dtypes.StringDType())
    ds = dataset(name=("time", text))
    ds.to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=False)
    dst = tmp_path / "d.zarr"
    converted(tmp_path / "s.zarr", dst, client, zarr_format=zarr_format)
    assert verify(dst, tmp_path / "s.zarr").ok
    convert(ds.assign_coords(time=np.arange(4, 8)), dst, client=client, append="time")
    np.testing.assert_array_equal(xr.open_zarr(dst, consolidated=False)["name"].values, [*text, *text])
