from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from tests.support.fields import smooth

import moec_zarr
from moec_zarr import MoECCodec, MoECError
from moec_zarr.conversion import worker as tasks
from moec_zarr.conversion.run import convert
from moec_zarr.conversion.status import ConversionError
from moec_zarr.conversion.worker import DestinationError

xr = pytest.importorskip("xarray")
distributed = pytest.importorskip("distributed")
pytest.importorskip("torch")

SHAPE = (10, 16, 24)
# A field of few values, which fits such a ratio without loss: its fits take no time.
QUICK = MoECCodec(ratio=2, effort="fast")
FAST = MoECCodec(ratio=8, effort="fast")


@pytest.fixture(scope="module")
def client():
    """Two workers in this process, so that tests can get at what they do."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def steps(shape=SHAPE):
    return np.round(smooth(shape) / 20).astype("f4")


def dataset():
    """Two fields and all kinds of things that are to come back as they were."""
    noisy = smooth(SHAPE) + np.random.default_rng(0).standard_normal(SHAPE).astype("f4")
    noisy[2:4, 3:6, 5:9] = np.nan
    flags = (smooth(SHAPE) > 50).astype("i1")
    hours = np.datetime64("2026-01-01", "ns") + np.arange(SHAPE[0]) * np.timedelta64(1, "h")
    dims = ("time", "lat", "lon")
    ds = xr.Dataset(
        {
            "a": (dims, steps(), {"units": "K", "long_name": "a field"}),
            "b": (dims, noisy, {"units": "m"}),
            "quality": (dims, flags, {"flag_values": np.array([0, 1], "i1"), "flag_meanings": "bad good"}),
            "station": ("lat", np.array([f"s{i}" for i in range(SHAPE[1])])),
        },
        coords={
            "time": ("time", hours, {"standard_name": "time"}),
            "lat": np.linspace(-60, 60, SHAPE[1]),
            "lon": np.linspace(0, 31, SHAPE[2]),
            "height": (("lat", "lon"), smooth(SHAPE[1:]), {"units": "m"}),
        },
        attrs={"title": "test", "history": "made"},
    )
    ds.time.encoding = {"units": "hours since 2000-01-01 12:00", "dtype": "i4"}
    ds.a.encoding = {"_FillValue": np.float32(-999)}
    return ds


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "s.nc"
    dataset().to_netcdf(path)
    return path


def quick(source, dst, client, **options):
    options = {"variables": ["a"], "chunks": {"time": 4}} | options
    return convert(source, dst, QUICK, client=client, **options)


def stored(dst):
    """Bytes of every chunk."""
    return {
        str(path.relative_to(dst)): path.read_bytes()
        for path in sorted(dst.rglob("*"))
        if path.is_file() and ".moec_zarr" not in path.parts and not path.name.startswith((".z", "zarr.json"))
    }


def records(dst):
    return {path: path.stat().st_mtime_ns for path in dst.glob("*/.moec_zarr/*.*.json")}


@pytest.mark.parametrize(
    "layout",
    [
        {"zarr_format": 3, "chunks": {"time": 6}},
        {"zarr_format": 2, "chunks": {"time": 6}},
        {"zarr_format": 3, "chunks": {"time": 4}, "shards": {"time": 8}},
    ],
    ids=["v3", "v2", "shards"],
)
def test_all_but_the_fields_comes_back_exactly(source, tmp_path, client, layout):
    dst = tmp_path / "d.zarr"
    seen = []
    ds = convert(source, dst, FAST, client=client, progress=lambda p: seen.append(len(p.records)), **layout)
    with xr.open_dataset(source) as original, xr.open_zarr(dst) as again:
        fields = ["a", "b"]
        lossless = original.drop_vars(fields)
        lossless.attrs = again.attrs
        xr.testing.assert_identical(again.drop_vars(fields).load(), lossless.load())
        assert again.time.encoding["units"] == original.time.encoding["units"]
        for name in fields:
            found = moec_zarr.compare(original[name], again[name])
            assert found.n_special_mismatch == 0
            assert found.psnr > 20
            attrs = dict(again[name].attrs)
            # Rounding alone separates what is stated from what is measured here.
            if found.max_error:
                assert attrs["compression_psnr"] == pytest.approx(found.psnr, abs=0.01)
            assert attrs["compression_max_error"] == pytest.approx(found.max_error)
            assert attrs["compression_ratio"] > 5
            assert "ratio=8" in attrs["compression_codec"]
            assert original[name].attrs.items() <= attrs.items()
        assert again.attrs["history"].endswith(f"converted from {source}\nmade")
        xr.testing.assert_identical(ds.load(), again.load())
    assert seen == sorted(seen)
    assert seen[0] == 0
    for name in fields:
        array = zarr.open_array(dst, path=name, mode="r")
        assert seen[-1] >= 2 * -(-SHAPE[0] // (array.shards or array.chunks)[0])


def test_what_is_returned_is_not_compressed_again(source, tmp_path, client):
    ds = quick(source, tmp_path / "d.zarr", client)
    ds[["a"]].to_zarr(tmp_path / "copy.zarr", consolidated=False)
    array = zarr.open_array(tmp_path / "copy.zarr", path="a", mode="r")
    assert not isinstance(array.serializer, moec_zarr.MoECSerializer)
    xr.testing.assert_equal(ds.a, xr.open_zarr(tmp_path / "copy.zarr", consolidated=False).a)


def test_a_chunk_is_what_zarr_itself_would_store(tmp_path, client):
    ds = dataset()[["b"]].drop_vars(["height"])
    one, other = tmp_path / "one.zarr", tmp_path / "other.zarr"
    with moec_zarr.config.set(threads=1):
        convert(ds, one, FAST, chunks={"time": 6}, client=client)
        entry = moec_zarr.encoding(ds, FAST)
        entry["b"]["chunks"] = (6, *SHAPE[1:])
        ds.to_zarr(other, encoding=entry, consolidated=False)
    assert stored(one) == stored(other)


@pytest.mark.parametrize("kind", ["list of files", "dask", "array", "store"])
def test_every_kind_of_source(tmp_path, client, kind):
    ds = dataset()[["a"]].drop_encoding()
    if kind == "list of files":
        src = [tmp_path / f"{i}.nc" for i in range(2)]
        for path, times in zip(src, (slice(5), slice(5, None)), strict=True):
            ds.isel(time=times).to_netcdf(path)
    elif kind == "store":
        src = tmp_path / "s.zarr"
        ds.to_zarr(src, consolidated=False)
    else:
        src = ds.chunk(time=3) if kind == "dask" else ds.a
    out = convert(src, tmp_path / "d.zarr", QUICK, client=client, chunks={"time": 4})
    xr.testing.assert_allclose(xr.decode_cf(out).a, ds.a, atol=1e-4)
    assert set(out.coords) == set(ds.coords)


def test_stores_other_than_local_paths(source, tmp_path, client):
    path = quick(source, tmp_path / "d.zarr", client)
    for store in (
        "memory://d.zarr",
        f"file://{tmp_path}/e.zarr",
        zarr.storage.LocalStore(tmp_path / "f.zarr"),
    ):
        xr.testing.assert_equal(quick(source, store, client).a, path.a)


def test_a_store_that_workers_do_not_share_is_refused(source, client):
    with pytest.raises(MoECError, match="cannot be seen from here"):
        quick(source, zarr.storage.MemoryStore(), client)


def test_large_lossless_variables_are_copied_by_tasks(tmp_path, client, monkeypatch):
    monkeypatch.setattr("moec_zarr.conversion.plan._WHOLE_BYTES", 1000)
    ds = dataset()
    ds.height.encoding = {"dtype": "i2", "scale_factor": 0.01, "_FillValue": np.int16(-1)}
    ds.to_netcdf(tmp_path / "s.nc")
    convert(tmp_path / "s.nc", tmp_path / "d.zarr", QUICK, variables=["a"], client=client)
    assert (tmp_path / "d.zarr/quality/.moec_zarr/0.0.0.json").exists()
    with xr.open_dataset(tmp_path / "s.nc") as original, xr.open_zarr(tmp_path / "d.zarr") as again:
        for name in ("b", "quality", "height"):
            xr.testing.assert_identical(again[name].variable.load(), original[name].variable.load())
        assert again.height.encoding["scale_factor"] == 0.01


# ---------------------------------------------------------------------------------- resume


def test_what_is_done_is_not_done_again(source, tmp_path, client):
    dst = tmp_path / "d.zarr"
    convert(source, dst, FAST, variables=["b"], chunks={"time": 4}, client=client)
    whole, before = stored(dst), records(dst)
    counts = []
    # As a run leaves it that was killed after a chunk, the last and incomplete one, but before its record.
    (dst / "b/.moec_zarr/2.0.0.json").unlink()
    convert(
        source,
        dst,
        FAST,
        variables=["b"],
        chunks={"time": 4},
        client=client,
        progress=lambda p: counts.append(p),
    )
    assert counts[0].resumed == 2
    after = records(dst)
    assert [path.name for path in before if after[path] != before[path]] == ["2.0.0.json"]
    assert stored(dst) == whole


def test_chunks_of_fill_count_as_done(tmp_path, client):
    ds = dataset()[["a"]].drop_encoding()
    ds["a"][4:8] = np.nan
    quick(ds, tmp_path / "d.zarr", client)
    assert not (tmp_path / "d.zarr/a/c/1/0/0").exists()
    before = records(tmp_path / "d.zarr")
    again = quick(ds, tmp_path / "d.zarr", client)
    assert records(tmp_path / "d.zarr") == before
    assert again.a[4:8].isnull().all()


@pytest.mark.parametrize("damage", ["{", "", "[]", "null", '{"plan": "other"}', b"\xff\xfe"])
def test_a_damaged_record_does_not_count(source, tmp_path, client, damage, caplog):
    dst = tmp_path / "d.zarr"
    quick(source, dst, client)
    whole = stored(dst)
    path = dst / "a/.moec_zarr/1.0.0.json"
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    quick(source, dst, client)
    assert json.loads(path.read_text())["index"] == [1, 0, 0]
    assert "does not count" in caplog.text
    assert stored(dst) == whole


def test_a_chunk_that_has_gone_is_made_again(source, tmp_path, client):
    dst = tmp_path / "d.zarr"
    quick(source, dst, client)
    whole = stored(dst)
    (dst / "a/c/1/0/0").unlink()
    quick(source, dst, client)
    assert stored(dst) == whole


@pytest.mark.parametrize("damage", ["{", "[1]", '{"plan": 3}'])
def test_a_damaged_plan_is_refused(source, tmp_path, client, damage):
    quick(source, tmp_path / "d.zarr", client)
    (tmp_path / "d.zarr/a/.moec_zarr/plan.json").write_text(damage)
    with pytest.raises(MoECError, match=r"plan\.json in the destination is damaged"):
        quick(source, tmp_path / "d.zarr", client)


def test_other_settings_are_refused(source, tmp_path, client):
    dst = tmp_path / "d.zarr"
    quick(source, dst, client)
    before = stored(dst)
    with pytest.raises(MoECError, match=r"a chunks was \(4, 16, 24\), got \(5, 16, 24\)"):
        quick(source, dst, client, chunks={"time": 5})
    with pytest.raises(MoECError, match="codec ratio was 2, got 3"):
        convert(
            source, dst, MoECCodec(ratio=3, effort="fast"), variables=["a"], chunks={"time": 4}, client=client
        )
    assert stored(dst) == before
    quick(source, dst, client, chunks={"time": 5}, resume=False)
    assert zarr.open_array(dst, path="a", mode="r").chunks == (5, 16, 24)


def test_a_source_that_changed_is_refused(source, tmp_path, client):
    src = tmp_path / "s.nc"
    shutil.copy(source, src)
    quick(src, tmp_path / "d.zarr", client)
    with xr.open_dataset(source) as ds:
        ds.load().a.values[0] += 1
        ds.to_netcdf(tmp_path / "new.nc")
    (tmp_path / "new.nc").replace(src)
    with pytest.raises(MoECError, match="source has changed"):
        quick(src, tmp_path / "d.zarr", client)


def test_a_run_that_died_while_it_made_the_metadata_starts_anew(source, tmp_path, client, monkeypatch):
    dst = tmp_path / "d.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_zarr", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quick(source, dst, client)
    assert "a" in quick(source, dst, client)


def test_what_was_not_made_by_a_conversion_is_left_alone(source, tmp_path, client):
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


# ---------------------------------------------------------------------------------- failures


def failing(monkeypatch, errors):
    """Let the reading of chunk (1, 0, 0) raise one error after the other."""
    read = tasks._read
    left = list(errors)

    def fails(task):
        if task.index == (1, 0, 0) and left:
            raise left.pop(0)
        return read(task)

    monkeypatch.setattr(tasks, "_read", fails)
    return left


def test_a_failed_chunk_is_tried_again(source, tmp_path, client, monkeypatch):
    failing(monkeypatch, [OSError("lost"), RuntimeError("odd")])
    quick(source, tmp_path / "d.zarr", client)
    record = json.loads((tmp_path / "d.zarr/a/.moec_zarr/1.0.0.json").read_text())
    assert record["attempt"] == 3


def test_after_three_attempts_it_is_reported_and_the_others_go_on(source, tmp_path, client, monkeypatch):
    dst = tmp_path / "d.zarr"
    with monkeypatch.context() as patch:
        left = failing(patch, [OSError("lost")] * 5)
        with pytest.raises(
            ConversionError, match=r"1 of 3 chunks failed.*\(1, 0, 0\) of 'a': lost"
        ) as caught:
            quick(source, dst, client)
        assert len(left) == 2
    (failure,) = caught.value.progress.failures
    assert (failure.index, failure.attempts) == ((1, 0, 0), 3)
    assert len(records(dst)) == 2
    assert "history" in xr.open_zarr(dst).attrs
    quick(source, dst, client)
    assert len(records(dst)) == 3


def test_what_another_attempt_cannot_change_is_not_tried_again(source, tmp_path, client, monkeypatch):
    left = failing(monkeypatch, [moec_zarr.BudgetError("too small")] * 3)
    with pytest.raises(ConversionError, match="too small") as caught:
        quick(source, tmp_path / "d.zarr", client)
    assert caught.value.progress.failures[0].attempts == 1
    assert len(left) == 2


def test_a_chunk_that_reads_back_wrong_is_found(source, tmp_path, client, monkeypatch):
    check = tasks._check
    monkeypatch.setattr(
        tasks, "_check", lambda task, values: check(task, np.where(values > 0, values, np.nan))
    )
    with pytest.raises(ConversionError, match="reads back with NaN"):
        quick(source, tmp_path / "d.zarr", client)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_destination_ends_the_run_at_once(source, tmp_path, client, monkeypatch, code):
    calls = []

    def full(*_):
        calls.append(1)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "write_record", full)
        with pytest.raises(DestinationError, match=os.strerror(code)):
            quick(source, tmp_path / "d.zarr", client, chunks={"time": 1})
    assert len(calls) < SHAPE[0]
    quick(source, tmp_path / "d.zarr", client, chunks={"time": 1})


def test_a_destination_that_cannot_be_made_is_refused_before_any_work(source, tmp_path, client):
    (tmp_path / "file").write_text("")
    for dst in (tmp_path / "file" / "d.zarr", "/proc/d.zarr"):
        with pytest.raises(MoECError, match="cannot be written"):
            quick(source, dst, client)


def test_resources_that_no_worker_offers_are_refused_at_once(source, tmp_path, client):
    start = time.monotonic()
    with pytest.raises(MoECError, match=r"no worker offers \{'GPU': 1\}; they offer no resources"):
        quick(source, tmp_path / "d.zarr", client, resources={"GPU": 1})
    with (
        moec_zarr.config.set(device="cuda"),
        pytest.raises(MoECError, match="cannot do the work: torch finds no GPU"),
    ):
        quick(source, tmp_path / "d.zarr", client)
    assert time.monotonic() - start < 20


def test_resources_that_workers_offer_are_taken(source, tmp_path, monkeypatch):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, resources={"GPU": 1}, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        quick(source, tmp_path / "d.zarr", client.scheduler.address, resources={"GPU": 1})
    monkeypatch.setattr("moec_zarr.conversion.cluster._ANSWER", 1)
    with pytest.raises(MoECError, match="no scheduler can be reached"):
        quick(source, tmp_path / "e.zarr", "tcp://nowhere.invalid:8786")


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"workers": 2, "client": "tcp://localhost:1"}])
def test_a_count_of_workers_is_for_a_cluster_made_here(source, tmp_path, arguments):
    with pytest.raises(MoECError, match="workers="):
        quick(source, tmp_path / "d.zarr", **{"client": None} | arguments)


# ---------------------------------------------------------------------------------- kill -9

SCRIPT = """
import sys
from moec_zarr import MoECCodec, convert

if __name__ == "__main__":
    convert(sys.argv[1], sys.argv[2], MoECCodec(ratio=8, effort="fast"), variables=["b"],
            chunks={"time": 2}, workers=2)
"""


def test_killed_worker_killed_run_and_resume(source, tmp_path, client):
    psutil = pytest.importorskip("psutil")
    script, dst = tmp_path / "script.py", tmp_path / "d.zarr"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(source), str(dst)]

    def wait_for(count):
        deadline = time.monotonic() + 120
        while len(records(dst)) < count:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    process = subprocess.Popen(command)
    wait_for(1)
    children = psutil.Process(process.pid).children(recursive=True)
    working = max(children, key=lambda child: child.memory_info().rss)
    working.send_signal(signal.SIGKILL)
    wait_for(2)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    before = records(dst)
    assert 2 <= len(before) < 5
    subprocess.run(command, check=True)
    assert {path: records(dst)[path] for path in before} == before
    assert len(records(dst)) == 5
    with moec_zarr.config.set(threads=1):
        convert(source, tmp_path / "e.zarr", FAST, variables=["b"], chunks={"time": 2}, client=client)
    assert stored(dst) == stored(tmp_path / "e.zarr")
