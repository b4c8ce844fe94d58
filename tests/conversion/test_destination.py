"""Destinations that cannot be written, or must not be."""

from __future__ import annotations

import errno
import os

import pytest
import zarr

from moec_zarr import MoECError
from moec_zarr.conversion.work import worker
from moec_zarr.conversion.work.worker import DestinationError
from tests.conversion.conversions import SHAPE, dataset, quick

xr = pytest.importorskip("xarray")


def test_a_store_that_workers_do_not_share_is_refused(source, client):
    with pytest.raises(MoECError, match="cannot be seen from here"):
        quick(source, zarr.storage.MemoryStore(), client)


def test_what_no_conversion_made_is_left_alone(source, tmp_path, client):
    foreign = tmp_path / "foreign.zarr"
    dataset()[["a"]].drop_encoding().to_zarr(foreign, consolidated=False)
    with pytest.raises(MoECError, match="no conversion made it"):
        quick(source, foreign, client)
    array = tmp_path / "array.zarr"
    zarr.create_array(array, shape=(3,), dtype="f4")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    for resume in (True, False):
        with pytest.raises(MoECError, match="holds an array"):
            quick(source, array, client, resume=resume)
        for path in (folder, folder / "letter.txt"):
            with pytest.raises(MoECError, match=r"no zarr store|a file at"):
                quick(source, path, client, resume=resume)
    assert (folder / "letter.txt").read_text() == "dear"


def test_the_source_is_never_overwritten(tmp_path, client):
    src = tmp_path / "s.zarr"
    dataset()[["a"]].drop_encoding().to_zarr(src, consolidated=False)
    for ds in (src, xr.open_zarr(src, consolidated=False)):
        for dst in (src, src / "a", tmp_path):
            with pytest.raises(MoECError, match="overlap"):
                quick(ds, dst, client, resume=False)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_destination_ends_the_run_at_once(source, tmp_path, client, monkeypatch, code):
    calls = []

    def full(*_):
        calls.append(1)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(worker, "write_record", full)
        with pytest.raises(DestinationError, match=os.strerror(code)):
            quick(source, tmp_path / "d.zarr", client, chunks={"time": 1})
    assert len(calls) < SHAPE[0]
    quick(source, tmp_path / "d.zarr", client, chunks={"time": 1})


def test_other_errors_of_a_destination_are_tried_again_and_are_not_their_own_cause(
    source, tmp_path, client, monkeypatch
):
    """Who follows the causes of an error, as dask's workers do, must come to an end."""
    raised, write = [], worker.write_record

    def fails_once(*arguments):
        if not raised:
            raised.append(OSError(errno.EIO, os.strerror(errno.EIO)))
            raise raised[0]
        return write(*arguments)

    monkeypatch.setattr(worker, "write_record", fails_once)
    quick(source, tmp_path / "d.zarr", client, chunks={"time": 1})
    assert raised
    assert raised[0].__cause__ is None


def test_a_destination_that_cannot_be_made_is_refused_before_any_work(source, tmp_path, client):
    (tmp_path / "file").write_text("")
    for dst in (tmp_path / "file" / "d.zarr", "/proc/d.zarr"):
        with pytest.raises(MoECError, match="cannot be written"):
            quick(source, dst, client)
