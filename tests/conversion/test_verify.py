"""An archive is checked byte by byte, and what is wrong with it is made again."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

import moec_zarr
from moec_zarr import MoECError
from moec_zarr.conversion.verify import verify
from tests.conversion.conversions import FAST, QUICK, dataset, quick, stored

xr = pytest.importorskip("xarray")


def problems(found):
    return {(each.variable, each.chunk, each.kind) for each in found.problems}


def flip(path, position=-5):
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_sound_archive_is_sound(source, converted):
    found = verify(converted)
    assert found.ok
    assert found.status == "complete"
    assert found.variables["a"].chunks == 3
    found = verify(converted, source)
    assert found.ok
    assert found.variables["a"].compared == 3
    assert found.variables["lat"].compared == 1
    with xr.open_zarr(source) as ds, xr.open_zarr(converted) as again:
        measured = moec_zarr.compare(ds.a, again.a)
    assert found.variables["a"].quality.max_error == pytest.approx(measured.max_error)


def test_every_kind_of_damage_is_named_and_repaired(source, converted, client):
    whole = stored(converted)
    flip(converted / "a/c/1/0/0")
    (converted / "a/c/2/0/0").unlink()
    flip(converted / "lat/c/0")
    (converted / "height/c/0/0").unlink()
    record = converted / "a/.moec_zarr/0.0.0.json"
    record.write_text(record.read_text().replace('"bytes_out": ', '"bytes_out": "12", "x": '))
    expected = {
        ("a", (0, 0, 0), "damaged"),
        ("a", (1, 0, 0), "damaged"),
        ("a", (2, 0, 0), "missing"),
        ("lat", "c/0", "damaged"),
        ("height", "c/0/0", "missing"),
    }
    assert problems(verify(converted)) == expected
    assert problems(verify(converted, source)) == expected
    with pytest.raises(MoECError, match="name it"):
        verify(converted, repair=True)
    found = verify(converted, source, repair=True, client=client)
    assert (found.ok, found.repaired, found.status) == (True, 5, "complete")
    assert stored(converted) == whole


def test_a_resume_makes_what_is_damaged_again(source, converted, client, caplog):
    whole, attrs = stored(converted), xr.open_zarr(converted).attrs
    flip(converted / "a/c/1/0/0")
    flip(converted / "station/c/0")
    flip(converted / "time/c/0")
    quick(source, converted, client)
    assert xr.open_zarr(converted).attrs == attrs
    assert stored(converted) == whole
    assert "chunk (1, 0, 0) of 'a' is made again: its bytes are not those that were written" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [("bytes_out", "12"), ("bytes_in", None), ("seconds", []), ("quality", 3), ("checksum", 5), ("index", 4)],
)
def test_a_record_of_the_wrong_type_does_not_count(source, converted, client, key, value):
    path = converted / "a/.moec_zarr/1.0.0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert problems(verify(converted)) == {("a", (1, 0, 0), "damaged")}
    quick(source, converted, client)
    assert json.loads(path.read_text())[key] != value


def test_a_stream_of_another_shape_is_damage_though_its_record_matches(converted):
    from moec_zarr.archive.storage import digest_of

    stream = bytes(QUICK.encode(np.arange(200, dtype="f4").reshape(2, 10, 10)))
    (converted / "a/c/1/0/0").write_bytes(stream)
    path = converted / "a/.moec_zarr/1.0.0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checksum": digest_of(stream)}))
    (found,) = verify(converted).problems
    assert (found.chunk, found.kind) == ((1, 0, 0), "damaged")
    assert "shape (2, 10, 10)" in found.reason


def test_another_source_is_told_from_the_one_converted(source, converted, tmp_path, client):
    other = tmp_path / "other.zarr"
    shutil.copytree(source, other)
    array = zarr.open_array(other, path="a", mode="r+")
    array[2:4] = array[2:4] + 100
    found = verify(converted, other)
    assert problems(found) == {("a", (1, 0, 0), "differs")}
    assert found.problems[0].reason.startswith("is 100 off at most")
    (converted / "a/c/0/0/0").unlink()
    with pytest.raises(MoECError, match=r"is not what .* was made from"):
        verify(converted, other, repair=True, client=client)
    assert not (converted / "a/c/0/0/0").exists()


def test_a_part_of_the_source_is_compared_where_it_lies(source, converted):
    with xr.open_zarr(source, decode_times=False) as ds:
        found = verify(converted, ds.isel(time=slice(2, 5)))
        assert found.ok
        assert found.variables["a"].compared == 2  # chunks of two steps, the last one shorter
        with pytest.raises(MoECError, match="'lat' is not a part of the store's"):
            verify(converted, ds.assign_coords(lat=ds.lat + 1))


def test_shards_and_stores_that_no_conversion_made(source, tmp_path, client):
    dst = tmp_path / "sharded.zarr"
    quick(source, dst, client, shards={"time": 4})
    assert verify(dst, source).ok
    flip(dst / "a/c/0/0/0", 100)
    assert problems(verify(dst)) == {("a", (0, 0, 0), "damaged")}
    ds = dataset()[["b"]]
    ds.to_zarr(tmp_path / "plain.zarr", encoding=moec_zarr.encoding(ds, FAST), consolidated=False)
    assert verify(tmp_path / "plain.zarr").ok
    flip(tmp_path / "plain.zarr/b/c/0/0/0")
    assert problems(verify(tmp_path / "plain.zarr")) == {("b", (0, 0, 0), "damaged")}
    with pytest.raises(MoECError, match="no zarr store"):
        verify(tmp_path / "absent.zarr")


def test_an_unfinished_store_says_so(source, converted, client, caplog):
    """As a run leaves it that was killed after the first chunk."""
    from moec_zarr.conversion.work.destination import mark

    for index in (1, 2):
        (converted / f"a/c/{index}/0/0").unlink()
        (converted / f"a/.moec_zarr/{index}.0.0.json").unlink()
    mark(zarr.open_group(converted, mode="r+", use_consolidated=False), 1, 3)
    for options in ({}, {"consolidated": False}):
        status = xr.open_zarr(converted, **options).attrs["moec_zarr_status"] if options else None
        assert status is None or status.startswith("incomplete: 1 of 3 chunks")
    found = verify(converted)
    assert found.status.startswith("incomplete: 1 of 3 chunks")
    assert problems(found) == {("a", (1, 0, 0), "missing"), ("a", (2, 0, 0), "missing")}
    quick(source, converted, client)
    assert verify(converted).status == "complete"
