"""New steps join a store; what was decoded once is never fitted again unless that is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import MoECError
from moec_zarr.conversion.verify import verify
from moec_zarr.conversion.work import worker
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import DIMS, FAST, records, stored
from tests.support.fields import smooth

xr = pytest.importorskip("xarray")

DAYS = 12
GRID = (12, 16)


@pytest.fixture(scope="module")
def year():
    """A field over time, with all kinds of things beside it."""
    times = xr.date_range("2026-01-01", periods=DAYS, freq="D", calendar="noleap", use_cftime=True)
    shape = (DAYS, *GRID)
    noise = np.random.default_rng(0).standard_normal(shape).astype("f4")
    ds = xr.Dataset(
        {
            "a": (DIMS, smooth(shape) + noise, {"units": "K"}),
            "packed": (DIMS, np.round(smooth(shape) + noise, 1).astype("f4"), {"units": "m"}),
            "event": ("time", np.array(["none", "storm"] * (DAYS // 3) + ["none"] * (DAYS // 3))),
            "time_bnds": (("time", "nv"), np.stack([times, times], axis=1)),
            "mask": (DIMS[1:], np.ones(GRID, "i1"), {"flag_values": np.array([0, 1], "i1")}),
            "crs": ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"}),
            "station": ("lat", np.array([f"s{i}" for i in range(GRID[0])])),
        },
        {"time": times, "lat": np.arange(12.0), "lon": np.arange(16.0)},
    )
    ds.time.attrs["bounds"] = "time_bnds"
    ds.attrs = {"title": "a year", "history": "simulated"}
    ds.packed.encoding = {"dtype": "i2", "scale_factor": np.float32(0.1), "_FillValue": np.int16(-999)}
    return ds


@pytest.fixture(scope="module")
def files(year, tmp_path_factory):
    """Three files of four days, each with units of its own."""
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for first in range(0, DAYS, 4):
        part = year.isel(time=slice(first, first + 4)).copy()
        part.time.encoding = {"units": f"hours since 2026-01-{first + 1:02}", "dtype": "i4"}
        paths.append(folder / f"{first:02}.nc")
        part.to_netcdf(paths[-1])
    return paths


def begin(src, dst, client, **options):
    return convert(src, dst, FAST, client=client, **{"chunks": {"time": 2}} | options)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_files_one_after_the_other_are_what_all_of_them_are_at_once(
    year, files, tmp_path, client, zarr_format
):
    whole, dst = tmp_path / "whole.zarr", tmp_path / "d.zarr"
    begin(files, whole, client, zarr_format=zarr_format)
    begin(files[0], dst, client, zarr_format=zarr_format)
    before = records(dst)
    for path in files[1:]:
        convert(path, dst, append="time", client=client)
    assert {path: records(dst)[path] for path in before} == before
    with xr.open_zarr(whole) as one, xr.open_zarr(dst) as other:
        assert other.attrs["moec_zarr_status"] == "complete"
        *appended, made, before = other.attrs["history"].splitlines()
        assert [line.split(": ")[1].split(" from ")[0] for line in appended] == ["appended"] * 2
        assert (": converted from" in made, before) == (True, "simulated")
        assert other.attrs["title"] == "a year"
        xr.testing.assert_equal(one, other)
        xr.testing.assert_equal(other.drop_vars(["a", "packed"]).load(), year.drop_vars(["a", "packed"]))
        for name in ("a", "packed"):
            measured = moec_zarr.compare(year[name], other[name])
            assert other[name].attrs["moec_zarr_max_error"] == pytest.approx(measured.max_error, rel=1e-4)
            assert other[name].attrs["moec_zarr_ratio"] > 5
    assert {key: data for key, data in stored(dst).items() if key.startswith(("a/", "packed/"))} == {
        key: data for key, data in stored(whole).items() if key.startswith(("a/", "packed/"))
    }
    assert verify(dst, files).ok


def test_what_is_there_is_recognised(files, tmp_path, client):
    dst = tmp_path / "d.zarr"
    begin(files[:2], dst, client)
    before, data = records(dst), stored(dst)
    for src in (files[:2], files[1], files[0]):
        convert(src, dst, append="time", client=client)
        assert (records(dst), stored(dst)) == (before, data)
    convert(files, dst, append="time", client=client)
    assert {path: records(dst)[path] for path in before} == before
    assert verify(dst, files).ok


def test_an_incomplete_chunk_is_refused_kept_back_or_made_again(year, files, tmp_path, client):
    dst, chunks = tmp_path / "d.zarr", {"time": 3}
    begin(files[0], dst, client, chunks=chunks, append="time", incomplete="hold")
    assert xr.open_zarr(dst).sizes["time"] == 3
    with pytest.raises(MoECError, match="would hold 2 of 3 steps"):
        convert(files[:2], dst, append="time", client=client)
    with pytest.raises(MoECError, match="does not continue the store"):
        convert(files[1], dst, append="time", incomplete="hold", client=client)
    convert(files[:2], dst, append="time", incomplete="hold", client=client)
    assert xr.open_zarr(dst).sizes["time"] == 6
    convert(files[:2], dst, append="time", incomplete="refit", client=client)
    assert xr.open_zarr(dst).sizes["time"] == 8
    before = records(dst)
    with pytest.raises(MoECError, match="holds 2 of 3 steps, so that an append makes it again"):
        convert(files, dst, append="time", client=client)
    with pytest.raises(MoECError, match=r"give the files from .*2026-01-07"):
        convert(files[2], dst, append="time", incomplete="refit", client=client)
    assert records(dst) == before
    convert(files[1:], dst, append="time", incomplete="refit", client=client)
    again = records(dst)
    made = {path.name for path in before if again[path] != before[path]}
    assert made == {"2.0.0.json"}
    begin(files, tmp_path / "whole.zarr", client, chunks=chunks)
    xr.testing.assert_equal(xr.open_zarr(dst), xr.open_zarr(tmp_path / "whole.zarr"))


def test_an_append_that_was_interrupted_goes_on(files, tmp_path, client, monkeypatch):
    dst, whole = tmp_path / "d.zarr", tmp_path / "whole.zarr"
    begin(files[0], dst, client)
    before = records(dst)
    read = worker._stored_values
    with monkeypatch.context() as patch:  # after the first chunks

        def fails(task):
            if task.index[0] == 3:
                raise MoECError("killed")
            return read(task)

        patch.setattr(worker, "_stored_values", fails)
        with pytest.raises(MoECError, match="killed"):
            convert(files[1], dst, append="time", client=client)
    between = records(dst)
    assert len(between) == len(before) + 2
    with xr.open_zarr(dst) as ds:  # as it was
        assert (ds.sizes["time"], ds.attrs["moec_zarr_status"]) == (4, "complete")
    assert verify(dst).status.startswith("incomplete: an append along 'time'")
    convert(files[1], dst, append="time", client=client)
    after = records(dst)
    assert {path: after[path] for path in between} == between
    begin(files[:2], whole, client)
    xr.testing.assert_equal(xr.open_zarr(dst), xr.open_zarr(whole))


def test_another_append_takes_the_place_of_one_that_was_not_finished(files, tmp_path, client, monkeypatch):
    """Nothing of it is seen so far; a file that cannot be finished would be in the way for ever."""
    dst, whole = tmp_path / "d.zarr", tmp_path / "whole.zarr"
    begin(files[0], dst, client)
    with monkeypatch.context() as patch:
        patch.setattr("moec_zarr.conversion.work.run.finish_append", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(files[1:], dst, append="time", client=client)
    with pytest.raises(MoECError, match=r"append to .* is unfinished; give its command again"):
        moec_zarr.migrate(dst, 2)
    convert(files[1], dst, append="time", client=client)
    begin(files[:2], whole, client)
    xr.testing.assert_equal(xr.open_zarr(dst), xr.open_zarr(whole))
    assert verify(dst, files[:2]).ok
    convert(files[2], dst, append="time", client=client)
    assert verify(dst, files).ok


def test_a_damaged_chunk_that_the_source_does_not_hold_is_left_to_a_repair(files, tmp_path, client):
    dst = tmp_path / "d.zarr"
    begin(files[0], dst, client)
    (dst / "a/c/0/0/0").write_bytes(b"damaged")
    with pytest.raises(MoECError, match=r"chunk \(0, 0, 0\) of 'a' in the store is damaged.*verify --repair"):
        convert(files[1], dst, append="time", client=client)
    assert verify(dst, files[0], repair=True, client=client).ok
    convert(files[1], dst, append="time", client=client)
    assert verify(dst, files[:2]).ok


def test_what_does_not_fit_is_refused_before_anything_changes(year, files, tmp_path, client):
    dst = tmp_path / "d.zarr"
    begin(files[0], dst, client)
    before = {path: path.read_bytes() for path in dst.rglob("*") if path.is_file()}
    new = year.isel(time=slice(4, 8))
    celsius = new.assign(a=new.a.assign_attrs(units="degC"))
    halves = new.assign_coords(time=new.time + np.timedelta64(30, "m").astype("m8[us]").item())
    for other, message in (
        (new.drop_vars("packed"), "lacks 'packed'"),
        (new.assign(extra=new.a), "also has 'extra'"),
        (new.assign_coords(lat=new.lat + 1), "'lat' differs"),
        (new.assign(mask=new.mask * 0), "'mask' differs"),
        (new.isel(lon=slice(8)), "'a' of the source has"),
        (celsius, "in degC; in the store"),
        (year.isel(time=slice(8, 12)).isel(time=[1, 0, 2, 3]), "does not continue"),
        (halves, "'time.*' cannot be appended exactly"),
        (new.assign(event=("time", ["none", "hurricane"] * 2)), "'event' cannot be appended exactly"),
    ):
        with pytest.raises(MoECError, match=message):
            convert(other, dst, append="time", client=client)
    for arguments, message in (
        ({"codec": FAST}, "leave them out"),
        ({"append": "lev"}, "no dimension 'lev'"),
        ({"resume": False}, "choose one"),
        ({"append": None, "incomplete": "hold"}, "belongs to an append"),
    ):
        with pytest.raises(MoECError, match=message):
            convert(new, dst, **{"append": "time", "client": client} | arguments)
    with pytest.raises(MoECError, match="give a codec"):
        convert(new, tmp_path / "absent.zarr", append="time", client=client)
    assert {path: path.read_bytes() for path in dst.rglob("*") if path.is_file()} == before


def test_large_lossless_variables_grow_within_a_chunk(year, tmp_path, client, monkeypatch):
    monkeypatch.setattr("moec_zarr.conversion.plan.planning._WHOLE_BYTES", 500)
    dst = tmp_path / "d.zarr"
    flags = year.a.astype("i1").assign_attrs(flag_values=np.array([0], "i1"))
    ds = year[["a"]].assign(flags=flags).drop_vars(["time", "lat", "lon"])
    for part in (slice(4), slice(4, 8)):
        convert(ds.isel(time=part), dst, *([FAST] if part.start is None else []), client=client,
                **({"chunks": {"time": 4}} if part.start is None else {"append": "time"}))  # fmt: skip
    again = xr.open_zarr(dst)
    np.testing.assert_array_equal(again.flags, flags[:8])
    shapes = zarr.open_array(dst, path="flags", mode="r")
    assert shapes.shape == (8, *GRID)
    total = sum(
        json.loads(path.read_text())["bytes_in"] for path in (dst / "flags/.moec_zarr").glob("[0-9]*.json")
    )
    assert total == 8 * GRID[0] * GRID[1]


def test_chunks_asked_for_are_kept_where_the_first_file_is_shorter(tmp_path, client):
    ds = xr.Dataset({"a": (DIMS, smooth((4, 24, 32)))}, coords={"time": np.arange(4)})
    first = {"chunks": {"time": 4}, "append": "time", "incomplete": "refit", "client": client}
    convert(ds.isel(time=[0]), tmp_path / "z", FAST, **first)
    assert zarr.open_group(tmp_path / "z", mode="r")["a"].chunks[0] == 4
    grown = convert(ds, tmp_path / "z", append="time", incomplete="refit", client=client)
    assert zarr.open_group(tmp_path / "z", mode="r")["a"].chunks[0] == 4
    assert np.abs(grown.a.values - ds.a.values).max() < 5
    whole = convert(ds, tmp_path / "w", FAST, chunks={"time": 4}, client=client)
    np.testing.assert_array_equal(grown.a.values, whole.a.values)
