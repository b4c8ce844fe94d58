"""Fill values that a source does not declare, in a conversion."""

import logging

import numpy as np
import pytest

from moec_zarr import ConversionError, MoECCodec, MoECError, trial, write_report
from moec_zarr.conversion.work.run import convert
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")
pytest.importorskip("distributed")

DIMS = ("time", "y", "x")
CODEC = MoECCodec(ratio=5, effort="fast")


def dataset(value, place=np.s_[:, 4:12, 4:12], shape=(4, 24, 32)):
    values = 270 + smooth(shape, scale=30)
    values[place] = value
    return xr.Dataset({"a": (DIMS, values)}, coords={"time": np.arange(shape[0])})


def test_a_known_one_is_refused_before_anything_is_written(tmp_path, client):
    with pytest.raises(
        MoECError, match=r"'a': in a sample, 256 of 3072 values are 1e\+20.*--var a:missing=1e\+20"
    ):
        convert(dataset(1e20), tmp_path / "z", CODEC, client=client)
    assert not (tmp_path / "z").exists()
    with pytest.raises(MoECError, match="missing="):
        trial(dataset(-9999), CODEC, 1)


def test_the_remedy_keeps_it_and_the_other_values(tmp_path, client):
    ds = dataset(1e20)
    stored = convert(ds, tmp_path / "z", MoECCodec(ratio=5, effort="fast", missing=1e20), client=client)
    sea = ds.a.values == np.float32(1e20)
    np.testing.assert_array_equal(stored.a.values == np.float32(1e20), sea)
    assert np.abs(stored.a.values - ds.a.values)[~sea].max() < 1


def test_one_outside_of_the_sample_stops_its_chunk(tmp_path, client):
    """A large variable is sampled in places; each chunk is looked at as a whole."""
    ds = dataset(-9999, np.s_[1, 70, 100], (2, 512, 512))
    with pytest.raises(ConversionError, match=r"chunk of shape .* one value is -9999\.0.*missing=-9999"):
        convert(ds, tmp_path / "z", CODEC, chunks={"time": 1, "y": 128, "x": 128}, client=client)
    status = xr.open_zarr(tmp_path / "z").attrs["moec_zarr_status"]
    assert status.startswith("incomplete: 31 of 32")


def test_an_append_is_looked_at_as_well(tmp_path, client):
    convert(dataset(270), tmp_path / "z", CODEC, chunks={"time": 4}, client=client)
    more = dataset(-9999).assign_coords(time=np.arange(4, 8))
    with pytest.raises(MoECError, match="a common missing value"):
        convert(more, tmp_path / "z", append="time", client=client)
    assert xr.open_zarr(tmp_path / "z").sizes["time"] == 4


def test_a_suspicious_one_is_logged_and_on_record(tmp_path, client, caplog):
    with caplog.at_level(logging.WARNING, "moec_zarr"):
        convert(dataset(0), tmp_path / "z", CODEC, client=client)
    assert (
        "variable 'a': in a sample, 256 of 3072 values are 0.0 and the others lie in 270 to 300"
        in caplog.text
    )
    assert "256 of 3072 values are 0.0" in xr.open_zarr(tmp_path / "z").a.attrs["moec_zarr_warning"]
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    write_report(tmp_path / "z", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "256 of 3072 values are 0.0" in page
    assert "convert with missing=." in page  # to the end
