"""The cluster that a conversion runs on, and what its workers offer."""

from __future__ import annotations

import importlib.util
import subprocess
import time

import pytest

import moec_zarr
from moec_zarr import MoECCodec, MoECError
from moec_zarr.conversion.work.run import convert
from tests.conversion.conversions import quick
from tests.support.bare import python_without_package
from tests.support.clusters import cluster_here

distributed = pytest.importorskip("distributed")


@pytest.mark.torch
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
    assert list(tmp_path.iterdir()) == []  # a run that is refused leaves nothing behind


def test_resources_that_workers_offer_are_taken(source, tmp_path, monkeypatch):
    with (
        cluster_here(1, resources={"GPU": 1}) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        quick(source, tmp_path / "d.zarr", client.scheduler.address, resources={"GPU": 1})
    monkeypatch.setattr("moec_zarr.conversion.work.cluster._ANSWER", 1)
    with pytest.raises(MoECError, match="no scheduler can be reached"):
        quick(source, tmp_path / "e.zarr", "tcp://nowhere.invalid:8786")
    assert not list(tmp_path.glob("e.zarr*"))


def test_workers_need_torch_for_networks_alone(source, tmp_path, client, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else found(name))
    quick(source, tmp_path / "fast.zarr", client)
    codec = MoECCodec(ratio=2, effort="balanced")
    with pytest.raises(MoECError, match=r"cannot do the work: torch not found, .*moec-zarr\[all\]"):
        convert(source, tmp_path / "d.zarr", codec, variables=["a"], chunks={"time": 2}, client=client)


@pytest.mark.parametrize("arguments", [{"workers": 0}, {"workers": 2, "client": "tcp://localhost:1"}])
def test_a_count_of_workers_is_for_a_cluster_made_here(source, tmp_path, arguments):
    with pytest.raises(MoECError, match="workers="):
        quick(source, tmp_path / "d.zarr", **{"client": None} | arguments)


def test_a_worker_without_the_package_is_refused_at_once(source, tmp_path):
    code = (
        "sys.argv = ['dask-worker', *sys.argv[1:], '--no-nanny', '--no-dashboard', "
        f"'--local-directory', {str(tmp_path / 'scratch')!r}]; "
        "from distributed.cli.dask_worker import main; main()"
    )
    command = python_without_package(tmp_path / "bare", code)
    with (
        cluster_here(0, protocol="tcp") as cluster,
        subprocess.Popen([*command, cluster.scheduler_address], stderr=subprocess.DEVNULL) as worker,
    ):
        try:
            with distributed.Client(cluster, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=60)
                with pytest.raises(MoECError, match=r"tcp://.*moec_zarr not found, .*moec-zarr\[all\]"):
                    quick(source, tmp_path / "d.zarr", client)
        finally:
            worker.terminate()
    assert not (tmp_path / "d.zarr").exists()
