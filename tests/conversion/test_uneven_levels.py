"""Levels of very different range are in chunks of their own, where a target weighs all errors alike."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from moec_zarr import MoECCodec, convert, encoding
from tests.conversion.conversions import plan
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")

CODEC = MoECCodec(ratio=10, effort="fast")
SHAPE = (4, 5, 16, 20)


def levels(scales=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2), dim="plev", **attrs):
    """A field whose levels have ranges of so many units."""
    field = smooth(SHAPE).astype("f8")
    field = (field - field.min()) / np.ptp(field)
    values = (field * np.array(scales)[:, None, None]).astype("f4")
    dims = ("time", dim, "lat", "lon")
    coords = {"time": np.arange(4.0), dim: (dim, np.arange(5.0) * 100 + 50, attrs)}
    return xr.Dataset({"q": (dims, values)}, coords)


def chunks(ds, codec=CODEC, **options):
    return next(each.chunks for each in plan(ds, codec, **options).variables if each.name == "q")


def test_each_level_has_chunks_of_its_own_and_it_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert chunks(levels()) == (4, 1, 16, 20)
    assert "'q' at plev 450.0 is" in caplog.text
    assert "times that at plev 50.0" in caplog.text
    assert "--chunks plev=N decides" in caplog.text
    assert chunks(levels(), MoECCodec(psnr=40, effort="fast")) == (4, 1, 16, 20)
    assert chunks(levels(), chunks={"plev": 5}) == (4, 5, 16, 20)
    assert chunks(levels(), MoECCodec(psnr=40, effort="fast"), chunks={"time": 2}) == (2, 1, 16, 20)
    assert chunks(levels(), chunks={"time": 2}) == (2, 5, 16, 20)  # too little is left of one level
    # A bound is one for every value by itself, and logarithms have like ranges.
    for codec in (
        MoECCodec(max_error=1e-5),
        MoECCodec(max_relative_error=0.01),
        MoECCodec(ratio=10, scale="log"),
    ):
        assert chunks(levels(), codec) == SHAPE


@pytest.mark.parametrize(
    ("dim", "attrs", "cut"),
    [
        ("lev", {}, True),
        ("depth", {}, True),
        ("isobaricInhPa", {}, True),
        ("h", {"positive": "up"}, True),
        ("h", {"axis": "Z"}, True),
        ("h", {"units": "hPa"}, True),
        ("member", {}, False),  # as a stack of slices whose first are empty
        ("z", {"units": "mm"}, False),
    ],
)
def test_levels_are_known_by_name_and_attributes(dim, attrs, cut):
    assert (chunks(levels(dim=dim, **attrs))[1] == 1) == cut


def test_levels_of_like_range_stay_together(caplog):
    with caplog.at_level(logging.WARNING):
        assert chunks(levels(scales=(1, 2, 3, 4, 7))) == SHAPE
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert chunks(levels(), MoECCodec(ratio=80, effort="fast")) == SHAPE
    assert "too little in each" in caplog.text


def test_levels_in_groups_and_of_dask(caplog):
    tree = xr.DataTree.from_dict(
        {"/": levels()[["plev", "time"]], "/deep": levels().drop_vars(["plev", "time"])}
    )
    from moec_zarr.conversion.plan.source import open_source

    with open_source(tree) as ds:
        (each,) = plan(ds, CODEC).compressed
    assert (each.name, each.chunks) == ("deep/q", (4, 1, 16, 20))
    pytest.importorskip("dask")
    assert chunks(levels().chunk({"time": 1})) == (4, 1, 16, 20)


def test_each_level_keeps_its_own_figures(tmp_path, client):
    """As one field, the smallest of them would be lost."""
    ds = levels()
    apart = convert(ds, tmp_path / "a.zarr", CODEC, client=client)
    together = convert(ds, tmp_path / "b.zarr", CODEC, chunks={"plev": 5}, client=client)

    def relative(decoded, level):
        error = np.sqrt(np.mean((decoded.q[:, level].values - ds.q[:, level].values) ** 2.0))
        return error / np.ptp(ds.q[:, level].values)

    assert relative(together, 0) > 30 * relative(apart, 0)
    assert max(relative(apart, level) for level in range(5)) < 0.01


def test_encoding_warns(caplog):
    with caplog.at_level(logging.WARNING):
        entries = encoding(levels(), CODEC)
    assert entries["q"]["chunks"] == SHAPE
    assert "ds.chunk({'plev': 1}) makes a chunk of each" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert encoding(levels().chunk({"plev": 1}), CODEC)["q"]["chunks"] == (4, 1, 16, 20)
    assert not caplog.records
