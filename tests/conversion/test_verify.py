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


DAMAGE = {
    "flipped": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "cut short": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"\xff" * len(data),
    "gone": None,
}


@pytest.fixture(scope="module", params=[2, 3])
def written(request, source, client, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "d.zarr"
    quick(source, path, client, zarr_format=request.param)
    return path


@pytest.mark.parametrize("name", ["time", "lat", "height", "quality", "station", "b"])
@pytest.mark.parametrize("how", DAMAGE)
def test_any_variable_that_is_stored_whole_is_repaired(source, written, tmp_path, client, name, how):
    """What is read at once, as the values of an index are, must not be read of what is damaged."""
    dst = tmp_path / "d.zarr"
    shutil.copytree(written, dst)
    whole = stored(dst)
    key = next(key for key in whole if key.startswith(f"{name}/"))
    change = DAMAGE[how]
    for command in (
        lambda: verify(dst, source, repair=True, client=client),
        lambda: quick(source, dst, client, zarr_format=zarr.open_group(dst, mode="r").metadata.zarr_format),
    ):
        (dst / key).unlink() if change is None else (dst / key).write_bytes(change(whole[key]))
        (found,) = verify(dst).problems
        assert (found.variable, f"{name}/{found.chunk}") == (name, key)
        assert problems(verify(dst, source)) == problems(verify(dst))
        command()
        assert stored(dst) == whole
        assert verify(dst, source).ok


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"{}", b"\xff"])
@pytest.mark.parametrize("name", ["a", "time", "station"])
def test_metadata_is_repaired_from_what_is_consolidated(source, written, tmp_path, client, name, damage):
    dst = tmp_path / "d.zarr"
    shutil.copytree(written, dst)
    values = xr.open_zarr(dst).load()
    zarr_format = zarr.open_group(dst, mode="r").metadata.zarr_format
    files = [dst / name / file for file in ((".zarray", ".zattrs") if zarr_format == 2 else ("zarr.json",))]
    for file in files:
        before = json.loads(file.read_text())
        file.unlink() if damage is None else file.write_bytes(damage)
        for against in (None, source):
            assert problems(verify(dst, against)) == {(name, "metadata", "damaged")}
        for options in ({}, {"append": "time", "variables": None, "chunks": "auto", "codec": None}):
            with pytest.raises(MoECError, match=f"metadata of '{name}' .* damaged.*verify --repair"):
                moec_zarr.convert(
                    source, dst, **{"codec": QUICK, "variables": ["a"], "chunks": {"time": 2}} | options,
                    zarr_format=zarr_format, client=client,
                )  # fmt: skip
        found = verify(dst, source, repair=True, client=client)
        assert (found.ok, found.repaired, found.status) == (True, 1, "complete")
        assert json.loads(file.read_text()) == before
        xr.testing.assert_equal(xr.open_zarr(dst, consolidated=False), values)


def test_metadata_that_is_nowhere_is_said_to_be_lost(source, converted, client):
    group = zarr.open_group(converted, mode="r+", use_consolidated=False)
    group.attrs["x"] = 1  # which writes it without what is consolidated
    (converted / "lat/zarr.json").unlink()
    with pytest.raises(MoECError, match="no consolidated metadata to restore it from"):
        verify(converted, source, repair=True, client=client)
    (converted / "zarr.json").write_bytes(b"{")
    with pytest.raises(MoECError, match=r"metadata of the store at .* cannot be read"):
        verify(converted)


def test_a_part_of_the_source_repairs_what_it_holds(source, converted, client):
    with xr.open_zarr(source, decode_times=False) as ds:
        part = ds.isel(time=slice(2, 4)).load()
        flip(converted / "lat/c/0")
        assert verify(converted, part, repair=True, client=client).ok
        flip(converted / "time/c/0")
        with pytest.raises(
            MoECError, match="coordinate, which says which they are, is damaged; give a source"
        ):
            verify(converted, part, repair=True, client=client)
        assert verify(converted, ds, repair=True, client=client).ok


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
    from moec_zarr.conversion.work.outcome import mark

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
