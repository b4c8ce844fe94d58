"""Sources and destinations on S3, served by this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from moec_zarr import MoECError
from moec_zarr.archive.lock import LockedError, hold_lock
from moec_zarr.archive.storage import store_at
from moec_zarr.conversion.verify import verify
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import dataset, quick
from tests.support.s3 import s3_server

xr = pytest.importorskip("xarray")
s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}

SCRIPT = """
import sys
from moec_zarr.cli.commands import main

if __name__ == "__main__":
    main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, str]]:
    """Storage options that lead to a server with one empty bucket."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        options = {"endpoint_url": url}
        s3fs.S3FileSystem(**options, skip_instance_cache=True).mkdir("bucket")
        yield options


@pytest.fixture
def url(request, options):
    """A place of its own for each test."""
    return f"s3://bucket/{request.node.name}/d.zarr"


def test_a_run_is_seen_through_resumed_verified_and_read(source, options, url, client):
    ds = quick(source, url, client, storage_options=options)
    remote = s3fs.S3FileSystem(**options, use_listings_cache=False)
    path = url.removeprefix("s3://")
    remote.rm(f"{path}/a/c/1/0/0")
    remote.pipe(f"{path}/a/c/2/0/0", b"damaged")
    kinds = {(each.chunk, each.kind) for each in verify(url, storage_options=options).problems}
    assert kinds == {((1, 0, 0), "missing"), ((2, 0, 0), "damaged")}
    again = quick(source, url, client, storage_options=options)
    assert verify(url, source, storage_options=options).ok
    xr.testing.assert_equal(ds.load(), again.load())
    # From one bucket to another place in it.
    other = url.replace("d.zarr", "e.zarr")
    copy = quick(url, other, client, storage_options=options)
    xr.testing.assert_equal(copy.load(), again)
    assert not [name for name in remote.find("bucket") if name.endswith(".lock")]


def test_the_lock_is_atomic_there(options, url):
    store = store_at(url, options)
    with hold_lock(store), pytest.raises(LockedError, match="--break-lock"), hold_lock(store):
        pass


def test_new_steps_are_appended_there(options, url, client):
    ds = dataset()[["a"]]
    quick(ds.isel(time=slice(2)), url, client, storage_options=options)
    convert(ds.isel(time=slice(2, 4)), url, append="time", client=client, storage_options=options)
    assert verify(url, ds.isel(time=slice(4)), storage_options=options).ok


def test_files_are_read_there(options, tmp_path, client, monkeypatch):
    pytest.importorskip("netCDF4")
    pytest.importorskip("h5netcdf")
    ds = dataset()[["a"]]
    for i, times in enumerate((slice(2), slice(2, None))):
        ds.isel(time=times).to_netcdf(tmp_path / f"{i}.nc")
        s3fs.S3FileSystem(**options).put(str(tmp_path / f"{i}.nc"), f"bucket/files/{i}.nc")
    again = quick("s3://bucket/files/*.nc", tmp_path / "d.zarr", client, storage_options=options)
    xr.testing.assert_allclose(again.a.load(), ds.a)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MoECError, match="pip install h5netcdf"):
        quick("s3://bucket/files/0.nc", tmp_path / "e.zarr", client, storage_options=options)


def test_the_command_line_with_workers_of_its_own_leaves_no_session_open(source, options, url, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run(*arguments):
        command = [sys.executable, "-X", "dev", str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | KEYS)
        assert "nclosed" not in done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout

    given = ["--storage-option", f"endpoint_url={options['endpoint_url']}"]
    settings = [
        "--ratio",
        "2",
        "--effort",
        "fast",
        "--var",
        "a",
        "--chunks",
        "time=2",
        "--workers",
        "1",
        "--json",
    ]
    result = json.loads(run("convert", str(source), url, *settings, *given))
    assert result["variables"]["a"]["done"] == 3
    found = json.loads(
        run("verify", url, "--against", str(source), "--json", "--storage-option", json.dumps(options))
    )
    assert found["ok"]


def test_all_commands_take_storage_options(source, options, url, client, tmp_path, capsys):
    pytest.importorskip("typer")
    from moec_zarr.cli.commands import main

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main([*map(str, arguments), "--storage-option", f"endpoint_url={options['endpoint_url']}"])
        out, err = capsys.readouterr()
        assert caught.value.code == 0, err
        return out

    quick(source, url, client, storage_options=options)
    original = url.replace("d.zarr", "s.zarr")
    remote = s3fs.S3FileSystem(**options, use_listings_cache=False)
    remote.put(str(source), original, recursive=True)
    run("report", url, "--against", original, "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert url in page
    assert original in page
    assert "A few slices were compared with" in page
    assert "recorded by the conversion" in page
    assert json.loads(run("inspect", url, "--json"))["a"]["shape"] == [5, 12, 16]
    assert json.loads(run("compare", original, url, "--var", "a", "--json"))["a"]["max_error"] == 0
    assert "a" in json.loads(run("migrate", url, "--zarr-format", "2", "--json"))["rewritten"]
    assert remote.exists(f"{url}/.zgroup")
    assert not remote.exists(f"{url}/zarr.json")
