"""A second run goes on where the first one stopped, and never mixes two conversions."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

from moec_zarr import MoECCodec, MoECError
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import FAST, dataset, quick, records, stored

xr = pytest.importorskip("xarray")


def test_finished_chunks_are_not_made_again(source, tmp_path, client):
    dst = tmp_path / "d.zarr"
    part = {"variables": ["b"], "chunks": {"time": 2}}
    convert(source, dst, FAST, client=client, **part)
    whole, before = stored(dst), records(dst)
    counts = []
    # As a run leaves it that was killed after a chunk, the last and incomplete one, but before its record.
    (dst / "b/.moec_zarr/2.0.0.json").unlink()
    convert(source, dst, FAST, client=client, progress=counts.append, **part)
    assert counts[0].resumed == 2
    after = records(dst)
    assert [path.name for path in before if after[path] != before[path]] == ["2.0.0.json"]
    assert stored(dst) == whole


def test_chunks_of_fill_count_as_done(tmp_path, client):
    ds = dataset()[["a"]].drop_encoding()
    ds["a"][2:4] = np.nan
    quick(ds, tmp_path / "d.zarr", client)
    assert not (tmp_path / "d.zarr/a/c/1/0/0").exists()
    before = records(tmp_path / "d.zarr")
    again = quick(ds, tmp_path / "d.zarr", client)
    assert records(tmp_path / "d.zarr") == before
    assert again.a[2:4].isnull().all()


@pytest.mark.parametrize("damage", ["{", "", "[]", "null", '{"plan": "other"}', b"\xff\xfe"])
def test_a_damaged_record_does_not_count(source, converted, client, damage, caplog):
    whole = stored(converted)
    path = converted / "a/.moec_zarr/1.0.0.json"
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    quick(source, converted, client)
    assert json.loads(path.read_text())["index"] == [1, 0, 0]
    assert "does not count" in caplog.text
    assert stored(converted) == whole


def test_an_absent_chunk_is_made_again(source, converted, client):
    whole = stored(converted)
    (converted / "a/c/1/0/0").unlink()
    quick(source, converted, client)
    assert stored(converted) == whole


@pytest.mark.parametrize("damage", ["{", "[1]", '{"plan": 3}'])
def test_a_damaged_plan_is_refused(source, converted, client, damage):
    (converted / "a/.moec_zarr/plan.json").write_text(damage)
    with pytest.raises(MoECError, match=r"plan\.json in the destination is damaged"):
        quick(source, converted, client)


def test_other_settings_are_refused(source, converted, client):
    before = stored(converted)
    with pytest.raises(MoECError, match=r"a chunks was \(2, 12, 16\), got \(3, 12, 16\)"):
        quick(source, converted, client, chunks={"time": 3})
    other = MoECCodec(ratio=3, effort="fast")
    with pytest.raises(MoECError, match="codec ratio was 2, got 3"):
        convert(source, converted, other, variables=["a"], chunks={"time": 2}, client=client)
    assert stored(converted) == before
    quick(source, converted, client, chunks={"time": 3}, resume=False)
    assert zarr.open_array(converted, path="a", mode="r").chunks == (3, 12, 16)


def test_a_source_that_changed_is_refused(source, tmp_path, client):
    src = tmp_path / "s.zarr"
    shutil.copytree(source, src)
    quick(src, tmp_path / "d.zarr", client)
    zarr.open_array(src, path="a", mode="r+")[0] += 1
    with pytest.raises(MoECError, match="source has changed"):
        quick(src, tmp_path / "d.zarr", client)


def test_a_copy_of_an_archive_is_unfinished_until_it_is_done(converted, tmp_path, client, monkeypatch):
    dst = tmp_path / "copy.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("moec_zarr.conversion.work.run.run_tasks", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            quick(converted, dst, client)
    assert xr.open_zarr(dst, consolidated=False).attrs["moec_zarr_status"].startswith("incomplete")
    quick(converted, dst, client)
    assert xr.open_zarr(dst).attrs["moec_zarr_status"] == "complete"


def test_a_run_that_died_while_it_made_the_metadata_starts_anew(source, tmp_path, client, monkeypatch):
    dst = tmp_path / "d.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_zarr", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quick(source, dst, client)
    assert "a" in quick(source, dst, client)
